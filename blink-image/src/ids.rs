//! Who owns what is unpacked of images.

use blink_archive::Ownership;

/// The largest id that an image may use: a range of 65 536 is what systems set
/// aside for one user's sandboxes.
const LARGEST_ID: u32 = 65_535;

/// Who has what belongs to somebody with a larger id.
const NOBODY: u32 = 65_534;

/// Who owns the files of unpacked images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// Where `single` is false: what is added to each user and group id, so that
    /// the image's root is not this machine's. What has an id above 65 535 is nobody's,
    /// who is 65 534.
    pub uid_base: u32,
    /// Everything belongs to the user who runs this, as for an ordinary user it must.
    pub single: bool,
}

impl IdMap {
    pub(crate) fn ownership(self) -> Ownership {
        if self.single {
            Ownership::Ignore
        } else {
            Ownership::Preserve {
                uid_base: self.uid_base,
                gid_base: self.uid_base,
                max_id: LARGEST_ID,
                beyond: Some(NOBODY),
            }
        }
    }

    /// Who may enter the store. An image's set-user-id programs belong to a user
    /// of this machine: others must not be able to reach them. Only where that
    /// user is nobody's may others pass through, as the sandbox itself has to.
    pub(crate) fn store_mode(self) -> u32 {
        if self.single || self.uid_base == 0 {
            0o700
        } else {
            0o711
        }
    }
}
