//! Points in time as text.

use std::time::SystemTime;

use indicatif::HumanDuration;

/// For people: `3 days ago`.
pub(crate) fn ago(time: SystemTime, now: SystemTime) -> String {
    let age = now.duration_since(time).unwrap_or_default();
    format!("{} ago", HumanDuration(age))
}
