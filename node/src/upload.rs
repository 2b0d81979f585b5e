//! Uploads: what the disk marks as dirty goes to the object store, oldest first.
//!
//! The mark is set by the statement that writes the row, so no crash can lose an upload; everything here may be done
//! twice. An object is stored before the one that it supersedes is removed, so the bucket never lacks a key for long
//! enough to be missed by a restore.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_api_spec::Version;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    disk::{IN_DOUBT, Row},
    entry::now_millis,
    error::NodeError,
    object::ObjectStore,
    store::Store,
};

/// Rows looked at together, and requests to the object store under way for them.
const BATCH: u32 = 256;
const CONCURRENCY: usize = 16;
/// How long to rest when there was nothing to do, and after failures, at first and at most.
const IDLE: Duration = Duration::from_millis(100);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// How often what waits is counted while there is much to do.
const COUNT_INTERVAL: Duration = Duration::from_millis(500);

/// Who waits for which upload, and what must be looked at before more is uploaded.
pub struct Uploads {
    /// `None` when nothing is uploaded any more.
    watched: Mutex<Option<HashMap<Bytes, watch::Sender<Version>>>>,
    /// Partitions that another node may have uploaded keys of.
    inherited: Mutex<Vec<u32>>,
}

/// Waits for uploads of one key.
pub struct UploadWatch(watch::Receiver<Version>);

impl Uploads {
    /// Begins to watch a key's uploads.
    pub fn watch(&self, name: &Bytes) -> UploadWatch {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watched) = watched.as_mut() else { return UploadWatch(watch::channel(Version::NONE).1) };
        // Here, since whoever gives up waiting says nothing.
        watched.retain(|_, sender| sender.receiver_count() > 0);
        UploadWatch(watched.entry(name.clone()).or_default().subscribe())
    }

    /// Notes that another primary may have uploaded keys of the partition without this node having heard of it.
    pub fn inherit(&self, partition: u32) {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner).push(partition);
    }

    fn take_inherited(&self) -> Vec<u32> {
        std::mem::take(&mut *self.inherited.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends all waits, for good.
    fn close(&self) {
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn tell(&self, uploaded: &[(Bytes, Version, Version)]) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watched) = watched.as_ref().filter(|watched| !watched.is_empty()) else { return };
        for (name, version, _) in uploaded {
            if let Some(sender) = watched.get(name) {
                sender.send_replace(*version);
            }
        }
    }
}

impl Default for Uploads {
    fn default() -> Self {
        Self { watched: Mutex::new(Some(HashMap::new())), inherited: Mutex::default() }
    }
}

impl UploadWatch {
    /// Waits until the object store knows `version` of the key, or a later one; `false` if it takes too long, or
    /// nothing is uploaded any more.
    pub async fn reaches(mut self, version: Version, timeout: Duration) -> bool {
        matches!(tokio::time::timeout(timeout, self.0.wait_for(|uploaded| *uploaded >= version)).await, Ok(Ok(_)))
    }
}

/// Uploads until `stop`, which breaks off what is under way: it is done again after the next start.
pub async fn run(store: Store, objects: ObjectStore, stop: CancellationToken) {
    stop.run_until_cancelled(upload_all(&store, &objects)).await;
    store.uploads.close();
}

async fn upload_all(store: &Store, objects: &ObjectStore) {
    let mut rest = BACKOFF.0;
    let mut counted: Option<Instant> = None;
    loop {
        // Counting takes the longer the more there is; a busy uploader does it now and then.
        if counted.is_none_or(|at| at.elapsed() > COUNT_INTERVAL) {
            count(store).await;
            counted = Some(Instant::now());
        }
        let pause = match upload_some(store, objects).await {
            Ok(0) => {
                counted = None;
                IDLE
            }
            Ok(_) => {
                rest = BACKOFF.0;
                Duration::ZERO
            }
            Err(error) => {
                tracing::warn!(%error, retry_in = ?rest, "uploads to the object store wait");
                let pause = rest;
                rest = (rest * 2).min(BACKOFF.1);
                pause
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn count(store: &Store) {
    match store.disk.backlog(&store.served()).await {
        Ok((pending, oldest)) => {
            store.metrics.uploads_pending.set(pending.cast_signed());
            let age = oldest.map_or(0, |at| now_millis().saturating_sub(at));
            #[expect(clippy::cast_precision_loss, reason = "a gauge of seconds needs no 53 bits")]
            store.metrics.upload_age.set(age as f64 / 1000.0);
        }
        Err(error) => tracing::warn!(%error, "the uploads that wait cannot be counted"),
    }
}

/// Uploads the oldest rows. Returns how many, or why not all of them.
async fn upload_some(store: &Store, objects: &ObjectStore) -> Result<usize, NodeError> {
    let served = store.served();
    let inherited = store.uploads.take_inherited();
    if !inherited.is_empty()
        && let Err(error) = store.disk.doubt_uploads(inherited.clone()).await
    {
        inherited.into_iter().for_each(|partition| store.uploads.inherit(partition));
        return Err(error);
    }
    let names = store.disk.dirty(&served, BATCH).await?;
    let results: Vec<_> =
        stream::iter(names).map(|name| upload(store, objects, name)).buffer_unordered(CONCURRENCY).collect().await;
    let mut failure = None;
    let mut uploaded = Vec::with_capacity(results.len());
    for result in results {
        match result {
            Ok(done) => uploaded.extend(done),
            Err(error) => failure = Some(error),
        }
    }
    let count = uploaded.len();
    if count > 0 {
        store.disk.mark_uploaded(uploaded.clone()).await?;
        store.uploads.tell(&uploaded);
        store.tell_replicas(&uploaded);
    }
    match failure {
        Some(error) => {
            store.metrics.object_errors.inc();
            Err(error)
        }
        None => Ok(count),
    }
}

/// Brings one key's newest state to the object store: name, version, and the version that the store has now.
async fn upload(
    store: &Store,
    objects: &ObjectStore,
    name: Bytes,
) -> Result<Option<(Bytes, Version, Version)>, NodeError> {
    let Some(row) = store.disk.load(name, true).await?.filter(|row| row.dirty) else { return Ok(None) };
    let Row { metadata, object_version, partition, .. } = &row;
    let version = metadata.version;
    // What is not committed may never be.
    if version > store.partitions.lock(*partition).replica.committed() {
        return Ok(None);
    }
    let has = if row.tombstone {
        Version::NONE
    } else {
        let _timer = store.metrics.object_duration.put.start_timer();
        objects.put(&row).await?;
        version
    };
    if *object_version != Version::NONE && *object_version != has {
        let _timer = store.metrics.object_duration.delete.start_timer();
        if *object_version == IN_DOUBT {
            objects.delete_others(*partition, &row.name, has).await?;
        } else {
            objects.delete(*partition, &row.name, *object_version).await?;
        }
    }
    Ok(Some((row.name.clone(), version, has)))
}
