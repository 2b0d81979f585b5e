//! The node's place in the cluster: it registers, beats, and follows the partition map.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use cairn_api_spec::{
    ErrorCode,
    backoff::Backoff,
    cluster::{Heartbeat, RegisterNode, Ring},
};
use tokio_util::sync::CancellationToken;

use super::{
    masters::{MasterError, Masters},
    ownership::Ownership,
};
use crate::{clock, driver::Driver};

/// Pauses after failures.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));

/// Handing over is given up when nothing has happened for so long, and looked at so often.
const STUCK: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);
/// How long a node that has handed everything over still answers.
const FAREWELL: Duration = Duration::from_secs(1);

/// Asks for the map until a master answers; `None` when the node stops first.
pub async fn first_ring(masters: &Masters, stop: &CancellationToken) -> Option<Ring> {
    let mut backoff = BACKOFF;
    loop {
        let error = match masters.ring(None).await {
            Ok(ring) => return ring,
            Err(error) => error,
        };
        let pause = backoff.pause(rand::random());
        tracing::warn!(%error, retry_in = ?pause, "waiting for a master");
        stop.run_until_cancelled(tokio::time::sleep(pause)).await?;
    }
}

/// Registers, then beats every `interval` until `stop`, or until the node was removed from the cluster.
pub async fn beat(
    masters: &Masters,
    ownership: &Ownership,
    node: &RegisterNode,
    interval: Duration,
    stop: &CancellationToken,
) {
    let mut registered = false;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if ownership.is_foreign() {
            registered = false;
            ownership.driver().registered.store(false, Ordering::Relaxed);
            continue;
        }
        // The first heartbeat follows at once: it tells the time.
        let result = async {
            if !registered {
                masters.register(node).await?;
                tracing::info!(node_id = node.node_id, address = node.address, "registered");
            }
            heartbeat(masters, ownership, node).await
        };
        let result = result.await;
        match result {
            Ok(true) => {
                tracing::info!(node_id = node.node_id, "removed from the cluster");
                return;
            }
            Ok(false) => registered = true,
            Err(error) => {
                registered &= error.code() != Some(ErrorCode::NodeNotFound);
                tracing::warn!(%error, "the master has not heard this node");
            }
        }
        ownership.driver().registered.store(registered, Ordering::Relaxed);
    }
}

/// Returns whether the node was removed.
async fn heartbeat(masters: &Masters, ownership: &Ownership, node: &RegisterNode) -> Result<bool, MasterError> {
    let driver = ownership.driver();
    driver.refresh_metrics();
    let heartbeat = Heartbeat {
        incarnation: node.incarnation,
        session: node.session,
        epoch: ownership.ring_epoch(),
        leaving: driver.leaving.load(Ordering::Relaxed),
        transfers: ownership.transfers.active(),
        stats: driver.metrics.stats(),
        clock_offset_ms: ownership.clock_offset_ms(),
    };
    let sent = clock::wall();
    let reply = masters.heartbeat(&node.node_id, &heartbeat).await?;
    ownership.judge_clock(sent, &reply);
    ownership.transfers.set_limit(reply.transfer_bytes_per_second);
    Ok(reply.leave)
}

/// Says that this node is about to stop, and waits until it is in no entry beside another in-sync node, for `patience`
/// at most, and only as long as something happens: a cluster that stops as a whole has nobody to hand over to.
pub async fn leave(masters: &Masters, ownership: &Ownership, node: &RegisterNode, patience: Duration) {
    let driver = ownership.driver();
    driver.leaving.store(true, Ordering::Relaxed);
    if let Err(error) = heartbeat(masters, ownership, node).await {
        tracing::warn!(%error, "the master does not know that this node stops");
        return;
    }
    let mut left = shared_partitions(driver);
    if left == 0 {
        return;
    }
    tracing::info!(partitions = left, "handing over before the end");
    let (end, mut progress) = (Instant::now() + patience, Instant::now());
    while left > 0 && Instant::now() < end && progress.elapsed() < STUCK {
        tokio::time::sleep(LOOK).await;
        let now = shared_partitions(driver);
        if now < left {
            progress = Instant::now();
        }
        left = now;
    }
    if left > 0 {
        tracing::warn!(partitions = left, "stopping before everything is handed over");
    }
    // The new primaries ask this process whether it has heard of them; without its word they wait for their promises.
    tokio::time::sleep(FAREWELL.min(end.saturating_duration_since(Instant::now()))).await;
}

/// Partitions that this node shares with other in-sync nodes.
fn shared_partitions(driver: &Driver) -> usize {
    let shares = |partition: &u32| {
        let engine = driver.partitions.lock(*partition);
        let in_sync = &engine.replica().entry().in_sync;
        in_sync.len() > 1 && in_sync.contains(&driver.me)
    };
    (0..driver.partitions.count()).filter(shares).count()
}

/// Follows the map until `stop`.
pub async fn follow_ring(masters: Arc<Masters>, ownership: Arc<Ownership>, stop: CancellationToken) {
    let mut backoff = BACKOFF;
    loop {
        let epoch = ownership.ring_epoch();
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = masters.ring(Some(epoch)) => next,
        };
        match next {
            Ok(Some(ring)) => {
                backoff.reset();
                ownership.apply(&ring);
            }
            Ok(None) => backoff.reset(),
            Err(error) => {
                let pause = backoff.pause(rand::random());
                tracing::warn!(%error, retry_in = ?pause, "the partition map cannot be followed");
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
            }
        }
    }
}
