//! Places between two steps of what must survive: a crash, an error of the disk, a full disk. In a debug build, a test
//! makes one of them happen there: `BLINK_TEST_FAULT` says what and where. `kill 3` ends the process as it comes to its
//! third such place, counted from 0, `fail 3` has an error of the disk there, and `stop 3` stops the process, so that the
//! test can fill its disk. `BLINK_TEST_STEPS` names a file in which the places are listed that the process has come by.

use std::io;

macro_rules! steps {
    ($($(#[$what:meta])* $name:ident,)+) => {
        /// A step that must survive: named after what is done, or was done just before.
        #[allow(missing_docs, reason = "the names say it")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Step { $($(#[$what])* $name,)+ }

        impl Step {
            #[cfg_attr(not(debug_assertions), expect(dead_code, reason = "only tests ask for it"))]
            const ALL: &[Step] = &[$(Step::$name,)+];
        }
    };
}

steps! {
    SandboxMake,
    SandboxLock,
    SandboxMade,
    SandboxRemove,
    LayerMake,
    LayerMade,
    LayerRemove,
    LayerMerge,
    LayerMerged,
    Commit,
    Committed,
    NamespaceDisk,
    NamespaceDiskCopy,
    NamespaceDiskCopied,
    Export,
    ExportWritten,
    ExportSynced,
    Exported,
    NamespaceBoot,
    NamespaceBooted,
    NamespaceRecorded,
    NamespaceImport,
    NamespaceImportUnpack,
    NamespaceImportUnpacked,
    NamespaceImported,
    ImageExport,
    ImageExportLayer,
    ImageExportPacked,
    ImageExportWritten,
    ImageExportSynced,
    ImageExported,
    KeyWrite,
    KeyWritten,
    PoolDisk,
    PoolWarmed,
    PoolBooted,
    PoolNamed,
    PoolTaken,
    PoolShared,
    MicrovmDisk,
    MicrovmDiskMade,
    MicrovmDiskCopied,
    MicrovmImport,
    MicrovmImportRead,
    MicrovmImportSynced,
}

/// Before a step, which fails with what this fails with.
pub fn before(step: Step) -> io::Result<()> {
    #[cfg(debug_assertions)]
    if injected::at(step) {
        return Err(io::Error::from_raw_os_error(libc::EIO));
    }
    let _ = step;
    Ok(())
}

/// After a step that cannot be undone any more.
pub fn after(step: Step) {
    #[cfg(debug_assertions)]
    injected::at(step);
    let _ = step;
}

#[cfg(debug_assertions)]
mod injected {
    use std::fs::File;
    use std::io::Write;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Step;

    enum Fault {
        Kill,
        Stop,
        Fail,
    }

    /// What is to happen, and at which of the places that the process comes by.
    static FAULT: LazyLock<Option<(Fault, u64)>> = LazyLock::new(|| {
        let asked = std::env::var("BLINK_TEST_FAULT").ok()?;
        let (what, place) = asked.split_once(' ')?;
        let fault = match what {
            "kill" => Fault::Kill,
            "stop" => Fault::Stop,
            "fail" => Fault::Fail,
            _ => return None,
        };
        Some((fault, place.parse().ok()?))
    });

    /// Begins with all the places that there are.
    static LIST: LazyLock<Option<File>> = LazyLock::new(|| {
        let path = std::env::var_os("BLINK_TEST_STEPS")?;
        let mut list = File::options().append(true).create(true).open(path).ok()?;
        for step in Step::ALL {
            writeln!(list, "there is {step:?}").ok()?;
        }
        Some(list)
    });

    static PASSED: AtomicU64 = AtomicU64::new(0);

    /// Whether the step is to fail.
    pub(super) fn at(step: Step) -> bool {
        if let Some(mut list) = LIST.as_ref() {
            // In one piece: several threads come by.
            let _ = list.write_all(format!("passed {step:?}\n").as_bytes());
        }
        let Some((fault, place)) = &*FAULT else {
            return false;
        };
        if PASSED.fetch_add(1, Ordering::Relaxed) != *place {
            return false;
        }
        match fault {
            Fault::Kill => raise(libc::SIGKILL),
            Fault::Stop => raise(libc::SIGSTOP),
            Fault::Fail => return true,
        }
        false
    }

    /// To this thread, which does nothing more before the signal has come.
    fn raise(signal: libc::c_int) {
        // SAFETY: takes a number; neither signal has a handler.
        unsafe { libc::raise(signal) };
    }
}
