//! Networks that do not carry everything to everybody.

use std::time::Duration;

use cairn_api_spec::cluster::Partition;

use super::{CHAIN, QUORUM, Settings, TWO_COPIES};
use crate::support::{Network, Scenario, Setup, led_by, needs_root};

/// Longer than every lease and every patience with a silent server.
const CUT: Duration = Duration::from_secs(8);

/// Starts a cluster in a network of its own, cuts that for a while, and judges.
async fn cut(name: &str, master: Settings, is_hit: impl Fn(&Partition) -> bool, cut: impl Fn(&Network)) {
    if !needs_root() {
        return;
    }
    let setup = Setup { master, network: true, ..Setup::default() };
    let mut run = Scenario::start(name, setup, is_hit).await;
    // These believe in the node whatever happens, and would notice if it answered from the past.
    let node = run.cluster.node_url(0).to_owned();
    run.load.ask_only(&node);
    let heal = tokio::time::Instant::now() + CUT;
    cut(run.cluster.network());
    run.struck().await;
    tokio::time::sleep_until(heal).await;
    run.cluster.network().heal();
    run.healed().await;
    run.finish().await;
}

/// The partitions that both nodes have a copy of.
fn shared_by(one: &str, other: &str) -> impl Fn(&Partition) -> bool {
    move |partition| [one, other].iter().all(|node| partition.in_sync.iter().any(|holder| holder == node))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_do_not_hear_each_other_keep_every_answered_write() {
    let is_hit = shared_by("node-1", "node-2");
    cut("nodes cut, two copies", TWO_COPIES, is_hit, |network| network.cut("node-1", "node-2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_in_a_chain_loses_no_answered_write() {
    cut("nodes cut, chain", CHAIN, |_| true, |network| network.cut("node-1", "node-2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_between_two_of_a_quorum_loses_no_answered_write() {
    cut("nodes cut, quorum", QUORUM, |_| true, |network| network.cut("node-1", "node-2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hears_another_and_is_not_heard_keeps_every_answered_write() {
    let is_hit = shared_by("node-1", "node-2");
    cut("nodes cut one way", TWO_COPIES, is_hit, |network| network.cut_one_way("node-1", "node-2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_cut_off_from_the_master_does_not_serve_beside_its_successor() {
    cut("node cut from master", TWO_COPIES, led_by("node-1"), |network| network.cut("node-1", "master")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_whose_heartbeats_are_lost_does_not_serve_beside_its_successor() {
    cut("heartbeats lost", TWO_COPIES, led_by("node-1"), |network| network.cut_one_way("node-1", "master")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_cut_off_from_everybody_but_its_clients_does_not_serve_from_the_past() {
    cut("node cut from all servers", TWO_COPIES, led_by("node-1"), |network| {
        for other in ["master", "node-2", "node-3"] {
            network.cut("node-1", other);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_killed_while_its_replicas_do_not_hear_it_has_answered_nothing_that_they_lack() {
    if !needs_root() {
        return;
    }
    let setup = Setup { master: TWO_COPIES, network: true, ..Setup::default() };
    let mut run = Scenario::start("cut, then killed", setup, led_by("node-1")).await;
    super::planted::cut_and_kill(&mut run).await;
    run.finish().await;
}
