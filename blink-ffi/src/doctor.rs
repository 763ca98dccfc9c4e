//! What works on this machine.

use std::ffi::{CString, c_char};

use blink_core::{Check, Hypervisor, Report};

use crate::blink::blink;
use crate::call::{call, init};
use crate::cancel::blink_cancel;
use crate::error::blink_error;
use crate::failure::quietly;
use crate::handle;
use crate::processes::no_such;
use crate::sized::{structure, zeros};
use crate::status::blink_status;
use crate::text::{cut, isolation, pointer};

/// What works on this machine, as it was tried. It never changes.
pub struct blink_report {
    report: Report,
    problems: Vec<Option<CString>>,
    hypervisor: Option<CString>,
}

/// What was found out about one isolation. Its strings belong to the report.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_check {
    /// sizeof(blink_check), set by blink_check_init().
    pub size: usize,
    /// "microvm" or "namespace".
    pub isolation: *const c_char,
    /// Why it does not work, and how to fix it; NULL if it works.
    pub problem: *const c_char,
    /// Microseconds that the trial took, from nothing to a program's result.
    pub elapsed_us: u64,
}

structure!(blink_check, zeros());

/// Sets up a blink_check to be filled in.
///
/// @param check  Written.
/// @param size   sizeof(blink_check).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_check_init(check: *mut blink_check, size: usize) -> blink_status {
    init!(check, size)
}

/// Tries the hypervisor, and each isolation by running a program in a sandbox of its own. May take some 20 seconds.
///
/// @param blink   Borrowed. May be used from several threads at once.
/// @param cancel  Borrowed. NULL: it cannot be cancelled.
/// @param out     Set on success; free with blink_report_free(). NULL on failure.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), even if nothing works; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_doctor(
    blink: *const blink,
    cancel: *const blink_cancel,
    out: *mut *mut blink_report,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let report = core.wait(cancel, async {
            Ok::<_, blink_core::Error>(blink_core::doctor(core.blink()).await)
        })?;
        let problem = |check: &Check| check.problem.as_ref().map(|error| cut(error.message()));
        out.give(blink_report {
            problems: report.checks.iter().map(problem).collect(),
            hypervisor: report.hypervisor.reason().map(cut),
            report,
        });
        Ok(())
    })
}

/// The number of isolations that were tried.
///
/// @param report  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_report_count(report: *const blink_report) -> usize {
    quietly(0, || {
        handle::get(report).map_or(0, |report| report.report.checks.len())
    })
}

/// What was found out about one isolation.
///
/// @param report  Borrowed. May be used from several threads at once.
/// @param index   From 0, the strongest first.
/// @param check   Set up with blink_check_init(), and filled in. Its strings belong to the report.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_report_get(
    report: *const blink_report,
    index: usize,
    check: *mut blink_check,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let report = handle::get(report)?;
        let found = report
            .report
            .checks
            .get(index)
            .ok_or_else(|| no_such(index))?;
        let problem = report.problems.get(index).and_then(Option::as_ref);
        let filled = blink_check {
            size: 0,
            isolation: isolation(found.isolation).as_ptr(),
            problem: pointer(problem),
            elapsed_us: u64::try_from(found.elapsed.as_micros()).unwrap_or(u64::MAX),
        };
        caller.fill(check, &filled, "the check")
    })
}

/// Why the host's hypervisor cannot run a kernel, and what to do about it.
///
/// @param report  Borrowed. May be used from several threads at once.
/// @return It belongs to the report. NULL if the hypervisor can, or was not tried on this kind of processor.
#[unsafe(no_mangle)]
pub extern "C" fn blink_report_hypervisor_problem(report: *const blink_report) -> *const c_char {
    quietly(std::ptr::null(), || {
        let report = handle::get(report);
        report.map_or(std::ptr::null(), |report| {
            pointer(report.hypervisor.as_ref())
        })
    })
}

/// Whether the hypervisor has run what a kernel runs.
///
/// @param report  Borrowed. May be used from several threads at once.
/// @return false also if it was not tried, and for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_report_hypervisor_works(report: *const blink_report) -> bool {
    quietly(false, || {
        handle::get(report).is_ok_and(|report| report.report.hypervisor == Hypervisor::Usable)
    })
}

/// Whether Blink runs as root, and so gives sandboxes users of their own.
///
/// @param report  Borrowed. May be used from several threads at once.
/// @return false for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_report_root(report: *const blink_report) -> bool {
    quietly(false, || {
        handle::get(report).is_ok_and(|report| report.report.root)
    })
}

/// Whether control groups hold the limits of sandboxes; resource limits do otherwise, each process for itself.
///
/// @param report  Borrowed. May be used from several threads at once.
/// @return false for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_report_control_groups(report: *const blink_report) -> bool {
    quietly(false, || {
        handle::get(report).is_ok_and(|report| report.report.control_groups)
    })
}

/// Frees a report with its strings.
///
/// @param report  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_report_free(report: *mut blink_report) {
    handle::free(report);
}
