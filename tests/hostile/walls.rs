//! Images, earlier programs and mounts that put links where a sandbox is put together: nothing outside it is touched, the
//! sandbox's own folders are its own, and what is asked for is there or refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use blink_core::{Blink, Command, ErrorKind, Mount, Network, Session};
use tempfile::TempDir;

use crate::inside::Inside as _;
use crate::server::{Image, Layer};
use crate::support::{fails, isolation, ok};

struct Place {
    folder: TempDir,
    blink: Blink,
}

impl Place {
    async fn new() -> Place {
        let folder = tempfile::Builder::new()
            .prefix("blink-hostile-")
            .tempdir()
            .unwrap();
        let blink = Blink::builder()
            .home(folder.path().join("home"))
            .isolation(isolation());
        let blink = ok(blink.build()).await;
        Place { folder, blink }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// A folder of the host's that a sandbox may see, and one that it may not.
    fn folders(&self) -> (PathBuf, PathBuf) {
        let (shared, secret) = (self.at("shared"), self.at("secret"));
        for folder in [&shared, &secret] {
            fs::create_dir(folder).unwrap();
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            fs::set_permissions(folder, open).unwrap();
        }
        fs::write(secret.join("key"), "the host's key").unwrap();
        (shared, secret)
    }

    /// An image with a shell, and links where the sandbox's own folders are to be.
    fn image(&self, links: &[(&str, &str)]) -> String {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: &str, content: &[u8], mode: u32| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            tar.append_data(&mut header, path, content).unwrap();
        };
        let busybox = fs::read("/bin/busybox").or_else(|_| fs::read("/usr/bin/busybox"));
        add("bin/sh", &busybox.unwrap(), 0o755);
        add("oldroot/readme", b"", 0o644);
        // What would be the agent, were the links followed.
        let decoy = b"#!/bin/sh\necho decoy\n";
        add("newroot/decoy/blink-guest", decoy, 0o755);
        for (name, target) in links {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            header.set_uid(0);
            header.set_gid(0);
            tar.append_link(&mut header, name, target).unwrap();
        }
        let path = self.at(&format!("image-{}", links.len()));
        let path = path.with_extension(format!(
            "{}",
            fs::read_dir(self.folder.path()).unwrap().count()
        ));
        Image::of(&[Layer::plain(&tar.into_inner().unwrap())]).write(&path);
        path.to_str().unwrap().to_owned()
    }

    async fn session(&self, name: &str, mounts: &[Mount]) -> Session {
        let mut builder = self.blink.session(name);
        for mount in mounts {
            builder = builder.mount(mount.clone());
        }
        ok(builder.open()).await
    }
}

/// The text that a shell prints.
async fn says(session: &Session, script: &str) -> String {
    let output = ok(session.exec(Command::shell(script))).await;
    assert!(output.status.success(), "{script}: {output:?}");
    output.text().into_owned()
}

#[tokio::test]
async fn an_image_with_a_link_in_the_place_of_an_own_folder_is_refused() {
    let place = Place::new().await;
    for name in [".blink", "proc", "dev", "sys", "run"] {
        for target in [
            "/newroot/decoy",
            "newroot/decoy",
            "/oldroot",
            "/",
            "../../..",
            "/tmp/x",
        ] {
            let image = place.image(&[(name, target)]);
            let error = fails(
                ErrorKind::InvalidArgument,
                place.blink.sandbox().image(image).create(),
            )
            .await;
            assert!(error.message().contains(&format!("/{name} ")), "{error:?}");
        }
    }
    let left = fs::read_dir(place.at("home/sandboxes")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn links_of_an_image_lead_where_they_lead_inside() {
    let place = Place::new().await;
    let (shared, secret) = place.folders();
    let outside = secret.to_str().unwrap();
    for target in [
        outside,
        &format!("/oldroot{outside}"),
        &format!("../../../../..{outside}"),
    ] {
        let image = place.image(&[
            ("data", target),
            ("etc/resolv.conf", &format!("{target}/resolv.conf")),
        ]);
        let sandbox = place
            .blink
            .sandbox()
            .image(image)
            .network(Network::Host)
            .mount(Mount::new(&shared, "/data/shared"))
            .create();
        let sandbox = ok(sandbox).await;
        let script = "echo written >/data/shared/mark; echo inside >/data/other; read line </etc/resolv.conf && echo read";
        let output = ok(sandbox.exec(Command::new("/bin/sh").args(["-c", script]))).await;
        assert_eq!(output.text(), "read\n", "{output:?}");
        assert_eq!(
            fs::read_to_string(shared.join("mark")).unwrap(),
            "written\n"
        );
        fs::remove_file(shared.join("mark")).unwrap();
        ok(sandbox.remove()).await;
        let found: Vec<_> = fs::read_dir(&secret)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(found, ["key"], "{target}");
    }
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
}

#[tokio::test]
async fn a_mount_that_leads_into_the_sandboxs_own_is_refused() {
    let place = Place::new().await;
    let (shared, _) = place.folders();
    for own in [
        "/proc",
        "/dev",
        "/sys",
        "/.blink",
        "/run/blink",
        "/proc/self",
        "/dev/shm",
    ] {
        let image = place.image(&[("data", own)]);
        let sandbox = place
            .blink
            .sandbox()
            .image(image)
            .mount(Mount::new(&shared, "/data/x"));
        fails(ErrorKind::InvalidArgument, sandbox.create()).await;
        let direct = place.blink.sandbox().mount(Mount::new(&shared, own));
        fails(ErrorKind::InvalidArgument, direct.create()).await;
    }
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
}

#[tokio::test]
async fn what_a_program_moves_does_not_move_a_mount_out() {
    let place = Place::new().await;
    let (shared, secret) = place.folders();
    fs::write(shared.join("authorized_keys"), "mine").unwrap();
    let mounts = [Mount::new(
        shared.join("authorized_keys"),
        "/proj/authorized_keys",
    )];
    let session = place.session("one", &mounts).await;
    for target in [
        secret.to_str().unwrap().to_owned(),
        format!("/oldroot{}", secret.display()),
    ] {
        // What is in the way of a name is moved away; it has a mount in it, which goes with it.
        says(
            &session,
            &format!("rm -f /proj; mv /proj /was-$$ 2>/dev/null; ln -s {target} /proj"),
        )
        .await;
        ok(session.stop()).await;
        ok(session.start()).await;
        assert_eq!(says(&session, "cat /proj/authorized_keys").await, "mine");
        let found: Vec<_> = fs::read_dir(&secret)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(found, ["key"]);
    }
    ok(session.remove()).await;
}

#[tokio::test]
async fn a_source_that_has_become_another_is_refused() {
    let place = Place::new().await;
    let (shared, secret) = place.folders();
    fs::create_dir(shared.join("sub")).unwrap();
    let mounts = [
        Mount::new(&shared, "/proj"),
        Mount::new(shared.join("sub"), "/data"),
    ];
    let session = place.session("one", &mounts).await;
    says(&session, "echo here >/data/mark").await;
    let swap = format!(
        "mv /proj/sub /proj/was && ln -s {} /proj/sub",
        secret.display()
    );
    says(&session, &swap).await;
    ok(session.stop()).await;
    let error = fails(ErrorKind::InvalidArgument, session.start()).await;
    assert!(error.message().contains("shared/sub"), "{error:?}");
    assert!(error.message().contains("another"), "{error:?}");
    // What was there comes back.
    fs::remove_file(shared.join("sub")).unwrap();
    fs::rename(shared.join("was"), shared.join("sub")).unwrap();
    ok(session.start()).await;
    assert_eq!(says(&session, "cat /data/mark").await, "here\n");
    ok(session.remove()).await;
}

#[tokio::test]
async fn a_mount_in_a_mount_depends_on_no_order_and_leaves_nothing() {
    let place = Place::new().await;
    let (shared, secret) = place.folders();
    fs::create_dir(shared.join("inner")).unwrap();
    let outer = Mount::new(&shared, "/proj");
    let inner = Mount::new(&secret, "/proj/inner").read_only();
    for mounts in [
        [outer.clone(), inner.clone()],
        [inner.clone(), outer.clone()],
    ] {
        let mut builder = place.blink.sandbox();
        for mount in mounts {
            builder = builder.mount(mount);
        }
        let sandbox = ok(builder.create()).await;
        let output = ok(sandbox.exec(Command::shell("cat /proj/inner/key"))).await;
        assert_eq!(output.text(), "the host's key");
        ok(sandbox.remove()).await;
    }
    // Nothing is made in a folder of the host's.
    let missing = place
        .blink
        .sandbox()
        .mount(outer)
        .mount(Mount::new(&secret, "/proj/none/deep"));
    let error = fails(ErrorKind::InvalidArgument, missing.create()).await;
    assert!(error.message().contains("/proj/none/deep"), "{error:?}");
    assert!(!shared.join("none").exists());
    symlink("/etc", shared.join("link")).unwrap();
    let through = place
        .blink
        .sandbox()
        .mount(Mount::new(&shared, "/proj"))
        .mount(Mount::new(&secret, "/proj/link/deep"));
    let sandbox = ok(through.create()).await;
    let output = ok(sandbox.exec(Command::shell("cat /etc/deep/key"))).await;
    assert_eq!(output.text(), "the host's key");
    assert!(!Path::new("/etc/deep").exists());
    ok(sandbox.remove()).await;
}

#[tokio::test]
async fn what_tells_of_the_host_is_hidden() {
    let blink = crate::support::blink().await;
    let sandbox = ok(blink.sandbox().create()).await;
    let script = "for name in keys key-users kallsyms config.gz interrupts kcore kmsg timer_list sched_debug kpageflags; do \
                  [ ! -e /proc/$name ] || [ ! -s /proc/$name ] && [ -z \"$(head -c 1 /proc/$name 2>/dev/null)\" ] || echo $name; \
                  done; echo 1 2>/dev/null >/proc/sys/kernel/msgmax && echo sysctl; \
                  echo 1 2>/dev/null >/proc/sysrq-trigger && echo sysrq; grep -c . /proc/cpuinfo >/dev/null || echo cpuinfo";
    let output = ok(sandbox.exec(Command::shell(script))).await;
    assert_eq!(output.text(), "", "{output:?}");
}
