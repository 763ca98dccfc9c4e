//! The table, for people and for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::measure::Result;

/// One line: what was measured, what it should be, what it is, and what it is for others.
pub(crate) struct Row {
    what: String,
    target: String,
    reached: String,
    met: Option<bool>,
    peers: Vec<Peer>,
    note: String,
    values: Map<String, Value>,
    failed: bool,
}

struct Peer {
    name: String,
    reached: String,
    ratio: Option<f64>,
}

impl Row {
    /// A row without a target shows where the time of another goes.
    pub(crate) fn new(what: impl Into<String>, target: &str) -> Row {
        Row {
            what: what.into(),
            target: target.to_owned(),
            reached: String::new(),
            met: None,
            peers: Vec::new(),
            note: String::new(),
            values: Map::new(),
            failed: false,
        }
    }

    /// A part that could not be measured.
    pub(crate) fn failed(what: &str, why: &str) -> Row {
        let mut row = Row::new(what, "").note(why);
        row.reached = "not measured".into();
        row.failed = true;
        row
    }

    pub(crate) fn reached(mut self, text: impl Into<String>) -> Row {
        self.reached = text.into();
        self
    }

    pub(crate) fn met(mut self, met: bool) -> Row {
        self.met = Some(met);
        self
    }

    /// The ratio is Blink's by the peer's.
    pub(crate) fn peer(mut self, name: &str, reached: impl Into<String>, ratio: f64) -> Row {
        self.peers.push(Peer {
            name: name.to_owned(),
            reached: reached.into(),
            ratio: Some(ratio),
        });
        self
    }

    pub(crate) fn no_peer(mut self, name: &str, why: &str) -> Row {
        self.peers.push(Peer {
            name: name.to_owned(),
            reached: why.to_owned(),
            ratio: None,
        });
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Row {
        self.note = note.into();
        self
    }

    /// A number for programs; its name has the unit.
    pub(crate) fn value(mut self, name: &str, value: f64) -> Row {
        self.values.insert(name.to_owned(), json!(value));
        self
    }

    /// For whoever watches.
    fn summary(&self) -> String {
        let mut text = format!("{}: {}", self.what, self.reached);
        for peer in &self.peers {
            let _ = write!(text, "; {}: {}", peer.name, peer.reached);
            if let Some(ratio) = peer.ratio {
                let _ = write!(text, ", ratio {ratio:.2}");
            }
        }
        if !self.note.is_empty() {
            let _ = write!(text, " ({})", self.note);
        }
        text
    }

    fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "pass",
            Some(false) => "**miss**",
            None => "",
        }
    }

    fn markdown(&self) -> String {
        let column = |show: &dyn Fn(&Peer) -> String| {
            let lines: Vec<String> = self.peers.iter().map(show).collect();
            lines.join("<br>")
        };
        let peers = column(&|peer| format!("{}: {}", peer.name, peer.reached));
        let ratios = column(&|peer| {
            peer.ratio
                .map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}"))
        });
        let cells = [
            &self.what,
            &self.target,
            &self.reached,
            &peers,
            &ratios,
            self.verdict(),
            &self.note,
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        format!("| {} |\n", cells.join(" | "))
    }

    fn json(&self) -> Value {
        let peers: Vec<Value> = self
            .peers
            .iter()
            .map(|peer| json!({"name": peer.name, "reached": peer.reached, "ratio": peer.ratio}))
            .collect();
        json!({
            "what": self.what,
            "target": self.target,
            "reached": self.reached,
            "met": self.met,
            "peers": peers,
            "note": self.note,
            "values": self.values,
        })
    }
}

/// Everything of one run.
pub(crate) struct Report {
    title: &'static str,
    environment: String,
    load_after: String,
    quick: bool,
    rows: Vec<Row>,
}

impl Report {
    /// For Blink's home in `folder`.
    pub(crate) fn new(title: &'static str, folder: &Path, quick: bool) -> Result<Report> {
        Ok(Report {
            title,
            environment: environment(folder)?,
            load_after: String::new(),
            quick,
            rows: Vec::new(),
        })
    }

    pub(crate) fn add(&mut self, rows: Vec<Row>) {
        // Said at once, too: a run may not live until its end.
        rows.iter().for_each(|row| eprintln!("{}", row.summary()));
        self.rows.extend(rows);
    }

    pub(crate) fn finish(&mut self) {
        self.load_after = load_average();
    }

    /// Whether everything could be measured.
    pub(crate) fn complete(&self) -> bool {
        self.rows.iter().all(|row| !row.failed)
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n", self.title);
        let _ = writeln!(
            text,
            "{}; afterwards {}.{}\n",
            self.environment,
            self.load_after,
            if self.quick {
                " A quick run: see that it works, believe no number."
            } else {
                ""
            }
        );
        text.push_str(
            "Pairs are median / 99th percentile. A ratio is Blink's number by the peer's, measured in turns.\n\n",
        );
        text.push_str("| what | target | reached | peer | ratio | | note |\n");
        text.push_str("|---|---|---|---|---|---|---|\n");
        for row in &self.rows {
            text.push_str(&row.markdown());
        }
        text
    }

    /// Writes `NAME.json` and `NAME.md`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let value = json!({
            "environment": self.environment,
            "load_after": self.load_after,
            "quick": self.quick,
            "rows": rows,
        });
        fs::create_dir_all(folder)?;
        let mut text = serde_json::to_string_pretty(&value)?;
        text.push('\n');
        fs::write(folder.join(format!("{name}.json")), text)?;
        fs::write(folder.join(format!("{name}.md")), self.markdown())?;
        Ok(())
    }
}

fn environment(folder: &Path) -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let count = std::thread::available_parallelism()?;
    let date = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%d %H:%M UTC"])
        .output()?
        .stdout;
    let user = match rustix::process::geteuid().is_root() {
        true => "as root",
        false => "as an ordinary user",
    };
    Ok(format!(
        "{}; Linux {}; {count} × {model}; {user}; Blink's home on {}; {}",
        String::from_utf8_lossy(&date).trim(),
        kernel.split('.').take(2).collect::<Vec<_>>().join("."),
        file_system(folder)?,
        load_average(),
    ))
}

/// The type of the file system that a folder is on.
fn file_system(folder: &Path) -> Result<String> {
    let output = std::process::Command::new("stat")
        .args(["--file-system", "--format", "%T"])
        .arg(folder)
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minutes: Vec<&str> = text.split(' ').take(3).collect();
    format!("load average {}", minutes.join(" "))
}
