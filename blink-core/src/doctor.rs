//! What works on this machine, tried.

use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use crate::blink::Blink;
use crate::command::Command;
use crate::engine::engines;
use crate::engine::hypervisor::{self, Hypervisor};
use crate::error::{Error, ErrorKind};
use crate::isolation::Isolation;

/// How long a trial may take: as long as a boot may, which takes a third of that on a host that is emulated itself.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// What was found out about one isolation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Check {
    /// The isolation that was tried.
    pub isolation: Isolation,
    /// How long the trial took, from nothing to a program's result.
    pub elapsed: Duration,
    /// Why it does not work, and how to fix it; `None` if it works.
    pub problem: Option<Error>,
}

impl Check {
    /// Whether sandboxes can have this isolation here.
    pub fn works(&self) -> bool {
        self.problem.is_none()
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            name: Isolation,
            works: bool,
            #[serde(serialize_with = "blink_host::json::millis")]
            elapsed_ms: Duration,
            kind: Option<ErrorKind>,
            problem: Option<&'a str>,
        }
        let problem = self.problem.as_ref();
        let shown = Shown {
            name: self.isolation,
            works: self.works(),
            elapsed_ms: self.elapsed,
            kind: problem.map(Error::kind),
            problem: problem.map(Error::message),
        };
        shown.serialize(serializer)
    }
}

/// What works on this machine.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// One for each isolation, the strongest first.
    #[serde(rename = "isolation")]
    pub checks: Vec<Check>,
    /// Whether the machine's hypervisor can run a kernel, which micro-VMs need.
    pub hypervisor: Hypervisor,
    /// Whether Blink runs as root, and so gives sandboxes users of their own.
    pub root: bool,
    /// Whether control groups hold the limits of sandboxes; resource limits do otherwise, each process for itself.
    pub control_groups: bool,
}

/// Tries the hypervisor, even if its answer is known already, and each isolation by running a program in a sandbox
/// of its own.
pub async fn doctor(blink: &Blink) -> Report {
    // Before the isolations, which go by what is known then.
    let hypervisor = try_hypervisor(blink).await;
    let mut checks = Vec::new();
    for isolation in engines::isolations() {
        let started = Instant::now();
        let problem = try_isolation(blink, isolation).await.err();
        checks.push(Check {
            isolation,
            elapsed: started.elapsed(),
            problem,
        });
    }
    Report {
        checks,
        hypervisor,
        root: crate::engine::namespace::id_base().is_some(),
        control_groups: crate::engine::namespace::has_control_groups(),
    }
}

async fn try_hypervisor(blink: &Blink) -> Hypervisor {
    let home = blink.home().path().to_owned();
    let trial = tokio::task::spawn_blocking(move || hypervisor::ask_again(&home));
    trial.await.unwrap_or_else(|error| Hypervisor::Unusable {
        reason: format!("the hypervisor could not be tried: {error}"),
    })
}

async fn try_isolation(blink: &Blink, isolation: Isolation) -> Result<(), Error> {
    let sandbox = blink
        .sandbox()
        .isolation(isolation.into())
        .boot_timeout(TRIAL_TIMEOUT)
        .create()
        .await?;
    let output = sandbox
        .exec(Command::new("/bin/true").timeout(TRIAL_TIMEOUT))
        .await?;
    sandbox.remove().await?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let message = format!(
                "a sandbox started, but /bin/true ended with {} in it",
                output.status.code
            );
            Err(Error::new(ErrorKind::Internal, message))
        }
    }
}
