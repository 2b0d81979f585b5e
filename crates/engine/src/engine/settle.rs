//! What follows from the word of the disk, of the replicas and of the map; and requests that have waited too long.

use cairn_api_spec::{Outcome, Version, operation::Durability};
use cairn_replication::{Effect as ReplicaEffect, Role};

use super::{Effect, Engine, Pending, Published, Replicated, Step, UPLOAD, read::Gate};
use crate::{
    change::{Change, Idempotency},
    claims::Holder,
    error::{Error, TierError},
    request::{JobId, Stage},
};

impl<W> Engine<W> {
    /// A write is on the disk here, this node's own or one that a primary has sent.
    pub fn persisted(&mut self, change: &Change, idempotency: Option<&Idempotency>, step: &mut Step<'_, W>) {
        let (name, version) = (change.name(), change.version());
        let same = |pending: &&mut Pending| pending.version == version;
        if let Some(pending) = self.pending.get_mut(name).and_then(|pending| pending.iter_mut().find(same)) {
            pending.on_disk = true;
        }
        // The disk has no row of a note.
        let has_row = !matches!(change, Change::Note { .. });
        self.retain_pending(name, |pending| !has_row || pending.version > version || !pending.committed);
        self.reads.changed(name);
        self.release(idempotency, version);
        self.replica.persisted(version, &mut self.effects);
        self.settle(step);
    }

    /// A write could not be stored here. `ahead`: it was to be acknowledged before it was stored.
    pub fn persist_failed(
        &mut self,
        change: &Change,
        idempotency: Option<&Idempotency>,
        ahead: bool,
        error: &TierError,
        step: &mut Step<'_, W>,
    ) {
        let (name, version) = (change.name(), change.version());
        if !self.replica.role().leads() {
            self.release(idempotency, version);
            // What a follower has not acknowledged, it refuses.
            if ahead {
                self.replica.lost(version, &mut self.effects);
            }
        } else if self.replica.persist_failed(version, &mut self.effects) {
            // One that stays is not on the disk yet, where the next request with its key would look for it.
            self.release(idempotency, version);
            // An earlier one may be committed, and not on the disk either.
            self.retain_pending(name, |pending| pending.version != version);
            self.reads.changed(name);
            for id in self.take_waiting(version) {
                match self.jobs.get(id).map(|job| &job.stage) {
                    Some(Stage::Committing(_)) => self.finish(id, Err(error.clone().into()), step),
                    _ => self.ready.push_back(id),
                }
            }
        }
        self.settle(step);
    }

    fn release(&mut self, idempotency: Option<&Idempotency>, version: Version) {
        if let Some(Idempotency { key, .. }) = idempotency {
            let waiting = self.claims.release(key, Holder::Write(version));
            self.ready.extend(waiting);
        }
    }

    /// Does what follows, until nothing does.
    pub(super) fn settle(&mut self, step: &mut Step<'_, W>) {
        loop {
            if !self.effects.is_empty() {
                for effect in std::mem::take(&mut self.effects) {
                    self.absorb(effect, step);
                }
            } else if let Some(id) = self.ready.pop_front() {
                self.look_at(id, step);
            } else if !self.publish() {
                return;
            }
        }
    }

    fn absorb(&mut self, effect: ReplicaEffect<crate::NodeId, crate::Payload>, step: &mut Step<'_, W>) {
        match effect {
            ReplicaEffect::Committed(write) => self.commit(&write, step),
            ReplicaEffect::Abandoned => self.abandon(step),
            ReplicaEffect::Persist(write) => step.out.push(Effect::Persist(write)),
            effect => step.out.push(Effect::Protocol(effect)),
        }
    }

    fn commit(&mut self, write: &Replicated, step: &mut Step<'_, W>) {
        // A primary that goes on alone says again what was committed, and a later write may have replaced it.
        if write.version > self.committed {
            self.committed = write.version;
            self.show(&write.data.change, step);
        }
        for id in self.take_waiting(write.version) {
            self.on_committed(id, step);
        }
    }

    /// Lets reads see a change.
    fn show(&mut self, change: &Change, step: &mut Step<'_, W>) {
        let (name, version) = (change.name(), change.version());
        // What was found in a takeover is on the disk when it is committed, and the disk may have a later write of the key
        // that was found nowhere else: it was there before the process began, or came with a merge.
        let is_own = self.pending.get(name).is_some_and(|pending| pending.iter().any(|one| one.version == version));
        match change {
            Change::Put(entry) if is_own => step.near.insert(entry.clone()),
            Change::Put(_) | Change::Delete { .. } => step.near.remove(name),
            Change::Note { .. } => {}
        }
        let same = |pending: &&mut Pending| pending.version == version;
        if let Some(pending) = self.pending.get_mut(name).and_then(|pending| pending.iter_mut().find(same)) {
            pending.committed = true;
            let on_disk = pending.on_disk;
            self.retain_pending(name, |pending| pending.version > version || (pending.version == version && !on_disk));
        }
        self.reads.changed(name);
        if !matches!(change, Change::Note { .. }) {
            step.out.push(Effect::Publish(change.clone()));
        }
    }

    fn on_committed(&mut self, id: JobId, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        match std::mem::replace(&mut job.stage, Stage::Awaiting) {
            Stage::Committing(outcome) => self.on_stored(id, outcome, step),
            Stage::Refusing(outcome) => {
                let epoch = job.request.epoch;
                match self.gate(epoch, step, |role| role == Role::Serving) {
                    Gate::Open => self.refuse(id, outcome, step),
                    _ => self.ready.push_back(id),
                }
            }
            Stage::Repeating(first) => self.repeat(id, first, step),
            _ => self.ready.push_back(id),
        }
    }

    /// A write is on every in-sync copy; with `durability=object` it is answered when the object store has it.
    fn on_stored(&mut self, id: JobId, outcome: Outcome, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get(id) else { return };
        let version = match &outcome {
            Outcome::Stored { metadata, .. } | Outcome::Counted { metadata, .. } => Some(metadata.version),
            Outcome::Deleted(version) => Some(*version),
            _ => None,
        };
        match version.filter(|_| job.request.durability == Durability::Object) {
            Some(version) => {
                self.jobs.enter(id, Stage::Uploading(version, outcome), step.moment.now + UPLOAD);
                self.uploading.push(id);
            }
            None => self.finish(id, Ok(outcome), step),
        }
    }

    /// Nobody knows what becomes of the writes that are not committed.
    fn abandon(&mut self, step: &mut Step<'_, W>) {
        // A primary that fails may go on alone, with what it has answered and is not on its disk.
        let (leads, committed) = (self.replica.role().leads(), self.replica.committed());
        let stays = |by| leads && matches!(by, Holder::Write(version) if version <= committed);
        let claiming = self.claims.abandon(stays);
        self.ready.extend(claiming);
        self.jobs.iter_mut().for_each(|job| job.claimed = false);
        self.pending.retain(|_, pending| {
            pending.retain(|pending| leads && pending.committed);
            !pending.is_empty()
        });
        for (_, id) in std::mem::take(&mut self.waiting) {
            match self.jobs.get(id).map(|job| &job.stage) {
                Some(Stage::Committing(_)) => self.finish(id, Err(Error::Superseded), step),
                Some(_) => self.ready.push_back(id),
                None => {}
            }
        }
    }

    /// Says whether the role, the epoch or the lease has changed. Then parked requests are looked at.
    fn publish(&mut self) -> bool {
        let role = self.replica.role();
        let serving = if role.reads() { self.replica.entry().epoch } else { 0 };
        let published = Published { role, serving, lease_until: self.replica.lease_until() };
        if published == self.published {
            return false;
        }
        self.published = published;
        if serving == 0 {
            // What a read finds from now on, or has found, may be overtaken elsewhere.
            self.reads.all_changed();
        }
        self.ready.extend(self.parked.drain(..));
        true
    }

    /// A request has waited for too long.
    pub(super) fn give_up(&mut self, id: JobId, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get(id) else { return };
        let error = match (&job.stage, self.replica.role()) {
            (Stage::Parked, Role::Idle | Role::Learner | Role::Replica) => self.not_owner(),
            (Stage::Parked, role) => self.offline(why_offline(role)),
            (Stage::Awaiting | Stage::Refusing(_), _) => self.offline(why_offline(Role::Serving)),
            (Stage::Recalling | Stage::Loading, _) => TierError::DiskHangs.into(),
            (Stage::Claiming | Stage::Committing(_) | Stage::Repeating(_), _) => Error::Superseded,
            (Stage::CheckingUpload(..) | Stage::Uploading(..), _) => Error::UploadNotConfirmed,
        };
        self.waiting.remove(&(job.awaited, id));
        if let (Stage::Claiming, Some(key)) = (&job.stage, &job.request.key) {
            self.claims.leave(key, id);
        }
        self.parked.retain(|parked| *parked != id);
        self.uploading.retain(|uploading| *uploading != id);
        self.finish(id, Err(error), step);
    }

    fn take_waiting(&mut self, version: Version) -> Vec<JobId> {
        let waiting: Vec<_> = self.waiting.range((version, JobId::FIRST)..=(version, JobId::LAST)).copied().collect();
        for entry in &waiting {
            self.waiting.remove(entry);
        }
        waiting.into_iter().map(|(_, id)| id).collect()
    }
}

fn why_offline(role: Role) -> &'static str {
    match role {
        Role::Preparing => "it is being restored from the object store",
        Role::Collecting | Role::Syncing => "it is being taken over from its former primary",
        Role::Failing => "its disk takes no writes",
        Role::HandingOver => "it is moving to another node",
        Role::Serving => "its replicas do not answer",
        Role::Idle | Role::Learner | Role::Replica => "it belongs to another node",
    }
}
