//! Keys that end: by their time, by deletion, for want of room.

use cairn_api_spec::ErrorCode;
use futures_util::future::join_all;

use crate::support::{Cluster, PATIENCE, Setup, eventually, sends_problem};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_whose_time_has_come_is_not_found_and_is_swept() {
    let cluster = Cluster::start(Setup::default()).await;
    // At the same time: the first must not end before the last is there.
    let put = async |key: usize| {
        let query = if key.is_multiple_of(2) { "?ttl=5s" } else { "?ttl=1h" };
        assert_eq!(cluster.client.put_key(cluster.url(), &key.to_string(), query, "value").await.status, 201);
    };
    join_all((0..60).map(put)).await;
    let reply = cluster.client.get_key(cluster.url(), "0").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.header("expires").is_some() && reply.header("cache-control").is_some(), "{reply:?}");

    eventually("it is not found", PATIENCE, async || {
        let reply = cluster.client.get_key(cluster.url(), "0").await;
        if reply.status == 404 { Ok(sends_problem(&reply, ErrorCode::KeyNotFound)) } else { Err(reply.text()) }
    })
    .await;
    eventually("half of the keys are swept", PATIENCE, async || {
        let stats = cluster.all_stats().await;
        let (entries, expired) = stats
            .iter()
            .fold((0, 0), |(entries, expired), stats| (entries + stats.entries, expired + stats.expirations));
        if (entries, expired) == (30, 30) { Ok(()) } else { Err(format!("{entries} are there, {expired} expired")) }
    })
    .await;
    assert_eq!(cluster.client.list(cluster.url(), 1_000).await.len(), 30);
    assert_eq!(cluster.client.get_key(cluster.url(), "1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_of_a_key_grow_across_deletion_expiry_and_restarts() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let url = cluster.url().to_owned();
    let mut last = 0;
    for round in 0..4 {
        let owner = cluster.owner("key").await;
        let expired: u64 = cluster.all_stats().await.iter().map(|stats| stats.expirations).sum();
        let created = cluster.client.put_key(&url, "key", "", "value").await;
        assert_eq!(created.status, 201, "{created:?}");
        let deleted = cluster.client.delete(&crate::support::key_url(&url, "key")).await;
        assert_eq!(deleted.status, 204, "{deleted:?}");
        let expiring = cluster.client.put_key(&url, "key", "?ttl=100ms", "value").await;
        assert_eq!(expiring.status, 201, "{expiring:?}");
        let versions = [last, created.version(), deleted.version(), expiring.version()];
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        last = expiring.version();
        // The deletions are forgotten by then, their versions must not be.
        eventually("whoever owns the key forgets it", PATIENCE, async || {
            let stats = cluster.all_stats().await;
            let is_swept = stats.iter().map(|stats| stats.expirations).sum::<u64>() > expired;
            if is_swept && stats.iter().all(|stats| stats.entries == 0) { Ok(()) } else { Err(format!("{stats:?}")) }
        })
        .await;
        if round % 2 == 0 {
            cluster.nodes[owner].kill();
        } else {
            cluster.nodes[owner].terminate().await;
        }
        cluster.restart_node(owner).await;
        cluster.ready().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_object_store_a_full_disk_drops_its_oldest_entries_and_never_answers_an_older_value() {
    const KEYS: usize = 500;
    const BUDGET: u64 = 1 << 20;
    let node = &[("DISK_MAX_BYTES", "1MiB"), ("LRU_SIZE", "16")];
    let cluster = Cluster::start(Setup { nodes: 1, node, ..Setup::default() }).await;
    let entries = |round: usize| -> Vec<(String, String)> {
        (0..KEYS).map(|key| (format!("{key:04}"), format!("{round}:{key:08000}"))).collect()
    };
    cluster.import(&entries(1)[..KEYS / 4]).await;
    let entries = entries(2);
    cluster.import(&entries).await;
    eventually("the disk is within its budget, and the statistics say what is there", PATIENCE, async || {
        let stats = cluster.node_stats(0).await?;
        let listed = cluster.client.list(cluster.url(), 1_000).await.len() as u64;
        let settled = stats.evictions > 0 && stats.entries == listed && stats.bytes_by_tier.disk <= BUDGET;
        if settled { Ok(()) } else { Err(format!("{listed} keys, {stats:?}")) }
    })
    .await;
    let held = cluster.node_stats(0).await.unwrap().bytes_by_tier.disk;
    assert!(held >= BUDGET / 2, "only {held} of {BUDGET} bytes are left");

    let replies = cluster.read(cluster.url(), entries.iter().map(|(key, _)| key)).await;
    let mut found = Vec::new();
    for (index, ((key, value), reply)) in entries.iter().zip(&replies).enumerate() {
        match reply.status {
            200 => assert_eq!(reply.text(), *value, "{key}"),
            404 => drop(sends_problem(reply, ErrorCode::KeyNotFound)),
            _ => panic!("{key}: {reply:?}"),
        }
        found.extend((reply.status == 200).then_some(index));
    }
    let evicted = cluster.node_stats(0).await.unwrap().evictions;
    assert!(evicted as usize >= KEYS - found.len(), "{evicted} evictions, {} of {KEYS} keys are left", found.len());
    let newer = found.iter().filter(|index| **index >= KEYS / 2).count();
    assert!(newer * 2 > found.len(), "{newer} of {} that are left are of the newer half", found.len());
}
