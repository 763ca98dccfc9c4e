//! Handles: what C holds of a Rust value.
//!
//! Every handle that C has is written down, so that one that is NULL, of another type, or freed already is told from one
//! that is good, as long as its address was not given to a new handle of the same type. A call holds the value while it
//! runs: a handle may be freed meanwhile.

use std::any::TypeId;
use std::collections::HashMap;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::call::Failure;

/// What can be handed to C.
pub(crate) trait Handle: Send + Sync + 'static {
    /// Its type's name in the header.
    const NAME: &'static CStr;
}

/// Addresses of all handles, turned round: a leak checker is not to take this table for their owner.
static LIVE: LazyLock<RwLock<HashMap<usize, TypeId>>> = LazyLock::new(RwLock::default);

fn read() -> RwLockReadGuard<'static, HashMap<usize, TypeId>> {
    LIVE.read().unwrap_or_else(PoisonError::into_inner)
}

fn write() -> RwLockWriteGuard<'static, HashMap<usize, TypeId>> {
    LIVE.write().unwrap_or_else(PoisonError::into_inner)
}

fn key<T>(handle: *const T) -> usize {
    !handle.addr()
}

fn is_good<T: Handle>(live: &HashMap<usize, TypeId>, handle: *const T) -> bool {
    live.get(&key(handle)) == Some(&TypeId::of::<T>())
}

/// Hands a value to C, which frees it with [`free`].
pub(crate) fn give<T: Handle>(value: T) -> *mut T {
    let handle = Arc::into_raw(Arc::new(value)).cast_mut();
    write().insert(key(handle), TypeId::of::<T>());
    handle
}

/// The value of a handle, which stays as long as the answer does.
pub(crate) fn get<T: Handle>(handle: *const T) -> Result<Arc<T>, Failure> {
    let live = read();
    if !is_good(&live, handle) {
        drop(live);
        let name = T::NAME.to_string_lossy();
        return Err(Failure::invalid(match handle.is_null() {
            true => format!("the {name} is NULL"),
            false => format!("this is no {name}, or it was freed already"),
        }));
    }
    // SAFETY: what is in the table came from `Arc::into_raw` of this type, and its owner is not dropped while the table
    // is locked.
    unsafe {
        Arc::increment_strong_count(handle);
        Ok(Arc::from_raw(handle))
    }
}

/// The value of a handle that may be NULL.
pub(crate) fn get_optional<T: Handle>(handle: *const T) -> Result<Option<Arc<T>>, Failure> {
    match handle.is_null() {
        true => Ok(None),
        false => get(handle).map(Some),
    }
}

/// Takes a handle back from C; `None` where it is NULL or was freed already.
pub(crate) fn take<T: Handle>(handle: *mut T) -> Option<Arc<T>> {
    let mut live = write();
    if !is_good(&live, handle) {
        return None;
    }
    live.remove(&key(handle));
    // SAFETY: it was in the table, which owned one count of it, and is no more.
    Some(unsafe { Arc::from_raw(handle) })
}

/// Frees a handle; NULL and one that was freed already do nothing.
pub(crate) fn free<T: Handle>(handle: *mut T) {
    // The table is not locked while the value is dropped: that may free others.
    crate::call::quietly((), || drop(take(handle)));
}

/// A handle that C may look at as long as this is there, and does not free.
pub(crate) struct Lent<T: Handle>(usize, PhantomData<fn() -> T>);

impl<T: Handle> Lent<T> {
    pub(crate) fn new(value: T) -> Lent<T> {
        Lent(give(value).expose_provenance(), PhantomData)
    }

    pub(crate) fn pointer(&self) -> *const T {
        std::ptr::with_exposed_provenance(self.0)
    }
}

impl<T: Handle> Drop for Lent<T> {
    fn drop(&mut self) {
        free(self.pointer().cast_mut());
    }
}
