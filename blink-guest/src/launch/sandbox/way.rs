//! Ways to places in a sandbox's new root, on which nothing that an image or an earlier program has left there leads
//! anywhere else: one name at a time, from folder to folder, by descriptors. Links lead where they lead inside.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use blink_wire::{LAUNCH_IN_THE_WAY, LAUNCH_NO_PLACE, LAUNCH_READ_ONLY, LAUNCH_RESERVED};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, mkdirat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::super::Failure;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// What tells one file from another.
type Identity = (u64, u64);

/// What there must be at the end of a way, and is made where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Folder,
    File,
}

/// What a name must be, and whether it is made where nothing is.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    end: End,
    is_made: bool,
}

impl Wanted {
    fn made(end: End) -> Wanted {
        Wanted { end, is_made: true }
    }
}

/// The new root.
pub(crate) struct NewRoot {
    root: OwnedFd,
    /// Folders into which nothing leads.
    reserved: Vec<Identity>,
    /// The roots of what is mounted of the host's: nothing is made beneath them.
    hosts: Vec<Identity>,
}

impl AsFd for NewRoot {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl NewRoot {
    pub(crate) fn new(root: OwnedFd) -> NewRoot {
        NewRoot {
            root,
            reserved: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// A folder of the root's own, to which no link may lead, and into which no other way leads from now on.
    pub(crate) fn own(&mut self, name: &str) -> Result<OwnedFd, Failure> {
        let shown = Path::new("/").join(name);
        let folder = self.step(
            &self.root,
            name.as_bytes(),
            Wanted::made(End::Folder),
            &shown,
        )?;
        match folder {
            Step::Into(folder) => {
                self.reserved.push(identity(&folder, &shown)?);
                Ok(folder)
            }
            Step::Link(_) => Err(in_the_way(&shown)),
        }
    }

    /// The same of a folder in one of the root's own.
    pub(crate) fn own_in(&mut self, folder: &OwnedFd, name: &str) -> Result<(), Failure> {
        let shown = Path::new(name);
        match self.step(folder, name.as_bytes(), Wanted::made(End::Folder), shown)? {
            Step::Into(folder) => self.reserved.push(identity(&folder, shown)?),
            Step::Link(_) => return Err(in_the_way(shown)),
        }
        Ok(())
    }

    /// What a mount shows of the host.
    pub(crate) fn is_hosts(&mut self, mount: impl AsFd, shown: &Path) -> Result<(), Failure> {
        self.hosts.push(identity(mount, shown)?);
        Ok(())
    }

    /// What is at a path, or is made there.
    pub(crate) fn place(&self, path: &Path, end: End) -> Result<OwnedFd, Failure> {
        let mut left: Vec<Vec<u8>> = Vec::new();
        push(&mut left, path);
        let mut folders: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                folders.pop();
                continue;
            }
            let here = folders.last().unwrap_or(&self.root);
            let wanted = Wanted {
                end: match left.is_empty() {
                    true => end,
                    false => End::Folder,
                },
                is_made: !folders.iter().any(|folder| self.is_of_host(folder)),
            };
            match self.step(here, &name, wanted, path)? {
                Step::Into(next) => {
                    if self.reserved.contains(&identity(&next, path)?) {
                        return Err(failure(path, LAUNCH_RESERVED, Errno::ACCESS));
                    }
                    folders.push(next);
                }
                Step::Link(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(failure(path, "leads through too many links", Errno::LOOP));
                    }
                    if target.is_absolute() {
                        folders.clear();
                    }
                    push(&mut left, &target);
                }
            }
        }
        let found = folders
            .pop()
            .ok_or_else(|| failure(path, LAUNCH_RESERVED, Errno::ACCESS))?;
        // A way that ends with `..` has not been asked what is there.
        match is_folder(&found, path)? == (end == End::Folder) {
            true => Ok(found),
            false => Err(in_the_way(path)),
        }
    }

    fn is_of_host(&self, folder: &OwnedFd) -> bool {
        identity(folder, Path::new("")).is_ok_and(|found| self.hosts.contains(&found))
    }

    /// One name further.
    fn step(
        &self,
        here: &OwnedFd,
        name: &[u8],
        wanted: Wanted,
        shown: &Path,
    ) -> Result<Step, Failure> {
        let c_name = CString::new(name).map_err(|_| failure(shown, "holds a NUL", Errno::INVAL))?;
        let failed = |step| Failure::at(shown, step);
        let found = match statat(here, &c_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => FileType::from_raw_mode(found.st_mode),
            Err(Errno::NOENT) if wanted.is_made => {
                return match make_in(here, &c_name, wanted.end) {
                    Ok(made) => Ok(Step::Into(made)),
                    Err(Errno::ROFS) => Err(failure(shown, LAUNCH_READ_ONLY, Errno::ROFS)),
                    Err(error) => Err(failed("cannot be made in the sandbox")(error)),
                };
            }
            Err(Errno::NOENT) => return Err(failure(shown, LAUNCH_NO_PLACE, Errno::NOENT)),
            Err(error) => return Err(failed("cannot be looked at in the sandbox")(error)),
        };
        if found == FileType::Symlink {
            let target = readlinkat(here, &c_name, Vec::new())
                .map_err(failed("cannot be read in the sandbox"))?;
            return Ok(Step::Link(OsStr::from_bytes(target.as_bytes()).into()));
        }
        if (wanted.end == End::Folder) != (found == FileType::Directory) {
            return Err(in_the_way(shown));
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(here, &c_name, flags, Mode::empty())
            .map(Step::Into)
            .map_err(failed("cannot be opened in the sandbox"))
    }
}

enum Step {
    Into(OwnedFd),
    Link(PathBuf),
}

/// Puts a path's names on the stack of those that are left, the first on top.
fn push(left: &mut Vec<Vec<u8>>, path: &Path) {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.as_bytes().to_vec()),
        Component::ParentDir => Some(b"..".to_vec()),
        _ => None,
    });
    let names: Vec<_> = names.collect();
    left.extend(names.into_iter().rev());
}

fn make_in(here: &OwnedFd, name: &CString, make: End) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match make {
        End::Folder => {
            mkdirat(here, name, Mode::from_raw_mode(0o755))?;
            openat(here, name, flags | OFlags::PATH, Mode::empty())
        }
        End::File => {
            let made = flags | OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY;
            openat(here, name, made, Mode::from_raw_mode(0o644))
        }
    }
}

fn identity(file: impl AsFd, shown: &Path) -> Result<Identity, Failure> {
    let found = fstat(file).map_err(Failure::at(shown, "cannot be looked at in the sandbox"))?;
    Ok((found.st_dev, found.st_ino))
}

fn is_folder(file: &OwnedFd, shown: &Path) -> Result<bool, Failure> {
    let found = fstat(file).map_err(Failure::at(shown, "cannot be looked at in the sandbox"))?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

fn in_the_way(shown: &Path) -> Failure {
    failure(shown, LAUNCH_IN_THE_WAY, Errno::NOTDIR)
}

fn failure(shown: &Path, step: &'static str, error: Errno) -> Failure {
    Failure::at(shown, step)(error)
}
