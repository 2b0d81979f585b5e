//! A simulated register, right and wrong, under the checkers.

use std::collections::BTreeMap;

use cairn_system_tests::{
    history::{Condition, Kind, Operation, Outcome, by_key},
    version_order,
    wing_gong::{self, Verdict},
};
use proptest::prelude::*;

use crate::{DELETE, PUT};

const CLIENTS: usize = 6;
const KEYS: usize = 3;
/// A step of the simulated time, in microseconds: longer than what clocks may differ by.
const UNIT: u64 = 10_000;
/// How long every other value of the last key lives, in those.
const LIFE: u64 = 30;

/// One step of a client of the simulated register.
#[derive(Clone, Debug)]
struct Step {
    client: usize,
    key: usize,
    action: u8,
    fate: u8,
    /// Before it is sent, until it happens, until it is answered.
    delays: [u64; 3],
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let delays = prop::array::uniform3(0..20_u64);
    let step = (0..CLIENTS, 0..KEYS, any::<u8>(), any::<u8>(), delays);
    prop::collection::vec(
        step.prop_map(|(client, key, action, fate, delays)| Step { client, key, action, fate, delays }),
        1..150,
    )
}

/// What the simulated register does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Bug {
    None,
    /// At one time it goes back to what was before the last answered write.
    Loses,
    /// A condition always holds.
    IgnoresConditions,
}

#[derive(Clone, Copy, Default)]
struct Register {
    value: Option<u64>,
    version: u64,
    expires: Option<u64>,
}

impl Register {
    /// Time goes on: a value whose time has come is absent, and swept before long.
    fn pass(&mut self, now: u64, random: u64) {
        if self.value.is_some() && self.expires.is_some_and(|expires| expires <= now) {
            self.value = None;
            self.version += random % 2;
        }
    }
}

/// When each step is sent, happens and is answered: one thing after the other at each client.
fn timeline(steps: &[Step]) -> Vec<(u64, usize, u64, u64)> {
    let (mut clocks, mut moments) = ([0; CLIENTS], Vec::new());
    for (id, step) in steps.iter().enumerate() {
        let invoked = clocks[step.client] + step.delays[0];
        let (moment, returned) = (invoked + step.delays[1], invoked + step.delays[1] + step.delays[2]);
        clocks[step.client] = returned + 1;
        // What nobody is told of may happen late.
        let late = if step.fate.is_multiple_of(16) { step.delays[2] * 10 } else { 0 };
        moments.push((moment + late, id, invoked, returned));
    }
    moments.sort_unstable();
    moments
}

fn kind(step: &Step, seen: Option<u64>) -> Kind {
    match (step.action % 8, seen) {
        (0..=2, _) | (5, None) => Kind::Get,
        (3 | 4, _) => PUT,
        (5, Some(version)) => Kind::Put(Condition::Version(version)),
        (6, _) => Kind::Put(Condition::Absent),
        _ => DELETE,
    }
}

/// Runs a register under the steps. What happens happens at one moment between question and answer; without an answer,
/// at any time after the question, or never. At the end, every key is read.
fn simulate(steps: &[Step], bug: Bug) -> Vec<Operation> {
    let (mut keys, mut known) = ([Register::default(); KEYS], BTreeMap::new());
    let (mut history, mut has_lost) = (Vec::new(), false);
    for (at, (now, id, invoked, returned)) in timeline(steps).into_iter().enumerate() {
        let step = &steps[id];
        let register = &mut keys[step.key];
        let (id, random) = (id as u64, u64::from(step.fate));
        register.pass(now, random);
        let before = *register;
        let kind = kind(step, known.get(&(step.client, step.key)).copied());
        // What has expired hides some of what a bug does.
        let may_expire = bug == Bug::None;
        let is_mortal = may_expire && matches!(kind, Kind::Put(_)) && step.key == KEYS - 1 && id.is_multiple_of(2);
        let lives = is_mortal.then_some(LIFE);
        let mut happens = || {
            let outcome = act(register, kind, id, random, bug);
            if register.value == Some(id) {
                register.expires = lives.map(|lives| now + lives);
            }
            outcome
        };
        let outcome = match step.fate % 16 {
            0 => {
                happens();
                Outcome::Unknown
            }
            1 => Outcome::Refused,
            2 => Outcome::Unknown,
            _ => happens(),
        };
        if let Outcome::Read { version, .. } = outcome {
            known.insert((step.client, step.key), version);
        }
        let (key, lives) = (step.key.to_string(), lives.map(|lives| lives * UNIT));
        let (invoked, returned) = (invoked * UNIT, returned * UNIT);
        history.push(Operation { id, client: 0, key, kind, lives, invoked, returned, outcome });
        if bug == Bug::Loses && matches!(outcome, Outcome::Written(_)) && !has_lost && at * 2 > steps.len() {
            (*register, has_lost) = (before, true);
        }
    }
    let end = history.iter().map(|operation| operation.returned).max().unwrap_or(0) + 1_000 * UNIT;
    for (key, register) in keys.iter_mut().enumerate() {
        let (id, kind) = ((steps.len() + key) as u64, Kind::Get);
        register.pass(end, 1);
        let (key, lives, outcome) = (key.to_string(), None, act(register, kind, id, 1, Bug::None));
        history.push(Operation { id, client: 0, key, kind, lives, invoked: end, returned: end, outcome });
    }
    history
}

fn act(register: &mut Register, kind: Kind, id: u64, random: u64, bug: Bug) -> Outcome {
    let absent = if random.is_multiple_of(3) { 0 } else { register.version };
    let shown = if register.value.is_some() { register.version } else { absent };
    let condition = match kind {
        Kind::Get => Condition::Always,
        Kind::Put(condition) | Kind::Delete(condition) => condition,
    };
    let holds = match condition {
        Condition::Always => true,
        Condition::Absent => register.value.is_none(),
        Condition::Version(version) => register.value.is_some() && register.version == version,
    };
    if !holds && bug != Bug::IgnoresConditions {
        return Outcome::ConditionFailed(shown);
    }
    match (kind, register.value) {
        (Kind::Get, Some(write)) => Outcome::Read { version: register.version, write },
        (Kind::Get | Kind::Delete(_), None) => Outcome::Absent(shown),
        (Kind::Put(_) | Kind::Delete(_), _) => {
            register.version += 1 + random % 5;
            register.value = matches!(kind, Kind::Put(_)).then_some(id);
            Outcome::Written(register.version)
        }
    }
}

fn verdicts(history: &[Operation]) -> Vec<Verdict> {
    by_key(history).values().map(|operations| wing_gong::check(operations)).collect()
}

proptest! {
    #[test]
    fn what_an_atomic_register_does_is_accepted(steps in steps()) {
        let history = simulate(&steps, Bug::None);
        prop_assert_eq!(version_order::check(&history), []);
        prop_assert!(!verdicts(&history).contains(&Verdict::Violated));
    }

    #[test]
    fn a_read_that_is_made_to_see_an_earlier_write_is_found(steps in steps(), choice in any::<prop::sample::Index>()) {
        let mut history = simulate(&steps, Bug::None);
        let reads: Vec<(usize, u64)> = history.iter().enumerate().filter_map(|(index, operation)| match operation.outcome {
            Outcome::Read { version, .. } => Some((index, version)),
            _ => None,
        }).collect();
        // A value that a later write had replaced before the read began.
        let older = |(index, version): &(usize, u64)| {
            let read = &history[*index];
            let same = history.iter().filter(|other| other.key == read.key && other.returned < read.invoked);
            let puts = same.filter_map(|other| match (other.kind, other.outcome) {
                (Kind::Put(_), Outcome::Written(written)) if written <= *version => Some((written, other)),
                _ => None,
            });
            let puts: BTreeMap<u64, &Operation> = puts.collect();
            let (_, newest) = puts.last_key_value()?;
            let (version, put) = puts.iter().rfind(|(_, put)| put.returned < newest.invoked)?;
            Some((*index, Outcome::Read { version: *version, write: put.id }))
        };
        let stale: Vec<(usize, Outcome)> = reads.iter().filter_map(older).collect();
        prop_assume!(!stale.is_empty());
        let (index, outcome) = *choice.get(&stale);
        history[index].outcome = outcome;
        prop_assert!(!version_order::check(&history).is_empty());
        let key = history[index].key.clone();
        let operations: Vec<_> = history.iter().filter(|operation| operation.key == key).collect();
        prop_assert_ne!(wing_gong::check(&operations), Verdict::Linearizable);
    }
}

/// Runs the simulation with a bug until it shows; it must within few of the random histories.
fn finds(bug: Bug) -> (u32, u32, u32) {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut by_versions, mut by_search, mut runs) = (0, 0, 0);
    for _ in 0..100 {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        if steps.len() < 60 {
            continue;
        }
        let history = simulate(&steps, bug);
        runs += 1;
        by_versions += u32::from(!version_order::check(&history).is_empty());
        by_search += u32::from(verdicts(&history).contains(&Verdict::Violated));
    }
    (runs, by_versions, by_search)
}

#[test]
fn a_register_that_loses_one_answered_write_is_found_out_as_a_rule() {
    let (runs, by_versions, by_search) = finds(Bug::Loses);
    assert!(by_versions * 2 > runs && by_search * 4 > runs, "{by_versions} and {by_search} of {runs}");
}

#[test]
fn a_register_that_ignores_conditions_is_found_out_as_a_rule() {
    let (runs, by_versions, by_search) = finds(Bug::IgnoresConditions);
    assert!(by_versions * 2 > runs && by_search * 2 > runs, "{by_versions} and {by_search} of {runs}");
}
