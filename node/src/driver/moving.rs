//! Moves what is left in segments that are mostly dead, so that they can go.
//!
//! A row that moves does not wait for its upload: it keeps its old place, which checkpoints go on to name, until it
//! counts at the new one. So nothing is lost when a move fails, and nobody need remember it. A node looks at what a
//! segment holds of the partitions that it leads; when their next checkpoints name the segment no more, it is collected
//! as others are.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_object_tier::{
    SegmentName,
    rules::{
        collect::{Share, is_worth_moving, moving_budget, parts},
        upload::Lead,
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::{
    Driver,
    upload::{Gathered, LOADS, pack, store},
    uploads::UnderWay,
};
use crate::{
    error::NodeError,
    tiers::{
        disk::{Packed, Row},
        object::ObjectStore,
    },
};

/// The longest and the shortest time between two looks.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// Segments looked at by one statement.
const PAGE: u32 = 64;

/// Moves until `stop`. What is dead is known once a checkpoint does not name it, so nothing is looked at before the next.
pub async fn run(driver: &Driver, stop: CancellationToken) {
    let Some(objects) = &driver.objects else { return };
    let work = async {
        let mut seen = 0;
        loop {
            tokio::time::sleep((driver.settings.collect_after / 4).clamp(INTERVAL.0, INTERVAL.1)).await;
            let checkpoints = driver.metrics.bucket.checkpoints.get();
            if checkpoints == seen {
                continue;
            }
            match round(driver, objects).await {
                Ok(()) => seen = checkpoints,
                Err(error) => {
                    driver.metrics.object_errors.inc();
                    tracing::warn!(%error, "what is left in segments that are mostly dead stays there");
                }
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Looks at every segment in which this node has rows.
async fn round(driver: &Driver, objects: &ObjectStore) -> Result<(), NodeError> {
    driver.disk.forget_objects().await?;
    let leads = leads(driver);
    let partitions: Vec<u32> = leads.keys().copied().collect();
    let mut moving = Moving { driver, objects, leads, filling: None };
    let mut cursor = 0;
    loop {
        let (segments, next) = driver.disk.live_in_segments(&partitions, cursor, PAGE).await?;
        for (name, live) in segments.into_iter().filter(|(_, live)| *live > 0) {
            if moving.is_worth_it(&name, live).await? {
                moving.segment(&name, &partitions).await?;
            }
        }
        if next == 0 {
            return moving.end_segment().await;
        }
        cursor = next;
    }
}

/// The partitions whose places this node knows to be right: it has made a checkpoint of them in this epoch.
fn leads(driver: &Driver) -> HashMap<u32, Lead> {
    let led = |partition| {
        let lead = driver.lead_of(partition);
        driver.basis(partition)?.basis.leads(lead).then_some((partition, lead?))
    };
    driver.partitions.served().into_iter().filter_map(led).collect()
}

/// A round of moves.
struct Moving<'a> {
    driver: &'a Driver,
    objects: &'a ObjectStore,
    leads: HashMap<u32, Lead>,
    /// The segment that is being filled.
    filling: Option<(UnderWay<'a>, Gathered)>,
}

impl Moving<'_> {
    /// Whether so many live bytes of a segment should move now.
    async fn is_worth_it(&self, name: &Arc<SegmentName>, live: u64) -> Result<bool, NodeError> {
        let Some(directory) = self.objects.directory(name).await? else { return Ok(false) };
        let own = directory.sections().iter().filter(|section| self.leads.contains_key(&section.partition));
        let total = own.map(|section| section.value_bytes).sum();
        let metrics = &self.driver.metrics.bucket;
        let moved = metrics.moved_bytes.get();
        let filling = self.filling.as_ref().map_or(0, |(_, gathered)| gathered.builder.len() as u64);
        let budget = moving_budget(metrics.segment_bytes.get().saturating_sub(moved), moved + filling);
        Ok(is_worth_moving(Share { live, total }) && live <= budget)
    }

    /// Packs the rows of a segment anew.
    async fn segment(&mut self, name: &Arc<SegmentName>, partitions: &[u32]) -> Result<(), NodeError> {
        let packed = self.driver.disk.packed_in(name, partitions).await?;
        let offsets: HashMap<Bytes, Packed> = packed.into_iter().map(|packed| (packed.name.clone(), packed)).collect();
        let rows = self.rows(&offsets).await?;
        for row in self.with_values(name, &offsets, rows).await? {
            if self.filling.as_ref().is_some_and(|(_, gathered)| gathered.builder.is_full()) {
                self.end_segment().await?;
            }
            let (driver, leads) = (self.driver, &self.leads);
            let (_, gathered) = self.filling.get_or_insert_with(|| {
                let under_way = driver.uploads.begin();
                let name = SegmentName(driver.origin(under_way.1));
                (under_way, Gathered::new(name, leads.clone()))
            });
            pack(driver, self.objects, gathered, row).await?;
        }
        Ok(())
    }

    /// The rows as they are now, of those that have not changed.
    async fn rows(&self, packed: &HashMap<Bytes, Packed>) -> Result<Vec<Row>, NodeError> {
        let is_same = |row: &Row| packed.get(&row.name).is_some_and(|known| known.version == row.metadata.version);
        let loads = packed.keys().cloned().map(|name| self.driver.disk.load(name, true));
        let loaded: Vec<Option<Row>> = stream::iter(loads).buffer_unordered(LOADS).try_collect().await?;
        Ok(loaded.into_iter().flatten().filter(|row| !row.dirty && !row.tombstone && is_same(row)).collect())
    }

    /// Fetches the values that only the bucket has. A row without a sound value stays where it is.
    async fn with_values(
        &self,
        name: &SegmentName,
        packed: &HashMap<Bytes, Packed>,
        mut rows: Vec<Row>,
    ) -> Result<Vec<Row>, NodeError> {
        let place = |row: &Row| {
            let start = packed.get(&row.name).map_or(0, |packed| packed.offset);
            start..start.saturating_add(row.metadata.size)
        };
        for part in parts(rows.iter().filter(|row| row.value.is_none()).map(place)) {
            let Some(bytes) = self.objects.segment_part(name, part.clone()).await? else { break };
            for row in rows.iter_mut().filter(|row| row.value.is_none()) {
                let place = place(row);
                if place.start >= part.start && place.end <= part.end {
                    let within = |at: u64| usize::try_from(at - part.start).unwrap_or(usize::MAX).min(bytes.len());
                    row.value = Some(bytes.slice(within(place.start)..within(place.end)));
                }
            }
        }
        rows.retain(|row| row.value.is_some());
        Ok(rows)
    }

    /// Stores what was packed.
    async fn end_segment(&mut self) -> Result<(), NodeError> {
        let Some((_under_way, Gathered { builder, leads, rotten, .. })) = self.filling.take() else { return Ok(()) };
        if !rotten.is_empty() {
            tracing::error!(rows = rotten.len(), "rows that do not match their checksums are not moved");
        }
        let done = store(self.driver, self.objects, builder, &leads).await?;
        self.driver.metrics.bucket.moved_bytes.inc_by(done.bytes);
        Ok(())
    }
}
