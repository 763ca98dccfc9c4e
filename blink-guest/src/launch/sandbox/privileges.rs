//! What the sandbox's first process may do: nothing outside its namespaces, and in them what the agent needs.

use std::ffi::c_int;
use std::io;

use super::super::Failure;

/// What the agent keeps of the capabilities that it has over the sandbox's own users, and over nobody else: to give
/// each program its user, its namespace and its marker, to see and end all of them, and to write files for any of them.
const AGENT: &[c_int] = &[
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_FOWNER,
    CAP_FSETID,
    CAP_KILL,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETUID,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
];

const CAP_CHOWN: c_int = 0;
const CAP_DAC_OVERRIDE: c_int = 1;
const CAP_FOWNER: c_int = 3;
const CAP_FSETID: c_int = 4;
const CAP_KILL: c_int = 5;
const CAP_SETGID: c_int = 6;
const CAP_SETUID: c_int = 7;
const CAP_SETPCAP: c_int = 8;
const CAP_SYS_PTRACE: c_int = 19;
const CAP_SYS_ADMIN: c_int = 21;

/// More than there are.
const CAPABILITIES: c_int = 64;

/// Bounds what this process and all that come of it can ever have.
pub(super) fn bound() -> Result<(), Failure> {
    for capability in (0..CAPABILITIES).filter(|number| !AGENT.contains(number)) {
        // SAFETY: a system call on numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            let error = io::Error::last_os_error();
            // There are no more.
            if error.raw_os_error() == Some(libc::EINVAL) {
                break;
            }
            return Err(Failure::at("a capability", "cannot be given up")(error));
        }
    }
    Ok(())
}

/// Has what the agent needs, and no more.
pub(super) fn keep_for_agent() -> Result<(), Failure> {
    let agent = AGENT.iter().fold(0_u64, |set, number| set | 1 << number);
    crate::confine::set_capabilities(agent, agent).map_err(not_kept())
}

/// Keeps it when the agent is executed, though its user is not root. Root keeps it by being root.
pub(super) fn keep_when_executed() -> Result<(), Failure> {
    for capability in AGENT {
        // SAFETY: a system call on numbers.
        let raised = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                *capability,
                0,
                0,
            )
        };
        if raised < 0 {
            return Err(not_kept()(io::Error::last_os_error()));
        }
    }
    Ok(())
}

fn not_kept() -> impl FnOnce(io::Error) -> Failure {
    Failure::at("the agent's capabilities", "cannot be kept")
}

/// A keyring of the sandbox's own: the one that it has come with is that of whoever started it.
pub(super) fn leave_keyring() -> Result<(), Failure> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a system call on numbers; no name makes a new keyring.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0, 0, 0, 0) };
    let error = io::Error::last_os_error();
    // A kernel, or a filter around this process, without keyrings has none to leave.
    match joined < 0 && !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
        true => Err(Failure::at("a keyring", "cannot be made")(error)),
        false => Ok(()),
    }
}
