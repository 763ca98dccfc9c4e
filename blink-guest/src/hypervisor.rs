//! The filter of system calls over a micro-VM's hypervisor, on the host.
//!
//! The hypervisor has a filter of its own, which lacks what serving a mount needs: a file that is renamed on one ends the
//! machine. Blink turns it off, and starts the hypervisor through this program, which is in its jail already, sets a whole
//! filter, and becomes it.

use std::error::Error;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::confine::filter::{Answer, Filter, Rule, Test};
use crate::confine::{self, syscalls};

/// What the engine starts as the hypervisor.
const STARTED_AS: &str = "boxlite-shim";

/// The hypervisor, beside the program that was started.
const HYPERVISOR: &str = "hypervisor";

/// A plain name for the folder that it is in.
const FOLDER: &str = "/tmp/blink-hypervisor";

/// Unix, IPv4, IPv6 and the kernel's routes: what a machine's network and sockets are made of.
const SOCKET_FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// Whether this program was started by the engine, by the name that it has then.
pub(crate) fn is_asked_for(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name == STARTED_AS)
}

/// Becomes the hypervisor; returns where that fails.
pub(crate) fn run(program: &Path) -> Box<dyn Error> {
    match enter(program) {
        Ok(()) => io::Error::last_os_error().into(),
        Err(error) => error,
    }
}

fn enter(program: &Path) -> Result<(), Box<dyn Error>> {
    // The kernel of machines is a library beside it, looked for along a list of paths, in which a colon parts two: so the
    // folder gets a plain name, in the jail's own /tmp.
    std::os::unix::fs::symlink(program.parent().unwrap_or(program), FOLDER)?;
    // SAFETY: this program has one thread.
    unsafe { std::env::set_var("LD_LIBRARY_PATH", FOLDER) };
    let hypervisor = CString::new(
        program
            .with_file_name(HYPERVISOR)
            .into_os_string()
            .into_vec(),
    )?;
    let name = CString::new(program.as_os_str().as_bytes())?;
    confine::give_up_new_privileges()?;
    filter().apply()?;
    // The engine tells the hypervisor what to do on its standard input.
    let arguments = [name.as_ptr(), std::ptr::null()];
    // SAFETY: both are NUL-terminated, the list ends with a null pointer, and all of them outlive the call.
    unsafe { libc::execv(hypervisor.as_ptr(), arguments.as_ptr()) };
    Ok(())
}

/// A call that is not listed does not exist: what the hypervisor does for a machine then fails for that machine's program,
/// and not the machine.
fn filter() -> Filter {
    let mut filter = Filter::new(libc::ENOSYS);
    filter.answer(syscalls::HYPERVISOR, &Answer::Allowed);
    let unless = |test| {
        Answer::FailsIf(vec![Rule {
            error: libc::ENOSYS,
            tests: vec![test],
        }])
    };
    let families = SOCKET_FAMILIES.map(i32::cast_unsigned);
    filter.answer(&[libc::SYS_socket], &unless(Test::none_of(0, &families)));
    filter.answer(
        &[libc::SYS_clone],
        &unless(Test::has_any_of(0, confine::NEW_NAMESPACES)),
    );
    filter
}
