//! Programs that want the host's memory and disk: by what they make, which is read by whoever embeds Blink, and by what they keep
//! where it is hard to see.

use blink_core::{Command, ErrorKind, Network, Output, SandboxBuilder};

use crate::support::{blink, fails, is_namespace, ok};

/// What each hoarder begins with.
const HOARD: &str = "
import ctypes, mmap, os, time
MIB = 1 << 20
libc = ctypes.CDLL(None)
libc.mmap.restype = libc.shmat.restype = ctypes.c_void_p
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]

def map_shared(size, file=-1):
    flags = mmap.MAP_SHARED | (mmap.MAP_ANONYMOUS if file < 0 else 0)
    return libc.mmap(None, ctypes.c_size_t(size), 3, flags, file, ctypes.c_long(0))
";

/// Runs a program that keeps what it has for longer than anybody waits, in a sandbox with 128 MiB of memory and 64 MiB of disk.
async fn hoard(script: &str, limit: impl FnOnce(SandboxBuilder) -> SandboxBuilder) -> Output {
    let blink = blink().await;
    let builder = blink.sandbox().memory_mib(128).disk_mib(64);
    let sandbox = ok(limit(builder).create()).await;
    let script = format!("{HOARD}{script}\ntime.sleep(100)\nprint('kept')");
    let output = ok(sandbox.exec(Command::new("python3").args(["-c", &script]))).await;
    assert!(output.stdout.is_empty(), "{script}: {output:?}");
    ok(sandbox.remove()).await;
    output
}

/// It was ended by Blink, by the kernel of its machine, or by the kernel for its control group.
fn was_over(limit: &str, output: &Output) {
    let status = &output.status;
    let by_kernel = match is_namespace() {
        true => limit == "memory" && status.signal == Some(9),
        false => !status.success(),
    };
    assert!(status.over_limit == Some(limit) || by_kernel, "{output:?}");
}

#[tokio::test]
async fn shared_memory_without_a_name_counts() {
    let script = "at = map_shared(1024 * MIB); libc.memset(at, 1, 1024 * MIB)";
    was_over("memory", &hoard(script, |builder| builder).await);
}

#[tokio::test]
async fn memory_that_a_child_has_filled_counts() {
    let script = "
at = map_shared(512 * MIB)
if os.fork() == 0:
    libc.memset(at, 1, 512 * MIB)
    os._exit(0)
# Where the kernel counts, it has ended the child.
if os.wait()[1] != 0: os.kill(os.getpid(), 9)";
    was_over("memory", &hoard(script, |builder| builder).await);
}

#[tokio::test]
async fn files_in_memory_count() {
    let script = "
for number in range(64): os.posix_fallocate(os.memfd_create('m'), 0, 16 * MIB)";
    was_over("memory", &hoard(script, |builder| builder).await);
}

#[tokio::test]
async fn files_in_memory_that_are_only_mapped_count() {
    let script = "
for number in range(64):
    file = os.memfd_create('m'); os.ftruncate(file, 16 * MIB)
    at = map_shared(16 * MIB, file); os.close(file)
    libc.memset(at, 1, 16 * MIB); time.sleep(0.05)
    libc.munmap(at + MIB, 15 * MIB)";
    was_over("memory", &hoard(script, |builder| builder).await);
}

#[tokio::test]
async fn what_is_sent_and_not_received_counts() {
    let script = "
import socket
kept = []
for number in range(8000):
    pair = socket.socketpair(); kept.append(pair)
    pair[0].setblocking(False)
    try:
        while True: pair[0].send(b'x' * 65536)
    except BlockingIOError: pass";
    let own = |builder: SandboxBuilder| builder.network(Network::None);
    was_over("memory", &hoard(script, own).await);
    if is_namespace() {
        let shared = |builder: SandboxBuilder| builder.network(Network::Host);
        was_over("memory", &hoard(script, shared).await);
    }
}

#[tokio::test]
async fn open_files_count_over_all_programs() {
    let script = "
import resource
most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 50
for child in range(400000 // most):
    if os.fork() == 0: break
kept = [os.dup(0) for number in range(most)]";
    was_over("memory", &hoard(script, |builder| builder).await);
}

/// What nothing counted was 1 GiB of segments and half of messages.
#[tokio::test]
async fn system_v_has_little() {
    let script = "
import sys
kept = 0
try:
    while True:
        part = libc.shmget(0, 16 * MIB, 0o600)
        if part < 0: break
        libc.memset(libc.shmat(part, None, 0), 1, 16 * MIB)
        kept += 16
    class Message(ctypes.Structure): _fields_ = [('kind', ctypes.c_long), ('text', ctypes.c_char * 8000)]
    message, NOWAIT, bytes_sent = Message(1), 0o4000, 0
    while True:
        queue = libc.msgget(0, 0o600)
        if queue < 0: break
        while libc.msgsnd(queue, ctypes.byref(message), 8000, NOWAIT) == 0: bytes_sent += 8000
finally:
    os.write(2, b'%d %d' % (kept, bytes_sent))
sys.exit(3)";
    let output = hoard(script, |builder| builder).await;
    let text = String::from_utf8(output.stderr.to_vec()).unwrap();
    let (segments_mib, message_bytes) = text.split_once(' ').unwrap();
    assert!(segments_mib.parse::<u32>().unwrap() <= 64, "{output:?}");
    assert!(
        message_bytes.parse::<u32>().unwrap() <= 4 << 20,
        "{output:?}"
    );
    assert_eq!(output.status.code, 3, "{output:?}");
}

#[tokio::test]
async fn files_on_the_disk_that_are_only_mapped_count() {
    let script = "
for number in range(16):
    file = os.open('/var/hoard', os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(file, 0, 8 * MIB)
    map_shared(8 * MIB, file)
    os.close(file)
    os.unlink('/var/hoard')";
    was_over("disk", &hoard(script, |builder| builder).await);
}

#[tokio::test]
async fn folders_of_any_depth_count() {
    let script = "
os.chdir('/var')
for depth in range(400):
    os.mkdir('deep'); os.chdir('deep')
for number in range(16):
    file = os.open(str(number), os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(file, 0, 8 * MIB)
    os.close(file)";
    was_over("disk", &hoard(script, |builder| builder).await);
}

/// A micro-VM has a number of its own.
#[tokio::test]
async fn files_are_counted_and_not_only_their_bytes() {
    let script = "
for folder in range(80):
    os.mkdir(f'/var/hoard{folder}')
    for number in range(1000): os.close(os.open(f'/var/hoard{folder}/{number}', os.O_WRONLY | os.O_CREAT))";
    let output = hoard(script, |builder| builder.disk_mib(256)).await;
    was_over("disk", &output);
}

/// A gibibyte of holes costs a program nothing, and whoever reads it as a whole, that much.
#[tokio::test]
async fn a_file_that_is_too_long_for_memory_is_refused() {
    let blink = blink().await;
    let sandbox = ok(blink.sandbox().create()).await;
    let make = "truncate -s 1025M /tmp/long; truncate -s 64M /tmp/short";
    ok(sandbox.exec(Command::shell(make))).await;
    let files = sandbox.files().unwrap();
    let error = fails(ErrorKind::ResourceExhausted, files.read("/tmp/long")).await;
    assert!(error.message().contains("/tmp/long"), "{error}");
    assert_eq!(ok(files.read("/tmp/short")).await.len(), 64 << 20);
    // The sandbox goes on, and so does the file for whoever takes it in parts.
    let mut part = Vec::new();
    ok(files.read_part("/tmp/long", 1 << 30, Some(1 << 20), &mut part)).await;
    assert_eq!(part.len(), 1 << 20);
    ok(sandbox.remove()).await;
}
