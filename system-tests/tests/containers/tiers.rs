//! The way of a key through memory, disk and an object store that is not ours.

use std::time::Duration;

use crate::support::{Cluster, Setup, Workload, key_url};

/// How long the object store is away: longer than every request to it, and than several rounds of retries.
const AWAY: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_goes_down_all_three_tiers_and_comes_back() {
    let node = &[("LRU_SIZE", "8"), ("DISK_MAX_BYTES", "2MiB")];
    let cluster = Cluster::start(Setup { nodes: 1, object_store: true, node, ..Setup::default() }).await;
    let (client, url) = (&cluster.client, &cluster.url);
    let tier = async || {
        let reply = client.get_key(url, "key").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "value"), "{reply:?}");
        reply.tier()
    };
    let fill = async |what: &str, count: usize, bytes: usize| {
        let entries: Vec<_> = (0..count).map(|i| (format!("{what} {i}"), format!("{i:0bytes$}"))).collect();
        cluster.import(&entries, "").await;
    };

    assert!(client.put_key(url, "key", "?durability=object", "value").await.is_stored());
    let objects = cluster.garage().objects().await;
    assert_eq!(objects.iter().filter(|object| object.contains("/segments/")).count(), 1, "{objects:?}");
    assert_eq!(tier().await, "memory");

    fill("small", 20, 10).await;
    assert_eq!(tier().await, "disk");
    assert_eq!(tier().await, "memory");

    fill("large", 100, 60_000).await;
    cluster.uploaded().await;
    cluster.counted("values leave the disk", |stats| stats.bytes_by_tier.disk, |bytes| bytes < (2 << 20)).await;
    assert_eq!(tier().await, "object");
    assert_eq!(tier().await, "memory");

    assert_eq!(client.delete(&key_url(url, "key")).await.status, 204);
    assert_eq!(client.get_key(url, "key").await.status, 404);
    let objects = cluster.garage().objects().await;
    let segments = objects.iter().filter(|object| object.contains("/segments/")).count();
    assert!(segments < 20, "121 values share {segments} segments");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_store_that_is_away_costs_no_request_its_answer_and_has_everything_afterwards() {
    let cluster = Cluster::start(Setup { object_store: true, ..Setup::default() }).await;
    let keys: Vec<String> = (0..100).map(|key| format!("key {key}")).collect();
    let load = Workload::start(&cluster.by_sdk().await, keys.clone());
    load.progress(150).await;
    let before = cluster.garage().objects().await;
    let garage = cluster.garage().container();
    garage.kill().await;
    let end = tokio::time::Instant::now() + AWAY;
    load.progress(150).await;
    cluster.counted("uploads wait", |stats| stats.uploads_pending, |pending| pending > 10).await;
    tokio::time::sleep_until(end).await;
    garage.start_again().await;
    load.progress(150).await;
    let report = load.finish("object store away", &cluster, &[]).await;
    assert!(report.failures.is_empty(), "{report:?}");

    cluster.uploaded().await;
    let objects = cluster.garage().objects().await;
    let segments = objects.iter().filter(|object| object.contains("/segments/") && !before.contains(object)).count();
    assert!(segments > 0, "nothing was uploaded since: {objects:?}");
}
