//! Who an entry belongs to.

use std::path::Path;

use rustix::fs::{Gid, Uid};

use crate::error::ArchiveError;
use crate::format::Member;
use crate::options::Ownership;

#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

impl Owner {
    /// The owner on this machine, or `None` if it is whoever runs this.
    pub(super) fn of(
        member: &Member,
        path: &Path,
        ownership: Ownership,
    ) -> Result<Option<Self>, ArchiveError> {
        Self::mapped(member.uid, member.gid, ownership).ok_or_else(|| {
            ArchiveError::hostile(path, "its owner is outside the range of user ids set aside")
        })
    }

    /// Whether an entry states another owner than it gets.
    pub(super) fn is_replaced(member: &Member, ownership: Ownership) -> bool {
        match ownership {
            Ownership::Preserve {
                max_id,
                beyond: Some(_),
                ..
            } => member.uid.max(member.gid) > u64::from(max_id),
            _ => false,
        }
    }

    /// The archive's user 0, for folders that it only implies.
    pub(super) fn first(ownership: Ownership) -> Option<Self> {
        Self::mapped(0, 0, ownership).flatten()
    }

    fn mapped(uid: u64, gid: u64, ownership: Ownership) -> Option<Option<Self>> {
        let Ownership::Preserve {
            uid_base,
            gid_base,
            max_id,
            beyond,
        } = ownership
        else {
            return Some(None);
        };
        let map = |id: u64, base: u32| {
            let id = u32::try_from(id).ok().filter(|id| *id <= max_id);
            let id = id.or(beyond)?;
            // The last id means "leave as it is" to the kernel.
            base.checked_add(id).filter(|id| *id != u32::MAX)
        };
        Some(Some(Self {
            uid: Uid::from_raw(map(uid, uid_base)?),
            gid: Gid::from_raw(map(gid, gid_base)?),
        }))
    }
}
