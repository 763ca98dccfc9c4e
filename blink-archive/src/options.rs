//! What a caller can choose.

/// What becomes of a symbolic link in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Links {
    /// The look-up fails.
    Refuse,
    /// It is followed as if the root were `/`, so that it cannot lead outside.
    InRoot,
}

/// Who owns what is unpacked, or what owner a packed entry states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ownership {
    /// Unpacking: whoever runs this owns everything. Packing: everything is
    /// stated as owned by 0:0.
    Ignore,
    /// Unpacking: an entry of user `n` belongs to `uid_base + n` (needs the
    /// right to change owners). Packing: a file of user `uid_base + n` is stated
    /// as `n`.
    Preserve {
        /// Added to every user id.
        uid_base: u32,
        /// Added to every group id.
        gid_base: u32,
        /// The largest id that an entry may state: a larger one would belong to
        /// somebody outside the range that the caller set aside. When packing, an
        /// id outside the range is stated as `max_id`.
        max_id: u32,
        /// What a larger one becomes when unpacking; it is refused where there is
        /// none.
        beyond: Option<u32>,
    },
}

/// How much an archive may ask for. Every default is far above what honest
/// trees need and far below what hurts a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Entries, and so inodes. Default 2 097 152: the largest images in use have
    /// under a million, and a file system's inodes are shared with everybody.
    pub entries: u64,
    /// Bytes of all files together, sparse files counted in full (whoever reads
    /// them later reads it all). Default 64 GiB: several times the largest
    /// images in use.
    pub total_bytes: u64,
    /// Bytes that are written to the disk: what is a hole there is not counted.
    /// Without a limit by default, as `total_bytes` is one already.
    pub written_bytes: u64,
    /// Bytes of one path. Default 4095, what the kernel takes.
    pub path_length: usize,
    /// Folders inside folders. Default 256: honest trees stay below 60, and
    /// packing holds one open folder for each level.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2 * 1024 * 1024,
            total_bytes: 64 << 30,
            written_bytes: u64::MAX,
            path_length: 4095,
            depth: 256,
        }
    }
}

impl Limits {
    /// Sets the largest number of entries.
    pub fn with_entries(mut self, entries: u64) -> Self {
        self.entries = entries;
        self
    }

    /// Sets the largest sum of all files' sizes.
    pub fn with_total_bytes(mut self, total_bytes: u64) -> Self {
        self.total_bytes = total_bytes;
        self
    }

    /// Sets how much may be written to the disk.
    pub fn with_written_bytes(mut self, written_bytes: u64) -> Self {
        self.written_bytes = written_bytes;
        self
    }

    /// Sets the longest path in bytes.
    pub fn with_path_length(mut self, path_length: usize) -> Self {
        self.path_length = path_length;
        self
    }

    /// Sets how many folders may be inside each other.
    pub fn with_depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }
}

/// How [`unpack`](crate::unpack) treats an archive. The default suits an archive
/// from a hostile source; [`UnpackOptions::layer`] suits an OCI image layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnpackOptions {
    /// Who owns what is unpacked. Default [`Ownership::Ignore`].
    pub ownership: Ownership,
    /// Whether an entry replaces a file that is there. Default true. A folder
    /// with something in it is replaced only by an image layer.
    pub overwrite: bool,
    /// How much the archive may ask for.
    pub limits: Limits,
    /// OCI layer rules: whiteouts remove what lower layers gave, a symbolic link
    /// in the middle of a path is followed inside the root, a leading `/` is
    /// dropped, an entry replaces whatever is there, and the two empty blocks at
    /// the end may be missing (a layer's digest already says that it is whole).
    /// Default false: a path through a symbolic link is refused.
    pub whiteouts: bool,
    /// Whether set-user-id, set-group-id and sticky bits are kept. Default
    /// false: a hostile archive must not leave a program on the host that runs
    /// as the user who unpacked it.
    pub special_bits: bool,
    /// Whether an entry `./` sets the mode, times and owner of the root itself.
    /// Default false, as the root is the caller's.
    pub root_metadata: bool,
    /// Whether files and folders get the extended attributes of users that the
    /// archive states, where the file system has such. Default false.
    pub attributes: bool,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self {
            ownership: Ownership::Ignore,
            overwrite: true,
            limits: Limits::default(),
            whiteouts: false,
            special_bits: false,
            root_metadata: false,
            attributes: false,
        }
    }
}

impl UnpackOptions {
    /// Options for a layer of an OCI image.
    pub fn layer() -> Self {
        Self {
            whiteouts: true,
            special_bits: true,
            root_metadata: true,
            ..Self::default()
        }
    }

    /// Sets who owns what is unpacked.
    pub fn with_ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self
    }

    /// Sets whether an entry replaces a file that is there.
    pub fn with_overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Sets how much the archive may ask for.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets whether OCI layer rules hold.
    pub fn with_whiteouts(mut self, whiteouts: bool) -> Self {
        self.whiteouts = whiteouts;
        self
    }

    /// Sets whether set-user-id, set-group-id and sticky bits are kept.
    pub fn with_special_bits(mut self, special_bits: bool) -> Self {
        self.special_bits = special_bits;
        self
    }

    /// Sets whether an entry `./` applies to the root itself.
    pub fn with_root_metadata(mut self, root_metadata: bool) -> Self {
        self.root_metadata = root_metadata;
        self
    }

    /// Sets whether extended attributes of users are kept.
    pub fn with_attributes(mut self, attributes: bool) -> Self {
        self.attributes = attributes;
        self
    }

    pub(crate) fn links(&self) -> Links {
        if self.whiteouts {
            Links::InRoot
        } else {
            Links::Refuse
        }
    }
}

/// How [`pack`](crate::pack) writes a tree. [`PackOptions::layer`] suits an OCI image layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackOptions {
    /// What owners are stated. Default: the files' own.
    pub ownership: Ownership,
    /// Whether folders on which another file system is mounted are packed empty.
    /// Default true, which keeps `/proc` and mounted volumes out.
    pub one_file_system: bool,
    /// How much may be packed.
    pub limits: Limits,
    /// OCI layer rules: extended attributes of users are kept, what an overlay's
    /// layers hide is marked as OCI layers mark it, and a name that would be such
    /// a mark is refused. Default false.
    pub layer: bool,
    /// Whether extended attributes of users are stated. Default false.
    pub attributes: bool,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            ownership: Ownership::Preserve {
                uid_base: 0,
                gid_base: 0,
                max_id: u32::MAX - 1,
                beyond: None,
            },
            one_file_system: true,
            limits: Limits::default(),
            layer: false,
            attributes: false,
        }
    }
}

impl PackOptions {
    /// Options for a layer of an OCI image.
    pub fn layer() -> Self {
        Self {
            layer: true,
            attributes: true,
            ..Self::default()
        }
    }

    /// Sets what owners are stated.
    pub fn with_ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self
    }

    /// Sets whether extended attributes of users are stated.
    pub fn with_attributes(mut self, attributes: bool) -> Self {
        self.attributes = attributes;
        self
    }

    /// Sets whether other file systems are left out.
    pub fn with_one_file_system(mut self, one_file_system: bool) -> Self {
        self.one_file_system = one_file_system;
        self
    }

    /// Sets how much may be packed.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}
