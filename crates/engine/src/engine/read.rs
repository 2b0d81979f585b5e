//! Reads: memory, then the newest write under way, then one shared read of the lower tiers for each key.

use bytes::Bytes;
use cairn_api_spec::{
    Outcome, Version,
    operation::{Metadata, Tier},
    version::Condition,
};
use cairn_replication::Role;

use super::{Engine, Step};
use crate::{
    entry::Entry,
    error::{Error, TierError},
    reads::{Loaded, ReadId},
    request::{JobId, Request, Stage},
    verb::Verb,
};

/// Whether a request can be looked at.
pub(super) enum Gate {
    Open,
    /// It must wait for a role, a lease or an entry.
    Wait,
    Refuse(Error),
}

impl<W> Engine<W> {
    /// What a read of the lower tiers found.
    pub fn loaded(&mut self, read: ReadId, result: &Result<Loaded, TierError>, step: &mut Step<'_, W>) {
        let Some(ended) = self.reads.end(read) else { return };
        self.note_disk(result.as_ref().err(), step);
        if let (Ok(Loaded::Value(entry, _)), false, true) = (result, ended.stale, self.replica.role().reads()) {
            step.near.insert(entry.clone());
        }
        for id in ended.jobs {
            let Some(job) = self.jobs.get(id) else { continue };
            match result {
                Err(error) => self.finish(id, Err(error.clone().into()), step),
                // Its write is done, and must not be looked at anew. An upload that was seen stays one.
                Ok(loaded) if matches!(job.stage, Stage::CheckingUpload(..)) => self.check_upload(id, loaded, step),
                Ok(_) if ended.stale && !job.request.eventual => self.ready.push_back(id),
                Ok(loaded) if job.request.verb.is_write() => self.write(id, Some(loaded), step),
                Ok(loaded) => self.read(id, Some(loaded), step),
            }
        }
        self.settle(step);
    }

    /// A disk that cannot be read is left to another copy, if there is one.
    pub(super) fn note_disk(&mut self, error: Option<&TierError>, step: &Step<'_, W>) {
        if let Some(TierError::Disk(_) | TierError::DiskHangs) = error {
            self.replica.disk_failed(step.moment.now, &mut self.effects);
        }
    }

    pub(super) fn read(&mut self, id: JobId, loaded: Option<&Loaded>, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get(id) else { return };
        if job.request.eventual && !self.replica.role().leads() {
            return self.read_copy(id, loaded, step);
        }
        match self.gate(job.request.epoch, step, Role::reads) {
            Gate::Open => {}
            Gate::Wait => return self.park(id),
            Gate::Refuse(error) => return self.finish(id, Err(error), step),
        }
        let (name, wall) = (job.request.name.as_bytes(), step.moment.wall);
        // What was read has its tier, which must not count as memory's because it is there now.
        if let Some(entry) = step.near.get(name).filter(|_| loaded.is_none()) {
            let outcome = found(&job.request, &entry, Tier::Memory, wall);
            return self.finish(id, Ok(outcome), step);
        }
        match self.newest_pending(name) {
            Some(pending) if pending.committed => {
                let outcome = match &pending.entry {
                    Some(entry) => found(&job.request, entry, Tier::Memory, wall),
                    None => missing(&job.request, pending.version),
                };
                return self.finish(id, Ok(outcome), step);
            }
            // The disk may have it already, and not what was before.
            Some(pending) => {
                let version = pending.version;
                return self.wait_for(id, version, Stage::Awaiting, step);
            }
            None => {}
        }
        match loaded.filter(|loaded| suffices(&job.request, loaded, wall)) {
            Some(loaded) => {
                let outcome = answer(&job.request, loaded, None, wall);
                self.finish(id, Ok(outcome), step);
            }
            None => {
                let with_value = job.request.verb.wants_value();
                self.load(id, with_value, Stage::Loading, step);
            }
        }
    }

    /// Reads this node's copy of another node's partition, whatever the primary has done meanwhile.
    fn read_copy(&mut self, id: JobId, loaded: Option<&Loaded>, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get(id) else { return };
        if self.replica.role() != Role::Replica {
            let error = self.not_owner();
            return self.finish(id, Err(error), step);
        }
        match loaded.filter(|loaded| suffices(&job.request, loaded, step.moment.wall)) {
            Some(loaded) => {
                let outcome = answer(&job.request, loaded, Some(Tier::Replica), step.moment.wall);
                self.finish(id, Ok(outcome), step);
            }
            None => {
                let with_value = job.request.verb.wants_value();
                self.load(id, with_value, Stage::Loading, step);
            }
        }
    }

    /// Whether the node may look at its keys now, for an asker that knows the entry of `epoch`.
    pub(super) fn gate(&self, epoch: u64, step: &Step<'_, W>, has_role: impl Fn(Role) -> bool) -> Gate {
        let role = self.replica.role();
        // An asker that knows a later entry knows one that is on its way here, too.
        if self.replica.entry().epoch < epoch {
            return Gate::Wait;
        }
        if !role.leads() {
            return Gate::Refuse(self.not_owner());
        }
        if self.clock_is_off {
            return Gate::Refuse(self.offline("this node's clock is too far from the cluster's"));
        }
        if has_role(role) && self.is_leased(step.moment.now) { Gate::Open } else { Gate::Wait }
    }

    /// Whether nobody else can have changed what this node knows.
    pub(super) fn is_leased(&self, now: u64) -> bool {
        cfg!(cairn_planted_bug) || now < self.replica.lease_until()
    }
}

fn found(request: &Request, entry: &Entry, tier: Tier, wall: u64) -> Outcome {
    if !entry.is_live(wall) {
        return missing(request, entry.version());
    }
    let sends_value = matches!(request.verb, Verb::Get) && request.condition.holds(Some(entry.version()));
    let value = if sends_value { entry.value_bytes() } else { Bytes::new() };
    present(request, &entry.metadata(), tier, value)
}

/// Whether what was read answers the request. The value is not read of a key whose time has come; by a clock that was set
/// back since, it has not.
fn suffices(request: &Request, loaded: &Loaded, wall: u64) -> bool {
    !(request.verb.wants_value() && matches!(loaded, Loaded::Head(head) if head.is_live(wall)))
}

/// What the lower tiers say. `tier` stands for the one that had it, when this node answers as a replica.
fn answer(request: &Request, loaded: &Loaded, tier: Option<Tier>, wall: u64) -> Outcome {
    match loaded {
        Loaded::Nothing => missing(request, Version::NONE),
        Loaded::Value(entry, had) => found(request, entry, tier.unwrap_or(*had), wall),
        Loaded::Head(head) if head.is_live(wall) => {
            let had = if head.on_disk { Tier::Disk } else { Tier::Object };
            present(request, &head.metadata, tier.unwrap_or(had), Bytes::new())
        }
        Loaded::Head(head) => missing(request, head.metadata.version),
    }
}

fn present(request: &Request, metadata: &Metadata, tier: Tier, value: Bytes) -> Outcome {
    if request.condition.holds(Some(metadata.version)) {
        return Outcome::Found { metadata: metadata.clone(), tier, value: Some(value) };
    }
    match request.condition {
        // RFC 9110, 13.1.2: a failed If-None-Match on a read means that the client has what it needs.
        Condition::Differs(_) | Condition::Absent => Outcome::NotModified(metadata.clone(), tier),
        Condition::None | Condition::Exists | Condition::Matches(_) => Outcome::ConditionFailed(metadata.version),
    }
}

fn missing(request: &Request, version: Version) -> Outcome {
    if request.condition.holds(None) { Outcome::Missing(version) } else { Outcome::ConditionFailed(version) }
}
