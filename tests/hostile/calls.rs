//! System calls that reach for the agent, the host or its files: refused, and nothing comes of them.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use blink_core::{Command, Mount, Network, Sandbox};

use crate::support::{blink, is_namespace, ok};

async fn python(sandbox: &Sandbox, script: &str) -> String {
    let output = ok(sandbox.exec(Command::new("python3").args(["-c", script]))).await;
    assert!(output.status.success(), "{script}: {output:?}");
    output.text().into_owned()
}

/// What each script begins with: `refused` prints the name of a call that was not.
const CALLS: &str = "
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, number, *args):
    pid = os.fork()
    if pid == 0:
        done = libc.syscall(number, *args)
        os._exit(0 if done < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS, errno.EPROTONOSUPPORT) else 1)
    if os.waitpid(pid, 0)[1] != 0: print(name, args)
";

#[tokio::test]
async fn the_agents_limits_are_nobodys_to_change() {
    if !is_namespace() {
        return;
    }
    let blink = blink().await;
    let sandbox = ok(blink.sandbox().memory_mib(128).create()).await;
    let script = format!(
        "{CALLS}\nlimit = (ctypes.c_uint64 * 2)(3, 3)\n\
         for resource in range(16): refused('prlimit64', 302, 1, resource, ctypes.byref(limit), 0)\n\
         refused('prlimit64 of a parent', 302, os.getppid(), 7, ctypes.byref(limit), 0)\n\
         import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"
    );
    assert_eq!(python(&sandbox, &script).await, "");
    // Timeouts and the guard of memory go on.
    let late = Command::shell("sleep 1000 & sleep 1000").timeout(Duration::from_millis(300));
    assert!(ok(sandbox.exec(late)).await.status.timed_out);
    let left = ok(sandbox.exec(Command::shell("grep -lsx sleep /proc/[0-9]*/comm | wc -l"))).await;
    assert_eq!(left.text(), "0\n");
    ok(sandbox.remove()).await;
}

#[tokio::test]
async fn what_only_reaches_the_kernel_is_refused() {
    if !is_namespace() || std::env::consts::ARCH != "x86_64" {
        return;
    }
    let blink = blink().await;
    let sandbox = ok(blink.sandbox().create()).await;
    let script = format!(
        "{CALLS}
pair = (ctypes.c_int * 2)()
for family in range(2, 46): refused('socketpair', 53, family, 2, 0, pair)
for protocol in range(1, 32): refused('netlink', 41, 16, 3, protocol)
try: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9); print('audit')
except OSError as error: assert error.errno == errno.EPROTONOSUPPORT, error
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close(); assert socket.if_nameindex()
for value in (0x40000, 0x400000, 0x1000000, 0x7, 0x40008, 0xfffffffe): refused('personality', 135, value)
mask = ctypes.c_uint64(1)
refused('mbind', 237, 0, 4096, 0, 0, 0, 0)
refused('set_mempolicy', 238, 1, ctypes.byref(mask), 8)
refused('get_mempolicy', 239, 0, 0, 0, 0, 0)
refused('migrate_pages', 256, 0, 1, ctypes.byref(mask), ctypes.byref(mask))
refused('move_pages', 279, 0, 0, 0, 0, 0, 0)
refused('set_mempolicy_home_node', 450, 0, 0, 0, 0)
refused('pidfd_getfd', 438, 0, 0, 0)
refused('process_madvise', 440, 0, 0, 0, 0, 0)
left, right = socket.socketpair()
left.send(b'x'); assert right.recv(1) == b'x'
assert libc.personality(0xffffffff) == 0"
    );
    assert_eq!(python(&sandbox, &script).await, "");
    ok(sandbox.remove()).await;
}

#[tokio::test]
async fn no_file_of_the_hosts_gets_its_owners_rights() {
    if !is_namespace() || std::env::consts::ARCH != "x86_64" {
        return;
    }
    let blink = blink().await;
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let mount = Mount::new(&shared, "/mnt/shared");
    let sandbox = ok(blink.sandbox().mount(mount.clone()).create()).await;
    let script = "
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
os.chdir('/mnt/shared')
open('program', 'w').write('#!/bin/sh\\n')
folder = os.open('.', os.O_RDONLY)
for mode in (0o4755, 0o2755, 0o6755, 0o7777):
    for try_it in (
        lambda: os.chmod('program', mode),
        lambda: os.fchmod(os.open('program', os.O_RDWR), mode),
        lambda: os.chmod('program', mode, dir_fd=folder),
        lambda: os.open(f'made-{mode}', os.O_CREAT | os.O_WRONLY, mode),
        lambda: os.mknod(f'node-{mode}', mode),
    ):
        try: try_it()
        except OSError: pass
    libc.syscall(437, -100, f'opened-{mode}'.encode(), struct.pack('QQQ', os.O_CREAT | os.O_WRONLY, mode, 0), 24)
    libc.syscall(452, -100, b'program', mode, 0)
    libc.creat(f'created-{mode}'.encode(), mode)
os.chmod('program', 0o755)";
    python(&sandbox, script).await;
    ok(sandbox.remove()).await;
    for entry in fs::read_dir(&shared).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().mode();
        assert_eq!(mode & 0o6000, 0, "{:?} {mode:o}", entry.file_name());
    }
    // Where the host sees none of it, a program may have such files.
    let sandbox = ok(blink.sandbox().mount(mount.read_only()).create()).await;
    let made = Command::shell("touch /tmp/x; chmod 4755 /tmp/x; stat -c %a /tmp/x");
    assert_eq!(ok(sandbox.exec(made)).await.text(), "4755\n");
    ok(sandbox.remove()).await;
}

/// A program that is traced could start others for its tracer, which no timeout of that reaches.
#[tokio::test]
async fn what_has_a_timeout_traces_nobody_but_its_own() {
    const LANDLOCK_REFER: &str = "5.19";
    if !is_namespace() || std::env::consts::ARCH != "x86_64" {
        return;
    }
    if !kernel_is_at_least(LANDLOCK_REFER) {
        eprintln!("skipped: this kernel cannot keep programs apart");
        return;
    }
    let blink = blink().await;
    let folder = tempfile::tempdir().unwrap();
    let mount = Mount::new(folder.path(), "/work");
    let sandbox = ok(blink.sandbox().mount(mount).create()).await;
    let other = ok(sandbox.spawn(Command::new("sleep").arg("86403"))).await;
    let script = "
import ctypes, errno, os, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def traces(pid):
    return libc.ptrace(0x4206, pid, 0, 0) == 0
def opens(pid):
    try: os.close(os.open(f'/proc/{pid}/mem', os.O_RDWR)); return True
    except PermissionError: return False
other = int(subprocess.run(['pgrep', '-xf', 'sleep 86403'], capture_output=True, text=True).stdout)
own = subprocess.Popen(['sleep', '100'])
print(traces(other), opens(other), traces(own.pid), opens(own.pid))
# All else is as it was.
for top in ('/var', '/work', '/dev/shm'):
    # A mount whose file system cannot map owners.
    if not os.access(top, os.W_OK): continue
    one, two = (f'{top}/{name}-{os.getpid()}' for name in ('one', 'two'))
    os.makedirs(one); os.makedirs(two); os.makedirs(f'{one}/folder')
    open(f'{one}/file', 'w').close(); os.rename(f'{one}/file', f'{two}/file'); os.link(f'{two}/file', f'{one}/file')
    os.rename(f'{one}/folder', f'{two}/folder')
    try: file = os.open(one, os.O_TMPFILE | os.O_RDWR)
    except OSError as error: assert error.errno == errno.EOPNOTSUPP
    else: os.link(f'/proc/self/fd/{file}', f'{two}/nameless', src_dir_fd=file, follow_symlinks=True)
own.kill(); os.kill(other, 0)";
    let program = || Command::new("python3").args(["-c", script]);
    let output = ok(sandbox.exec(program().timeout(Duration::from_secs(60)))).await;
    assert_eq!(output.text(), "False False True True\n", "{output:?}");
    assert!(output.status.success(), "{output:?}");
    // Nobody else is kept from debugging.
    let output = ok(sandbox.exec(program())).await;
    assert_eq!(output.text(), "True True True True\n", "{output:?}");
    drop(other);
    ok(sandbox.remove()).await;
}

#[tokio::test]
async fn abstract_sockets_of_the_host_are_not_reached() {
    if !is_namespace() {
        return;
    }
    if !kernel_is_at_least("6.12") {
        eprintln!("skipped: this kernel cannot keep abstract sockets apart");
        return;
    }
    let blink = blink().await;
    let name = format!("blink-test-{}", std::process::id());
    let _listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let sandbox = ok(blink.sandbox().network(Network::Host).create()).await;
    let script = format!(
        "import socket\ns = socket.socket(socket.AF_UNIX)\n\
         try: s.connect('\\0{name}'); print('reached')\nexcept PermissionError: print('refused')\n\
         own = socket.socket(socket.AF_UNIX); own.bind('\\0own'); own.listen()\n\
         s = socket.socket(socket.AF_UNIX); s.connect('\\0own'); print('own')"
    );
    assert_eq!(python(&sandbox, &script).await, "refused\nown\n");
    ok(sandbox.remove()).await;
}

fn kernel_is_at_least(wanted: &str) -> bool {
    let numbers = |release: &str| {
        let mut numbers = release
            .split(['.', '-'])
            .map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next())
    };
    let kernel = rustix::system::uname();
    numbers(&kernel.release().to_string_lossy()) >= numbers(wanted)
}
