//! What fuzz/ drives: each function takes bytes that somebody hostile has written to where the library reads them. Not a
//! part of the library: it is there with the feature `fuzzing` only, and changes at any time.

mod agent;
// The disks of micro-VMs are files that a hypervisor, or somebody else, has written. BoxLite has no part in reading them, and
// takes longer to build than all the rest.
#[path = "../engine/microvm/flat/mod.rs"]
#[allow(dead_code, reason = "the engine uses more of it")]
mod flat;
#[path = "../engine/microvm/import.rs"]
#[allow(dead_code, reason = "the engine uses more of it")]
mod import;
#[path = "../engine/microvm/postscript.rs"]
#[allow(dead_code, reason = "the engine uses more of it")]
mod postscript;
#[path = "../engine/microvm/qcow2.rs"]
#[allow(dead_code, reason = "the engine uses more of it")]
mod qcow2;

use std::io::Read;
use std::path::{Path, PathBuf};

pub use agent::agent;

use blink_host::transfer::tell_nobody;
use blink_image::{IdMap, ImageError, ImageSource, ImageStore};

use crate::engine::namespace::archive_fuzzing;
use crate::{ErrorKind, Result};

/// Writes an archive of a session in namespaces whose checksums are right, around whatever its session and layer are.
pub fn write_namespace_archive(archive: &Path, session: &[u8], layer: &[u8]) -> Result<()> {
    archive_fuzzing::write(archive, session, layer)
}

/// Imports an archive of a session in namespaces into an empty folder; returns what it says of its session.
pub fn read_namespace_archive(archive: &Path, disk: &Path, image: &Path) -> Result<Vec<u8>> {
    archive_fuzzing::read(archive, disk, image)
}

/// The disk of a session for which none was asked for, with its image.
const DISK_GIB: u64 = 11;

/// Imports an archive of a session in a micro-VM into an empty folder; returns what it says of its session.
pub fn read_microvm_archive(archive: &Path, disk: &Path) -> Result<Option<Vec<u8>>> {
    let opened = import::MicrovmArchive::open(archive)?;
    opened.import(disk, DISK_GIB, &tell_nobody())?;
    Ok(opened.session)
}

/// Writes what is said of a session behind an archive of a micro-VM.
pub fn append_session(archive: &mut std::fs::File, session: &[u8]) -> std::io::Result<()> {
    postscript::append(archive, session)
}

/// Reads what an archive says of its session.
pub fn session_of_archive(text: &[u8]) -> Result<()> {
    crate::session::read_carried(text)
}

/// Makes one disk of several, the topmost first, over an image in the folder `images`, and writes it to `into`.
///
/// # Panics
/// Where that is another disk than was said, or shows something else.
pub fn flatten(disks: &[PathBuf], images: &Path, into: &Path) -> std::io::Result<()> {
    let open = |disks: &[PathBuf]| flat::Flat::open(disks, flat::Beneath::ImageIn(images));
    let one = open(disks)?;
    let mut written = Vec::new();
    one.read()?.read_to_end(&mut written)?;
    assert_eq!(written.len() as u64, one.bytes());
    std::fs::write(into, &written)?;
    let mut again = Vec::new();
    let other = open(&[into.to_owned()]).expect("what was written is a disk");
    other.read()?.read_to_end(&mut again)?;
    assert!(written == again, "a disk that stands alone is another");
    Ok(())
}

/// Brings the image of a folder or file into a store, and unpacks it; returns its root folder.
pub fn import_image(source: &ImageSource, store: ImageStore) -> Result<PathBuf, ImageError> {
    let digest = blink_image::fuzzing::import(&store, source)?;
    let image = store
        .get(&digest)?
        .expect("what was brought into the store is there");
    Ok(store.rootfs(&image, &|_| ())?.path)
}

/// A store in a folder, of whoever runs this.
pub fn image_store(folder: &Path, limits: blink_archive::Limits) -> Result<ImageStore, ImageError> {
    let ids = IdMap {
        uid_base: 0,
        single: true,
    };
    Ok(ImageStore::open(folder, ids)?.with_limits(limits))
}

/// What a registry asks for.
pub fn challenge(text: &[u8]) {
    blink_image::fuzzing::challenge(text);
}

/// The credentials for a registry in docker's configuration, which is in a file.
pub fn docker_config(config: &Path, registry: &str) {
    blink_image::fuzzing::docker_config(config, registry);
}

/// The kinds of errors that an agent that breaks rules, or is gone, comes to.
const ENDS: [ErrorKind; 2] = [ErrorKind::Protocol, ErrorKind::SandboxDied];
