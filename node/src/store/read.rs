//! Reads: memory, then disk, then the object store; each miss fills the tiers above, one flight for each key.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use cairn_api_spec::{
    EntryName, Operation, Outcome, TraceContext, Version,
    operation::{Action, Metadata, Tier},
    version::Condition,
};
use cairn_replication::Role;
use cairn_server_kit::trace::SpanKind;
use futures_util::FutureExt;

use super::{COMMIT_TIMEOUT, Store};
use crate::{
    disk::Row,
    entry::{Entry, checksum, now_millis},
    error::NodeError,
    mailbox::Reply,
    partition::{Flight, Loaded, Locked, Newest},
};

impl Store {
    /// Reads a key. What was read counts only if the partition was served at the same epoch before and after: in
    /// between it may have been given away, and changed elsewhere.
    pub(super) async fn read(&self, partition: u32, operation: &Operation, epoch: u64) -> Result<Outcome, NodeError> {
        loop {
            let served = self.ready(partition, epoch).await?;
            let outcome = self.get(partition, operation).await;
            // The lease is looked at after the read: while it holds, nobody else can have changed what was read.
            if self.partitions.serving_epoch(partition) == served && self.partitions.has_lease(partition) {
                return outcome;
            }
        }
    }

    /// Reads a key from this node's copy, whatever the primary has done meanwhile.
    pub(super) async fn read_replica(&self, partition: u32, operation: &Operation) -> Result<Outcome, NodeError> {
        match self.partitions.role(partition) {
            role if role.leads() => self.read(partition, operation, 0).await,
            Role::Replica => {
                let (condition, with_value) = (operation.condition, wants_value(operation));
                let flight = {
                    let mut locked = self.partitions.lock(partition);
                    self.flight(&mut locked, partition, operation.name.as_bytes(), with_value, operation.trace)
                };
                // Not to be found in memory when this node becomes the primary.
                flight.stale.store(true, Ordering::Release);
                Ok(self.loaded(flight.result.await?, Some(Tier::Replica), condition, with_value))
            }
            _ => Err(self.not_owner(partition)),
        }
    }

    async fn get(&self, partition: u32, operation: &Operation) -> Result<Outcome, NodeError> {
        let (name, condition, with_value) = (&operation.name, operation.condition, wants_value(operation));
        let now = now_millis();
        if let Some(entry) = self.partitions.memory.get(name.as_bytes()) {
            return Ok(self.found(&entry, Tier::Memory, condition, with_value, now));
        }
        loop {
            match self.partitions.newest(partition, name.as_bytes()) {
                Newest::Settled => {}
                Newest::Ahead(_, Some(entry)) => {
                    return Ok(self.found(&entry, Tier::Memory, condition, with_value, now));
                }
                Newest::Ahead(version, None) => return Ok(self.missing(version, condition)),
                // The disk may have it already, and not what was before.
                Newest::Uncommitted(version) => self.committed(partition, version).await?,
            }
            if let Some(entry) = self.partitions.memory.get(name.as_bytes()) {
                return Ok(self.found(&entry, Tier::Memory, condition, with_value, now));
            }
            let flight = {
                let mut locked = self.partitions.lock(partition);
                self.flight(&mut locked, partition, name.as_bytes(), with_value, operation.trace)
            };
            let loaded = flight.result.await?;
            if !flight.stale.load(Ordering::Acquire) || self.partitions.serving_epoch(partition) == 0 {
                return Ok(self.loaded(loaded, None, condition, with_value));
            }
        }
    }

    /// Waits, for a while, until a version is committed, or is known never to be.
    pub(super) async fn committed(&self, partition: u32, version: Version) -> Result<(), NodeError> {
        let settled = {
            let mut locked = self.partitions.lock(partition);
            if version <= locked.replica.committed() || !locked.replica.role().leads() {
                return Ok(());
            }
            let (reply, settled) = Reply::new(self.mailbox());
            locked.tell_of(version, reply);
            settled
        };
        match tokio::time::timeout(COMMIT_TIMEOUT, settled).await {
            Ok(_) => Ok(()),
            Err(_) => Err(NodeError::PartitionOffline { partition, why: "its replicas do not answer" }),
        }
    }

    /// What the lower tiers say. `tier` stands for the one that had it, when this node answers as a replica.
    fn loaded(&self, loaded: Loaded, tier: Option<Tier>, condition: Condition, with_value: bool) -> Outcome {
        let now = now_millis();
        match loaded {
            Loaded::Nothing => self.missing(Version::NONE, condition),
            Loaded::Value(entry, found) => self.found(&entry, tier.unwrap_or(found), condition, with_value, now),
            Loaded::Head(row) if row.is_live(now) => {
                let found = if row.object_version == row.metadata.version { Tier::Object } else { Tier::Disk };
                self.answer(&row.metadata, tier.unwrap_or(found), condition, Some(Bytes::new()))
            }
            Loaded::Head(row) => self.missing(row.metadata.version, condition),
        }
    }

    /// The read of the lower tiers for a key, started, in the trace of who asks first, if none is under way. The caller
    /// holds the partition's lock.
    pub(super) fn flight(
        &self,
        locked: &mut Locked<'_>,
        partition: u32,
        name: &Bytes,
        with_value: bool,
        trace: Option<TraceContext>,
    ) -> Flight {
        locked.flight(name, with_value, |stale| {
            let (store, name, mark) = (self.clone(), name.clone(), stale.clone());
            let read = async move {
                let loaded = store.load(partition, &name, with_value, &mark, trace).await;
                store.partitions.lock(partition).end_flight(&name, with_value, &mark);
                loaded
            };
            read.boxed().shared()
        })
    }

    async fn load(
        &self,
        partition: u32,
        name: &Bytes,
        with_value: bool,
        stale: &Arc<AtomicBool>,
        trace: Option<TraceContext>,
    ) -> Result<Loaded, NodeError> {
        let found = {
            let mut span = self.tracer.child("disk", SpanKind::Internal, trace);
            span.set("cairn.operation", "read");
            self.disk.load(name.clone(), with_value).await?
        };
        let Some(mut row) = found else { return Ok(Loaded::Nothing) };
        if !with_value || !row.is_live(now_millis()) {
            return Ok(Loaded::Head(Arc::new(row)));
        }
        let (value, tier) = match row.value.take() {
            Some(value) if checksum(name, row.metadata.version, &value) == row.checksum => (value, Tier::Disk),
            Some(_) => {
                self.metrics.corrupt_rows.inc();
                let trace_id = trace.map(|trace| tracing::field::display(trace.trace_id));
                tracing::error!(key = ?name, trace_id, "a row does not match its checksum");
                (self.fetch_object(&row, trace).await?, Tier::Object)
            }
            None => (self.fetch_object(&row, trace).await?, Tier::Object),
        };
        let name = EntryName::from_bytes(name.clone()).map_err(|_| NodeError::Corrupt)?;
        let entry = Entry::new(&name, &row.metadata, &value);
        {
            // Under the lock that a write takes to set the mark: older state never covers newer.
            let _locked = self.partitions.lock(partition);
            if !stale.load(Ordering::Acquire) {
                self.partitions.memory.insert(entry.clone());
            }
        }
        if tier == Tier::Object && !self.over_budget.load(Ordering::Relaxed) {
            self.disk.refill(name.as_bytes().clone(), row.metadata.version, value).await?;
        }
        Ok(Loaded::Value(entry, tier))
    }

    async fn fetch_object(&self, row: &Row, trace: Option<TraceContext>) -> Result<Bytes, NodeError> {
        let version = row.metadata.version;
        if row.object_version != version {
            return Err(NodeError::Corrupt);
        }
        let Some(objects) = &self.objects else { return Err(NodeError::ObjectStore("none is configured".to_owned())) };
        let mut span = self.tracer.child("object_store", SpanKind::Client, trace);
        span.set("cairn.operation", "read");
        let fetched = {
            let _timer = self.metrics.object_duration.get.start_timer();
            objects.get(row.partition, &row.name, version).await
        };
        match fetched {
            Ok(Some(value)) if checksum(&row.name, version, &value) == row.checksum => Ok(value),
            Ok(Some(_)) => Err(NodeError::Corrupt),
            Ok(None) => Err(NodeError::ObjectLost(version.0)),
            Err(error) => {
                span.fail("the object store did not answer as it should");
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

fn wants_value(operation: &Operation) -> bool {
    matches!(operation.action, Action::Get)
}
