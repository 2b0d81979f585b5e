//! The node's place in the cluster: it registers, beats, and follows the partition map.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cairn_api_spec::{
    ErrorCode,
    cluster::{Heartbeat, RegisterNode, Ring},
};
use tokio_util::sync::CancellationToken;

use crate::{
    masters::{MasterError, Masters},
    ownership::Ownership,
};

/// Pauses after failures: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Asks for the map until a master answers; `None` when the node stops first.
pub async fn first_ring(masters: &Masters, stop: &CancellationToken) -> Option<Ring> {
    let mut pause = BACKOFF.0;
    loop {
        match masters.ring(None).await {
            Ok(ring) => return ring,
            Err(error) => tracing::warn!(%error, retry_in = ?pause, "waiting for a master"),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF.1),
        }
    }
}

/// Registers, then beats every `interval` until `stop`, or until the node was removed from the cluster.
pub async fn beat(
    masters: Arc<Masters>,
    ownership: Arc<Ownership>,
    node: RegisterNode,
    interval: Duration,
    stop: CancellationToken,
) {
    let mut registered = false;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let result =
            if registered { heartbeat(&masters, &ownership, &node).await } else { register(&masters, &node).await };
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
        ownership.store().registered.store(registered, Ordering::Relaxed);
    }
}

async fn register(masters: &Masters, node: &RegisterNode) -> Result<bool, MasterError> {
    masters.register(node).await?;
    tracing::info!(node_id = node.node_id, address = node.address, "registered");
    Ok(false)
}

/// Returns whether the node was removed.
async fn heartbeat(masters: &Masters, ownership: &Ownership, node: &RegisterNode) -> Result<bool, MasterError> {
    let store = ownership.store();
    store.metrics.refresh(&store.partitions);
    let heartbeat =
        Heartbeat { incarnation: node.incarnation, epoch: ownership.ring_epoch(), stats: store.metrics.stats() };
    masters.heartbeat(&node.node_id, &heartbeat).await.map(|reply| reply.leave)
}

/// Follows the map until `stop`.
pub async fn follow_ring(masters: Arc<Masters>, ownership: Arc<Ownership>, stop: CancellationToken) {
    let mut pause = BACKOFF.0;
    loop {
        let epoch = ownership.ring_epoch();
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = masters.ring(Some(epoch)) => next,
        };
        match next {
            Ok(Some(ring)) => {
                pause = BACKOFF.0;
                ownership.apply(&ring);
            }
            Ok(None) => pause = BACKOFF.0,
            Err(error) => {
                tracing::warn!(%error, retry_in = ?pause, "the partition map cannot be followed");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF.1),
                }
            }
        }
    }
}
