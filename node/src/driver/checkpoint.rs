//! Checkpoints of the partitions that this node serves.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_api_spec::Version;
use cairn_object_tier::{
    CheckpointName, Place, Record, SegmentName, ValueName,
    checkpoint::{Head, Writer},
    rules::{
        checkpoint::{self as rule, Since, may_publish},
        collect::{Basis, may_be_basis},
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
        disk::Mark,
        object::{Checkpoint, ObjectStore},
    },
};

/// How often partitions are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Checkpoints made in one round.
const ROUND: usize = 8;
/// Rows read at a time.
const PAGE_ROWS: usize = 4_096;
/// Pages of a checkpoint read at the same time.
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
    // Everything committed is on the disk after this, and what waits is marked so; but what the disk has refused.
    driver.disk.barrier().await?;
    if !driver.partitions.lock(partition).replica().has_stored(committed) {
        return Ok(());
    }
    let waiting = driver.disk.oldest_waiting(partition).await?;
    let Some(watermark) = rule::watermark(lead.epoch, committed, waiting) else { return Ok(()) };
    let head = Head { partition, watermark, epoch: lead.epoch, covers };
    let gathered = gather(driver, head).await?;
    if !is_committed(driver, partition, lead, gathered.newest_seen).await {
        return Ok(());
    }
    let basis = publish(driver, objects, gathered).await?;
    let others = objects.checkpoints(partition).await?;
    if !counts(lead, driver.lead_of(partition)) {
        return Ok(());
    }
    driver.know(partition, |known| {
        known.changed -= changed.min(known.changed);
        known.listed = Some((basis.rows, Instant::now()));
        known.basis = basis.standing.among(&others);
    });
    remove_former(driver, objects, partition, others).await
}

/// A checkpoint that is not stored yet.
pub(super) struct Gathered {
    head: Head,
    writer: Writer,
    segments: Vec<Arc<SegmentName>>,
    values: Vec<Arc<ValueName>>,
    versioned: HashSet<String>,
    newest_seen: Version,
}

/// A checkpoint that is.
pub(super) struct Published {
    standing: Standing,
    pub(super) rows: u64,
}

impl Standing {
    /// It, if releases may be based on it while these others are in the bucket.
    fn among<'a>(self, others: impl IntoIterator<Item = &'a CheckpointName>) -> Option<Arc<Self>> {
        may_be_basis(&self.basis.name, others).then(|| Arc::new(self))
    }
}

pub(super) async fn gather(driver: &Driver, head: Head) -> Result<Gathered, NodeError> {
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

pub(super) async fn publish(
    driver: &Driver,
    objects: &ObjectStore,
    gathered: Gathered,
) -> Result<Published, NodeError> {
    let Head { partition, watermark, epoch, covers } = gathered.head;
    let name = CheckpointName { partition, watermark, epoch, origin: driver.origin(driver.uploads.next()) };
    let rows = gathered.writer.rows();
    objects.put_checkpoint(&name, gathered.writer.finish().map_err(malformed)?).await?;
    driver.metrics.bucket.checkpoints.inc();
    let (segments, values) = (gathered.segments.into_iter().collect(), gathered.values.into_iter().collect());
    let standing = Standing { basis: Basis { name, covers, segments, values }, versioned: gathered.versioned };
    Ok(Published { standing, rows })
}

/// Removes those checkpoints of a partition that its newest one has replaced.
async fn remove_former(
    driver: &Driver,
    objects: &ObjectStore,
    partition: u32,
    others: Vec<CheckpointName>,
) -> Result<(), NodeError> {
    let Some(standing) = driver.basis(partition) else { return Ok(()) };
    for name in others {
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

    /// Takes note that a partition was restored under `epoch`, from the checkpoint `found`, and of the one that was made of
    /// it: its places need not be taken over.
    pub(super) fn restored(
        &self,
        partition: u32,
        epoch: u64,
        found: Option<&CheckpointName>,
        checkpoint: Option<Published>,
    ) {
        let listed = checkpoint.as_ref().map(|checkpoint| (checkpoint.rows, Instant::now()));
        let basis = checkpoint.and_then(|checkpoint| checkpoint.standing.among(found));
        self.know(partition, |known| *known = Known { reconciled: epoch, changed: 0, listed, basis });
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
}

pub(super) fn pages_of<'a>(
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
