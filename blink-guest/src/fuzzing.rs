//! What fuzzers reach of the agent.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::launch::sandbox::way;

/// The root of a sandbox while it is put together.
pub struct NewRoot(way::NewRoot);

impl NewRoot {
    /// A folder as the root.
    pub fn new(root: OwnedFd) -> NewRoot {
        NewRoot(way::NewRoot::new(root))
    }

    /// A folder of the root's own; `None` where something is in its place.
    pub fn own(&mut self, name: &str) -> Option<OwnedFd> {
        self.0.own(name).ok()
    }

    /// Says that nothing is to be made beneath a folder.
    pub fn is_hosts(&mut self, folder: impl AsFd) {
        let _ = self.0.is_hosts(folder, Path::new("/"));
    }

    /// The folder or file at a path, which is made where nothing is; `None` where there is none to be had.
    pub fn place(&self, path: &Path, is_folder: bool) -> Option<OwnedFd> {
        let end = match is_folder {
            true => way::End::Folder,
            false => way::End::File,
        };
        self.0.place(path, end).ok()
    }
}
