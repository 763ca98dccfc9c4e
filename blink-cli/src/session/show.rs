//! `blink session ls` and `inspect`.

use std::time::SystemTime;

use blink_core::terminal::escape_line;
use blink_core::{Network, SessionInfo};
use indicatif::{HumanBytes, HumanDuration};

use super::Sessions;
use crate::failure::{Failure, print_json, print_text, to_json};
use crate::{table, time};

impl Sessions {
    /// Lists all of them.
    pub(super) async fn ls(&self) -> Result<i32, Failure> {
        let sessions = self.blink.sessions().await?;
        if self.json {
            return print_json(&to_json(&sessions)?);
        }
        print_text(&table(&sessions, SystemTime::now()))
    }

    /// Shows everything that is known of one.
    pub(crate) async fn inspect(&self, name: &str) -> Result<i32, Failure> {
        let info = self.blink.session_info(name).await?;
        let lineage = self.blink.session_lineage(name).await?;
        let mut more = to_json(&info)?;
        more["checkpoints"] = lineage.checkpoints.len().into();
        let page = page(&info, lineage.checkpoints.len(), SystemTime::now());
        self.tell(
            "session_inspected",
            name,
            info.isolation,
            more,
            page.trim_end(),
        )
    }
}

fn state(info: &SessionInfo) -> &'static str {
    match info.running {
        true => "running",
        false => "stopped",
    }
}

fn table(sessions: &[SessionInfo], now: SystemTime) -> String {
    let rows = sessions.iter().map(|info| {
        let dash = || "-".to_owned();
        [
            info.name.clone(),
            state(info).to_owned(),
            info.isolation.to_string(),
            info.image.clone(),
            HumanBytes(info.disk_bytes).to_string(),
            info.checkpoint.clone().unwrap_or_else(dash),
            time::ago(info.created_at, now),
        ]
    });
    let titles = [
        "NAME",
        "STATE",
        "ISOLATION",
        "IMAGE",
        "DISK",
        "CHECKPOINT",
        "MADE",
    ];
    table::lines(titles, rows)
}

fn mounts(info: &SessionInfo) -> Vec<String> {
    let mounts = info.mounts.iter().map(|mount| {
        let how = if mount.read_only { ":ro" } else { "" };
        format!("{}:{}{how}", mount.host.display(), mount.guest.display())
    });
    mounts.collect()
}

fn publish(info: &SessionInfo) -> Vec<String> {
    let ports = info.publish.iter();
    ports
        .map(|port| format!("{}:{}", port.host, port.guest))
        .collect()
}

fn page(info: &SessionInfo, checkpoints: usize, now: SystemTime) -> String {
    let none = || "none".to_owned();
    let mib = |mib: Option<u64>| mib.map(|mib| format!("{mib} MiB"));
    let list = |values: Vec<String>| match values.is_empty() {
        true => none(),
        false => values.join(", "),
    };
    let network = match &info.network {
        Network::None => none(),
        Network::Host => "all that this machine reaches".to_owned(),
        Network::Hosts(hosts) => hosts.join(", "),
        other => format!("{other:?}"),
    };
    let labels = info.labels.iter();
    let labels = labels.map(|(name, value)| format!("{name}={value}"));
    let idle = info.idle_stop.map(|after| HumanDuration(after).to_string());
    let cpus = info.resources.cpus.map(|cpus| cpus.to_string());
    let default = || "the isolation's default".to_owned();
    let rows = [
        ("Name", info.name.clone()),
        ("ID", info.id.clone()),
        ("State", state(info).to_owned()),
        ("Warm", if info.warm { "yes" } else { "no" }.to_owned()),
        ("Isolation", info.isolation.to_string()),
        ("Image", info.image.clone()),
        ("Made", time::ago(info.created_at, now)),
        ("Forked from", info.forked_from.clone().unwrap_or_else(none)),
        ("Disk", HumanBytes(info.disk_bytes).to_string()),
        (
            "Checkpoints",
            match &info.checkpoint {
                Some(current) => format!("{checkpoints}; the disk was last at {current}"),
                None => checkpoints.to_string(),
            },
        ),
        ("Processors", cpus.unwrap_or_else(default)),
        (
            "Memory",
            mib(info.resources.memory_mib).unwrap_or_else(default),
        ),
        (
            "Disk limit",
            mib(Some(info.resources.disk_mib)).unwrap_or_else(none),
        ),
        ("Network", network),
        ("Mounts", list(mounts(info))),
        ("Ports", list(publish(info))),
        ("Labels", list(labels.collect())),
        ("Idle stop", idle.unwrap_or_else(|| "never".to_owned())),
    ];
    let width = rows.iter().map(|(title, _)| title.len()).max().unwrap_or(0);
    let lines = rows.iter();
    lines
        .map(|(title, value)| format!("{title:<width$}  {}\n", escape_line(value)))
        .collect()
}
