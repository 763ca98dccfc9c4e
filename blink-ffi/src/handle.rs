//! Handles: what C holds of a Rust value.
//!
//! A handle is a number that looks like a pointer, and that is given out once: a table leads from it to the value. So a
//! handle that was freed stays freed whatever is made later, and one that is NULL, of another type or from elsewhere is told
//! from one that is good. A call holds the value while it runs: a handle may be freed meanwhile.
//!
//! | bits | |
//! |---|---|
//! | 63, 62 | 0 and 1: no processor of this kind has memory there, so that using a handle as a pointer fails at once |
//! | 61 to 57 | the type |
//! | 56 to 0 | a count, which begins somewhere else in each copy of this library |

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::failure::{Failure, quietly};
use crate::status::blink_status;

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "a handle of libblink is a number of 64 bits in a pointer: build it for a 64-bit target"
);

/// What can be handed to C.
pub(crate) trait Handle: Send + Sync + 'static {
    /// Its type's number in handles; numbers are not seen elsewhere, and so may change.
    const KIND: usize;
    /// Its type's name in the header.
    const NAME: &'static str = NAMES[Self::KIND];
}

macro_rules! handles {
    ($($kind:literal $module:ident::$name:ident),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(impl Handle for crate::$module::$name {
            const KIND: usize = $kind;
        })*
        // Each is at the place that its number says.
        const _: () = {
            let mut place = 0;
            $(assert!($kind == place); place += 1;)*
            assert!(place <= KINDS);
        };
    };
}

handles! {
    0 blink::blink,
    1 bytes::blink_bytes,
    2 cancel::blink_cancel,
    3 entries::blink_entries,
    4 error::blink_error,
    5 file_streams::blink_file_reader,
    6 file_streams::blink_file_writer,
    7 files::blink_files,
    8 images::blink_image_list,
    9 lineage::blink_lineage,
    10 output::blink_output,
    11 process::blink_process,
    12 processes::blink_process_list,
    13 process_logs::blink_process_logs,
    14 session_processes::blink_processes,
    15 doctor::blink_report,
    16 sandbox::blink_sandbox,
    17 session::blink_session,
    18 session_list::blink_session_list,
    19 strings::blink_strings,
    20 pool::blink_pool,
}

const MARK: usize = 0b01 << 62;
const KIND_SHIFT: u32 = 57;
const KINDS: usize = 1 << 5;
const COUNTS: usize = 1 << KIND_SHIFT;

/// The first count of this copy of the library. Another one in the same process has another, so that handles that got to the
/// wrong copy are told. At least 2^56 counts are left behind it: two hundred years of ten million handles a second.
static FIRST: LazyLock<usize> = LazyLock::new(|| {
    let random = RandomState::new().hash_one(()).to_ne_bytes();
    let start = usize::from(u16::from_ne_bytes([random[0], random[1]])) % (COUNTS >> 42);
    (start << 41) | 1
});
/// How many handles there have been.
static GIVEN: AtomicUsize = AtomicUsize::new(0);

/// Parts of the table, each with a lock of its own: threads that make and free handles seldom meet.
const SHARDS: usize = 16;

struct Entry {
    value: Arc<dyn Any + Send + Sync>,
    /// Whether it belongs to another handle, with which it goes.
    lent: bool,
}

type Entries = HashMap<usize, Entry, BuildHasherDefault<Spread>>;

/// Alone in its line of the processor's cache.
#[repr(align(64))]
struct Shard(RwLock<Entries>);

static LIVE: [Shard; SHARDS] =
    [const { Shard(RwLock::new(HashMap::with_hasher(BuildHasherDefault::new()))) }; SHARDS];

impl Shard {
    fn of(number: usize) -> &'static Shard {
        &LIVE[number % SHARDS]
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts are spread well enough by one multiplication, and nobody outside chooses them.
#[derive(Default)]
struct Spread(usize);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0 as u64
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, number: usize) {
        // The golden ratio's digits. The upper half of the product depends on all of the number's bits, and the table looks
        // at the lower ones first.
        self.0 = (self.0 ^ number)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32);
    }
}

fn number<T>(handle: *const T) -> usize {
    handle.addr()
}

/// The number of the type of a handle, of this library or of another copy of it.
fn kind(number: usize) -> Option<usize> {
    (number & 0b11 << 62 == MARK).then_some((number >> KIND_SHIFT) % KINDS)
}

/// The type of a handle that was given out.
fn name(number: usize) -> Option<&'static str> {
    let count = (number % COUNTS).checked_sub(*FIRST)?;
    let kind = kind(number).filter(|_| count < GIVEN.load(Ordering::Relaxed))?;
    NAMES.get(kind).copied()
}

/// Says why a handle is not good.
fn refused<T: Handle>(handle: *const T) -> Failure {
    let name = T::NAME;
    let message = match self::name(number(handle)) {
        _ if handle.is_null() => format!("the {name} is NULL"),
        Some(real) if real == name => {
            format!("this {name} was freed already; nothing can be done with it any more")
        }
        Some(real) => format!("this is a {real}, and not a {name}"),
        None => format!("this is not a {name}: this library has never given out such a handle"),
    };
    // For whoever looks for the mistake: many of these functions have no other way to say it.
    if !handle.is_null() {
        tracing::warn!(handle = ?handle, "{message}");
    }
    Failure::new(blink_status::InvalidArgument, message)
}

/// Puts a value into the table.
fn insert<T: Handle>(value: T, lent: bool) -> *mut T {
    fork::prepare();
    let count = *FIRST + GIVEN.fetch_add(1, Ordering::Relaxed);
    assert!(
        count < COUNTS,
        "all handles that there can be were given out"
    );
    let number = MARK | T::KIND << KIND_SHIFT | count;
    let value = Arc::new(value);
    Shard::of(number)
        .write()
        .insert(number, Entry { value, lent });
    std::ptr::without_provenance_mut(number)
}

/// Takes a value out of the table; it is dropped where the last call that holds it ends.
fn remove<T: Handle>(handle: *const T, lent: bool) -> Option<Arc<T>> {
    let number = number(handle);
    kind(number).filter(|kind| *kind == T::KIND)?;
    let mut live = Shard::of(number).write();
    live.get(&number).filter(|entry| entry.lent == lent)?;
    let entry = live.remove(&number)?;
    // The lock is not held while the value is dropped: that may free others.
    drop(live);
    entry.value.downcast().ok()
}

/// Hands a value to C, which frees it with [`free`].
pub(crate) fn give<T: Handle>(value: T) -> *mut T {
    insert(value, false)
}

/// The value of a handle, which stays as long as the answer does.
pub(crate) fn get<T: Handle>(handle: *const T) -> Result<Arc<T>, Failure> {
    let number = number(handle);
    let value = Shard::of(number)
        .read()
        .get(&number)
        .map(|entry| entry.value.clone());
    value
        .and_then(|value| value.downcast().ok())
        .ok_or_else(|| refused(handle))
}

/// The value of a handle that may be NULL.
pub(crate) fn get_optional<T: Handle>(handle: *const T) -> Result<Option<Arc<T>>, Failure> {
    match handle.is_null() {
        true => Ok(None),
        false => get(handle).map(Some),
    }
}

/// Frees a handle; NULL, one that was freed already, and one that is lent do nothing.
pub(crate) fn free<T: Handle>(handle: *mut T) {
    quietly((), || match remove(handle, false) {
        Some(value) => drop(value),
        None if handle.is_null() => {}
        // Whatever else is wrong with it is told by the look-up.
        None => {
            if get(handle).is_ok() {
                tracing::warn!(
                    ?handle,
                    "this {} belongs to another handle, and is freed with that",
                    T::NAME
                );
            }
        }
    });
}

/// Counts the handles that were given out and not freed.
///
/// A handle is no memory of the program's own, and a checker of leaks does not miss one: a program's test asks here, at its
/// end.
///
/// @return How many there are, in the whole process; 0 for a program that has freed everything.
#[unsafe(no_mangle)]
pub extern "C" fn blink_handle_count() -> usize {
    let count = |shard: &Shard| shard.read().values().filter(|entry| !entry.lent).count();
    quietly(0, || LIVE.iter().map(count).sum())
}

/// A handle that C may look at as long as this is there, and does not free.
pub(crate) struct Lent<T: Handle>(usize, PhantomData<fn() -> T>);

impl<T: Handle> Lent<T> {
    pub(crate) fn new(value: T) -> Lent<T> {
        Lent(insert(value, true).addr(), PhantomData)
    }

    pub(crate) fn pointer(&self) -> *const T {
        std::ptr::without_provenance(self.0)
    }
}

impl<T: Handle> Drop for Lent<T> {
    fn drop(&mut self) {
        drop(remove(self.pointer(), true));
    }
}

/// A process that forks while another of its threads is at the table would leave the child a table that is locked for good.
/// So whoever forks has the whole table while it does.
mod fork {
    use std::sync::Once;

    use super::{Entries, LIVE, RefCell, RwLockWriteGuard, Shard};

    thread_local! {
        static HELD: RefCell<Vec<RwLockWriteGuard<'static, Entries>>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn prepare() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the three are functions of this library, which stays loaded or takes them back when it is unloaded.
            // Where memory is short nothing is registered, and a fork is as before.
            unsafe { libc::pthread_atfork(Some(lock), Some(unlock), Some(unlock)) };
        });
    }

    unsafe extern "C" fn lock() {
        HELD.with_borrow_mut(|held| held.extend(LIVE.iter().map(Shard::write)));
    }

    unsafe extern "C" fn unlock() {
        HELD.with_borrow_mut(Vec::clear);
    }
}
