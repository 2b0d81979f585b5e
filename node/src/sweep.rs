//! The slow, bounded work: expiry, tombstones, the disk budget, statistics.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use cairn_api_spec::{EntryName, Outcome};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::{entry::now_millis, error::NodeError, store::Store};

const INTERVAL: Duration = Duration::from_millis(500);
/// Keys expired, or values dropped, at a time.
const BATCH: u32 = 256;
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
    let mut clock = Clock { hand: 0 };
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
    store.disk.collect_tombstones().await?;
    for _ in 0..ROUND {
        let excess = store.disk.used_bytes().await?.saturating_sub(store.settings.disk_max_bytes);
        store.over_budget.store(excess > 0, Ordering::Relaxed);
        if excess == 0 || !clock.drop_some(store, excess).await? {
            break;
        }
    }
    let start = Instant::now();
    if start >= *totals_due {
        store.metrics.set_totals(&store.disk.totals().await?);
        *totals_due = start + start.elapsed() * TOTALS_SHARE;
    }
    Ok(())
}

/// Turns keys whose time has come into deletions. Returns whether there may be more.
async fn expire_some(store: &Store) -> Result<bool, NodeError> {
    let expired = store.disk.expired(now_millis(), BATCH).await?;
    let all = expired.len() == BATCH as usize;
    // Together, so that they share the disk's statements.
    let outcomes: Vec<_> = stream::iter(expired)
        .filter(|(partition, ..)| std::future::ready(store.partitions.serving_epoch(*partition) > 0))
        .map(|(partition, name, version)| async move {
            let name = EntryName::from_bytes(name).map_err(|_| NodeError::Corrupt)?;
            store.expire(partition, name, version).await
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await?;
    let progress = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Deleted(_))).count();
    store.metrics.expirations.inc_by(progress as u64);
    // The deletions are queued; the next look must see them.
    store.disk.barrier().await?;
    Ok(progress > 0 && all)
}

/// Finds what to drop when the disk is over its budget: a clock, whose hand passes over the rows and spares those that
/// memory holds, since those were used lately. That is the second-chance approximation of LRU (Corbató 1968); exact
/// order would cost a disk write for every read.
struct Clock {
    hand: i64,
}

impl Clock {
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
                let mut ids = Vec::new();
                let mut names = Vec::new();
                for (id, name, version, size) in rows {
                    if freed >= excess {
                        break;
                    }
                    self.hand = id;
                    if !spare || !store.partitions.memory.contains(&name) {
                        freed += size + ROW_BYTES;
                        ids.push((id, version));
                        names.push(name);
                    }
                }
                if ids.is_empty() {
                    continue;
                }
                if uploaded_only {
                    store.metrics.offloads.inc_by(store.disk.offload(ids).await?);
                } else {
                    store.metrics.evictions.inc_by(store.disk.evict(ids).await?);
                    names.iter().for_each(|name| store.partitions.memory.remove(name));
                }
                return Ok(true);
            }
        }
        Ok(false)
    }
}
