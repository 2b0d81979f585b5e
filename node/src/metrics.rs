//! What Prometheus is told of a node, and what the node tells the master of itself.

use std::{fmt::Debug, hash::Hash};

use cairn_api_spec::{
    cluster::{ByTier, NodeStats},
    operation::Tier,
};
use cairn_operations::{DataMetrics, SlowLog};
use cairn_replication::{Replica, Role};
use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

use crate::{
    clock,
    tiers::{disk::Totals, memory::Memory, object::ObjectDurations},
};

const OBJECT_BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0];

/// The node's metrics. Cloning shares them.
#[derive(Clone)]
pub struct NodeMetrics {
    /// How long operations on keys take, and how they end.
    pub operations: DataMetrics,
    hits: [IntCounter; 3],
    replica_hits: IntCounter,
    /// Reads that found no live key.
    pub misses: IntCounter,
    evictions_memory: IntCounter,
    /// Entries dropped from the bottom tier.
    pub evictions: IntCounter,
    /// Values that left the disk for the object store alone.
    pub offloads: IntCounter,
    /// Entries dropped because their time had come.
    pub expirations: IntCounter,
    /// Rows that did not match their checksum.
    pub corrupt_rows: IntCounter,
    /// Rows that did not match their checksum and were mended from another copy.
    pub healed_rows: IntCounter,
    /// Partitions whose last copy went on without writes that its disk had lost.
    pub lost_writes: IntCounter,
    /// Keys brought back from the object store.
    pub restored: IntCounter,
    /// What is stored in the bucket, and removed.
    pub bucket: BucketMetrics,
    /// Requests to the object store that failed.
    pub object_errors: IntCounter,
    /// How long those that did not took.
    pub object_duration: ObjectDurations,
    entries: [IntGauge; 3],
    bytes: [IntGauge; 3],
    live_entries: IntGauge,
    /// Changes that the object store has not got.
    pub uploads_pending: IntGauge,
    /// How long the oldest of them has waited.
    pub upload_age: Gauge,
    /// Bytes in use in the disk tier.
    pub disk_used: IntGauge,
    /// The most that may be.
    pub disk_max: IntGauge,
    /// The map epoch that the node knows.
    pub ring_epoch: IntGauge,
    /// What is counted of replication.
    pub replication: ReplicationMetrics,
    partitions_serving: IntGauge,
}

/// What is stored in the bucket, and removed.
#[derive(Clone)]
pub struct BucketMetrics {
    /// Segments stored.
    pub segments: IntCounter,
    /// Their bytes.
    pub segment_bytes: IntCounter,
    /// Bytes of those that hold what was left in others.
    pub moved_bytes: IntCounter,
    /// Checkpoints stored.
    pub checkpoints: IntCounter,
    /// Objects that nobody needed any more and that were removed.
    pub collected: IntCounter,
}

impl BucketMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        Ok(Self {
            segments: counter("cairn_segments_total", "Segments stored in the object store")?,
            segment_bytes: counter("cairn_segment_bytes_total", "Bytes of the segments stored in the object store")?,
            moved_bytes: counter(
                "cairn_moved_bytes_total",
                "Bytes of those segments that hold what was left in segments that were mostly dead",
            )?,
            checkpoints: counter("cairn_checkpoints_total", "Checkpoints of partitions stored in the object store")?,
            collected: counter("cairn_collected_objects_total", "Objects removed since nobody needed them any more")?,
        })
    }
}

impl NodeMetrics {
    /// Registers the metrics. Operations that `slow` finds slow are logged.
    ///
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry, slow: SlowLog) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help)?);
        let hits = IntCounterVec::new(Opts::new("cairn_cache_hits_total", "Reads that found a live key"), &["tier"])?;
        let hits = register(registry, hits)?;
        let tiers = |name: &str, help: &str| {
            let gauges = register(registry, IntGaugeVec::new(Opts::new(name, help), &["tier"])?)?;
            Ok::<_, prometheus::Error>(Tier::ALL.map(|tier| gauges.with_label_values(&[tier.as_str()])))
        };
        let durations = HistogramOpts::new("cairn_object_store_duration_seconds", "Requests to the object store")
            .buckets(OBJECT_BUCKETS.to_vec());
        let durations = register(registry, HistogramVec::new(durations, &["operation"])?)?;
        Ok(Self {
            operations: DataMetrics::new(registry, slow)?,
            hits: Tier::ALL.map(|tier| hits.with_label_values(&[tier.as_str()])),
            replica_hits: counter(
                "cairn_replica_hits_total",
                "Reads that found a live key in this node's copy of another node's partition",
            )?,
            misses: counter("cairn_cache_misses_total", "Reads that found no live key")?,
            evictions_memory: counter(
                "cairn_memory_evictions_total",
                "Entries that memory dropped to keep its bounds",
            )?,
            evictions: counter("cairn_evictions_total", "Entries that the bottom tier dropped to keep its bounds")?,
            offloads: counter("cairn_offloads_total", "Values that left the disk and stay in the object store")?,
            expirations: counter("cairn_expirations_total", "Entries that were dropped when their time had come")?,
            corrupt_rows: counter("cairn_corrupt_rows_total", "Rows that did not match their checksum")?,
            healed_rows: counter("cairn_healed_rows_total", "Rows that another copy has mended")?,
            lost_writes: counter(
                "cairn_partitions_with_lost_writes_total",
                "Partitions whose last copy went on without answered writes that its disk had lost",
            )?,
            restored: counter("cairn_restored_keys_total", "Keys brought back from the object store")?,
            bucket: BucketMetrics::new(registry)?,
            object_errors: counter("cairn_object_store_errors_total", "Requests to the object store that failed")?,
            object_duration: ObjectDurations {
                get: durations.with_label_values(&["get"]),
                put: durations.with_label_values(&["put"]),
                delete: durations.with_label_values(&["delete"]),
                list: durations.with_label_values(&["list"]),
                head: durations.with_label_values(&["head"]),
            },
            entries: tiers("cairn_entries", "Entries by the tier that holds their value")?,
            bytes: tiers("cairn_bytes", "Bytes by tier: all that entries take in memory, values in the others")?,
            live_entries: gauge("cairn_keys", "Keys in the disk tier's index")?,
            uploads_pending: gauge("cairn_uploads_pending", "Changes that the object store has not got")?,
            upload_age: register(
                registry,
                Gauge::new(
                    "cairn_upload_age_seconds",
                    "How long the oldest change that the object store has not got has waited",
                )?,
            )?,
            disk_used: gauge("cairn_disk_used_bytes", "Bytes in use in the disk tier")?,
            disk_max: gauge("cairn_disk_max_bytes", "Bytes in use in the disk tier above which values leave it")?,
            ring_epoch: gauge("cairn_ring_epoch", "The map epoch that the node knows")?,
            replication: ReplicationMetrics::new(registry)?,
            partitions_serving: gauge("cairn_partitions_serving", "Partitions that the node serves")?,
        })
    }

    /// Counts a read that a tier, or this node's copy as a replica, answered.
    pub fn hit(&self, tier: Tier) {
        self.hits.get(tier as usize).unwrap_or(&self.replica_hits).inc();
    }

    /// Takes over what the lower tiers hold.
    pub fn set_totals(&self, totals: &Totals) {
        self.live_entries.set(totals.entries.cast_signed());
        self.entries[Tier::Disk as usize].set(totals.disk_entries.cast_signed());
        self.bytes[Tier::Disk as usize].set(totals.disk_bytes.cast_signed());
        self.entries[Tier::Object as usize].set(totals.object_entries.cast_signed());
        self.bytes[Tier::Object as usize].set(totals.object_bytes.cast_signed());
    }

    /// Takes over what memory holds, and what the node is to its partitions.
    pub fn refresh(&self, memory: &Memory, totals: &PartitionTotals) {
        let (entries, bytes) = memory.usage();
        self.entries[Tier::Memory as usize].set(entries.cast_signed());
        self.bytes[Tier::Memory as usize].set(bytes.cast_signed());
        self.evictions_memory.inc_by(memory.evictions().saturating_sub(self.evictions_memory.get()));
        self.partitions_serving.set(totals.serving);
        self.replication.refresh(totals);
    }

    /// The same for the master.
    pub fn stats(&self) -> NodeStats {
        let by_tier = |gauges: &[IntGauge; 3]| {
            let [memory, disk, object] = gauges.each_ref().map(|gauge| gauge.get().cast_unsigned());
            ByTier { memory, disk, object }
        };
        let [memory, disk, object] = self.hits.each_ref().map(IntCounter::get);
        NodeStats {
            hits: memory + disk + object,
            misses: self.misses.get(),
            hits_by_tier: ByTier { memory, disk, object },
            entries: self.live_entries.get().cast_unsigned(),
            entries_by_tier: by_tier(&self.entries),
            bytes_by_tier: by_tier(&self.bytes),
            evictions_memory: self.evictions_memory.get(),
            evictions: self.evictions.get(),
            expirations: self.expirations.get(),
            uploads_pending: self.uploads_pending.get().cast_unsigned(),
            upload_age_seconds: self.upload_age.get(),
            partitions_serving: u32::try_from(self.partitions_serving.get()).unwrap_or(0),
            replication_pending: self.replication.pending.get().cast_unsigned(),
            replication_lag_ms: (self.replication.lag.get() * 1000.0) as u64,
        }
    }
}

/// What is counted of replication.
#[derive(Clone)]
pub struct ReplicationMetrics {
    /// Bytes copied from other nodes.
    pub transferred: IntCounter,
    /// Changes of the role in a partition, by the new role.
    pub role_changes: IntCounterVec,
    /// Writes that other nodes have refused or not answered.
    pub failures: IntCounterVec,
    partitions: IntGaugeVec,
    in_sync: IntGauge,
    unleased: IntGauge,
    pending: IntGauge,
    lag: Gauge,
}

impl ReplicationMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help)?);
        // With a sample for each label from the start: what appears with its first count has no rate.
        let counters = |name: &str, help: &str, label: &str, values: &[&str]| {
            let counters = register(registry, IntCounterVec::new(Opts::new(name, help), &[label])?)?;
            values.iter().for_each(|value| drop(counters.with_label_values(&[value])));
            Ok::<_, prometheus::Error>(counters)
        };
        Ok(Self {
            transferred: register(
                registry,
                IntCounter::new("cairn_transfer_bytes_total", "Bytes of values copied from other nodes")?,
            )?,
            role_changes: counters(
                "cairn_role_changes_total",
                "Partitions in which the node took a role",
                "role",
                &ROLES,
            )?,
            failures: counters(
                "cairn_replication_failures_total",
                "Messages with writes that a peer did not take",
                "reason",
                &["refused", "unanswered"],
            )?,
            partitions: register(
                registry,
                IntGaugeVec::new(Opts::new("cairn_partitions", "Partitions by the node's role"), &["role"])?,
            )?,
            in_sync: gauge("cairn_in_sync_copies", "In-sync copies of the partitions that the node serves")?,
            unleased: gauge("cairn_partitions_without_lease", "Partitions served whose leases have run out")?,
            pending: gauge("cairn_replication_pending", "Writes that are not on every in-sync replica")?,
            lag: register(
                registry,
                Gauge::new("cairn_replication_lag_seconds", "Age of the oldest write that is not on every replica")?,
            )?,
        })
    }

    fn refresh(&self, totals: &PartitionTotals) {
        for (role, count) in ROLES.iter().zip(totals.roles) {
            self.partitions.with_label_values(&[role]).set(count);
        }
        self.in_sync.set(totals.in_sync);
        self.unleased.set(totals.unleased);
        self.pending.set(totals.pending);
        let lag = totals.oldest.map_or(0, |since| clock::now().saturating_sub(since));
        #[expect(clippy::cast_precision_loss, reason = "a gauge of seconds needs no 53 bits")]
        self.lag.set(lag as f64 / 1000.0);
    }
}

/// What the node is to its partitions, summed up.
#[derive(Clone, Copy, Debug, Default)]
pub struct PartitionTotals {
    /// Partitions by role, in the order of [`ROLES`].
    roles: [i64; ROLES.len()],
    serving: i64,
    in_sync: i64,
    unleased: i64,
    pending: i64,
    oldest: Option<u64>,
}

impl PartitionTotals {
    /// Adds a partition.
    pub fn add<N: Clone + Eq + Debug + Hash, D: Clone>(&mut self, replica: &Replica<N, D>, has_lease: bool) {
        let role = replica.role();
        self.roles[role as usize] += 1;
        if role.reads() {
            let (count, since) = replica.lag();
            self.serving += 1;
            self.in_sync += i64::try_from(replica.entry().in_sync.len()).unwrap_or(0);
            self.unleased += i64::from(!has_lease);
            self.pending += i64::try_from(count).unwrap_or(0);
            self.oldest = self.oldest.into_iter().chain(since).min();
        }
    }
}

const ROLES: [&str; 9] =
    ["idle", "learner", "replica", "preparing", "collecting", "syncing", "failing", "serving", "handing_over"];

/// The role as it stands in metric labels and logs.
pub fn role_name(role: Role) -> &'static str {
    ROLES[role as usize]
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
