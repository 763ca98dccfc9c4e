//! A machine's disk: a file in its sandbox's folder that holds what differs from the layers beneath it.
//!
//! A layer is a disk that nobody writes to any more. Blink keeps disks and layers itself, and lends a disk to the engine
//! while a machine runs: the engine's own snapshot of a running machine renames the file that the machine goes on writing
//! to, so that what is written afterwards is in the snapshot (`docs/adr/0006-disks-of-micro-vms.md`).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::qcow2::Header;

const NAME: &str = "disk.qcow2";

/// The disk of the machine of one sandbox.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// The disk in a sandbox's folder, whether it is there or not.
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

    /// Makes a layer of a disk that no machine writes to; the disk goes on as an empty one over it. Until the last step
    /// the layer is but another name of the disk, and only the disk counts.
    pub(super) fn turn_into(&self, layer: &Path) -> io::Result<()> {
        let size_bytes = self.size_bytes()?;
        File::open(&self.path)?.sync_all()?;
        remove_if_there(layer)?;
        fs::hard_link(&self.path, layer)?;
        sync_folder(layer)?;
        self.lay_over(layer, size_bytes)
    }

    /// Makes a layer of a disk whose machine is paused, as a copy: the machine goes on writing to the same file. Shares
    /// what it can with it where the file system knows how.
    pub(super) fn copy_to(&self, layer: &Path) -> io::Result<()> {
        let new = with_suffix(layer);
        remove_if_there(&new)?;
        let source = File::open(&self.path)?;
        let mut copy = File::options().write(true).create_new(true).open(&new)?;
        if rustix::fs::ioctl_ficlone(&copy, &source).is_err() {
            io::copy(&mut &source, &mut copy)?;
        }
        copy.sync_all()?;
        fs::rename(&new, layer)?;
        sync_folder(layer)
    }

    /// Puts the disk back to what a layer holds. What the disk held is lost with the last step, and not before.
    pub(super) fn reset_to(&self, layer: &Path) -> io::Result<()> {
        self.lay_over(layer, Header::read(layer)?.size_bytes)
    }

    fn lay_over(&self, layer: &Path, size_bytes: u64) -> io::Result<()> {
        let header = Header {
            size_bytes,
            backing: Some(std::path::absolute(layer)?),
        };
        let new = with_suffix(&self.path);
        remove_if_there(&new)?;
        header.write_new(&new)?;
        fs::rename(&new, &self.path)?;
        sync_folder(&self.path)
    }
}

fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
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

    fn disk(folder: &Path) -> Disk {
        let disk = Disk::of(folder);
        let header = Header {
            size_bytes: 1 << 30,
            backing: None,
        };
        header.write_new(&disk.path).unwrap();
        disk
    }

    fn beneath(path: &Path) -> Option<PathBuf> {
        Header::read(path).unwrap().backing
    }

    #[test]
    fn a_layer_is_what_the_disk_was() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(folder.path());
        let was = fs::read(&disk.path).unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        disk.turn_into(&first).unwrap();
        assert_eq!(fs::read(&first).unwrap(), was);
        assert_eq!(beneath(&disk.path), Some(first.clone()));

        // A copy has the same beneath it, and the disk goes on as it is.
        disk.copy_to(&second).unwrap();
        assert_eq!(fs::read(&second).unwrap(), fs::read(&disk.path).unwrap());
        assert_eq!(beneath(&second), Some(first.clone()));

        disk.reset_to(&second).unwrap();
        assert_eq!(beneath(&disk.path), Some(second));
        assert_eq!(disk.size_bytes().unwrap(), 1 << 30);
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["disk.qcow2", "first", "second"]);
    }

    #[test]
    fn what_a_crash_has_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(folder.path());
        let layer = folder.path().join("layer");
        for path in [&layer, &with_suffix(&disk.path), &with_suffix(&layer)] {
            fs::write(path, "half").unwrap();
        }
        disk.turn_into(&layer).unwrap();
        disk.copy_to(&layer).unwrap();
        disk.reset_to(&layer).unwrap();
        assert_eq!(beneath(&disk.path), Some(layer));
    }

    #[test]
    fn a_lent_disk_outlives_its_second_name() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(folder.path());
        let place = folder.path().join("place");
        fs::write(&place, "the engine's own").unwrap();
        disk.lend(&place).unwrap();
        fs::write(&place, "written by the machine").unwrap();
        fs::remove_file(&place).unwrap();
        assert_eq!(fs::read(&disk.path).unwrap(), b"written by the machine");
    }
}
