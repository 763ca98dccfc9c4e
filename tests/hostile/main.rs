//! What Blink must withstand: hostile programs, archives, images, registries and agents, bursts, kills at random moments,
//! and odd surroundings of the host process.
//!
//! A module is one kind of adversary. Each test was seen to fail before the fault that it guards against was fixed.
//! `BLINK_TEST_ENGINE` names the engine; without, it is `namespace`.

mod archives;
mod bursts;
mod chaos;
mod descriptors;
mod holes;
mod homes;
mod images;
mod memory;
mod registries;
mod server;
mod sharing;
mod support;
mod surroundings;
mod texts;
mod transfers;
mod trees;
