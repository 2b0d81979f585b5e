//! Writes: decided, numbered and queued in one call; answered when they are as durable as was asked.

use bytes::Bytes;
use cairn_api_spec::{
    ApiError, Outcome, Version,
    operation::{Durability, Metadata},
    peer::FirstOutcome,
};
use cairn_replication::{NotServing, Role};

use super::{COMMIT, Effect, Engine, Known, LOAD, Pending, Step, UPLOAD, read::Gate};
use crate::{
    change::{Change, Idempotency, Payload, Refused},
    counter::counter,
    entry::Entry,
    error::{Error, TierError},
    reads::Loaded,
    request::{JobId, Request, Stage},
    verb::{Current, Decision, Verb, decide},
};

impl<W> Engine<W> {
    pub(super) fn write(&mut self, id: JobId, loaded: Option<&Loaded>, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get(id) else { return };
        match self.gate_write(&job.request, step) {
            Gate::Open => {}
            Gate::Wait => return self.park(id),
            Gate::Refuse(error) => return self.finish(id, Err(error), step),
        }
        if !self.claim(id, step) {
            return;
        }
        let Some(job) = self.jobs.get(id) else { return };
        let Some(known) = self.known(&job.request, loaded, step) else {
            let with_value = job.request.verb.wants_value();
            return self.load(id, with_value, Stage::Loading, step);
        };
        match decide(&job.request.verb, job.request.condition, &known.current) {
            // Its client could otherwise learn of the write under way, and then read what was before it.
            Decision::Refuse(refusal) if known.pending => {
                self.wait_for(id, known.current.version, Stage::Refusing(refusal), step);
            }
            Decision::Refuse(refusal) => self.refuse(id, refusal, step),
            Decision::Count(value) => self.count(id, value, &known.current, step),
            Decision::Store => {
                let Some(job) = self.jobs.get_mut(id) else { return };
                if let Verb::Put(entry) = std::mem::replace(&mut job.request.verb, Verb::Delete) {
                    let metadata = entry.metadata();
                    let outcome = Outcome::Stored { created: !known.current.live, metadata };
                    self.propose(id, Change::Put(entry), &known.current, outcome, step);
                }
            }
            Decision::Remove(why) => {
                let name = Bytes::clone(job.request.name.as_bytes());
                let change = Change::Delete { name, version: Version::NONE, at: step.moment.wall, why };
                self.propose(id, change, &known.current, Outcome::Deleted(Version::NONE), step);
            }
        }
    }

    /// Stores the sum of an increment.
    fn count(&mut self, id: JobId, value: i64, current: &Current, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get(id) else { return };
        let Verb::Increment { lifetime, .. } = job.request.verb else { return };
        let now = step.moment.wall;
        let expires_at = match current.entry.as_ref().filter(|_| current.live) {
            Some(entry) => entry.metadata().expires_at,
            None => lifetime.map(|lifetime| now.saturating_add(lifetime)),
        };
        let entry = counter(&job.request.name, value, now, expires_at);
        let outcome = Outcome::Counted { value, created: !current.live, metadata: entry.metadata() };
        self.propose(id, Change::Put(entry), current, outcome, step);
    }

    /// Whether the node takes writes now. A refusal tells what the key is, so writes are looked at under a lease, too.
    fn gate_write(&self, request: &Request, step: &Step<'_, W>) -> Gate {
        match self.gate(request.epoch, step, |role| role == Role::Serving) {
            Gate::Open => match self.replica.check_serving() {
                Ok(()) if self.kept.is_full() => Gate::Refuse(Error::Overloaded(self.partition)),
                Ok(()) => Gate::Open,
                Err(NotServing::Role(_) | NotServing::NoVersionLeft) => Gate::Wait,
                Err(NotServing::TooManyUnstable) => Gate::Refuse(Error::Overloaded(self.partition)),
                Err(NotServing::BelowMinInSync { in_sync, required }) => {
                    Gate::Refuse(Error::BelowMinInSync { partition: self.partition, in_sync, required })
                }
            },
            closed => closed,
        }
    }

    /// Claims the idempotency key, if there is one, and asks what became of the first write with it. Returns whether
    /// nothing need be waited for.
    fn claim(&mut self, id: JobId, step: &mut Step<'_, W>) -> bool {
        let Some(job) = self.jobs.get_mut(id) else { return false };
        let Some(key) = job.request.key.as_ref().filter(|_| !job.claimed) else { return true };
        if !self.claims.take(key, id) {
            self.jobs.enter(id, Stage::Claiming, step.moment.now + COMMIT);
            return false;
        }
        job.claimed = true;
        if !step.near.may_recall(self.partition, key) {
            return true;
        }
        let key = key.clone();
        self.jobs.enter(id, Stage::Recalling, step.moment.now + LOAD);
        step.out.push(Effect::Recall { job: id, key });
        false
    }

    /// What the disk knows of the first write with a request's idempotency key.
    pub fn recalled(&mut self, id: JobId, result: Result<Option<FirstOutcome>, TierError>, step: &mut Step<'_, W>) {
        self.note_disk(result.as_ref().err(), step);
        let Some(job) = self.jobs.get(id).filter(|job| matches!(job.stage, Stage::Recalling)) else { return };
        match result {
            Err(error) => self.finish(id, Err(error.into()), step),
            // The claim has gone with the role; the request begins anew.
            Ok(_) if !job.claimed => self.ready.push_back(id),
            Ok(None) => self.write(id, None, step),
            Ok(Some(first)) => self.repeat(id, first, step),
        }
        self.settle(step);
    }

    /// The newest state of the key: of a write under way, else from memory, else from what was read and is not out of
    /// date.
    fn known(&self, request: &Request, loaded: Option<&Loaded>, step: &Step<'_, W>) -> Option<Known> {
        // To expiry and eviction an entry whose time has come is still there.
        let wall = if matches!(request.verb, Verb::Remove(..)) { 0 } else { step.moment.wall };
        let name = request.name.as_bytes();
        let is_live = |entry: &Entry| entry.is_live(wall);
        if let Some(Pending { version, entry, committed, .. }) = self.newest_pending(name) {
            let live = entry.as_ref().is_some_and(is_live);
            let current = Current { version: *version, live, entry: entry.clone() };
            return Some(Known { current, pending: !committed });
        }
        let current = match (step.near.get(name), loaded.cloned()) {
            (Some(entry), _) | (None, Some(Loaded::Value(entry, _))) => {
                Current { version: entry.version(), live: is_live(&entry), entry: Some(entry) }
            }
            (None, Some(loaded)) => Current { version: loaded.version(), live: loaded.is_live(wall), entry: None },
            (None, None) => return None,
        };
        Some(Known { current, pending: false })
    }

    /// Answers a refusal; under an idempotency key it is remembered on every copy before.
    pub(super) fn refuse(&mut self, id: JobId, refusal: Result<Outcome, Error>, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get(id) else { return };
        let (refused, outcome) = match refusal {
            Ok(outcome @ Outcome::ConditionFailed(version)) if job.request.key.is_some() => {
                (Refused::ConditionFailed(version), outcome)
            }
            Ok(outcome @ Outcome::Missing(version)) if job.request.key.is_some() => {
                (Refused::Missing(version), outcome)
            }
            refusal => return self.finish(id, refusal, step),
        };
        let name = Bytes::clone(job.request.name.as_bytes());
        let deletes = job.request.verb.removes();
        let change = Change::Note { name, version: Version::NONE, at: step.moment.wall, refused, deletes };
        self.propose(id, change, &Current { live: true, ..Current::default() }, outcome, step);
    }

    /// Numbers a change, and sends it to the disk and the replicas.
    fn propose(&mut self, id: JobId, change: Change, current: &Current, outcome: Outcome, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let request = &mut job.request;
        let is_note = matches!(change, Change::Note { .. });
        // A note promises nothing about a value: its copies need not be on the disks before it is answered.
        let durability = if is_note { Durability::Memory } else { request.durability };
        let created = matches!(change, Change::Put(_)) && !current.live;
        let counted = if let Outcome::Counted { value, .. } = outcome { Some(value) } else { None };
        let idempotency = request.key.as_ref().map(|key| Idempotency { key: key.clone(), created, counted });
        // The disk's queue has room again when the disk has the write, however long its copies take.
        let (queued, kept_room) = (request.room.take(), Some(self.kept.keep(change.value_len())));
        let mut payload = Payload { change, durability, room: kept_room, idempotency, trace: request.trace };
        let ahead = durability == Durability::Memory;
        let mut kept = None;
        let proposed = self.replica.propose(current.version, ahead, step.moment.now, &mut self.effects, |version| {
            payload.change.set_version(version);
            kept = Some(payload.clone());
            payload
        });
        let (Ok(version), Some(payload)) = (proposed, kept) else {
            let error = self.not_owner();
            return self.finish(id, Err(error), step);
        };
        if let Some(key) = request.key.as_ref().filter(|_| job.claimed) {
            self.claims.pass_on(key, version);
        }
        self.begin(&payload.change);
        let data = Payload { room: queued, ..payload };
        step.out.push(Effect::Persist(super::Replicated { version, data }));
        let outcome = numbered(outcome, version);
        if cfg!(cairn_planted_bug) {
            return self.finish(id, Ok(outcome), step);
        }
        self.wait_for(id, version, Stage::Committing(outcome), step);
    }

    /// Notes a change that is on its way.
    fn begin(&mut self, change: &Change) {
        let (name, entry) = match change {
            Change::Put(entry) => (Bytes::copy_from_slice(entry.name()), Some(entry.clone())),
            Change::Delete { name, .. } => (name.clone(), None),
            Change::Note { .. } => return,
        };
        self.reads.changed(&name);
        let version = change.version();
        let pending = Pending { version, entry, committed: false, on_disk: false };
        self.pending.entry(name).or_default().push(pending);
    }

    /// Answers a request whose write was done, or refused, before.
    pub(super) fn repeat(&mut self, id: JobId, first: FirstOutcome, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get(id) else { return };
        let request = &job.request;
        let counts = matches!(request.verb, Verb::Increment { .. });
        let is_same_kind =
            first.tombstone == request.verb.removes() && (first.refused != 0 || first.counted.is_some() == counts);
        if first.name != *request.name.as_bytes() || !is_same_kind {
            return self.finish(id, Err(Error::KeyReused), step);
        }
        let version = Version(first.version);
        if version > self.replica.committed() {
            return self.wait_for(id, version, Stage::Repeating(first), step);
        }
        let Ok(outcome) = first_outcome(request, &first) else {
            return self.finish(id, Err(TierError::Corrupt.into()), step);
        };
        let is_done = !matches!(outcome, Outcome::ConditionFailed(_) | Outcome::Missing(_));
        if is_done && request.durability == Durability::Object {
            self.uploading.push(id);
            return self.load(id, false, Stage::CheckingUpload(version, outcome), step);
        }
        self.finish(id, Ok(outcome), step);
    }

    /// Whether the object store has a repeated write, or a later one, already.
    pub(super) fn check_upload(&mut self, id: JobId, loaded: &Loaded, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get(id) else { return };
        let Stage::CheckingUpload(version, outcome) = &job.stage else { return };
        let (version, outcome) = (*version, outcome.clone());
        let has = match loaded {
            Loaded::Head(head) => head.uploaded && head.metadata.version >= version,
            Loaded::Nothing => true,
            Loaded::Value(..) => false,
        };
        if has {
            self.finish(id, Ok(outcome), step);
        } else {
            self.jobs.enter(id, Stage::Uploading(version, outcome), step.moment.now + UPLOAD);
        }
    }

    /// Nothing is uploaded any more: whoever waits for that is told so.
    pub fn end_uploads(&mut self, step: &mut Step<'_, W>) {
        for id in std::mem::take(&mut self.uploading) {
            self.give_up(id, step);
        }
        self.settle(step);
    }

    /// The object store has this version of a key, or a later one.
    pub fn uploaded(&mut self, name: &[u8], version: Version, step: &mut Step<'_, W>) {
        let mut done = Vec::new();
        self.uploading.retain(|id| {
            let Some(job) = self.jobs.get(*id) else { return false };
            let (Stage::Uploading(awaited, outcome) | Stage::CheckingUpload(awaited, outcome)) = &job.stage else {
                return false;
            };
            let reached = job.request.name.as_bytes() == name && *awaited <= version;
            if reached {
                done.push((*id, outcome.clone()));
            }
            !reached
        });
        for (id, outcome) in done {
            self.finish(id, Ok(outcome), step);
        }
        self.settle(step);
    }
}

/// The outcome of a write, now that its version is known.
fn numbered(outcome: Outcome, version: Version) -> Outcome {
    match outcome {
        Outcome::Stored { created, metadata } => {
            Outcome::Stored { created, metadata: Metadata { version, ..metadata } }
        }
        Outcome::Counted { value, created, metadata } => {
            Outcome::Counted { value, created, metadata: Metadata { version, ..metadata } }
        }
        Outcome::Deleted(_) => Outcome::Deleted(version),
        refusal => refusal,
    }
}

/// What the first write with an idempotency key was answered.
fn first_outcome(request: &Request, first: &FirstOutcome) -> Result<Outcome, ApiError> {
    let version = Version(first.version);
    let expires_at = Some(first.expires_at).filter(|at| *at > 0);
    Ok(match (Refused::from_peer(first.refused, first.refused_version)?, &request.verb) {
        (Some(Refused::ConditionFailed(version)), _) => Outcome::ConditionFailed(version),
        (Some(Refused::Missing(version)), _) => Outcome::Missing(version),
        (None, Verb::Put(entry)) => {
            let metadata = Metadata { version, modified_at: first.modified_at, expires_at, ..entry.metadata() };
            Outcome::Stored { created: first.created, metadata }
        }
        (None, Verb::Increment { .. }) => {
            let value = first.counted.unwrap_or_default();
            let entry = counter(&request.name, value, first.modified_at, expires_at);
            let metadata = Metadata { version, ..entry.metadata() };
            Outcome::Counted { value, created: first.created, metadata }
        }
        (None, _) => Outcome::Deleted(version),
    })
}
