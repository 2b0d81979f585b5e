//! An object store that is slow, or gone: hot keys and writes do not notice.

use std::time::Duration;

use cairn_api_spec::{Bucket, EntryName, ErrorCode, Version};
use futures_util::{StreamExt, future::join_all, stream};

use crate::support::{Cluster, Mode, PATIENCE, Setup, eventually, key_url, sends_problem};

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
    let fetches = cluster.store().requests("GetObject of segments");
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
    assert_eq!(cluster.store().requests("GetObject of segments") - fetches, 1);
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
    // It may have been told that nobody knows yet.
    let is_early = in_the_store.is_finished();

    match mode {
        Some(_) => cluster.store().set(Mode::Serving),
        None => cluster.store().reconnect().await,
    }
    let mut reply = in_the_store.await.unwrap();
    if is_early {
        assert!(!reply.is_stored(), "answered before the object store had it: {reply:?}");
        reply = client.put_key(&master, "durable in the end", "?durability=object", "value").await;
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_writes_share_their_uploads() {
    let node = &[("UPLOAD_LINGER", "2s")];
    let cluster = Cluster::start(Setup { nodes: 1, object_store: true, node, ..Setup::default() }).await;
    let before = cluster.store().requests("PutObject");
    let entries: Vec<_> = (0..1_000).map(|i| (format!("small {i}"), format!("{i:0100}"))).collect();
    cluster.import(&entries).await;
    cluster.uploaded().await;
    let requests = cluster.store().requests("PutObject") - before;
    eprintln!("1000 small writes: {requests} requests to store objects");
    assert!(cluster.store().take("segments/").len() < 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_stays_so_when_all_disks_are_lost_and_segments_come_late() {
    let master = &[("PARTITIONS", "16"), ("REPLICATION_FACTOR", "1")];
    let mut cluster = Cluster::start(Setup { nodes: 1, object_store: true, master, ..Setup::default() }).await;
    let (client, url) = (cluster.client.clone(), cluster.url().to_owned());
    assert!(client.put_key(&url, "deleted", "?durability=object", "old").await.is_stored());
    assert!(client.put_key(&url, "kept", "?durability=object", "new").await.is_stored());
    let deleted = client.delete(&key_url(&url, "deleted")).await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    let name = EntryName::new(&Bucket::default(), "deleted").unwrap();
    let version = client.put_key(&url, "deleted", "?durability=object", "again").await.version();
    assert_eq!(client.delete(&key_url(&url, "deleted")).await.status, 204);
    cluster.uploaded().await;
    eventually("a checkpoint speaks of the deletion", PATIENCE, async || {
        if cluster.store().speaks_of(name.partition(16), version + 1) { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;

    // Whatever told of the deletion is gone, and what it deleted arrives once more.
    cluster.store().forget_deletions();
    lose_all_disks(&mut cluster).await;
    assert_eq!(client.get_key(&url, "deleted").await.status, 404);
    assert_eq!(client.get_key(&url, "kept").await.text(), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_one_version_each_are_read_and_restored() {
    let master = &[("PARTITIONS", "16"), ("REPLICATION_FACTOR", "1")];
    let mut cluster = Cluster::start(Setup { nodes: 1, object_store: true, master, ..Setup::default() }).await;
    cluster.nodes[0].kill();
    cluster.store().take("checkpoints/");
    for number in 0..50_u64 {
        let name = EntryName::new(&Bucket::default(), &format!("old {number}")).unwrap();
        cluster.store().put_versioned(&name, name.partition(16), Version(number + 1), format!("value {number}").into());
    }
    cluster.wipe_node(0);
    cluster.restart_node(0).await;
    cluster.ready().await;
    let entries: Vec<_> = (0..50).map(|i| (format!("old {i}"), format!("value {i}"))).collect();
    cluster.read_back(&entries).await;
    // From now on they are in checkpoints, too.
    lose_all_disks(&mut cluster).await;
    cluster.read_back(&entries).await;
    // Those that are written anew move over.
    cluster.import(&entries[..25]).await;
    cluster.uploaded().await;
    lose_all_disks(&mut cluster).await;
    cluster.read_back(&entries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_needs_leaves_the_bucket() {
    let node = &[("COLLECT_AFTER", "1s")];
    let master = &[("PARTITIONS", "16")];
    let cluster = Cluster::start(Setup { nodes: 2, object_store: true, master, node, ..Setup::default() }).await;
    let entries: Vec<_> = (0..200).map(|i| (format!("key {i}"), format!("value {i}"))).collect();
    for _ in 0..5 {
        cluster.import(&entries).await;
        cluster.uploaded().await;
    }
    // Both nodes' newest ones hold all keys; every partition's checkpoint has to speak of it first.
    eventually("segments are collected", PATIENCE * 2, async || match cluster.store().count("segments/") {
        0..=4 => Ok(()),
        count => Err(format!("{count} segments")),
    })
    .await;
    cluster.read_back(&entries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_in_segments_that_are_mostly_dead_moves_and_they_leave_the_bucket() {
    // Most values are in the bucket alone.
    let node = &[("COLLECT_AFTER", "1s"), ("UPLOAD_LINGER", "1s"), ("DISK_MAX_BYTES", "64KiB"), ("LRU_SIZE", "16")];
    let master = &[("PARTITIONS", "8")];
    let mut cluster = Cluster::start(Setup { nodes: 2, object_store: true, master, node, ..Setup::default() }).await;
    cluster.settled().await;
    let entries: Vec<_> = (0..600).map(|i| (format!("key {i}"), format!("{i:02000}"))).collect();
    cluster.import(&entries).await;
    cluster.uploaded().await;
    let before = cluster.store().bytes("segments/");
    let (kept, deleted) = entries.split_at(100);
    stream::iter(deleted)
        .for_each_concurrent(16, async |(key, _)| {
            assert_eq!(cluster.client.delete(&key_url(cluster.url(), key)).await.status, 204, "{key}");
        })
        .await;
    cluster.uploaded().await;
    eventually("the bucket becomes smaller", PATIENCE * 2, async || match cluster.store().bytes("segments/") {
        bytes if bytes < before / 3 => Ok(()),
        bytes => Err(format!("{bytes} of {before} bytes")),
    })
    .await;
    let mut moved = 0.0;
    for index in 0..2 {
        moved += cluster.metric(index, "cairn_moved_bytes_total").await;
    }
    assert!((200_000.0..before as f64).contains(&moved), "{moved} bytes were moved");
    cluster.read_back(kept).await;
    cluster.lose_all_disks().await;
    cluster.read_back(kept).await;
    let gone = cluster.read(cluster.url(), deleted.iter().map(|(key, _)| key)).await;
    assert!(gone.iter().all(|reply| reply.status == 404), "deleted keys are back");
}

async fn lose_all_disks(cluster: &mut Cluster) {
    cluster.nodes[0].kill();
    cluster.wipe_node(0);
    cluster.restart_node(0).await;
    cluster.ready().await;
}
