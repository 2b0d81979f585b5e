//! The state of the model: two nodes with copies of one partition, and what is true of its keys.

use cairn_api_spec::Version;
use cairn_object_tier::rules::{
    checkpoint::{self, may_publish},
    upload::{Lead, Teller, believes, counts, may_gather},
};

use crate::{
    bucket::{Bucket, Checkpoint, Fact, Id, Node, Request, Segment},
    planted::Bug,
    restoring::Restore,
};

pub(crate) const NODES: usize = 2;

/// A row on a node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) fact: Fact,
    /// Where the bucket has it; without, it waits for its upload.
    pub(crate) place: Option<Id>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) session: u64,
    pub(crate) seq: u64,
    /// By key.
    pub(crate) rows: Vec<Option<Row>>,
    /// The checkpoint that it knows to be in the bucket.
    pub(crate) basis: Option<Checkpoint>,
    /// It has taken over the places of the newest checkpoint, as the primary.
    pub(crate) reconciled: bool,
}

/// A message to a replica: these are in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tell {
    pub(crate) to: Node,
    pub(crate) from: (Node, u64, u64),
    pub(crate) facts: Vec<(Fact, Id)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) late: Late,
    pub(crate) bug: Option<Bug>,
    pub(crate) epoch: u64,
    pub(crate) primary: Node,
    pub(crate) hosts: Vec<Host>,
    pub(crate) bucket: Bucket,
    pub(crate) tells: Vec<Tell>,
    /// The primary's restore, while all copies are gone.
    pub(crate) restore: Option<Restore>,
    pub(crate) last: Version,
    /// A write that only the primary has.
    pub(crate) uncommitted: Option<Fact>,
    /// By key, the newest committed write.
    pub(crate) truth: Vec<Option<Fact>>,
    /// By key, the newest that was said to be in the bucket.
    pub(crate) uploaded: Vec<Option<Fact>>,
    /// All that was ever committed.
    pub(crate) history: Vec<Fact>,
    /// What an actual restore got wrong.
    pub(crate) wrong: bool,
    pub(crate) used: Used,
}

/// Which requests may be carried out late, or answered late, or not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Late {
    pub(crate) segments: bool,
    pub(crate) checkpoints: bool,
    pub(crate) removals: bool,
}

/// How often things have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Used {
    pub(crate) operations: usize,
    pub(crate) segments: usize,
    pub(crate) moves: usize,
    pub(crate) checkpoints: usize,
    pub(crate) failovers: usize,
    pub(crate) failures: usize,
    pub(crate) losses: usize,
    pub(crate) removed: bool,
    pub(crate) restored: bool,
}

impl State {
    pub(crate) fn leader(&mut self) -> &mut Host {
        &mut self.hosts[usize::from(self.primary)]
    }

    pub(crate) fn host(&self) -> &Host {
        &self.hosts[usize::from(self.primary)]
    }

    /// What the primary is to the partition.
    pub(crate) fn lead(&self) -> Option<Lead> {
        self.restore.is_none().then_some(Lead { epoch: self.epoch, leased: true })
    }

    pub(crate) fn committed(&self) -> Version {
        self.uncommitted.map_or(self.last, |fact| Version(fact.version.0 - 1))
    }

    pub(crate) fn mint(&mut self) -> Id {
        let node = self.primary;
        let host = self.leader();
        host.seq += 1;
        Id { node, session: host.session, seq: host.seq }
    }

    pub(crate) fn propose(&mut self, key: u8, live: bool) {
        let fact = Fact { key, version: self.last.next(self.epoch).unwrap(), live };
        self.last = fact.version;
        self.leader().rows[usize::from(key)] = Some(Row { fact, place: None });
        self.uncommitted = Some(fact);
    }

    pub(crate) fn commit(&mut self) {
        let Some(fact) = self.uncommitted.take() else { return };
        self.truth[usize::from(fact.key)] = Some(fact);
        self.history.push(fact);
        let other = 1 - usize::from(self.primary);
        self.hosts[other].rows[usize::from(fact.key)] = Some(Row { fact, place: None });
    }

    /// Packs what waits; with `moving` also what lies elsewhere. Returns whether there was anything.
    pub(crate) fn gather(&mut self, moving: bool) -> bool {
        let committed = self.committed();
        let lead = self.lead();
        let rows = self.host().rows.iter().flatten();
        let wanted = rows.filter(|row| row.place.is_none() || (moving && row.fact.live));
        let facts: Vec<Fact> =
            wanted.map(|row| row.fact).filter(|fact| may_gather(lead, fact.version, committed)).collect();
        if facts.is_empty() {
            return false;
        }
        let id = self.mint();
        if moving && self.bug == Some(Bug::MovedEarly) {
            self.leader().rows.iter_mut().flatten().for_each(|row| row.place = Some(id));
        }
        self.put(Request::PutSegment(Segment { id, epoch: self.epoch, facts }));
        true
    }

    /// Sends a request, whose answer is there now unless it may be late.
    pub(crate) fn put(&mut self, request: Request) {
        let may_be_late = match &request {
            Request::PutSegment(_) => self.late.segments,
            Request::PutCheckpoint(_) => self.late.checkpoints,
            Request::RemoveSegment(_) | Request::RemoveCheckpoint(_) => self.late.removals,
        };
        if may_be_late {
            self.bucket.send(request);
            return;
        }
        match self.bucket.execute_now(request) {
            Request::PutSegment(segment) => self.stored(&segment),
            Request::PutCheckpoint(checkpoint) => self.published(&checkpoint),
            Request::RemoveSegment(_) | Request::RemoveCheckpoint(_) => {}
        }
    }

    /// The bucket has answered that it has the segment.
    pub(crate) fn stored(&mut self, segment: &Segment) {
        let gathered = Lead { epoch: segment.epoch, leased: true };
        let sender = usize::from(segment.id.node);
        let now = self.lead().filter(|_| sender == usize::from(self.primary));
        if !counts(gathered, now) && self.bug != Some(Bug::NoFence) {
            return;
        }
        let mut placed = Vec::new();
        for fact in &segment.facts {
            let row = self.hosts[sender].rows[usize::from(fact.key)].as_mut();
            if let Some(row) = row.filter(|row| row.fact == *fact) {
                row.place = Some(segment.id);
                placed.push((*fact, segment.id));
                self.said_uploaded(*fact);
            }
        }
        let from = (segment.id.node, segment.id.session, segment.epoch);
        self.tells.push(Tell { to: 1 - segment.id.node, from, facts: placed });
        self.tells.sort();
    }

    pub(crate) fn said_uploaded(&mut self, fact: Fact) {
        let known = &mut self.uploaded[usize::from(fact.key)];
        if known.is_none_or(|known| known.version < fact.version) {
            *known = Some(fact);
        }
    }

    pub(crate) fn hear(&mut self, tell: &Tell) {
        self.tells.retain(|other| other != tell);
        let (node, session, epoch) = tell.from;
        let known = Teller { node: self.primary, session: (self.host().session, 0), epoch: self.epoch };
        let believed = believes(&Teller { node, session: (session, 0), epoch }, &known)
            || self.bug == Some(Bug::StaleTellBelieved);
        if !believed || self.restore.is_some() {
            return;
        }
        for (fact, place) in &tell.facts {
            let row = self.hosts[usize::from(tell.to)].rows[usize::from(fact.key)].as_mut();
            if let Some(row) = row.filter(|row| row.fact == *fact) {
                row.place = Some(*place);
            }
        }
    }

    /// The checkpoint that the primary could publish now.
    pub(crate) fn checkpoint(&mut self) -> Option<Checkpoint> {
        let host = self.host();
        let trusted = host.reconciled || self.bug == Some(Bug::NotReconciled);
        self.lead().filter(|_| trusted)?;
        let rows = || host.rows.iter().flatten();
        let committed = self.committed();
        let newest_seen = rows().map(|row| row.fact.version).max().unwrap_or_default();
        if !may_publish(newest_seen, committed) && self.bug != Some(Bug::UncommittedHides) {
            return None;
        }
        let waiting = rows().filter(|row| row.place.is_none()).map(|row| row.fact.version).min();
        let watermark = checkpoint::watermark(self.epoch, committed, waiting)?;
        let listed = rows().filter(|row| row.fact.live && row.fact.version <= watermark);
        let rows = listed.filter_map(|row| Some((row.fact, row.place?))).collect();
        Some(self.written(watermark, rows))
    }

    pub(crate) fn written(&mut self, watermark: Version, rows: Vec<(Fact, Id)>) -> Checkpoint {
        let (node, session) = (self.primary, self.host().session);
        let under_way = self.bucket.sent.iter().filter_map(|sent| match &sent.request {
            Request::PutSegment(Segment { id, .. }) if id.node == node && id.session == session && !sent.given_up => {
                Some(id.seq)
            }
            _ => None,
        });
        let oldest = under_way.min().filter(|_| self.bug != Some(Bug::UnderWayCovered));
        let id = self.mint();
        Checkpoint { id, epoch: self.epoch, watermark, covers: oldest.unwrap_or(id.seq), rows }
    }

    /// The other node becomes the primary; what the former one had not committed is gone.
    pub(crate) fn fail_over(&mut self) {
        let (former, next) = (usize::from(self.primary), 1 - self.primary);
        if let Some(fact) = self.uncommitted.take() {
            self.hosts[former].rows[usize::from(fact.key)] = self.hosts[usize::from(next)].rows[usize::from(fact.key)];
        }
        self.primary = next;
        self.epoch += 1;
        self.hosts.iter_mut().for_each(|host| (host.basis, host.reconciled) = (None, false));
    }

    /// A new primary takes over the places of the newest checkpoint.
    pub(crate) fn reconcile(&mut self) {
        let newest = self.bucket.newest_checkpoint(self.bug).cloned();
        let host = self.leader();
        host.reconciled = true;
        let Some(newest) = newest else { return };
        for row in host.rows.iter_mut().flatten().filter(|row| row.fact.version <= newest.watermark) {
            let listed = newest.rows.iter().find(|(fact, _)| *fact == row.fact).map(|(_, place)| *place);
            // A deletion needs no place below a watermark.
            row.place = if row.fact.live { listed } else { row.place };
        }
    }
}
