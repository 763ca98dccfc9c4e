//! The library.

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the engines that install the agent come later")
)]
mod guest_binary;
