//! `blink ps`, `exec`, `stop` and the like: of sessions by their names, and of sandboxes that were detached by their IDs.

mod arguments;
mod show;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use blink_core::{Blink, ErrorKind, Sandbox};
use serde_json::json;

pub(crate) use arguments::SandboxTask;

use crate::failure::{Failure, print_event, print_text};
use crate::options::{ProgramOptions, RegistryArguments};
use crate::progress;
use crate::run::hold::{Ending, Holding};
use crate::run::signals::Signals;
use crate::run::target::Target as Program;
use crate::run::terminal::Terminal;
use crate::session::{Sessions, copy};

/// How often is looked whether a sandbox has stopped that belongs to somebody else.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a word names.
enum Found {
    Session,
    /// One that was detached, by its whole ID.
    Sandbox(String),
}

struct Sandboxes {
    sessions: Sessions,
}

/// Does what is asked; returns this command's exit code.
pub(crate) async fn carry_out(
    task: SandboxTask,
    home: Option<PathBuf>,
    argv: &[OsString],
) -> Result<i32, Failure> {
    let json = task.json();
    let blink = RegistryArguments::default().open(home).await?;
    let all = Sandboxes {
        sessions: Sessions { blink, json },
    };
    match task {
        SandboxTask::Ps { all: stopped, .. } => all.ps(stopped).await,
        SandboxTask::Exec {
            target,
            options,
            words,
            ..
        } => all.exec(&target.word, &options, words, argv).await,
        SandboxTask::Stop { target, .. } => all.stop(&target.word).await,
        SandboxTask::Start { target, .. } => match all.find(&target.word).await? {
            Found::Session => all.sessions.start(&target.word).await,
            Found::Sandbox(id) => Err(of_sessions_only("started", &id)),
        },
        SandboxTask::Kill {
            target,
            process,
            signal,
            ..
        } => all.kill(&target.word, process, signal).await,
        SandboxTask::Rm { targets, force, .. } => all.remove_all(targets, force).await,
        SandboxTask::Cp { from, to, user, .. } => all.copy(&from, &to, user).await,
        SandboxTask::Inspect { target, .. } => all.inspect(&target.word).await,
        SandboxTask::Wait {
            target, process, ..
        } => all.wait(&target.word, process).await,
        SandboxTask::Rename {
            target, new_name, ..
        } => match all.find(&target.word).await? {
            Found::Session => all.sessions.rename(&target.word, new_name).await,
            Found::Sandbox(id) => Err(of_sessions_only("renamed", &id)),
        },
        SandboxTask::Prune { .. } => all.sessions.prune().await,
        SandboxTask::Info { .. } => all.info().await,
    }
}

impl Sandboxes {
    fn blink(&self) -> &Blink {
        &self.sessions.blink
    }

    /// What a word names: a session, or else the only sandbox whose ID begins with it.
    async fn find(&self, word: &str) -> Result<Found, Failure> {
        match self.blink().session_info(word).await {
            Ok(_) => return Ok(Found::Session),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::InvalidArgument
                ) => {}
            Err(error) => return Err(error.into()),
        }
        let ids = self.blink().sandboxes();
        let mut named = ids
            .into_iter()
            .filter(|id| !word.is_empty() && id.starts_with(word));
        match (named.next(), named.next()) {
            (Some(id), None) => Ok(Found::Sandbox(id)),
            (Some(_), Some(_)) => Err(Failure::invalid(format!(
                "several sandboxes have an ID that begins with {word:?}; give more of it"
            ))),
            (None, _) => Err(Failure::new(
                ErrorKind::NotFound,
                format!("there is no session or sandbox {word:?}; 'blink ps --all' lists them"),
            )),
        }
    }

    /// Takes up a sandbox, and says how it came to its end where it has.
    async fn take(&self, id: &str) -> Result<Sandbox, Failure> {
        Ok(self.blink().open(id).await?)
    }

    async fn exec(
        &self,
        word: &str,
        options: &ProgramOptions,
        words: Vec<OsString>,
        argv: &[OsString],
    ) -> Result<i32, Failure> {
        let id = match self.find(word).await? {
            Found::Session => return self.sessions.run(word, options, words, argv).await,
            Found::Sandbox(id) => id,
        };
        let program = Program::new(words, argv)?;
        let terminal = Terminal::wanted(options.tty)?;
        let sandbox = self.take(&id).await?;
        let mut signals = Signals::catch()?;
        let holding = Holding {
            isolation: sandbox.isolation(),
            session: Some(&id),
            terminal: terminal.as_ref(),
            json: self.sessions.json,
        };
        let ending = holding
            .run(&sandbox, &program, &[], options, &mut signals)
            .await;
        ending.and_then(Ending::tell)
    }

    async fn stop(&self, word: &str) -> Result<i32, Failure> {
        match self.find(word).await? {
            Found::Session => self.sessions.stop(word).await,
            Found::Sandbox(id) => Err(Failure::new(
                ErrorKind::Unsupported,
                format!(
                    "{id} is a sandbox without a session, and nothing of it would be left; 'blink rm {id}' removes it"
                ),
            )),
        }
    }

    async fn kill(
        &self,
        word: &str,
        process: Option<u64>,
        signal: Option<u8>,
    ) -> Result<i32, Failure> {
        match (self.find(word).await?, process) {
            (Found::Session, None) => self.sessions.stop(word).await,
            (Found::Session, Some(process)) => self.sessions.kill(word, process, signal).await,
            (Found::Sandbox(id), None) => self.remove(&id).await,
            (Found::Sandbox(id), Some(_)) => Err(of_sessions_only("asked for processes", &id)),
        }
    }

    /// What can be removed is, whatever becomes of the rest.
    async fn remove_all(&self, words: Vec<String>, force: bool) -> Result<i32, Failure> {
        let mut failure: Option<Failure> = None;
        for word in words {
            let removed = match self.find(&word).await {
                Ok(Found::Session) => self.sessions.remove(&word, force).await,
                Ok(Found::Sandbox(id)) => self.remove(&id).await,
                Err(error) => Err(error),
            };
            match (removed, &failure) {
                (Ok(0), _) => {}
                (Ok(code), _) => return Ok(code),
                (Err(error), None) => failure = Some(error),
                (Err(error), Some(_)) => drop(error.report(self.sessions.json)),
            }
        }
        failure.map_or(Ok(0), Err)
    }

    async fn remove(&self, id: &str) -> Result<i32, Failure> {
        let removing = async {
            match self.blink().open(id).await {
                Ok(sandbox) => sandbox.remove().await,
                // It has ended, and was removed by that.
                Err(error) if error.kind() == ErrorKind::SandboxDied => Ok(()),
                Err(error) => Err(error),
            }
        };
        progress::shown("removing the sandbox", removing).await?;
        match self.sessions.json {
            true => print_event("sandbox_removed", &json!({"id": id})),
            false => print_text(&format!("removed the sandbox {id}\n")),
        }
    }

    async fn copy(
        &self,
        from: &OsString,
        to: &OsString,
        user: Option<String>,
    ) -> Result<i32, Failure> {
        let way = copy::Way::new(from, to, user)?;
        let id = match self.find(way.name()).await? {
            Found::Session => return self.sessions.copy(way).await,
            Found::Sandbox(id) => id,
        };
        let sandbox = self.take(&id).await?;
        progress::shown("copying", way.copy(sandbox.files()?)).await?;
        match self.sessions.json {
            true => print_event(
                "sandbox_copied",
                &json!({"id": id, "from": way.from(), "to": way.to()}),
            ),
            false => print_text(&format!("copied {} to {}\n", way.from(), way.to())),
        }
    }

    async fn wait(&self, word: &str, process: Option<u64>) -> Result<i32, Failure> {
        let found = self.find(word).await?;
        if let (Found::Session, Some(process)) = (&found, process) {
            return self.sessions.wait(word, process).await;
        }
        let (name, event) = match &found {
            Found::Session => (word, "session_stopped"),
            Found::Sandbox(id) if process.is_some() => {
                return Err(of_sessions_only("asked for processes", id));
            }
            Found::Sandbox(id) => (id.as_str(), "sandbox_ended"),
        };
        while self.is_running(&found, name).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        match (self.sessions.json, &found) {
            (false, _) => Ok(0),
            (true, Found::Session) => print_event(event, &json!({"name": name})),
            (true, Found::Sandbox(_)) => print_event(event, &json!({"id": name})),
        }
    }

    /// What was removed runs no more.
    async fn is_running(&self, found: &Found, name: &str) -> Result<bool, Failure> {
        let running = match found {
            Found::Session => self
                .blink()
                .session_info(name)
                .await
                .map(|info| info.running),
            Found::Sandbox(_) => self.blink().sandbox_info(name).map(|info| info.running),
        };
        match running {
            Ok(running) => Ok(running),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn of_sessions_only(what: &str, id: &str) -> Failure {
    Failure::new(
        ErrorKind::Unsupported,
        format!("{id} is a sandbox without a session, and cannot be {what}; only sessions can"),
    )
}
