//! Extended attributes in the upper folder of an overlay: users' own, and the one that makes a folder opaque.

use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::format::Attributes;

/// Where an overlay keeps its own marks of files and folders, in its upper folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// In attributes of users, where a user has mounted it (`userxattr`). Folders of lower layers cannot be renamed.
    User,
    /// In attributes that only the machine's root can set.
    Trusted,
}

impl Marks {
    /// On a folder that hides what is beneath it.
    pub(crate) fn opaque(self) -> &'static [u8] {
        match self {
            Marks::User => OPAQUE,
            Marks::Trusted => b"trusted.overlay.opaque",
        }
    }

    /// On a folder that lower layers have under another name.
    pub(crate) fn redirect(self) -> &'static [u8] {
        match self {
            Marks::User => b"user.overlay.redirect",
            Marks::Trusted => b"trusted.overlay.redirect",
        }
    }

    pub(crate) fn is_own(self, name: &[u8]) -> bool {
        match self {
            Marks::User => name.starts_with(OVERLAY) && !name.starts_with(ESCAPED),
            Marks::Trusted => name.starts_with(b"trusted.overlay."),
        }
    }
}

/// The mark of a folder that hides what is beneath it, in archives.
pub(crate) const OPAQUE: &[u8] = b"user.overlay.opaque";

/// What the kernel keeps for itself with `userxattr`.
const OVERLAY: &[u8] = b"user.overlay.";
/// What it makes of such an attribute that was set from inside of the overlay.
const ESCAPED: &[u8] = b"user.overlay.overlay.";

/// The kernel's own limits for the list of names and for one value.
pub(crate) const LARGEST: usize = 64 * 1024;

/// Whether an attribute may be carried. The overlay's own are not, as they would mean something to the kernel: only what
/// makes a folder opaque is, apart from these.
pub(crate) fn is_carried(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        && (!name.starts_with(OVERLAY) || name.starts_with(ESCAPED))
        // It ends a key in an archive.
        && !name.contains(&b'=')
}

/// Whether an open folder hides what is beneath it.
pub(crate) fn is_opaque(folder: impl AsFd, marks: Marks) -> Result<bool, Errno> {
    let mut value = [0; 1];
    match rustix::fs::fgetxattr(&folder, marks.opaque(), &mut value[..]) {
        Ok(1) => Ok(value == *b"y"),
        Ok(_) => Ok(false),
        Err(error) => is_missing(error).map(|()| false),
    }
}

/// Where lower layers have an open folder, if not under its own name. The kernel heeds this in attributes of root only.
pub(crate) fn redirect(folder: impl AsFd, marks: Marks) -> Result<Option<Vec<u8>>, Errno> {
    /// What the kernel itself writes is shorter.
    const ROOM: usize = 4096;
    if marks == Marks::User {
        return Ok(None);
    }
    let mut value = [0; ROOM];
    match rustix::fs::fgetxattr(&folder, marks.redirect(), &mut value[..]) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(error) => is_missing(error).map(|()| None),
    }
}

fn is_missing(error: Errno) -> Result<(), Errno> {
    match error {
        Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::PERM => Ok(()),
        error => Err(error),
    }
}

/// The attributes that are carried, in the order of their names. `buffer` has room for twice [`LARGEST`].
pub(crate) fn read(file: impl AsFd, buffer: &mut [u8]) -> Result<Attributes, Errno> {
    read_those(file, buffer, is_carried)
}

fn read_those(
    file: impl AsFd,
    buffer: &mut [u8],
    is_wanted: impl Fn(&[u8]) -> bool,
) -> Result<Attributes, Errno> {
    let (list, value) = buffer.split_at_mut(LARGEST);
    let length = match rustix::fs::flistxattr(&file, &mut *list) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut attributes = Attributes::new();
    for name in list[..length].split(|byte| *byte == 0) {
        if name.is_empty() || !is_wanted(name) {
            continue;
        }
        match rustix::fs::fgetxattr(&file, name, &mut *value) {
            Ok(length) => attributes.push((name.to_vec(), value[..length].to_vec())),
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    attributes.sort_unstable();
    Ok(attributes)
}

/// All of them, for a copy.
pub(crate) fn read_all(file: impl AsFd, buffer: &mut [u8]) -> Result<Attributes, Errno> {
    read_those(file, buffer, |_| true)
}

/// All attributes of a folder in a layer but the overlay's own marks. `buffer` has room for twice [`LARGEST`].
pub(crate) fn read_of_layer(
    folder: impl AsFd,
    marks: Marks,
    buffer: &mut [u8],
) -> Result<Attributes, Errno> {
    read_those(folder, buffer, |name| !marks.is_own(name))
}

pub(crate) fn write(file: impl AsFd, attributes: &Attributes) -> Result<(), Errno> {
    for (name, value) in attributes {
        rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty())?;
    }
    Ok(())
}
