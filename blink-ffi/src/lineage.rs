//! Checkpoints, and where sessions come from.

use std::ffi::{CString, c_char};

use blink_core::{Checkpoint, Consistency, Lineage};

use crate::call::{call, init};
use crate::entries::milliseconds;
use crate::error::blink_error;
use crate::failure::quietly;
use crate::handle;
use crate::processes::no_such;
use crate::sized::{structure, zeros};
use crate::status::blink_status;
use crate::text::{cut, pointer};

/// What a checkpoint is worth.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum blink_consistency {
    /// As after a power cut: what programs had not written to the disk is not there.
    Crash = 0,
    /// All that programs had written at one moment is there.
    Frozen = 1,
    /// No program ran.
    Stopped = 2,
}

/// A named state of a session's disk, which never changes. Its strings belong to the lineage that it is from.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_checkpoint {
    /// sizeof(blink_checkpoint), set by blink_checkpoint_init().
    pub size: usize,
    /// Names it in its session.
    pub name: *const c_char,
    /// The checkpoint that the session's disk was at before; NULL if there is none.
    pub parent: *const c_char,
    /// What it occupies beyond the layers beneath it.
    pub size_bytes: u64,
    /// When it was made, in milliseconds since 1970, to the second.
    pub created_ms: i64,
    /// A blink_consistency.
    pub consistency: i32,
    /// Always 0.
    pub reserved: u32,
}

structure!(blink_checkpoint, zeros());

/// Sets up a blink_checkpoint to be filled in.
///
/// @param checkpoint  Written.
/// @param size        sizeof(blink_checkpoint).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_checkpoint_init(
    checkpoint: *mut blink_checkpoint,
    size: usize,
) -> blink_status {
    init!(checkpoint, size)
}

pub(crate) fn consistency(consistency: Consistency) -> i32 {
    let known = match consistency {
        Consistency::Stopped => blink_consistency::Stopped,
        Consistency::Frozen => blink_consistency::Frozen,
        _ => blink_consistency::Crash,
    };
    known as i32
}

/// Where a session comes from, and the tree of its checkpoints. It never changes.
pub struct blink_lineage {
    forked_from: Option<CString>,
    current: Option<CString>,
    checkpoints: Vec<Shown>,
}

struct Shown {
    checkpoint: Checkpoint,
    name: CString,
    parent: Option<CString>,
}

impl blink_lineage {
    pub(crate) fn new(lineage: Lineage) -> blink_lineage {
        let show = |checkpoint: Checkpoint| Shown {
            name: cut(checkpoint.name.clone()),
            parent: checkpoint.parent.clone().map(cut),
            checkpoint,
        };
        blink_lineage {
            forked_from: lineage.forked_from.map(cut),
            current: lineage.current.map(cut),
            checkpoints: lineage.checkpoints.into_iter().map(show).collect(),
        }
    }
}

/// The session that a session was forked from.
///
/// @param lineage  Borrowed. May be used from several threads at once.
/// @return "session" or "session@checkpoint", which belongs to the lineage; NULL if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn blink_lineage_forked_from(lineage: *const blink_lineage) -> *const c_char {
    quietly(std::ptr::null(), || {
        let lineage = handle::get(lineage);
        lineage.map_or(std::ptr::null(), |lineage| {
            pointer(lineage.forked_from.as_ref())
        })
    })
}

/// The checkpoint that a session's disk was last at.
///
/// @param lineage  Borrowed. May be used from several threads at once.
/// @return It belongs to the lineage; NULL if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn blink_lineage_current(lineage: *const blink_lineage) -> *const c_char {
    quietly(std::ptr::null(), || {
        let lineage = handle::get(lineage);
        lineage.map_or(std::ptr::null(), |lineage| {
            pointer(lineage.current.as_ref())
        })
    })
}

/// The number of checkpoints.
///
/// @param lineage  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_lineage_count(lineage: *const blink_lineage) -> usize {
    quietly(0, || {
        handle::get(lineage).map_or(0, |lineage| lineage.checkpoints.len())
    })
}

/// A checkpoint.
///
/// @param lineage     Borrowed. May be used from several threads at once.
/// @param index       From 0, in the order in which they were made.
/// @param checkpoint  Set up with blink_checkpoint_init(), and filled in. Its strings belong to the lineage.
/// @param err         May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_lineage_get(
    lineage: *const blink_lineage,
    index: usize,
    checkpoint: *mut blink_checkpoint,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let lineage = handle::get(lineage)?;
        let shown = lineage
            .checkpoints
            .get(index)
            .ok_or_else(|| no_such(index))?;
        let filled = blink_checkpoint {
            size: 0,
            name: shown.name.as_ptr(),
            parent: pointer(shown.parent.as_ref()),
            size_bytes: shown.checkpoint.size_bytes,
            created_ms: milliseconds(shown.checkpoint.created_at),
            consistency: consistency(shown.checkpoint.consistency),
            reserved: 0,
        };
        caller.fill(checkpoint, &filled, "the checkpoint")
    })
}

/// Frees a lineage with its strings.
///
/// @param lineage  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_lineage_free(lineage: *mut blink_lineage) {
    handle::free(lineage);
}
