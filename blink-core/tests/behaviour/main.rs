//! What users see of a sandbox, the same for every engine.
//!
//! `BLINK_TEST_ENGINE` names the engine; without, it is `namespace`. What an engine or this machine does not offer is
//! gated by [`support::Capability`].

mod archive;
mod at_home;
mod bad_input;
mod change;
mod child;
mod connect;
mod exec;
mod faults;
mod files;
mod folders;
#[path = "../../../tests/common/inside.rs"]
mod inside;
mod isolation;
mod kinds;
#[path = "../../../blink-image/tests/image/builder.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of images, which use all of it"
)]
mod layout;
mod lifecycle;
mod limits;
mod oci;
mod one_disk;
mod pool;
mod ports;
mod process;
mod session;
mod shared;
mod stopped;
mod support;
mod terminal;
mod timeout;
mod transfers;
