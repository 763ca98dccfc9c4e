//! Processes of the host.

/// When a living process was started, as the kernel counts: its number may be used again, with another start.
pub fn start_of(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let is_dead = matches!(fields.next()?, "Z" | "X");
    // The 22nd field of the line; the state was the third.
    let started = fields.nth(18)?.parse().ok()?;
    (!is_dead).then_some(started)
}
