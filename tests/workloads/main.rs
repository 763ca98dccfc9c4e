//! The programs that people run in sandboxes, as they run at home: compilers, interpreters, databases, debuggers, version control.
//!
//! They are this machine's own, seen through the image `host`, in namespaces. `scripts/setup test` installs those that are missing,
//! and `docs/WORKLOADS.md` is the table of them.

mod databases;
mod debian;
#[path = "../common/inside.rs"]
mod inside;
mod languages;
#[path = "../../blink-image/tests/image/builder.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of images, which use all of it"
)]
mod layout;
mod projects;
mod registries;
mod support;
mod tools;
