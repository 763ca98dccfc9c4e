//! The commands about sessions as their users meet them, in real sandboxes.

mod alike;
#[path = "../../../blink-image/tests/image/builder.rs"]
#[allow(
    dead_code,
    reason = "shared with the library's tests, which use all of it"
)]
mod builder;
mod checkpoints;
mod life;
mod processes;
mod programs;
mod support;
mod transfers;
