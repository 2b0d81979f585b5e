//! What Prometheus is told of a node, and what the node tells the master of itself.

use std::sync::Arc;

use cairn_api_spec::{
    cluster::{ByTier, NodeStats},
    operation::Tier,
};
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

use crate::{disk::Totals, partition::Partitions};

const OBJECT_BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0];

/// The node's metrics. Cloning shares them.
#[derive(Clone)]
pub struct NodeMetrics {
    hits: [IntCounter; 3],
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
    /// Keys brought back from the object store.
    pub restored: IntCounter,
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
    /// The map epoch that the node knows.
    pub ring_epoch: IntGauge,
    partitions_serving: IntGauge,
}

/// Durations of requests to the object store.
#[derive(Clone)]
pub struct ObjectDurations {
    /// Fetching a value.
    pub get: Histogram,
    /// Storing a value.
    pub put: Histogram,
    /// Removing a value.
    pub delete: Histogram,
}

impl NodeMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
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
            hits: Tier::ALL.map(|tier| hits.with_label_values(&[tier.as_str()])),
            misses: counter("cairn_cache_misses_total", "Reads that found no live key")?,
            evictions_memory: counter(
                "cairn_memory_evictions_total",
                "Entries that memory dropped to keep its bounds",
            )?,
            evictions: counter("cairn_evictions_total", "Entries that the bottom tier dropped to keep its bounds")?,
            offloads: counter("cairn_offloads_total", "Values that left the disk and stay in the object store")?,
            expirations: counter("cairn_expirations_total", "Entries that were dropped when their time had come")?,
            corrupt_rows: counter("cairn_corrupt_rows_total", "Rows that did not match their checksum")?,
            restored: counter("cairn_restored_keys_total", "Keys brought back from the object store")?,
            object_errors: counter("cairn_object_store_errors_total", "Requests to the object store that failed")?,
            object_duration: ObjectDurations {
                get: durations.with_label_values(&["get"]),
                put: durations.with_label_values(&["put"]),
                delete: durations.with_label_values(&["delete"]),
            },
            entries: tiers("cairn_entries", "Entries by the tier that holds their value")?,
            bytes: tiers("cairn_bytes", "Bytes by tier: all that entries take in memory, values in the others")?,
            live_entries: gauge("cairn_keys", "Keys in the disk tier's index")?,
            uploads_pending: gauge("cairn_uploads_pending", "Changes that the object store has not got")?,
            upload_age: register(registry, Gauge::new("cairn_upload_age_seconds", "Age of the oldest of them")?)?,
            ring_epoch: gauge("cairn_ring_epoch", "The map epoch that the node knows")?,
            partitions_serving: gauge("cairn_partitions_serving", "Partitions that the node serves")?,
        })
    }

    /// Counts a read that a tier answered.
    pub fn hit(&self, tier: Tier) {
        self.hits[tier as usize].inc();
    }

    /// Takes over what the lower tiers hold.
    pub fn set_totals(&self, totals: &Totals) {
        self.live_entries.set(totals.entries.cast_signed());
        self.entries[Tier::Disk as usize].set(totals.disk_entries.cast_signed());
        self.bytes[Tier::Disk as usize].set(totals.disk_bytes.cast_signed());
        self.entries[Tier::Object as usize].set(totals.object_entries.cast_signed());
        self.bytes[Tier::Object as usize].set(totals.object_bytes.cast_signed());
    }

    /// Takes over what memory holds and the node serves.
    pub fn refresh(&self, partitions: &Arc<Partitions>) {
        let (entries, bytes) = partitions.memory.usage();
        self.entries[Tier::Memory as usize].set(entries.cast_signed());
        self.bytes[Tier::Memory as usize].set(bytes.cast_signed());
        self.evictions_memory.inc_by(partitions.memory.evictions().saturating_sub(self.evictions_memory.get()));
        self.partitions_serving.set(partitions.serving_count().into());
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
        }
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
