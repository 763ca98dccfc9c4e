//! What stands between a sandbox and the machine.

use std::fmt;

/// An isolation that a sandbox really has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Isolation {
    /// A kernel of its own, in a virtual machine.
    Microvm,
    /// The host's kernel, with namespaces, no capabilities and a filter of system calls between.
    Namespace,
}

/// An isolation that is asked for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum IsolationChoice {
    /// A virtual machine, or `IsolationUnavailable`. The default: nothing less is taken silently.
    #[default]
    Microvm,
    /// Linux namespaces.
    Namespace,
    /// The strongest that works here; the sandbox says which.
    Auto,
}

impl Isolation {
    /// `microvm` or `namespace`.
    pub const fn name(self) -> &'static str {
        match self {
            Isolation::Microvm => "microvm",
            Isolation::Namespace => "namespace",
        }
    }
}

impl Isolation {
    pub(crate) fn from_name(name: &str) -> Option<Isolation> {
        [Isolation::Microvm, Isolation::Namespace]
            .into_iter()
            .find(|isolation| isolation.name() == name)
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl IsolationChoice {
    /// `microvm`, `namespace` or `auto`.
    pub const fn name(self) -> &'static str {
        match self {
            IsolationChoice::Microvm => Isolation::Microvm.name(),
            IsolationChoice::Namespace => Isolation::Namespace.name(),
            IsolationChoice::Auto => "auto",
        }
    }
}

impl From<Isolation> for IsolationChoice {
    fn from(isolation: Isolation) -> IsolationChoice {
        match isolation {
            Isolation::Microvm => IsolationChoice::Microvm,
            Isolation::Namespace => IsolationChoice::Namespace,
        }
    }
}
