//! What users see of a sandbox, the same for every engine.
//!
//! `BLINK_TEST_ENGINE` names the engine; without, it is `namespace`. What an engine or this machine does not offer is
//! gated by [`support::Capability`].

mod archive;
mod bad_input;
mod change;
mod child;
mod connect;
mod exec;
mod faults;
mod files;
mod isolation;
mod lifecycle;
mod limits;
mod ports;
mod process;
mod session;
mod shared;
mod support;
mod terminal;
mod timeout;
