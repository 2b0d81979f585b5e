//! Real input through a real cluster: every line of Unicode's character database.

use cairn_api_spec::ErrorCode;
use futures_util::{StreamExt, stream};

use crate::support::{CONCURRENCY, Cluster, Setup, sends_problem, unicode_data};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_imported_line_is_read_back_through_the_master_straight_from_its_owner_and_by_a_listing() {
    let Some(entries) = unicode_data() else { return };
    let cluster = Cluster::start(Setup::default()).await;
    cluster.import(&entries).await;
    cluster.read_back(&entries).await;

    let owners = cluster.owners(entries.iter().map(|(key, _)| key.as_str())).await;
    let straight = async |((key, value), owner): (&(String, String), &usize)| {
        let reply = cluster.client.get_key(cluster.node_url(*owner), key).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, value.as_str()), "{key}");
    };
    stream::iter(entries.iter().zip(&owners)).map(straight).buffer_unordered(CONCURRENCY).collect::<Vec<()>>().await;
    for ((key, _), owner) in entries.iter().zip(&owners).step_by(100) {
        for other in (0..3).filter(|index| index != owner) {
            let refused = cluster.client.get_key(cluster.node_url(other), key).await;
            sends_problem(&refused, ErrorCode::NotOwner);
        }
    }
    for index in 0..3 {
        let share = owners.iter().filter(|owner| **owner == index).count() as f64 * 3.0 / owners.len() as f64;
        assert!((0.85..=1.15).contains(&share), "node-{} holds {share} of its share", index + 1);
    }

    let mut keys: Vec<String> = entries.into_iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    assert_eq!(cluster.client.list(cluster.url(), 1_000).await, keys);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_neither_memory_nor_disk_is_read_back_from_the_object_store() {
    let Some(entries) = unicode_data() else { return };
    // A sixth of the lines and a disk budget below their share of it: uploads of a debug build are slow.
    let entries: Vec<_> = entries.into_iter().step_by(6).collect();
    let node = &[("LRU_SIZE", "1000"), ("DISK_MAX_BYTES", "256KiB")];
    let cluster = Cluster::start(Setup { object_store: true, node, ..Setup::default() }).await;
    cluster.import(&entries).await;
    cluster.uploaded().await;
    cluster.offloaded().await;

    let replies = cluster.read_back(&entries).await;
    let from_store = replies.iter().filter(|reply| reply.tier() == "object").count();
    assert!(from_store * 2 > entries.len(), "{from_store} of {} reads came from the object store", entries.len());
    let counted: u64 = cluster.all_stats().await.iter().map(|stats| stats.hits_by_tier.object).sum();
    assert_eq!(counted, from_store as u64);
}
