//! What stands between a sandbox and the host.

use blink_core::IsolationChoice;

use crate::failure::Failure;

/// What stands between a sandbox and the host.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum blink_isolation {
    /// For a sandbox: what blink_open() was told. For blink_open(): BLINK_ISOLATION_MICROVM.
    Default = 0,
    /// A virtual machine, or BLINK_STATUS_ISOLATION_UNAVAILABLE: nothing less is taken silently.
    Microvm = 1,
    /// Linux namespaces: the host's kernel, with a filter of system calls between.
    Namespace = 2,
    /// The strongest that works here; sandboxes and outputs say which.
    Auto = 3,
}

pub(crate) fn isolation(number: i32) -> Result<Option<IsolationChoice>, Failure> {
    const DEFAULT: i32 = blink_isolation::Default as i32;
    const MICROVM: i32 = blink_isolation::Microvm as i32;
    const NAMESPACE: i32 = blink_isolation::Namespace as i32;
    const AUTO: i32 = blink_isolation::Auto as i32;
    match number {
        DEFAULT => Ok(None),
        MICROVM => Ok(Some(IsolationChoice::Microvm)),
        NAMESPACE => Ok(Some(IsolationChoice::Namespace)),
        AUTO => Ok(Some(IsolationChoice::Auto)),
        _ => Err(Failure::invalid(format!(
            "{number} is not an isolation; it can be 0 to {AUTO}"
        ))),
    }
}
