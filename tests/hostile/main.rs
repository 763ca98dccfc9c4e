//! What Blink must withstand: hostile programs, archives, images, registries and agents, bursts, kills at random moments,
//! and odd surroundings of the host process.
//!
//! A module is one kind of adversary.
//! `BLINK_TEST_ENGINE` names the engine; without, it is `namespace`.

mod archives;
mod bursts;
mod calls;
mod chaos;
mod descriptors;
mod freezing;
mod groups;
mod holes;
mod homes;
mod images;
#[path = "../common/inside.rs"]
mod inside;
mod memory;
mod registries;
mod server;
mod sharing;
mod support;
mod surroundings;
mod texts;
mod transfers;
mod trees;
mod walls;
