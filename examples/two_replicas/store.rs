//! The database: one SQLite file in a directory that is gone when the example ends.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

/// Removes its directory when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> io::Result<Self> {
        let name = format!("afterwrite-two-replicas-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.join("rows.db")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies in the system's temporary directory, and goes with it.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// One connection to the rows.
#[derive(Debug)]
pub(crate) struct Rows {
    connection: Connection,
}

impl Rows {
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(Self { connection })
    }

    /// Makes the table, with this many rows of version 1.
    pub(crate) fn create(&mut self, keys: usize) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        transaction.execute_batch(
            "create table rows (id integer primary key, version integer not null)",
        )?;
        for key in 0..keys {
            let mut insert =
                transaction.prepare_cached("insert into rows (id, version) values (?1, 1)")?;
            insert.execute([key as i64])?;
        }
        transaction.commit()
    }

    /// Commits the row's next version, and says which it is.
    pub(crate) fn write(&mut self, key: usize) -> rusqlite::Result<usize> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = transaction
            .prepare_cached(
                "update rows set version = version + 1 where id = ?1 returning version",
            )?
            .query_row([key as i64], |row| row.get(0))?;
        transaction.commit()?;
        Ok(version as usize)
    }

    pub(crate) fn version(&self, key: usize) -> rusqlite::Result<Option<usize>> {
        self.connection
            .prepare_cached("select version from rows where id = ?1")?
            .query_row([key as i64], |row| row.get::<_, i64>(0))
            .optional()
            .map(|version| version.map(|version| version as usize))
    }
}
