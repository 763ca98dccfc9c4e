//! What the tables hold, as values.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::disk::options::SessionOptions;
use crate::isolation::Isolation;

/// A session, as it is written down.
#[derive(Debug, Clone)]
pub(crate) struct SessionRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) isolation: Isolation,
    pub(crate) options: SessionOptions,
    /// The layer that it writes to.
    pub(crate) head: String,
    /// The checkpoint that its head began with.
    pub(crate) checkpoint: Option<String>,
    /// `session` or `session@checkpoint`.
    pub(crate) forked_from: Option<String>,
    pub(crate) created_at: SystemTime,
}

/// A checkpoint, as it is written down.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointRow {
    pub(crate) name: String,
    pub(crate) layer: String,
    /// The checkpoint that came before it in the session's life.
    pub(crate) parent: Option<String>,
    pub(crate) consistency: String,
    pub(crate) size_bytes: u64,
    pub(crate) created_at: SystemTime,
}

/// A layer: what a disk holds beyond its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerRow {
    pub(crate) id: String,
    pub(crate) parent: Option<String>,
}

pub(super) const SESSION_COLUMNS: &str =
    "SELECT id, name, isolation, options, head, checkpoint, forked_from, created_at FROM sessions";
pub(super) const CHECKPOINT_COLUMNS: &str =
    "SELECT name, layer, parent, consistency, size_bytes, created_at FROM checkpoints";

pub(super) fn read_session(row: &rusqlite::Row<'_>) -> rusqlite::Result<SessionRow> {
    let text = |index: usize, error: String| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, error.into())
    };
    let isolation: String = row.get(2)?;
    let options: String = row.get(3)?;
    Ok(SessionRow {
        id: row.get(0)?,
        name: row.get(1)?,
        isolation: Isolation::from_name(&isolation)
            .ok_or_else(|| text(2, format!("{isolation:?} is no isolation")))?,
        options: SessionOptions::from_json(&options).map_err(|error| text(3, error.to_string()))?,
        head: row.get(4)?,
        checkpoint: row.get(5)?,
        forked_from: row.get(6)?,
        created_at: time(row.get(7)?),
    })
}

pub(super) fn read_checkpoint(row: &rusqlite::Row<'_>) -> rusqlite::Result<CheckpointRow> {
    let size_bytes: i64 = row.get(4)?;
    Ok(CheckpointRow {
        name: row.get(0)?,
        layer: row.get(1)?,
        parent: row.get(2)?,
        consistency: row.get(3)?,
        size_bytes: size_bytes.unsigned_abs(),
        created_at: time(row.get(5)?),
    })
}

pub(super) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
}
