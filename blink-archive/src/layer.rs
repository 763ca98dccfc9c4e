//! Names that mean something in a layer of an OCI image.

/// Begins a name that stands for something removed: the rest of it.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// Begins a name that is a matter of the file system that whiteouts come from.
pub(crate) const META: &[u8] = b".wh..wh.";
/// In a folder that hides all that lower layers have in it.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
