//! Whether one register for each key could have said what clients were told: every answer carries a version, and versions
//! order what was written.
//!
//! Calls with one idempotency key are one write: it happens at most once, and every answer says the same. Where a
//! partition goes on with what the disk of a restarted node has, what was to be in memory only, and after a power cut what was
//! not to be flushed, may be gone from then on; where it begins anew, all but what was answered as uploaded.

use std::collections::BTreeMap;

use cairn_api_spec::{Version, operation::Durability, version::Condition};

use super::{
    history::{Ask, Call, Operation, Reply},
    machine::{EPOCH, SKEW},
    world::{Excuse, World},
};
use cairn_engine::Error;

/// How far apart two wall clocks may be that are not too far off, and half a second for what is under way.
const MOST_APART: u64 = 2 * SKEW.unsigned_abs() + 500;

/// A write with all its calls, or a read.
struct Logical<'a> {
    number: usize,
    call: &'a Call,
    called_at: u64,
    /// The first answer that says what has happened.
    answer: Option<(u64, &'a Reply)>,
    /// It may have happened without an answer that says so.
    in_doubt: bool,
}

/// What a version of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value { writer: usize, expires: Option<u64> },
    Gone { writer: usize },
}

/// What an answer says, and when that may be lost.
struct Seen<'a> {
    operation: &'a Logical<'a>,
    at: u64,
    version: Version,
    is_write: bool,
    lost_at: u64,
}

struct KeyHistory<'a> {
    key: u16,
    operations: Vec<&'a Logical<'a>>,
    all: &'a BTreeMap<usize, Logical<'a>>,
    states: BTreeMap<Version, State>,
    excuses: &'a [Excuse],
}

/// Looks for what no register could have said.
pub(crate) fn check(history: &[Operation], world: &World) -> Result<(), String> {
    let excuses = |call: &Call| {
        let partition = call.name().partition(world.config.partitions);
        world.excuses.get(&partition).map(Vec::as_slice).unwrap_or_default()
    };
    let mut all: BTreeMap<usize, Logical<'_>> = BTreeMap::new();
    for (number, operation) in history.iter().enumerate() {
        if let Some((_, Reply::Refused(Error::KeyReused))) = &operation.answer {
            return Err(format!("operation {number}: its idempotency key is its own: {operation:?}"));
        }
        let Operation { call, called_at, answer, .. } = operation;
        let definite = answer.as_ref().filter(|(_, reply)| reply.version().is_some()).map(|(at, reply)| (*at, reply));
        let in_doubt = matches!(answer, None | Some((_, Reply::Unknown)));
        let known = all.entry(call.first).or_insert(Logical {
            number: call.first,
            call,
            called_at: *called_at,
            answer: None,
            in_doubt: false,
        });
        known.in_doubt |= in_doubt;
        match (known.answer, definite) {
            (Some((first_at, first)), Some((at, second))) if !is_same(first, second) => {
                let is_note = matches!(first, Reply::ConditionFailed(_) | Reply::Missing(_));
                // The bucket has no idempotency keys.
                let durability =
                    if is_note { Durability::Memory } else { known.call.durability.min(Durability::Fsync) };
                if lost_at(excuses(call), durability, known.called_at) > at.max(first_at) {
                    return Err(format!("operation {number} repeats {}: {first:?}, then {second:?}", call.first));
                }
                known.in_doubt = true;
            }
            (Some((first, _)), Some((at, reply))) if at < first => known.answer = Some((at, reply)),
            (None, Some(definite)) => known.answer = Some(definite),
            _ => {}
        }
    }
    let mut keys: BTreeMap<u16, Vec<&Logical<'_>>> = BTreeMap::new();
    for operation in all.values() {
        keys.entry(operation.call.key).or_default().push(operation);
    }
    for (key, operations) in keys {
        let excuses = operations.first().map(|operation| excuses(operation.call)).unwrap_or_default();
        KeyHistory { key, operations, all: &all, states: BTreeMap::new(), excuses }.check()?;
    }
    Ok(())
}

/// When what was done so durably, or seen, may be lost for the first time after a moment.
fn lost_at(excuses: &[Excuse], durability: Durability, since: u64) -> u64 {
    let loses = |excuse: &&Excuse| excuse.at >= since && excuse.up_to >= durability;
    excuses.iter().find(loses).map_or(u64::MAX, |excuse| excuse.at)
}

fn is_same(a: &Reply, b: &Reply) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b) && a.version() == b.version()
}

impl KeyHistory<'_> {
    fn check(mut self) -> Result<(), String> {
        for index in 0..self.operations.len() {
            self.learn(index)?;
        }
        let strong: Vec<&Logical<'_>> =
            self.operations.iter().copied().filter(|operation| !operation.call.eventual).collect();
        self.check_order(&strong)?;
        strong.iter().try_for_each(|operation| self.check_condition(operation))
    }

    fn wrong<T>(&self, what: &str, operation: &Logical<'_>, against: Option<&Logical<'_>>) -> Result<T, String> {
        let show = |operation: &Logical<'_>| {
            let Logical { number, call, called_at, answer, in_doubt } = operation;
            format!("{number} at {called_at} {call:?} -> {answer:?}{}", if *in_doubt { " (in doubt)" } else { "" })
        };
        let against = against.map(|against| format!(", against {}", show(against))).unwrap_or_default();
        Err(format!("key {}: {what}: {}{against}; excused {:?}", self.key, show(operation), self.excuses))
    }

    /// Learns what the versions are, and that each is only one thing.
    fn learn(&mut self, index: usize) -> Result<(), String> {
        let operation = self.operations[index];
        let Some((answered_at, reply)) = operation.answer else { return Ok(()) };
        let (version, state) = match *reply {
            Reply::Stored { version, expires, .. } => (version, State::Value { writer: operation.number, expires }),
            Reply::Deleted(version) => (version, State::Gone { writer: operation.number }),
            Reply::Found { version, writer: Some(writer), expires } => (version, State::Value { writer, expires }),
            Reply::Found { writer: None, .. } if operation.call.ask == Ask::Get => {
                return self.wrong("a value that nobody wrote", operation, None);
            }
            _ => return Ok(()),
        };
        let (State::Value { writer, .. } | State::Gone { writer }) = state;
        let Some(write) = self.all.get(&writer) else { return self.wrong("a value of nobody", operation, None) };
        let may_be = write.in_doubt || write.answer.is_some_and(|(_, reply)| reply.version() == Some(version));
        if !may_be || write.call.key != self.key || write.called_at > answered_at {
            return self.wrong("a value of a write that did not happen", operation, Some(write));
        }
        let durability = write.call.durability.min(Durability::Fsync);
        let is_excused = lost_at(self.excuses, durability, write.called_at) < u64::MAX;
        let is_excused = is_excused || operation.call.eventual;
        let twice = self.states.iter().find(|(known, state)| {
            let (State::Value { writer: other, .. } | State::Gone { writer: other }) = state;
            *other == writer && **known != version
        });
        if let Some((other, _)) = twice.filter(|_| !is_excused) {
            return self.wrong(&format!("a write has happened twice, at {other}, too"), operation, Some(write));
        }
        if operation.call.eventual {
            // A copy may show what never became of the partition.
            return Ok(());
        }
        match self.states.insert(version, state) {
            Some(other) if other != state => {
                self.wrong(&format!("the version is that of {other:?}, too"), operation, None)
            }
            _ => Ok(()),
        }
    }

    /// The write that gave a version, if it is known.
    fn writer(&self, version: Version) -> Option<&Logical<'_>> {
        let (State::Value { writer, .. } | State::Gone { writer }) = self.states.get(&version)?;
        self.all.get(writer)
    }

    /// When a version that was seen after a moment may be lost.
    fn lost_at(&self, version: Version, since: u64) -> u64 {
        let Some(write) = self.writer(version) else { return lost_at(self.excuses, Durability::Memory, since) };
        let lost = lost_at(self.excuses, write.call.durability, since);
        // Until it is answered, the bucket need not have it.
        let answered = write.answer.filter(|(_, reply)| reply.version() == Some(version));
        let uploaded_at = answered.map_or(u64::MAX, |(at, _)| at);
        let with_disks = lost_at(self.excuses, write.call.durability.min(Durability::Fsync), since);
        if with_disks < uploaded_at { with_disks } else { lost }
    }

    /// What was asked after something was answered must not be of an earlier version, and a write of a later one.
    fn check_order(&self, operations: &[&Logical<'_>]) -> Result<(), String> {
        let mut seen: Vec<Seen<'_>> = operations.iter().filter_map(|operation| self.seen(operation)).collect();
        seen.sort_by_key(|seen| seen.operation.called_at);
        let mut by_answer: Vec<&Seen<'_>> = seen.iter().collect();
        by_answer.sort_by_key(|seen| seen.at);
        let (mut answered, mut floors) = (by_answer.into_iter().peekable(), Vec::new());
        for later in &seen {
            while let Some(earlier) = answered.next_if(|earlier| earlier.at < later.operation.called_at) {
                // What is older and lost no later says nothing more.
                floors.retain(|floor: &&Seen<'_>| floor.version > earlier.version || floor.lost_at > earlier.lost_at);
                floors.push(earlier);
            }
            let kept = floors.iter().filter(|floor| floor.lost_at > later.at);
            let Some(floor) = kept.max_by_key(|floor| floor.version) else { continue };
            if later.version == Version::NONE && self.may_be_absent(floor.version, later.at) {
                continue;
            }
            if later.version < floor.version || (later.is_write && later.version == floor.version) {
                return self.wrong("a version went back", later.operation, Some(floor.operation));
            }
        }
        Ok(())
    }

    fn seen<'a>(&self, operation: &'a Logical<'a>) -> Option<Seen<'a>> {
        let (at, reply) = operation.answer?;
        let version = reply.version().unwrap_or_default();
        let is_write = matches!(reply, Reply::Stored { .. } | Reply::Deleted(_));
        Some(Seen { operation, at, version, is_write, lost_at: self.lost_at(version, operation.called_at) })
    }

    /// Whether a key that had a version may be absent, its deletion forgotten.
    fn may_be_absent(&self, version: Version, at: u64) -> bool {
        let deletes = |operation: &&Logical<'_>| {
            let is_delete = matches!(operation.call.ask, Ask::Delete | Ask::Remove(_)) && operation.called_at < at;
            let after = matches!(operation.answer, Some((_, Reply::Deleted(deleted))) if *deleted > version);
            is_delete && (after || operation.in_doubt)
        };
        // What a lost write has replaced is not in the bucket any more.
        let replaces = |operation: &Logical<'_>, lost_at: u64| {
            let after = operation.answer.is_some_and(|(_, reply)| reply.version() > Some(version));
            operation.call.is_write() && operation.called_at < lost_at && (after || operation.in_doubt)
        };
        let lost = self.excuses.iter().filter(|excuse| excuse.up_to >= Durability::Fsync && excuse.at <= at);
        !self.is_live(version, at)
            || self.operations.iter().any(deletes)
            || lost.into_iter().any(|excuse| self.operations.iter().any(|operation| replaces(operation, excuse.at)))
    }

    /// Whether a write may have happened of which nobody knows the version.
    fn is_in_doubt(&self, at: u64) -> bool {
        self.operations
            .iter()
            .any(|operation| operation.in_doubt && operation.call.is_write() && operation.called_at < at)
    }

    /// Whether a version is known to be a value whose time had surely not come at `at`.
    fn is_live(&self, version: Version, at: u64) -> bool {
        matches!(self.states.get(&version), Some(State::Value { expires, .. })
            if expires.is_none_or(|expires| expires > EPOCH + at + MOST_APART))
    }

    /// Whether a version is known to be a deletion, or a value whose time had surely come at `at`.
    fn is_gone(&self, version: Version, at: u64) -> bool {
        match self.states.get(&version) {
            Some(State::Value { expires, .. }) => expires.is_some_and(|expires| expires + MOST_APART < EPOCH + at),
            Some(State::Gone { .. }) => true,
            None => version == Version::NONE,
        }
    }

    /// What was just before a version, if that is known for sure to be one of the known ones.
    fn before(&self, version: Version, at: u64) -> Version {
        let mut before = self.states.range(..version).rev().map(|(version, _)| *version);
        let is_kept =
            |version: &Version| self.lost_at(*version, self.writer(*version).map_or(0, |write| write.called_at)) > at;
        before.find(is_kept).unwrap_or_default()
    }

    fn check_condition(&self, operation: &Logical<'_>) -> Result<(), String> {
        let Some((at, reply)) = operation.answer else { return Ok(()) };
        let condition = match operation.call.ask {
            Ask::Remove(version) => Condition::Matches(version),
            _ => operation.call.condition,
        };
        let is_right = match *reply {
            Reply::Found { version, .. } => {
                let matches = !matches!(condition, Condition::Matches(expected) if expected != version);
                matches && !self.is_gone(version, operation.called_at)
            }
            Reply::NotModified(version) => condition == Condition::Differs(version),
            Reply::Missing(version) => !self.is_live(version, at),
            Reply::Stored { version, .. } | Reply::Deleted(version) => {
                let before = self.before(version, at);
                let weak_before = self.excuses.iter().any(|excuse| excuse.at <= at);
                match condition {
                    Condition::Matches(expected) => before <= expected || weak_before,
                    Condition::Absent => {
                        !self.is_live(before, at)
                            || self.may_be_absent(before, at)
                            || self.is_in_doubt(at)
                            || weak_before
                    }
                    Condition::Differs(other) => {
                        before != other || !self.is_live(before, at) || self.is_in_doubt(at) || weak_before
                    }
                    Condition::None | Condition::Exists => true,
                }
            }
            Reply::ConditionFailed(version) => match condition {
                Condition::Matches(expected) => expected != version || !self.is_live(version, at),
                Condition::Absent => !self.is_gone(version, operation.called_at),
                Condition::Differs(other) => other == version,
                Condition::None | Condition::Exists => false,
            },
            Reply::Refused(_) | Reply::Unknown => true,
        };
        if is_right { Ok(()) } else { self.wrong("the condition is judged wrongly, or the time", operation, None) }
    }
}
