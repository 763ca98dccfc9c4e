//! BoxLite's failures in Blink's words.

use boxlite::BoxliteError;

use crate::error::{Error, ErrorKind};

/// Says what failed, with the kind that fits.
pub(super) fn translate(what: &str, error: &BoxliteError) -> Error {
    let kind = match error {
        BoxliteError::InvalidArgument(_) | BoxliteError::Config(_) => ErrorKind::InvalidArgument,
        BoxliteError::NotFound(_) => ErrorKind::NotFound,
        BoxliteError::AlreadyExists(_) => ErrorKind::AlreadyExists,
        BoxliteError::ResourceExhausted(_) => ErrorKind::ResourceExhausted,
        BoxliteError::Unsupported(_) | BoxliteError::UnsupportedEngine => ErrorKind::Unsupported,
        // It has no kind for a full disk.
        other if is_full(&other.to_string()) || is_out_of_files(&other.to_string()) => {
            ErrorKind::ResourceExhausted
        }
        _ => ErrorKind::Internal,
    };
    let full = match kind {
        ErrorKind::ResourceExhausted if is_out_of_files(&error.to_string()) => {
            "; close files of this process, or raise its limit (ulimit -n)"
        }
        ErrorKind::ResourceExhausted => "; make room on the disk of Blink's home",
        _ => "",
    };
    Error::new(kind, format!("{what}: {error}{full}"))
}

fn is_out_of_files(message: &str) -> bool {
    ["Too many open files", "os error 24", "os error 23"]
        .iter()
        .any(|sign| message.contains(sign))
}

fn is_full(message: &str) -> bool {
    ["No space left", "os error 28", "Disk quota"]
        .iter()
        .any(|sign| message.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_tell_what_to_do() {
        let pairs = [
            (BoxliteError::NotFound("x".into()), ErrorKind::NotFound),
            (
                BoxliteError::InvalidArgument("x".into()),
                ErrorKind::InvalidArgument,
            ),
            (
                BoxliteError::Storage("write: No space left on device (os error 28)".into()),
                ErrorKind::ResourceExhausted,
            ),
            (BoxliteError::Engine("x".into()), ErrorKind::Internal),
        ];
        for (error, kind) in pairs {
            let translated = translate("the machine could not be booted", &error);
            assert_eq!(translated.kind(), kind, "{translated}");
            assert!(
                translated
                    .message()
                    .starts_with("the machine could not be booted: ")
            );
        }
    }
}
