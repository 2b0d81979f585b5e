//! The slow, bounded work: expiry, tombstones, old idempotency keys, the disk budget, statistics.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_api_spec::{EntryName, Outcome, Version, name::partition_of};
use cairn_replication::Role;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::{entry::now_millis, error::NodeError, store::Store};

const INTERVAL: Duration = Duration::from_millis(500);
/// Keys expired, or values dropped, at a time.
const BATCH: u32 = 256;
/// Rounds in which every partition's old idempotency keys are forgotten.
const KEY_ROUNDS: u32 = 20;
/// Tombstones looked at in one round.
const TOMBSTONES: u32 = 2_000;
/// Keys expired at the same time.
const CONCURRENCY: usize = 64;
/// Batches in one round, so that no kind of work starves the others.
const ROUND: usize = 40;
/// What a row takes beside its value, roughly.
const ROW_BYTES: u64 = 128;
/// Statistics read every row: they may take this share of the time.
const TOTALS_SHARE: u32 = 30;

/// Sweeps until `stop`.
pub async fn run(store: Store, stop: CancellationToken) {
    store.metrics.disk_max.set(store.settings.disk_max_bytes.cast_signed());
    let mut clock = Clock::default();
    let mut totals_due = Instant::now();
    loop {
        if let Err(error) = round(&store, &mut clock, &mut totals_due).await {
            tracing::warn!(%error, "the sweeper met an error and goes on");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn round(store: &Store, clock: &mut Clock, totals_due: &mut Instant) -> Result<(), NodeError> {
    store.metrics.refresh(&store.partitions);
    for _ in 0..ROUND {
        if !expire_some(store).await? {
            break;
        }
    }
    collect_tombstones(store, &mut clock.tombstones).await?;
    clock.forget_keys(store).await?;
    for _ in 0..ROUND {
        let used = store.disk.used_bytes().await?;
        store.metrics.disk_used.set(used.cast_signed());
        let excess = used.saturating_sub(store.settings.disk_max_bytes);
        store.over_budget.store(excess > 0, Ordering::Relaxed);
        if excess == 0 || !clock.drop_some(store, excess).await? {
            break;
        }
    }
    let start = Instant::now();
    if start >= *totals_due {
        store.metrics.set_totals(&store.disk.totals(&store.served()).await?);
        *totals_due = start + start.elapsed() * TOTALS_SHARE;
    }
    Ok(())
}

/// Turns keys whose time has come into deletions. Returns whether there may be more.
async fn expire_some(store: &Store) -> Result<bool, NodeError> {
    let expired = store.disk.expired(now_millis(), BATCH).await?;
    let all = expired.len() == BATCH as usize;
    let progress = delete(store, expired).await?;
    store.metrics.expirations.inc_by(progress);
    Ok(progress > 0 && all)
}

/// Removes tombstones that no copy needs any more: every in-sync replica has them, the object is gone, and nobody is
/// being brought up to date, who could still be sent what was deleted.
async fn collect_tombstones(store: &Store, hand: &mut i64) -> Result<(), NodeError> {
    let found = store.disk.tombstones_from(*hand, TOMBSTONES).await?;
    *hand = found.last().filter(|_| found.len() == TOMBSTONES as usize).map_or(0, |(id, ..)| *id);
    let settled = |partition: u32, version: Version| {
        let locked = store.partitions.lock(partition);
        let holds = matches!(locked.replica.role(), Role::Serving | Role::Replica);
        holds && locked.replica.entry().learners.is_empty() && version <= locked.replica.stable()
    };
    let known = found.into_iter().filter(|(_, partition, _)| *partition < store.partitions.count());
    let rows: Vec<_> =
        known.filter(|(_, partition, version)| settled(*partition, *version)).map(|(id, _, v)| (id, v)).collect();
    if !rows.is_empty() {
        store.disk.remove_rows(rows).await?;
    }
    Ok(())
}

/// Finds what to drop when the disk is over its budget: a clock, whose hand passes over the rows and spares those that
/// memory holds, since those were used lately. That is the second-chance approximation of LRU (Corbató 1968); exact
/// order would cost a disk write for every read.
#[derive(Default)]
struct Clock {
    hand: i64,
    /// The same for tombstones.
    tombstones: i64,
    /// The next partition whose old idempotency keys are forgotten.
    keys: u32,
}

impl Clock {
    async fn forget_keys(&mut self, store: &Store) -> Result<(), NodeError> {
        let count = store.partitions.count();
        for _ in 0..count.div_ceil(KEY_ROUNDS) {
            while store.disk.forget_keys(self.keys).await? {}
            self.keys = (self.keys + 1) % count;
        }
        Ok(())
    }

    /// Drops values of about `excess` bytes, or a batch of them. Returns whether any could be.
    async fn drop_some(&mut self, store: &Store, excess: u64) -> Result<bool, NodeError> {
        // The first lap spares what is in memory, the second does not.
        for spare in [true, false] {
            let mut laps = 0;
            while laps < 2 {
                let uploaded_only = store.objects.is_some();
                let rows = store.disk.values_from(self.hand, uploaded_only, BATCH).await?;
                if rows.is_empty() {
                    self.hand = 0;
                    laps += 1;
                    continue;
                }
                // A whole batch of large values could be all that there is.
                let mut freed = 0;
                let mut chosen = Vec::new();
                for (id, name, version, size) in rows {
                    if freed >= excess {
                        break;
                    }
                    self.hand = id;
                    if !spare || !store.partitions.memory.contains(&name) {
                        freed += size + ROW_BYTES;
                        chosen.push((id, name, version));
                    }
                }
                let dropped = if uploaded_only {
                    let rows = chosen.into_iter().map(|(id, _, version)| (id, version)).collect();
                    let dropped = store.disk.offload(rows).await?;
                    store.metrics.offloads.inc_by(dropped);
                    dropped
                } else {
                    evict(store, chosen).await?
                };
                if dropped > 0 {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Deletes keys, on every copy, of those partitions that this node is the primary of. Returns how many.
async fn evict(store: &Store, rows: Vec<(i64, Bytes, Version)>) -> Result<u64, NodeError> {
    let count = store.partitions.count();
    let rows = rows.into_iter().map(|(_, name, version)| (partition_of(&name, count), name, version));
    let evicted = delete(store, rows.collect()).await?;
    store.metrics.evictions.inc_by(evicted);
    // The next look must see what became free, and what is left of small keys is as large as they were.
    collect_tombstones(store, &mut 0).await?;
    Ok(evicted)
}

/// Deletes keys of those partitions that this node is the primary of, unless they have changed. Returns how many, once
/// the disk has it.
async fn delete(store: &Store, rows: Vec<(u32, Bytes, Version)>) -> Result<u64, NodeError> {
    // Together, so that they share the disk's statements.
    let outcomes: Vec<_> = stream::iter(rows)
        .filter(|(partition, ..)| std::future::ready(store.partitions.serving_epoch(*partition) > 0))
        .map(|(partition, name, version)| async move {
            let name = EntryName::from_bytes(name).map_err(|_| NodeError::Corrupt)?;
            store.drop_key(partition, name, version).await
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await?;
    store.disk.barrier().await?;
    Ok(outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Deleted(_))).count() as u64)
}
