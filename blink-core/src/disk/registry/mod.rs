//! What there is of sessions, checkpoints and layers: a SQLite database in the home, which several processes use at once.
//!
//! A change of what a session is, is one transaction here. Files are made before it and removed after it, so that a crash
//! leaves at most files that nothing here refers to, which [`Layers`](super::layers::Layers) collects.

mod failure;
mod rows;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

pub(crate) use self::failure::{checkpoint_taken, session_taken};
use self::failure::{failed, failed_in, is_busy, is_full, is_key_taken, is_taken};
use self::rows::{CHECKPOINT_COLUMNS, SESSION_COLUMNS, read_checkpoint, read_session, seconds};
pub(crate) use self::rows::{CheckpointRow, LayerRow, SessionRow};
use super::ballast::Ballast;
use crate::error::{Error, ErrorKind, Result};
use crate::isolation::Isolation;
use blink_host::fault::{self, Step};

const FILE: &str = "blink.db";

/// Another process writes for milliseconds; one that is stopped in the middle is not waited for longer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The first write of a new database takes about so long.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// More than there are, so that each is prepared once.
const STATEMENTS: usize = 64;

/// Each brings the database from the version that is its index to the next.
const MIGRATIONS: [&str; 3] = [
    "
    CREATE TABLE layers (
        id TEXT PRIMARY KEY,
        parent TEXT REFERENCES layers (id),
        isolation TEXT NOT NULL
    ) STRICT;
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        isolation TEXT NOT NULL,
        options TEXT NOT NULL,
        head TEXT NOT NULL REFERENCES layers (id),
        checkpoint TEXT,
        forked_from TEXT,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE checkpoints (
        session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        layer TEXT NOT NULL REFERENCES layers (id),
        parent TEXT,
        consistency TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        PRIMARY KEY (session, name)
    ) STRICT;
    CREATE INDEX layers_by_parent ON layers (parent);
    CREATE INDEX checkpoints_by_layer ON checkpoints (layer);
    ",
    // What is freed is looked for there: without it, among all sessions.
    "CREATE INDEX sessions_by_head ON sessions (head);",
    // What a session was made with is a description from here on; an earlier one's is read as what it was.
    "",
];

/// The database, opened by this process.
pub(crate) struct Registry {
    connection: Connection,
    home: PathBuf,
    ballast: Ballast,
    /// Layers that changes have freed, until somebody removes their folders.
    forgotten: Vec<String>,
}

impl Registry {
    /// # Errors
    /// `Unsupported` for a database of a later Blink; `Corrupt`.
    pub(crate) fn open(home: &Path) -> Result<Registry> {
        let mut ballast = Ballast::of(home);
        let mut opened = match Registry::open_once(home) {
            // It cannot even be read without room on the disk.
            Err(error) if is_full(&error) && ballast.give_up() => Registry::open_once(home),
            opened => opened,
        };
        match &mut opened {
            Ok(registry) => registry.ballast.keep(),
            Err(_) => ballast.keep(),
        }
        opened
    }

    fn open_once(home: &Path) -> Result<Registry> {
        let failed = |error| failed_in(home, error);
        let file = home.join(FILE);
        make_file(&file)
            .map_err(|error| Error::io("the list of sessions cannot be made", &error))?;
        let connection = Connection::open(file).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        use_log(&connection).map_err(failed)?;
        connection
            .execute_batch(
                "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;",
            )
            .map_err(failed)?;
        let mut registry = Registry {
            connection,
            home: home.to_owned(),
            ballast: Ballast::of(home),
            forgotten: Vec::new(),
        };
        registry.migrate()?;
        Ok(registry)
    }

    fn migrate(&mut self) -> Result<()> {
        self.change(|transaction| {
            let version: u32 =
                transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            for (number, migration) in (1_u32..).zip(MIGRATIONS) {
                if number > version {
                    transaction.execute_batch(migration)?;
                    transaction.pragma_update(None, "user_version", number)?;
                }
            }
            Ok(version)
        })
        .and_then(|version| match version as usize <= MIGRATIONS.len() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Unsupported,
                "the sessions of this home were written by a later Blink; use that, or another home (BLINK_HOME)",
            )),
        })
    }

    /// Does all of a change, or nothing.
    fn change<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let home = &self.home;
        let failed = |error| failed_in(home, error);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let value = change(&transaction).map_err(failed)?;
        fault::before(Step::Commit)
            .map_err(|error| Error::io("the list of sessions cannot be written", &error))?;
        transaction.commit().map_err(failed)?;
        fault::after(Step::Committed);
        Ok(value)
    }

    /// As [`change`](Registry::change), for what makes room: on a full disk, the room that is kept for it is given up.
    fn change_in_need<T>(
        &mut self,
        change: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        match self.change(&change) {
            Err(error) if is_full(&error) && self.ballast.give_up() => self.change(change),
            changed => changed,
        }
    }

    /// Keeps room for the next change of a full disk, where there is room again.
    pub(crate) fn keep_ballast(&mut self) {
        self.ballast.keep();
    }

    /// Writes a new session down, with the layer that it writes to.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub(crate) fn add_session(&mut self, session: &SessionRow, layers: &[LayerRow]) -> Result<()> {
        self.add_sessions(std::slice::from_ref(session), layers, None)
    }

    /// Writes sessions down, with their layers; a session that they were forked from may have a new head.
    pub(crate) fn add_sessions(
        &mut self,
        sessions: &[SessionRow],
        layers: &[LayerRow],
        head_of: Option<(&str, &str)>,
    ) -> Result<()> {
        let Some(first) = sessions.first() else {
            return Ok(());
        };
        let names = sessions.iter().map(|session| session.name.clone());
        let taken = |error: Error| match is_taken(&error) {
            true => session_taken(&names.collect::<Vec<_>>().join(", ")),
            false => error,
        };
        let forgotten = self.change(|transaction| {
            insert_layers(transaction, layers, first.isolation)?;
            let mut inserting = transaction.prepare_cached(
                "INSERT INTO sessions (id, name, isolation, options, head, checkpoint, forked_from, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            for session in sessions {
                inserting.execute(params![
                    session.id,
                    session.name,
                    session.isolation.name(),
                    session.options.to_json(),
                    session.head,
                    session.checkpoint,
                    session.forked_from,
                    seconds(session.created_at),
                ])?;
            }
            let freed = match head_of {
                Some((session, head)) => set_head(transaction, session, head)?,
                None => Vec::new(),
            };
            forget_unneeded(transaction, freed)
        });
        self.forgotten.extend(forgotten.map_err(taken)?);
        Ok(())
    }

    pub(crate) fn session(&self, name: &str) -> Result<Option<SessionRow>> {
        let query = format!("{SESSION_COLUMNS} WHERE name = ?1");
        self.connection
            .prepare_cached(&query)
            .and_then(|mut statement| statement.query_row([name], read_session))
            .optional()
            .map_err(failed)
    }

    pub(crate) fn session_by_id(&self, id: &str) -> Result<Option<SessionRow>> {
        let query = format!("{SESSION_COLUMNS} WHERE id = ?1");
        self.connection
            .prepare_cached(&query)
            .and_then(|mut statement| statement.query_row([id], read_session))
            .optional()
            .map_err(failed)
    }

    /// By name.
    pub(crate) fn sessions(&self) -> Result<Vec<SessionRow>> {
        let query = format!("{SESSION_COLUMNS} ORDER BY name");
        let mut statement = self.connection.prepare(&query).map_err(failed)?;
        let rows = statement.query_map([], read_session).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    pub(crate) fn remove_session(&mut self, id: &str) -> Result<()> {
        let forgotten = self.change_in_need(|transaction| {
            let freed = {
                let mut freed = transaction.prepare_cached(
                    "SELECT head FROM sessions WHERE id = ?1
                     UNION SELECT layer FROM checkpoints WHERE session = ?1",
                )?;
                let freed = freed.query_map([id], |row| row.get(0))?;
                freed.collect::<rusqlite::Result<_>>()?
            };
            transaction.execute("DELETE FROM sessions WHERE id = ?1", [id])?;
            forget_unneeded(transaction, freed)
        })?;
        self.forgotten.extend(forgotten);
        Ok(())
    }

    /// # Errors
    /// `AlreadyExists`.
    pub(crate) fn rename_session(&mut self, id: &str, name: &str) -> Result<()> {
        let taken = |error: Error| match is_taken(&error) {
            true => session_taken(name),
            false => error,
        };
        self.change(|transaction| {
            transaction
                .execute("UPDATE sessions SET name = ?2 WHERE id = ?1", [id, name])
                .map(drop)
        })
        .map_err(taken)
    }

    /// Writes a checkpoint down, with the layers that are new; the session may have a new head.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub(crate) fn add_checkpoint(
        &mut self,
        session: &SessionRow,
        checkpoint: &CheckpointRow,
        layers: &[LayerRow],
        head: Option<&str>,
    ) -> Result<()> {
        let taken = |error: Error| match is_key_taken(&error) {
            true => checkpoint_taken(&session.name, &checkpoint.name),
            false => error,
        };
        let forgotten = self.change(|transaction| {
            insert_layers(transaction, layers, session.isolation)?;
            let mut inserting = transaction.prepare_cached(
                "INSERT INTO checkpoints (session, name, layer, parent, consistency, size_bytes, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            inserting.execute(params![
                session.id,
                checkpoint.name,
                checkpoint.layer,
                checkpoint.parent,
                checkpoint.consistency,
                i64::try_from(checkpoint.size_bytes).unwrap_or(i64::MAX),
                seconds(checkpoint.created_at),
            ])?;
            transaction
                .prepare_cached("UPDATE sessions SET checkpoint = ?2 WHERE id = ?1")?
                .execute([&session.id, &checkpoint.name])?;
            let freed = match head {
                Some(head) => set_head(transaction, &session.id, head)?,
                None => Vec::new(),
            };
            forget_unneeded(transaction, freed)
        });
        self.forgotten.extend(forgotten.map_err(taken)?);
        Ok(())
    }

    /// Gives a session a new head that begins with a checkpoint.
    pub(crate) fn restore(
        &mut self,
        session: &SessionRow,
        checkpoint: &str,
        layers: &[LayerRow],
        head: &str,
    ) -> Result<()> {
        let forgotten = self.change(|transaction| {
            insert_layers(transaction, layers, session.isolation)?;
            transaction
                .prepare_cached("UPDATE sessions SET head = ?2, checkpoint = ?3 WHERE id = ?1")?
                .execute([&session.id, head, checkpoint])?;
            forget_unneeded(transaction, vec![session.head.clone()])
        })?;
        self.forgotten.extend(forgotten);
        Ok(())
    }

    /// Gives a session a head that goes on where the old one, now its parent, ends.
    pub(crate) fn set_session_head(
        &mut self,
        session: &SessionRow,
        layers: &[LayerRow],
        head: &str,
    ) -> Result<()> {
        let forgotten = self.change(|transaction| {
            insert_layers(transaction, layers, session.isolation)?;
            let freed = set_head(transaction, &session.id, head)?;
            forget_unneeded(transaction, freed)
        })?;
        self.forgotten.extend(forgotten);
        Ok(())
    }

    pub(crate) fn checkpoint(&self, session: &str, name: &str) -> Result<Option<CheckpointRow>> {
        let query = format!("{CHECKPOINT_COLUMNS} WHERE session = ?1 AND name = ?2");
        self.connection
            .prepare_cached(&query)
            .and_then(|mut statement| statement.query_row([session, name], read_checkpoint))
            .optional()
            .map_err(failed)
    }

    /// In the order in which they were made.
    pub(crate) fn checkpoints(&self, session: &str) -> Result<Vec<CheckpointRow>> {
        let query = format!("{CHECKPOINT_COLUMNS} WHERE session = ?1 ORDER BY rowid");
        let mut statement = self.connection.prepare(&query).map_err(failed)?;
        let rows = statement
            .query_map([session], read_checkpoint)
            .map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// Those that followed it follow the one before it.
    pub(crate) fn remove_checkpoint(&mut self, session: &str, name: &str) -> Result<()> {
        let forgotten = self.change_in_need(|transaction| {
            let found: Option<(Option<String>, String)> = transaction
                .query_row(
                    "SELECT parent, layer FROM checkpoints WHERE session = ?1 AND name = ?2",
                    [session, name],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            let Some((parent, layer)) = found else {
                return Ok(Vec::new());
            };
            transaction.execute(
                "UPDATE checkpoints SET parent = ?3 WHERE session = ?1 AND parent = ?2",
                params![session, name, parent],
            )?;
            transaction.execute(
                "UPDATE sessions SET checkpoint = ?3 WHERE id = ?1 AND checkpoint = ?2",
                params![session, name, parent],
            )?;
            transaction.execute(
                "DELETE FROM checkpoints WHERE session = ?1 AND name = ?2",
                [session, name],
            )?;
            forget_unneeded(transaction, vec![layer])
        })?;
        self.forgotten.extend(forgotten);
        Ok(())
    }

    /// The layer and all beneath it, the lowest first.
    pub(crate) fn chain(&self, id: &str) -> Result<Vec<String>> {
        // All of it as it is at one moment.
        let moment = self.connection.unchecked_transaction().map_err(failed)?;
        let mut statement = moment
            .prepare_cached("SELECT parent FROM layers WHERE id = ?1")
            .map_err(failed)?;
        let mut chain = Vec::new();
        let mut next = Some(id.to_owned());
        while let Some(id) = next {
            let parent = statement.query_row([&id], |row| row.get(0)).optional();
            next = match parent.map_err(failed)? {
                Some(parent) if !chain.contains(&id) => parent,
                _ => return Err(damaged(&id)),
            };
            chain.push(id);
        }
        chain.reverse();
        Ok(chain)
    }

    /// All that it knows.
    pub(crate) fn layers(&self) -> Result<Vec<String>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT id FROM layers")
            .map_err(failed)?;
        let rows = statement.query_map([], |row| row.get(0)).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// Forgets all layers that nothing needs.
    pub(crate) fn forget_layers(&mut self) -> Result<()> {
        self.change_in_need(|transaction| {
            let mut statement = transaction.prepare(
                "WITH RECURSIVE needed (id) AS (
                     SELECT head FROM sessions UNION SELECT layer FROM checkpoints
                     UNION SELECT layers.parent FROM layers JOIN needed ON layers.id = needed.id
                         WHERE layers.parent IS NOT NULL
                 ) DELETE FROM layers WHERE id NOT IN (SELECT id FROM needed)",
            )?;
            statement.execute([]).map(drop)
        })
    }

    pub(crate) fn has_forgotten(&self) -> bool {
        !self.forgotten.is_empty()
    }

    /// The layers that its changes have freed since this was last asked.
    pub(crate) fn take_forgotten(&mut self) -> Vec<String> {
        std::mem::take(&mut self.forgotten)
    }
}

fn insert_layers(
    transaction: &Transaction<'_>,
    layers: &[LayerRow],
    isolation: Isolation,
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT OR IGNORE INTO layers (id, parent, isolation) VALUES (?1, ?2, ?3)",
    )?;
    for layer in layers {
        statement.execute(params![layer.id, layer.parent, isolation.name()])?;
    }
    Ok(())
}

/// Forgets of layers that something was freed of, and of those beneath them, what nothing needs any more; says which.
fn forget_unneeded(
    transaction: &Transaction<'_>,
    mut freed: Vec<String>,
) -> rusqlite::Result<Vec<String>> {
    let mut forgetting = transaction.prepare_cached(
        "DELETE FROM layers WHERE id = ?1
             AND NOT EXISTS (SELECT 1 FROM layers WHERE parent = ?1)
             AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE layer = ?1)
             AND NOT EXISTS (SELECT 1 FROM sessions WHERE head = ?1)
         RETURNING parent",
    )?;
    let mut forgotten = Vec::new();
    while let Some(id) = freed.pop() {
        let parent: Option<Option<String>> =
            forgetting.query_row([&id], |row| row.get(0)).optional()?;
        if let Some(parent) = parent {
            freed.extend(parent);
            forgotten.push(id);
        }
    }
    Ok(forgotten)
}

fn damaged(layer: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "the list of sessions in Blink's home is damaged: it does not know the layer {layer}; remove the session, or \
             bring the home back from a copy"
        ),
    )
}

/// Has the database keep a log beside it, so that who reads does not wait for who writes.
///
/// Of several that do this to a new database at once, SQLite refuses all but one without any wait: each holds what the
/// others wait for.
/// For this user alone, and with it what SQLite makes beside it: it has the secrets of sessions' environments. One that is
/// there is not opened: closing it would let go of the locks that this process has on it.
fn make_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(file) => file.set_permissions(std::fs::Permissions::from_mode(0o600)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn use_log(connection: &Connection) -> rusqlite::Result<()> {
    let begun = Instant::now();
    loop {
        match connection.execute_batch("PRAGMA journal_mode = WAL") {
            Err(error) if is_busy(&error) && begun.elapsed() < BUSY_TIMEOUT => {
                std::thread::sleep(BUSY_PAUSE);
            }
            done => return done,
        }
    }
}

/// Gives what was the head before, where there is the session.
fn set_head(
    transaction: &Transaction<'_>,
    session: &str,
    head: &str,
) -> rusqlite::Result<Vec<String>> {
    let mut heads = transaction.prepare_cached("SELECT head FROM sessions WHERE id = ?1")?;
    let old = heads.query_map([session], |row| row.get(0))?;
    let old = old.collect::<rusqlite::Result<_>>()?;
    transaction
        .prepare_cached("UPDATE sessions SET head = ?2 WHERE id = ?1")?
        .execute([session, head])?;
    Ok(old)
}
