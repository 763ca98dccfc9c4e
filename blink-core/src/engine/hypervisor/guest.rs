//! The guest of the trial: 140 KiB of memory with a little kernel in it, whose instructions are the ones that a real
//! kernel cannot do without.
//!
//! | address | what |
//! |---|---|
//! | `0x1000` to `0x4FFF` | page tables of four levels, one page each, which map the memory to itself |
//! | `0x5000`, `0x6000` | descriptor table, interrupt table |
//! | `0x7000` | the stack, downwards from `0x8000` |
//! | `0x9000` | the [`Tally`] |
//! | `0xA000` | what XSAVE and `cmpxchg16b` write to |
//! | `0x10000`, `0x11000` | the program: its kernel part, and its user part |
//! | `0x20000` | a page that is not mapped until the guest's fault handler maps it |
//!
//! Everything here is pure: bytes and numbers, of which [`super::trial`] makes a machine.

use std::arch::global_asm;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in a page.
const PAGE: usize = 4096;
/// Bytes in a word, the unit in which the memory is written and read.
const WORD: usize = 8;
/// Bytes of the guest's memory, which begins at address 0.
const MEMORY: usize = 0x2_3000;

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const PT: u64 = 0x4000;
const GDT: u64 = 0x5000;
const IDT: u64 = 0x6000;
const STACK_TOP: u64 = 0x8000;
const TALLY: u64 = 0x9000;
const SCRATCH: u64 = 0xA000;
const KERNEL_CODE: u64 = 0x1_0000;
const USER_CODE: u64 = 0x1_1000;
const UNMAPPED: u64 = 0x2_0000;
const UNMAPPED_PTE: u64 = PT + UNMAPPED / PAGE as u64 * 8;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;

/// The port at which the guest says which step it begins.
pub(super) const STEP_PORT: u16 = 0x10;

/// How many turns the timed loop has: some 10 ms for a processor, and minutes for a program that acts as one.
const LOOP_TURNS: u32 = 20_000_000;
/// How many turns the loop of a kernel's instructions has.
const KERNEL_TURNS: u32 = 2_000;

/// What the guest does, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Start,
    Cpuid,
    Rdtsc,
    PageTables,
    Msr,
    Swapgs,
    Cmpxchg16b,
    Int3,
    PageFault,
    Xsave,
    Syscall,
    KernelLoop,
    Loop,
    End,
}

impl Step {
    const ALL: [Step; 14] = [
        Step::Start,
        Step::Cpuid,
        Step::Rdtsc,
        Step::PageTables,
        Step::Msr,
        Step::Swapgs,
        Step::Cmpxchg16b,
        Step::Int3,
        Step::PageFault,
        Step::Xsave,
        Step::Syscall,
        Step::KernelLoop,
        Step::Loop,
        Step::End,
    ];

    /// The step that the guest has named at [`STEP_PORT`].
    pub(super) fn from_number(number: u8) -> Option<Step> {
        Step::ALL.get(usize::from(number)).copied()
    }

    /// The instructions of the step, as they are called in a sentence.
    pub(super) const fn instructions(self) -> &'static str {
        match self {
            Step::Start => "its first instruction",
            Step::Cpuid => "cpuid",
            Step::Rdtsc => "rdtsc",
            Step::PageTables => "mov cr3 and invlpg (the page tables)",
            Step::Msr => "wrmsr and rdmsr",
            Step::Swapgs => "swapgs",
            Step::Cmpxchg16b => "cmpxchg16b",
            Step::Int3 => "int3 and iretq (an interrupt)",
            Step::PageFault => "a page fault and iretq",
            Step::Xsave => "xsetbv, xsave and xrstor (a program's registers)",
            Step::Syscall => "sysret and syscall (a program)",
            Step::KernelLoop => "a loop of mov cr3, cmpxchg16b, cli and sti",
            Step::Loop => "a loop that only counts",
            Step::End => "hlt",
        }
    }
}

/// What the guest's handlers count: a step that was passed over in silence is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) interrupts: u64,
    pub(super) page_faults: u64,
    pub(super) system_calls: u64,
}

impl Tally {
    /// What a guest that ran to its end has counted.
    pub(super) const EXPECTED: Tally = Tally {
        interrupts: 1,
        page_faults: 1,
        system_calls: 1,
    };

    /// Reads it from the guest's memory.
    pub(super) fn read(memory: &Memory) -> Tally {
        Tally {
            interrupts: memory.get(TALLY),
            page_faults: memory.get(TALLY + 8),
            system_calls: memory.get(TALLY + 16),
        }
    }
}

// What a processor lacks (`cpuid` says so) is passed over, as a kernel would do.
global_asm!(
    ".pushsection .rodata.blink_hypervisor_guest, \"a\", @progbits",
    ".balign 16",
    ".macro blink_step number",
    "mov al, \\number",
    "out {step_port}, al",
    ".endm",
    ".hidden blink_hypervisor_guest",
    ".globl blink_hypervisor_guest",
    "blink_hypervisor_guest:",
    // How far the parts are from the first instruction.
    ".quad 28f - 21f, 29f - 21f, 30f - 21f, 31f - 21f",
    "21:",
    "blink_step {step_cpuid}",
    "xor eax, eax",
    "cpuid",
    "mov eax, 1",
    "xor ecx, ecx",
    "cpuid",
    // The features, for the steps that not every processor has.
    "mov r15d, ecx",
    "blink_step {step_rdtsc}",
    "rdtsc",
    "mov r14d, eax",
    "rdtsc",
    "blink_step {step_page_tables}",
    "mov rax, cr3",
    "mov cr3, rax",
    "invlpg [{scratch}]",
    "blink_step {step_msr}",
    // STAR: the segments of syscall and sysret; LSTAR: where syscall goes; FMASK: the flags that it clears.
    "mov ecx, 0xC0000081",
    "xor eax, eax",
    "mov edx, {star}",
    "wrmsr",
    "mov ecx, 0xC0000082",
    "lea rax, [rip + 24f]",
    "xor edx, edx",
    "wrmsr",
    "mov ecx, 0xC0000084",
    "mov eax, 0x200",
    "wrmsr",
    "rdmsr",
    "blink_step {step_swapgs}",
    "swapgs",
    "swapgs",
    "bt r15d, 13",
    "jnc 22f",
    "blink_step {step_cmpxchg16b}",
    "xor eax, eax",
    "xor edx, edx",
    "xor ebx, ebx",
    "xor ecx, ecx",
    "lock cmpxchg16b [{scratch}]",
    "22:",
    "blink_step {step_int3}",
    "int3",
    "blink_step {step_page_fault}",
    "mov byte ptr [{unmapped}], 1",
    "bt r15d, 26",
    "jnc 23f",
    "blink_step {step_xsave}",
    "mov rax, cr4",
    "or eax, {cr4_osxsave}",
    "mov cr4, rax",
    "xor ecx, ecx",
    "xor edx, edx",
    "mov eax, 3",
    "xsetbv",
    "xsave64 [{scratch}]",
    "xrstor64 [{scratch}]",
    "23:",
    "blink_step {step_syscall}",
    "mov ecx, {user_code}",
    "mov r11d, 2",
    "sysretq",
    "24:",
    "inc qword ptr [{tally} + 16]",
    "blink_step {step_kernel_loop}",
    "mov edi, {kernel_turns}",
    "25:",
    "mov rax, cr3",
    "mov cr3, rax",
    "bt r15d, 13",
    "jnc 26f",
    "xor eax, eax",
    "xor edx, edx",
    "xor ebx, ebx",
    "xor ecx, ecx",
    "lock cmpxchg16b [{scratch}]",
    "26:",
    "cli",
    "sti",
    "dec edi",
    "jnz 25b",
    "cli",
    "blink_step {step_loop}",
    "mov ecx, {loop_turns}",
    "27:",
    "dec rcx",
    "jnz 27b",
    "blink_step {step_end}",
    "hlt",
    "28:",
    "inc qword ptr [{tally}]",
    "iretq",
    "29:",
    // The error code goes; the page comes; the instruction is tried again.
    "add rsp, 8",
    "or qword ptr [{unmapped_pte}], {pte_flags}",
    "inc qword ptr [{tally} + 8]",
    "iretq",
    "30:",
    "syscall",
    "31:",
    ".purgem blink_step",
    ".popsection",
    step_port = const STEP_PORT,
    step_cpuid = const Step::Cpuid as u8,
    step_rdtsc = const Step::Rdtsc as u8,
    step_page_tables = const Step::PageTables as u8,
    step_msr = const Step::Msr as u8,
    step_swapgs = const Step::Swapgs as u8,
    step_cmpxchg16b = const Step::Cmpxchg16b as u8,
    step_int3 = const Step::Int3 as u8,
    step_page_fault = const Step::PageFault as u8,
    step_xsave = const Step::Xsave as u8,
    step_syscall = const Step::Syscall as u8,
    step_kernel_loop = const Step::KernelLoop as u8,
    step_loop = const Step::Loop as u8,
    step_end = const Step::End as u8,
    scratch = const SCRATCH,
    tally = const TALLY,
    unmapped = const UNMAPPED,
    unmapped_pte = const UNMAPPED_PTE,
    pte_flags = const PRESENT | WRITABLE,
    user_code = const USER_CODE,
    star = const (Segment::KernelData as u32 | 3) << 16 | Segment::KernelCode as u32,
    cr4_osxsave = const 1 << 18,
    kernel_turns = const KERNEL_TURNS,
    loop_turns = const LOOP_TURNS,
);

/// The program's parts, and the handlers of its interrupts, by their offset.
struct Program {
    kernel: &'static [u8],
    user: &'static [u8],
    interrupt: u64,
    page_fault: u64,
}

fn program() -> Program {
    unsafe extern "C" {
        static blink_hypervisor_guest: [u64; 4];
    }
    // SAFETY: the assembly above begins with these four words, which nothing changes.
    let [interrupt, page_fault, user, end] = unsafe { blink_hypervisor_guest };
    let length = |offset| usize::try_from(offset).expect("the program is shorter than two pages");
    // SAFETY: the words are followed by the program, whose length is the last of them, and which nothing changes.
    let bytes: &[u8] = unsafe {
        let start = (&raw const blink_hypervisor_guest).add(1).cast();
        std::slice::from_raw_parts(start, length(end))
    };
    let (kernel, user) = bytes.split_at(length(user));
    Program {
        kernel,
        user,
        interrupt,
        page_fault,
    }
}

/// The segments of the descriptor table. SYSRET wants the user's data before the user's code.
#[derive(Clone, Copy)]
#[repr(u16)]
pub(super) enum Segment {
    KernelCode = 0x08,
    KernelData = 0x10,
    UserData = 0x18,
    UserCode = 0x20,
}

const CODE_TYPE: u8 = 0b1011;
const DATA_TYPE: u8 = 0b0011;

/// A segment's attributes, as its descriptor holds them and as KVM wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Readable code or writable data, marked as accessed.
    pub(super) kind: u8,
    pub(super) privilege: u8,
    /// 64-bit code.
    pub(super) long: bool,
}

impl Segment {
    pub(super) const ALL: [Segment; 4] = [
        Segment::KernelCode,
        Segment::KernelData,
        Segment::UserData,
        Segment::UserCode,
    ];

    pub(super) const fn attributes(self) -> Attributes {
        let (kind, privilege) = match self {
            Segment::KernelCode => (CODE_TYPE, 0),
            Segment::KernelData => (DATA_TYPE, 0),
            Segment::UserData => (DATA_TYPE, 3),
            Segment::UserCode => (CODE_TYPE, 3),
        };
        Attributes {
            kind,
            privilege,
            long: kind == CODE_TYPE,
        }
    }

    /// The eight bytes in the descriptor table, for a segment of the whole address space.
    const fn descriptor(self) -> u64 {
        let Attributes {
            kind,
            privilege,
            long,
        } = self.attributes();
        let limit = 0x000F_0000_0000_FFFF;
        let access = kind as u64 | 1 << 4 | (privilege as u64) << 5 | 1 << 7;
        let flags = 1 << 3 | if long { 1 << 1 } else { 1 << 2 };
        limit | access << 40 | flags << 52
    }
}

/// The two words of an interrupt gate for the kernel's handler at `address`.
const fn interrupt_gate(address: u64) -> [u64; 2] {
    let present_interrupt_gate = 0x8E00;
    let low = address & 0xFFFF
        | (Segment::KernelCode as u64) << 16
        | present_interrupt_gate << 32
        | (address >> 16 & 0xFFFF) << 48;
    [low, address >> 32]
}

/// The registers that the guest starts with.
pub(super) struct Registers {
    pub(super) rip: u64,
    pub(super) rsp: u64,
    pub(super) cr0: u64,
    pub(super) cr3: u64,
    pub(super) cr4: u64,
    pub(super) efer: u64,
    pub(super) gdt: u64,
    pub(super) gdt_limit: u16,
    pub(super) idt: u64,
    pub(super) idt_limit: u16,
}

/// A 64-bit kernel's: protection, paging and write protection on, floating point enabled, long mode with no-execute and
/// system calls.
pub(super) const REGISTERS: Registers = Registers {
    rip: KERNEL_CODE,
    rsp: STACK_TOP,
    cr0: 0x8005_0033,
    cr3: PML4,
    cr4: 0x0620,
    efer: 0x0D01,
    gdt: GDT,
    gdt_limit: 5 * 8 - 1,
    idt: IDT,
    idt_limit: 0xFFF,
};

const VECTOR_INT3: u64 = 3;
const VECTOR_PAGE_FAULT: u64 = 14;

/// The guest's memory. Its words are atomic, because the guest changes them while the host holds them.
pub(super) struct Memory(Box<[Page]>);

#[repr(C, align(4096))]
struct Page([AtomicU64; PAGE / WORD]);

impl Memory {
    /// The memory as the guest starts.
    pub(super) fn new() -> Memory {
        let blank = || Page([const { AtomicU64::new(0) }; PAGE / WORD]);
        let memory = Memory((0..MEMORY / PAGE).map(|_| blank()).collect());
        memory.put_page_tables();
        memory.put_segments();
        memory.put_program(&program());
        memory
    }

    /// With a program that never ends.
    #[cfg(test)]
    pub(super) fn endless() -> Memory {
        let memory = Memory::new();
        // A jump to itself.
        memory.put_bytes(KERNEL_CODE, &[0xEB, 0xFE]);
        memory
    }

    /// With a program whose first instruction is undefined.
    #[cfg(test)]
    pub(super) fn undefined() -> Memory {
        let memory = Memory::new();
        // Which is what ud2 is there for.
        memory.put_bytes(KERNEL_CODE, &[0x0F, 0x0B]);
        memory
    }

    /// Where it is in this process, aligned to a page.
    pub(super) fn host_address(&self) -> u64 {
        self.0.as_ptr().addr() as u64
    }

    pub(super) fn size(&self) -> u64 {
        (self.0.len() * PAGE) as u64
    }

    fn word(&self, address: u64) -> &AtomicU64 {
        let index = usize::try_from(address).expect("the guest's memory is small") / WORD;
        &self.0[index / (PAGE / WORD)].0[index % (PAGE / WORD)]
    }

    fn get(&self, address: u64) -> u64 {
        self.word(address).load(Ordering::Relaxed)
    }

    fn put(&self, address: u64, word: u64) {
        self.word(address).store(word, Ordering::Relaxed);
    }

    /// Maps every page to itself; a program may use only its own, and one page is left to the fault handler.
    fn put_page_tables(&self) {
        let table = PRESENT | WRITABLE | USER;
        self.put(PML4, PDPT | table);
        self.put(PDPT, PD | table);
        self.put(PD, PT | table);
        for (page, entry) in (0..self.size()).step_by(PAGE).zip((PT..).step_by(WORD)) {
            let flags = match page {
                UNMAPPED => 0,
                USER_CODE => PRESENT | USER,
                _ => PRESENT | WRITABLE,
            };
            self.put(entry, page | flags);
        }
    }

    fn put_segments(&self) {
        for segment in Segment::ALL {
            self.put(GDT + segment as u64, segment.descriptor());
        }
    }

    fn put_program(&self, program: &Program) {
        self.put_bytes(KERNEL_CODE, program.kernel);
        self.put_bytes(USER_CODE, program.user);
        self.put_gate(VECTOR_INT3, KERNEL_CODE + program.interrupt);
        self.put_gate(VECTOR_PAGE_FAULT, KERNEL_CODE + program.page_fault);
    }

    fn put_gate(&self, vector: u64, handler: u64) {
        let [low, high] = interrupt_gate(handler);
        self.put(IDT + vector * 16, low);
        self.put(IDT + vector * 16 + 8, high);
    }

    fn put_bytes(&self, address: u64, bytes: &[u8]) {
        for (address, bytes) in (address..).step_by(WORD).zip(bytes.chunks(WORD)) {
            let mut word = [0; WORD];
            word[..bytes.len()].copy_from_slice(bytes);
            self.put(address, u64::from_le_bytes(word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a processor does to find the page of an address.
    fn walk(memory: &Memory, address: u64) -> u64 {
        let mut table = REGISTERS.cr3;
        for level in (1..4).rev() {
            let entry = memory.get(table + (address >> (12 + 9 * level) & 0x1FF) * 8);
            assert_eq!(entry & PRESENT, PRESENT, "level {level} of {address:#x}");
            table = entry & !0xFFF;
        }
        memory.get(table + (address >> 12 & 0x1FF) * 8)
    }

    #[test]
    fn every_page_is_mapped_to_itself_but_one() {
        let memory = Memory::new();
        for page in (0..MEMORY as u64).step_by(PAGE) {
            let entry = walk(&memory, page);
            assert_eq!(entry & !0xFFF, page);
            assert_eq!(entry & PRESENT == 0, page == UNMAPPED, "{page:#x}");
            assert_eq!(entry & USER != 0, page == USER_CODE, "{page:#x}");
        }
        assert_eq!(walk(&memory, MEMORY as u64), 0);
    }

    #[test]
    fn descriptors_are_those_that_every_kernel_has() {
        assert_eq!(Segment::KernelCode.descriptor(), 0x00AF_9B00_0000_FFFF);
        assert_eq!(Segment::KernelData.descriptor(), 0x00CF_9300_0000_FFFF);
        assert_eq!(Segment::UserData.descriptor(), 0x00CF_F300_0000_FFFF);
        assert_eq!(Segment::UserCode.descriptor(), 0x00AF_FB00_0000_FFFF);
    }

    #[test]
    fn a_gate_holds_the_whole_address() {
        assert_eq!(
            interrupt_gate(0x1122_3344_5566_7788),
            [0x5566_8E00_0008_7788, 0x1122_3344]
        );
    }

    #[test]
    fn the_handlers_are_where_the_gates_point() {
        let memory = Memory::new();
        for vector in [VECTOR_INT3, VECTOR_PAGE_FAULT] {
            let gate = memory.get(IDT + vector * 16);
            let address = gate & 0xFFFF | gate >> 48 << 16;
            assert!(
                (KERNEL_CODE..KERNEL_CODE + PAGE as u64).contains(&address),
                "{address:#x}"
            );
        }
    }

    #[test]
    fn the_program_fits_and_begins_and_ends_as_written() {
        let program = program();
        assert!(program.kernel.len() < PAGE);
        assert_eq!(
            program.kernel[..4],
            [0xB0, Step::Cpuid as u8, 0xE6, 0x10],
            "mov al, 1; out 0x10, al"
        );
        assert_eq!(program.kernel[program.kernel.len() - 2..], [0x48, 0xCF]);
        assert_eq!(program.user, [0x0F, 0x05]);
    }

    #[test]
    fn steps_are_known_by_their_number() {
        for (number, step) in (0..).zip(Step::ALL) {
            assert_eq!(step as u8, number);
            assert_eq!(Step::from_number(number), Some(step));
        }
        assert_eq!(Step::from_number(14), None);
        assert_eq!(Step::from_number(255), None);
    }
}
