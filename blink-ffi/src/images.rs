//! Images.

use std::ffi::{CString, c_char, c_void};

use blink_core::{RemovedImages, StoredImage};

use crate::blink::blink;
use crate::call::{call, init};
use crate::cancel::blink_cancel;
use crate::entries::milliseconds;
use crate::error::blink_error;
use crate::failure::quietly;
use crate::handle;
use crate::processes::no_such;
use crate::progress::{Telling, blink_progress_callback};
use crate::sized::{dispose, structure, zeros};
use crate::status::blink_status;
use crate::text::{cut, pointer};

/// A list of images, as they were when it was made.
pub struct blink_image_list(Vec<Shown>);

struct Shown {
    image: StoredImage,
    reference: Option<CString>,
    digest: CString,
}

impl Shown {
    fn filled(&self) -> blink_image {
        blink_image {
            size: 0,
            reference: pointer(self.reference.as_ref()),
            digest: self.digest.as_ptr(),
            size_bytes: self.image.size_bytes,
            pulled_ms: milliseconds(self.image.pulled_at),
            used_ms: milliseconds(self.image.used_at),
            owner: std::ptr::null_mut(),
        }
    }
}

impl blink_image_list {
    fn new(list: Vec<StoredImage>) -> blink_image_list {
        let show = |image: StoredImage| Shown {
            reference: image.reference.clone().map(cut),
            digest: cut(image.digest.clone()),
            image,
        };
        blink_image_list(list.into_iter().map(show).collect())
    }
}

/// An image in the store. Its strings belong to the list that it is from; where blink_image_pull() has filled it in, they are
/// its own until blink_image_dispose().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_image {
    /// sizeof(blink_image), set by blink_image_init().
    pub size: usize,
    /// The name that it was pulled by, in full; NULL if it came from a file or folder, or its name has moved on.
    pub reference: *const c_char,
    /// Its manifest's digest, as "sha256:…".
    pub digest: *const c_char,
    /// Bytes that it is stored as, some of which other images may share.
    pub size_bytes: u64,
    /// When it was fetched last, in milliseconds since 1970.
    pub pulled_ms: i64,
    /// When it was used last, in milliseconds since 1970, to the hour.
    pub used_ms: i64,
    /// What blink_image_dispose() frees; NULL in what a list has filled in.
    pub owner: *mut blink_image_list,
}

structure!(blink_image, zeros());

/// Sets up a blink_image to be filled in.
///
/// @param image  Written.
/// @param size   sizeof(blink_image).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_image_init(image: *mut blink_image, size: usize) -> blink_status {
    init!(image, size)
}

/// Fetches an image into the home, so that sandboxes can have it at once: a registry's reference, a folder in OCI layout, or
/// a tar of one or of `docker save`. It asks the registry each time: a tag that has moved is followed.
///
/// @param blink          Borrowed. May be used from several threads at once.
/// @param image          What to fetch.
/// @param progress       Is told how far it is. NULL: nobody.
/// @param progress_data  Given to the callback.
/// @param cancel         Borrowed. NULL: it cannot be cancelled. What came so far is kept for the next time.
/// @param out            Set up with blink_image_init(), and filled in; free what is in it with blink_image_dispose(). May be
///                       NULL.
/// @param err            May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); IMAGE_UNAVAILABLE, whose message names alternatives; NOT_FOUND; CORRUPT, UNSUPPORTED and
///         RESOURCE_EXHAUSTED as the image deserves; INVALID_ARGUMENT for what names no image; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_image_pull(
    blink: *const blink,
    image: *const c_char,
    progress: blink_progress_callback,
    progress_data: *mut c_void,
    cancel: *const blink_cancel,
    out: *mut blink_image,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        if !out.is_null() {
            caller.to_fill(out, "out")?;
        }
        let blink = handle::get(blink)?;
        let image = caller.text(image, "image")?;
        let telling = Telling::new(progress, progress_data);
        let core = blink.core();
        let pull = core.blink().pull(image).progress(telling.hear());
        let stored = telling.wait(core, cancel, pull.run())?;
        if out.is_null() {
            return Ok(());
        }
        let list = blink_image_list::new(vec![stored]);
        let mut filled = list.0[0].filled();
        // It stays where it is in memory.
        filled.owner = handle::give(list);
        caller
            .fill(out, &filled, "out")
            .inspect_err(|_| handle::free(filled.owner))
    })
}

/// Frees what is in a blink_image, and sets it up to be filled in again.
///
/// @param image  What blink_image_pull() has filled in, or what was only set up. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_image_dispose(image: *mut blink_image) {
    dispose!(image)
}

/// Lists the stored images, each once for every name that it has, the one that was fetched last first.
///
/// @param blink  Borrowed. May be used from several threads at once.
/// @param out    Set on success; free with blink_image_list_free(). NULL on failure.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); CORRUPT if the list of images is damaged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_image_list_all(
    blink: *const blink,
    out: *mut *mut blink_image_list,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let list = core.wait(std::ptr::null(), core.blink().images())?;
        out.give(blink_image_list::new(list));
        Ok(())
    })
}

/// Removes a stored image. Of one with several names, a reference removes just that name.
///
/// @param blink        Borrowed. May be used from several threads at once.
/// @param name         A reference, or a digest, of which 12 digits are enough.
/// @param freed_bytes  Set to how many bytes that has freed. May be NULL.
/// @param err          May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; BUSY if a sandbox uses it, which the message names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_image_remove(
    blink: *const blink,
    name: *const c_char,
    freed_bytes: *mut u64,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        caller.set(freed_bytes, 0);
        let blink = handle::get(blink)?;
        let name = caller.text(name, "name")?.to_owned();
        let all = blink.core().blink().clone();
        let removed: RemovedImages =
            blink.core().finish(
                std::ptr::null(),
                async move { all.remove_image(name).await },
            )?;
        caller.set(freed_bytes, removed.freed_bytes);
        Ok(())
    })
}

/// Removes what no name and no sandbox refers to: images whose name has moved on, images from folders and files, and downloads
/// that were given up.
///
/// @param blink        Borrowed. May be used from several threads at once.
/// @param freed_bytes  Set to how many bytes that has freed. May be NULL.
/// @param err          May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); BUSY while another process unpacks an image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_image_prune(
    blink: *const blink,
    freed_bytes: *mut u64,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        caller.set(freed_bytes, 0);
        let blink = handle::get(blink)?;
        let all = blink.core().blink().clone();
        let removed: RemovedImages = blink
            .core()
            .finish(std::ptr::null(), async move { all.prune_images().await })?;
        caller.set(freed_bytes, removed.freed_bytes);
        Ok(())
    })
}

/// The number of images in a list.
///
/// @param list  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_image_list_count(list: *const blink_image_list) -> usize {
    quietly(0, || handle::get(list).map_or(0, |list| list.0.len()))
}

/// An image of a list.
///
/// @param list   Borrowed. May be used from several threads at once.
/// @param index  From 0.
/// @param image  Set up with blink_image_init(), and filled in. Its strings belong to the list.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_image_list_get(
    list: *const blink_image_list,
    index: usize,
    image: *mut blink_image,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let list = handle::get(list)?;
        let shown = list.0.get(index).ok_or_else(|| no_such(index))?;
        caller.fill(image, &shown.filled(), "the image")
    })
}

/// Frees a list with its strings.
///
/// @param list  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_image_list_free(list: *mut blink_image_list) {
    handle::free(list);
}
