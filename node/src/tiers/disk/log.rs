//! Keeps SQLite's write-ahead log short.
//!
//! SQLite copies the log into the file by itself, but it begins the log anew only when nobody is reading, and here somebody
//! may always be: then the log grows without end, and each read takes longer for it. So the writer, when the log is long,
//! waits for a moment for those who read: whoever begins meanwhile reads the file alone.

use std::{path::PathBuf, time::Duration};

use sqlx::{SqliteConnection, sqlite::SqliteConnectOptions};

use super::ACQUIRE_TIMEOUT;

/// The log is emptied when it is longer: four times as long as what SQLite copies at once.
const MAX_BYTES: u64 = 64 << 20;
/// How long readers are waited for, and how much longer the log gets before they are once more: whoever reads for long
/// slows the writer down, but does not stop it.
const PATIENCE: Duration = Duration::from_millis(500);
const STEP: u64 = 16 << 20;

/// See the module.
pub(super) struct Log {
    path: PathBuf,
    /// Up to this length the log is left alone.
    bound: u64,
}

impl Log {
    /// The log of a database.
    pub(super) fn of(options: &SqliteConnectOptions) -> Self {
        let mut path = options.get_filename().as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), bound: MAX_BYTES }
    }

    /// Empties the log if it is too long, and readers let it happen. Commits wait meanwhile.
    pub(super) async fn keep_short(&mut self, connection: &mut SqliteConnection) {
        if self.length() <= self.bound {
            return;
        }
        if let Err(error) = empty(connection).await {
            // Nothing depends on it. What is wrong with the disk, the next commit will find.
            tracing::warn!(%error, "the write-ahead log cannot be emptied");
        }
        let length = self.length();
        self.bound = if length <= MAX_BYTES { MAX_BYTES } else { length + STEP };
    }

    fn length(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }
}

async fn empty(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let patience = |wait: Duration| format!("PRAGMA busy_timeout = {}", wait.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(patience(PATIENCE))).execute(&mut *connection).await?;
    let emptied = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *connection).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(patience(ACQUIRE_TIMEOUT))).execute(&mut *connection).await?;
    emptied.map(|_| ())
}
