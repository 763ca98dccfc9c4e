//! Pools: sandboxes that are booted before they are asked for.
//!
//! A [`Pool`] is a handle of a `Keeper`, which boots members from a `Mould` (a description, a template's disk, and commands) and
//! hands them out by `Places`, which decide who gets which and what is booted when.

mod boot;
mod builder;
mod claim;
mod clock;
mod handle;
mod keeper;
mod member;
mod other;
mod place;
mod places;
mod pressure;
mod serve;
mod session;
mod stats;
mod template;

pub use self::builder::{DEFAULT_WARMUP_TIMEOUT, PoolBuilder, WhenEmpty};
pub use self::claim::{Claim, DEFAULT_CLAIM_TIMEOUT};
pub use self::handle::Pool;
pub use self::other::SharedPool;
pub use self::stats::{Latency, PoolStats};
