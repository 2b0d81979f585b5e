//! Uploads: what waits on the disk is packed into segments, those of all partitions that this node serves together.
//!
//! The mark that a row waits is set by the statement that writes it, so no crash can lose an upload; everything here may
//! be done twice. When a segment is cut, which rows may be packed and which then count as uploaded is decided by
//! [`cairn_object_tier::rules`].

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_api_spec::{
    Version,
    backoff::Backoff,
    peer::{self, Uploaded},
};
use cairn_object_tier::{
    FormatError, Origin, Place, Record, SegmentName, ValueName,
    rules::upload::{Lead, Waiting, counts, linger, may_gather},
    segment::{Builder, Built, MAX_PACKED_BYTES, Placed},
};
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::Driver;
use crate::{
    clock,
    error::NodeError,
    tiers::{
        disk::{self, Mark, Row},
        object::ObjectStore,
    },
};

/// Rows of one segment at most, and rows read at the same time: few, since their values may be large.
const MAX_ROWS: u32 = 8_192;
pub(super) const LOADS: usize = 8;
/// How often what waits is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often what waits is counted, and how many times as long as that takes is the pause at least.
const COUNT_INTERVAL: Duration = Duration::from_millis(250);
const COUNT_SHARE: u32 = 30;
/// Pauses after failures.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
/// Bytes of values that are stored by themselves, with one segment; and how many of them may fail.
const MAX_APART_BYTES: usize = 64 << 20;
const MAX_APART_FAILED: u32 = 2;
/// Which life of the cluster the objects belong to.
const TERM: u64 = 1;

/// Rows on their way into a segment.
pub(super) struct Gathered {
    pub(super) builder: Builder,
    pub(super) leads: HashMap<u32, Lead>,
    /// Rows whose values do not match their checksums, here and elsewhere.
    pub(super) rotten: Vec<(Bytes, Version)>,
    /// What was stored by itself for it, and how many values could not be.
    apart_bytes: usize,
    apart_failed: u32,
}

impl Gathered {
    pub(super) fn new(name: SegmentName, leads: HashMap<u32, Lead>) -> Self {
        Self { builder: Builder::new(name), leads, rotten: Vec::new(), apart_bytes: 0, apart_failed: 0 }
    }
}

/// Uploads until `stop`, which breaks off what is under way: it is done again after the next start.
pub async fn run(driver: &Driver, stop: CancellationToken) {
    if let Some(objects) = &driver.objects {
        stop.run_until_cancelled(async { tokio::join!(upload_all(driver, objects), count_all(driver)) }).await;
    }
}

async fn upload_all(driver: &Driver, objects: &ObjectStore) {
    let mut backoff = BACKOFF;
    loop {
        let pause = match look(driver, objects).await {
            Ok(pause) => {
                backoff.reset();
                pause.min(LOOK_INTERVAL)
            }
            Err(error) => {
                driver.metrics.object_errors.inc();
                let pause = backoff.pause(rand::random());
                tracing::warn!(%error, retry_in = ?pause, "uploads to the object store wait");
                tokio::time::sleep(pause).await;
                continue;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = driver.uploads.hurry.notified() => {}
        }
    }
}

fn age(at: u64) -> Duration {
    Duration::from_millis(clock::wall().saturating_sub(at))
}

/// Counts what waits, also while the object store does not answer.
async fn count_all(driver: &Driver) {
    loop {
        let began = Instant::now();
        match driver.disk.backlog(&driver.partitions.served()).await {
            Ok((pending, oldest)) => {
                driver.metrics.uploads_pending.set(pending.cast_signed());
                driver.metrics.upload_age.set(oldest.map_or(0.0, |at| age(at).as_secs_f64()));
            }
            Err(error) => tracing::warn!(%error, "the uploads that wait cannot be counted"),
        }
        tokio::time::sleep(COUNT_INTERVAL.max(began.elapsed() * COUNT_SHARE)).await;
    }
}

/// Cuts a segment, if it is time to. Returns when to look again.
async fn look(driver: &Driver, objects: &ObjectStore) -> Result<Duration, NodeError> {
    let served = driver.partitions.served();
    let found = driver.disk.waiting(&served).await?;
    let waiting = Waiting {
        bytes: usize::try_from(found.bytes).unwrap_or(usize::MAX),
        oldest: found.oldest.map(age),
        awaited: driver.uploads.awaited_since(),
    };
    match linger(&waiting, driver.settings.upload_linger) {
        None => Ok(LOOK_INTERVAL),
        Some(Duration::ZERO) => {
            driver.uploads.cut();
            let uploaded = upload_segment(driver, objects, &served).await?;
            Ok(if uploaded > 0 { Duration::ZERO } else { LOOK_INTERVAL })
        }
        Some(pause) => Ok(pause),
    }
}

/// Uploads the oldest rows. Returns how many count.
async fn upload_segment(driver: &Driver, objects: &ObjectStore, served: &[u32]) -> Result<usize, NodeError> {
    let under_way = driver.uploads.begin();
    let gathered = gather(driver, objects, served, SegmentName(driver.origin(under_way.1))).await?;
    if !gathered.rotten.is_empty() {
        driver.metrics.corrupt_rows.inc_by(gathered.rotten.len() as u64);
        tracing::error!(rows = gathered.rotten.len(), "rows that do not match their checksums are not uploaded");
        driver.disk.set_aside(gathered.rotten).await?;
    }
    Ok(store(driver, objects, gathered.builder, &gathered.leads).await?.rows)
}

/// What has become of a segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// Rows that count.
    pub(super) rows: usize,
    /// Bytes that were stored.
    pub(super) bytes: u64,
}

/// Stores a segment, unless nothing is in it, and makes it count.
pub(super) async fn store(
    driver: &Driver,
    objects: &ObjectStore,
    builder: Builder,
    leads: &HashMap<u32, Lead>,
) -> Result<Done, NodeError> {
    if builder.is_empty() {
        return Ok(Done::default());
    }
    let built = builder.finish().map_err(malformed)?;
    let bytes = built.bytes.len() as u64;
    objects.put_segment(&built).await?;
    driver.metrics.bucket.segments.inc();
    driver.metrics.bucket.segment_bytes.inc_by(bytes);
    Ok(Done { rows: count(driver, built, leads).await?, bytes })
}

async fn gather(
    driver: &Driver,
    objects: &ObjectStore,
    served: &[u32],
    name: SegmentName,
) -> Result<Gathered, NodeError> {
    let leads = served.iter().filter_map(|partition| Some((*partition, driver.lead_of(*partition)?))).collect();
    let mut gathered = Gathered::new(name, leads);
    let names = driver.disk.dirty(served, MAX_ROWS).await?;
    let mut rows = stream::iter(names).map(|name| driver.disk.load(name, true)).buffered(LOADS);
    while !gathered.builder.is_full()
        && gathered.apart_bytes < MAX_APART_BYTES
        && let Some(row) = rows.next().await
    {
        if let Some(row) = row?.filter(|row| row.dirty) {
            pack(driver, objects, &mut gathered, row).await?;
        }
    }
    Ok(gathered)
}

/// Adds a row, unless it is not committed or not this node's to upload.
pub(super) async fn pack(
    driver: &Driver,
    objects: &ObjectStore,
    gathered: &mut Gathered,
    mut row: Row,
) -> Result<(), NodeError> {
    let (partition, version) = (row.partition, row.metadata.version);
    let lead = gathered.leads.get(&partition).copied();
    // What is not committed may never be.
    let committed = driver.partitions.lock(partition).replica().committed();
    let Some(lead) = lead.filter(|_| may_gather(lead, version, committed)) else { return Ok(()) };
    let mut record = record(&row);
    let Some(value) = sound_value(driver, &mut row, &record).await else {
        gathered.rotten.push((row.name, version));
        return Ok(());
    };
    let value = match value {
        Some(value) if value.len() > MAX_PACKED_BYTES => {
            if gathered.apart_failed >= MAX_APART_FAILED || driver.uploads.rests(&row.name) {
                return Ok(());
            }
            gathered.apart_bytes += value.len();
            let origin = driver.origin(driver.uploads.next());
            let name = ValueName { partition, epoch: lead.epoch, version, origin };
            if let Err(error) = objects.put_value(&name, value).await {
                tracing::warn!(partition, %error, "a large value is not uploaded now");
                gathered.apart_failed += 1;
                driver.uploads.rest(row.name);
                return Ok(());
            }
            record.place = Some(Place::Object(name.into()));
            None
        }
        other => other,
    };
    gathered.builder.push(partition, lead.epoch, record, value.as_deref()).map_err(malformed)
}

/// A row's value, mended from another copy where it is not what was written; `Some(None)` for a deletion. `None` when there
/// is no such value: nothing else is uploaded in its place.
async fn sound_value(driver: &Driver, row: &mut Row, record: &Record) -> Option<Option<Bytes>> {
    if row.tombstone {
        return Some(None);
    }
    match row.value.take() {
        Some(value) if record.check_value(&value).is_ok() => Some(Some(value)),
        _ => driver.heal(row).await.map(Some),
    }
}

/// Makes count what the bucket has by now, as far as this node still leads as it did: on the disk, for the requests that
/// wait for it, and for the replicas, so that none of them does it again when it becomes the primary.
async fn count(driver: &Driver, built: Built, leads: &HashMap<u32, Lead>) -> Result<usize, NodeError> {
    let counting: BTreeSet<u32> = leads
        .iter()
        .filter(|(partition, lead)| counts(**lead, driver.lead_of(**partition)))
        .map(|(partition, _)| *partition)
        .collect();
    let rows: Vec<Placed> = built.rows.into_iter().filter(|row| counting.contains(&row.partition)).collect();
    let mark = |Placed { record, .. }: &Placed| Mark {
        name: record.name.clone(),
        version: record.version,
        place: record.place.clone(),
    };
    driver.disk.mark_uploaded(rows.iter().map(mark).collect()).await?;
    for Placed { partition, record } in &rows {
        driver.changed(*partition);
        let epoch = leads.get(partition).map_or(0, |lead| lead.epoch);
        tell(driver, *partition, epoch, record);
    }
    Ok(rows.len())
}

fn tell(driver: &Driver, partition: u32, epoch: u64, record: &Record) {
    let others = driver.drive(partition, |engine, step| {
        engine.uploaded(&record.name, record.version, step);
        let entry = engine.replica().entry();
        entry.in_sync.iter().chain(&entry.learners).cloned().collect::<Vec<_>>()
    });
    for member in others.iter().filter(|member| **member != driver.me) {
        let place: Option<peer::Place> = record.place.as_ref().and_then(disk::to_peer);
        let uploaded = Uploaded {
            name: record.name.clone(),
            version: record.version.0,
            place,
            epoch,
            primary_session: driver.me.session,
            session: member.session,
        };
        driver.network.tell(&member.node, uploaded);
    }
}

/// A row as it stands in a segment or a checkpoint.
pub(super) fn record(row: &Row) -> Record {
    Record {
        name: row.name.clone(),
        version: row.metadata.version,
        modified_at: row.metadata.modified_at,
        expires_at: row.metadata.expires_at,
        content_type: row.metadata.content_type.clone(),
        size: row.metadata.size,
        checksum: row.checksum,
        place: row.place.clone(),
    }
}

pub(super) fn malformed(error: FormatError) -> NodeError {
    cairn_engine::TierError::ObjectStore(error.to_string()).into()
}

impl Driver {
    /// What this node is to a partition that it leads.
    pub fn lead_of(&self, partition: u32) -> Option<Lead> {
        let epoch = self.partitions.serving_epoch(partition);
        (epoch > 0).then(|| Lead { epoch, leased: self.partitions.has_lease(partition) })
    }

    pub(super) fn origin(&self, seq: u64) -> Origin {
        Origin { term: TERM, node: (&*self.me.node).into(), session: self.me.session, seq }
    }
}
