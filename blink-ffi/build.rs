//! Gives the shared library its name for the dynamic loader: programs that were built with one version run with every
//! other of the same number.

/// Counts the changes that programs built before do not survive.
const ABI: u32 = 0;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libblink.so.{ABI}");
}
