//! Writes under idempotency keys: sent again, they are not done again.

use std::{
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use cairn_api_spec::{
    Operation, Outcome, Version,
    operation::{Action, Durability, Metadata},
    peer::{Append, Replicate, Request, RequestKind, Response, ResponseKind, Row},
    version::Condition,
};
use cairn_engine::TierError;
use cairn_link::Limits;
use cairn_node::{
    cluster::{
        follow,
        transfer::{Copy, merge, serve_fetch},
    },
    driver::Driver,
    error::NodeError,
};
use cairn_replication::{Collected, Entry, Member};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{PARTITIONS, TestStore, delete, get, keyed, put, put_with, value_of};

async fn stored(store: &TestStore, operation: Operation) -> (bool, Metadata) {
    match store.run(operation).await.unwrap() {
        Outcome::Stored { created, metadata } => (created, metadata),
        other => panic!("{other:?}"),
    }
}

async fn read(store: &TestStore, key: &str) -> Option<String> {
    value_of(&store.run(get(key)).await.unwrap())
}

fn partition_of(operation: &Operation) -> u32 {
    operation.name.partition(PARTITIONS)
}

#[tokio::test]
async fn a_repeated_write_gets_the_first_answer_and_changes_nothing() {
    let store = TestStore::open(10).await;
    let first = stored(&store, keyed(put("k", "1"), "once")).await;
    assert!(first.0);
    stored(&store, put("k", "another client's")).await;
    assert_eq!(stored(&store, keyed(put("k", "1"), "once")).await, first);
    assert_eq!(read(&store, "k").await.unwrap(), "another client's");

    let store = store.reopen().await;
    assert_eq!(stored(&store, keyed(put("k", "1"), "once")).await, first);
    assert_eq!(read(&store, "k").await.unwrap(), "another client's");
    assert!(stored(&store, keyed(put("k", "1"), "twice")).await.1.version > first.1.version);
}

#[tokio::test]
async fn a_repeated_write_is_not_judged_by_its_own_effect() {
    let store = TestStore::open(10).await;
    let create = || keyed(put_with("k", "1", Condition::Absent, None), "create");
    let created = stored(&store, create()).await;
    assert_eq!(stored(&store, create()).await, created);

    let remove = || keyed(delete("k"), "remove");
    let Outcome::Deleted(version) = store.run(remove()).await.unwrap() else { panic!("k was there") };
    let Outcome::Deleted(again) = store.run(remove()).await.unwrap() else { panic!("k was there at first") };
    assert_eq!(again, version);
    assert_eq!(stored(&store, create()).await, created);
    assert_eq!(read(&store, "k").await, None);
}

#[tokio::test]
async fn a_refused_write_is_refused_again_when_it_is_sent_again() {
    let store = TestStore::open(10).await;
    let Outcome::Stored { metadata: first, .. } = store.run(put("k", "1")).await.unwrap() else {
        panic!("it is a put")
    };
    let create = || keyed(put_with("k", "2", Condition::Absent, None), "create");
    let remove = || keyed(delete("gone"), "remove");
    let refused = store.run(create()).await.unwrap();
    assert!(matches!(refused, Outcome::ConditionFailed(version) if version == first.version), "{refused:?}");
    assert!(matches!(store.run(remove()).await.unwrap(), Outcome::Missing(Version::NONE)));

    // Now the condition would hold, and there would be something to remove.
    store.run(delete("k")).await.unwrap();
    store.run(put("gone", "1")).await.unwrap();
    let store = store.reopen().await;
    for _ in 0..2 {
        let again = store.run(create()).await.unwrap();
        assert!(matches!(again, Outcome::ConditionFailed(version) if version == first.version), "{again:?}");
        assert!(matches!(store.run(remove()).await.unwrap(), Outcome::Missing(Version::NONE)));
    }
    assert_eq!(read(&store, "k").await, None);
    assert_eq!(read(&store, "gone").await.unwrap(), "1");
    assert!(stored(&store, keyed(put_with("k", "2", Condition::Absent, None), "another")).await.0);
}

#[tokio::test]
async fn a_key_that_was_used_for_another_request_is_refused() {
    let store = TestStore::open(10).await;
    store.run(keyed(put("k", "1"), "once")).await.unwrap();
    let partition = partition_of(&get("k"));
    let same_partition = |name: &String| partition_of(&get(name)) == partition;
    let other = (0..).map(|i| format!("other{i}")).find(same_partition).unwrap();
    for operation in [put(&other, "1"), delete("k")] {
        let refused = store.run(keyed(operation, "once")).await;
        assert!(matches!(refused, Err(NodeError::Engine(cairn_engine::Error::KeyReused))), "{refused:?}");
    }
    assert_eq!(read(&store, "k").await.unwrap(), "1");
    assert_eq!(read(&store, &other).await, None);
}

#[tokio::test]
async fn of_writes_with_one_key_at_the_same_time_one_is_done() {
    // Memory for one entry: nearly every decision needs a look at the disk.
    let store = Arc::new(TestStore::open(1).await);
    for round in 0..20 {
        let (key, once) = (format!("k{}", round % 3), format!("once{round}"));
        let tasks: Vec<_> = (0..20)
            .map(|i| {
                let durability = [Durability::Memory, Durability::Disk, Durability::Fsync][i % 3];
                let write = put_with(&key, &round.to_string(), Condition::None, Some(durability));
                let (store, write) = (store.clone(), keyed(write, &once));
                tokio::spawn(async move { stored(&store, write).await })
            })
            .collect();
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.unwrap());
        }
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
        let Outcome::Found { metadata, .. } = store.run(get(&key)).await.unwrap() else { panic!("{key} is gone") };
        assert_eq!(metadata.version, outcomes[0].1.version);
    }
}

/// Drops a request after a while, as if its client had gone away. Says whether it had ended.
async fn drop_after(patience: Duration, request: impl Future) -> bool {
    let mut request = pin!(request);
    // Timers are not as fine as this.
    let start = Instant::now();
    while start.elapsed() < patience {
        if std::future::poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_ready())).await {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_client_goes_away_is_done_once_when_it_is_sent_again() {
    let store = TestStore::open(1).await;
    let mut dropped = 0;
    for round in 0..200 {
        let key = format!("k{round}");
        let write = || keyed(put(&key, "1"), &key);
        if !drop_after(Duration::from_micros(10 * round), store.driver.execute(write(), 0, None)).await {
            dropped += 1;
        }
        // Were it done twice, the second time would find the key there.
        let first = stored(&store, write()).await;
        assert!(first.0, "round {round}");
        assert_eq!(stored(&store, write()).await, first);
    }
    assert!(dropped >= 5, "the requests were all quicker than this test");
}

#[tokio::test]
async fn a_write_that_the_disk_did_not_take_leaves_its_key_free() {
    let store = TestStore::open(10).await;
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON entries WHEN NEW.content_type = 'refused' \
                   BEGIN SELECT RAISE(ABORT, 'refused'); END";
    let store = store.reopen_after(trigger).await;
    let mut refused = keyed(put("k", "1"), "once");
    let Action::Put(put_refused) = &mut refused.action else { panic!("it is a put") };
    put_refused.content_type = "refused".to_owned();
    assert!(matches!(store.run(refused).await, Err(NodeError::Tier(TierError::Disk(_)))));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let (created, _) = loop {
        match store.run(keyed(put("k", "1"), "once")).await {
            Ok(Outcome::Stored { created, metadata }) => break (created, metadata),
            // The writer opens the file again.
            Err(NodeError::Tier(TierError::Disk(_))) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(created);
}

#[tokio::test]
async fn a_key_is_forgotten_after_ten_minutes() {
    let store = TestStore::open(10).await;
    let first = stored(&store, keyed(put("k", "1"), "once")).await;
    let store = store.reopen_after("UPDATE idempotency SET modified_at = modified_at - 590000").await;
    assert_eq!(stored(&store, keyed(put("k", "1"), "once")).await.1.version, first.1.version);
    let store = store.reopen_after("UPDATE idempotency SET modified_at = modified_at - 10000").await;
    let (created, second) = stored(&store, keyed(put("k", "2"), "once")).await;
    assert!(!created && second.version > first.1.version);
    assert_eq!(stored(&store, keyed(put("k", "2"), "once")).await.1, second);

    let partition = partition_of(&get("k"));
    let kept = async || store.driver.disk.idempotency_keys(partition, Version::NONE, 10).await.unwrap();
    assert_eq!(kept().await.len(), 2);
    store.driver.disk.forget_keys(partition).await.unwrap();
    let kept = kept().await;
    assert_eq!(kept.iter().map(|first| first.version).collect::<Vec<_>>(), [second.version.0]);
}

#[tokio::test]
async fn a_key_goes_with_its_partition() {
    let store = TestStore::open(10).await;
    store.run(keyed(put("k", "1"), "once")).await.unwrap();
    let partition = partition_of(&get("k"));
    store.driver.disk.drop_partition(partition).await.unwrap();
    assert!(store.driver.disk.idempotency_keys(partition, Version::NONE, 10).await.unwrap().is_empty());
}

fn member(node: &str) -> Member<Arc<str>> {
    Member { node: node.into(), session: 1 }
}

/// What a primary sends of a write.
fn append(operation: &Operation, key: &str, version: Version) -> Append {
    let row = Row {
        name: operation.name.as_bytes().clone(),
        version: version.0,
        modified_at: u64::MAX >> 1,
        expires_at: u64::MAX >> 1,
        size: 1,
        value: Some("1".into()),
        ..Row::default()
    };
    let (partition, idempotency_key) = (partition_of(operation), key.to_owned());
    Append {
        partition,
        epoch: 1,
        stable: 0,
        durability: 1,
        row: Some(row),
        idempotency_key,
        created: true,
        ..Append::default()
    }
}

async fn assert_is_repeated(store: &TestStore, write: Operation, version: Version) {
    let (created, metadata) = stored(store, write).await;
    assert!(created);
    assert_eq!((metadata.version, metadata.expires_at), (version, Some(u64::MAX >> 1)));
    assert_eq!(read(store, "k").await.unwrap(), "1");
}

#[tokio::test]
async fn a_replica_that_takes_over_knows_the_keys_of_the_writes_that_it_was_sent() {
    let store = TestStore::of_node("replica").await;
    let (primary, me) = (member("primary"), store.driver.me.clone());
    let (write, version) = (keyed(put("k", "1"), "once"), Version::NONE.next(1).unwrap());
    let in_sync = vec![primary.clone(), me.clone()];
    let entry = Entry { epoch: 1, primary: Some(primary.node), in_sync, ..Entry::default() };
    store.configure(partition_of(&write), entry);
    let message = Replicate {
        primary: "primary".into(),
        primary_session: 1,
        session: me.session,
        appends: vec![append(&write, "once", version)],
        ..Replicate::default()
    };
    assert!(follow::replicate(&store.driver, &store.peers, message).await.unwrap().refused.is_empty());
    store.serve_all(2).await;
    assert_is_repeated(&store, write, version).await;
}

#[tokio::test]
async fn a_replica_that_takes_over_knows_the_keys_of_the_writes_that_another_one_was_sent() {
    let store = TestStore::of_node("replica").await;
    let (other, me) = (member("other"), store.driver.me.clone());
    let (write, version) = (keyed(put("k", "1"), "once"), Version::NONE.next(1).unwrap());
    let partition = partition_of(&write);
    let (in_sync, primary) = (vec![me.clone(), other.clone()], Some(me.node));
    store.configure(partition, Entry { epoch: 2, primary, in_sync, ..Entry::default() });
    let writes = vec![follow::write(append(&write, "once", version)).unwrap()];
    let collected = Collected { writes, stable: Version::NONE, last: version };
    store.driver.protocol(partition, |replica, now, effects| {
        replica.lead(now, effects);
        replica.collected(&other, 2, now, collected, now, effects);
    });
    store.serve_all(3).await;
    assert_is_repeated(&store, write, version).await;
}

/// Serves the pages of copies.
struct Pages(Arc<Driver>);

impl cairn_link::Service for Pages {
    type Request = Request;
    type Response = Response;

    async fn call(&self, request: Request) -> Response {
        let Some(RequestKind::Fetch(fetch)) = request.kind else { panic!("it asks for pages only") };
        match serve_fetch(&self.0, fetch).await {
            Ok(page) => Response { kind: Some(ResponseKind::Fetched(page)) },
            Err(error) => Response::failed(error.into()),
        }
    }
}

/// Serves a store's pages until the end of the test, to a store that knows it by `name`.
async fn serve_pages(from: &TestStore, name: &str, to: &TestStore) -> DropGuard {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let pages = Arc::new(Pages(from.driver.clone()));
    tokio::spawn(cairn_link::serve(listener, pages, Limits::default(), stop.clone()));
    to.peers.set_addresses([(name, address.as_str())].into_iter());
    stop.drop_guard()
}

/// Fifty writes of one key under fifty idempotency keys.
async fn write_some(store: &TestStore) -> Vec<(Operation, (bool, Metadata))> {
    let mut writes = Vec::new();
    for i in 0..50 {
        let write = keyed(put("k", &i.to_string()), &format!("once{i}"));
        writes.push((write.clone(), stored(store, write).await));
    }
    writes
}

async fn assert_all_are_repeated(store: &TestStore, writes: Vec<(Operation, (bool, Metadata))>) {
    for (write, first) in writes {
        assert_eq!(stored(store, write).await, first);
    }
    assert_eq!(read(store, "k").await.unwrap(), "49");
}

#[tokio::test]
async fn a_learner_gets_the_keys_with_its_copy_and_forgets_those_that_the_primary_lacks() {
    let (primary, learner) = (TestStore::open(10).await, TestStore::of_node("learner").await);
    let partition = partition_of(&get("k"));
    learner.serve_all(1).await;
    let lost = keyed(put("k", "lost"), "lost");
    stored(&learner, lost.clone()).await;
    let writes = write_some(&primary).await;

    let (me, in_sync) = (learner.driver.me.clone(), vec![primary.driver.me.clone()]);
    let (epoch, learners) = (2, vec![me.clone()]);
    let entry = Entry { epoch, primary: Some("node".into()), in_sync, learners, successor: None };
    primary.configure(partition, entry.clone());
    learner.configure(partition, entry);
    learner.driver.memory.retain(|_| false);
    let _server = serve_pages(&primary, "node", &learner).await;
    let copied = Copy::new(&learner.driver, &learner.peers, &learner.transfers, &me, partition, &"node".into())
        .unwrap()
        .run()
        .await
        .unwrap();
    assert_eq!(copied, writes[49].1.1.version);

    learner.driver.protocol(partition, |replica, _, _| replica.observe(copied));
    learner.serve_all(3).await;
    assert_all_are_repeated(&learner, writes).await;
    assert!(stored(&learner, lost).await.1.version > copied);
    assert_eq!(read(&learner, "k").await.unwrap(), "lost");
}

#[tokio::test]
async fn a_primary_that_merges_the_copies_of_restarted_nodes_gets_their_keys() {
    let (replica, primary) = (TestStore::open(10).await, TestStore::of_node("primary").await);
    let partition = partition_of(&get("k"));
    let writes = write_some(&replica).await;
    let me = primary.driver.me.clone();
    let in_sync = vec![me.clone(), replica.driver.me.clone()];
    let entry = Entry { epoch: 2, primary: Some(me.node.clone()), in_sync, ..Entry::default() };
    replica.configure(partition, entry.clone());
    primary.configure(partition, entry);
    let _server = serve_pages(&replica, "node", &primary).await;
    let last = merge(&primary.driver, &primary.peers, &primary.transfers, partition, &"node".into()).await.unwrap();

    primary.driver.protocol(partition, |replica, _, _| replica.observe(last));
    primary.serve_all(3).await;
    assert_all_are_repeated(&primary, writes).await;
}
