//! `blink session run`, `spawn` and `attach`.

use std::ffi::OsString;

use blink_core::{Session, SessionInfo, Stdin};
use serde_json::json;

use super::Sessions;
use super::life::must_be_warm;
use crate::failure::Failure;
use crate::options::{ProgramOptions, Surroundings};
use crate::progress;
use crate::run::hold::{Ending, Holding};
use crate::run::signals::Signals;
use crate::run::target::Target;
use crate::run::terminal::Terminal;
use crate::run::{program, say_ports};

/// A command to start.
pub(super) struct Spawn {
    pub(super) surroundings: Surroundings,
    pub(super) tty: bool,
    pub(super) stdin: bool,
    pub(super) key: Option<String>,
    pub(super) command: Vec<OsString>,
}

impl Sessions {
    /// Runs a program to its end, with its input, output and exit code.
    pub(crate) async fn run(
        &self,
        name: &str,
        options: &ProgramOptions,
        words: Vec<OsString>,
        argv: &[OsString],
    ) -> Result<i32, Failure> {
        let target = Target::new(words, argv)?;
        let terminal = Terminal::wanted(options.tty)?;
        let (session, info) = self.take(name).await?;
        let mut signals = Signals::catch()?;
        let ending = self
            .hold(&session, &info, terminal, &target, options, &mut signals)
            .await;
        signals.ends_at_once_while(self.let_go(session)).await;
        ending.and_then(Ending::tell)
    }

    async fn hold(
        &self,
        session: &Session,
        info: &SessionInfo,
        terminal: Option<Terminal>,
        target: &Target,
        options: &ProgramOptions,
        signals: &mut Signals,
    ) -> Result<Ending, Failure> {
        // Not given up half-way: it is waited for, or this command ends at once.
        let starting = progress::shown("starting the session", session.sandbox());
        let sandbox = signals.ends_at_once_while(starting).await?;
        say_ports(&sandbox, &info.publish);
        let holding = Holding {
            isolation: info.isolation,
            session: Some(&info.name),
            terminal: terminal.as_ref(),
            json: self.json,
        };
        holding
            .run(&sandbox, target, &info.mounts, options, signals)
            .await
    }

    /// Starts a command that outlives this one, and prints its number.
    pub(super) async fn spawn(&self, name: &str, spawn: Spawn) -> Result<i32, Failure> {
        let (session, info) = self.take(name).await?;
        must_be_warm(&info)?;
        let mut command = program::describe(spawn.command, &spawn.surroundings, spawn.tty);
        // What nobody has taken out of the process's handle stays open for whoever attaches.
        if spawn.tty || spawn.stdin {
            command = command.stdin(Stdin::Piped);
        }
        if let Some(key) = spawn.key {
            command = command.key(key);
        }
        progress::shown("starting the session", session.start()).await?;
        let process = session.sandbox().await?.spawn(command).await?;
        let (id, pid) = (process.id(), process.pid());
        let more = json!({"id": id, "pid": pid});
        self.tell(
            "session_spawned",
            name,
            info.isolation,
            more,
            &id.to_string(),
        )
    }

    /// Stays with a process until it ends, or its user leaves it.
    pub(super) async fn attach(&self, name: &str, id: u64) -> Result<i32, Failure> {
        let processes = self.processes_of(name).await?;
        let known = super::processes::find(&processes, id).await?;
        let terminal = Terminal::wanted(known.pty && Terminal::is_there() && !self.json)?;
        let mut signals = Signals::catch()?;
        let process = processes.attach(id, 0, 0).await?;
        if terminal.is_some() {
            let (rows, cols) = crate::run::terminal::size();
            process.resize(rows, cols);
        }
        let holding = Holding {
            isolation: processes.isolation(),
            session: Some(name),
            terminal: terminal.as_ref(),
            json: self.json,
        };
        holding.attach(process, &mut signals).await?.tell()
    }
}
