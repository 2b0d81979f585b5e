//! Writes: decided, numbered and queued under the partition's lock; answered when they are as durable as was asked.

use std::time::Duration;

use cairn_api_spec::{
    EntryName, Operation, Outcome, TraceContext, Version,
    operation::{Action, Durability, IdempotencyKey, Metadata, Put},
    version::Condition,
};
use cairn_replication::{NotServing, Role};
use cairn_server_kit::trace::SpanKind;
use tokio::sync::oneshot;

use super::{COMMIT_TIMEOUT, Store};
use crate::{
    claim::Claim,
    clock,
    disk::{Change, Idempotency, Reservation, Write},
    entry::{Entry, now_millis},
    error::NodeError,
    mailbox::{Reply, Settled},
    partition::{Current, Flight, Loaded, Locked, Payload, tell},
};

/// The longest that a write with `durability=object` waits for its upload.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A write whose condition has not been looked at.
pub(super) struct Proposal {
    pub(super) partition: u32,
    pub(super) name: EntryName,
    condition: Condition,
    durability: Durability,
    /// The new entry, but for its version; `None` for a delete.
    pub(super) entry: Option<Entry>,
    /// Sweeping: an entry whose time has come counts as there.
    sweep: bool,
    /// Of the idempotency key, if there is one.
    pub(super) claim: Option<Claim>,
    trace: Option<TraceContext>,
}

/// What came of an attempt to decide a write.
enum Step {
    /// It is decided.
    Decided(Decided),
    /// The partition is not served at the moment.
    NotServing,
    /// The key's state must be looked up first.
    LookUp(Flight),
}

/// A write that was decided.
enum Decided {
    /// It changes nothing, if the queued write that it was decided on is stored.
    RefusedIf(Outcome, oneshot::Receiver<Settled>),
    /// It changes nothing.
    Refused(Outcome),
    /// It stands in the queue; nobody is told of the end of what was answered ahead of it.
    Queued(Outcome, Option<oneshot::Receiver<Settled>>, Version),
}

impl Store {
    /// Does a put, whose value it takes, or a delete.
    pub(super) async fn change(&self, partition: u32, operation: &mut Operation) -> Result<Outcome, NodeError> {
        let Operation { name, condition, action, idempotency_key, trace, .. } = operation;
        let (durability, entry) = match action {
            Action::Put(put) => (put.durability, Some(self.entry(name, put)?)),
            Action::Delete { durability } => (*durability, None),
            Action::Get | Action::Head => return Err(NodeError::Unsupported("a read changes nothing")),
        };
        let proposal = Proposal {
            partition,
            name: name.clone(),
            condition: *condition,
            durability: durability.unwrap_or_default(),
            entry,
            sweep: false,
            claim: None,
            trace: *trace,
        };
        self.write(proposal, idempotency_key.take()).await
    }

    /// The entry that a put asks for, but for its version. Its value is let go.
    fn entry(&self, name: &EntryName, put: &mut Put) -> Result<Entry, NodeError> {
        let value = std::mem::take(&mut put.value);
        let limit = self.settings.max_value_bytes;
        if value.len() > limit {
            return Err(NodeError::ValueTooLarge { size: value.len(), limit });
        }
        let now = now_millis();
        let ttl = put.ttl.or(self.settings.default_ttl).map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let metadata = Metadata {
            version: Version::NONE,
            modified_at: now,
            expires_at: ttl.map(|ttl| now.saturating_add(ttl)),
            size: value.len() as u64,
            content_type: std::mem::take(&mut put.content_type),
        };
        Ok(Entry::new(name, &metadata, &value))
    }

    /// Turns a key whose time has come, or that must make room, into a deletion, unless it changed. The caller need not
    /// wait for the disk.
    pub(crate) async fn drop_key(
        &self,
        partition: u32,
        name: EntryName,
        version: Version,
    ) -> Result<Outcome, NodeError> {
        let (condition, durability) = (Condition::Matches(version), Durability::Memory);
        let (entry, claim, trace) = (None, None, None);
        self.write(Proposal { partition, name, condition, durability, entry, sweep: true, claim, trace }, None).await
    }

    async fn write(&self, mut proposal: Proposal, key: Option<IdempotencyKey>) -> Result<Outcome, NodeError> {
        let (durability, trace) = (proposal.durability, proposal.trace);
        if durability == Durability::Object && self.objects.is_none() {
            return Err(NodeError::Unsupported("durability=object needs an object store, and none is configured"));
        }
        // Before the version is known, or an upload that is quicker than this task would be missed.
        let mut uploaded = (durability == Durability::Object).then(|| self.uploads.watch(proposal.name.as_bytes()));
        let first = match key {
            Some(key) => self.claim_or_find(&mut proposal, key).await?,
            None => None,
        };
        let (outcome, version) = if let Some(first) = first {
            let (outcome, version) = self.repeat(&proposal, first).await?;
            if uploaded.is_some() && self.is_uploaded(&proposal, version).await? {
                uploaded = None;
            }
            (outcome, version)
        } else {
            let (outcome, settled, version) = match self.decide(proposal).await? {
                Decided::Refused(outcome) | Decided::RefusedIf(outcome, _) => return Ok(outcome),
                Decided::Queued(outcome, settled, version) => (outcome, settled, version),
            };
            if let Some(settled) = settled {
                let settled = tokio::time::timeout(COMMIT_TIMEOUT, settled).await.map_err(|_| NodeError::Superseded)?;
                settled.map_err(|_| NodeError::Unsettled)??;
            }
            (outcome, version)
        };
        if let Some(uploaded) = uploaded {
            let mut span = self.tracer.child("object_store", SpanKind::Client, trace);
            span.set("cairn.operation", "write");
            if !uploaded.reaches(version, UPLOAD_TIMEOUT).await {
                span.fail("the upload was not confirmed in time");
                return Err(NodeError::UploadNotConfirmed);
            }
        }
        Ok(outcome)
    }

    async fn decide(&self, mut proposal: Proposal) -> Result<Decided, NodeError> {
        let partition = proposal.partition;
        let bytes = proposal.entry.as_ref().map_or(0, |entry| entry.value().len());
        let mut reservation = Some(self.disk.reserve(bytes, false).await?);
        let mut looked_up: Option<(Flight, Loaded)> = None;
        loop {
            let served = self.partitions.serving_epoch(partition);
            let refused = match self.try_decide(&mut proposal, looked_up.take(), &mut reservation)? {
                Step::Decided(Decided::RefusedIf(outcome, settled)) => {
                    settled.await.map_err(|_| NodeError::ShuttingDown)?.is_ok().then_some(outcome)
                }
                Step::Decided(Decided::Refused(outcome)) => Some(outcome),
                Step::Decided(decided) => return Ok(decided),
                Step::NotServing => {
                    self.ready_to_write(partition, 0).await?;
                    None
                }
                Step::LookUp(flight) => {
                    let loaded = flight.result.clone().await?;
                    looked_up = Some((flight, loaded));
                    None
                }
            };
            // A refusal tells what the key is, and counts only as long as a read would.
            if let Some(outcome) = refused {
                if self.partitions.serving_epoch(partition) == served && self.partitions.has_lease(partition) {
                    return Ok(Decided::Refused(outcome));
                }
                self.ready(partition, 0).await?;
            }
        }
    }

    /// One critical section: decides the write, or says what is missing for that.
    fn try_decide(
        &self,
        proposal: &mut Proposal,
        looked_up: Option<(Flight, Loaded)>,
        reservation: &mut Option<Reservation>,
    ) -> Result<Step, NodeError> {
        let partition = proposal.partition;
        let mut locked = self.partitions.lock(partition);
        match locked.replica.check_serving() {
            Ok(()) => {}
            Err(NotServing::Role(_)) => return Ok(Step::NotServing),
            Err(NotServing::BelowMinInSync { in_sync, required }) => {
                return Err(NodeError::BelowMinInSync { partition, in_sync, required });
            }
        }
        if proposal.claim.as_ref().is_some_and(|claim| !claim.stands(&locked.claims)) {
            return Err(self.not_owner(partition));
        }
        let Some(current) = self.current(&locked, proposal, looked_up) else {
            let name = proposal.name.as_bytes();
            return Ok(Step::LookUp(self.flight(&mut locked, partition, name, false, proposal.trace)));
        };
        if let Some(outcome) = refusal(proposal, current) {
            return Ok(Step::Decided(if current.pending {
                let (reply, settled) = Reply::new(self.mailbox());
                locked.tell_of(current.version, reply);
                Decided::RefusedIf(outcome, settled)
            } else {
                Decided::Refused(outcome)
            }));
        }
        let reservation = reservation.take().ok_or(NodeError::Overloaded)?;
        self.queue(&mut locked, proposal, current, reservation).map(Step::Decided)
    }

    /// The newest state of the key: from the queue or memory, else from a look at the disk that nothing has outdated.
    fn current(
        &self,
        locked: &Locked<'_>,
        proposal: &Proposal,
        looked_up: Option<(Flight, Loaded)>,
    ) -> Option<Current> {
        let now = if proposal.sweep { 0 } else { now_millis() };
        locked.known(proposal.name.as_bytes(), now).or_else(|| {
            let (flight, loaded) = looked_up?;
            if !locked.is_current(proposal.name.as_bytes(), &flight) {
                return None;
            }
            Some(match loaded {
                Loaded::Nothing => Current { version: Version::NONE, live: false, pending: false },
                Loaded::Head(row) => Current { version: row.metadata.version, live: row.is_live(now), pending: false },
                Loaded::Value(entry, _) => {
                    Current { version: entry.version(), live: entry.is_live(now), pending: false }
                }
            })
        })
    }

    fn queue(
        &self,
        locked: &mut Locked<'_>,
        proposal: &mut Proposal,
        current: Current,
        reservation: Reservation,
    ) -> Result<Decided, NodeError> {
        let (partition, durability) = (proposal.partition, proposal.durability);
        let ahead = durability == Durability::Memory;
        let mut effects = Vec::new();
        let mut payload = payload(proposal, current, reservation.clone());
        let idempotency = payload.idempotency.clone();
        let mut change = None;
        let proposed = locked.replica.propose(current.version, ahead, clock::now(), &mut effects, |version| {
            payload.change.set_version(version);
            change = Some(payload.change.clone());
            payload
        });
        let (Ok(version), Some(change)) = (proposed, change) else { return Err(self.not_owner(partition)) };
        let flush = durability == Durability::Fsync;
        let mut span = self.tracer.child("disk", SpanKind::Internal, proposal.trace);
        span.set("cairn.operation", "write");
        let queued = self.disk.enqueue(Write {
            partition,
            change: change.clone(),
            flush,
            awaited: !ahead,
            reply: None,
            reservation: Some(reservation),
            idempotency,
            span,
        });
        match queued {
            Ok(()) => {
                locked.begin(&change);
                if let Some(claim) = &proposal.claim {
                    locked.claims.pass_on(claim.key(), version);
                }
            }
            // The disk fails, and so does the partition, unless nobody else has heard of the write.
            Err(error) if locked.replica.persist_failed(version, &mut effects) => return Err(error),
            Err(_) => {}
        }
        let mut told = Vec::new();
        locked.absorb(&mut effects, &mut told);
        self.dispatch(partition, effects);
        tell(told);
        if locked.replica.role() == Role::Failing {
            return Err(NodeError::Superseded);
        }
        let awaited = version > locked.replica.committed() && !cfg!(feature = "planted-bug");
        let settled = awaited.then(|| {
            let (reply, settled) = Reply::new(self.mailbox());
            locked.tell_of(version, reply);
            settled
        });
        let outcome = match &change {
            Change::Put(entry) => Outcome::Stored { created: !current.live, metadata: entry.metadata() },
            Change::Delete { version, .. } => Outcome::Deleted(*version),
        };
        Ok(Decided::Queued(outcome, settled, version))
    }
}

/// What is kept of a write, but for its version. Takes the proposal's entry.
fn payload(proposal: &mut Proposal, current: Current, reservation: Reservation) -> Payload {
    let created = proposal.entry.is_some() && !current.live;
    let idempotency = proposal.claim.as_ref().map(|claim| Idempotency { key: claim.key().clone(), created });
    let change = match proposal.entry.take() {
        Some(entry) => Change::Put(entry),
        None => Change::Delete { name: proposal.name.as_bytes().clone(), version: Version::NONE, at: now_millis() },
    };
    let Proposal { durability, trace, .. } = *proposal;
    Payload { change, durability, reservation: Some(reservation), idempotency, trace }
}

/// Why a write changes nothing, if it does not.
fn refusal(proposal: &Proposal, current: Current) -> Option<Outcome> {
    if !proposal.condition.holds(current.live.then_some(current.version)) {
        return Some(Outcome::ConditionFailed(current.version));
    }
    (proposal.entry.is_none() && !current.live).then_some(Outcome::Missing(current.version))
}
