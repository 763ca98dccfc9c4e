//! `blink ps`, `inspect` and `info`.

use std::time::SystemTime;

use blink_core::{SandboxInfo, SessionInfo};
use serde_json::{Value, json};

use super::{Found, Sandboxes};
use crate::failure::{Failure, print_event, print_json, print_text, to_json};
use crate::{table, time};

impl Sandboxes {
    /// Lists sessions and sandboxes.
    pub(super) async fn ps(&self, stopped: bool) -> Result<i32, Failure> {
        let mut sessions = self.blink().sessions().await?;
        let mut sandboxes = self.sandboxes();
        if !stopped {
            sessions.retain(|info| info.running);
            sandboxes.retain(|info| info.running);
        }
        if self.sessions.json {
            let of_kind = |kind: &str, mut told: Value| {
                told["kind"] = kind.into();
                told
            };
            let mut all = Vec::new();
            for info in &sessions {
                all.push(of_kind("session", to_json(info)?));
            }
            for info in &sandboxes {
                all.push(of_kind("sandbox", to_json(info)?));
            }
            return print_json(&to_json(&all)?);
        }
        print_text(&rows(&sessions, &sandboxes, SystemTime::now()))
    }

    /// Those that were detached. One that goes meanwhile is not listed.
    fn sandboxes(&self) -> Vec<SandboxInfo> {
        let ids = self.blink().sandboxes().into_iter();
        ids.filter_map(|id| self.blink().sandbox_info(&id).ok())
            .collect()
    }

    pub(super) async fn inspect(&self, word: &str) -> Result<i32, Failure> {
        let id = match self.find(word).await? {
            Found::Session => return self.sessions.inspect(word).await,
            Found::Sandbox(id) => id,
        };
        let info = self.blink().sandbox_info(&id)?;
        if self.sessions.json {
            return print_event("sandbox_inspected", &info);
        }
        print_text(&format!(
            "ID         {}\nState      {}\nIsolation  {}\nMade       {}\n",
            info.id,
            state(info.running),
            info.isolation,
            time::ago(info.created_at, SystemTime::now())
        ))
    }

    pub(super) async fn info(&self) -> Result<i32, Failure> {
        let sessions = self.blink().sessions().await?;
        let sandboxes = self.sandboxes();
        let images = self.blink().images().await?;
        let running = |running: &mut dyn Iterator<Item = bool>| running.filter(|it| *it).count();
        let told = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "home": self.blink().home_path(),
            "isolation": self.blink().default_isolation().name(),
            "sessions": sessions.len(),
            "sessions_running": running(&mut sessions.iter().map(|info| info.running)),
            "sandboxes": sandboxes.len(),
            "sandboxes_running": running(&mut sandboxes.iter().map(|info| info.running)),
            "images": images.len(),
        });
        if self.sessions.json {
            return print_event("info", &told);
        }
        print_text(&format!(
            "Version    {}\nHome       {}\nIsolation  {} by default; 'blink doctor' shows which work here\nSessions   {}, {} of \
             them running\nSandboxes  {} detached, {} of them running\nImages     {}\n",
            env!("CARGO_PKG_VERSION"),
            self.blink().home_path().display(),
            self.blink().default_isolation().name(),
            told["sessions"],
            told["sessions_running"],
            told["sandboxes"],
            told["sandboxes_running"],
            told["images"],
        ))
    }
}

fn state(running: bool) -> &'static str {
    match running {
        true => "running",
        false => "stopped",
    }
}

fn rows(sessions: &[SessionInfo], sandboxes: &[SandboxInfo], now: SystemTime) -> String {
    let sessions = sessions.iter().map(|info| {
        [
            info.name.clone(),
            "session".to_owned(),
            state(info.running).to_owned(),
            info.isolation.to_string(),
            info.image.clone(),
            time::ago(info.created_at, now),
        ]
    });
    let sandboxes = sandboxes.iter().map(|info| {
        [
            info.id.clone(),
            "sandbox".to_owned(),
            state(info.running).to_owned(),
            info.isolation.to_string(),
            "-".to_owned(),
            time::ago(info.created_at, now),
        ]
    });
    let titles = ["NAME", "KIND", "STATE", "ISOLATION", "IMAGE", "CREATED"];
    table::lines(titles, sessions.chain(sandboxes))
}
