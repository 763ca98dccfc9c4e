//! Extended attributes in the upper folder of an overlay: users' own, and the one that makes a folder opaque.

use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::format::Attributes;

/// On a folder that hides what is beneath it, in an overlay that a user may mount.
pub(crate) const OPAQUE: &[u8] = b"user.overlay.opaque";
/// The same, in an overlay of the machine's root.
const OPAQUE_TRUSTED: &[u8] = b"trusted.overlay.opaque";

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
pub(crate) fn is_opaque(folder: impl AsFd) -> Result<bool, Errno> {
    for name in [OPAQUE, OPAQUE_TRUSTED] {
        let mut value = [0; 1];
        match rustix::fs::fgetxattr(&folder, name, &mut value[..]) {
            Ok(1) if value == *b"y" => return Ok(true),
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
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

/// All attributes of a folder in a layer that another folder in its place needs: of the overlay's own, the one that makes it
/// opaque. `buffer` has room for twice [`LARGEST`].
pub(crate) fn read_of_layer(folder: impl AsFd, buffer: &mut [u8]) -> Result<Attributes, Errno> {
    read_those(folder, buffer, |name| {
        !name.starts_with(OVERLAY) || name.starts_with(ESCAPED) || name == OPAQUE
    })
}

pub(crate) fn write(file: impl AsFd, attributes: &Attributes) -> Result<(), Errno> {
    for (name, value) in attributes {
        rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty())?;
    }
    Ok(())
}
