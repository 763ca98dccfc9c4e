//! `blink session open`.

use blink_core::{Blink, ErrorKind, IsolationChoice, SandboxSpec, Session, SessionBuilder};
use serde_json::json;

use super::Sessions;
use super::arguments::OpenOptions;
use crate::failure::Failure;
use crate::progress::Sign;
use crate::run::signals::{Signals, exit_code};
use crate::run::{sandbox, say_isolation};

impl Sessions {
    /// Makes a session, or starts one that there is.
    pub(super) async fn open(
        &self,
        name: String,
        mut options: OpenOptions,
    ) -> Result<i32, Failure> {
        let mut signals = Signals::catch()?;
        let sign = Sign::new("starting the session");
        match self.blink.session_info(&name).await {
            // What is not said is what it has.
            Ok(info) => {
                let image = &mut options.sandbox.image;
                image.get_or_insert(info.image);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let fetch = sandbox(&self.blink, &options.sandbox)?.image_progress(sign.image());
                // Apart from the rest, since a download may take long, and may be given up. What cannot be right is
                // told by the opening.
                tokio::select! {
                    fetched = sign.shown(fetch.fetch_image()) => fetched?,
                    signal = signals.ending() => return Ok(exit_code(signal)),
                }
            }
            Err(error) => return Err(error.into()),
        }
        let builder = described(&self.blink, name, &options)?.image_progress(sign.image());
        // In a task of its own, and always waited for: what is given up half-way could leave something behind.
        let mut opening = tokio::spawn(builder.open());
        let working = sign.shown(async {
            tokio::select! {
                opened = &mut opening => (opened, None),
                signal = signals.ending() => {
                    (signals.ends_at_once_while(&mut opening).await, Some(signal))
                }
            }
        });
        let (opened, ended_by) = working.await;
        let opened =
            opened.map_err(|error| Failure::internal(format!("the start failed: {error}")))?;
        match (opened, ended_by) {
            (Ok(session), None) => {
                if options.sandbox.isolation == Some(IsolationChoice::Auto) {
                    say_isolation(session.info().await.isolation);
                }
                self.opened(session, &mut signals).await
            }
            (Ok(session), Some(signal)) => {
                if session.was_created() {
                    signals.ends_at_once_while(session.remove()).await?;
                } else {
                    self.let_go(session).await;
                }
                Ok(exit_code(signal))
            }
            (Err(_), Some(signal)) => Ok(exit_code(signal)),
            (Err(error), None) => Err(error.into()),
        }
    }

    async fn opened(&self, session: Session, signals: &mut Signals) -> Result<i32, Failure> {
        let created = session.was_created();
        let info = session.info().await;
        signals.ends_at_once_while(self.let_go(session)).await;
        let words = match (created, info.warm) {
            (true, true) => format!("made the session {}, which runs", info.name),
            (true, false) => format!("made the session {}", info.name),
            (false, true) => format!("the session {} runs", info.name),
            (false, false) => format!("the session {} is there already", info.name),
        };
        let more = json!({
            "created": created,
            "id": info.id,
            "image": info.image,
            "warm": info.warm,
            "running": info.warm,
        });
        self.tell("session_opened", &info.name, info.isolation, more, &words)
    }
}

/// Describes a session as the user wants it.
pub(super) fn described(
    blink: &Blink,
    name: String,
    options: &OpenOptions,
) -> Result<SessionBuilder, Failure> {
    let spec = spec(options)?;
    Ok(blink
        .session(name)
        .spec(spec)
        .image(options.sandbox.image()))
}

/// What the user has asked for.
pub(super) fn spec(options: &OpenOptions) -> Result<SandboxSpec, Failure> {
    let mut spec = options.sandbox.spec()?;
    spec.env = options.surroundings.variables();
    let workdir = options.surroundings.workdir.as_ref();
    spec.current_dir = workdir.map(Into::into);
    spec.user.clone_from(&options.surroundings.user);
    spec.labels = options.label.iter().cloned().collect();
    spec.idle_stop = options.idle_stop;
    spec.warm = options.warm.then_some(true);
    Ok(spec)
}
