//! What a failure of the database means to whoever asked.

use std::path::Path;

use blink_host::file_lock::holder_of_records;

use crate::error::{Error, ErrorKind};

pub(crate) fn session_taken(names: &str) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("there is a session {names:?} already; choose another name, or remove that one"),
    )
}

pub(crate) fn checkpoint_taken(session: &str, name: &str) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "the session {session:?} has a checkpoint {name:?} already; choose another name, or remove that one"
        ),
    )
}

/// As [`failed`], where the disk of the home may have been full: SQLite tells that from other failures for its database and
/// its log, but not for the memory that processes share.
pub(super) fn failed_in(home: &Path, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if has_no_room(home) => {
            Error::new(ErrorKind::ResourceExhausted, said(&error, FULL)).caused_by(error)
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => match out_of_files(home) {
            Some(why) => Error::io("the list of sessions cannot be used", &why),
            None => failed(error),
        },
        _ if is_busy(&error) => {
            let holder = holder_of_records(&home.join("blink.db-shm"));
            let advice = format!("; it is in use by {holder}, try again when that has ended");
            Error::new(ErrorKind::Busy, said(&error, &advice))
                .held_by([holder])
                .caused_by(error)
        }
        _ => failed(error),
    }
}

/// SQLite does not say that no file could be opened because too many are open; another attempt does.
fn out_of_files(home: &Path) -> Option<std::io::Error> {
    let error = std::fs::File::open(home).err()?;
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)).then_some(error)
}

/// Whether another process is using the database just now.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

pub(super) fn is_full(error: &Error) -> bool {
    error.kind() == ErrorKind::ResourceExhausted
}

fn has_no_room(home: &Path) -> bool {
    /// What SQLite makes at once, and some.
    const ROOM_BYTES: u64 = 128 << 10;
    rustix::fs::statvfs(home).is_ok_and(|disk| {
        let has_files_left = disk.f_files == 0 || disk.f_favail > 0;
        disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM_BYTES || !has_files_left
    })
}

const FULL: &str = "; make room on the disk of Blink's home, and try again";

fn said(error: &rusqlite::Error, advice: &str) -> String {
    format!("the list of sessions cannot be used: {error}{advice}")
}

pub(super) fn failed(error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let (kind, advice) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (ErrorKind::ResourceExhausted, FULL),
        _ if is_busy(&error) => (ErrorKind::Busy, "; another process is writing it"),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (ErrorKind::Corrupt, "; its file is blink.db in Blink's home")
        }
        Some(ErrorCode::SystemIoFailure) => (
            ErrorKind::Internal,
            "; the disk of Blink's home may be failing, the kernel's log says more",
        ),
        _ => (ErrorKind::Internal, ""),
    };
    Error::new(kind, said(&error, advice)).caused_by(error)
}

/// Whether a column refused a value that another row has, of those that are `UNIQUE` (the name of a session).
pub(super) fn is_taken(error: &Error) -> bool {
    extended_code(error) == Some(rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE)
}

/// Whether a table refused a row whose key another one has.
pub(super) fn is_key_taken(error: &Error) -> bool {
    extended_code(error) == Some(rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
}

fn extended_code(error: &Error) -> Option<std::ffi::c_int> {
    let cause = std::error::Error::source(error)?.downcast_ref::<rusqlite::Error>()?;
    Some(cause.sqlite_error()?.extended_code)
}
