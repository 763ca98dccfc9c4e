//! `blink session checkpoint`, `restore`, `list`, `rm --snapshot` and `fork`.

use std::time::SystemTime;

use blink_core::{Checkpoint, CheckpointOptions, Lineage};
use indicatif::HumanBytes;
use serde_json::json;

use super::Sessions;
use crate::failure::{Failure, print_json, print_text, to_json};
use crate::{progress, time};

impl Sessions {
    /// Keeps the disk under a name.
    pub(super) async fn checkpoint(
        &self,
        name: &str,
        snapshot: String,
        require_frozen: bool,
    ) -> Result<i32, Failure> {
        let (session, info) = self.take(name).await?;
        let mut options = CheckpointOptions::default();
        if require_frozen {
            options = options.require_frozen();
        }
        let making = session.checkpoint_with(snapshot, options);
        let made = progress::shown("making the checkpoint", making).await?;
        let words = format!(
            "made the checkpoint {} ({}, {})",
            made.name,
            made.consistency.name(),
            HumanBytes(made.size_bytes)
        );
        let mut more = to_json(&made)?;
        // The name is the session's.
        more["name"] = name.into();
        more["snapshot"] = made.name.as_str().into();
        self.tell("session_checkpoint", name, info.isolation, more, &words)
    }

    /// Puts the disk back.
    pub(super) async fn restore(&self, name: &str, snapshot: &str) -> Result<i32, Failure> {
        let (session, info) = self.take(name).await?;
        progress::shown("restoring the session", session.restore(snapshot)).await?;
        let running = session.info().await.running;
        self.let_go(session).await;
        let words = format!("the session {name} is at the checkpoint {snapshot} again");
        let more = json!({"snapshot": snapshot, "running": running && info.warm});
        self.tell("session_restored", name, info.isolation, more, &words)
    }

    /// Lists its checkpoints: as a tree for people.
    pub(super) async fn list(&self, name: &str) -> Result<i32, Failure> {
        let lineage = self.blink.session_lineage(name).await?;
        if self.json {
            let mut all = to_json(&lineage.checkpoints)?;
            for checkpoint in all.as_array_mut().into_iter().flatten() {
                let is_current =
                    lineage.current.is_some() && checkpoint["name"] == to_json(&lineage.current)?;
                checkpoint["current"] = is_current.into();
            }
            return print_json(&all);
        }
        print_text(&tree(name, &lineage, SystemTime::now()))
    }

    /// Forgets a checkpoint.
    pub(super) async fn remove_checkpoint(
        &self,
        name: &str,
        snapshot: &str,
    ) -> Result<i32, Failure> {
        let (session, info) = self.take(name).await?;
        session.remove_checkpoint(snapshot).await?;
        let words = format!("removed the checkpoint {snapshot} of the session {name}");
        let more = json!({"snapshot": snapshot});
        self.tell(
            "session_checkpoint_removed",
            name,
            info.isolation,
            more,
            &words,
        )
    }

    /// Makes a session of a disk, or of a checkpoint.
    pub(super) async fn fork(
        &self,
        name: &str,
        snapshot: Option<&str>,
        new: String,
    ) -> Result<i32, Failure> {
        let (session, _) = self.take(name).await?;
        let forking = async {
            match snapshot {
                Some(snapshot) => session.fork_from(snapshot, new).await,
                None => session.fork(new).await,
            }
        };
        let fork = progress::shown("forking the session", forking).await?;
        let info = fork.info().await;
        let origin = info.forked_from.as_deref().unwrap_or(name);
        let words = format!("made the session {} from {origin}", info.name);
        let more = json!({"forked_from": origin, "id": info.id});
        self.tell("session_forked", &info.name, info.isolation, more, &words)
    }
}

/// The session, and below it its checkpoints, each below the one that came before it.
fn tree(session: &str, lineage: &Lineage, now: SystemTime) -> String {
    let mut text = match &lineage.forked_from {
        Some(origin) => format!("{session} (forked from {origin})\n"),
        None => format!("{session}\n"),
    };
    let known = |name: &String| lineage.checkpoints.iter().any(|each| each.name == *name);
    // From the last to the first, since they are taken from the end.
    let below = |parent: Option<&str>| {
        let all = lineage.checkpoints.iter().rev();
        let below: Vec<&Checkpoint> = all
            .filter(|each| {
                each.parent
                    .as_ref()
                    .filter(|name| known(name))
                    .map(String::as_str)
                    == parent
            })
            .collect();
        below
    };
    let mut waiting: Vec<(&Checkpoint, String, bool)> = Vec::new();
    let wait = |waiting: &mut Vec<_>, parent: Option<&str>, indent: &str| {
        let below = below(parent).into_iter().enumerate();
        waiting.extend(below.map(|(index, each)| (each, indent.to_owned(), index == 0)));
    };
    wait(&mut waiting, None, "");
    while let Some((checkpoint, indent, is_last)) = waiting.pop() {
        let (branch, beneath) = match is_last {
            true => ("└─ ", "   "),
            false => ("├─ ", "│  "),
        };
        let here = match lineage.current.as_ref() == Some(&checkpoint.name) {
            true => "  ← the disk is here",
            false => "",
        };
        text += &format!(
            "{indent}{branch}{}  {}, {}, {}{here}\n",
            checkpoint.name,
            checkpoint.consistency.name(),
            HumanBytes(checkpoint.size_bytes),
            time::ago(checkpoint.created_at, now),
        );
        let indent = format!("{indent}{beneath}");
        wait(&mut waiting, Some(&checkpoint.name), &indent);
    }
    text
}
