//! A machine's disk: a file in a layer's folder that holds what differs from the layers beneath it.
//!
//! Blink keeps disks itself, and lends one to the engine while a machine runs: the engine's own snapshot of a running machine
//! renames the file that the machine goes on writing to, so that what is written afterwards is in the snapshot
//! (`docs/adr/0006-disks-of-micro-vms.md`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use blink_host::fault::{self, Step};

use super::flat::{Beneath, Flat};
use super::qcow2::Header;

const NAME: &str = "disk.qcow2";

/// Layers beneath a disk, at most. Each is an open file of the hypervisor's, and costs the first reading of every cluster that
/// is in none of those above it.
pub(super) const DEEPEST: usize = 32;

/// The disk in one layer's folder, whether it is there or not.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    path: PathBuf,
}

impl Disk {
    pub(super) fn of(folder: &Path) -> Disk {
        Disk {
            path: folder.join(NAME),
        }
    }

    pub(super) fn exists(&self) -> bool {
        self.path.is_file()
    }

    pub(super) fn size_bytes(&self) -> io::Result<u64> {
        Header::read(&self.path).map(|header| header.size_bytes)
    }

    /// It and those beneath it, the lowest first, as one; the lowest that there is may lie over an image's in a folder.
    pub(super) fn flat(&self, beneath: &[Disk], images: &Path) -> io::Result<Flat> {
        let there: Vec<_> = beneath
            .iter()
            .filter(|disk| disk.exists())
            .cloned()
            .collect();
        self.merged(&there, None, images)
    }

    /// It and others, the lowest first, as one over what is beneath them all.
    pub(super) fn merged(
        &self,
        others: &[Disk],
        beneath: Option<&Disk>,
        images: &Path,
    ) -> io::Result<Flat> {
        let disks: Vec<_> = std::iter::once(self)
            .chain(others.iter().rev())
            .map(|disk| disk.path.clone())
            .collect();
        let beneath = match beneath {
            Some(disk) => Beneath::Disk(std::path::absolute(&disk.path)?),
            None => Beneath::ImageIn(images),
        };
        Flat::open(&disks, beneath)
    }

    /// Writes one of several.
    pub(super) fn write(&self, flat: &Flat) -> io::Result<()> {
        fault::before(Step::LayerMerge)?;
        remove_if_there(&self.path)?;
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)?;
        io::copy(&mut flat.read()?, &mut file)?;
        fault::before(Step::LayerMerged)?;
        file.sync_all()?;
        sync_folder(&self.path)
    }

    /// Gives the file a second name, in the engine's place for a machine: whatever the engine does to its own name, the
    /// disk stays.
    pub(super) fn lend(&self, place: &Path) -> io::Result<()> {
        remove_if_there(place)?;
        fs::hard_link(&self.path, place)
    }

    /// Takes over what the engine has made.
    pub(super) fn adopt(&self, place: &Path) -> io::Result<()> {
        fs::hard_link(place, &self.path)?;
        sync_folder(&self.path)
    }

    /// Makes an empty disk over another, which is never written to again.
    pub(super) fn lay_over(&self, layer: &Disk) -> io::Result<()> {
        let beneath = File::open(&layer.path)?;
        beneath.sync_all()?;
        let header = Header {
            size_bytes: Header::read_from(&beneath)?.0.size_bytes,
            backing: Some(std::path::absolute(&layer.path)?),
        };
        remove_if_there(&self.path)?;
        fault::before(Step::MicrovmDisk)?;
        header.write_new(&self.path)?;
        fault::before(Step::MicrovmDiskMade)?;
        sync_folder(&self.path)
    }

    /// Copies the disk of a machine that stands still; the machine goes on writing to the same file. Shares what it can
    /// with it where the file system knows how.
    pub(super) fn copy_to(&self, copy: &Disk) -> io::Result<()> {
        remove_if_there(&copy.path)?;
        let source = File::open(&self.path)?;
        let mut target = File::options()
            .write(true)
            .create_new(true)
            .open(&copy.path)?;
        if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
            io::copy(&mut &source, &mut target)?;
        }
        fault::before(Step::MicrovmDiskCopied)?;
        target.sync_all()?;
        sync_folder(&copy.path)
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Names are in folders, and not safe before these are.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(parent: &Path, name: &str) -> Disk {
        let folder = parent.join(name);
        fs::create_dir(&folder).unwrap();
        Disk::of(&folder)
    }

    fn new_disk(parent: &Path, name: &str) -> Disk {
        let disk = folder(parent, name);
        let header = Header {
            size_bytes: 1 << 30,
            backing: None,
        };
        header.write_new(&disk.path).unwrap();
        disk
    }

    fn beneath(disk: &Disk) -> Option<PathBuf> {
        Header::read(&disk.path).unwrap().backing
    }

    #[test]
    fn a_disk_lies_over_another_and_a_copy_over_the_same() {
        let home = tempfile::tempdir().unwrap();
        let lower = new_disk(home.path(), "lower");
        let (upper, copy) = (folder(home.path(), "upper"), folder(home.path(), "copy"));
        assert!(!upper.exists());
        // What a crash has left is in nobody's way.
        fs::write(&upper.path, "half").unwrap();
        fs::write(&copy.path, "half").unwrap();
        upper.lay_over(&lower).unwrap();
        assert_eq!(beneath(&upper), Some(lower.path.clone()));
        assert_eq!(upper.size_bytes().unwrap(), 1 << 30);
        upper.copy_to(&copy).unwrap();
        assert_eq!(
            fs::read(&copy.path).unwrap(),
            fs::read(&upper.path).unwrap()
        );
        assert_eq!(beneath(&copy), Some(lower.path));
    }

    #[test]
    fn a_lent_disk_outlives_its_second_name() {
        let home = tempfile::tempdir().unwrap();
        let disk = new_disk(home.path(), "disk");
        let place = home.path().join("place");
        fs::write(&place, "the engine's own").unwrap();
        disk.lend(&place).unwrap();
        fs::write(&place, "written by the machine").unwrap();
        fs::remove_file(&place).unwrap();
        assert_eq!(fs::read(&disk.path).unwrap(), b"written by the machine");
    }
}
