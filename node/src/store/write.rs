//! Writes: decided, numbered and queued under the partition's lock; answered when they are as durable as was asked.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use cairn_api_spec::{
    EntryName, Outcome, Version,
    operation::{Durability, Metadata, Put},
    version::Condition,
};
use tokio::sync::oneshot;

use super::Store;
use crate::{
    disk::{Change, Reservation, Write},
    entry::{Entry, now_millis},
    error::NodeError,
    mailbox::{Reply, Settled},
    partition::{Current, Flight, Loaded, Role, State},
};

/// The longest that a write with `durability=object` waits for its upload.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A write whose condition has not been looked at.
struct Proposal {
    partition: u32,
    name: EntryName,
    condition: Condition,
    durability: Durability,
    /// The new entry, but for its version; `None` for a delete.
    entry: Option<Entry>,
    /// Sweeping: an entry whose time has come counts as there.
    expire: bool,
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
    pub(super) async fn put(
        &self,
        partition: u32,
        name: EntryName,
        condition: Condition,
        put: Put,
    ) -> Result<Outcome, NodeError> {
        let limit = self.settings.max_value_bytes;
        if put.value.len() > limit {
            return Err(NodeError::ValueTooLarge { size: put.value.len(), limit });
        }
        let now = now_millis();
        let ttl = put.ttl.or(self.settings.default_ttl).map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let metadata = Metadata {
            version: Version::NONE,
            modified_at: now,
            expires_at: ttl.map(|ttl| now.saturating_add(ttl)),
            size: put.value.len() as u64,
            content_type: put.content_type,
        };
        let entry = Entry::new(&name, &metadata, &put.value);
        drop(put.value);
        let durability = put.durability.unwrap_or_default();
        self.write(Proposal { partition, name, condition, durability, entry: Some(entry), expire: false }).await
    }

    pub(super) async fn delete(
        &self,
        partition: u32,
        name: EntryName,
        condition: Condition,
        durability: Durability,
    ) -> Result<Outcome, NodeError> {
        self.write(Proposal { partition, name, condition, durability, entry: None, expire: false }).await
    }

    /// Turns a key whose time has come into a deletion, unless it changed. The caller need not wait for the disk.
    pub(crate) async fn expire(&self, partition: u32, name: EntryName, version: Version) -> Result<Outcome, NodeError> {
        let condition = Condition::Matches(version);
        self.write(Proposal { partition, name, condition, durability: Durability::Memory, entry: None, expire: true })
            .await
    }

    async fn write(&self, proposal: Proposal) -> Result<Outcome, NodeError> {
        let durability = proposal.durability;
        if durability == Durability::Object && self.objects.is_none() {
            return Err(NodeError::Unsupported("durability=object needs an object store, and none is configured"));
        }
        // Before the version is known, or an upload that is quicker than this task would be missed.
        let uploaded = (durability == Durability::Object).then(|| self.uploads.watch(proposal.name.as_bytes()));
        let (outcome, settled, version) = match self.decide(proposal).await? {
            Decided::Refused(outcome) | Decided::RefusedIf(outcome, _) => return Ok(outcome),
            Decided::Queued(outcome, settled, version) => (outcome, settled, version),
        };
        if let Some(settled) = settled {
            settled.await.map_err(|_| NodeError::Unsettled)??;
        }
        if let Some(uploaded) = uploaded
            && !uploaded.reaches(version, UPLOAD_TIMEOUT).await
        {
            return Err(NodeError::UploadNotConfirmed);
        }
        Ok(outcome)
    }

    async fn decide(&self, mut proposal: Proposal) -> Result<Decided, NodeError> {
        let partition = proposal.partition;
        let bytes = proposal.entry.as_ref().map_or(0, |entry| entry.value().len());
        let mut reservation = Some(self.disk.reserve(bytes).await?);
        let mut looked_up: Option<(Flight, Loaded)> = None;
        loop {
            match self.try_decide(&mut proposal, looked_up.take(), &mut reservation)? {
                Step::Decided(Decided::RefusedIf(outcome, settled)) => {
                    if settled.await.map_err(|_| NodeError::ShuttingDown)?.is_ok() {
                        return Ok(Decided::Refused(outcome));
                    }
                }
                Step::Decided(decided) => return Ok(decided),
                Step::NotServing => {
                    self.ready(partition, 0).await?;
                }
                Step::LookUp(flight) => {
                    let loaded = flight.result.clone().await?;
                    looked_up = Some((flight, loaded));
                }
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
        let mut state = self.partitions.lock(proposal.partition);
        if state.role != Role::Serving {
            return Ok(Step::NotServing);
        }
        let Some(current) = self.current(&state, proposal, looked_up) else {
            return Ok(Step::LookUp(self.flight(&mut state, proposal.partition, proposal.name.as_bytes(), false)));
        };
        if let Some(outcome) = refusal(proposal, current) {
            return Ok(Step::Decided(if current.pending {
                let (reply, settled) = Reply::new(self.mailbox());
                state.tell_of(current.version, reply);
                Decided::RefusedIf(outcome, settled)
            } else {
                Decided::Refused(outcome)
            }));
        }
        let reservation = reservation.take().ok_or(NodeError::Overloaded)?;
        self.queue(&mut state, proposal, current, reservation).map(Step::Decided)
    }

    /// The newest state of the key: from the queue or memory, else from a look at the disk that nothing has outdated.
    fn current(&self, state: &State, proposal: &Proposal, looked_up: Option<(Flight, Loaded)>) -> Option<Current> {
        let now = if proposal.expire { 0 } else { now_millis() };
        self.partitions.known(state, proposal.name.as_bytes(), now).or_else(|| {
            let (flight, loaded) = looked_up?;
            if flight.stale.load(Ordering::Acquire) {
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
        state: &mut State,
        proposal: &mut Proposal,
        current: Current,
        reservation: Reservation,
    ) -> Result<Decided, NodeError> {
        let version = state.last_version.max(current.version).next(state.epoch);
        let (change, outcome) = match proposal.entry.take() {
            Some(mut entry) => {
                entry.set_version(version);
                let outcome = Outcome::Stored { created: !current.live, metadata: entry.metadata() };
                (Change::Put(entry), outcome)
            }
            None => {
                let name: Bytes = proposal.name.as_bytes().clone();
                (Change::Delete { name, version, at: now_millis() }, Outcome::Deleted(version))
            }
        };
        let ahead = proposal.durability == Durability::Memory;
        let (reply, settled) = if ahead { (None, None) } else { Some(Reply::new(self.mailbox())).unzip() };
        self.disk.enqueue(Write {
            partition: proposal.partition,
            change: change.clone(),
            flush: proposal.durability == Durability::Fsync,
            reply,
            reservation,
        })?;
        self.partitions.begin(state, &change, ahead);
        Ok(Decided::Queued(outcome, settled, version))
    }
}

/// Why a write changes nothing, if it does not.
fn refusal(proposal: &Proposal, current: Current) -> Option<Outcome> {
    if !proposal.condition.holds(current.live.then_some(current.version)) {
        return Some(Outcome::ConditionFailed(current.version));
    }
    (proposal.entry.is_none() && !current.live).then_some(Outcome::Missing(current.version))
}
