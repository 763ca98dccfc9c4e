//! The programs that people run in sandboxes, as they run at home: compilers, interpreters, databases, debuggers, version control.
//!
//! They are this machine's own, seen through the image `host`, in namespaces. `scripts/setup test` installs those that are missing,
//! and `docs/WORKLOADS.md` is the table of them.

mod databases;
mod languages;
mod projects;
mod support;
mod tools;
