//! Filters of system calls, as programs for the kernel.
//!
//! The kernel translates its filter anew for every sandbox, and runs it for calls that depend on their arguments: so calls whose
//! numbers follow each other and that get the same answer are one range, and the range of a call is found by halving.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::io;

use libc::{c_ushort, sock_filter, sock_fprog};

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Allowed,
    /// It fails with this error.
    Fails(c_int),
    /// It fails by the first of these rules of which all tests hold, and is allowed where there is none.
    FailsIf(Vec<Rule>),
}

/// With which error a call fails, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) error: c_int,
    pub(crate) tests: Vec<Test>,
}

/// What an argument is, by its lower 32 bits: all that the kernel reads of those that are tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    argument: u8,
    is: Is,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Is {
    In(Vec<u32>),
    NotIn(Vec<u32>),
    /// With any of these bits.
    Bits(u32),
}

impl Test {
    pub(crate) fn one_of(argument: u8, values: &[u32]) -> Test {
        let is = Is::In(values.to_vec());
        Test { argument, is }
    }

    pub(crate) fn none_of(argument: u8, values: &[u32]) -> Test {
        let is = Is::NotIn(values.to_vec());
        Test { argument, is }
    }

    pub(crate) fn has_any_of(argument: u8, bits: u32) -> Test {
        let is = Is::Bits(bits);
        Test { argument, is }
    }
}

/// What becomes of each call, by its number, and with which error all others fail.
pub(crate) struct Filter {
    answers: BTreeMap<u32, Answer>,
    others: c_int,
    /// Of programs of 32 bits. Without one, they end at their first call.
    narrow: Option<Box<Filter>>,
}

impl Filter {
    pub(crate) fn new(others: c_int) -> Filter {
        Filter {
            answers: BTreeMap::new(),
            others,
            narrow: None,
        }
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn set_narrow(&mut self, filter: Filter) {
        self.narrow = Some(Box::new(filter));
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn answer_to(&self, call: i64) -> Option<&Answer> {
        self.answers.get(&u32::try_from(call).ok()?)
    }

    pub(crate) fn answer(&mut self, calls: &[i64], answer: &Answer) {
        let numbers = calls.iter().filter_map(|call| u32::try_from(*call).ok());
        self.answers
            .extend(numbers.map(|call| (call, answer.clone())));
    }

    /// Holds from here on for this thread and all that it starts. It must have given up to gain privileges.
    pub(crate) fn apply(&self) -> io::Result<()> {
        const MODE_FILTER: c_int = 1;
        let mut program = self.program()?;
        let described = sock_fprog {
            len: c_ushort::try_from(program.len()).map_err(io::Error::other)?,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: a system call on a struct that points to an array of ours, and says how long it is.
        match unsafe { libc::syscall(libc::SYS_seccomp, MODE_FILTER, 0, &raw const described) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn program(&self) -> io::Result<Vec<sock_filter>> {
        let mut program = vec![load(ARCHITECTURE)];
        let filters = [
            (OWN_ARCHITECTURE, Some(self)),
            (NARROW_ARCHITECTURE, self.narrow.as_deref()),
        ];
        for (architecture, filter) in filters {
            let Some(filter) = filter else { continue };
            let found = find(&filter.ranges())?;
            program.extend([
                jump(libc::BPF_JEQ, architecture, 1, 0),
                skip(1 + found.len()),
                load(NUMBER),
            ]);
            program.extend(found);
        }
        program.push(end(libc::SECCOMP_RET_KILL_PROCESS));
        Ok(program)
    }

    /// Where ranges of one answer begin; each goes on until the next.
    fn ranges(&self) -> Vec<(u32, Answer)> {
        let others = Answer::Fails(self.others);
        let behind = self.answers.keys().next_back().map_or(0, |last| last + 1);
        let mut ranges: Vec<(u32, Answer)> = Vec::new();
        for call in 0..=behind {
            let answer = self.answers.get(&call).unwrap_or(&others);
            if ranges.last().is_none_or(|(_, before)| before != answer) {
                ranges.push((call, answer.clone()));
            }
        }
        ranges
    }
}

/// Finds the range of a call's number, which is loaded, and answers.
fn find(ranges: &[(u32, Answer)]) -> io::Result<Vec<sock_filter>> {
    if let [(_, answer)] = ranges {
        return give(answer);
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let first = upper.first().map_or(u32::MAX, |(call, _)| *call);
    let (lower, upper) = (find(lower)?, find(upper)?);
    let mut program = match u8::try_from(lower.len()) {
        Ok(length) => vec![jump(libc::BPF_JGE, first, length, 0)],
        Err(_) => vec![jump(libc::BPF_JGE, first, 0, 1), skip(lower.len())],
    };
    program.extend(lower);
    program.extend(upper);
    Ok(program)
}

fn give(answer: &Answer) -> io::Result<Vec<sock_filter>> {
    let rules = match answer {
        Answer::Allowed => return Ok(vec![end(libc::SECCOMP_RET_ALLOW)]),
        Answer::Fails(error) => return Ok(vec![fail(*error)]),
        Answer::FailsIf(rules) => rules,
    };
    let mut program = Vec::new();
    for rule in rules {
        let mut whole = vec![fail(rule.error)];
        for test in rule.tests.iter().rev() {
            whole = [check(test, whole.len())?, whole].concat();
        }
        program.extend(whole);
    }
    program.push(end(libc::SECCOMP_RET_ALLOW));
    Ok(program)
}

/// Goes on where the test holds, and skips what follows, of that length, where it does not.
fn check(test: &Test, following: usize) -> io::Result<Vec<sock_filter>> {
    let distance = |length: usize| u8::try_from(length).map_err(io::Error::other);
    let mut program = vec![load(ARGUMENTS + 8 * u32::from(test.argument))];
    match &test.is {
        Is::In(values) => {
            for (place, value) in values.iter().enumerate() {
                let to_what_follows = distance(values.len() - place)?;
                program.push(jump(libc::BPF_JEQ, *value, to_what_follows, 0));
            }
            program.push(skip(following));
        }
        Is::NotIn(values) => {
            for (place, value) in values.iter().enumerate() {
                let beyond = distance(values.len() - place - 1 + following)?;
                program.push(jump(libc::BPF_JEQ, *value, beyond, 0));
            }
        }
        Is::Bits(bits) => {
            program.push(jump(libc::BPF_JSET, *bits, 0, distance(following)?));
        }
    }
    Ok(program)
}

/// Where the kernel's `struct seccomp_data` has the call's number, its architecture, and the lower halves of its arguments.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };

/// The kernel's name for the architecture whose calls these are.
#[cfg(target_arch = "x86_64")]
const OWN_ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const OWN_ARCHITECTURE: u32 = 0xc000_00b7;

/// For that of programs of 32 bits.
#[cfg(target_arch = "x86_64")]
const NARROW_ARCHITECTURE: u32 = 0x4000_0003;
#[cfg(target_arch = "aarch64")]
const NARROW_ARCHITECTURE: u32 = 0x4000_0028;

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// Compares what is loaded, and skips so many instructions.
fn jump(comparison: u32, value: u32, if_so: u8, if_not: u8) -> sock_filter {
    let code = libc::BPF_JMP | comparison | libc::BPF_K;
    instruction(code, value, if_so, if_not)
}

fn skip(length: usize) -> sock_filter {
    // A program of such a length is refused by the kernel.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    instruction(libc::BPF_JMP | libc::BPF_JA, length, 0, 0)
}

fn fail(error: c_int) -> sock_filter {
    end(libc::SECCOMP_RET_ERRNO | error.cast_unsigned())
}

fn end(answer: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, answer, 0, 0)
}

fn instruction(code: u32, value: u32, if_so: u8, if_not: u8) -> sock_filter {
    sock_filter {
        // All codes have 16 bits.
        code: u16::try_from(code).unwrap_or_default(),
        jt: if_so,
        jf: if_not,
        k: value,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::array;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    /// What the kernel would answer.
    fn run(program: &[sock_filter], architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [call, architecture, 0, 0].map(u32::to_le_bytes).concat();
        data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let (mut place, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[place];
            place += 1;
            let class = u32::from(code) & 7;
            if class == libc::BPF_LD {
                let bytes = &data[usize::try_from(k).unwrap()..][..4];
                loaded = u32::from_le_bytes(bytes.try_into().unwrap());
            } else if class == libc::BPF_JMP {
                let holds = match u32::from(code) & 0xf0 {
                    libc::BPF_JA => {
                        place += usize::try_from(k).unwrap();
                        continue;
                    }
                    libc::BPF_JEQ => loaded == k,
                    libc::BPF_JGE => loaded >= k,
                    libc::BPF_JSET => loaded & k != 0,
                    other => panic!("{other}"),
                };
                place += usize::from(if holds { jt } else { jf });
            } else {
                return k;
            }
        }
    }

    pub(crate) fn allows(filter: &Filter, call: i64, arguments: [u64; 6]) -> bool {
        let call = u32::try_from(call).unwrap();
        let program = filter.program().unwrap();
        run(&program, OWN_ARCHITECTURE, call, arguments) == libc::SECCOMP_RET_ALLOW
    }

    /// What a filter means, said in another way.
    fn meant(filter: &Filter, call: u32, arguments: [u64; 6]) -> u32 {
        let failed = |error: c_int| libc::SECCOMP_RET_ERRNO | error.cast_unsigned();
        match filter.answers.get(&call) {
            None => failed(filter.others),
            Some(Answer::Allowed) => libc::SECCOMP_RET_ALLOW,
            Some(Answer::Fails(error)) => failed(*error),
            Some(Answer::FailsIf(rules)) => {
                let holds = |test: &Test| {
                    let value = (arguments[usize::from(test.argument)] & 0xffff_ffff) as u32;
                    match &test.is {
                        Is::In(values) => values.contains(&value),
                        Is::NotIn(values) => !values.contains(&value),
                        Is::Bits(bits) => value & bits != 0,
                    }
                };
                match rules.iter().find(|rule| rule.tests.iter().all(holds)) {
                    Some(rule) => failed(rule.error),
                    None => libc::SECCOMP_RET_ALLOW,
                }
            }
        }
    }

    fn values() -> impl Strategy<Value = Vec<u32>> {
        vec(0..8_u32, 1..6)
    }

    fn test() -> impl Strategy<Value = Test> {
        let is = prop_oneof![
            values().prop_map(Is::In),
            values().prop_map(Is::NotIn),
            (0..16_u32).prop_map(Is::Bits),
        ];
        (0..6_u8, is).prop_map(|(argument, is)| Test { argument, is })
    }

    fn answer() -> impl Strategy<Value = Answer> {
        let error = prop_oneof![Just(libc::EACCES), Just(libc::EROFS)];
        let rule = (error, vec(test(), 1..4)).prop_map(|(error, tests)| Rule { error, tests });
        let rules = vec(rule, 1..4);
        prop_oneof![
            Just(Answer::Allowed),
            Just(Answer::Fails(libc::EPERM)),
            rules.prop_map(Answer::FailsIf),
        ]
    }

    proptest! {
        #[test]
        fn a_program_answers_what_its_filter_says(
            answers in btree_map(0..200_u32, answer(), 0..120),
            arguments in vec(array::uniform6(0..12_u64), 8),
            upper in array::uniform6(0..2_u64),
        ) {
            let filter = Filter { answers, others: libc::ENOSYS, narrow: None };
            let program = filter.program().unwrap();
            for call in (0..210).chain([u32::MAX, 0x4000_0000]) {
                for lower in &arguments {
                    let arguments = std::array::from_fn(|place| upper[place] << 40 | lower[place]);
                    prop_assert_eq!(
                        run(&program, OWN_ARCHITECTURE, call, arguments),
                        meant(&filter, call, arguments)
                    );
                }
            }
        }
    }

    #[test]
    fn calls_of_another_architecture_end_the_process() {
        let mut filter = Filter::new(libc::ENOSYS);
        filter.answer(&[1], &Answer::Allowed);
        let answer = |filter: &Filter, architecture, call| {
            run(&filter.program().unwrap(), architecture, call, [0; 6])
        };
        let killed = libc::SECCOMP_RET_KILL_PROCESS;
        assert_eq!(answer(&filter, NARROW_ARCHITECTURE, 1), killed);
        // Each architecture has its own numbers.
        let mut narrow = Filter::new(libc::ENOSYS);
        narrow.answer(&[2], &Answer::Allowed);
        filter.narrow = Some(Box::new(narrow));
        let missing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
        for (architecture, allowed) in [(OWN_ARCHITECTURE, 1), (NARROW_ARCHITECTURE, 2)] {
            for call in 0..4 {
                let expected = match call == allowed {
                    true => libc::SECCOMP_RET_ALLOW,
                    false => missing,
                };
                assert_eq!(answer(&filter, architecture, call), expected);
            }
        }
        assert_eq!(answer(&filter, 0xc000_00f3, 1), killed);
    }

    #[test]
    fn what_is_further_than_a_short_jump_is_found() {
        let mut filter = Filter::new(libc::ENOSYS);
        let long = Test::one_of(0, &(0..200).collect::<Vec<_>>());
        let answer = Answer::FailsIf(vec![Rule {
            error: libc::EPERM,
            tests: vec![long],
        }]);
        for call in [1, 3, 5, 7, 9] {
            filter.answer(&[call], &answer);
        }
        let program = filter.program().unwrap();
        for call in 0..12 {
            let expected = match call {
                1 | 3 | 5 | 7 | 9 => libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned(),
                _ => libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
            };
            let arguments = [199, 0, 0, 0, 0, 0];
            assert_eq!(run(&program, OWN_ARCHITECTURE, call, arguments), expected);
        }
    }
}
