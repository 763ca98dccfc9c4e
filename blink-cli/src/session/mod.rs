//! `blink session`.

mod archive;
mod arguments;
mod checkpoints;
pub(crate) mod copy;
mod life;
mod open;
mod processes;
mod program;
mod show;

use std::ffi::OsString;
use std::path::PathBuf;

use blink_core::{
    Blink, DEFAULT_PATIENCE, ErrorKind, Isolation, Session, SessionInfo, SessionProcesses,
};
use serde_json::{Value, json};

pub(crate) use arguments::SessionTask;

use crate::failure::{Failure, print_event, print_text, warn};
use crate::options::RegistryArguments;

/// How an answer is given, and the home that is asked.
pub(crate) struct Sessions {
    pub(crate) blink: Blink,
    pub(crate) json: bool,
}

/// Does what is asked; returns this command's exit code.
pub(crate) async fn carry_out(
    mut task: SessionTask,
    json: bool,
    home: Option<PathBuf>,
    argv: &[OsString],
) -> Result<i32, Failure> {
    use SessionTask as Task;
    let registry = match &mut task {
        Task::Open { options, .. } | Task::Import { options, .. } => {
            std::mem::take(&mut options.sandbox.registry)
        }
        _ => RegistryArguments::default(),
    };
    let blink = registry.open(home).await?;
    let sessions = Sessions { blink, json };
    match task {
        Task::Open { name, options } => sessions.open(name.session, *options).await,
        Task::Run {
            name,
            options,
            words,
        } => sessions.run(&name.session, &options, words, argv).await,
        Task::Spawn {
            name,
            surroundings,
            tty,
            stdin,
            key,
            command,
        } => {
            let spawn = program::Spawn {
                surroundings,
                tty,
                stdin,
                key,
                command,
            };
            sessions.spawn(&name.session, spawn).await
        }
        Task::Attach { name, id } => sessions.attach(&name.session, id).await,
        Task::Ps { name } => sessions.ps(&name.session).await,
        Task::Logs { name, id } => sessions.logs(&name.session, id).await,
        Task::Wait { name, id } => sessions.wait(&name.session, id).await,
        Task::Kill { name, id, signal } => sessions.kill(&name.session, id, signal).await,
        Task::Checkpoint {
            name,
            snapshot,
            require_frozen,
        } => {
            let snapshot = snapshot.name();
            sessions
                .checkpoint(&name.session, snapshot, require_frozen)
                .await
        }
        Task::Restore { name, snapshot } => sessions.restore(&name.session, &snapshot.name()).await,
        Task::Checkpoints { name } => sessions.list(&name.session).await,
        Task::Ls => sessions.ls().await,
        Task::Fork {
            name,
            snapshot,
            new,
        } => {
            sessions
                .fork(&name.session, snapshot.as_deref(), new.name())
                .await
        }
        Task::Export {
            name,
            snapshot,
            oci,
            output,
        } => sessions.export(&name.session, snapshot, oci, output).await,
        Task::Import {
            file,
            name,
            options,
        } => sessions.import(&file, name, &options).await,
        Task::Stop { name } => sessions.stop(&name.session).await,
        Task::Start { name } => sessions.start(&name.session).await,
        Task::Rm {
            name,
            snapshot: Some(snapshot),
            ..
        } => sessions.remove_checkpoint(&name.session, &snapshot).await,
        Task::Rm { name, force, .. } => sessions.remove(&name.session, force).await,
        Task::Rename { name, new } => sessions.rename(&name.session, new.name()).await,
        Task::Inspect { name } => sessions.inspect(&name.session).await,
        Task::Cp { from, to, user } => sessions.copy(copy::Way::new(&from, &to, user)?).await,
        Task::Prune => sessions.prune().await,
    }
}

impl Sessions {
    /// Opens a session, which is not started by that.
    async fn take(&self, name: &str) -> Result<(Session, SessionInfo), Failure> {
        let session = self.blink.take_session(name, DEFAULT_PATIENCE).await?;
        let info = session.info().await;
        Ok((session, info))
    }

    /// The processes of a session that runs, whoever has it.
    async fn processes_of(&self, name: &str) -> Result<SessionProcesses, Failure> {
        match self.blink.session_info(name).await?.running {
            true => Ok(self.blink.session_processes(name).await?),
            false => Err(not_running(name)),
        }
    }

    /// Lets go of a session: its sandbox goes on if it is warm or others use it, and ends well otherwise.
    async fn let_go(&self, session: Session) {
        if let Err(error) = session.close().await {
            warn(error);
        }
    }

    /// Tells what has happened to a session: to a program with all of `more`, to a person in `words`.
    fn tell(
        &self,
        event: &str,
        name: &str,
        isolation: Isolation,
        more: Value,
        words: &str,
    ) -> Result<i32, Failure> {
        if !self.json {
            return print_text(&format!("{words}\n"));
        }
        let mut content = json!({"name": name, "isolation": isolation.name()});
        if let (Value::Object(content), Value::Object(more)) = (&mut content, more) {
            content.extend(more);
        }
        print_event(event, &content)
    }
}

fn not_running(name: &str) -> Failure {
    Failure::new(
        ErrorKind::NotFound,
        format!(
            "the session {name:?} is not running, and its processes have ended with its sandbox; \
             'blink session start' starts it if it is warm"
        ),
    )
}
