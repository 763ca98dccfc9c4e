//! Host processes in odd surroundings: signals, masks, limits, priorities and descriptors as some program or shell has left
//! them. Nothing hangs, the answers are right, nothing reaches a sandbox, and nothing is left.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command as HostCommand, Stdio};
use std::time::{Duration, Instant};

use blink_core::{Blink, Command};

use crate::inside::Inside as _;
use crate::support::{isolation, ok};

const HOME: &str = "BLINK_TEST_HOME";
const SURROUNDING: &str = "BLINK_TEST_SURROUNDING";

/// Where the host process says how it went: it may have no standard output.
const REPORT: &str = "report";

/// The file that the host process has open for its own children, and has locked.
const MARKER: &str = "marker";

const PATIENCE: Duration = Duration::from_secs(100);

/// What a program in a sandbox sees of its host process's surroundings, if that is anything.
const LOOK: &str = "umask; nice; ulimit -c; grep -E '^Sig(Blk|Ign)' /proc/self/status; \
                    for one in /proc/self/fd/*; do readlink $one; done; exit 3";

/// Sets a surrounding, between the fork and the exec of the host process.
type Set = fn();

fn set_nothing() {}

fn ignore_children() {
    // SAFETY: a disposition that is no function.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

fn leave_no_zombies() {
    // SAFETY: the struct is plain data, for which zeros are valid.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_flags = libc::SA_NOCLDWAIT;
        libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut());
    }
}

fn ignore_signals() {
    for signal in 1..=64 {
        // SAFETY: a disposition that is no function.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

fn block_signals() {
    // SAFETY: the set is initialised before it is used.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

fn mask(mode: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mode));
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) {
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: reads a local value.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

fn open_many() {
    // SAFETY: duplicates a descriptor that is open; without a flag, so that children inherit it.
    (0..300).for_each(|_| assert!(unsafe { libc::dup(2) } > 0));
}

fn nice() {
    // SAFETY: a system call on a number.
    unsafe { libc::nice(19) };
}

/// What can only be set in the process itself.
fn set_inside(surrounding: &str) {
    extern "C" fn reap(_: libc::c_int) {
        // SAFETY: collects whatever child has ended; a null status is not written to.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
    }
    match surrounding {
        "reaper" => {
            let handler = reap as extern "C" fn(libc::c_int);
            // SAFETY: the handler makes system calls alone.
            unsafe { libc::signal(libc::SIGCHLD, handler as libc::sighandler_t) };
        }
        "closed" => {
            for standard in 0..3 {
                // SAFETY: nothing uses them any more: this test reports in a file.
                unsafe { libc::close(standard) };
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by other tests"]
async fn uses_blink() {
    let Some(home) = std::env::var_os(HOME).map(std::path::PathBuf::from) else {
        return;
    };
    set_inside(&std::env::var(SURROUNDING).unwrap());
    let said = use_blink(&home.join("home"), &home.join(MARKER)).await;
    let written = home.join("report.new");
    std::fs::write(&written, said).unwrap();
    let _ = std::fs::set_permissions(
        &written,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    );
    std::fs::rename(written, home.join(REPORT)).unwrap();
}

async fn use_blink(home: &Path, marker: &Path) -> String {
    let blink = ok(Blink::builder().home(home).isolation(isolation()).build()).await;
    let sandbox = ok(blink.sandbox().create()).await;
    let output = ok(sandbox.exec(Command::shell(LOOK))).await;
    assert_eq!(output.status.code, 3);
    assert_eq!(
        holders(marker),
        [std::process::id()],
        "children have the host's descriptors"
    );
    ok(sandbox.remove()).await;

    let session = ok(blink.session("one").open()).await;
    ok(session.exec(Command::shell("echo kept >/var/blink/memory/file"))).await;
    ok(session.checkpoint("first")).await;
    ok(session.exec(Command::shell("rm /var/blink/memory/file"))).await;
    ok(session.restore("first")).await;
    let fork = ok(session.fork("two")).await;
    let kept = ok(fork.exec(Command::new("cat").arg("/var/blink/memory/file"))).await;
    assert_eq!(kept.text(), "kept\n");
    ok(fork.remove()).await;
    ok(session.remove()).await;
    output.text().into_owned()
}

/// The processes that have a file open.
fn holders(file: &Path) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| {
            let open = std::fs::read_dir(process.path().join("fd"))
                .into_iter()
                .flatten();
            open.flatten()
                .any(|one| std::fs::read_link(one.path()).is_ok_and(|target| target == file))
        })
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .collect()
}

fn survives(surrounding: &str, set: Set) {
    let folder = tempfile::Builder::new()
        .prefix("blink-hostile-")
        .tempdir()
        .unwrap();
    let marker = std::fs::File::create(folder.path().join(MARKER)).unwrap();
    let mut command = HostCommand::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "surroundings::uses_blink",
            "--ignored",
            "--nocapture",
        ])
        .env(HOME, folder.path())
        .env(SURROUNDING, surrounding)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // SAFETY: system calls alone.
    unsafe {
        command.pre_exec(move || {
            rustix::io::fcntl_setfd(&marker, rustix::io::FdFlags::empty())?;
            rustix::fs::flock(&marker, rustix::fs::FlockOperation::LockExclusive)?;
            set();
            Ok(())
        })
    };
    let mut child = command.spawn().unwrap();
    // What was prepared holds the file for this process too.
    drop(command);
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{surrounding}: it hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "{surrounding}: {status}");
    let said = std::fs::read_to_string(folder.path().join(REPORT)).unwrap();
    let mut lines = said.lines();
    let mut next = || lines.next().unwrap_or_default();
    assert_eq!(next(), "0022", "{surrounding}: {said}");
    // Only root may take it back.
    if rustix::process::geteuid().is_root() {
        assert_eq!(next(), "0", "{surrounding}: {said}");
    } else {
        next();
    }
    assert_eq!(next(), "0", "{surrounding}: {said}");
    assert_eq!(next(), "SigBlk:\t0000000000000000", "{surrounding}: {said}");
    assert_eq!(next(), "SigIgn:\t0000000000000000", "{surrounding}: {said}");
    // Its own three, and the folder that the shell lists.
    let others: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    assert!(others.len() <= 4, "{surrounding}: {said}");
    let left = std::fs::read_dir(folder.path().join("home/sandboxes"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "{surrounding}: sandboxes are left");
}

macro_rules! surroundings {
    ($($name:ident: $inside:literal, $set:expr;)+) => {
        $(
            #[test]
            fn $name() {
                survives($inside, $set);
            }
        )+
    };
}

surroundings! {
    ordinary: "ordinary", set_nothing;
    children_are_ignored: "ignored children", ignore_children;
    children_leave_no_zombies: "no zombies", leave_no_zombies;
    somebody_else_collects_all_children: "reaper", set_nothing;
    signals_are_blocked: "blocked", block_signals;
    signals_are_ignored: "ignored", ignore_signals;
    nothing_is_masked: "mask 000", || mask(0o000);
    others_are_masked: "mask 027", || mask(0o027);
    the_group_is_masked: "mask 077", || mask(0o077);
    everything_is_masked: "mask 0777", || mask(0o777);
    few_files: "few files", || limit(libc::RLIMIT_NOFILE, 100);
    short_files: "short files", || limit(libc::RLIMIT_FSIZE, 16 << 20);
    cores_are_kept: "cores", || limit(libc::RLIMIT_CORE, 0);
    nice_19: "nice", nice;
    standard_descriptors_are_closed: "closed", set_nothing;
    many_descriptors: "many descriptors", open_many;
}
