//! Random operations on a few keys: the store says what a map would say, whatever memory drops and however it restarts.

use std::collections::BTreeMap;

use cairn_api_spec::{Operation, Outcome, Version, operation::Durability, version::Condition};
use proptest::prelude::*;

use crate::support::{TestStore, delete, get, head, keyed, put_with, value_of};

const DURABILITIES: [Durability; 3] = [Durability::Memory, Durability::Disk, Durability::Fsync];

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        value: u8,
        condition: u8,
        durability: usize,
        is_keyed: bool,
    },
    Delete {
        key: u8,
        is_keyed: bool,
    },
    Get {
        key: u8,
    },
    Head {
        key: u8,
    },
    /// Sends an earlier write once more.
    Repeat {
        nth: usize,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0u8..5, any::<u8>(), 0u8..5, 0usize..3, any::<bool>()).prop_map(
            |(key, value, condition, durability, is_keyed)| Step::Put { key, value, condition, durability, is_keyed }
        ),
        2 => (0u8..5, any::<bool>()).prop_map(|(key, is_keyed)| Step::Delete { key, is_keyed }),
        5 => (0u8..5).prop_map(|key| Step::Get { key }),
        1 => (0u8..5).prop_map(|key| Step::Head { key }),
        3 => any::<usize>().prop_map(|nth| Step::Repeat { nth }),
        1 => Just(Step::Reopen),
    ]
}

/// What a map would know: the value and its version, of live keys.
type Model = BTreeMap<String, (String, Version)>;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_store_says_what_a_map_would_say(steps in proptest::collection::vec(step(), 1..60), lru_size in 1usize..6) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut store = TestStore::open(lru_size).await;
            let mut model = Model::new();
            let mut writes = Vec::new();
            for step in steps {
                match step {
                    Step::Reopen => store = store.reopen().await,
                    Step::Repeat { nth } => check_repeated(&store, &writes, nth).await,
                    step => check(&store, &mut model, &mut writes, &step).await,
                }
            }
        });
    }
}

/// Writes under idempotency keys, and what became of them.
type Writes = Vec<(Operation, Outcome)>;

async fn check(store: &TestStore, model: &mut Model, writes: &mut Writes, step: &Step) {
    let (key, operation) = operation_of(step, model);
    let operation = match step {
        Step::Put { is_keyed: true, .. } | Step::Delete { is_keyed: true, .. } => {
            keyed(operation, &format!("write{}", writes.len()))
        }
        _ => operation,
    };
    let live = model.get(&key).map(|(_, version)| *version);
    let condition = operation.condition;
    let outcome = store.run(operation.clone()).await.unwrap();
    if operation.idempotency_key.is_some() {
        writes.push((operation, outcome.clone()));
    }
    match (step, &outcome) {
        (Step::Put { value, .. }, Outcome::Stored { created, metadata }) => {
            assert!(condition.holds(live));
            assert_eq!(*created, live.is_none());
            assert!(live.is_none_or(|before| metadata.version > before));
            model.insert(key, (value.to_string(), metadata.version));
        }
        (Step::Put { .. }, Outcome::ConditionFailed(version)) => {
            assert!(!condition.holds(live));
            assert!(live.is_none_or(|before| *version == before));
        }
        (Step::Delete { .. }, Outcome::Deleted(version)) => {
            assert!(live.is_some_and(|before| *version > before));
            model.remove(&key);
        }
        (Step::Get { .. }, Outcome::Found { metadata, .. }) => {
            assert_eq!(model.get(&key), Some(&(value_of(&outcome).unwrap(), metadata.version)));
        }
        (Step::Head { .. }, Outcome::Found { metadata, .. }) => {
            let (value, version) = &model[&key];
            assert_eq!((metadata.size, metadata.version), (value.len() as u64, *version));
        }
        (_, Outcome::Missing(_)) => assert!(live.is_none()),
        other => panic!("{other:?}"),
    }
}

/// The answer is the first one; that nothing was done again, later steps see.
async fn check_repeated(store: &TestStore, writes: &Writes, nth: usize) {
    if !writes.is_empty() {
        let (operation, first) = &writes[nth % writes.len()];
        let again = store.run(operation.clone()).await.unwrap();
        assert_eq!(format!("{again:?}"), format!("{first:?}"));
    }
}

fn operation_of(step: &Step, model: &Model) -> (String, Operation) {
    match step {
        Step::Put { key, value, condition, durability, .. } => {
            let key = format!("key{key}");
            let known = model.get(&key).map_or(Version(1), |(_, version)| *version);
            let condition = match condition {
                0 => Condition::Absent,
                1 => Condition::Exists,
                2 => Condition::Matches(known),
                3 => Condition::Differs(known),
                _ => Condition::None,
            };
            let operation = put_with(&key, &value.to_string(), condition, Some(DURABILITIES[*durability]));
            (key, operation)
        }
        Step::Delete { key, .. } => named(*key, delete),
        Step::Get { key } => named(*key, get),
        Step::Head { key } => named(*key, head),
        Step::Repeat { .. } | Step::Reopen => unreachable!("it is no new operation"),
    }
}

fn named(key: u8, operation: impl Fn(&str) -> Operation) -> (String, Operation) {
    let key = format!("key{key}");
    let operation = operation(&key);
    (key, operation)
}
