//! Every message decodes or fails, and what decodes encodes to what decodes the same.
#![no_main]

use blink_wire::{DirEntry, ErrorBody, ExitReport, Hello, Message, Request, Response, Trailer};
use libfuzzer_sys::fuzz_target;

fn check<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::from_body(bytes) {
        assert_eq!(M::from_body(&message.to_body()), Ok(message));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check::<Hello>(bytes);
    check::<Request>(bytes);
    check::<Response>(bytes);
    check::<ExitReport>(bytes);
    check::<ErrorBody>(bytes);
    check::<Trailer>(bytes);
    check::<DirEntry>(bytes);
});
