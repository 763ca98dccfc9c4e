//! What a sandbox sees of the host.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// A file or folder of the host that a sandbox sees.
///
/// A single file can be written to, and not replaced by another of its name (`EBUSY`), which [`Files::write`] and some editors
/// do: mount its folder for that. In a micro-VM, the owners of what is mounted cannot be changed (`EINVAL`).
///
/// [`Files::write`]: crate::Files::write
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mount {
    /// What the sandbox sees. Of a micro-VM, nothing that has Blink's home in it.
    pub host: PathBuf,
    /// Where it sees it.
    pub guest: PathBuf,
    /// Whether it may not change it.
    #[serde(default)]
    pub read_only: bool,
    /// What was there when it was asked for: a start that finds another is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pinned: Option<Pinned>,
}

/// What tells a file or folder of the host from all others that are there at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pinned {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Mount {
    /// Lets a sandbox see and change `host` at `guest`.
    pub fn new(host: impl Into<PathBuf>, guest: impl Into<PathBuf>) -> Mount {
        Mount {
            host: host.into(),
            guest: guest.into(),
            read_only: false,
            pinned: None,
        }
    }

    /// Lets it only see it.
    pub fn read_only(mut self) -> Mount {
        self.read_only = true;
        self
    }

    /// Holds on to what is there now, unless it does already. What is not there at all is refused later.
    pub(crate) fn pin(&mut self) {
        if let (None, Ok(found)) = (self.pinned, std::fs::metadata(&self.host)) {
            self.pinned = Some(Pinned {
                device: found.dev(),
                inode: found.ino(),
            });
        }
    }

    /// Refuses what cannot be.
    pub(super) fn check(&self) -> Result<()> {
        let (host, guest) = (self.host.display(), self.guest.display());
        if !self.host.exists() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("the mount {host} does not exist on this machine"),
            ));
        }
        const RESERVED: [&str; 5] = ["/proc", "/dev", "/sys", "/.blink", "/run/blink"];
        let unclear = self.guest.components().any(|part| part.as_os_str() == "..")
            || self.guest.as_os_str().as_bytes().contains(&0);
        if !self.guest.is_absolute() || unclear {
            return Err(Error::invalid(format!(
                "{guest} is not a path in a sandbox; begin it with / and leave out .."
            )));
        }
        let is_root = self.guest.components().count() == 1;
        if is_root || RESERVED.iter().any(|path| self.guest.starts_with(path)) {
            return Err(Error::invalid(format!(
                "{guest} belongs to the sandbox itself; mount {host} somewhere else"
            )));
        }
        Ok(())
    }
}
