//! Images into the store, and out of it.

mod builder;
mod faults;
mod local;
mod pull;
mod registry;
mod store;
mod support;
