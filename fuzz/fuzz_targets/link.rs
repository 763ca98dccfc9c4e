//! The host's end of the link against an agent that says whatever it likes: `blink_core::fuzzing::agent` has the script's
//! form, and checks that every call ends.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| blink_core::fuzzing::agent(script));
