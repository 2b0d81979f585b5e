//! What those hear who follow the events of a cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cairn_client::{Cache, Error, Event, EventKind, Version};
use futures_util::{Stream, StreamExt as _};
use tokio::time::timeout;

use crate::support::{Cluster, PATIENCE, Setup};

/// What a reader has heard so far.
#[derive(Default)]
struct Heard {
    /// By key, the changes in the order in which they came.
    changes: BTreeMap<String, Vec<(Version, EventKind)>>,
    gaps: usize,
}

impl Heard {
    /// Listens until `is_enough`.
    async fn until(
        &mut self,
        events: &mut (impl Stream<Item = Result<Event, Error>> + Unpin),
        is_enough: impl Fn(&Self) -> bool,
    ) {
        let listen = async {
            while !is_enough(self) {
                match events.next().await.unwrap().unwrap() {
                    Event::Gap => self.gaps += 1,
                    Event::Changed { kind, key, version, .. } => {
                        self.changes.entry(key).or_default().push((version, kind));
                    }
                }
            }
        };
        timeout(PATIENCE, listen).await.unwrap();
    }

    fn has(&self, key: &str, version: Version) -> bool {
        self.changes.get(key).is_some_and(|changes| changes.iter().any(|(told, _)| *told == version))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_told_in_its_order_and_after_a_crash_that_some_may_be_missing() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let cache = Cache::connect(cluster.url()).await.unwrap();
    let (mut events, mut heard) = (cache.events().open().await.unwrap(), Heard::default());
    let mut written = BTreeSet::new();
    for i in 0..300 {
        let key = format!("key {}", i % 100);
        written.insert((key.clone(), cache.put(&key, "1").await.unwrap().version));
    }
    let deleted = cache.delete("key 1").await.unwrap().unwrap();
    let expired = cache.put("short", "1").ttl(Duration::from_millis(100)).await.unwrap().version;
    written.extend([("key 1".to_owned(), deleted), ("short".to_owned(), expired)]);
    let all = |heard: &Heard| written.iter().all(|(key, version)| heard.has(key, *version));
    heard.until(&mut events, |heard| all(heard) && heard.changes["short"].len() == 2).await;
    assert_eq!(heard.gaps, 0);
    assert_eq!(heard.changes["key 1"].last(), Some(&(deleted, EventKind::Delete)));
    assert_eq!(heard.changes["short"][0], (expired, EventKind::Put));
    assert_eq!(heard.changes["short"][1].1, EventKind::Expire);
    for (key, changes) in &heard.changes {
        assert!(changes.is_sorted_by_key(|(version, _)| *version), "{key}: {changes:?}");
    }

    cluster.nodes[0].kill();
    heard.until(&mut events, |heard| heard.gaps > 0).await;
    let mut after = BTreeSet::new();
    for i in 0..100 {
        let key = format!("key {i}");
        after.insert((key.clone(), cache.put(&key, "2").await.unwrap().version));
    }
    heard.until(&mut events, |heard| after.iter().all(|(key, version)| heard.has(key, *version))).await;

    cluster.master.kill();
    cluster.master.start().await;
    let last = cache.put("key 1", "3").await.unwrap().version;
    let gaps = heard.gaps;
    heard.until(&mut events, |heard| heard.gaps > gaps || heard.has("key 1", last)).await;
    let last = cache.put("key 1", "4").await.unwrap().version;
    heard.until(&mut events, |heard| heard.has("key 1", last)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_ends_its_streams() {
    let mut cluster = Cluster::start(Setup { nodes: 2, ..Setup::default() }).await;
    for url in [cluster.node_url(0).to_owned(), cluster.url().to_owned()] {
        let mut stream = reqwest::get(format!("{url}/events?bucket=*")).await.unwrap().bytes_stream();
        let first = stream.next().await.unwrap().unwrap();
        assert!(first.starts_with(b"id: "), "{first:?}");
        match url == cluster.url() {
            true => cluster.master.terminate().await,
            false => cluster.nodes[0].terminate().await,
        };
        timeout(PATIENCE, async { while stream.next().await.is_some() {} }).await.unwrap();
    }
}
