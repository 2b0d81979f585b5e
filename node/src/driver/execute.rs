//! One operation, from its arrival to its answer; and listings.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_api_spec::{
    EntryName, Operation, Outcome, TraceContext, Version,
    operation::{Action, Durability, ListQuery, ListedName, Metadata, Put, Removal, Tier},
    version::Condition,
};
use cairn_engine::{Entry, Newest, Request, TierError, Verb};
use cairn_operations::metrics::{Details, End, Kind};
use cairn_server_kit::trace::SpanKind;

use super::Driver;
use crate::{
    clock,
    error::NodeError,
    mailbox::{Mailbox, Reply},
};

impl Driver {
    /// Executes one operation on a partition that the asker knows at `epoch` (0: not at all). The answer comes through
    /// the mailbox of the asker's thread, if it has one.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn execute(
        &self,
        mut operation: Operation,
        epoch: u64,
        mailbox: Option<&Arc<Mailbox>>,
    ) -> Result<Outcome, NodeError> {
        let (kind, began) = (Kind::of(&operation.action), Instant::now());
        let partition = operation.name.partition(self.partitions.count());
        let result = match self.read_memory(partition, &operation, epoch) {
            Some(outcome) => Ok(outcome),
            None if matches!(operation.action, Action::Explain) => {
                self.explain(partition, &operation.name, epoch).await
            }
            None => self.run(partition, &mut operation, epoch, mailbox).await,
        };
        self.count(&operation, &result);
        let end = End::of(result.as_ref().ok());
        self.metrics.operations.observe(kind, began, end, || Details {
            bucket: operation.name.bucket(),
            tier: tier_of(&result),
            trace_id: operation.trace.map(|trace| trace.trace_id),
            ..Details::default()
        });
        result
    }

    /// A read that memory can answer takes no lock of its partition. The lease is looked at after the read: while it
    /// holds, nobody else can have changed what was read.
    fn read_memory(&self, partition: u32, operation: &Operation, epoch: u64) -> Option<Outcome> {
        let wants_value = match operation.action {
            Action::Get => true,
            Action::Head => false,
            _ => return None,
        };
        let served = self.partitions.serving_epoch(partition);
        if served == 0 || served < epoch || operation.condition != Condition::None || self.clock_is_off() {
            return None;
        }
        let entry = self.memory.get(operation.name.as_bytes()).filter(|entry| entry.is_live(clock::wall()))?;
        let (metadata, tier) = (entry.metadata(), Tier::Memory);
        let value = Some(if wants_value { entry.value_bytes() } else { Bytes::new() });
        let still = self.partitions.serving_epoch(partition) == served && self.partitions.has_lease(partition);
        still.then_some(Outcome::Found { metadata, tier, value })
    }

    pub(super) async fn run(
        &self,
        partition: u32,
        operation: &mut Operation,
        epoch: u64,
        mailbox: Option<&Arc<Mailbox>>,
    ) -> Result<Outcome, NodeError> {
        let mut request = self.request(operation, epoch)?;
        let uploads = request.verb.is_write() && request.durability == Durability::Object;
        if request.verb.is_write() {
            let bytes = if let Verb::Put(entry) = &request.verb { entry.value().len() } else { 0 };
            request.room = Some(self.disk.reserve(bytes, false).await?);
        }
        // Reads of lower tiers, which may be slow, must not take all the places that a connection of a master has.
        let _place = match request.verb.is_write() {
            true => None,
            false => Some(self.slow_reads.try_acquire().map_err(|_| TierError::Overloaded)?),
        };
        let mut span = uploads.then(|| self.tracer.child("object_store", SpanKind::Client, operation.trace));
        let _awaited = uploads.then(|| self.uploads.wait());
        let (reply, answer) = Reply::new(mailbox.cloned());
        self.drive(partition, |engine, step| engine.submit(request, reply, step));
        let answer = answer.await.map_err(|_| TierError::ShuttingDown)?;
        if let Some(span) = &mut span {
            span.set("cairn.operation", "write");
            if matches!(answer, Err(cairn_engine::Error::UploadNotConfirmed)) {
                span.fail("the upload was not confirmed in time");
            }
        }
        Ok(answer?)
    }

    /// What the engine is asked. The value of a put is let go.
    fn request(&self, operation: &mut Operation, epoch: u64) -> Result<Request, NodeError> {
        let (verb, durability) = match &mut operation.action {
            Action::Get => (Verb::Get, None),
            Action::Head => (Verb::Head, None),
            Action::Put(put) => (Verb::Put(self.entry(&operation.name, put)?), put.durability),
            Action::Delete { durability } => (Verb::Delete, *durability),
            Action::Increment { delta, ttl, durability } => {
                (Verb::Increment { delta: *delta, lifetime: self.lifetime(*ttl) }, *durability)
            }
            Action::Explain => return Err(NodeError::Unsupported("an explanation is no verb of the engine")),
        };
        if durability == Some(Durability::Object) && self.objects.is_none() {
            return Err(NodeError::Unsupported("durability=object needs an object store, and none is configured"));
        }
        Ok(Request {
            condition: operation.condition,
            durability: durability.unwrap_or_default(),
            key: operation.idempotency_key.take(),
            epoch,
            eventual: operation.is_eventual(),
            trace: operation.trace,
            ..Request::new(operation.name.clone(), verb)
        })
    }

    /// The entry that a put asks for, but for its version.
    fn entry(&self, name: &EntryName, put: &mut Put) -> Result<Entry, NodeError> {
        let value = std::mem::take(&mut put.value);
        let limit = self.settings.max_value_bytes;
        if value.len() > limit {
            return Err(NodeError::ValueTooLarge { size: value.len(), limit });
        }
        let now = clock::wall();
        let metadata = Metadata {
            version: Version::NONE,
            modified_at: now,
            expires_at: self.lifetime(put.ttl).map(|lifetime| now.saturating_add(lifetime)),
            size: value.len() as u64,
            content_type: std::mem::take(&mut put.content_type),
        };
        Ok(Entry::new(name, &metadata, &value))
    }

    /// The milliseconds of a time to live, or of the default one.
    fn lifetime(&self, ttl: Option<Duration>) -> Option<u64> {
        let ttl = ttl.or(self.settings.default_ttl)?;
        Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    /// Counts a read by the tier that answered it.
    fn count(&self, operation: &Operation, result: &Result<Outcome, NodeError>) {
        match result {
            Ok(Outcome::Found { tier, .. } | Outcome::NotModified(_, tier)) => self.metrics.hit(*tier),
            Ok(Outcome::Missing(_)) if !operation.action.is_write() => self.metrics.misses.inc(),
            _ => {}
        }
    }

    /// Turns a key whose time has come, or that must make room, into a deletion, unless it has changed. The caller need
    /// not wait for the disk.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub(super) async fn remove(&self, name: EntryName, version: Version, why: Removal) -> Result<Outcome, NodeError> {
        let partition = name.partition(self.partitions.count());
        let room = Some(self.disk.reserve(0, false).await?);
        let durability = Durability::Memory;
        let request = Request { room, durability, ..Request::new(name, Verb::Remove(version, why)) };
        let (reply, answer) = Reply::new(None);
        self.drive(partition, |engine, step| engine.submit(request, reply, step));
        Ok(answer.await.map_err(|_| TierError::ShuttingDown)??)
    }

    /// The first live keys of a range that stand in `partitions`, in the order of their names.
    ///
    /// # Errors
    /// When one of the partitions is not served here, or the disk fails.
    pub async fn list(
        &self,
        query: ListQuery,
        wanted: &[u32],
        trace: Option<TraceContext>,
    ) -> Result<Vec<ListedName>, NodeError> {
        let began = Instant::now();
        let result = self.list_names(query.clone(), wanted).await;
        let end = if result.is_ok() { End::Hit } else { End::Error };
        self.metrics.operations.observe(Kind::List, began, end, || Details {
            bucket: query.bucket(),
            trace_id: trace.map(|trace| trace.trace_id),
            ..Details::default()
        });
        result
    }

    async fn list_names(&self, mut query: ListQuery, wanted: &[u32]) -> Result<Vec<ListedName>, NodeError> {
        let mut chosen = vec![false; self.partitions.count() as usize];
        for partition in wanted {
            self.ready(*partition, 0).await?;
            chosen[*partition as usize] = true;
        }
        // Answered writes may still be on their way to the disk.
        super::load::in_time(self.disk.barrier()).await?;
        let now = clock::wall();
        let mut listed = Vec::new();
        while listed.len() < query.limit {
            let page = super::load::in_time(self.disk.list(&query, now, query.limit)).await?;
            let Some(last) = page.last() else { break };
            let more = page.len() == query.limit;
            query.start = Bytes::from([&last.name[..], &[0]].concat());
            for row in page.into_iter().filter(|row| chosen[row.partition as usize]).take(query.limit - listed.len()) {
                let name = EntryName::from_bytes(row.name).map_err(|_| TierError::Corrupt)?;
                let newest = self.partitions.lock(row.partition).newest(name.as_bytes());
                let uncommitted = matches!(newest, Newest::Uncommitted);
                let metadata = if uncommitted { self.current(&name).await? } else { Some(row.metadata) };
                listed.extend(metadata.map(|metadata| ListedName { name, metadata }));
            }
            if !more {
                break;
            }
        }
        // What moved away meanwhile may have changed there.
        match wanted.iter().find(|partition| self.partitions.serving_epoch(**partition) == 0) {
            Some(partition) => Err(self.not_owner(*partition)),
            None => Ok(listed),
        }
    }

    /// What reads are told of a key; `None` when it is not there.
    async fn current(&self, name: &EntryName) -> Result<Option<Metadata>, NodeError> {
        let operation = Operation::new(name.clone(), Condition::None, Action::Head);
        let partition = name.partition(self.partitions.count());
        match self.run(partition, &mut operation.clone(), 0, None).await? {
            Outcome::Found { metadata, .. } => Ok(Some(metadata)),
            _ => Ok(None),
        }
    }
}

fn tier_of(result: &Result<Outcome, NodeError>) -> Option<Tier> {
    match result {
        Ok(Outcome::Found { tier, .. } | Outcome::NotModified(_, tier)) => Some(*tier),
        _ => None,
    }
}
