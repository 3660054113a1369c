//! The two databases: the log that writers append to, and the read view that the projection feeds.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// One committed write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    /// Its place in the log, from 1 without gaps.
    pub(crate) number: u64,
    pub(crate) entity: usize,
    /// Counts the writes of the entity, from 1.
    pub(crate) version: u64,
    /// Since the run began.
    pub(crate) written_at: Duration,
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

/// SQLite stores signed integers; none here comes near 2^63.
fn signed(value: u64) -> i64 {
    value as i64
}

/// The event log: one connection to it.
#[derive(Debug)]
pub(crate) struct Log {
    connection: Connection,
}

impl Log {
    pub(crate) fn create(path: &Path) -> rusqlite::Result<()> {
        open(path)?.execute_batch(
            "create table events (
                 number     integer primary key,
                 entity     integer not null,
                 version    integer not null,
                 written_at integer not null,
                 unique (entity, version)
             )",
        )
    }

    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        Ok(Self {
            connection: open(path)?,
        })
    }

    /// Writes the entity's next version, and commits.
    pub(crate) fn append(
        &mut self,
        entity: usize,
        written_at: Duration,
    ) -> rusqlite::Result<Event> {
        // The lock is taken at once, so numbers become visible in their order.
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (number, version): (i64, i64) = transaction
            .prepare_cached(
                "insert into events (entity, version, written_at)
                 select ?1, coalesce(max(version), 0) + 1, ?2 from events where entity = ?1
                 returning number, version",
            )?
            .query_row(params![entity as i64, nanos(written_at)], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        transaction.commit()?;
        Ok(Event {
            number: number as u64,
            entity,
            version: version as u64,
            written_at,
        })
    }

    /// The events after a number, oldest first, at most so many.
    pub(crate) fn after(&self, number: u64, most: usize) -> rusqlite::Result<Vec<Event>> {
        self.connection
            .prepare_cached(
                "select number, entity, version, written_at from events
                 where number > ?1 order by number limit ?2",
            )?
            .query_map(params![signed(number), most as i64], |row| {
                Ok(Event {
                    number: row.get::<_, i64>(0)? as u64,
                    entity: row.get::<_, i64>(1)? as usize,
                    version: row.get::<_, i64>(2)? as u64,
                    written_at: Duration::from_nanos(row.get::<_, i64>(3)? as u64),
                })
            })?
            .collect()
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The read view, as those who read it see it. Keeps connections for the next reader.
#[derive(Debug)]
pub(crate) struct View {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl View {
    pub(crate) fn create(path: &Path) -> rusqlite::Result<Self> {
        open(path)?.execute_batch(
            "create table entities (
                 entity  integer primary key,
                 version integer not null
             )",
        )?;
        Ok(Self {
            path: path.to_owned(),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// The entity's version that the view shows now; 0 for one that it does not know yet.
    pub(crate) fn version(&self, entity: usize) -> rusqlite::Result<u64> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open(&self.path)?,
        };
        let version: Option<i64> = connection
            .prepare_cached("select version from entities where entity = ?1")?
            .query_row([entity as i64], |row| row.get(0))
            .optional()?;
        self.idle().push(connection);
        Ok(version.unwrap_or(0) as u64)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The projection's own connection.
    pub(crate) fn writer(&self) -> rusqlite::Result<ViewWriter> {
        Ok(ViewWriter {
            connection: open(&self.path)?,
        })
    }
}

/// Feeds the read view.
#[derive(Debug)]
pub(crate) struct ViewWriter {
    connection: Connection,
}

impl ViewWriter {
    /// Applies a batch in one transaction; the view shows it once this has returned.
    pub(crate) fn apply(&mut self, batch: &[Event]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut upsert = transaction.prepare_cached(
                "insert into entities (entity, version) values (?1, ?2)
                 on conflict (entity) do update set version = excluded.version",
            )?;
            for event in batch {
                upsert.execute(params![event.entity as i64, signed(event.version)])?;
            }
        }
        transaction.commit()
    }
}
