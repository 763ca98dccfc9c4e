//! `blink session export` and `import`.

use std::path::{Path, PathBuf};

use blink_core::ExportOptions;
use serde_json::json;

use super::Sessions;
use super::arguments::OpenOptions;
use super::open::spec;
use crate::failure::Failure;
use crate::progress::Sign;

/// What an archive's name ends with, and an image's.
const ENDING: &str = "boxlite";
const IMAGE_ENDING: &str = "oci";

impl Sessions {
    /// Writes its disk to a file, or as an image.
    pub(super) async fn export(
        &self,
        name: &str,
        snapshot: Option<String>,
        oci: bool,
        output: Option<PathBuf>,
    ) -> Result<i32, Failure> {
        let ending = if oci { IMAGE_ENDING } else { ENDING };
        let path = output.unwrap_or_else(|| format!("{name}.{ending}").into());
        let (session, info) = self.take(name).await?;
        let sign = Sign::new("exporting the session");
        let mut options = ExportOptions::default().progress(sign.transfer());
        if let Some(snapshot) = &snapshot {
            options = options.checkpoint(snapshot);
        }
        let exporting = async {
            match oci {
                true => session.export_oci_with(&path, options).await,
                false => session.export_with(&path, options).await,
            }
        };
        sign.shown(exporting).await?;
        let shown = path.to_string_lossy();
        let size_bytes = size_of(&path);
        let words = format!("wrote {shown} ({})", indicatif::HumanBytes(size_bytes));
        let format = if oci { "oci" } else { "boxlite" };
        let more = json!({
            "path": shown,
            "format": format,
            "snapshot": snapshot,
            "size_bytes": size_bytes,
        });
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
        let sign = Sign::new("importing the session");
        let builder = self.blink.session(name).spec(spec(options)?);
        let builder = builder
            .image_progress(sign.image())
            .import_progress(sign.transfer());
        let session = sign.shown(builder.import(file)).await?;
        let info = session.info().await;
        let mut words = format!("made the session {}", info.name);
        for declined in session.declined() {
            words += &format!("\nnot given, though the archive asks for it: {declined}");
        }
        let more = json!({
            "path": file.to_string_lossy(),
            "id": info.id,
            "image": info.image,
            "warm": info.warm,
            "declined": session.declined(),
        });
        self.tell("session_imported", &info.name, info.isolation, more, &words)
    }
}

/// Of a file, or of all files in a folder.
fn size_of(path: &Path) -> u64 {
    let mut bytes = 0;
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        match std::fs::read_dir(&path) {
            Ok(entries) => left.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => bytes += path.symlink_metadata().map_or(0, |found| found.len()),
        }
    }
    bytes
}
