//! What a program in a sandbox cannot do.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use blink_core::{Command, Isolation, Mount, Network};

use crate::support::{Capability, Engine, ok, python, require, sandbox, sandbox_with, shown};

#[tokio::test]
async fn it_says_what_isolation_it_has() {
    let sandbox = sandbox().await;
    let expected = match Engine::chosen() {
        Engine::Namespace => Isolation::Namespace,
        Engine::Microvm => Isolation::Microvm,
    };
    assert_eq!(sandbox.isolation(), expected);
    assert_eq!(sandbox.sh("true").await.isolation, expected);
    assert!(sandbox.agent().unwrap().starts_with("blink-guest"));
    assert!(sandbox.death().is_none());
}

/// Over the sandbox's own users: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, sys_chroot,
/// audit_write, setfcap.
const ROOTS_CAPABILITIES: u64 = 0xa004_05fb;

#[tokio::test]
async fn the_network_is_its_own_loopback() {
    let sandbox = sandbox().await;
    let interfaces = sandbox
        // A kernel may make one that leads nowhere.
        .says("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | grep -v dummy0")
        .await;
    assert_eq!(interfaces, "lo");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let reach = format!("import socket; socket.create_connection(('127.0.0.1', {port}), 5)");
    let output = sandbox.python(&reach).await;
    assert!(!output.status.success(), "{}", shown(&output));
    let output = sandbox
        .python("import socket; socket.create_connection(('192.0.2.1', 80), 5)")
        .await;
    assert!(!output.status.success());
    // Its own loopback works.
    let own = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())";
    assert!(sandbox.python(own).await.status.success());
    // With the host's network it is reached, from a machine by the name that its network has for the host.
    let with_host = sandbox_with(|builder| builder.network(Network::Host)).await;
    let host = match Capability::HostKernel.is_there() {
        true => "127.0.0.1",
        false => "192.168.127.254",
    };
    let reach = format!("import socket; socket.create_connection(('{host}', {port}), 5)");
    let output = with_host.python(&reach).await;
    assert!(output.status.success(), "{}", shown(&output));
}

#[tokio::test]
async fn the_hosts_files_are_not_there() {
    let canaries = [
        tempfile::tempdir().unwrap(),
        tempfile::tempdir_in(std::env::home_dir().unwrap()).unwrap(),
    ];
    let sandbox = sandbox().await;
    for canary in &canaries {
        let file = canary.path().join("canary");
        fs::write(&file, "secret").unwrap();
        fs::set_permissions(canary.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let output = sandbox.run(Command::new("cat").arg(&file)).await;
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{}",
            shown(&output)
        );
        assert!(!ok(sandbox.files().exists(&file)).await);
        assert!(!ok(sandbox.files().exists(canary.path())).await);
    }
    assert_eq!(
        sandbox.says("ls -A /tmp /root /home/user").await,
        "/home/user:\n\n/root:\n\n/tmp:"
    );
    let users = sandbox.says("cut -d: -f1 /etc/passwd | tr '\\n' ' '").await;
    assert_eq!(users.trim(), "root daemon user nobody");
    assert!(!sandbox.sh("cat /etc/shadow").await.status.success());
    assert_eq!(
        sandbox
            .says("find /.blink -path /.blink/disk -prune -o -type f -print")
            .await,
        "/.blink/blink-guest"
    );
}

#[tokio::test]
async fn the_hosts_processes_are_not_there() {
    let sandbox = sandbox().await;
    assert_eq!(sandbox.processes_seen().await, [""; 0]);
    let agent = sandbox.says("cat /proc/1/comm").await;
    assert_eq!(agent, "blink-guest");
}

#[tokio::test]
async fn the_agent_cannot_be_ended_or_looked_into() {
    let sandbox = sandbox().await;
    for signal in [
        "KILL", "TERM", "STOP", "INT", "HUP", "CHLD", "USR1", "SEGV", "PIPE", "ABRT", "34",
    ] {
        sandbox
            .sh(&format!(
                "kill -{signal} 1; kill -{signal} -1 2>/dev/null; true"
            ))
            .await;
        ok(sandbox.ping()).await;
    }
    // The numbers of its descriptors can be seen, and nothing behind them.
    for path in [
        "mem",
        "maps",
        "environ",
        "fd/0",
        "fd/3",
        "fd/5",
        "root",
        "cwd",
        "exe",
        "io",
        "map_files",
        "syscall",
        "stack",
        "auxv",
    ] {
        let output = sandbox
            .sh(&format!(
                "cat /proc/1/{path} || ls /proc/1/{path}/ || readlink /proc/1/{path}"
            ))
            .await;
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{path}: {}",
            shown(&output)
        );
    }
    let attach = "import ctypes, sys; libc = ctypes.CDLL(None, use_errno=True); sys.exit(libc.ptrace(16, 1, 0, 0) == 0)";
    assert!(sandbox.python(attach).await.status.success());
    let read = "import ctypes, sys; libc = ctypes.CDLL(None)\nclass V(ctypes.Structure): _fields_ = [('b', ctypes.c_void_p), ('l', ctypes.c_size_t)]\n\
                b = ctypes.create_string_buffer(8); v = V(ctypes.addressof(b), 8)\n\
                sys.exit(libc.process_vm_readv(1, ctypes.byref(v), 1, ctypes.byref(V(0x400000, 8)), 1, 0) > 0)";
    assert!(sandbox.python(read).await.status.success());
    assert!(
        !sandbox
            .sh("echo x > /.blink/blink-guest")
            .await
            .status
            .success()
    );
    assert!(
        !sandbox
            .sh("rm -f /.blink/blink-guest")
            .await
            .status
            .success()
    );
    assert!(!sandbox.sh("touch /.blink/disk/x").await.status.success());
    ok(sandbox.ping()).await;
}

#[tokio::test]
async fn programs_of_the_host_cannot_be_changed() {
    let sandbox = sandbox().await;
    let programs = [
        "touch /usr/x",
        "rm -f /usr/bin/env",
        "echo x >> /bin/sh",
        "mv /usr/bin/env /usr/bin/enw",
        "chmod 777 /usr/bin/env",
        "mount -o remount,rw /usr",
    ];
    let kernel = [
        "touch /proc/sys/kernel/x || echo 1 > /proc/sys/vm/drop_caches",
        "echo x > /proc/sysrq-trigger",
        "mknod /tmp/disk b 8 0 && cat /tmp/disk",
        "mknod /tmp/mem c 1 1 && cat /tmp/mem",
        "cat /dev/mem /dev/kmem /dev/kvm /dev/vda /dev/sda",
        "cat /proc/kcore",
        "dmesg",
        "ls /sys/kernel/debug/tracing/trace",
    ];
    let kernel = kernel.iter().filter(|_| Capability::HostKernel.is_there());
    for script in programs.iter().chain(kernel) {
        let output = sandbox.sh(script).await;
        assert!(!output.status.success(), "{script}: {}", shown(&output));
    }
    assert!(std::path::Path::new("/usr/bin/env").exists());
    // The rest is its own.
    sandbox
        .says(
            "touch /etc/x /opt/x /var/x /x; rm /etc/hosts; echo own > /etc/hosts; mv /opt/x /opt/y",
        )
        .await;
}

#[tokio::test]
async fn the_host_name_is_its_own() {
    let sandbox = sandbox().await;
    assert_eq!(
        sandbox.says("uname -n; hostname").await,
        format!("{0}\n{0}", sandbox.id())
    );
    assert_eq!(
        sandbox.says("cat /proc/sys/kernel/hostname").await,
        sandbox.id()
    );
}

#[tokio::test]
async fn two_sandboxes_do_not_see_each_other() {
    let blink = crate::support::blink().await;
    let first = ok(blink.sandbox().create()).await;
    let second = blink.create(|builder| builder).await;
    assert_ne!(first.id(), second.id());
    let _sleeping = ok(first.spawn(Command::new("sleep").arg("12345"))).await;
    let mark = "touch /tmp/mark /dev/shm/mark /run/mark /var/tmp/mark; ipcmk -M 100 >/dev/null; \
                python3 -c \"import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0name'); s.listen(); print('x')\"";
    ok(first.exec(Command::shell(mark))).await;
    let output = second
        .sh("ls /tmp/mark /dev/shm/mark /run/mark /var/tmp/mark")
        .await;
    assert_eq!(output.stdout.len(), 0, "{}", shown(&output));
    assert_eq!(second.processes_seen().await, [""; 0]);
    assert_eq!(second.says("tail -n +2 /proc/sysvipc/shm").await, "");
    let boot = match Capability::HostKernel.is_there() {
        true => "cat /proc/sys/kernel/hostname; readlink /proc/self/ns/*",
        false => "cat /proc/sys/kernel/hostname /proc/sys/kernel/random/boot_id",
    };
    let of_first = ok(first.exec(Command::shell(boot)))
        .await
        .text()
        .into_owned();
    let of_second = second.says(boot).await;
    for (one, other) in of_first.lines().zip(of_second.lines()) {
        assert!(one != other || one.starts_with("time"), "{one}");
    }
    ok(first.remove()).await;
    ok(second.ping()).await;
}

/// Folders of the host for mounts, and a file.
fn mountable() -> tempfile::TempDir {
    let host = tempfile::tempdir().unwrap();
    for name in ["shared", "fixed"] {
        fs::create_dir(host.path().join(name)).unwrap();
        fs::write(host.path().join(name).join("in"), name).unwrap();
    }
    fs::write(host.path().join("file"), "one file").unwrap();
    fs::write(host.path().join("outside"), "secret").unwrap();
    host
}

#[tokio::test]
async fn a_mount_is_shared_with_the_host() {
    let host = mountable();
    let shared = host.path().join("shared");
    let mount = Mount::new(&shared, "/mnt/shared");
    let sandbox = sandbox_with(|builder| builder.mount(mount)).await;
    assert_eq!(sandbox.says("cat /mnt/shared/in").await, "shared");
    sandbox
        .says("echo -n back > /mnt/shared/out; rm /mnt/shared/in; mkdir /mnt/shared/d")
        .await;
    assert_eq!(fs::read_to_string(shared.join("out")).unwrap(), "back");
    assert!(!shared.join("in").exists());
    ok(sandbox.files().write("/mnt/shared/file", "by the agent")).await;
    assert_eq!(
        fs::read_to_string(shared.join("file")).unwrap(),
        "by the agent"
    );
    let outside = sandbox.sh("cat /mnt/shared/../outside").await;
    assert!(!outside.status.success());
    // What is removed with the sandbox is the sandbox's alone.
    sandbox.remove().await;
    assert!(shared.join("out").exists());
}

/// The host's user that a program of a sandbox is.
fn user_on_host(argument: &str) -> u32 {
    let is_it = |folder: &std::path::Path| {
        fs::read(folder.join("cmdline"))
            .is_ok_and(|line| line == format!("sleep\0{argument}\0").as_bytes())
    };
    let folders = fs::read_dir("/proc").unwrap().flatten();
    let folder = folders.map(|entry| entry.path()).find(|path| is_it(path));
    fs::metadata(folder.unwrap()).unwrap().uid()
}

#[tokio::test]
async fn a_mount_that_may_only_be_read_is_not_changed() {
    let host = mountable();
    for (name, guest, content) in [
        ("fixed", "/deep/er/fixed", "fixed"),
        ("file", "/etc/one", "one file"),
    ] {
        let path = host.path().join(name);
        let mount = Mount::new(&path, guest).read_only();
        let sandbox = sandbox_with(|builder| builder.mount(mount)).await;
        let (inside, file) = match path.is_dir() {
            true => (format!("{guest}/in"), path.join("in")),
            false => (guest.to_owned(), path),
        };
        assert_eq!(sandbox.says(&format!("cat {inside}")).await, content);
        for script in ["touch new", "echo x > $0", "rm -f $0", "chmod 777 $0"] {
            let script =
                format!("cd {guest} 2>/dev/null || exit 1; {script}").replace("$0", &inside);
            assert!(!sandbox.sh(&script).await.status.success(), "{script}");
        }
        let written = crate::support::within(sandbox.files().write(&inside, "x")).await;
        assert!(written.is_err());
        sandbox.remove().await;
        assert_eq!(fs::read_to_string(file).unwrap(), content);
    }
}

#[tokio::test]
async fn several_mounts_are_there_or_refused() {
    let host = mountable();
    let blink = crate::support::blink().await;
    let mut builder = blink.sandbox();
    for number in 0..4 {
        builder = builder.mount(Mount::new(host.path(), format!("/mnt/{number}")));
    }
    if Engine::chosen() == Engine::Microvm {
        let error =
            crate::support::fails(blink_core::ErrorKind::Unsupported, builder.create()).await;
        assert!(error.message().contains("room for 1"), "{error:?}");
        assert!(blink.folders().is_empty());
        return;
    }
    let sandbox = ok(builder.create()).await;
    let output = ok(sandbox.exec(Command::shell("cat /mnt/0/file /mnt/3/file"))).await;
    assert_eq!(output.text(), "one fileone file");
}

mod needs_host_kernel {
    use super::*;

    #[tokio::test]
    async fn roots_programs_have_a_containers_capabilities_and_others_none() {
        require(Capability::HostKernel);
        let sandbox = sandbox().await;
        let mut users = vec![("0", ROOTS_CAPABILITIES)];
        if Capability::Users.is_there() {
            users.push(("1000", 0));
        }
        for (user, own) in users {
            let output = sandbox
                .run(Command::new("cat").arg("/proc/self/status").user(user))
                .await;
            let status = output.text();
            let field = |name: &str| {
                let line = status.lines().find(|line| line.starts_with(name)).unwrap();
                line.split_ascii_whitespace().nth(1).unwrap().to_owned()
            };
            for (name, expected) in [
                ("CapInh:", 0),
                ("CapPrm:", own),
                ("CapEff:", own),
                ("CapBnd:", ROOTS_CAPABILITIES),
                ("CapAmb:", 0),
            ] {
                let found = u64::from_str_radix(&field(name), 16).unwrap();
                assert_eq!(found, expected, "{user} {name} {found:x}");
            }
            assert_eq!(field("NoNewPrivs:"), "1");
            assert_eq!(field("Seccomp:"), "2");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[tokio::test]
    async fn calls_that_reach_out_are_refused() {
        require(Capability::HostKernel);
        let sandbox = sandbox().await;
        let program = "import ctypes, errno, os\n\
                   libc = ctypes.CDLL(None, use_errno=True)\n\
                   def refused(name, number, *args):\n  \
                     ctypes.set_errno(0)\n  \
                     pid = os.fork()\n  \
                     if pid == 0:\n    \
                       r = libc.syscall(number, *args); os._exit(0 if r < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS) else 1)\n  \
                     if os.waitpid(pid, 0)[1] != 0: print(name)\n\
                   refused('mount', 165, b'none', b'/tmp', b'tmpfs', 0, 0)\n\
                   refused('umount2', 166, b'/proc', 2)\n\
                   refused('unshare user', 272, 0x10000000)\n\
                   refused('unshare mount', 272, 0x20000)\n\
                   refused('unshare uts', 272, 0x4000000)\n\
                   refused('clone user', 56, 0x10000000 | 17, 0, 0, 0, 0)\n\
                   refused('clone3', 435, 0, 0)\n\
                   refused('setns', 308, 0, 0)\n\
                   refused('pivot_root', 155, b'/', b'/')\n\
                   refused('bpf', 321, 0, 0, 0)\n\
                   refused('keyctl', 250, 0, -3, 0)\n\
                   refused('add_key', 248, b'user', b'x', b'y', 1, -3)\n\
                   refused('io_uring_setup', 425, 1, 0)\n\
                   refused('userfaultfd', 323, 0)\n\
                   refused('perf_event_open', 298, 0, 0, -1, -1, 0)\n\
                   refused('reboot', 169, 0, 0, 0, 0)\n\
                   refused('sethostname', 170, b'x', 1)\n\
                   refused('open_by_handle_at', 304, 0, 0, 0)\n\
                   refused('swapon', 167, b'/tmp/x', 0)\n\
                   refused('init_module', 175, 0, 0, 0)\n\
                   refused('open_tree', 428, -100, b'/', 1)\n\
                   refused('fsopen', 430, b'tmpfs', 0)\n\
                   refused('iopl', 172, 3)\n\
                   refused('socket packet', 41, 17, 3, 0)\n\
                   refused('socket vsock', 41, 40, 1, 0)\n\
                   refused('socket alg', 41, 38, 5, 0)\n\
                   refused('ioctl TIOCSTI', 16, 0, 0x5412, b'x')\n\
                   refused('ioctl TIOCSTI high', 16, 0, ctypes.c_ulong(0x100005412), b'x')\n";
        let output = sandbox.python(program).await;
        assert!(output.status.success(), "{}", shown(&output));
        assert_eq!(output.text(), "", "these were not refused");
    }

    #[cfg(target_arch = "x86_64")]
    #[tokio::test]
    async fn no_other_system_call_table_leads_past_the_filter() {
        require(Capability::HostKernel);
        let sandbox = sandbox().await;
        // int 0x80 (unshare of the 32-bit table, with the flag of a new network in ebx), and a call of the x32 table.
        let program = "import ctypes, mmap, sys\n\
                   code = bytes.fromhex(sys.argv[1])\n\
                   m = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n\
                   m.write(code)\n\
                   f = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n\
                   r = f()\n\
                   print('worked' if 0 <= r < 1 << 31 else 'refused', flush=True)";
        for code in ["bb00000040b836010000cd80c3", "b8270000400f05c3"] {
            let output = sandbox.run(python(program).arg(code)).await;
            assert!(
                !output.text().contains("worked"),
                "{code}: {}",
                shown(&output)
            );
        }
    }

    #[tokio::test]
    async fn programs_cannot_get_rights_through_files() {
        require(Capability::HostKernel);
        let sandbox = sandbox().await;
        let output = sandbox
            .sh("cp /usr/bin/id /tmp/id; chmod 4755 /tmp/id; /tmp/id -u")
            .await;
        assert_eq!(output.text(), "0\n");
    }
}

mod needs_host_kernel_and_users {
    use super::*;

    #[tokio::test]
    async fn users_cannot_get_rights_through_files() {
        require(Capability::HostKernel);
        require(Capability::Users);
        let sandbox = sandbox().await;
        let copied = sandbox
            .sh("cp /usr/bin/id /tmp/id; chmod 4755 /tmp/id")
            .await;
        assert!(copied.status.success(), "{}", shown(&copied));
        let output = sandbox
            .run(Command::new("/tmp/id").arg("-u").user("user"))
            .await;
        assert_eq!(output.text(), "1000\n", "{}", shown(&output));
        let output = sandbox
            .run(
                Command::shell("mount -t tmpfs none /mnt || su -c id || cat /etc/shadow")
                    .user("user"),
            )
            .await;
        assert!(!output.status.success());
    }

    #[tokio::test]
    async fn root_of_a_sandbox_is_a_containers_root() {
        require(Capability::HostKernel);
        require(Capability::Users);
        let sandbox = sandbox().await;
        for (script, expected) in [
            (
                "touch /tmp/a && chown 1000:100 /tmp/a && stat -c %u:%g /tmp/a",
                "1000:100",
            ),
            (
                "setpriv --reuid 1000 --regid 100 --clear-groups id -u",
                "1000",
            ),
            (
                "setpriv --reuid 1000 --regid 100 --groups 4,5 id -G",
                "100 4 5",
            ),
            (
                "mkdir -m 700 /tmp/theirs && chown 1000 /tmp/theirs && touch /tmp/theirs/x && ls /tmp/theirs",
                "x",
            ),
            (
                "setpriv --reuid 1000 --regid 100 --clear-groups sleep 1000 & sleep 0.2; kill $! && wait $!; echo $?",
                "143",
            ),
            (
                "mkdir -p /tmp/t/d && touch /tmp/t/d/f && chown -R 7:8 /tmp/t && tar -C /tmp -cf /tmp/t.tar t && rm -r /tmp/t && \
          tar -C /tmp -xf /tmp/t.tar && stat -c %u:%g /tmp/t/d/f",
                "7:8",
            ),
            (
                "mkdir -p /tmp/jail/usr && python3 -c 'import os; os.chroot(\"/tmp/jail\"); print(os.listdir(\"/\"))'",
                "['usr']",
            ),
            (
                "python3 -c 'import socket; print(socket.create_server((\"127.0.0.1\", 80)).getsockname()[1])'",
                "80",
            ),
            (
                "setpriv --reuid 1000 --regid 100 --clear-groups python3 -c 'import socket; print(socket.create_server((\"127.0.0.1\", 81)).getsockname()[1])'",
                "81",
            ),
        ] {
            assert_eq!(sandbox.says(script).await, expected, "{script}");
        }
        // None of it reaches what is the agent's: mounts, the host's name, devices, other namespaces.
        for script in [
            "mount -t tmpfs none /mnt",
            "mount -o remount,rw /usr",
            "umount /dev/shm",
            "hostname other",
            "mknod /tmp/disk b 8 0",
            "ip link add dummy7 type dummy",
            "nice -n -5 true 2>&1 | grep -q . && false",
            "renice -n 5 -p 1",
            "kill -9 1 && sleep 0.1 && kill -0 1 && false",
            "ls /proc/1/root/",
            "nsenter --target 1 --mount true",
            "unshare --mount true",
            "chroot / mount -t proc proc /mnt",
        ] {
            let output = sandbox.sh(script).await;
            assert!(!output.status.success(), "{script}: {}", shown(&output));
        }
        ok(sandbox.ping()).await;
    }

    #[tokio::test]
    async fn root_stands_for_the_owner_of_what_is_mounted() {
        const OWNER: u32 = 1234;
        require(Capability::HostKernel);
        require(Capability::Users);
        let host = mountable();
        let shared = host.path().join("shared");
        for path in [&shared, &shared.join("in")] {
            std::os::unix::fs::chown(path, Some(OWNER), Some(OWNER + 1)).unwrap();
        }
        // The host's root is not who is root inside.
        fs::write(shared.join("secret"), "the host's root's").unwrap();
        fs::set_permissions(shared.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        let mount = Mount::new(&shared, "/work");
        let sandbox = sandbox_with(|builder| builder.mount(mount)).await;
        let script = "cd /work && stat -c '%u %g' . in secret && echo new >new && mkdir folder && \
                  chown 0:0 in && ! cat secret 2>/dev/null && ! chown 0:0 secret 2>/dev/null && ! chmod 644 secret 2>/dev/null";
        assert_eq!(sandbox.says(script).await, "0 0\n0 0\n65534 65534");
        ok(sandbox.files().write("/work/file", "by the agent")).await;
        for name in ["in", "new", "folder", "file"] {
            let found = fs::metadata(shared.join(name)).unwrap();
            assert_eq!((found.uid(), found.gid()), (OWNER, OWNER + 1), "{name}");
        }
        let secret = fs::metadata(shared.join("secret")).unwrap();
        assert_eq!((secret.uid(), secret.mode() & 0o777), (0, 0o600));
        // Others keep their numbers.
        if fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).is_ok() {
            let output = sandbox
                .run(Command::shell("echo x >/work/other").user("77:88"))
                .await;
            assert!(output.status.success(), "{}", shown(&output));
            let found = fs::metadata(shared.join("other")).unwrap();
            assert_eq!((found.uid(), found.gid()), (77, 88));
        }
    }

    #[tokio::test]
    async fn sandboxes_of_root_share_no_user_and_no_quota() {
        require(Capability::HostKernel);
        require(Capability::Users);
        let (first, second) = (sandbox().await, sandbox().await);
        let mut users = Vec::new();
        for (number, sandbox) in [&first, &second].into_iter().enumerate() {
            let argument = format!("8640{number}.{}", std::process::id());
            let script = format!(
                "sleep {argument} >/dev/null 2>&1 & while ! grep -qa {argument} /proc/$!/cmdline; do :; done"
            );
            sandbox.says(&script).await;
            users.push(user_on_host(&argument));
            // What is stored belongs to the same user in any sandbox.
            sandbox
            .says(
                "echo stored >/stored; chown 5:6 /stored; stat -c '%u %g' /stored | grep -x '5 6'",
            )
            .await;
        }
        assert!(users.iter().all(|user| *user >= 65536), "{users:?}");
        assert!(users[0].abs_diff(users[1]) >= 65536, "{users:?}");
        // Pipes get less where one user has many.
        let pipes = "import fcntl, os, time\nkept = [os.pipe() for number in range(1500)]\n\
                 print(fcntl.fcntl(os.pipe()[0], 1032), flush=True)\n";
        let all = format!("{pipes}open('/full', 'w')\ntime.sleep(100)");
        let filler = ok(first.spawn(python(&all))).await;
        first
            .says("while ! [ -e /full ]; do sleep 0.01; done")
            .await;
        let one = "import fcntl, os\nprint(fcntl.fcntl(os.pipe()[0], 1032))";
        let size = |text: String| text.trim().parse::<u32>().unwrap();
        let of_first = size(first.run(python(one)).await.text().into_owned());
        let of_second = size(second.run(python(one)).await.text().into_owned());
        assert!(of_first < of_second, "{of_first} {of_second}");
        drop(filler);
    }
}
