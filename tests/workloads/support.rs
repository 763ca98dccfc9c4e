//! A sandbox in which programs of this machine run.

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blink_core::{Blink, Command, Error, IsolationChoice, Output, Sandbox, SandboxBuilder};
use tempfile::TempDir;

/// Nothing here takes so long unless it hangs: a database is made, a compiler compiles itself some lines.
const PATIENCE: Duration = Duration::from_secs(300);

/// Waits for what must succeed.
pub(crate) async fn ok<T>(future: impl Future<Output = Result<T, Error>>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => panic!("{error:?}"),
        Err(_) => panic!("it hangs"),
    }
}

/// Blink in a home of its own.
pub(crate) async fn blink() -> (Blink, TempDir) {
    let home = tempfile::tempdir().unwrap();
    let builder = Blink::builder()
        .home(home.path())
        .isolation(IsolationChoice::Namespace);
    (ok(builder.build()).await, home)
}

/// A sandbox, and its home.
pub(crate) struct Workplace {
    sandbox: Sandbox,
    _home: TempDir,
}

impl Workplace {
    pub(crate) async fn new() -> Workplace {
        Workplace::with(|builder| builder).await
    }

    pub(crate) async fn with(describe: impl FnOnce(SandboxBuilder) -> SandboxBuilder) -> Workplace {
        let (blink, home) = blink().await;
        let builder = blink.sandbox().memory_mib(2048).current_dir("/tmp");
        Workplace {
            sandbox: ok(describe(builder).create()).await,
            _home: home,
        }
    }

    pub(crate) async fn run(&self, command: Command) -> Output {
        ok(self.sandbox.exec(command)).await
    }

    /// What a script prints, which must succeed.
    pub(crate) async fn says(&self, script: &str) -> String {
        let output = self.run(Command::shell(format!("set -e\n{script}"))).await;
        said(script, &output)
    }
}

impl std::ops::Deref for Workplace {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

pub(crate) fn said(script: &str, output: &Output) -> String {
    let (out, err) = (output.text(), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{script}\n{:?}\n{out}\n{err}",
        output.status
    );
    out.trim_end().to_owned()
}

/// What a script prints on this machine, outside of any sandbox, which must succeed.
pub(crate) fn said_here(script: &str, folder: &Path, env: &[(OsString, OsString)]) -> String {
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", &format!("set -e\n{script}")])
        .current_dir(folder)
        .env_clear()
        .envs(env.iter().cloned())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{script}\n{:?}\n{out}\n{err}",
        output.status
    );
    out.trim_end().to_owned()
}

/// Where this machine has a program, which it must.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/usr/local/bin"];
    let found = folders
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("there is no {name} here; `scripts/setup test` installs {package}")
    })
}
