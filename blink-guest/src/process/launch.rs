//! Starting one program.
//!
//! The child shares the agent's memory until it executes the program, as `posix_spawn` does it: nothing is copied, so
//! it costs the same however much the agent holds. Everything that needs memory is made before; the child only makes
//! system calls.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use blink_wire::{ErrorBody, ErrorKind, Spawn};
use libc::{c_char, c_int, c_long, c_void};
use rustix::io::Errno;

use super::NotStarted;
use super::user::User;
use crate::confine::Confinement;
use crate::failure::{errno_of, failed, failed_as};

/// Where programs are looked up when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How programs read and write text when the environment does not say: in UTF-8, as every C library can.
const DEFAULT_LOCALE: &str = "C.UTF-8";

/// The child's stack: it makes system calls from one shallow function.
const STACK_BYTES: usize = 64 << 10;

/// How a launch ended.
pub(crate) enum Launched {
    /// The program runs.
    Running(i32),
    /// There is no such program, or it may not be executed: what a shell reports as 127 and 126.
    NotExecuted { code: i32, reason: String },
}

/// The descriptors that become the program's standard input, output and error.
pub(crate) struct Stdio<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
    /// Standard input is a terminal that becomes the controlling one.
    pub(crate) terminal: bool,
}

/// A step of the child; the one that failed is told to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
enum Step {
    Begin,
    Session,
    Terminal,
    Descriptors,
    Limits,
    Enter,
    Groups,
    Group,
    User,
    CurrentDir,
    Confine,
    Execute,
}

/// Everything that the child needs, made before it exists.
struct Plan<'a> {
    candidates: &'a [CString],
    argv: &'a [*const c_char],
    envp: &'a [*const c_char],
    current_dir: &'a CString,
    /// Nobody asked for this folder: `/` serves as well.
    may_fall_back: bool,
    groups: &'a [u32],
    user: &'a User,
    change_user: bool,
    stdio: [c_int; 3],
    terminal: bool,
    confinement: &'a Confinement,
    /// Its timeout ends whatever it starts.
    is_timed: bool,
    /// Written by the child.
    step: Step,
    errno: c_int,
}

/// Starts a program as `user`, confined.
pub(crate) fn launch(
    spawn: &Spawn,
    user: &User,
    stdio: &Stdio<'_>,
    confinement: &Confinement,
    stack: &mut Stack,
) -> Result<Launched, NotStarted> {
    let name = spawn
        .argv
        .first()
        .filter(|name| !name.is_empty())
        .ok_or_else(|| invalid("the command is empty; name a program"))?;
    let argv = spawn
        .argv
        .iter()
        .map(|arg| c_string(arg, "an argument"))
        .collect::<Result<Vec<_>, _>>()?;
    let environment = environment(spawn, user)?;
    let path = environment
        .iter()
        .find_map(|pair| pair.strip_prefix(b"PATH="))
        .unwrap_or(DEFAULT_PATH.as_bytes());
    let candidates = candidates(name, path)?;
    let envp_strings = environment
        .iter()
        .map(|pair| c_string(pair, "the environment"))
        .collect::<Result<Vec<_>, _>>()?;
    let asked_dir = spawn.current_dir.as_ref().map(|dir| dir.as_slice());
    let current_dir = c_string(
        asked_dir.unwrap_or(user.home.as_bytes()),
        "the working directory",
    )?;
    let (argv, envp) = (pointers(&argv), pointers(&envp_strings));

    let mut plan = Plan {
        candidates: &candidates,
        argv: &argv,
        envp: &envp,
        current_dir: &current_dir,
        may_fall_back: asked_dir.is_none(),
        groups: &user.groups,
        user,
        change_user: confinement.has_own_users()
            || user.uid != 0
            || user.gid != 0
            || !user.groups.is_empty(),
        stdio: [
            stdio.stdin.as_raw_fd(),
            stdio.stdout.as_raw_fd(),
            stdio.stderr.as_raw_fd(),
        ],
        terminal: stdio.terminal,
        confinement,
        is_timed: spawn.timeout_ms.is_some(),
        step: Step::Begin,
        errno: 0,
    };
    let pid = clone_child(&mut plan, stack)?;
    if plan.errno == 0 {
        return Ok(Launched::Running(pid));
    }
    // The child has ended by itself without executing anything; take it away.
    // SAFETY: waitpid with a null status only collects this child.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    explain(&plan, name, asked_dir, || {
        too_long(&spawn.argv, &environment)
    })
}

/// The child's stack, used again for each launch: the agent waits until the child has left it.
pub(crate) struct Stack(Vec<u128>);

impl Stack {
    pub(crate) fn new() -> Stack {
        Stack(vec![0; STACK_BYTES / size_of::<u128>()])
    }
}

fn clone_child(plan: &mut Plan<'_>, stack: &mut Stack) -> Result<i32, NotStarted> {
    let top = stack.0.as_mut_ptr_range().end.cast::<c_void>();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let argument = std::ptr::from_mut(plan).cast::<c_void>();
    // SAFETY: `top` is the 16-byte aligned end of a live buffer that nothing else uses while the child runs. The child
    // shares this memory, but CLONE_VFORK holds this thread until it has executed a program or ended, and
    // `child` only makes system calls and writes to its plan, which outlives it.
    let pid = unsafe { libc::clone(child, top, flags, argument) };
    if pid < 0 {
        let error = std::io::Error::last_os_error();
        let message = format!(
            "no process could be started ({error}); the sandbox may be at its limit of processes or memory"
        );
        let error = failed_as(ErrorKind::ResourceExhausted, errno_of(&error), message);
        return Err(NotStarted::NoRoom(error));
    }
    Ok(pid)
}

extern "C" fn child(argument: *mut c_void) -> c_int {
    // SAFETY: the argument is the plan that `clone_child` was given, alive and not used by anybody else.
    let plan = unsafe { &mut *argument.cast::<Plan<'_>>() };
    // SAFETY: this is the child of `clone_child`.
    plan.errno = unsafe { run_child(plan) };
    127
}

/// Leaves this function only where the program was not executed, with the reason.
///
/// # Safety
/// Only for a child that shares its parent's memory while the parent waits: it makes system calls directly, since
/// libc's functions may keep state that belongs to the parent (its setuid, for one, acts on the parent's threads).
unsafe fn run_child(plan: &mut Plan<'_>) -> c_int {
    macro_rules! check {
        ($step:expr, $call:expr) => {
            plan.step = $step;
            // SAFETY: each call is a system call on plain numbers, or on pointers into the plan.
            if unsafe { $call } < 0 {
                return errno();
            }
        };
    }
    check!(Step::Session, libc::setsid());
    if plan.terminal {
        check!(
            Step::Terminal,
            libc::ioctl(plan.stdio[0], libc::TIOCSCTTY, 0)
        );
    }
    for (target, &source) in (0..).zip(&plan.stdio) {
        // All sources are above 2, as the agent keeps its own 0 to 2 open.
        check!(Step::Descriptors, libc::dup2(source, target));
    }
    // Nothing else goes through an exec, whoever opened it.
    check!(
        Step::Descriptors,
        libc::syscall(
            libc::SYS_close_range,
            3,
            c_int::MAX,
            libc::CLOSE_RANGE_CLOEXEC
        )
    );
    for (resource, limit) in &plan.confinement.resource_limits {
        let value = libc::rlimit {
            rlim_cur: *limit,
            rlim_max: *limit,
        };
        check!(
            Step::Limits,
            libc::syscall(
                libc::SYS_prlimit64,
                0,
                *resource,
                &raw const value,
                std::ptr::null::<libc::rlimit>()
            )
        );
    }
    check!(Step::Enter, plan.confinement.enter_in_child());
    if plan.change_user {
        check!(
            Step::Groups,
            libc::syscall(libc::SYS_setgroups, plan.groups.len(), plan.groups.as_ptr())
        );
        let (uid, gid) = (plan.user.uid, plan.user.gid);
        check!(
            Step::Group,
            libc::syscall(libc::SYS_setresgid, gid, gid, gid)
        );
        check!(
            Step::User,
            libc::syscall(libc::SYS_setresuid, uid, uid, uid)
        );
    }
    if plan.is_timed {
        check!(Step::Confine, plan.confinement.keep_apart_in_child());
    }
    plan.step = Step::CurrentDir;
    // SAFETY: system calls on NUL-terminated strings; a home that does not exist is no reason not to run a program.
    let entered = unsafe {
        libc::chdir(plan.current_dir.as_ptr()) == 0
            || (plan.may_fall_back && libc::chdir(c"/".as_ptr()) == 0)
    };
    if !entered {
        return errno();
    }
    plan.step = Step::Confine;
    // SAFETY: as for this function.
    if unsafe { plan.confinement.apply_in_child(plan.user.uid == 0) } < 0 {
        return errno();
    }
    plan.step = Step::Execute;
    // SAFETY: an empty signal set is valid; resetting a disposition in the child does not touch the parent's.
    unsafe {
        for signal in [
            libc::SIGPIPE,
            libc::SIGCHLD,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
        ] {
            libc::signal(signal, libc::SIG_DFL);
        }
        let empty: u64 = 0;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const empty,
            std::ptr::null::<u64>(),
            8 as c_long,
        );
    }
    let mut result = libc::ENOENT;
    for candidate in plan.candidates {
        // SAFETY: all pointers are to NUL-terminated strings and NULL-terminated arrays in the plan.
        unsafe { libc::execve(candidate.as_ptr(), plan.argv.as_ptr(), plan.envp.as_ptr()) };
        match errno() {
            // As execvp: look further, but remember that there was one that may not be executed.
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => result = libc::EACCES,
            other => return other,
        }
    }
    result
}

fn errno() -> c_int {
    // SAFETY: the location is always valid.
    unsafe { *libc::__errno_location() }
}

fn explain(
    plan: &Plan<'_>,
    name: &[u8],
    asked_dir: Option<&[u8]>,
    too_long: impl FnOnce() -> String,
) -> Result<Launched, NotStarted> {
    let error = Errno::from_raw_os_error(plan.errno);
    let shown = OsStr::from_bytes(name).to_string_lossy();
    let not_executed = |code, reason| Ok(Launched::NotExecuted { code, reason });
    match plan.step {
        Step::Execute => match error {
            Errno::NOENT | Errno::NOTDIR => {
                let existing = plan
                    .candidates
                    .iter()
                    .any(|path| Path::new(OsStr::from_bytes(path.as_bytes())).is_file());
                let reason = match (existing, name.contains(&b'/')) {
                    (true, _) => format!(
                        "{shown}: its interpreter (the first line's program, or the dynamic loader) is not in the sandbox"
                    ),
                    (false, true) => format!("{shown}: there is no such file in the sandbox"),
                    (false, false) => {
                        format!("{shown}: there is no such program in the sandbox's PATH")
                    }
                };
                not_executed(127, reason)
            }
            Errno::ACCESS | Errno::PERM => not_executed(
                126,
                format!("{shown}: it may not be executed; is it executable, and a file?"),
            ),
            Errno::NOEXEC => not_executed(
                126,
                format!("{shown}: it is not a program for this machine, and has no #! line"),
            ),
            Errno::TOOBIG => Err(failed_as(ErrorKind::InvalidArgument, error, too_long()).into()),
            Errno::NOMEM | Errno::AGAIN => Err(NotStarted::NoRoom(failed_as(
                ErrorKind::ResourceExhausted,
                error,
                format!(
                    "{shown}: there is too little memory, or no process left within the limit, to start it"
                ),
            ))),
            error => not_executed(126, format!("{shown}: {error}")),
        },
        Step::CurrentDir => {
            let dir = String::from_utf8_lossy(asked_dir.unwrap_or(plan.current_dir.as_bytes()))
                .into_owned();
            let why = match error {
                Errno::NOENT => "does not exist in the sandbox".to_owned(),
                Errno::NOTDIR => "is not a folder in the sandbox".to_owned(),
                Errno::ACCESS | Errno::PERM => {
                    "may not be entered by that user of the sandbox".to_owned()
                }
                error => format!("cannot be entered in the sandbox: {error}"),
            };
            Err(failed(error, format!("the working directory {dir} {why}")).into())
        }
        Step::Groups | Step::Group | Step::User => {
            let message = format!(
                "this sandbox cannot run programs as user {} ({}): it has only the user root, because Blink itself runs as an ordinary user here",
                plan.user.name, plan.user.uid
            );
            Err(failed_as(ErrorKind::Unsupported, error, message).into())
        }
        step => Err(failed_as(
            ErrorKind::Internal,
            error,
            format!("{shown} could not be started: step {step:?} failed ({error})"),
        )
        .into()),
    }
}

/// What it is that the kernel finds too long.
fn too_long(argv: &[blink_wire::PathBytes], environment: &[Vec<u8>]) -> String {
    /// Linux's `MAX_ARG_STRLEN`, less the byte that ends a string.
    const LONGEST_STRING: usize = (128 << 10) - 1;
    let advice = "pass large data through a file or standard input";
    let limit = format!("the kernel takes {LONGEST_STRING}; {advice}");
    if let Some((index, arg)) = argv
        .iter()
        .enumerate()
        .find(|(_, arg)| arg.len() > LONGEST_STRING)
    {
        let length = arg.len();
        return match index {
            0 => format!("the program's name has {length} bytes, and {limit}"),
            _ => format!("argument {index} has {length} bytes, and {limit}"),
        };
    }
    if let Some(pair) = environment.iter().find(|pair| pair.len() > LONGEST_STRING) {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let shown: String = String::from_utf8_lossy(name).chars().take(100).collect();
        let length = pair.len();
        return format!(
            "the environment variable {shown} has {length} bytes with its name, and {limit}"
        );
    }
    let total = |strings: &mut dyn Iterator<Item = usize>| -> usize {
        strings.map(|length| length + 1).sum()
    };
    let arguments = total(&mut argv.iter().map(|arg| arg.len()));
    let variables = total(&mut environment.iter().map(Vec::len));
    format!(
        "the arguments have {arguments} bytes and the environment has {variables}, and the kernel takes about a quarter of the limit of a program's stack for both together (2 MiB where that is 8 MiB); {advice}"
    )
}

fn invalid(message: &str) -> ErrorBody {
    ErrorBody::new(ErrorKind::InvalidArgument, message)
}

fn c_string(bytes: &[u8], what: &str) -> Result<CString, ErrorBody> {
    CString::new(bytes).map_err(|_| {
        invalid(&format!(
            "{what} holds a NUL byte, which no program can be given"
        ))
    })
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// `NAME=value` for each variable, with what every program expects where it is missing.
fn environment(spawn: &Spawn, user: &User) -> Result<Vec<Vec<u8>>, ErrorBody> {
    let mut pairs = Vec::with_capacity(spawn.env.len() + 6);
    for (name, value) in &spawn.env {
        if name.is_empty() || name.contains(&b'=') {
            let shown = String::from_utf8_lossy(name);
            return Err(invalid(&format!(
                "{shown:?} is not a name that an environment variable can have"
            )));
        }
        pairs.push([name.as_slice(), b"=", value.as_slice()].concat());
    }
    let defaults = [
        ("PATH", DEFAULT_PATH),
        ("HOME", user.home.as_str()),
        ("USER", user.name.as_str()),
        ("LOGNAME", user.name.as_str()),
        ("SHELL", user.shell.as_str()),
        ("LANG", DEFAULT_LOCALE),
    ];
    for (name, value) in defaults {
        if !spawn
            .env
            .iter()
            .any(|(known, _)| known.as_slice() == name.as_bytes())
        {
            pairs.push(format!("{name}={value}").into_bytes());
        }
    }
    Ok(pairs)
}

/// The files that a name can mean, in the order in which they are tried.
fn candidates(name: &[u8], path: &[u8]) -> Result<Vec<CString>, ErrorBody> {
    if name.contains(&b'/') {
        return Ok(vec![c_string(name, "the program's name")?]);
    }
    path.split(|byte| *byte == b':')
        .map(|folder| {
            if folder.is_empty() {
                b".".as_slice()
            } else {
                folder
            }
        })
        .map(|folder| c_string(&[folder, b"/", name].concat(), "the program's name"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> User {
        super::super::user::find(Some("0")).unwrap()
    }

    #[test]
    fn the_environment_gets_what_it_lacks() {
        let spawn = Spawn {
            env: vec![(b"HOME".to_vec().into(), b"/x".to_vec().into())],
            ..Spawn::default()
        };
        let pairs = environment(&spawn, &root()).unwrap();
        assert!(pairs.contains(&b"HOME=/x".to_vec()));
        assert_eq!(
            pairs
                .iter()
                .filter(|pair| pair.starts_with(b"HOME="))
                .count(),
            1
        );
        assert!(pairs.iter().any(|pair| pair.starts_with(b"PATH=/usr")));
    }

    #[test]
    fn bad_names_and_nul_bytes_are_refused() {
        for (name, value) in [("", "x"), ("A=B", "x")] {
            let spawn = Spawn {
                env: vec![(
                    name.as_bytes().to_vec().into(),
                    value.as_bytes().to_vec().into(),
                )],
                ..Spawn::default()
            };
            assert_eq!(
                environment(&spawn, &root()).unwrap_err().kind,
                ErrorKind::InvalidArgument
            );
        }
        assert!(
            c_string(b"a\0b", "an argument")
                .unwrap_err()
                .message
                .contains("NUL")
        );
    }

    #[test]
    fn an_empty_part_of_path_is_the_working_directory() {
        let files = candidates(b"ls", b"/bin::/usr/bin").unwrap();
        assert_eq!(
            files,
            [
                c"/bin/ls".to_owned(),
                c"./ls".to_owned(),
                c"/usr/bin/ls".to_owned()
            ]
        );
        assert_eq!(candidates(b"./ls", b"/bin").unwrap(), [c"./ls".to_owned()]);
    }
}
