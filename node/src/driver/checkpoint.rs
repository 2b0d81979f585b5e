//! Checkpoints of the partitions that this node serves, and restores, which end with one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_api_spec::{Version, operation::Metadata};
use cairn_object_tier::{
    CheckpointName, Place, Record, SegmentName, ValueName,
    checkpoint::{Head, Writer},
    rules::{
        checkpoint::{self as rule, Since, floor, may_publish},
        collect::Basis,
        restore::{Above, is_relevant},
        upload::{Lead, counts},
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::{
    Driver,
    upload::{malformed, record},
};
use crate::{
    error::NodeError,
    tiers::{
        disk::{Mark, Row},
        object::{Checkpoint, ObjectStore},
    },
};

/// How often partitions are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Checkpoints made in one round.
const ROUND: usize = 8;
/// Rows read, or stored, at a time.
const PAGE_ROWS: usize = 4_096;
const INGEST_ROWS: usize = 500;
/// Parts of objects read at the same time for one restore.
const CONCURRENCY: usize = 8;
/// How long what a checkpoint has seen may take to be committed.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
const COMMIT_LOOK: Duration = Duration::from_millis(20);

/// What is known of a partition's checkpoints.
#[derive(Default)]
pub(super) struct Known {
    /// The epoch in which the places of the newest one were taken over.
    reconciled: u64,
    /// Keys changed since the last one.
    changed: u64,
    /// Keys that the last one lists, and when it was seen.
    listed: Option<(u64, Instant)>,
    /// The one that releases are based on.
    basis: Option<Arc<Standing>>,
}

/// A checkpoint that this node knows to be in the bucket, and all that it refers to.
pub struct Standing {
    /// What releases are based on.
    pub basis: Basis,
    /// The names of objects of one version each.
    pub versioned: HashSet<String>,
}

/// What a restore has brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Keys.
    pub keys: u64,
    /// At least the highest version that the bucket knows of.
    pub last: Version,
}

/// Makes checkpoints until `stop`.
pub async fn run(driver: &Driver, stop: CancellationToken) {
    let Some(objects) = &driver.objects else { return };
    let work = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            for partition in due(driver) {
                if let Err(error) = checkpoint(driver, objects, partition).await {
                    driver.metrics.object_errors.inc();
                    tracing::warn!(partition, %error, "a checkpoint of the partition waits");
                }
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

fn due(driver: &Driver) -> Vec<u32> {
    let known = driver.uploads.known.lock().unwrap_or_else(PoisonError::into_inner);
    let is_due = |known: &Known| {
        let (listed, age) = known.listed.map_or((None, Duration::ZERO), |(listed, at)| (Some(listed), at.elapsed()));
        rule::is_due(&Since { listed, changed: known.changed, age })
    };
    let due = known.iter().filter(|(partition, known)| is_due(known) && driver.lead_of(**partition).is_some());
    due.map(|(partition, _)| *partition).take(ROUND).collect()
}

/// Makes a checkpoint of a partition, unless something stands against it just now.
async fn checkpoint(driver: &Driver, objects: &ObjectStore, partition: u32) -> Result<(), NodeError> {
    let Some(lead) = driver.lead_of(partition).filter(|lead| lead.leased) else { return Ok(()) };
    driver.reconcile(objects, partition).await?;
    let (covers, changed) = (driver.uploads.settled_below(), driver.know(partition, |known| known.changed));
    let committed = driver.partitions.lock(partition).replica().committed();
    // Everything committed is on the disk after this, and what waits is marked so.
    driver.disk.barrier().await?;
    let waiting = driver.disk.oldest_waiting(partition).await?;
    let Some(watermark) = rule::watermark(lead.epoch, committed, waiting) else { return Ok(()) };
    let head = Head { partition, watermark, epoch: lead.epoch, covers };
    let gathered = gather(driver, head).await?;
    if !is_committed(driver, partition, lead, gathered.newest_seen).await {
        return Ok(());
    }
    let basis = publish(driver, objects, gathered).await?;
    if !counts(lead, driver.lead_of(partition)) {
        return Ok(());
    }
    driver.know(partition, |known| {
        known.changed -= changed.min(known.changed);
        known.listed = Some((basis.rows, Instant::now()));
        known.basis = Some(Arc::new(basis.standing));
    });
    remove_former(driver, objects, partition).await
}

/// A checkpoint that is not stored yet.
struct Gathered {
    head: Head,
    writer: Writer,
    segments: Vec<Arc<SegmentName>>,
    values: Vec<Arc<ValueName>>,
    versioned: HashSet<String>,
    newest_seen: Version,
}

struct Published {
    standing: Standing,
    rows: u64,
}

async fn gather(driver: &Driver, head: Head) -> Result<Gathered, NodeError> {
    let mut gathered = Gathered {
        head,
        writer: Writer::new(head),
        segments: Vec::new(),
        values: Vec::new(),
        versioned: HashSet::new(),
        newest_seen: Version::NONE,
    };
    let mut cursor = 0;
    loop {
        let (rows, next) = driver.disk.scan_places(head.partition, cursor, PAGE_ROWS).await?;
        for row in rows {
            gathered.newest_seen = gathered.newest_seen.max(row.metadata.version);
            let is_listed = !row.tombstone && !row.dirty && row.metadata.version <= head.watermark;
            let Some(place) = row.place.as_ref().filter(|_| is_listed) else { continue };
            match place {
                Place::Packed { segment, .. } => gathered.segments.push(segment.clone()),
                Place::Object(name) => gathered.values.push(name.clone()),
                Place::Versioned => {
                    gathered.versioned.insert(ObjectStore::versioned_name(&row));
                }
            }
            gathered.writer.push(&record(&row)).map_err(malformed)?;
        }
        gathered.segments.sort_unstable();
        gathered.segments.dedup();
        if next == 0 {
            return Ok(gathered);
        }
        cursor = next;
    }
}

/// Waits, for a while, until everything up to `newest` is committed.
async fn is_committed(driver: &Driver, partition: u32, lead: Lead, newest: Version) -> bool {
    let until = Instant::now() + COMMIT_TIMEOUT;
    while counts(lead, driver.lead_of(partition)) && Instant::now() < until {
        if may_publish(newest, driver.partitions.lock(partition).replica().committed()) {
            return true;
        }
        tokio::time::sleep(COMMIT_LOOK).await;
    }
    false
}

async fn publish(driver: &Driver, objects: &ObjectStore, gathered: Gathered) -> Result<Published, NodeError> {
    let Head { partition, watermark, epoch, covers } = gathered.head;
    let name = CheckpointName { partition, watermark, epoch, origin: driver.origin(driver.uploads.next()) };
    let rows = gathered.writer.rows();
    objects.put_checkpoint(&name, gathered.writer.finish().map_err(malformed)?).await?;
    driver.metrics.bucket.checkpoints.inc();
    let (segments, values) = (gathered.segments.into_iter().collect(), gathered.values.into_iter().collect());
    let standing = Standing { basis: Basis { name, covers, segments, values }, versioned: gathered.versioned };
    Ok(Published { standing, rows })
}

/// Removes the checkpoints of a partition that its newest one has replaced.
async fn remove_former(driver: &Driver, objects: &ObjectStore, partition: u32) -> Result<(), NodeError> {
    let Some(standing) = driver.basis(partition) else { return Ok(()) };
    for name in objects.checkpoints(partition).await? {
        if standing.basis.releases_checkpoint(&name, driver.lead_of(partition)) {
            objects.remove_checkpoint(&name).await?;
        }
    }
    Ok(())
}

impl Driver {
    fn know<R>(&self, partition: u32, work: impl FnOnce(&mut Known) -> R) -> R {
        let mut known = self.uploads.known.lock().unwrap_or_else(PoisonError::into_inner);
        work(known.entry(partition).or_default())
    }

    /// The checkpoint that a partition's releases are based on.
    pub fn basis(&self, partition: u32) -> Option<Arc<Standing>> {
        self.know(partition, |known| known.basis.clone())
    }

    /// Whether this node, as a partition's primary, releases a segment that holds versions of it up to `newest`, gathered
    /// under `epoch`.
    pub fn releases_segment(&self, partition: u32, segment: &SegmentName, epoch: u64, newest: Version) -> bool {
        let lead = self.lead_of(partition);
        self.basis(partition).is_some_and(|known| known.basis.releases_segment(segment, epoch, newest, lead))
    }

    /// The same for a value with an object of its own.
    pub fn releases_value(&self, partition: u32, value: &ValueName) -> bool {
        let lead = self.lead_of(partition);
        self.basis(partition).is_some_and(|known| known.basis.releases_value(value, lead))
    }

    /// Takes note that the bucket has something new of a partition.
    pub(super) fn changed(&self, partition: u32) {
        self.know(partition, |known| known.changed += 1);
    }

    /// Takes over the places of a partition's newest checkpoint, once in each epoch: the former primary may have moved
    /// values without this node having heard of it.
    pub(super) async fn reconcile(&self, objects: &ObjectStore, partition: u32) -> Result<(), NodeError> {
        let Some(lead) = self.lead_of(partition) else { return Ok(()) };
        if self.know(partition, |known| known.reconciled == lead.epoch) {
            return Ok(());
        }
        self.know(partition, |known| (known.basis, known.listed) = (None, None));
        if let Some(checkpoint) = objects.newest_checkpoint(partition).await? {
            self.take_over(objects, partition, &checkpoint).await?;
            let rows = checkpoint.trailer.rows;
            self.know(partition, |known| known.listed = Some((rows, Instant::now())));
        }
        self.know(partition, |known| known.reconciled = lead.epoch);
        Ok(())
    }

    async fn take_over(&self, objects: &ObjectStore, partition: u32, newest: &Checkpoint) -> Result<(), NodeError> {
        let listed: HashMap<Bytes, Record> =
            rows_of(objects, newest).await?.into_iter().map(|record| (record.name.clone(), record)).collect();
        let mut cursor = 0;
        loop {
            let (rows, next) = self.disk.scan_places(partition, cursor, PAGE_ROWS).await?;
            let (mut marks, mut unlisted) = (Vec::new(), Vec::new());
            for row in rows.iter().filter(|row| !row.tombstone && row.metadata.version <= newest.watermark()) {
                let version = row.metadata.version;
                match listed.get(&row.name).filter(|record| record.version == version) {
                    Some(record) if record.place == row.place => {}
                    Some(record) => {
                        marks.push(Mark { name: row.name.clone(), version, place: record.place.clone() });
                    }
                    None if row.place.is_some() => unlisted.push((row.name.clone(), version)),
                    None => {}
                }
            }
            self.disk.mark_uploaded(marks).await?;
            self.disk.mark_waiting(unlisted).await?;
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Brings back a partition of which nothing is here: what its newest checkpoint lists, and above its watermark the
    /// newest of what the segments hold. Then makes a checkpoint of that, for the epoch `epoch`, so that nothing that
    /// arrives later can count.
    ///
    /// # Errors
    /// When the object store does not answer or refuses, when something is missing or damaged there, and when the disk
    /// fails: then it is to be begun again.
    pub async fn restore(&self, partition: u32, epoch: u64) -> Result<Restored, NodeError> {
        let Some(objects) = &self.objects else { return Ok(Restored { keys: 0, last: Version::NONE }) };
        let newest = objects.newest_checkpoint(partition).await?;
        let watermark = newest.as_ref().map_or(Version::NONE, |newest| newest.watermark());
        let mut above = newer(objects, partition, watermark).await?;
        if let Some(newest) = &newest {
            self.restore_listed(objects, partition, newest, &above).await?;
        } else {
            objects.versioned(partition).await?.into_iter().for_each(|record| above.add(record));
        }
        let last = above.last();
        let live: Vec<Record> = above.into_live().collect();
        self.store(partition, live).await?;
        self.disk.barrier().await?;
        let watermark = last.max(floor(epoch));
        let covers = self.uploads.settled_below();
        let gathered = gather(self, Head { partition, watermark, epoch, covers }).await?;
        Ok(Restored { keys: publish(self, objects, gathered).await?.rows, last: watermark })
    }

    async fn restore_listed(
        &self,
        objects: &ObjectStore,
        partition: u32,
        newest: &Checkpoint,
        above: &Above,
    ) -> Result<(), NodeError> {
        let mut pages = pages_of(objects, newest);
        while let Some(page) = pages.try_next().await? {
            self.store(partition, page.into_iter().filter(|record| above.keeps(&record.name)).collect()).await?;
        }
        Ok(())
    }

    async fn store(&self, partition: u32, records: Vec<Record>) -> Result<(), NodeError> {
        let mut rows = records.into_iter().map(|record| row_of(record, partition));
        loop {
            let some: Vec<Row> = rows.by_ref().take(INGEST_ROWS).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.disk.ingest(some).await?;
        }
    }
}

/// What the segments hold of a partition above a watermark.
async fn newer(objects: &ObjectStore, partition: u32, watermark: Version) -> Result<Above, NodeError> {
    let mut above = Above::new(watermark);
    let read = |name: Arc<SegmentName>| async move {
        // One that is gone was released by a checkpoint that is no later than the one that was found.
        let Some(directory) = objects.directory(&name).await? else { return Ok(Vec::new()) };
        match directory.section(partition).filter(|section| is_relevant(watermark, section)) {
            Some(_) => objects.segment_rows(&name, &directory, partition).await,
            None => Ok(Vec::new()),
        }
    };
    let names = objects.segments().await?;
    let mut found = stream::iter(names).map(read).buffer_unordered(CONCURRENCY);
    while let Some(records) = found.try_next().await? {
        let records: Vec<Record> = records;
        records.into_iter().for_each(|record| above.add(record));
    }
    Ok(above)
}

fn pages_of<'a>(
    objects: &'a ObjectStore,
    checkpoint: &'a Checkpoint,
) -> impl futures_util::Stream<Item = Result<Vec<Record>, NodeError>> + Unpin + 'a {
    let gone = || cairn_engine::TierError::ObjectStore("the checkpoint is gone".to_owned());
    let read = move |page| async move {
        objects.checkpoint_page(checkpoint, page).await?.ok_or_else(|| NodeError::from(gone()))
    };
    Box::pin(stream::iter(0..checkpoint.index.pages.len()).map(read).buffered(CONCURRENCY))
}

async fn rows_of(objects: &ObjectStore, checkpoint: &Checkpoint) -> Result<Vec<Record>, NodeError> {
    pages_of(objects, checkpoint).try_concat().await
}

fn row_of(record: Record, partition: u32) -> Row {
    Row {
        name: record.name,
        partition,
        metadata: Metadata {
            version: record.version,
            modified_at: record.modified_at,
            expires_at: record.expires_at,
            size: record.size,
            content_type: record.content_type,
        },
        checksum: record.checksum,
        tombstone: false,
        dirty: false,
        object_version: record.version,
        place: record.place,
        value: None,
    }
}
