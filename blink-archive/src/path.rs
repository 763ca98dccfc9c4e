//! An entry's path: relative, without `..`, within the limits.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{ArchiveError, LimitKind};
use crate::options::Limits;

/// Takes the bytes of a path apart and puts the harmless ones together again:
/// `./a//b/` becomes `a/b`, and `./` the empty path, which is the root itself.
pub(crate) fn clean(bytes: &[u8], limits: &Limits, layer: bool) -> Result<PathBuf, ArchiveError> {
    let shown = || PathBuf::from(OsStr::from_bytes(bytes));
    if bytes.is_empty() {
        return Err(ArchiveError::hostile("", "its name is empty"));
    }
    if bytes.contains(&0) {
        return Err(ArchiveError::hostile(
            shown(),
            "its name contains a zero byte",
        ));
    }
    if bytes.len() > limits.path_length {
        return Err(ArchiveError::Limit {
            which: LimitKind::PathLength,
            limit: limits.path_length as u64,
            path: shown(),
        });
    }
    if bytes[0] == b'/' && !layer {
        return Err(ArchiveError::hostile(shown(), "its path is absolute"));
    }
    let mut path = Vec::with_capacity(bytes.len());
    let mut depth = 0;
    for component in bytes.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => {
                return Err(ArchiveError::hostile(
                    shown(),
                    "its path leads upwards with '..'",
                ));
            }
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
        depth += 1;
    }
    if depth > limits.depth {
        return Err(ArchiveError::Limit {
            which: LimitKind::Depth,
            limit: limits.depth as u64,
            path: shown(),
        });
    }
    Ok(PathBuf::from(OsString::from_vec(path)))
}

/// Splits a clean path into its folder and its name; the root has no name.
pub(crate) fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let name = path.file_name()?;
    Some((path.parent().unwrap_or(Path::new("")), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(bytes: &[u8], layer: bool) -> Result<PathBuf, ArchiveError> {
        clean(bytes, &Limits::default().with_depth(4), layer)
    }

    #[test]
    fn harmless_paths_are_put_in_order() {
        for (from, to) in [
            ("a", "a"),
            ("./a//b/", "a/b"),
            ("./", ""),
            (".", ""),
            ("a/./b", "a/b"),
        ] {
            assert_eq!(cleaned(from.as_bytes(), false).unwrap(), PathBuf::from(to));
        }
        assert_eq!(cleaned(b"/a/b", true).unwrap(), PathBuf::from("a/b"));
        assert_eq!(
            cleaned(b"\xff\xfe", false).unwrap().as_os_str().as_bytes(),
            b"\xff\xfe"
        );
        assert_eq!(
            cleaned(b"..a/b..", false).unwrap(),
            PathBuf::from("..a/b..")
        );
    }

    #[test]
    fn others_are_refused() {
        for bytes in [
            &b""[..],
            b"/a",
            b"..",
            b"../a",
            b"a/..",
            b"a/../../b",
            b"a\0b",
            b"./../x",
        ] {
            assert!(
                matches!(cleaned(bytes, false), Err(ArchiveError::Hostile { .. })),
                "{bytes:?}"
            );
        }
        assert!(matches!(
            cleaned(b"/../a", true),
            Err(ArchiveError::Hostile { .. })
        ));
        assert!(matches!(
            cleaned(b"a/b/c/d/e", false),
            Err(ArchiveError::Limit {
                which: LimitKind::Depth,
                ..
            })
        ));
        assert!(matches!(
            cleaned(&[b'x'; 5000], false),
            Err(ArchiveError::Limit {
                which: LimitKind::PathLength,
                ..
            })
        ));
    }
}
