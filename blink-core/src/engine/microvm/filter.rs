//! Blink's filter of system calls over the hypervisor, in the place of the engine's, which ends machines that rename a file
//! on a mount.
//!
//! The engine copies its hypervisor into the machine's folder before it starts it, unless there is one already. So Blink
//! puts its agent there first, under the hypervisor's name, and the hypervisor beside it: the agent sets the filter and
//! becomes the hypervisor.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::failure::translate;
use crate::error::{Error, ErrorKind, Result};

/// What the engine calls its hypervisor, and the agent sets the filter under.
const STARTED_AS: &str = "boxlite-shim";

/// Where the agent looks for the hypervisor, beside itself.
const HYPERVISOR: &str = "hypervisor";

/// A filter in its place.
pub(super) struct Filter {
    program: PathBuf,
    inode: u64,
}

impl Filter {
    /// Puts the filter into a machine's folder, before the machine starts.
    pub(super) fn put(launcher: &Path, machine: &Path) -> Result<Filter> {
        let shim = boxlite::util::find_binary(STARTED_AS)
            .map_err(|error| translate("the micro-VMs' hypervisor could not be found", &error))?;
        put(launcher, &shim, &machine.join("bin"))
            .map_err(|error| Error::io("the micro-VM's hypervisor could not be made ready", &error))
    }

    /// The program that the filter is over.
    pub(super) fn hypervisor(&self) -> PathBuf {
        self.program.with_file_name(HYPERVISOR)
    }

    /// # Errors
    /// If the engine has put its hypervisor there in spite of it, which then runs without a filter.
    pub(super) fn check(&self) -> Result<()> {
        let inode = fs::metadata(&self.program).map(|found| found.ino());
        if inode.is_ok_and(|inode| inode == self.inode) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Internal,
            "the micro-VM's hypervisor runs without its filter of system calls, and was ended",
        ))
    }
}

fn put(launcher: &Path, shim: &Path, folder: &Path) -> io::Result<Filter> {
    fs::create_dir_all(folder)?;
    fs::copy(shim, folder.join(HYPERVISOR))?;
    let program = folder.join(STARTED_AS);
    fs::copy(launcher, &program)?;
    let file = File::options().write(true).open(&program)?;
    let shim = fs::metadata(shim)?;
    // The engine takes what is as long as its own, and not older, for its own. What follows a program's end is not read.
    file.set_len(shim.len())?;
    let newer = shim.modified()?.max(SystemTime::now());
    file.set_times(FileTimes::new().set_modified(newer))?;
    let inode = file.metadata()?.ino();
    Ok(Filter { program, inode })
}
