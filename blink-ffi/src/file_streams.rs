//! Files of a sandbox that are read and written bit by bit.

use std::ffi::c_char;
use std::sync::Arc;

use blink_core::{FileReader, FileWriter};
use bytes::{Buf, Bytes};
use tokio::sync::Mutex;

use crate::call::call;
use crate::cancel::blink_cancel;
use crate::core::{Core, Held};
use crate::error::blink_error;
use crate::failure::Failure;
use crate::files::{blink_files, blink_write_options};
use crate::handle;
use crate::status::blink_status;

/// A file of a sandbox that is read bit by bit.
pub struct blink_file_reader {
    reading: Held<Mutex<Reading>>,
}

struct Reading {
    reader: FileReader,
    /// What has come and did not fit.
    rest: Bytes,
}

/// A file of a sandbox that is written bit by bit. It changes when that is finished.
pub struct blink_file_writer {
    /// `None` once it is finished.
    writing: Held<Mutex<Option<FileWriter>>>,
}

impl blink_file_writer {
    fn new(core: &Arc<Core>, writer: FileWriter) -> blink_file_writer {
        blink_file_writer {
            writing: Held::new(core, Mutex::new(Some(writer))),
        }
    }
}

fn is_over() -> Failure {
    Failure::invalid("this file was finished, or has failed; begin it anew")
}

/// Opens a file of a sandbox to read it bit by bit, in memory that does not depend on its length.
///
/// @param files   Borrowed. May be used from several threads at once.
/// @param path    Absolute.
/// @param offset  How many of its bytes are left out at the beginning.
/// @param length  How many are read at most; UINT64_MAX for all.
/// @param cancel  Borrowed. NULL: it cannot be cancelled.
/// @param out     Set on success; free with blink_file_reader_free(). NULL on failure. It may outlive the files' handle.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; IS_A_DIRECTORY; INVALID_ARGUMENT for a device and the like; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_reader(
    files: *const blink_files,
    path: *const c_char,
    offset: u64,
    length: u64,
    cancel: *const blink_cancel,
    out: *mut *mut blink_file_reader,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let files = handle::get(files)?;
        let path = caller.words(path, "path")?;
        let length = (length < u64::MAX).then_some(length);
        let opening = files.files().reader(path, offset, length);
        let reader = files.core().wait(cancel, opening)?;
        let rest = Bytes::new();
        out.give(blink_file_reader {
            reading: Held::new(files.core(), Mutex::new(Reading { reader, rest })),
        });
        Ok(())
    })
}

/// Reads the next bytes of a file; waits while there are none.
///
/// @param reader  Borrowed. May be used from several threads at once, which take turns.
/// @param buffer  Room for what is read.
/// @param length  How many bytes fit; at least 1.
/// @param count   Set to the number of bytes that were read; 0 is the end, by which all before is known to be right.
/// @param cancel  Borrowed. NULL: it cannot be cancelled. Nothing is lost by it.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); CORRUPT if it did not arrive as it was sent; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_file_reader_read(
    reader: *const blink_file_reader,
    buffer: *mut u8,
    length: usize,
    count: *mut usize,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let count = caller.place(count, 0)?;
        let room = caller.room(buffer, length, "the buffer")?;
        let reader = handle::get(reader)?;
        let read = reader.reading.core().wait(cancel, async {
            let mut reading = reader.reading.lock().await;
            if reading.rest.is_empty() {
                reading.rest = reading.reader.chunk().await?.unwrap_or_default();
            }
            let count = room.len().min(reading.rest.len());
            reading.rest.copy_to_slice(&mut room[..count]);
            Ok::<_, Failure>(count)
        })?;
        caller.set(count, read);
        Ok(())
    })
}

/// Frees a reader, and gives up what was not read.
///
/// @param reader  Taken. NULL does nothing. Calls that are under way on it end first.
#[unsafe(no_mangle)]
pub extern "C" fn blink_file_reader_free(reader: *mut blink_file_reader) {
    handle::free(reader);
}

/// Opens a file of a sandbox to write it bit by bit, in memory that does not depend on its length. It has its old content
/// until blink_file_writer_finish() gives it all of the new one.
///
/// @param files    Borrowed. May be used from several threads at once.
/// @param path     Absolute.
/// @param options  Borrowed. NULL is the defaults.
/// @param out      Set on success; free with blink_file_writer_free(). NULL on failure. It may outlive the files' handle.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; SANDBOX_DIED. Whether the file can be written is told by its writer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_writer(
    files: *const blink_files,
    path: *const c_char,
    options: *const blink_write_options,
    out: *mut *mut blink_file_writer,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let files = handle::get(files)?;
        let path = caller.words(path, "path")?;
        let how = caller.write_options(options)?;
        files.core().check()?;
        let writer = files.files().writer(path, &how)?;
        out.give(blink_file_writer::new(files.core(), writer));
        Ok(())
    })
}

/// Sends bytes of a file; waits while the sandbox does not take them.
///
/// @param writer  Borrowed. May be used from several threads at once, which take turns.
/// @param data    Bytes. NULL with a length of 0.
/// @param length  How many they are.
/// @param cancel  Borrowed. NULL: it cannot be cancelled. The file can only be given up then.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND for a missing folder; READ_ONLY; INVALID_ARGUMENT once it is
///         finished, and after a cancelled write; RESOURCE_EXHAUSTED if the disk is full; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_file_writer_write(
    writer: *const blink_file_writer,
    data: *const u8,
    length: usize,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let data = caller.bytes(data, length, "data")?;
        let writer = handle::get(writer)?;
        writer.writing.core().wait(cancel, async {
            let mut writing = writer.writing.lock().await;
            let writing = writing.as_mut().ok_or_else(is_over)?;
            let written = writing.write(Bytes::copy_from_slice(data)).await;
            written.map_err(Failure::from)
        })
    })
}

/// Makes what was written the file's content. The writer still wants to be freed.
///
/// @param writer  Borrowed. May be used from several threads at once.
/// @param cancel  Borrowed. NULL: it cannot be cancelled. The file may have the new content then.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return As blink_file_writer_write(). On failure the file is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_file_writer_finish(
    writer: *const blink_file_writer,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let writer = handle::get(writer)?;
        writer.writing.core().wait(cancel, async {
            let writing = writer.writing.lock().await.take();
            let finished = writing.ok_or_else(is_over)?.finish().await;
            finished.map(drop).map_err(Failure::from)
        })
    })
}

/// Frees a writer. What was not finished is given up: the file stays as it was.
///
/// @param writer  Taken. NULL does nothing. Calls that are under way on it end first.
#[unsafe(no_mangle)]
pub extern "C" fn blink_file_writer_free(writer: *mut blink_file_writer) {
    handle::free(writer);
}
