//! Whether one register for each key could have said what clients were told: every answer carries a version, and versions
//! order what was written.
//!
//! Calls with one idempotency key are one write: it happens at most once, and every answer says the same. Where a
//! partition goes on with what the disk of a restarted node has, what was to be in memory only may be gone from then on.

use std::collections::BTreeMap;

use cairn_api_spec::{Version, operation::Durability, version::Condition};

use super::{
    history::{Ask, Call, Operation, Reply},
    machine::{EPOCH, SKEW},
    world::World,
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

struct KeyHistory<'a> {
    key: u16,
    operations: Vec<&'a Logical<'a>>,
    all: &'a BTreeMap<usize, Logical<'a>>,
    states: BTreeMap<Version, State>,
    /// Since when what was to be in memory only may be gone.
    excused_at: Option<u64>,
}

/// Looks for what no register could have said.
pub(crate) fn check(history: &[Operation], world: &World) -> Result<(), String> {
    let excused_at = |call: &Call| world.excused.get(&call.name().partition(world.config.partitions)).copied();
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
            (Some((_, first)), Some((at, second))) if !is_same(first, second) => {
                let is_weak = known.call.durability == Durability::Memory
                    || matches!(first, Reply::ConditionFailed(_) | Reply::Missing(_));
                if !(is_weak && excused_at(call).is_some_and(|since| since <= at)) {
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
        let excused_at = operations.first().and_then(|operation| excused_at(operation.call));
        KeyHistory { key, operations, all: &all, states: BTreeMap::new(), excused_at }.check()?;
    }
    Ok(())
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
        Err(format!("key {}: {what}: {}{against}; excused since {:?}", self.key, show(operation), self.excused_at))
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
        let is_excused = self.excused_at.is_some() && write.call.durability == Durability::Memory;
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

    /// Whether a version may be lost when the last copy is.
    fn is_weak(&self, version: Version) -> bool {
        let durability = self.states.get(&version).and_then(|state| {
            let (State::Value { writer, .. } | State::Gone { writer }) = state;
            self.all.get(writer).map(|write| write.call.durability)
        });
        durability.is_none_or(|durability| durability == Durability::Memory)
    }

    /// What was asked after something was answered must not be of an earlier version, and a write of a later one.
    fn check_order(&self, operations: &[&Logical<'_>]) -> Result<(), String> {
        let mut by_call = operations.to_vec();
        by_call.sort_by_key(|operation| operation.called_at);
        let answered_at = |operation: &&Logical<'_>| operation.answer.map_or(u64::MAX, |(at, _)| at);
        let mut by_answer: Vec<&Logical<'_>> =
            operations.iter().copied().filter(|operation| operation.answer.is_some()).collect();
        by_answer.sort_by_key(answered_at);
        let mut answered = by_answer.into_iter().peekable();
        let (mut floor, mut strong_floor): (Option<&Logical<'_>>, Option<&Logical<'_>>) = (None, None);
        let version_of =
            |operation: &Logical<'_>| operation.answer.and_then(|(_, reply)| reply.version()).unwrap_or_default();
        for later in by_call {
            while let Some(earlier) = answered.next_if(|earlier| answered_at(earlier) < later.called_at) {
                floor = floor.filter(|floor| version_of(floor) >= version_of(earlier)).or(Some(earlier));
                if !self.is_weak(version_of(earlier)) {
                    strong_floor =
                        strong_floor.filter(|floor| version_of(floor) >= version_of(earlier)).or(Some(earlier));
                }
            }
            let Some((at, reply)) = later.answer else { continue };
            let excused = self.excused_at.is_some_and(|since| since <= at);
            let Some(floor) = (if excused { strong_floor } else { floor }) else { continue };
            let (seen, least) = (version_of(later), version_of(floor));
            let is_write = matches!(reply, Reply::Stored { .. } | Reply::Deleted(_));
            if (seen == Version::NONE && self.may_be_absent(least, at)) || (excused && is_write && self.is_weak(seen)) {
                continue;
            }
            if seen < least || (is_write && seen == least) {
                return self.wrong("a version went back", later, Some(floor));
            }
        }
        Ok(())
    }

    /// Whether a key that had a version may be absent, its deletion forgotten.
    fn may_be_absent(&self, version: Version, at: u64) -> bool {
        let deletes = |operation: &&Logical<'_>| {
            let is_delete = matches!(operation.call.ask, Ask::Delete | Ask::Remove(_)) && operation.called_at < at;
            let after = matches!(operation.answer, Some((_, Reply::Deleted(deleted))) if *deleted > version);
            is_delete && (after || operation.in_doubt)
        };
        !self.is_live(version, at) || self.operations.iter().any(deletes)
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
    fn before(&self, version: Version) -> Version {
        let mut before = self.states.range(..version).rev().map(|(version, _)| *version);
        before.find(|version| self.excused_at.is_none() || !self.is_weak(*version)).unwrap_or_default()
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
                let before = self.before(version);
                let weak_before = self.excused_at.is_some();
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
