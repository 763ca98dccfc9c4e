//! Runs the [guest](super::guest) through KVM, for a limited time.
//!
//! The guest runs on a thread of its own, because a hypervisor may never come back from it. It is ended without a
//! signal, whose handler would belong to the whole process that Blink is embedded in: its memory is taken away, so that
//! its next instruction cannot be read, and KVM returns.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::guest::{Memory, REGISTERS, STEP_PORT, Segment, Step, Tally};

/// What a trial has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// The guest ran to its end, in time.
    Ran,
    /// It did not, and will not while the host is what it is; a sentence says why.
    Failed(String),
    /// It did not this time, and another time it may; a sentence says why.
    Undecided(String),
}

/// How much of a processor the guest may use: ten times what it needs, also of an emulated processor, and a hundredth
/// of what a host needs that interprets the guest.
const PROCESSOR_TIME: Duration = Duration::from_millis(400);
/// How long it may take: that the machine is busy is no reason to say no.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the processor time is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the end may take of a guest without memory: it cannot execute one instruction more.
const END_WAIT: Duration = Duration::from_millis(500);

/// Tries the hypervisor behind `device`, an open `/dev/kvm`.
pub(super) fn run(device: File) -> Finding {
    run_guest(device, Memory::new())
}

fn run_guest(device: File, memory: Memory) -> Finding {
    let (machine, processor) = match make(device, memory) {
        Ok(made) => made,
        Err(refused) => return Finding::Failed(refused.to_string()),
    };
    match Running::start(Arc::new(machine), processor) {
        Ok(running) => running.finish(),
        Err(error) => Finding::Undecided(format!("a thread could not be started: {error}")),
    }
}

/// What KVM has refused while the machine was made.
#[derive(Debug, thiserror::Error)]
#[error(
    "/dev/kvm opens, but {request} failed ({error}); the kernel's log may say why (dmesg, look for kvm)"
)]
struct Refused {
    request: &'static str,
    error: io::Error,
}

impl Refused {
    fn at(request: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Refused {
        move |error| Refused {
            request,
            error: error.into(),
        }
    }
}

/// A virtual machine with the guest in it.
struct Machine {
    vm: VmFd,
    memory: Memory,
    /// The step that the guest has begun.
    step: AtomicU8,
}

fn make(device: File, memory: Memory) -> Result<(Machine, VcpuFd), Refused> {
    // SAFETY: the descriptor is open, it is /dev/kvm's, and from here on nobody else's.
    let kvm = unsafe { Kvm::from_raw_fd(device.into_raw_fd()) };
    let vm = kvm
        .create_vm()
        .map_err(Refused::at("making a virtual machine"))?;
    let machine = Machine {
        vm,
        memory,
        step: AtomicU8::new(Step::Start as u8),
    };
    machine
        .map(machine.memory.size())
        .map_err(Refused::at("giving it memory"))?;
    let processor = machine
        .vm
        .create_vcpu(0)
        .map_err(Refused::at("giving it a processor"))?;
    prepare(&kvm, &processor).map_err(Refused::at("setting its processor up"))?;
    Ok((machine, processor))
}

/// Brings the processor to the state in which a boot loader hands over to a 64-bit kernel.
fn prepare(kvm: &Kvm, processor: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    processor.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;

    let mut system = processor.get_sregs()?;
    system.cs = segment(Segment::KernelCode);
    let data = segment(Segment::KernelData);
    (system.ds, system.es, system.fs) = (data, data, data);
    (system.gs, system.ss) = (data, data);
    (system.gdt.base, system.gdt.limit) = (REGISTERS.gdt, REGISTERS.gdt_limit);
    (system.idt.base, system.idt.limit) = (REGISTERS.idt, REGISTERS.idt_limit);
    (system.cr0, system.cr3) = (REGISTERS.cr0, REGISTERS.cr3);
    (system.cr4, system.efer) = (REGISTERS.cr4, REGISTERS.efer);
    processor.set_sregs(&system)?;

    let mut registers = processor.get_regs()?;
    (registers.rip, registers.rsp) = (REGISTERS.rip, REGISTERS.rsp);
    // No flag is set; bit 1 always is.
    registers.rflags = 1 << 1;
    processor.set_regs(&registers)
}

fn segment(segment: Segment) -> kvm_segment {
    let attributes = segment.attributes();
    kvm_segment {
        limit: u32::MAX,
        selector: segment as u16,
        type_: attributes.kind,
        dpl: attributes.privilege,
        present: 1,
        s: 1,
        g: 1,
        l: attributes.long.into(),
        db: (!attributes.long).into(),
        ..kvm_segment::default()
    }
}

impl Machine {
    /// Gives the guest this many bytes of its memory, from the first on; none take the memory away.
    fn map(&self, size: u64) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: size,
            userspace_addr: self.memory.host_address(),
        };
        // SAFETY: the memory is there for as long as `self`, without which no thread runs the guest.
        unsafe { self.vm.set_user_memory_region(region) }
    }

    fn step(&self) -> Step {
        Step::from_number(self.step.load(Ordering::Relaxed)).unwrap_or(Step::Start)
    }

    /// Runs the guest until it ends.
    fn run(&self, processor: &mut VcpuFd) -> End {
        loop {
            match processor.run() {
                Ok(VcpuExit::IoOut(STEP_PORT, &[step])) => self.step.store(step, Ordering::Relaxed),
                Ok(VcpuExit::Hlt) => return End::Halted,
                Ok(VcpuExit::InternalError) => return End::Stopped("KVM could not go on".into()),
                Ok(VcpuExit::Shutdown) => {
                    return End::Stopped("it caused a fault that it should not".into());
                }
                Ok(exit) => return End::Stopped(format!("KVM returned {exit:?}")),
                // A signal of the process that Blink is embedded in, which has met this thread.
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
                Err(error) => return End::Stopped(error.to_string()),
            }
        }
    }

    /// What it means that the guest ended so.
    fn judge(&self, end: End) -> Finding {
        let step = self.step();
        let tally = Tally::read(&self.memory);
        let how = match end {
            End::Halted if step == Step::End && tally == Tally::EXPECTED => return Finding::Ran,
            End::Halted => "it was not executed as a processor would".to_owned(),
            End::Stopped(how) => how,
        };
        Finding::Failed(format!(
            "/dev/kvm opens, but cannot run a kernel: a trial stopped at {} ({how}); this machine's virtualization is \
             incomplete, as on some cloud machines, so use one with real or nested hardware virtualization",
            step.instructions()
        ))
    }

    /// What it means that the guest did not end.
    fn judge_endless(&self, used: Duration) -> Finding {
        let step = self.step();
        let found = format!(
            "/dev/kvm opens, but a kernel would hang in it: a trial was still at {} after {used:.0?} of processor time",
            step.instructions()
        );
        if used < PROCESSOR_TIME {
            return Finding::Undecided(format!("{found}; try again when the machine is less busy"));
        }
        Finding::Failed(format!(
            "{found}; this machine seems to emulate what a processor should do, so use one with real or nested \
             hardware virtualization"
        ))
    }
}

/// How a guest ended.
enum End {
    Halted,
    /// In the middle; the words say how.
    Stopped(String),
}

/// A guest that runs on its thread.
struct Running {
    machine: Arc<Machine>,
    thread: JoinHandle<()>,
    ended: Receiver<End>,
}

impl Running {
    fn start(machine: Arc<Machine>, mut processor: VcpuFd) -> io::Result<Running> {
        let (sender, ended) = channel();
        let guest = machine.clone();
        let thread = std::thread::Builder::new()
            .name("blink-kvm-trial".into())
            .spawn(move || {
                let end = guest.run(&mut processor);
                // Closed before anybody goes on, so that nothing is left of the machine then.
                drop((processor, guest));
                let _ = sender.send(end);
            })?;
        Ok(Running {
            machine,
            thread,
            ended,
        })
    }

    fn finish(self) -> Finding {
        let started = Instant::now();
        loop {
            match self.ended.recv_timeout(LOOK_EVERY) {
                Ok(end) => {
                    let _ = self.thread.join();
                    return self.machine.judge(end);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Finding::Undecided("the trial of /dev/kvm failed".into());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let used = self.processor_time();
            if used >= PROCESSOR_TIME || started.elapsed() >= PATIENCE {
                return self.end(used);
            }
        }
    }

    /// Ends a guest that does not end by itself.
    fn end(self, used: Duration) -> Finding {
        let finding = self.machine.judge_endless(used);
        let taken = self.machine.map(0);
        match self.ended.recv_timeout(END_WAIT) {
            Ok(_) => drop(self.thread.join()),
            // The kernel does not return to the thread; whoever waited for it would hang as well.
            Err(_) => tracing::warn!(?taken, "a trial of /dev/kvm could not be ended"),
        }
        finding
    }

    /// The processor time that the guest's thread has used, the guest's included.
    fn processor_time(&self) -> Duration {
        let mut clock = 0;
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the thread is not joined yet, so its handle is good; both results are written to variables of ours.
        let failed = unsafe {
            libc::pthread_getcpuclockid(self.thread.as_pthread_t(), &raw mut clock) != 0
                || libc::clock_gettime(clock, &raw mut time) != 0
        };
        // It has ended this moment.
        if failed {
            return Duration::ZERO;
        }
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Option<File> {
        let device = File::options().read(true).write(true).open("/dev/kvm");
        device.ok()
    }

    /// Also a host that cannot run a kernel can run a jump.
    #[test]
    fn a_guest_that_does_not_end_is_ended() {
        let Some(device) = open() else { return };
        let (machine, processor) = make(device, Memory::endless()).unwrap();
        let machine = Arc::new(machine);
        let running = Running::start(machine.clone(), processor).unwrap();
        let finding = running.finish();
        assert!(
            matches!(&finding, Finding::Failed(reason) | Finding::Undecided(reason) if reason.contains("would hang")),
            "{finding:?}"
        );
        assert_eq!(Arc::strong_count(&machine), 1, "the thread has ended");
    }

    #[test]
    fn a_guest_that_fails_is_told_from_one_that_ends() {
        let Some(device) = open() else { return };
        // Its first instruction is undefined, and no handler waits for that.
        let finding = run_guest(device, Memory::undefined());
        assert!(
            matches!(&finding, Finding::Failed(reason) if reason.contains("its first instruction")),
            "{finding:?}"
        );
    }

    #[test]
    fn what_is_no_hypervisor_is_refused() {
        let finding = run(File::open("/dev/null").unwrap());
        assert!(
            matches!(&finding, Finding::Failed(reason) if reason.contains("making a virtual machine")),
            "{finding:?}"
        );
    }
}
