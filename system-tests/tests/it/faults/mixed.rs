//! All tiers and all durabilities at once, while processes die and stand still.

use std::time::Duration;

use super::TWO_COPIES;
use crate::support::{Cluster, Fate, Requests, Scenario, Setup, Through, Writes, led_by};

/// Of a third of the values: shorter than the faults.
const TTL: Duration = Duration::from_secs(2);
/// How late the bucket answers while it is slow.
const SLOW: Duration = Duration::from_secs(1);

/// A cluster of which no node holds much above the bucket, under writes of all kinds.
async fn start(name: &str) -> Scenario {
    let node = &[("DISK_MAX_BYTES", "64KiB"), ("LRU_SIZE", "32")];
    let setup = Setup { master: TWO_COPIES, object_store: true, node, ..Setup::default() };
    let writes = Writes { durabilities: &["memory", "disk", "fsync", "object"], ttl: Some(TTL) };
    let cluster = Cluster::start(setup).await;
    Scenario::start_through(name, cluster, Through::MasterAndOwners, writes, led_by("node-1")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_and_freezes_lose_nothing_in_any_tier_while_the_bucket_is_slow_and_does_not_confirm_everything() {
    let mut run = start("tiers, killed and frozen").await;
    let puts = || Requests::of("PutObject");
    let faults = [(0, Fate::Slow(SLOW)), (1, Fate::ExecutedAndRefused)];
    for (index, fate) in faults {
        let fault = run.cluster.store().plan(puts(), fate);
        run.cluster.nodes[index].kill();
        run.struck().await;
        run.cluster.restart_node(index).await;
        run.load.progress(100).await;
        fault.release();
        run.healed().await;
    }
    let late = run.cluster.store().plan(puts().by("node-1"), Fate::Held);
    run.load.progress(100).await;
    super::freeze::freeze_for_a_while(&mut run).await;
    late.release();
    run.healed().await;
    let report = run.finish().await;
    // Whoever cannot read a value that is there has lost it, too.
    assert!(!report.failures.keys().any(|failure| failure.starts_with("internal")), "{report:?}");
}
