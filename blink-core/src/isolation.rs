//! What isolates a sandbox from the host.

use std::fmt;

/// Each isolation with its name: an engine provides it, and a sandbox can ask for it.
macro_rules! isolations {
    ($($(#[doc = $what:literal])+ $variant:ident = $name:literal,)+) => {
        /// The isolation that a sandbox really has.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
        #[serde(rename_all = "lowercase")]
        #[non_exhaustive]
        pub enum Isolation {
            $($(#[doc = $what])+ $variant,)+
        }

        /// The isolation that is asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "lowercase")]
        #[non_exhaustive]
        pub enum IsolationChoice {
            $($(#[doc = $what])+ $variant,)+
            /// The strongest that works here; the sandbox says which.
            Auto,
        }

        impl Isolation {
            const ALL: &[Isolation] = &[$(Isolation::$variant,)+];

            /// Its name in options and records, such as `microvm`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Isolation::$variant => $name,)+
                }
            }
        }

        impl From<Isolation> for IsolationChoice {
            fn from(isolation: Isolation) -> IsolationChoice {
                match isolation {
                    $(Isolation::$variant => IsolationChoice::$variant,)+
                }
            }
        }

        impl IsolationChoice {
            /// The one isolation that it allows; `None` for [`Auto`](IsolationChoice::Auto).
            pub(crate) const fn only(self) -> Option<Isolation> {
                match self {
                    $(IsolationChoice::$variant => Some(Isolation::$variant),)+
                    IsolationChoice::Auto => None,
                }
            }
        }
    };
}

isolations! {
    /// A virtual machine with a kernel of its own.
    Microvm = "microvm",
    /// The host's kernel, behind Linux namespaces, without capabilities and with a filter of system calls.
    Namespace = "namespace",
    /// Nothing runs: results come from a script. For tests of programs that embed Blink, with the feature `scripted`.
    Scripted = "scripted",
}

impl Isolation {
    pub(crate) fn from_name(name: &str) -> Option<Isolation> {
        let mut all = Isolation::ALL.iter().copied();
        all.find(|isolation| isolation.name() == name)
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Nothing less than a micro-VM is taken silently.
impl Default for IsolationChoice {
    fn default() -> IsolationChoice {
        IsolationChoice::Microvm
    }
}

impl IsolationChoice {
    /// Its name in options, such as `microvm` or `auto`.
    pub const fn name(self) -> &'static str {
        match self.only() {
            Some(isolation) => isolation.name(),
            None => "auto",
        }
    }
}
