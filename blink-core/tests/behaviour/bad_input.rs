//! What is wrong from the start: a clear error of the right kind that names the thing, and nothing left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as HostCommand;
use std::time::Duration;

use blink_core::{Blink, Command, ErrorKind, Isolation, IsolationChoice, Mount, SandboxBuilder};
use serde_json::json;

use crate::child;
use crate::support::{
    Capability, Engine, TestBlink, blink, fails, host_pid, ok, require, sha256, until,
};

async fn refused(
    kind: ErrorKind,
    describe: impl FnOnce(SandboxBuilder) -> SandboxBuilder,
) -> String {
    let blink = blink().await;
    let error = fails(kind, describe(blink.sandbox()).create()).await;
    assert!(blink.folders().is_empty());
    error.message().to_owned()
}

#[tokio::test]
async fn an_image_that_cannot_be_is_refused_by_name() {
    assert!(
        !refused(ErrorKind::InvalidArgument, |builder| builder.image(""))
            .await
            .is_empty()
    );
    for image in [
        "no such image!",
        "UPPER/case",
        "a\0b",
        "/no/such/folder",
        "./missing.tar",
    ] {
        let blink = blink().await;
        let error = crate::support::within(blink.sandbox().image(image).create())
            .await
            .map(drop)
            .unwrap_err();
        let expected = [
            ErrorKind::InvalidArgument,
            ErrorKind::NotFound,
            ErrorKind::ImageUnavailable,
        ];
        assert!(expected.contains(&error.kind()), "{image}: {error:?}");
        assert!(blink.folders().is_empty());
    }
    let message = refused(ErrorKind::ImageUnavailable, |builder| {
        builder.image("alpine:3.20")
    })
    .await;
    assert!(message.contains("alpine:3.20"), "{message}");
    // A folder that is no layout.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let blink = blink().await;
    let error = crate::support::within(blink.sandbox().image(path.clone()).create())
        .await
        .map(drop)
        .unwrap_err();
    assert!(error.message().contains(&path), "{error:?}");
}

#[tokio::test]
async fn limits_that_cannot_be_are_refused() {
    for cpus in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(
            refused(ErrorKind::InvalidArgument, |builder| builder.cpus(cpus))
                .await
                .contains("processor")
        );
    }
    assert!(
        refused(ErrorKind::InvalidArgument, |builder| builder.memory_mib(0))
            .await
            .contains("memory")
    );
    assert!(
        refused(ErrorKind::InvalidArgument, |builder| builder.disk_mib(0))
            .await
            .contains("disk")
    );
    assert!(
        refused(ErrorKind::InvalidArgument, |builder| builder.processes(0))
            .await
            .contains("processes")
    );
}

#[tokio::test]
async fn an_environment_that_cannot_be_is_refused() {
    for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")] {
        assert!(
            refused(ErrorKind::InvalidArgument, |builder| builder
                .env(name, value))
            .await
            .contains("environment")
        );
    }
}

#[tokio::test]
async fn mounts_that_cannot_be_are_refused_by_name() {
    let host = tempfile::tempdir().unwrap();
    let missing = host.path().join("missing");
    let message = refused(ErrorKind::NotFound, |builder| {
        builder.mount(Mount::new(&missing, "/mnt/x"))
    })
    .await;
    assert!(message.contains("missing"), "{message}");
    for guest in [
        "",
        "relative",
        "/",
        "/proc",
        "/proc/x",
        "/dev",
        "/sys",
        "/.blink",
        "/mnt/../etc",
        "//",
        "/.",
        "/.blink/",
        "/.blink/disk",
        "/mnt/a\0b",
    ] {
        let message = refused(ErrorKind::InvalidArgument, |builder| {
            builder.mount(Mount::new(host.path(), guest))
        })
        .await;
        assert!(!message.is_empty());
    }
}

#[tokio::test]
async fn a_user_or_folder_that_is_missing_is_told_by_the_first_command() {
    let blink = blink().await;
    let sandbox = blink.create(|builder| builder.user("otto")).await;
    let error = fails(ErrorKind::NotFound, sandbox.exec(Command::new("true"))).await;
    assert!(error.message().contains("otto"), "{error:?}");
    let output = sandbox.run(Command::new("true").user("root")).await;
    assert!(output.status.success());
}

#[tokio::test]
async fn a_home_that_cannot_be_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = fails(
        ErrorKind::NotADirectory,
        Blink::builder().home(file.join("home")).build(),
    )
    .await;
    assert!(
        error.message().contains("file") && error.message().contains("BLINK_HOME"),
        "{error:?}"
    );
    let error = fails(
        ErrorKind::InvalidArgument,
        Blink::builder().home("/proc/blink").build(),
    );
    // The kernel says "no such file" there.
    drop(error);
    assert!(Blink::builder().home("/proc/blink").build().await.is_err());
}

fn one_shot(home: &Path, prepare: impl FnOnce(&mut HostCommand)) -> String {
    let mut command = child::command("one shot", home);
    prepare(&mut command);
    let mut reports = child::report(command);
    assert_eq!(reports.len(), 1, "{reports:?}");
    reports.remove(0)
}

/// A layout whose one layer holds the agent as the only program: it is static.
fn make_layout(folder: &Path, program: &Path) {
    let root = folder.join("root");
    for name in ["bin", "tmp", "proc", "dev", "run", "etc", ".blink", "work"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy(program, root.join("bin/tool")).unwrap();
    fs::set_permissions(
        root.join("bin/tool"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    let tar = folder.join("layer.tar");
    let status = HostCommand::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(&tar)
        .arg(".")
        .status()
        .unwrap();
    assert!(status.success());
    let layout = folder.join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let blob = |media_type: &str, content: &[u8]| {
        let digest = sha256(content);
        fs::write(layout.join("blobs/sha256").join(&digest), content).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len() })
    };
    let layer = blob(
        "application/vnd.oci.image.layer.v1.tar",
        &fs::read(&tar).unwrap(),
    );
    let architecture = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": { "Env": ["PATH=/bin", "A=image"], "WorkingDir": "/work" },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = blob(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [layer],
    });
    let manifest = blob(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    fs::write(
        layout.join("index.json"),
        json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string(),
    )
    .unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
}

/// The agent that a first sandbox has put into the home.
async fn static_program(blink: &TestBlink) -> PathBuf {
    ok(ok(blink.sandbox().create()).await.remove()).await;
    let installed = fs::read_dir(blink.home().join("guest")).unwrap();
    installed
        .map(|entry| entry.unwrap().path().join("blink-guest"))
        .find(|path| path.is_file())
        .unwrap()
}

#[tokio::test]
async fn an_image_in_a_folder_boots_and_a_damaged_one_does_not() {
    let blink = blink().await;
    let folder = tempfile::tempdir().unwrap();
    make_layout(folder.path(), &static_program(&blink).await);
    let layout = folder.path().join("layout");
    let image = layout.to_str().unwrap().to_owned();

    let sandbox = ok(blink.sandbox().image(image.clone()).create()).await;
    let output = ok(sandbox.exec(Command::new("tool").arg("--version"))).await;
    assert!(
        output.status.success() && output.text().starts_with("blink-guest"),
        "{}",
        crate::support::shown(&output)
    );
    let files = sandbox.files().unwrap();
    let names: Vec<_> = ok(files.list("/bin"))
        .await
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, ["tool"]);
    ok(files.write("/work/file", "x")).await;
    let process =
        ok(sandbox.spawn(Command::new("tool").args(["serve", "--listen", "/tmp/s"]))).await;
    let folders = blink.folders();
    assert!(crate::support::is_alive(host_pid(&folders[0])));
    // Its environment and folder are the image's.
    let pid = process.pid();
    let environment = ok(sandbox.exec(Command::new("/bin/missing").env("B", "x"))).await;
    assert_eq!(environment.status.code, 127);
    assert!(pid > 1);
    ok(sandbox.remove()).await;

    // Another one of the same image does not see what the first wrote.
    let sandbox = ok(blink.sandbox().image(image.clone()).create()).await;
    assert!(!ok(sandbox.files().unwrap().exists("/work/file")).await);
    ok(sandbox.remove()).await;

    // A tar of the layout is the same image.
    let tar = folder.path().join("image.tar");
    let status = HostCommand::new("tar")
        .arg("-C")
        .arg(&layout)
        .arg("-cf")
        .arg(&tar)
        .arg(".")
        .status()
        .unwrap();
    assert!(status.success());
    let sandbox = ok(blink.sandbox().image(tar.to_str().unwrap()).create()).await;
    assert!(
        ok(sandbox.exec(Command::new("tool").arg("--version")))
            .await
            .status
            .success()
    );
    ok(sandbox.remove()).await;

    // One byte changed, in an image that is not stored yet.
    let other = self::blink().await;
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    let largest = blobs
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let error = fails(ErrorKind::Corrupt, other.sandbox().image(image).create()).await;
    let digest = largest.file_name().unwrap().to_str().unwrap();
    assert!(error.message().contains(&digest[..12]), "{error:?}");
    assert!(other.folders().is_empty());
}

/// A program in Python that greets as an agent does, where one does, and then sends what is no frame.
fn speaks_noise() -> &'static str {
    match Engine::chosen() {
        Engine::Namespace => "import os, sys\nos.write(int(sys.argv[3]), os.urandom(1 << 20))",
        Engine::Microvm => {
            "import os, socket, sys, time\n\
             greeted = b''\n\
             while not greeted:\n  \
               time.sleep(0.1)\n  \
               link = socket.socket(socket.AF_VSOCK)\n  \
               link.connect((2, 2696))\n  \
               link.sendall(sys.argv[sys.argv.index('--secret') + 1].encode() + b'\\n')\n  \
               greeted = link.recv(1)\n\
             link.sendall(b'+' + os.urandom(1 << 20))"
        }
    }
}

#[tokio::test]
async fn an_agent_that_is_none_is_told() {
    let blink = blink().await;
    let report = one_shot(blink.home(), |command| {
        command.env("BLINK_GUEST_BINARY", "/no/such/agent");
    });
    assert!(report.contains("/no/such/agent"), "{report}");
    // A program that ends at once, and one that prints what is no frame.
    let report = one_shot(blink.home(), |command| {
        command.env("BLINK_GUEST_BINARY", "/bin/false");
    });
    assert!(report.starts_with("SandboxDied"), "{report}");
    let folder = tempfile::tempdir().unwrap();
    let agent = folder.path().join("agent");
    fs::write(
        &agent,
        format!(
            "#!/usr/bin/env python3\n{}\nimport time; time.sleep(100)\n",
            speaks_noise()
        ),
    )
    .unwrap();
    fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let report = one_shot(blink.home(), |command| {
        command.env("BLINK_GUEST_BINARY", &agent);
    });
    assert!(report.starts_with("Protocol"), "{report}");
    until("no folder", || blink.folders().is_empty()).await;
    tokio::time::sleep(Duration::ZERO).await;
}

mod needs_host_kernel {
    use super::*;

    #[tokio::test]
    async fn microvms_are_refused_with_the_way_to_less() {
        require(Capability::HostKernel);
        let blink = blink().await;
        let auto = ok(blink.sandbox().isolation(IsolationChoice::Auto).create()).await;
        let strongest = auto.isolation();
        ok(auto.remove()).await;
        let creating = blink.sandbox().isolation(IsolationChoice::Microvm).create();
        if strongest == Isolation::Microvm {
            return ok(ok(creating).await.remove()).await;
        }
        let error = fails(ErrorKind::IsolationUnavailable, creating).await;
        assert!(error.message().contains("namespace"), "{error:?}");
        let default = Blink::builder().home(blink.home()).build();
        let error = fails(
            ErrorKind::IsolationUnavailable,
            ok(default).await.sandbox().create(),
        )
        .await;
        assert!(error.message().contains("--isolation auto"), "{error:?}");
        assert!(blink.folders().is_empty());
    }
}

mod needs_host_kernel_and_host_mounts {
    use super::*;

    #[tokio::test]
    async fn where_user_namespaces_are_forbidden_it_says_so() {
        require(Capability::HostKernel);
        require(Capability::HostMounts);
        let blink = blink().await;
        // A user namespace of its own, in which no further ones may be made.
        let allowed = HostCommand::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "sh",
                "-c",
                "echo 0 > /proc/sys/user/max_user_namespaces && ! unshare --user true",
            ])
            .status()
            .is_ok_and(|status| status.success());
        assert!(allowed, "user namespaces cannot be forbidden here");
        let inner = child::command("one shot", blink.home());
        let mut command = HostCommand::new("unshare");
        command
            .args([
                "--user",
                "--map-root-user",
                "sh",
                "-c",
                "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"",
                "sh",
            ])
            .arg(inner.get_program())
            .args(inner.get_args());
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap());
        }
        let reports = child::report(command);
        assert_eq!(reports.len(), 1);
        assert!(
            reports[0].starts_with("IsolationUnavailable"),
            "{reports:?}"
        );
        assert!(reports[0].contains("namespaces"), "{reports:?}");
        assert!(blink.folders().is_empty());
    }
}

mod needs_host_mounts {
    use super::*;

    #[tokio::test]
    async fn a_full_disk_is_said_and_leaves_nothing() {
        require(Capability::HostMounts);
        // Where it starts at last: a machine's own parts and its kernel's disk are some 150 MiB.
        let (small, roomy) = match Engine::chosen() {
            Engine::Namespace => ([64, 1024, 3 << 10], 16 << 10),
            Engine::Microvm => ([64, 1024, 16 << 10], 220 << 10),
        };
        for size_kib in small.into_iter().chain([roomy]) {
            let home = tempfile::tempdir().unwrap();
            let inner = child::command("fill", home.path());
            let mut command = HostCommand::new("unshare");
            let script = format!(
                "mount -t tmpfs -o size={size_kib}k none \"$0\" && \"$@\" && ls \"$0/sandboxes\" | sed 's/^/report left /'"
            );
            command
                .args(["--mount", "sh", "-c", &script])
                .arg(home.path())
                .arg(inner.get_program())
                .args(inner.get_args());
            for (name, value) in inner.get_envs() {
                command.env(name, value.unwrap());
            }
            let reports = child::report(command);
            assert!(
                !reports.iter().any(|report| report.starts_with("left")),
                "{size_kib}: {reports:?}"
            );
            if size_kib == roomy {
                assert_eq!(reports.last().unwrap(), "ok", "{reports:?}");
            }
            // A machine keeps what is written in its own memory for a while, and its programs with it.
            if size_kib == roomy && Engine::chosen() == Engine::Microvm {
                assert!(reports.len() > 1, "{reports:?}");
                continue;
            }
            assert!(
                reports[0].starts_with("ResourceExhausted"),
                "{size_kib}: {reports:?}"
            );
            if size_kib == roomy {
                // What fits is there.
                assert!(
                    reports[2].contains("small") || reports[1] == "ok",
                    "{reports:?}"
                );
            }
        }
    }
}
