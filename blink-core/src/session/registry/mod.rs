//! What there is of sessions, checkpoints and layers: a SQLite database in the home, which several processes use at once.
//!
//! A change of what a session is, is one transaction here. Files are made before it and removed after it, so that a crash
//! leaves at most files that nothing here refers to, which [`Layers`](super::layers::Layers) collects.

mod failure;
mod rows;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

pub(super) use self::failure::{checkpoint_taken, session_taken};
use self::failure::{failed, failed_in, is_busy, is_full};
use self::rows::{CHECKPOINT_COLUMNS, SESSION_COLUMNS, read_checkpoint, read_session, seconds};
pub(super) use self::rows::{CheckpointRow, LayerRow, SessionRow};
use super::ballast::Ballast;
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{self, Step};
use crate::isolation::Isolation;

const FILE: &str = "blink.db";

/// Another process writes for milliseconds; one that is stopped in the middle is not waited for longer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The first write of a new database takes about so long.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// More than there are, so that each is prepared once.
const STATEMENTS: usize = 64;

/// Each brings the database from the version that is its index to the next.
const MIGRATIONS: [&str; 1] = ["
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
"];

/// The database, opened by this process.
pub(crate) struct Registry {
    connection: Connection,
    home: PathBuf,
    ballast: Ballast,
}

impl Registry {
    /// # Errors
    /// `Unsupported` for a database of a later Blink; `Corrupt`.
    pub(crate) fn open(home: &Path) -> Result<Registry> {
        let ballast = Ballast::of(home);
        let opened = match Registry::open_once(home) {
            // It cannot even be read without room on the disk.
            Err(error) if is_full(&error) && ballast.give_up() => Registry::open_once(home),
            opened => opened,
        };
        ballast.keep();
        opened
    }

    fn open_once(home: &Path) -> Result<Registry> {
        let failed = |error| failed_in(home, error);
        let connection = Connection::open(home.join(FILE)).map_err(failed)?;
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
    pub(crate) fn keep_ballast(&self) {
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
        let taken = |error: Error| match error.message().contains("sessions.name") {
            true => session_taken(&names.collect::<Vec<_>>().join(", ")),
            false => error,
        };
        self.change(|transaction| {
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
            if let Some((session, head)) = head_of {
                set_head(transaction, session, head)?;
            }
            Ok(())
        })
        .map_err(taken)
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
        self.change_in_need(|transaction| {
            transaction.execute("DELETE FROM sessions WHERE id = ?1", [id])?;
            forget_layers(transaction)
        })
    }

    /// # Errors
    /// `AlreadyExists`.
    pub(crate) fn rename_session(&mut self, id: &str, name: &str) -> Result<()> {
        let taken = |error: Error| match error.message().contains("sessions.name") {
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
        let taken = |error: Error| match error.message().contains("checkpoints.session") {
            true => checkpoint_taken(&session.name, &checkpoint.name),
            false => error,
        };
        self.change(|transaction| {
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
            if let Some(head) = head {
                set_head(transaction, &session.id, head)?;
            }
            set_checkpoint(transaction, &session.id, &checkpoint.name)
        })
        .map_err(taken)
    }

    /// Gives a session a new head that begins with a checkpoint: the last of these layers.
    pub(crate) fn restore(
        &mut self,
        session: &SessionRow,
        checkpoint: &str,
        layers: &[LayerRow],
    ) -> Result<()> {
        self.change(|transaction| {
            insert_layers(transaction, layers, session.isolation)?;
            if let Some(head) = layers.last() {
                set_head(transaction, &session.id, &head.id)?;
            }
            set_checkpoint(transaction, &session.id, checkpoint)?;
            forget_layers(transaction)
        })
    }

    /// Gives a session a head that goes on where the old one, now its parent, ends.
    pub(crate) fn set_session_head(
        &mut self,
        session: &SessionRow,
        layers: &[LayerRow],
        head: &str,
    ) -> Result<()> {
        self.change(|transaction| {
            insert_layers(transaction, layers, session.isolation)?;
            set_head(transaction, &session.id, head)
        })
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
        self.change_in_need(|transaction| {
            let parent: Option<Option<String>> = transaction
                .query_row(
                    "SELECT parent FROM checkpoints WHERE session = ?1 AND name = ?2",
                    [session, name],
                    |row| row.get(0),
                )
                .optional()?;
            let Some(parent) = parent else {
                return Ok(());
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
            forget_layers(transaction)
        })
    }

    /// The layer and all beneath it, the lowest first.
    pub(crate) fn chain(&self, id: &str) -> Result<Vec<String>> {
        let mut statement = self
            .connection
            .prepare_cached(
                "WITH RECURSIVE chain (id, parent, depth) AS (
                     SELECT id, parent, 0 FROM layers WHERE id = ?1
                     UNION ALL SELECT layers.id, layers.parent, depth + 1
                         FROM chain JOIN layers ON layers.id = chain.parent
                 ) SELECT id, parent FROM chain ORDER BY depth DESC",
            )
            .map_err(failed)?;
        let rows = statement
            .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(failed)?;
        let chain: Vec<(String, Option<String>)> =
            rows.collect::<rusqlite::Result<_>>().map_err(failed)?;
        let missing = match chain.first() {
            Some((_, parent)) => parent.as_deref(),
            None => Some(id),
        };
        match missing {
            Some(missing) => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the list of sessions in Blink's home is damaged: it does not know the layer {missing}; remove \
                     the session, or bring the home back from a copy"
                ),
            )),
            None => Ok(chain.into_iter().map(|(id, _)| id).collect()),
        }
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

    /// Forgets the layers that nothing needs, as changes do that free some.
    pub(crate) fn forget_layers(&mut self) -> Result<()> {
        self.change_in_need(forget_layers)
    }
}

fn insert_layers(
    transaction: &Transaction<'_>,
    layers: &[LayerRow],
    isolation: Isolation,
) -> rusqlite::Result<()> {
    let mut statement = transaction
        .prepare_cached("INSERT INTO layers (id, parent, isolation) VALUES (?1, ?2, ?3)")?;
    for layer in layers {
        statement.execute(params![layer.id, layer.parent, isolation.name()])?;
    }
    Ok(())
}

/// What a process makes meanwhile is not written down, and what it makes that of is needed.
fn forget_layers(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("PRAGMA defer_foreign_keys = ON")?
        .execute([])?;
    let mut statement = transaction.prepare_cached(
        "WITH RECURSIVE needed (id) AS (
             SELECT head FROM sessions UNION SELECT layer FROM checkpoints
             UNION SELECT layers.parent FROM layers JOIN needed ON layers.id = needed.id
                 WHERE layers.parent IS NOT NULL
         ) DELETE FROM layers WHERE id NOT IN (SELECT id FROM needed)",
    )?;
    statement.execute([]).map(drop)
}

/// Has the database keep a log beside it, so that who reads does not wait for who writes.
///
/// Of several that do this to a new database at once, SQLite refuses all but one without any wait: each holds what the
/// others wait for.
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

fn set_head(transaction: &Transaction<'_>, session: &str, head: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE sessions SET head = ?2 WHERE id = ?1")?
        .execute([session, head])
        .map(drop)
}

fn set_checkpoint(
    transaction: &Transaction<'_>,
    session: &str,
    checkpoint: &str,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE sessions SET checkpoint = ?2 WHERE id = ?1")?
        .execute([session, checkpoint])
        .map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn many_that_open_a_new_one_at_once_all_get_it() {
        const MANY: usize = 8;
        for _ in 0..20 {
            let home = tempfile::tempdir().expect("a folder");
            let start = Barrier::new(MANY);
            std::thread::scope(|scope| {
                for _ in 0..MANY {
                    scope.spawn(|| {
                        start.wait();
                        // The last that closes it removes its log, while another opens it again.
                        for _ in 0..5 {
                            let registry = Registry::open(home.path()).expect("a registry");
                            registry.session("one").expect("a list");
                        }
                    });
                }
            });
        }
    }
}
