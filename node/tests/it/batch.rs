//! Operations that come together.

use std::collections::BTreeMap;

use cairn_api_spec::{ErrorCode, Operation, Outcome, Version, version::Condition};

use crate::support::{MAX_VALUE_BYTES, TestStore, add, delete, get, put, put_with, value_of};

type Results = Vec<Result<Outcome, cairn_api_spec::ApiError>>;

async fn run(store: &TestStore, operations: Vec<Operation>) -> Results {
    store.driver.execute_batch(operations.into_iter().map(|operation| (operation, 0)).collect(), None).await
}

#[tokio::test]
async fn operations_on_the_same_key_are_done_in_their_order_and_answered_in_their_places() {
    let store = TestStore::open(10).await;
    let mut operations = Vec::new();
    for _ in 0..50 {
        operations.extend(["a", "b", "c"].map(|key| add(key, 1)));
    }
    let mut sums: BTreeMap<usize, i64> = BTreeMap::new();
    for (index, result) in run(&store, operations).await.into_iter().enumerate() {
        let Ok(Outcome::Counted { value, .. }) = result else { panic!("{result:?}") };
        let sum = sums.entry(index % 3).or_default();
        *sum += 1;
        assert_eq!(value, *sum);
    }
    let create = put_with("k", "1", Condition::Absent, None);
    let results = run(&store, vec![create.clone(), get("k"), create, delete("k"), get("k"), delete("k")]).await;
    let [Ok(stored), Ok(found), Ok(refused), Ok(deleted), Ok(missing), Ok(nothing)] = &results[..] else {
        panic!("{results:?}")
    };
    assert!(matches!(stored, Outcome::Stored { created: true, .. }));
    assert_eq!(value_of(found).as_deref(), Some("1"));
    assert!(matches!(refused, Outcome::ConditionFailed(version) if *version > Version::NONE));
    assert!(matches!(deleted, Outcome::Deleted(_)));
    assert!(matches!((missing, nothing), (Outcome::Missing(a), Outcome::Missing(b)) if a == b));
}

#[tokio::test]
async fn values_that_an_answer_has_no_room_for_are_to_be_read_by_themselves() {
    let store = TestStore::open(1_000).await;
    let value = "x".repeat(MAX_VALUE_BYTES);
    for index in 0..200 {
        store.run(put(&format!("k{index}"), &value)).await.unwrap();
    }
    let results = run(&store, (0..200).map(|index| get(&format!("k{index}"))).collect()).await;
    let room = (16 << 20) / MAX_VALUE_BYTES;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), room);
    let refused = results.into_iter().filter_map(Result::err);
    assert!(refused.into_iter().all(|error| error.code == ErrorCode::ValueTooLarge && error.version.is_some()));
}

#[tokio::test]
async fn behind_an_operation_that_failed_none_on_the_same_key_is_done() {
    let store = TestStore::open(10).await;
    let refused = put("k", &"x".repeat(MAX_VALUE_BYTES + 1));
    let results = run(&store, vec![refused, put("k", "1")]).await;
    let [Err(error), Ok(Outcome::Stored { .. })] = &results[..] else { panic!("{results:?}") };
    assert_eq!(error.code, ErrorCode::ValueTooLarge, "one that will not pass holds up nothing");

    store.serve_none();
    let results = run(&store, vec![add("k", 1), get("k"), add("other", 1)]).await;
    let errors: Vec<_> = results.into_iter().map(Result::unwrap_err).collect();
    assert!(errors.iter().all(|error| error.code == ErrorCode::NotOwner), "{errors:?}");
    assert!(errors[1].detail.starts_with("not done, since an operation before it"), "{errors:?}");
    assert!(!errors[2].detail.starts_with("not done"), "{errors:?}");
}
