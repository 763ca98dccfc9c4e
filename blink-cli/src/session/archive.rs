//! `blink session export` and `import`.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::Sessions;
use super::arguments::OpenOptions;
use super::open::described;
use crate::failure::Failure;
use crate::progress;

/// What an archive's name ends with.
const ENDING: &str = "blink";

impl Sessions {
    /// Writes its disk to a file.
    pub(super) async fn export(&self, name: &str, output: Option<PathBuf>) -> Result<i32, Failure> {
        let path = output.unwrap_or_else(|| format!("{name}.{ENDING}").into());
        let (session, info) = self.take(name).await?;
        progress::shown("exporting the session", session.export(&path)).await?;
        let shown = path.to_string_lossy();
        let size_bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let words = format!("wrote {shown} ({})", indicatif::HumanBytes(size_bytes));
        let more = json!({"path": shown, "size_bytes": size_bytes});
        self.tell("session_exported", name, info.isolation, more, &words)
    }

    /// Makes a session of such a file.
    pub(super) async fn import(
        &self,
        file: &Path,
        name: Option<String>,
        options: &OpenOptions,
    ) -> Result<i32, Failure> {
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        let name = name
            .or_else(|| stem.map(str::to_owned))
            .ok_or_else(|| Failure::invalid("name the new session with --name"))?;
        let importing = described(&self.blink, name, options)?.import(file);
        let session = progress::shown("importing the session", importing).await?;
        let info = session.info().await;
        let words = format!("made the session {}", info.name);
        let more = json!({"path": file.to_string_lossy(), "id": info.id});
        self.tell("session_imported", &info.name, info.isolation, more, &words)
    }
}
