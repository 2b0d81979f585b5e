//! Linearizability by versions, in O(n log n).
//!
//! Every reply names the version of the key that it speaks of, and the versions are the order of the writes. So it is
//! enough that this order agrees with time: what was asked after something was answered must not be of an earlier
//! version, and a write must be of a later one. Beside that, each version is one state of the key, each value was
//! written, and a write that had a condition follows the version that the condition named.
//!
//! A 404 may have no version, when the deletion has been forgotten. Then there must have been a deletion, answered or
//! not, that could have been the last write, or a value whose time had come. A 404 that has the version of a value says
//! the same; one that has a later version, which no write has, tells that the value was swept.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use crate::history::{Condition, Kind, Operation, Outcome, by_key};

/// What a history shows that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong.
    pub fault: Fault,
    /// The operation that shows it.
    pub operation: Operation,
    /// The operation that it contradicts, where there is one.
    pub against: Option<Operation>,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A write that had been answered was not seen.
    WriteNotSeen,
    /// Something older was seen than had been seen before.
    StaleRead,
    /// A write has a version that is not above those seen before it began.
    VersionWentBack,
    /// Two states of the key have one version, or one value has two.
    DuplicateVersion,
    /// Nobody wrote the value, or it was read before anybody did, or its write was refused.
    FromNowhere,
    /// The key is absent, or was, by no deletion.
    NotDeleted,
    /// A value was seen after its time.
    Outlived,
    /// The write's condition did not hold, or the one that was said not to hold did.
    WrongCondition,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.fault, self.operation)?;
        match &self.against {
            Some(against) => write!(f, "\n    after {against:?}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong in a history.
pub fn check(history: &[Operation]) -> Vec<Violation> {
    by_key(history).into_values().flat_map(|operations| KeyHistory::new(operations).check()).collect()
}

/// A state of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The value of this write.
    Value(u64),
    Tombstone,
}

/// What is known of a version.
struct Known<'a> {
    state: State,
    /// The first operation that told of it.
    by: &'a Operation,
    /// The write that made it, when that was answered.
    written: Option<&'a Operation>,
}

struct KeyHistory<'a> {
    operations: Vec<&'a Operation>,
    puts: HashMap<u64, &'a Operation>,
    versions: BTreeMap<u64, Known<'a>>,
    /// The version of each put of which it is known.
    put_versions: HashMap<u64, u64>,
    violations: Vec<Violation>,
}

/// The least version that the key must have at some time.
#[derive(Clone, Copy, Default)]
struct Floor<'a> {
    version: u64,
    /// The key was seen absent there, without a version.
    absent: bool,
    by: Option<&'a Operation>,
}

/// What has been asked until some time of the sweep.
#[derive(Default)]
struct Asked {
    /// Versions of answered deletions.
    deletions: BTreeSet<u64>,
    doubtful_deletions: usize,
}

impl<'a> KeyHistory<'a> {
    fn new(operations: Vec<&'a Operation>) -> Self {
        let is_put = |operation: &&&Operation| matches!(operation.kind, Kind::Put(_));
        Self {
            puts: operations.iter().filter(is_put).map(|put| (put.id, *put)).collect(),
            operations,
            versions: BTreeMap::new(),
            put_versions: HashMap::new(),
            violations: Vec::new(),
        }
    }

    fn check(mut self) -> Vec<Violation> {
        // What is a value is known before anybody finds that its time has come.
        let is_absent = |operation: &&Operation| matches!(operation.outcome, Outcome::Absent(_));
        let (absent, others): (Vec<_>, Vec<_>) = self.operations.iter().copied().partition(is_absent);
        others.into_iter().for_each(|operation| self.learn(operation));
        for operation in absent {
            if !self.has_expired(operation) {
                self.learn(operation);
            }
        }
        self.sweep();
        for index in 0..self.operations.len() {
            self.check_condition(self.operations[index]);
        }
        self.violations
    }

    fn report(&mut self, fault: Fault, operation: &Operation, against: Option<&Operation>) {
        self.violations.push(Violation { fault, operation: operation.clone(), against: against.cloned() });
    }

    /// Whether it found the key absent, or a condition false, at the version of a value whose time may have come.
    fn has_expired(&self, operation: &Operation) -> bool {
        match operation.outcome {
            Outcome::Absent(version) | Outcome::ConditionFailed(version) => {
                self.put_of(version).is_some_and(|put| put.may_have_expired_for(operation))
            }
            _ => false,
        }
    }

    /// The write of the value that has a version, if it is known.
    fn put_of(&self, version: u64) -> Option<&'a Operation> {
        match self.versions.get(&version)?.state {
            State::Value(write) => self.puts.get(&write).copied(),
            State::Tombstone => None,
        }
    }

    /// Learns what states the versions are, and that each is only one.
    fn learn(&mut self, operation: &'a Operation) {
        let (version, state) = match (operation.outcome, operation.kind) {
            (Outcome::Read { version, write }, _) => (version, State::Value(write)),
            (Outcome::Written(version), Kind::Put(_)) => (version, State::Value(operation.id)),
            (Outcome::Written(version), _) => (version, State::Tombstone),
            (Outcome::Absent(version), _) if version > 0 => (version, State::Tombstone),
            _ => return,
        };
        let written = matches!(operation.outcome, Outcome::Written(_)).then_some(operation);
        if let State::Value(write) = state {
            let known = *self.put_versions.entry(write).or_insert(version);
            if known != version {
                let against = self.versions.get(&known).map(|known| known.by);
                return self.report(Fault::DuplicateVersion, operation, against);
            }
            let possible = |put: &&Operation| matches!(put.outcome, Outcome::Written(_) | Outcome::Unknown);
            if written.is_none() && !self.puts.get(&write).is_some_and(possible) {
                self.report(Fault::FromNowhere, operation, self.puts.get(&write).copied());
            }
        }
        let known = self.versions.entry(version).or_insert(Known { state, by: operation, written });
        let (other, by) = (known.written, known.by);
        if known.state != state || (written.is_some() && other.is_some_and(|other| other.id != operation.id)) {
            return self.report(Fault::DuplicateVersion, operation, Some(by));
        }
        known.written = other.or(written);
    }

    /// Goes through time, and holds every version against those that were answered before it was asked for.
    fn sweep(&mut self) {
        let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(self.operations.len() * 2);
        for (index, operation) in self.operations.iter().enumerate() {
            events.push((operation.invoked, false, index));
            events.push((operation.returned, true, index));
        }
        events.sort_unstable();
        let mut floor = Floor::default();
        let mut floors = vec![Floor::default(); self.operations.len()];
        let mut asked = Asked::default();
        for (_, is_return, index) in events {
            let operation = self.operations[index];
            if !is_return {
                floors[index] = floor;
                if matches!(operation.kind, Kind::Delete(_)) {
                    match operation.outcome {
                        Outcome::Written(version) => drop(asked.deletions.insert(version)),
                        Outcome::Unknown => asked.doubtful_deletions += 1,
                        _ => {}
                    }
                }
            } else if let Some(seen) = self.check_order(operation, floors[index], &asked)
                && (seen.version, seen.absent) > (floor.version, floor.absent)
            {
                floor = seen;
            }
        }
        self.check_orphaned_tombstones();
    }

    /// Checks one operation against the floor at its beginning; returns the floor that it sets.
    fn check_order(&mut self, operation: &'a Operation, floor: Floor<'a>, asked: &Asked) -> Option<Floor<'a>> {
        let version = match operation.outcome {
            Outcome::Written(version) | Outcome::Read { version, .. } => version,
            Outcome::Absent(0) | Outcome::ConditionFailed(0) => return self.check_absence(operation, floor, asked),
            Outcome::Absent(version) | Outcome::ConditionFailed(version) => version,
            // A doubtful put that was seen has a version, which must fit, too.
            Outcome::Unknown => {
                if self.put_versions.get(&operation.id).is_some_and(|version| *version <= floor.version) {
                    self.report(Fault::VersionWentBack, operation, floor.by);
                }
                return None;
            }
            Outcome::Refused => return None,
        };
        if let Outcome::Written(_) = operation.outcome {
            if version <= floor.version {
                self.report(Fault::VersionWentBack, operation, floor.by);
            }
        } else if version < floor.version
            || (version == floor.version && floor.absent && self.is_value(version) && !self.has_expired(operation))
        {
            self.report_missing(operation, floor);
        }
        if let Outcome::Read { write, .. } = operation.outcome
            && let Some(put) = self.puts.get(&write).filter(|put| put.must_have_expired_for(operation)).copied()
        {
            self.report(Fault::Outlived, operation, Some(put));
        }
        let early = |write: &&Operation| write.invoked > operation.returned;
        let written = match self.versions.get(&version).map(|known| (known.state, known.written)) {
            Some((State::Value(write), _)) => self.puts.get(&write).copied(),
            Some((State::Tombstone, written)) => written,
            None => None,
        };
        if let Some(write) = written.filter(early) {
            self.report(Fault::FromNowhere, operation, Some(write));
        }
        let absent = matches!(operation.outcome, Outcome::Absent(_)) && self.is_value(version);
        Some(Floor { version, absent, by: Some(operation) })
    }

    /// The key was absent without a version: it must have been able to be.
    fn check_absence(&mut self, operation: &'a Operation, floor: Floor<'a>, asked: &Asked) -> Option<Floor<'a>> {
        if floor.absent || !self.is_value(floor.version) {
            return None;
        }
        let expired = self.first_expired(operation, floor.version);
        let version = match asked.deletions.range(floor.version..).next() {
            _ if asked.doubtful_deletions > 0 => floor.version,
            deletion if deletion.is_some() || expired.is_some() => {
                deletion.copied().into_iter().chain(expired).min().unwrap_or(floor.version)
            }
            _ => {
                self.report_missing(operation, floor);
                return None;
            }
        };
        Some(Floor { version, absent: true, by: Some(operation) })
    }

    /// The least version, from this one on, of a value whose time may have come when `operation` looked.
    fn first_expired(&self, operation: &Operation, from: u64) -> Option<u64> {
        let has_expired = |put: &&Operation| put.may_have_expired_for(operation);
        let seen =
            self.versions.range(from..).find(|(version, _)| self.put_of(**version).as_ref().is_some_and(has_expired));
        let unseen = self.unseen().any(|put| has_expired(&put));
        if unseen { Some(from) } else { seen.map(|(version, _)| *version) }
    }

    /// Puts that may have happened, and of which nobody knows a version.
    fn unseen(&self) -> impl Iterator<Item = &'a Operation> {
        self.puts.values().copied().filter(|put| put.is_doubtful() && !self.put_versions.contains_key(&put.id))
    }

    /// Whether a version is known to be that of a value; of one that only a failed condition told of, it is not.
    fn is_value(&self, version: u64) -> bool {
        self.versions.get(&version).is_some_and(|known| matches!(known.state, State::Value(_)))
    }

    fn is_tombstone(&self, version: u64) -> bool {
        self.versions.get(&version).is_some_and(|known| known.state == State::Tombstone)
    }

    /// Whether a tombstone is only known by a 404, which may speak of a value that nobody saw before its time came.
    fn may_have_been_value(&self, version: u64) -> bool {
        let is_written = self.versions.get(&version).is_some_and(|known| known.written.is_some());
        !is_written && self.unseen().any(|put| put.lives.is_some())
    }

    fn report_missing(&mut self, operation: &Operation, floor: Floor<'_>) {
        let was_answered = floor.by.is_some_and(|by| matches!(by.outcome, Outcome::Written(_)));
        let fault = if was_answered { Fault::WriteNotSeen } else { Fault::StaleRead };
        self.report(fault, operation, floor.by);
    }

    /// A tombstone that no answered deletion made, one without an answer did, or the sweep of a value whose time had come.
    fn check_orphaned_tombstones(&mut self) {
        let is_orphan = |known: &Known<'_>| known.state == State::Tombstone && known.written.is_none();
        let is_swept = |version: u64, seen: &Operation| {
            let before = self.versions.range(..version).next_back().and_then(|(before, _)| self.put_of(*before));
            before.into_iter().chain(self.unseen()).any(|put| put.may_have_expired_for(seen))
        };
        let orphans =
            self.versions.iter().filter(|(version, known)| is_orphan(known) && !is_swept(**version, known.by));
        let mut orphans: Vec<&Operation> = orphans.map(|(_, known)| known.by).collect();
        orphans.sort_unstable_by_key(|seen| seen.returned);
        let deletions = self.operations.iter().filter(|o| o.is_doubtful() && matches!(o.kind, Kind::Delete(_)));
        let mut invoked: Vec<u64> = deletions.map(|deletion| deletion.invoked).collect();
        invoked.sort_unstable();
        for (index, seen) in orphans.into_iter().enumerate() {
            if invoked.get(index).is_none_or(|invoked| *invoked > seen.returned) {
                self.report(Fault::NotDeleted, seen, None);
            }
        }
    }

    /// What a write's condition named must be what was there just before it; what failed it must not be.
    fn check_condition(&mut self, operation: &'a Operation) {
        let condition = operation.condition();
        let version = match operation.outcome {
            Outcome::Written(version) => Some(version),
            Outcome::Unknown => self.put_versions.get(&operation.id).copied(),
            Outcome::ConditionFailed(version) => {
                let held = match condition {
                    Condition::Always => true,
                    Condition::Version(expected) => expected == version && !self.has_expired(operation),
                    Condition::Absent => {
                        version == 0 || (self.is_tombstone(version) && !self.may_have_been_value(version))
                    }
                };
                if held {
                    self.report(Fault::WrongCondition, operation, None);
                }
                None
            }
            _ => None,
        };
        let Some(version) = version else { return };
        let before = self.versions.range(..version).next_back();
        let was_value = before.is_some_and(|(before, _)| self.is_value(*before));
        let holds = match (condition, operation.kind) {
            (Condition::Version(expected), _) => before.is_some_and(|(before, _)| *before == expected),
            (Condition::Absent, _) => {
                let put = before.and_then(|(before, _)| self.put_of(*before));
                let mut mortal = put.into_iter().chain(self.unseen());
                !was_value
                    || mortal.any(|put| put.may_have_expired_for(operation))
                    || self.is_in_doubt(operation, |kind| matches!(kind, Kind::Delete(_)))
            }
            // A deletion that found nothing is answered 404.
            (Condition::Always, Kind::Delete(_)) => {
                was_value || self.is_in_doubt(operation, |kind| matches!(kind, Kind::Put(_)))
            }
            (Condition::Always, _) => true,
        };
        if !holds {
            let before = before.map(|(_, known)| known.by);
            self.report(Fault::WrongCondition, operation, before);
        }
    }

    /// Whether a write of this kind, of which nobody knows whether it happened, may have come before `operation`.
    fn is_in_doubt(&self, operation: &Operation, is_kind: fn(Kind) -> bool) -> bool {
        let end = if operation.is_doubtful() { u64::MAX } else { operation.returned };
        self.operations.iter().any(|other| other.is_doubtful() && is_kind(other.kind) && other.invoked <= end)
    }
}
