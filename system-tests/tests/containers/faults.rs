//! What befalls containers, under load: no answered write is lost, and no read is stale.

use std::time::Duration;

use crate::support::{Cluster, Entry, Setup, Workload};

/// What the README promises for the first write after a primary was lost, when the machine has nothing else to do. Twice
/// that is too long anywhere; what was measured is reported.
const PROMISED: Duration = Duration::from_secs(6);
/// Longer than every lease and every patience with a silent server.
const AWAY: Duration = Duration::from_secs(10);
/// Writes before a fault, and after it is healed.
const WARM_UP: u64 = 100;
const KEYS: usize = 60;

/// A cluster with two copies of everything, which is the default, and clients of which half ask for keys that the first node leads.
struct Run {
    cluster: Cluster,
    load: Workload,
    hit: Vec<String>,
}

impl Run {
    async fn start() -> Self {
        let cluster = Cluster::start(Setup::default()).await;
        let entry = cluster.by_master();
        Self::start_through(cluster, &entry).await
    }

    async fn start_through(cluster: Cluster, entry: &Entry) -> Self {
        let (hit, others) = cluster.keys_of(0, KEYS).await;
        let load = Workload::start(entry, [hit.clone(), others].concat());
        load.progress(WARM_UP).await;
        Self { cluster, load, hit }
    }

    /// The first node has just been struck: waits until its keys are written again.
    async fn written_again(&mut self) {
        let first = self.load.written_again(&self.hit).await;
        assert!(first <= PROMISED * 2, "the first write was answered after {first:?}");
    }

    /// The fault is over: waits until every partition has all its copies.
    async fn healed(&self) {
        self.cluster.settled().await;
        self.load.progress(WARM_UP).await;
    }

    async fn finish(self, scenario: &str) {
        self.load.finish(scenario, &self.cluster, &self.hit).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_costs_no_answered_write_and_comes_back_on_its_volume() {
    let mut run = Run::start().await;
    run.cluster.nodes[0].kill().await;
    run.written_again().await;
    run.cluster.nodes[0].start_again().await;
    run.healed().await;
    run.finish("node killed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_paused_answers_nothing_from_the_past() {
    let mut run = Run::start().await;
    // These go on to ask the node, whoever has taken over from it.
    let url = run.cluster.nodes[0].url().await;
    run.load.read_at(&url);
    run.cluster.nodes[0].pause().await;
    let end = tokio::time::Instant::now() + AWAY;
    run.written_again().await;
    tokio::time::sleep_until(end).await;
    run.cluster.nodes[0].unpause().await;
    run.healed().await;
    run.finish("node paused").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_network_costs_no_answered_write_and_finds_back() {
    let mut run = Run::start().await;
    run.cluster.nodes[0].disconnect().await;
    let end = tokio::time::Instant::now() + AWAY;
    run.written_again().await;
    tokio::time::sleep_until(end).await;
    run.cluster.nodes[0].connect().await;
    run.healed().await;
    run.finish("node disconnected").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_costs_users_of_the_sdk_no_error() {
    let cluster = Cluster::start(Setup::default()).await;
    let entry = cluster.by_sdk().await;
    let run = Run::start_through(cluster, &entry).await;
    for node in &run.cluster.nodes {
        node.stop().await;
        run.load.progress(WARM_UP / 2).await;
        node.start_again().await;
        run.healed().await;
    }
    let report = run.load.finish("rolling restart", &run.cluster, &run.hit).await;
    assert!(report.failures.is_empty(), "{report:?}");
}
