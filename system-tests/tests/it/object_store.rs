//! An object store that is slow, or gone: hot keys and writes do not notice.

use std::time::Duration;

use cairn_api_spec::ErrorCode;
use futures_util::future::join_all;

use crate::support::{Cluster, Mode, PATIENCE, Setup, eventually, sends_problem};

/// How long a request may take that has nothing to do with the object store.
const PROMPT: Duration = Duration::from_secs(2);

/// A node that holds next to nothing above the object store, and keys that are only there.
async fn with_cold_keys() -> (Cluster, Vec<(String, String)>) {
    let node = &[("LRU_SIZE", "64"), ("DISK_MAX_BYTES", "64KiB")];
    let master = &[("PARTITIONS", "16")];
    let cluster = Cluster::start(Setup { nodes: 1, object_store: true, node, master, ..Setup::default() }).await;
    let entries: Vec<_> = (0..300).map(|i| (format!("cold {i}"), format!("{i:01000}"))).collect();
    cluster.import(&entries).await;
    cluster.uploaded().await;
    cluster.offloaded().await;
    // Those that came last are in memory.
    (cluster, entries[..200].to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fetch_answers_everybody_who_asks_for_a_cold_key_at_once() {
    let (cluster, entries) = with_cold_keys().await;
    let (key, value) = &entries[0];
    let fetches = cluster.store().requests("GetObject");
    // Stalled until all have asked, so that none can come late and find the value in memory.
    cluster.store().set(Mode::Stalled);
    let asking = join_all((0..64).map(|_| cluster.client.get_key(cluster.node_url(0), key)));
    let release = async {
        eventually("64 requests wait", PATIENCE, async || {
            let metrics = cluster.client.get(&format!("{}/metrics", cluster.node_url(0))).await.text();
            let line = metrics.lines().find(|line| line.starts_with("cairn_requests_in_flight ")).unwrap();
            // The one for the metrics itself is among them.
            let waiting: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            if waiting > 64 { Ok(()) } else { Err(line.to_owned()) }
        })
        .await;
        cluster.store().set(Mode::Serving);
    };
    let (replies, ()) = tokio::join!(asking, release);
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.text() == *value));
    assert_eq!(cluster.store().requests("GetObject") - fetches, 1);
}

/// What must hold while the store does not do its work, and after it came back.
async fn hot_keys_and_writes_go_on_and_cold_keys_say_why_not(mode: Option<Mode>) {
    let (cluster, entries) = with_cold_keys().await;
    let client = cluster.client.clone();
    let (master, node) = (cluster.url().to_owned(), cluster.node_url(0).to_owned());
    assert!(client.put_key(&master, "hot", "", "value").await.is_stored());
    cluster.uploaded().await;
    match mode {
        Some(mode) => cluster.store().set(mode),
        None => cluster.store().disconnect(),
    }

    let (waiting_client, url) = (client.clone(), master.clone());
    let in_the_store =
        tokio::spawn(async move { waiting_client.put_key(&url, "durable", "?durability=object", "value").await });
    let cold = async {
        for (server, (key, _)) in [(&master, &entries[0]), (&node, &entries[1])] {
            sends_problem(&client.get_key(server, key).await, ErrorCode::ObjectStoreUnavailable);
        }
    };
    let hot = async {
        for round in 0..100 {
            let key = format!("new {}", round % 10);
            let written = client.put_key(&master, &key, "", round.to_string());
            assert!(tokio::time::timeout(PROMPT, written).await.unwrap().is_stored());
            let read = tokio::time::timeout(PROMPT, client.get_key(&master, "hot")).await.unwrap();
            assert_eq!((read.status, read.tier().as_str()), (200, "memory"));
        }
    };
    tokio::join!(cold, hot);
    eventually("uploads wait", PATIENCE, async || match cluster.node_stats(0).await?.uploads_pending {
        pending @ ..=10 => Err(format!("{pending} are pending")),
        _ => Ok(()),
    })
    .await;
    assert!(!in_the_store.is_finished(), "answered before the object store had it");

    match mode {
        Some(_) => cluster.store().set(Mode::Serving),
        None => cluster.store().reconnect().await,
    }
    let reply = in_the_store.await.unwrap();
    assert_eq!(reply.status, 201, "{reply:?}");
    assert!(cluster.store().has_version(reply.version()), "it was answered, and the object store does not have it");
    cluster.uploaded().await;
    cluster.read_back(&entries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_store_that_refuses_connections_does_not_hold_up_hot_keys_and_writes() {
    hot_keys_and_writes_go_on_and_cold_keys_say_why_not(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_store_that_answers_503_does_not_hold_up_hot_keys_and_writes() {
    hot_keys_and_writes_go_on_and_cold_keys_say_why_not(Some(Mode::Failing)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_store_that_does_not_answer_does_not_hold_up_hot_keys_and_writes() {
    hot_keys_and_writes_go_on_and_cold_keys_say_why_not(Some(Mode::Stalled)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_with_durability_object_is_in_the_store_when_it_is_answered() {
    let cluster = Cluster::start(Setup { object_store: true, ..Setup::default() }).await;
    join_all((0..32).map(async |i: u32| {
        let reply = cluster.client.put_key(cluster.url(), &i.to_string(), "?durability=object", "value").await;
        assert_eq!(reply.status, 201, "{reply:?}");
        assert!(cluster.store().has_version(reply.version()), "{reply:?}");
    }))
    .await;
}
