//! System calls that reach for the agent, the host or its files: refused, and nothing comes of them.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use blink_core::{Command, Mount, Network, Sandbox};

use crate::support::{blink, ok};

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

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn what_only_reaches_the_kernel_is_refused() {
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

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn no_file_of_the_hosts_gets_its_owners_rights() {
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

/// Makes the call that its arguments name as programs of 32 bits do, and prints what comes of it. It needs no library of these.
const NARROW: &str = r#"
static long make(long number, long *with) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result)
                     : "a"(number), "b"(with[0]), "c"(with[1]), "d"(with[2]), "S"(with[3]), "D"(with[4]) : "memory");
    return result;
}

static long number(const char *text) {
    long value = 0;
    for (; *text; text++) value = value * 10 + (*text - '0');
    return value;
}

void begin(long *stack) {
    long count = *stack, with[6] = {0}, word[8] = {1, 1, 0};
    char **arguments = (char **)(stack + 1);
    for (int at = 2; at < count && at < 7; at++)
        with[at - 2] = arguments[at][0] == 'm' ? (long)word : number(arguments[at]);
    long result = make(number(arguments[1]), with);
    char text[16];
    int length = sizeof text;
    text[--length] = '\n';
    long left = result < 0 ? -result : result;
    do text[--length] = '0' + left % 10; while (left /= 10);
    if (result < 0) text[--length] = '-';
    long shown[6] = {1, (long)(text + length), sizeof text - length};
    make(4, shown);
    long end[6] = {0};
    make(1, end);
}

__asm__(".globl _start\n_start:\n mov %esp, %eax\n push %eax\n call begin\n");
"#;

mod needs_linux_5_19 {
    use super::*;

    /// A program that is traced could start others for its tracer, which no timeout of that reaches.
    #[cfg(target_arch = "x86_64")]
    #[tokio::test]
    async fn what_has_a_timeout_traces_nobody_but_its_own() {
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
}

mod needs_linux_6_12 {
    use super::*;

    #[tokio::test]
    async fn abstract_sockets_of_the_host_are_not_reached() {
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
}

mod needs_programs_of_32_bits {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[tokio::test]
    async fn programs_of_32_bits_get_no_further() {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("narrow.c"), folder.path().join("narrow"));
        fs::write(&source, NARROW).unwrap();
        let flags = "-m32 -O1 -static -nostdlib -fno-pie -no-pie -fno-stack-protector -fno-builtin -Wl,-z,noexecstack";
        let built = std::process::Command::new("cc")
            .args(flags.split(' '))
            .arg(&source)
            .arg("-o")
            .arg(&program)
            .output()
            .unwrap();
        assert!(built.status.success(), "{built:?}");
        let here = std::process::Command::new(&program).arg("20").output();
        assert!(here.unwrap().status.success());
        let blink = blink().await;
        let sandbox = ok(blink.sandbox().create()).await;
        let files = sandbox.files().unwrap();
        ok(files.write("/tmp/narrow", fs::read(&program).unwrap())).await;
        ok(sandbox.exec(Command::new("chmod").args(["755", "/tmp/narrow"]))).await;
        let call = async |words: &str| -> i64 {
            let command = Command::new("/tmp/narrow").args(words.split(' '));
            let output = ok(sandbox.exec(command)).await;
            assert!(output.status.success(), "{words}: {output:?}");
            output.text().trim().parse().unwrap()
        };
        // Its own number, memory, a socket of its machine, a clock, and a namespace for none.
        for words in ["20", "91 0 4096", "359 1 1 0", "403 1 m", "174 10 0 0 8"] {
            assert!(call(words).await >= 0, "{words}");
        }
        const REFUSED: &[&str] = &[
            // Namespaces and mounts.
            "310 268435456",
            "310 67108864",
            "120 268435473",
            "435 m 88",
            "346 3 1073741824",
            "21 m m m",
            "52 m 0",
            "22 m",
            "217 m m",
            "428 0 m 0",
            "429 0 m 0",
            "430 m 0",
            "442 0 m 0 m 32",
            // Sockets: vsock, packets, the kernel's crypto, netlink, and those that a filter cannot tell.
            "359 40 1 0",
            "359 17 3 0",
            "359 38 5 0",
            "359 16 3 2",
            "360 2 1 0 m",
            "102 1 m",
            "102 8 m",
            // The machine.
            "25 m",
            "264 0 m",
            "404 0 m",
            "74 m 1",
            "121 m 1",
            "88 0 0 0",
            "110 3",
            "101 0 1 1",
            "128 m 1 m",
            "129 m 0",
            "113 0 m",
            "166 0 m",
            "103 3 m 1",
            // Parts of the kernel.
            "357 0 m 8",
            "336 m 0 0 0 0",
            "374 0",
            "425 1 m",
            "286 m m m 1 0",
            "288 0 0",
            "287 m m m 0",
            "341 0 m m m 0",
            "342 0 m 0",
            "349 1 1 0 0 0",
            "438 3 3 0",
            "440 3 m 1 0 0",
            "338 0 0",
            // What is somebody else's: the agent's limits, and bytes in a terminal.
            "340 1 7 m 0",
            "54 0 21522 m",
            "54 0 21532 m",
            "136 262144",
        ];
        for words in REFUSED {
            let found = call(words).await;
            assert!([-1, -38].contains(&found), "{words}: {found}");
        }
        // Numbers of other calls here: those of 64 bits mean nothing.
        assert_eq!(call("511").await, -38);
        assert_eq!(call("2147483647").await, -38);
        ok(sandbox.remove()).await;
    }
}
