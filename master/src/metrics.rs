//! The master's own metrics. What the edge counts (requests, durations) stands in `cairn-server-kit`.

use std::time::Duration;

use cairn_api_spec::cluster::NodeState;
use cairn_placement::Reason;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::cluster::{Cluster, PartitionState};

const NODE_STATES: [(NodeState, &str); 5] = [
    (NodeState::Joining, "joining"),
    (NodeState::Active, "active"),
    (NodeState::Suspect, "suspect"),
    (NodeState::Draining, "draining"),
    (NodeState::Gone, "gone"),
];
const PARTITION_STATES: [(PartitionState, &str); 3] =
    [(PartitionState::Online, "online"), (PartitionState::Offline, "offline"), (PartitionState::Moving, "moving")];

/// Handles to the metrics in one registry.
#[derive(Clone, Debug)]
pub struct Metrics {
    ring_epoch: IntGauge,
    nodes: IntGaugeVec,
    clocks_off: IntGauge,
    partitions: IntGaugeVec,
    under_replicated: IntGauge,
    moves: IntGauge,
    /// Changes of partitions' entries, by reason.
    pub map_changes: IntCounterVec,
    /// Attempts of the gateway after the first.
    pub gateway_retries: IntCounter,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            ring_epoch: IntGauge::new("cairn_ring_epoch", "Epoch of the published partition map")?,
            nodes: IntGaugeVec::new(Opts::new("cairn_nodes", "Registered nodes by state"), &["state"])?,
            clocks_off: IntGauge::new(
                "cairn_nodes_clock_off",
                "Nodes that must not lead, since their clocks are too far from the master's",
            )?,
            partitions: IntGaugeVec::new(Opts::new("cairn_partitions", "Partitions by state"), &["state"])?,
            under_replicated: IntGauge::new(
                "cairn_partitions_under_replicated",
                "Partitions with fewer in-sync copies than the replication factor asks for",
            )?,
            moves: IntGauge::new("cairn_moves_active", "Copies of partitions that are being made")?,
            map_changes: IntCounterVec::new(
                Opts::new("cairn_partition_changes_total", "Changes of partitions' map entries by reason"),
                &["reason"],
            )?,
            gateway_retries: IntCounter::new(
                "cairn_gateway_retries_total",
                "Attempts to forward a request after the first, for instance while a primary is replaced",
            )?,
        };
        registry.register(Box::new(metrics.ring_epoch.clone()))?;
        registry.register(Box::new(metrics.nodes.clone()))?;
        registry.register(Box::new(metrics.clocks_off.clone()))?;
        registry.register(Box::new(metrics.partitions.clone()))?;
        registry.register(Box::new(metrics.under_replicated.clone()))?;
        registry.register(Box::new(metrics.moves.clone()))?;
        registry.register(Box::new(metrics.map_changes.clone()))?;
        // A sample for each from the start: what appears with its first count has no rate.
        Reason::ALL.iter().for_each(|reason| drop(metrics.map_changes.with_label_values(&[reason.as_str()])));
        registry.register(Box::new(metrics.gateway_retries.clone()))?;
        Ok(metrics)
    }

    /// Sets the gauges to what the cluster is now.
    pub(crate) fn observe(&self, cluster: &Cluster, now: Duration) {
        {
            let ring = cluster.ring.load();
            self.ring_epoch.set(gauge(ring.epoch));
            self.moves.set(gauge(ring.partitions.iter().map(|partition| partition.learners.len() as u64).sum()));
        }
        self.under_replicated.set(gauge(cluster.under_replicated() as u64));
        self.clocks_off.set(gauge(cluster.clocks_off(now).len() as u64));
        let nodes = cluster.nodes(now);
        for (state, label) in NODE_STATES {
            let count = nodes.iter().filter(|node| node.state == state).count();
            self.nodes.with_label_values(&[label]).set(gauge(count as u64));
        }
        let partitions = cluster.partition_states(now);
        for (state, label) in PARTITION_STATES {
            let count = partitions.iter().filter(|s| **s == state).count();
            self.partitions.with_label_values(&[label]).set(gauge(count as u64));
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
