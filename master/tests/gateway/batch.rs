//! What becomes of a batch whose nodes fail, and of a question after a key.

use cairn_api_spec::{
    ErrorCode, Outcome, Version,
    data::{Explanation, KeyState},
    operation::Tier,
    peer::Execute,
};
use serde_json::{Value, json};

use crate::{
    SHORT, answer, at_first,
    master::{Master, Sent},
    node::{Answer, FakeNode, done, failed, found, stored},
};

/// Status and, where there is one, code of each result.
async fn results(sent: Sent) -> Vec<(u64, String)> {
    let body: Value = sent.reply().await.json().await.unwrap();
    let result = |result: &Value| {
        let code = result["problem"]["code"].as_str().unwrap_or_default();
        (result["status"].as_u64().unwrap(), code.to_owned())
    };
    body["results"].as_array().unwrap().iter().map(result).collect()
}

fn good(status: u64) -> (u64, String) {
    (status, String::new())
}

fn unknown() -> (u64, String) {
    (504, "outcome_unknown".to_owned())
}

fn operations() -> Value {
    json!([
        {"op": "put", "key": "a", "value": "1"},
        {"op": "get", "key": "a"},
        {"op": "put", "key": "b", "value": "1", "durability": "memory"},
    ])
}

#[tokio::test]
async fn an_owner_gets_its_operations_in_one_message_and_in_their_order() {
    let node = FakeNode::start("a", answer);
    let master = Master::with(&[&node], &[]).await;
    let all = json!((0..1_000).map(|i| json!({"op": "put", "key": format!("k{i}"), "value": "1"})).collect::<Vec<_>>());
    assert_eq!(results(master.batch(&all, None)).await, vec![good(201); 1_000]);
    assert_eq!((node.seen().len(), node.batches()), (1_000, 1));
    let in_order = node.seen().iter().enumerate().all(|(i, seen)| seen.name.ends_with(format!("\0k{i}").as_bytes()));
    assert!(in_order);
}

#[tokio::test]
async fn what_one_operation_is_refused_for_a_moment_is_asked_again_and_the_others_are_not() {
    let mut refusals = 2;
    let node = FakeNode::start("a", move |execute: &Execute| match refusals {
        1.. if execute.name.ends_with(b"b") => {
            refusals -= 1;
            failed(ErrorCode::NotOwner)
        }
        _ => answer(execute),
    });
    let master = Master::with(&[&node], &[]).await;
    assert_eq!(results(master.batch(&operations(), None)).await, [good(201), good(200), good(201)]);
    let seen = node.seen();
    assert_eq!((seen.len(), node.batches()), (5, 3));
    assert!(seen[3..].iter().all(|execute| execute.name.ends_with(b"b")));
}

#[tokio::test]
async fn a_refusal_for_good_is_the_result_of_its_own_operation() {
    let node = FakeNode::start("a", |execute: &Execute| match execute.action {
        0 => failed(ErrorCode::Internal),
        _ => stored(),
    });
    let master = Master::with(&[&node], &[]).await;
    let results = results(master.batch(&operations(), None)).await;
    assert_eq!(results, [good(201), (500, "internal".to_owned()), good(201)]);
    assert_eq!(node.batches(), 1);
}

#[tokio::test]
async fn what_may_have_been_done_is_not_sent_again_nor_what_is_behind_it_on_the_same_key() {
    let node = FakeNode::start("a", at_first(1, || Answer::Hang));
    let master = Master::with(&[&node], &["--link-deadline=8s"]).await;
    let batch = json!([
        {"op": "put", "key": "a", "value": "1"},
        {"op": "get", "key": "a"},
        {"op": "put", "key": "a", "value": "2", "idempotency_key": "once"},
        {"op": "get", "key": "b"},
    ]);
    let offline = (503, "partition_offline".to_owned());
    assert_eq!(results(master.batch(&batch, None)).await, [unknown(), offline, unknown(), good(200)]);
    assert_eq!(node.seen().len(), 2, "the hanging one, and the read of another key");
}

#[tokio::test]
async fn under_an_idempotency_key_what_may_have_been_done_is_sent_again() {
    let node = FakeNode::start("a", at_first(1, || Answer::Hang));
    let master = Master::with(&[&node], &["--link-deadline=8s"]).await;
    let sent = master.batch(&operations(), Some("once"));
    assert_eq!(results(sent).await, [good(201), good(200), good(201)]);
    let keys: Vec<_> = node.seen().into_iter().map(|execute| execute.idempotency_key).collect();
    assert_eq!(keys, ["once:0", "once:0", "", "once:2"]);
}

#[tokio::test]
async fn a_batch_has_one_deadline() {
    let node = FakeNode::start("a", |_: &Execute| failed(ErrorCode::NotOwner));
    let master = Master::with(&[&node], &[SHORT]).await;
    let offline = (503, "partition_offline".to_owned());
    assert_eq!(results(master.batch(&operations(), None)).await, vec![offline; 3]);
}

#[tokio::test]
async fn an_answer_that_holds_more_values_than_a_batch_may_is_cut_where_it_is_full() {
    let mebibyte = "x".repeat(1 << 20);
    let node = FakeNode::start("a", move |_: &Execute| {
        let Answer::Reply(reply) = found(Tier::Disk) else { panic!("a value was found") };
        let Some(cairn_api_spec::peer::ResponseKind::Executed(mut executed)) = reply.kind else { panic!("{reply:?}") };
        executed.value = Some(mebibyte.clone().into());
        done(executed.try_into().unwrap())
    });
    let master = Master::with(&[&node], &[]).await;
    let all = json!((0..17).map(|i| json!({"op": "get", "key": format!("k{i}")})).collect::<Vec<_>>());
    let results = results(master.batch(&all, None)).await;
    assert_eq!(results.iter().filter(|result| **result == good(200)).count(), 16);
    assert_eq!(results.iter().filter(|result| result.1 == "value_too_large").count(), 1);
}

#[tokio::test]
async fn an_explanation_says_which_node_the_master_asked_and_by_which_map() {
    let explanation = Explanation {
        bucket: "default".to_owned(),
        key: "k".to_owned(),
        partition: 0,
        epoch: 3,
        primary: "a".to_owned(),
        in_sync: vec!["a".to_owned()],
        learners: Vec::new(),
        node: "a".to_owned(),
        state: KeyState::Deleted,
        detail: "it was removed".to_owned(),
        version: Version(7),
        size: None,
        content_type: None,
        modified_at: None,
        expires_at: None,
        ttl: None,
        tier: None,
        uploaded: None,
        object_version: None,
        write_pending: false,
        asked: None,
    };
    let given = explanation.clone();
    let node = FakeNode::start("a", move |_: &Execute| done(Outcome::Explained(Box::new(given.clone()))));
    let master = Master::with(&[&node], &[]).await;
    let told: Explanation = master.explain().reply().await.json().await.unwrap();
    let asked = told.asked.clone().unwrap();
    assert_eq!((asked.node.as_str(), asked.map_epoch), ("a", master.ring().await.epoch));
    assert_eq!(Explanation { asked: None, ..told }, explanation);
}
