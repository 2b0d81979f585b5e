//! The second opinion: a search for an order of the operations that a register with compare-and-set could have had.
//!
//! It is the search of Wing and Gong (1993), with Lowe's memory of the configurations that led nowhere (2017). It does
//! not look at versions, except to know which value a condition named. Its time is exponential in how many operations
//! overlap, so it is for the short histories of single keys.

use std::collections::{HashMap, HashSet};

use crate::history::{Condition, Kind, Operation, Outcome};

/// The longest history of one key that is searched.
pub const LONGEST: usize = 128;
/// Configurations after which the search gives up.
const MOST_CONFIGURATIONS: usize = 20_000;

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none.
    Violated,
    /// The history is too long, or too much of it overlaps.
    Undecided,
}

/// What a key holds: the write of its value.
type State = Option<u64>;

struct Search<'a> {
    operations: Vec<&'a Operation>,
    /// The write of the value that had a version.
    writes: HashMap<u64, u64>,
    /// The puts of values that do not live for ever.
    mortal: HashMap<u64, &'a Operation>,
    failed: HashSet<(u128, State)>,
}

/// Judges the history of one key.
pub fn check(history: &[&Operation]) -> Verdict {
    let says_something = |operation: &&&Operation| match operation.outcome {
        Outcome::Refused => false,
        Outcome::Unknown => operation.is_write(),
        _ => true,
    };
    let mut operations: Vec<_> = history.iter().filter(says_something).copied().collect();
    // What ends first is tried first, and what nobody answered last: that is mostly the order that there was.
    operations.sort_unstable_by_key(|operation| (operation.is_doubtful(), operation.returned));
    if operations.len() > LONGEST {
        return Verdict::Undecided;
    }
    let writes = history.iter().filter_map(|operation| match (operation.outcome, operation.kind) {
        (Outcome::Written(version), Kind::Put(_)) => Some((version, operation.id)),
        (Outcome::Read { version, write }, _) => Some((version, write)),
        _ => None,
    });
    let mortal = history.iter().filter(|operation| operation.lives.is_some()).map(|put| (put.id, *put));
    let (writes, mortal) = (writes.collect(), mortal.collect());
    let mut search = Search { writes, mortal, operations, failed: HashSet::new() };
    match search.run(0, None) {
        true => Verdict::Linearizable,
        false if search.failed.len() >= MOST_CONFIGURATIONS => Verdict::Undecided,
        false => Verdict::Violated,
    }
}

impl Search<'_> {
    /// Whether the operations that are not in `done` can follow from `state`.
    fn run(&mut self, done: u128, state: State) -> bool {
        let open = |index: &usize| done & (1 << index) == 0;
        let left: Vec<usize> = (0..self.operations.len()).filter(open).collect();
        let answered = left.iter().map(|index| self.operations[*index]).filter(|operation| !operation.is_doubtful());
        // What nobody answered may happen at any time, or never.
        let Some(first_end) = answered.map(|operation| operation.returned).min() else { return true };
        if self.failed.len() >= MOST_CONFIGURATIONS || self.failed.contains(&(done, state)) {
            return false;
        }
        for index in left {
            let operation = self.operations[index];
            if operation.invoked > first_end {
                continue;
            }
            for found in self.found_by(operation, state).into_iter().flatten() {
                if let Some(next) = self.step(operation, found)
                    && self.run(done | (1 << index), next)
                {
                    return true;
                }
            }
        }
        self.failed.insert((done, state));
        false
    }

    /// What an operation can find where the last write left `state`: that, nothing since its time has come, or either.
    fn found_by(&self, operation: &Operation, state: State) -> [Option<State>; 2] {
        match state.and_then(|write| self.mortal.get(&write)) {
            Some(put) => [
                (!put.must_have_expired_for(operation)).then_some(state),
                put.may_have_expired_for(operation).then_some(None),
            ],
            None => [Some(state), None],
        }
    }

    /// The state after an operation, if it can have its outcome in `state`.
    fn step(&self, operation: &Operation, state: State) -> Option<State> {
        let holds = match operation.condition() {
            Condition::Always => true,
            Condition::Absent => state.is_none(),
            Condition::Version(version) => state.is_some() && state.as_ref() == self.writes.get(&version),
        };
        let possible = match operation.outcome {
            Outcome::Read { write, .. } => state == Some(write),
            Outcome::Absent(_) => holds && state.is_none(),
            Outcome::ConditionFailed(_) => !holds,
            Outcome::Written(_) | Outcome::Unknown => match operation.kind {
                Kind::Delete(_) => holds && state.is_some(),
                Kind::Put(_) | Kind::Get => holds,
            },
            Outcome::Refused => true,
        };
        let happens = matches!(operation.outcome, Outcome::Written(_) | Outcome::Unknown);
        possible.then_some(match operation.kind {
            Kind::Put(_) if happens => Some(operation.id),
            Kind::Delete(_) if happens => None,
            _ => state,
        })
    }
}
