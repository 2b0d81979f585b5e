//! Reads: memory, then disk, then the object store; each miss fills the tiers above, one flight for each key.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use cairn_api_spec::{
    EntryName, Outcome, Version,
    operation::{Metadata, Tier},
    version::Condition,
};
use futures_util::FutureExt;

use super::Store;
use crate::{
    disk::Row,
    entry::{Entry, checksum, now_millis},
    error::NodeError,
    partition::{Flight, Loaded},
};

impl Store {
    /// Reads a key. What was read counts only if the partition was served at the same epoch before and after: in
    /// between it may have been given away, and changed elsewhere.
    pub(super) async fn read(
        &self,
        partition: u32,
        name: EntryName,
        condition: Condition,
        with_value: bool,
        epoch: u64,
    ) -> Result<Outcome, NodeError> {
        loop {
            let served = self.ready(partition, epoch).await?;
            let outcome = self.get(partition, &name, condition, with_value).await;
            if self.partitions.serving_epoch(partition) == served {
                return outcome;
            }
        }
    }

    async fn get(
        &self,
        partition: u32,
        name: &EntryName,
        condition: Condition,
        with_value: bool,
    ) -> Result<Outcome, NodeError> {
        let now = now_millis();
        if let Some(entry) = self.partitions.memory.get(name.as_bytes()) {
            return Ok(self.found(&entry, Tier::Memory, condition, with_value, now));
        }
        if let Some((version, entry)) = self.partitions.answered_ahead(partition, name.as_bytes()) {
            return Ok(match entry {
                Some(entry) => self.found(&entry, Tier::Memory, condition, with_value, now),
                None => self.missing(version, condition),
            });
        }
        let flight = {
            let mut state = self.partitions.lock(partition);
            self.flight(&mut state, partition, name.as_bytes(), with_value)
        };
        Ok(match flight.result.await? {
            Loaded::Nothing => self.missing(Version::NONE, condition),
            Loaded::Value(entry, tier) => self.found(&entry, tier, condition, with_value, now),
            Loaded::Head(row) if row.is_live(now) => {
                let tier = if row.object_version == row.metadata.version { Tier::Object } else { Tier::Disk };
                self.answer(&row.metadata, tier, condition, Some(Bytes::new()))
            }
            Loaded::Head(row) => self.missing(row.metadata.version, condition),
        })
    }

    /// The read of the lower tiers for a key, started if none is under way. The caller holds the partition's lock.
    pub(super) fn flight(
        &self,
        state: &mut crate::partition::State,
        partition: u32,
        name: &Bytes,
        with_value: bool,
    ) -> Flight {
        state.flight(name, with_value, |stale| {
            let (store, name, mark) = (self.clone(), name.clone(), stale.clone());
            let read = async move {
                let loaded = store.load(partition, &name, with_value, &mark).await;
                store.partitions.lock(partition).end_flight(&name, with_value, &mark);
                loaded
            };
            Flight { result: read.boxed().shared(), stale }
        })
    }

    async fn load(
        &self,
        partition: u32,
        name: &Bytes,
        with_value: bool,
        stale: &Arc<AtomicBool>,
    ) -> Result<Loaded, NodeError> {
        let Some(mut row) = self.disk.load(name.clone(), with_value).await? else { return Ok(Loaded::Nothing) };
        if !with_value || !row.is_live(now_millis()) {
            return Ok(Loaded::Head(Arc::new(row)));
        }
        let (value, tier) = match row.value.take() {
            Some(value) if checksum(name, row.metadata.version, &value) == row.checksum => (value, Tier::Disk),
            Some(_) => {
                self.metrics.corrupt_rows.inc();
                tracing::error!(key = ?name, "a row does not match its checksum");
                (self.fetch_object(&row).await?, Tier::Object)
            }
            None => (self.fetch_object(&row).await?, Tier::Object),
        };
        let name = EntryName::from_bytes(name.clone()).map_err(|_| NodeError::Corrupt)?;
        let entry = Entry::new(&name, &row.metadata, &value);
        {
            let state = self.partitions.lock(partition);
            // Under the lock that a write takes to set the mark: older state never covers newer.
            if !stale.load(Ordering::Acquire) {
                self.partitions.memory.insert(entry.clone());
            }
            drop(state);
        }
        if tier == Tier::Object && !self.over_budget.load(Ordering::Relaxed) {
            self.disk.refill(name.as_bytes().clone(), row.metadata.version, value).await?;
        }
        Ok(Loaded::Value(entry, tier))
    }

    async fn fetch_object(&self, row: &Row) -> Result<Bytes, NodeError> {
        let version = row.metadata.version;
        if row.object_version != version {
            return Err(NodeError::Corrupt);
        }
        let Some(objects) = &self.objects else { return Err(NodeError::ObjectStore("none is configured".to_owned())) };
        let fetched = {
            let _timer = self.metrics.object_duration.get.start_timer();
            objects.get(row.partition, &row.name, version).await
        };
        match fetched {
            Ok(Some(value)) if checksum(&row.name, version, &value) == row.checksum => Ok(value),
            Ok(Some(_)) => Err(NodeError::Corrupt),
            Ok(None) => Err(NodeError::ObjectLost(version.0)),
            Err(error) => {
                self.metrics.object_errors.inc();
                Err(error)
            }
        }
    }

    fn found(&self, entry: &Entry, tier: Tier, condition: Condition, with_value: bool, now: u64) -> Outcome {
        if !entry.is_live(now) {
            return self.missing(entry.version(), condition);
        }
        let holds = condition.holds(Some(entry.version()));
        let value = if with_value && holds { entry.value_bytes() } else { Bytes::new() };
        self.answer(&entry.metadata(), tier, condition, Some(value))
    }

    fn answer(&self, metadata: &Metadata, tier: Tier, condition: Condition, value: Option<Bytes>) -> Outcome {
        self.metrics.hit(tier);
        if condition.holds(Some(metadata.version)) {
            return Outcome::Found { metadata: metadata.clone(), tier, value };
        }
        match condition {
            // RFC 9110, 13.1.2: a failed If-None-Match on a read means that the client has what it needs.
            Condition::Differs(_) | Condition::Absent => Outcome::NotModified(metadata.clone(), tier),
            Condition::None | Condition::Exists | Condition::Matches(_) => Outcome::ConditionFailed(metadata.version),
        }
    }

    fn missing(&self, version: Version, condition: Condition) -> Outcome {
        self.metrics.misses.inc();
        if condition.holds(None) { Outcome::Missing(version) } else { Outcome::ConditionFailed(version) }
    }
}
