//! Whether the machine's hypervisor can run a kernel: tried, not guessed.
//!
//! Some hosts have a `/dev/kvm` that opens and passes simple tests, and stops at the first instruction of a kernel that
//! it does not know. So a [trial] boots a [guest] that does what kernels do, which takes a few milliseconds, and the
//! answer is [kept] for as long as the machine is up.

#[cfg(target_arch = "x86_64")]
mod guest;
#[cfg(target_arch = "x86_64")]
mod kept;
#[cfg(target_arch = "x86_64")]
mod trial;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
#[cfg(target_arch = "x86_64")]
use std::sync::Mutex;

#[cfg(target_arch = "x86_64")]
use kept::{Kept, Key};
#[cfg(target_arch = "x86_64")]
use trial::Finding;

const DEVICE: &str = "/dev/kvm";

/// What is known of the machine's hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hypervisor {
    /// It has run what a kernel runs, at a processor's speed.
    Usable,
    /// It opens; on this kind of processor Blink does not try more.
    Untried,
    /// It cannot run a kernel.
    Unusable {
        /// Why, and what to do about it.
        reason: String,
    },
}

impl serde::Serialize for Hypervisor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Shown<'a> {
            usable: bool,
            tried: bool,
            problem: Option<&'a str>,
        }
        let shown = Shown {
            usable: self.is_usable(),
            tried: *self != Hypervisor::Untried,
            problem: self.reason(),
        };
        shown.serialize(serializer)
    }
}

impl Hypervisor {
    /// Whether micro-VMs can be expected to start.
    pub fn is_usable(&self) -> bool {
        self.reason().is_none()
    }

    /// Why it cannot run a kernel, and what to do about it; `None` if it can.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Hypervisor::Usable | Hypervisor::Untried => None,
            Hypervisor::Unusable { reason } => Some(reason),
        }
    }
}

/// Whether micro-VMs can run here, or a sentence that says why not and what to do.
///
/// Blocks for some 20 ms the first time after the machine's start, and for microseconds afterwards.
#[cfg_attr(
    not(any(feature = "microvm", test)),
    expect(dead_code, reason = "only micro-VMs need it")
)]
pub(crate) fn usable(home: &Path) -> Result<(), String> {
    match ask(home) {
        Hypervisor::Unusable { reason } => Err(reason),
        _ => Ok(()),
    }
}

/// What is known of the hypervisor; it is tried where nothing is known yet.
pub(crate) fn ask(home: &Path) -> Hypervisor {
    answer(home, Knowledge::Use)
}

/// Tries the hypervisor, whatever is known of it.
pub(crate) fn ask_again(home: &Path) -> Hypervisor {
    answer(home, Knowledge::Renew)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    Use,
    Renew,
}

/// Opens the device each time: who may do so can change while the machine is up, and it costs next to nothing.
fn answer(home: &Path, knowledge: Knowledge) -> Hypervisor {
    match open() {
        Ok(device) => answer_for(device, home, knowledge),
        Err(error) => Hypervisor::Unusable {
            reason: why_not_open(&error),
        },
    }
}

fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEVICE)
}

fn why_not_open(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "there is no {DEVICE}; turn virtualization on in the machine's firmware, or nested virtualization where it \
             is itself a virtual machine, and load the kernel's module (modprobe kvm_intel or kvm_amd)"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "this user may not open {DEVICE}; become a member of the group kvm (sudo usermod --append --groups kvm \
             \"$USER\") and log in again"
        ),
        _ => format!(
            "{DEVICE} does not open ({error}); the kernel's log may say why (dmesg, look for kvm)"
        ),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn answer_for(_: File, _: &Path, _: Knowledge) -> Hypervisor {
    Hypervisor::Untried
}

#[cfg(target_arch = "x86_64")]
fn answer_for(device: File, home: &Path, knowledge: Knowledge) -> Hypervisor {
    /// What this process knows. Whoever asks meanwhile waits for the one trial.
    static KNOWN: Mutex<Option<Kept>> = Mutex::new(None);

    let mut known = blink_host::lock(&KNOWN);
    let key = Key::of(&device);
    if knowledge == Knowledge::Use
        && let Some(key) = &key
        && let Some(kept) = known
            .take()
            .filter(|kept| kept.is_for(key))
            .or_else(|| Kept::read(home, key))
    {
        return known.insert(kept).hypervisor();
    }
    let hypervisor = match trial::run(device) {
        Finding::Ran => Hypervisor::Usable,
        Finding::Failed(reason) => Hypervisor::Unusable { reason },
        // Another time it may be different, so it is not kept.
        Finding::Undecided(reason) => return Hypervisor::Unusable { reason },
    };
    if let Some(key) = key {
        known
            .insert(Kept::new(key, &hypervisor))
            .write(home)
            .unwrap_or_else(
                |error| tracing::debug!(%error, "the answer of the hypervisor's trial is not kept"),
            );
    }
    hypervisor
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says what the machine's hypervisor is: `usable` or `unusable`. Without it, any answer is right.
    const EXPECTATION: &str = "BLINK_TEST_KVM";

    #[test]
    fn the_trial_finds_out_what_the_machine_can_do() {
        let home = tempfile::tempdir().unwrap();
        let hypervisor = ask_again(home.path());
        match std::env::var(EXPECTATION).as_deref() {
            Ok("usable") => assert_eq!(hypervisor, Hypervisor::Usable),
            Ok("unusable") => assert!(!hypervisor.is_usable()),
            Ok(other) => panic!("{EXPECTATION} is usable or unusable, not {other}"),
            Err(_) => {}
        }
        // Kept or tried once more, the answer is the same.
        assert_eq!(ask(home.path()), hypervisor);
        assert_eq!(usable(home.path()).is_ok(), hypervisor.is_usable());
    }

    #[test]
    fn the_trial_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let before = machines();
        for _ in 0..10 {
            ask_again(home.path());
        }
        // Other tests have a few at the same time.
        assert!(machines() < before + 10);
    }

    /// The descriptors of virtual machines that this process has open.
    fn machines() -> usize {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        descriptors
            .filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok())
            .filter(|target| target.to_string_lossy().contains("kvm"))
            .count()
    }

    #[test]
    fn what_does_not_open_is_explained() {
        for (kind, words) in [
            (io::ErrorKind::NotFound, "modprobe"),
            (io::ErrorKind::PermissionDenied, "group kvm"),
            (io::ErrorKind::Other, "dmesg"),
        ] {
            let reason = why_not_open(&kind.into());
            assert!(
                reason.contains(DEVICE) && reason.contains(words),
                "{reason}"
            );
        }
    }
}
