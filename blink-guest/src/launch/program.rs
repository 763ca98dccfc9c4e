//! Becoming a program.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use blink_wire::{LAUNCH_EXECUTE, LaunchPlan, PathBytes};
use rustix::process::{Pid, getppid};

use super::Failure;

/// Ends this process when its parent does, also where that was a moment ago. A change of user takes it back.
fn die_with(parent: Pid) {
    // SAFETY: system calls on numbers. The parent has one thread, so that its end is its process's.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        if getppid() != Some(parent) {
            libc::_exit(1);
        }
    }
}

/// Becomes a program of the host's; returns where that fails.
pub(super) fn run(plan: &LaunchPlan, descriptors: &[OwnedFd], launcher: Pid) -> Failure {
    die_with(launcher);
    let descriptors: Vec<_> = descriptors.iter().collect();
    match place_descriptors(&descriptors, &plan.numbers) {
        Ok(()) => execute(plan),
        Err(failure) => failure,
    }
}

/// Gives the program its descriptors under their numbers, and nothing else.
pub(super) fn place_descriptors(descriptors: &[&OwnedFd], numbers: &[u32]) -> Result<(), Failure> {
    const WHAT: (&str, &str) = ("a descriptor", "cannot be passed on");
    let highest = numbers.iter().copied().max().unwrap_or(0);
    let out_of_the_way = i32::try_from(highest.max(2) + 1).unwrap_or(i32::MAX);
    // First all of them elsewhere: one may have a number that another is to get.
    let mut moved = Vec::new();
    for (descriptor, number) in descriptors.iter().zip(numbers) {
        let descriptor = rustix::io::fcntl_dupfd_cloexec(descriptor, out_of_the_way)
            .map_err(Failure::at(WHAT.0, WHAT.1))?;
        moved.push((descriptor, *number));
    }
    for (descriptor, number) in &moved {
        let number = i32::try_from(*number).unwrap_or(-1);
        // SAFETY: whatever has the number was moved before, or is not needed by the program.
        if unsafe { libc::dup2(descriptor.as_raw_fd(), number) } < 0 {
            return Err(Failure::at(WHAT.0, WHAT.1)(io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// Closes what is neither a standard descriptor nor has one of these numbers.
pub(super) fn close_all_but(numbers: &[u32]) {
    let mut kept = numbers.to_vec();
    kept.sort_unstable();
    let mut first = 3;
    for number in kept.into_iter().filter(|number| *number > 2) {
        close_from(first, number.wrapping_sub(1));
        first = number.saturating_add(1);
    }
    close_from(first, u32::MAX);
}

fn close_from(first: u32, last: u32) {
    if first <= last {
        // SAFETY: whatever has one of these numbers is used no more.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

pub(super) fn execute(plan: &LaunchPlan) -> Failure {
    let program = path(&plan.program);
    let failed = |error: io::Error| Failure::at(program, LAUNCH_EXECUTE)(error);
    let c_strings = |list: &[PathBytes]| -> io::Result<Vec<CString>> {
        let strings = list.iter().map(|bytes| CString::new(bytes.to_vec()));
        strings
            .map(|string| string.map_err(io::Error::from))
            .collect()
    };
    let prepared = CString::new(program.as_os_str().as_bytes())
        .map_err(io::Error::from)
        .and_then(|name| {
            Ok((
                name,
                c_strings(&plan.arguments)?,
                c_strings(&plan.environment)?,
            ))
        });
    let (name, arguments, environment) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return failed(error),
    };
    let arguments: Vec<_> = std::iter::once(&name)
        .chain(&arguments)
        .map(|argument| argument.as_ptr())
        .chain([std::ptr::null()])
        .collect();
    let environment: Vec<_> = environment
        .iter()
        .map(|variable| variable.as_ptr())
        .chain([std::ptr::null()])
        .collect();
    let mut last = io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in candidates(program, &plan.search) {
        let Ok(candidate) = CString::new(candidate.into_os_string().as_bytes()) else {
            continue;
        };
        // SAFETY: NUL-terminated strings in lists that end with a null pointer, all of which outlive the call.
        unsafe { libc::execve(candidate.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        let error = io::Error::last_os_error();
        // One that is there says more than the others that are not.
        if error.kind() != io::ErrorKind::NotFound {
            last = error;
        }
    }
    failed(last)
}

fn candidates(program: &Path, search: &[u8]) -> Vec<PathBuf> {
    if program.as_os_str().as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    let folders = search.split(|byte| *byte == b':').map(OsStr::from_bytes);
    folders
        .filter(|folder| Path::new(folder).is_absolute())
        .map(|folder| Path::new(folder).join(program))
        .collect()
}

fn path(bytes: &PathBytes) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
