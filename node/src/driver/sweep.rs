//! The slow, bounded work: expiry, tombstones, old idempotency keys, the disk budget, statistics.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_api_spec::{EntryName, Outcome, Version, name::partition_of, operation::Removal};
use cairn_engine::TierError;
use cairn_replication::Role;
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::Driver;
use crate::{clock, error::NodeError};

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

/// Sweeps until `stop`. One kind of work that fails does not keep the others from being done.
pub async fn run(driver: &Driver, stop: CancellationToken) {
    driver.metrics.disk_max.set(driver.settings.disk_max_bytes.cast_signed());
    let mut clock = Clock::default();
    let mut totals_due = Instant::now();
    let fate = |what: &str, result: Result<(), NodeError>| {
        if let Err(error) = result {
            tracing::warn!(%error, "{what} is left for the next round");
        }
    };
    let rounds = async {
        loop {
            driver.refresh_metrics();
            fate("expiry", expire(driver).await);
            fate("collecting tombstones", collect_tombstones(driver, &mut clock.tombstones).await);
            fate("forgetting idempotency keys", clock.forget_keys(driver).await);
            fate("keeping the disk budget", clock.keep_budget(driver).await);
            fate("counting", count_totals(driver, &mut totals_due).await);
            tokio::time::sleep(INTERVAL).await;
        }
    };
    // In the middle of a round, too: a removal may wait for copies that have stopped.
    stop.run_until_cancelled(rounds).await;
}

async fn count_totals(driver: &Driver, due: &mut Instant) -> Result<(), NodeError> {
    let start = Instant::now();
    if start >= *due {
        driver.metrics.set_totals(&driver.disk.totals(&driver.partitions.served()).await?);
        *due = start + start.elapsed() * TOTALS_SHARE;
    }
    Ok(())
}

/// Turns keys whose time has come into deletions. A clock that is off says nothing about whose time has come.
async fn expire(driver: &Driver) -> Result<(), NodeError> {
    let mut after = (0, 0);
    for _ in 0..ROUND {
        if driver.clock_is_off() {
            return Ok(());
        }
        let expired = driver.disk.expired(clock::wall(), after, BATCH).await?;
        let Some(last) = expired.last().map(|row| (row.expires_at, row.id)) else { return Ok(()) };
        after = last;
        let rows = expired.into_iter().map(|row| (row.partition, row.name, row.version)).collect();
        let deleted = delete(driver, rows, Removal::Expire).await?;
        driver.metrics.expirations.inc_by(deleted);
    }
    Ok(())
}

/// Removes tombstones that no copy needs any more: every in-sync replica has them, the object is gone, and nobody is
/// being brought up to date, who could still be sent what was deleted.
async fn collect_tombstones(driver: &Driver, hand: &mut i64) -> Result<(), NodeError> {
    let found = driver.disk.tombstones_from(*hand, TOMBSTONES).await?;
    *hand = found.last().filter(|_| found.len() == TOMBSTONES as usize).map_or(0, |(id, ..)| *id);
    let settled = |partition: u32, version: Version| {
        let engine = driver.partitions.lock(partition);
        let replica = engine.replica();
        let holds = matches!(replica.role(), Role::Serving | Role::Replica);
        holds && replica.entry().learners.is_empty() && version <= replica.stable()
    };
    let known = found.into_iter().filter(|(_, partition, _)| *partition < driver.partitions.count());
    let rows: Vec<_> =
        known.filter(|(_, partition, version)| settled(*partition, *version)).map(|(id, _, v)| (id, v)).collect();
    if !rows.is_empty() {
        driver.disk.remove_rows(rows).await?;
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
    async fn forget_keys(&mut self, driver: &Driver) -> Result<(), NodeError> {
        let count = driver.partitions.count();
        for _ in 0..count.div_ceil(KEY_ROUNDS) {
            while driver.disk.forget_keys(self.keys).await? {}
            self.keys = (self.keys + 1) % count;
        }
        Ok(())
    }

    /// Drops values, or keys, until the disk is within its budget, as far as one round gets.
    async fn keep_budget(&mut self, driver: &Driver) -> Result<(), NodeError> {
        for _ in 0..ROUND {
            let used = driver.disk.used_bytes().await?;
            driver.metrics.disk_used.set(used.cast_signed());
            let excess = used.saturating_sub(driver.settings.disk_max_bytes);
            driver.over_budget.store(excess > 0, Ordering::Relaxed);
            if excess == 0 || !self.drop_some(driver, excess).await? {
                break;
            }
        }
        Ok(())
    }

    /// Drops values of about `excess` bytes, or a batch of them. Returns whether any could be.
    async fn drop_some(&mut self, driver: &Driver, excess: u64) -> Result<bool, NodeError> {
        // The first lap spares what is in memory, the second does not.
        for spare in [true, false] {
            let mut laps = 0;
            while laps < 2 {
                let uploaded_only = driver.objects.is_some();
                let rows = driver.disk.values_from(self.hand, uploaded_only, BATCH).await?;
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
                    if !spare || !driver.memory.contains(&name) {
                        freed += size + ROW_BYTES;
                        chosen.push((id, name, version));
                    }
                }
                let dropped = if uploaded_only {
                    let rows = chosen.into_iter().map(|(id, _, version)| (id, version)).collect();
                    let dropped = driver.disk.offload(rows).await?;
                    driver.metrics.offloads.inc_by(dropped);
                    dropped
                } else {
                    evict(driver, chosen).await?
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
async fn evict(driver: &Driver, rows: Vec<(i64, Bytes, Version)>) -> Result<u64, NodeError> {
    let count = driver.partitions.count();
    let rows = rows.into_iter().map(|(_, name, version)| (partition_of(&name, count), name, version));
    let evicted = delete(driver, rows.collect(), Removal::Evict).await?;
    driver.metrics.evictions.inc_by(evicted);
    // The next look must see what became free, and what is left of small keys is as large as they were.
    collect_tombstones(driver, &mut 0).await?;
    Ok(evicted)
}

/// Deletes keys of those partitions that this node is the primary of, unless they have changed. Each has its own fate: one
/// that cannot be deleted now is met again in a later round. Returns how many were, once the disk has it.
async fn delete(driver: &Driver, rows: Vec<(u32, Bytes, Version)>, why: Removal) -> Result<u64, NodeError> {
    // Together, so that they share the disk's statements.
    let outcomes: Vec<_> = stream::iter(rows)
        .filter(|(partition, ..)| std::future::ready(driver.partitions.serving_epoch(*partition) > 0))
        .map(|(partition, name, version)| async move {
            let name = EntryName::from_bytes(name).map_err(|_| TierError::Corrupt)?;
            driver.remove(name, version, why).await.inspect_err(|error| {
                tracing::debug!(partition, %error, "a key is not removed in this round");
            })
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    super::load::in_time(driver.disk.barrier()).await?;
    Ok(outcomes.iter().filter(|outcome| matches!(outcome, Ok(Outcome::Deleted(_)))).count() as u64)
}
