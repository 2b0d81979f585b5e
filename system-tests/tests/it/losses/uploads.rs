//! What the bucket gets from uploaders that stood still, and from requests that were executed and not answered.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;

use crate::support::{Cluster, Fate, Fault, PATIENCE, Requests, Setup, eventually, key_url, led_by};

const KEYS: usize = 8;
/// Values that fill the disks' budget several times.
const FILLERS: usize = 200;

/// How long values may take to leave a disk that is over its budget.
const OFFLOAD: Duration = Duration::from_secs(3);

/// Waits until the second node has uploaded everything; asks no other.
async fn uploaded_by_the_second(cluster: &Cluster) {
    eventually("everything is uploaded", PATIENCE, async || {
        // What a node says is a little old; a change that it does not count yet would be missed by one look.
        for _ in 0..2 {
            match cluster.node_stats(1).await?.uploads_pending {
                0 => tokio::time::sleep(Duration::from_millis(300)).await,
                pending => return Err(format!("{pending} are pending")),
            }
        }
        Ok(())
    })
    .await;
}

/// Two nodes whose disks are full, and of which the first stands still. It has begun to upload a first value of each key,
/// and the bucket has not looked at that yet.
///
/// It is not to stand still for longer than a request to the bucket may take: then it would believe that it failed.
async fn with_a_frozen_uploader() -> (Cluster, Vec<String>, Fault) {
    let master = &[("PARTITIONS", "8"), ("SUSPECT_AFTER", "1s"), ("GONE_AFTER", "1500ms")];
    let node = &[("DISK_MAX_BYTES", "64KiB"), ("LRU_SIZE", "16")];
    let cluster = Cluster::start(Setup { nodes: 2, object_store: true, master, node, ..Setup::default() }).await;
    cluster.settled().await;
    let fillers: Vec<_> = (0..FILLERS).map(|number| (format!("filler {number}"), format!("{number:01000}"))).collect();
    cluster.import(&fillers).await;
    cluster.uploaded().await;
    let keys = cluster.keys_in(KEYS, led_by("node-1")).await;
    let late = cluster.store().plan(Requests::of("PutObject").by("node-1"), Fate::Held);
    for key in &keys {
        cluster.put(key, "", "old").await;
    }
    eventually("the first node uploads", PATIENCE, async || match late.met() {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    cluster.nodes[0].freeze();
    (cluster, keys, late)
}

/// What the second node answers about every key once it leads their partitions.
async fn changed_by_the_second(cluster: &Cluster, keys: &[String], method: Method, value: &'static str) {
    join_all(keys.iter().map(async |key| {
        eventually(key, PATIENCE, async || {
            let url = key_url(cluster.node_url(1), key);
            let reply = cluster.client.send(method.clone(), &url, &[], value.into()).await.unwrap();
            // One that was not answered in time may have been done.
            if matches!(reply.status, 204 | 404) { Ok(()) } else { Err(reply.text()) }
        })
        .await;
    }))
    .await;
    uploaded_by_the_second(cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uploader_that_stood_still_does_not_replace_a_newer_value_in_the_bucket() {
    let (mut cluster, keys, late) = with_a_frozen_uploader().await;
    changed_by_the_second(&cluster, &keys, Method::PUT, "new").await;
    let end = tokio::time::Instant::now() + OFFLOAD;
    while cluster.node_stats(1).await.unwrap().entries_by_tier.disk > 0 && tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.nodes[0].thaw();
    late.release();
    cluster.settled().await;
    cluster.uploaded().await;

    cluster.lose_all_disks().await;
    let mut wrong = Vec::new();
    for key in &keys {
        let reply = cluster.get(key).await;
        if (reply.status, reply.text().as_str()) != (200, "new") {
            wrong.push((key, reply.status, reply.text()));
        }
    }
    assert!(wrong.is_empty(), "{} of {KEYS} are not what was written last: {wrong:?}", wrong.len());
}

/// Loses all disks, and fails unless these keys are as absent as before.
async fn stay_deleted(cluster: &mut Cluster, keys: &[String]) {
    cluster.lose_all_disks().await;
    let mut back = Vec::new();
    for key in keys {
        let reply = cluster.get(key).await;
        if reply.status != 404 {
            back.push((key, reply.status, reply.text()));
        }
    }
    assert!(back.is_empty(), "{} of {} deleted keys are back: {back:?}", back.len(), keys.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_deleted_after_an_upload_that_was_executed_and_not_confirmed_stays_deleted() {
    let master = &[("PARTITIONS", "8")];
    let mut cluster = Cluster::start(Setup { nodes: 1, object_store: true, master, ..Setup::default() }).await;
    // A node that has just taken over looks closely at what the bucket has.
    cluster.put("before", "", "value").await;
    cluster.uploaded().await;
    let unconfirmed = cluster.store().plan(Requests::of("PutObject"), Fate::ExecutedAndRefused);
    let keys: Vec<String> = (0..KEYS).map(|number| format!("key {number}")).collect();
    for key in &keys {
        cluster.put(key, "", "value").await;
    }
    eventually("the node has given up", PATIENCE, async || {
        match (unconfirmed.executed(), cluster.metric(0, "cairn_object_store_errors_total").await) {
            (1.., 1.0..) => Ok(()),
            (executed, errors) => Err(format!("{executed} requests were executed, {errors} failed")),
        }
    })
    .await;
    for key in &keys {
        assert_eq!(cluster.client.delete(&key_url(cluster.url(), key)).await.status, 204, "{key}");
    }
    unconfirmed.release();
    cluster.uploaded().await;
    stay_deleted(&mut cluster, &keys).await;
}

/// Waits until all that was held is executed.
async fn executed(late: &Fault) {
    late.release();
    eventually("the late requests are executed", PATIENCE, async || match (late.executed(), late.met()) {
        (executed, met) if executed == met => Ok(()),
        (executed, met) => Err(format!("{executed} of {met}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_a_restore_has_not_found_in_an_empty_bucket_do_not_come_back_with_a_late_upload() {
    let master = &[("PARTITIONS", "8")];
    let mut cluster = Cluster::start(Setup { nodes: 1, object_store: true, master, ..Setup::default() }).await;
    let late = cluster.store().plan(Requests::of("PutObject"), Fate::Held);
    let keys: Vec<String> = (0..KEYS).map(|number| format!("key {number}")).collect();
    for key in &keys {
        cluster.put(key, "", "value").await;
    }
    eventually("the node uploads", PATIENCE, async || match late.met() {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    cluster.nodes[0].kill();
    late.spare_others();
    stay_deleted(&mut cluster, &keys).await;
    executed(&late).await;
    stay_deleted(&mut cluster, &keys).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_deleted_before_a_late_upload_is_executed_stays_deleted() {
    let (mut cluster, keys, late) = with_a_frozen_uploader().await;
    changed_by_the_second(&cluster, &keys, Method::DELETE, "").await;
    executed(&late).await;
    stay_deleted(&mut cluster, &keys).await;
}
