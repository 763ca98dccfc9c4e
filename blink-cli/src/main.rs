//! The blink command.
fn main() {}
