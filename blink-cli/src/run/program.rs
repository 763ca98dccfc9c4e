//! The program of a sandbox: brought there, described, started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use blink_core::{Command, Mount, Process, Sandbox, Stdin, WriteOptions};

use super::target::{Script, Target};
use super::terminal;
use crate::failure::Failure;
use crate::options::{ProgramOptions, Surroundings};
use crate::progress;

/// Where a script may come to lie: the first that is the sandbox's own, and not a mounted folder of the user's.
const FOLDERS: [&str; 4] = ["/tmp/blink", "/var/tmp/blink", "/opt/blink", "/blink"];

/// Anybody in the sandbox may run and read it.
const SCRIPT_MODE: u32 = 0o755;

/// A program that was started.
pub(crate) struct Started {
    pub(crate) process: Process,
    /// When its time began to count.
    pub(crate) at: Instant,
    /// Where its script lies in the sandbox, if it is one.
    pub(crate) script: Option<PathBuf>,
}

/// Starts it, with a pipe for its input.
pub(crate) async fn start(
    sandbox: &Sandbox,
    target: &Target,
    mounts: &[Mount],
    options: &ProgramOptions,
) -> Result<Started, Failure> {
    let (argv, script) = match target {
        Target::Command(argv) => (argv.clone(), None),
        Target::Script(script) => {
            let copying = copy(sandbox, script, mounts);
            let path = progress::shown("copying the script into the sandbox", copying).await?;
            (script.argv(&path), Some(path))
        }
    };
    let mut command = describe(argv, &options.surroundings, options.tty).stdin(Stdin::Piped);
    if let Some(timeout) = options.timeout {
        command = command.timeout(timeout);
    }
    let at = Instant::now();
    let process = sandbox.spawn(command).await?;
    Ok(Started {
        process,
        at,
        script,
    })
}

/// Describes a program, with a terminal like this command's own where it is to have one.
pub(crate) fn describe(argv: Vec<OsString>, surroundings: &Surroundings, tty: bool) -> Command {
    let mut argv = argv.into_iter();
    let mut command = Command::new(argv.next().unwrap_or_default()).args(argv);
    if tty {
        let (rows, cols) = terminal::size();
        command = command.pty(rows, cols);
        if let Some(term) = std::env::var_os("TERM").filter(|term| !term.is_empty()) {
            command = command.env("TERM", term);
        }
    }
    for (name, value) in surroundings.variables() {
        command = command.env(name, value);
    }
    if let Some(workdir) = &surroundings.workdir {
        command = command.current_dir(workdir.clone());
    }
    if let Some(user) = &surroundings.user {
        command = command.user(user.as_str());
    }
    command
}

async fn copy(sandbox: &Sandbox, script: &Script, mounts: &[Mount]) -> Result<PathBuf, Failure> {
    let folder = folder(mounts).ok_or_else(|| {
        let tried = FOLDERS.join(", ");
        Failure::invalid(format!(
            "mounts cover every place for the script ({tried}); mount them elsewhere"
        ))
    })?;
    let unreadable = |error: std::io::Error| {
        let shown = script.host.display();
        Failure::invalid(format!("the script {shown} cannot be read: {error}"))
    };
    let files = sandbox.files()?;
    files.make_dir(folder).await?;
    let path = folder.join(&script.name);
    let mut file = tokio::fs::File::open(&script.host)
        .await
        .map_err(unreadable)?;
    let options = WriteOptions::default().mode(SCRIPT_MODE);
    files.write_with(&path, &mut file, &options).await?;
    Ok(path)
}

fn folder(mounts: &[Mount]) -> Option<&'static Path> {
    FOLDERS.iter().map(Path::new).find(|folder| {
        !mounts
            .iter()
            .any(|mount| folder.starts_with(&mount.guest) || mount.guest.starts_with(folder))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_do_not_come_to_lie_in_mounts() {
        let folder = |guests: &[&str]| {
            let mounts: Vec<Mount> = guests
                .iter()
                .map(|guest| Mount::new("/x", *guest))
                .collect();
            super::folder(&mounts)
        };
        assert_eq!(folder(&[]), Some(Path::new("/tmp/blink")));
        assert_eq!(folder(&["/data"]), Some(Path::new("/tmp/blink")));
        assert_eq!(folder(&["/tmp"]), Some(Path::new("/var/tmp/blink")));
        assert_eq!(
            folder(&["/tmp/blink/x", "/var"]),
            Some(Path::new("/opt/blink"))
        );
        assert_eq!(folder(&["/tmp", "/var", "/opt", "/blink"]), None);
    }
}
