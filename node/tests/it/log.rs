//! The write-ahead log of the disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cairn_api_spec::{Version, operation::Metadata};
use cairn_engine::checksum;
use cairn_node::tiers::disk::Row;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::support::TestStore;

const MIB: u64 = 1 << 20;
const BATCH: u64 = 64;
const VALUE: u64 = 32 << 10;
const LOOK: Duration = Duration::from_millis(60);

fn row(number: u64) -> Row {
    let (name, version) = (Bytes::from(format!("default\0key {number}")), Version(number + 1));
    let value = Bytes::from(vec![7; VALUE as usize]);
    let metadata =
        Metadata { version, modified_at: 1, expires_at: None, size: value.len() as u64, content_type: String::new() };
    Row {
        partition: 0,
        metadata,
        checksum: checksum(&name, version, &value),
        tombstone: false,
        dirty: true,
        object_version: Version::NONE,
        place: None,
        value: Some(value),
        name,
    }
}

/// Reads all the time: before one of two connections ends a look, the other has begun the next.
async fn read(file: std::path::PathBuf, begin: Duration, stop: Arc<AtomicBool>) {
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    tokio::time::sleep(begin).await;
    while !stop.load(Ordering::Relaxed) {
        let mut look = connection.begin().await.unwrap();
        sqlx::query("SELECT count(*) FROM entries").execute(&mut *look).await.unwrap();
        tokio::time::sleep(LOOK).await;
        look.rollback().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_stays_short_although_somebody_always_reads() {
    let store = TestStore::open(10).await;
    store.driver.disk.ingest((0..BATCH).map(row).collect()).await.unwrap();
    let (file, stop) = (store.directory.path().join("data.sqlite"), Arc::new(AtomicBool::new(false)));
    let readers = [Duration::ZERO, LOOK / 2].map(|begin| tokio::spawn(read(file.clone(), begin, stop.clone())));
    let log = store.directory.path().join("data.sqlite-wal");
    let (mut longest, mut written) = (0, 0);
    while written < 320 * MIB {
        let first = written / VALUE + BATCH;
        store.driver.disk.ingest((first..first + BATCH).map(row).collect()).await.unwrap();
        written += BATCH * VALUE;
        longest = longest.max(std::fs::metadata(&log).unwrap().len());
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(longest < 192 * MIB, "{} MiB of log after {} MiB of values", longest / MIB, written / MIB);
}
