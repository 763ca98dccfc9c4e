//! Programs find what they find on a machine of their own: names, a locale, processors, their standard streams, memory that they
//! only reserve.

use blink_core::{Command, ErrorKind, Network, SandboxSpec};

use crate::inside::Inside as _;
use crate::layout::{LayerTar, Layout, StoredLayer};
use crate::support::{
    Capability, Engine, blink, fails, ok, python, require, sandbox, sandbox_with, shown, within,
};

#[tokio::test]
async fn a_sandbox_has_the_host_name_that_was_asked_for() {
    let blink = blink().await;
    let session = blink.session("named").spec(named("build.example"));
    let session = ok(session.open()).await;
    let script = "cat /etc/hostname; hostname; getent hosts $(hostname) | cut -d ' ' -f 1";
    let says = async || {
        ok(session.exec(Command::shell(script)))
            .await
            .text()
            .trim_end()
            .to_owned()
    };
    assert_eq!(says().await, "build.example\nbuild.example\n127.0.1.1");
    ok(session.stop()).await;
    assert_eq!(says().await, "build.example\nbuild.example\n127.0.1.1");
    for name in ["a_b", "", "a b", "-a", "a."] {
        let other = blink.session("other").spec(named(name)).open();
        let error = fails(ErrorKind::InvalidArgument, other).await;
        assert!(error.message().contains("host name"), "{error:?}");
    }
}

fn named(hostname: &str) -> SandboxSpec {
    let mut spec = SandboxSpec::default();
    spec.hostname = Some(hostname.to_owned());
    spec.memory_mib = Some(1024);
    spec
}

#[tokio::test]
async fn a_sandbox_knows_its_own_name() {
    let sandbox = sandbox().await;
    let id = sandbox.id().to_owned();
    assert_eq!(
        sandbox.says("cat /etc/hostname; hostname").await,
        format!("{id}\n{id}")
    );
    let script =
        "getent hosts localhost | grep -qw localhost && getent hosts $(hostname) | cut -d ' ' -f 1";
    assert_eq!(sandbox.says(script).await, "127.0.1.1");
    if Engine::chosen() == Engine::Microvm {
        // There it is a mount of the engine's own.
        return;
    }
    // It is a file like all others.
    sandbox
        .says(
            "echo 10.0.0.1 other >>/etc/hosts && mv /etc/hosts /etc/old && mv /etc/old /etc/hosts",
        )
        .await;
    assert!(
        sandbox
            .says("getent hosts other")
            .await
            .starts_with("10.0.0.1")
    );
}

#[tokio::test]
async fn a_server_listens_at_its_name_and_at_any_port() {
    let sandbox = sandbox().await;
    let code = "import socket\n\
                for name, port in (('localhost', 0), (socket.gethostname(), 0), ('0.0.0.0', 80), ('::1', 443)):\n\
                \x20   family = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]\n\
                \x20   server = socket.socket(*family[:3]); server.bind(family[4]); server.listen()\n\
                print('listening')";
    let output = sandbox.run(python(code)).await;
    assert_eq!(output.text(), "listening\n", "{}", shown(&output));
}

#[tokio::test]
async fn text_is_utf_8_unless_somebody_says_otherwise() {
    let sandbox = sandbox_with(|builder| builder.env("LC_TIME", "C")).await;
    let code = "import locale, sys; print(locale.getpreferredencoding(), sys.stdout.encoding.lower(), 'ä')";
    assert_eq!(sandbox.run(python(code)).await.text(), "UTF-8 utf-8 ä\n");
    let output = sandbox
        .run(Command::shell("echo $LANG").env("LANG", "C"))
        .await;
    assert_eq!(output.text(), "C\n");
}

#[tokio::test]
async fn processors_and_devices_are_described() {
    let sandbox = sandbox().await;
    assert!(
        sandbox
            .says("cat /sys/devices/system/cpu/online")
            .await
            .starts_with('0')
    );
    assert!(sandbox.says("ls /sys/class/net").await.contains("lo"));
    if Engine::chosen() == Engine::Namespace {
        for path in [
            "/sys/kernel/uevent_helper",
            "/sys/power/state",
            "/sys/module/x",
        ] {
            let output = sandbox.sh(&format!("echo x > {path}")).await;
            assert!(!output.status.success(), "{path}");
        }
        for hidden in [
            "/sys/firmware",
            "/sys/kernel/slab",
            "/sys/devices/virtual/dmi",
        ] {
            assert_eq!(
                sandbox
                    .says(&format!("ls -A {hidden} 2>/dev/null | wc -l"))
                    .await,
                "0",
                "{hidden}"
            );
        }
    }
}

#[tokio::test]
async fn a_choice_among_the_processors_is_no_error() {
    if Engine::chosen() != Engine::Namespace {
        return;
    }
    let sandbox = sandbox_with(|builder| builder.cpus(1.0)).await;
    assert_eq!(
        sandbox.says("nproc; taskset -c 0 true && echo taken").await,
        "1\ntaken"
    );
    // And it is no way to more of them.
    assert_eq!(sandbox.says("taskset -c 0-63 nproc").await, "1");
}

#[tokio::test]
async fn what_is_only_reserved_costs_nothing() {
    let sandbox = sandbox_with(|builder| builder.memory_mib(512)).await;
    let code = "import mmap, threading\n\
                reserved = mmap.mmap(-1, 8 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)\n\
                stop = threading.Event()\n\
                threads = [threading.Thread(target=stop.wait) for _ in range(200)]\n\
                for thread in threads: thread.start()\n\
                stop.set()\n\
                print(len(threads))";
    let output = sandbox.run(python(code)).await;
    assert_eq!(output.text(), "200\n", "{}", shown(&output));
    let size = sandbox
        .says("df -k --output=size /dev/shm | tail -n 1")
        .await;
    let size: u64 = size.trim().parse().unwrap();
    // A machine has some memory more, for its kernel.
    let expected = match Engine::chosen() {
        Engine::Namespace => 262_144..=262_144,
        Engine::Microvm => 200_000..=400_000,
    };
    assert!(expected.contains(&size), "{size}");
}

#[tokio::test]
async fn an_image_of_which_something_is_missing_starts() {
    if Engine::chosen() == Engine::Microvm {
        // The engine's own agent mounts over these files, and follows no link.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = std::fs::read("/usr/bin/busybox").or_else(|_| std::fs::read("/bin/busybox"));
    let layer = LayerTar::new()
        .folder("bin/", 0o755)
        .file_with("bin/busybox", 0o755, 0, &program.unwrap())
        .symlink("bin/sh", "busybox")
        .folder("etc/", 0o755)
        .symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
        .symlink("etc/hosts", "/no/such/hosts")
        .file_with("etc/theirs", 0o644, 70_000, b"kept");
    let layout = Layout::of(folder.path().join("image"), &[StoredLayer::gzip(layer)]).path;
    let blink = blink().await;
    for network in [Network::None, Network::Host] {
        let describing = blink
            .sandbox()
            .image(layout.to_str().unwrap())
            .network(network.clone());
        let sandbox = ok(describing.user("0").create()).await;
        let script = "busybox pwd; busybox grep -c localhost /etc/hosts; busybox cat /etc/theirs; busybox stat -c ' %u' /etc/theirs";
        let output = ok(sandbox.exec(Command::new("sh").args(["-c", script]))).await;
        let owner = match Capability::Users.is_there() {
            true => "65534",
            false => "0",
        };
        assert_eq!(
            output.text(),
            format!("/work\n2\nkept {owner}\n"),
            "{}",
            shown(&output)
        );
        if network == Network::Host {
            let output =
                ok(sandbox
                    .exec(Command::new("sh").args(["-c", "busybox wc -c </etc/resolv.conf"])))
                .await;
            assert_ne!(output.text(), "0\n", "{}", shown(&output));
        }
        ok(sandbox.remove()).await;
    }
}

mod needs_users {
    use super::*;

    #[tokio::test]
    async fn standard_streams_belong_to_the_programs_user() {
        require(Capability::Users);
        let sandbox = sandbox().await;
        let script = "cat /dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr; stat -L -c %u /dev/stdin";
        let output = sandbox
            .run(Command::shell(script).user("user").stdin_bytes("in\n"))
            .await;
        assert_eq!(output.text(), "in\nout\n1000\n", "{}", shown(&output));
        assert_eq!(&output.stderr[..], b"err\n");
        let command = Command::shell(
            "stat -c '%u %a' $(tty); echo typed >$(tty); cat </dev/tty >/dev/null & kill $!",
        )
        .user("user")
        .pty(24, 80);
        let output = sandbox.run(command).await;
        assert_eq!(output.text(), "1000 620\r\ntyped\r\n", "{}", shown(&output));
    }

    #[tokio::test]
    async fn what_the_library_makes_belongs_to_the_sandboxes_user() {
        require(Capability::Users);
        let sandbox = sandbox_with(|builder| builder.user("user")).await;
        let files = sandbox.files();
        ok(files.make_dir("/srv/a/b")).await;
        ok(files.write("/srv/a/b/file", "1")).await;
        ok(files.copy("/srv/a/b/file", "/srv/a/b/copy")).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/file"), "2").unwrap();
        within(files.upload(folder.path(), "/srv/a/up"))
            .await
            .unwrap();
        within(files.upload(folder.path().join("sub/file"), "/srv/a/one"))
            .await
            .unwrap();
        let listed = sandbox
            .says("find /srv/a -not -user user -o -not -group user; echo x >/srv/a/up/sub/new")
            .await;
        assert_eq!(listed, "");
        // What is somebody else's stays theirs, and another owner can be said.
        ok(files.write("/etc/shells", "/bin/sh\n")).await;
        let options = blink_core::WriteOptions::default().user("root");
        within(files.write_with("/srv/a/roots", &mut &b"3"[..], &options))
            .await
            .unwrap();
        assert_eq!(
            sandbox.says("stat -c %U /etc/shells /srv/a/roots").await,
            "root\nroot"
        );
        let of_root = sandbox.files().as_user("root");
        ok(of_root.make_dir_with("/srv/b/c", 0o710)).await;
        ok(of_root.write("/srv/b/file", "4")).await;
        ok(of_root.copy("/srv/b/file", "/srv/b/copy")).await;
        within(of_root.upload(folder.path(), "/srv/b/up"))
            .await
            .unwrap();
        let listed = "find /srv/b -not -user root; stat -c %a /srv/b /srv/b/c";
        assert_eq!(sandbox.says(listed).await, "755\n710");
        let of_nobody = sandbox.files().as_user("nobody-here");
        let error = fails(ErrorKind::NotFound, of_nobody.make_dir("/srv/none")).await;
        assert!(error.message().contains("nobody-here"), "{error}");
        assert!(!ok(sandbox.files().exists("/srv/none")).await);
    }
}

mod needs_host_kernel_and_users {
    use super::*;

    #[tokio::test]
    async fn root_has_users_of_its_own() {
        require(Capability::HostKernel);
        require(Capability::Users);
        let sandbox = sandbox().await;
        let script = "cd /tmp && mkdir a && touch a/f && chown 1234:5 a/f && tar cf t.tar a && rm -r a && tar xf t.tar && cp -a a b \
                  && stat -c '%u %g' a/f b/f && useradd --create-home joe && su joe -c 'cd && id -un && pwd' && passwd -S joe | cut -d ' ' -f 1";
        assert_eq!(
            sandbox.says(script).await,
            "1234 5\n1234 5\njoe\n/home/joe\njoe"
        );
    }
}
