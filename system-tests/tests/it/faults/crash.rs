//! Processes that end without warning: SIGKILL.

use std::time::Duration;

use cairn_api_spec::cluster::NodeState;

use super::{CHAIN, DEFAULTS, ONE_COPY, QUORUM, Settings, THREE_COPIES, TWO_COPIES};
use crate::support::{Cluster, PATIENCE, Scenario, Setup, Through, Writes, eventually, followed_by, led_by};

async fn a_primary_is_killed(name: &str, master: Settings) {
    let mut run = Scenario::start(name, Setup { master, ..Setup::default() }, led_by("node-1")).await;
    run.cluster.nodes[0].kill();
    run.struck().await;
    run.cluster.restart_node(0).await;
    run.healed().await;
    run.finish().await;
}

async fn a_replica_is_killed(name: &str, master: Settings) {
    let mut run = Scenario::start(name, Setup { master, ..Setup::default() }, followed_by("node-1")).await;
    run.cluster.nodes[0].kill();
    run.struck().await;
    run.cluster.restart_node(0).await;
    run.healed().await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over_from_a_killed_primary_and_nothing_answered_is_lost() {
    a_primary_is_killed("primary killed, defaults", DEFAULTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_replicas_takes_over_from_a_killed_primary() {
    a_primary_is_killed("primary killed, three copies", THREE_COPIES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_in_a_chain_takes_over_from_its_killed_head() {
    a_primary_is_killed("primary killed, chain", CHAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_quorum_had_is_there_after_the_primary_was_killed() {
    a_primary_is_killed("primary killed, quorum", QUORUM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_the_sdk_lose_nothing_with_a_killed_primary() {
    let cluster = Cluster::start(Setup { master: TWO_COPIES, ..Setup::default() }).await;
    let name = "primary killed, SDK";
    let mut run = Scenario::start_through(name, cluster, Through::Sdk, Writes::default(), led_by("node-1")).await;
    run.cluster.nodes[0].kill();
    run.struck().await;
    run.cluster.restart_node(0).await;
    run.healed().await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_holds_up_writes_only_until_it_is_removed() {
    a_replica_is_killed("replica killed, two copies", TWO_COPIES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_closes_around_a_killed_member() {
    a_replica_is_killed("replica killed, chain", CHAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_does_not_wait_for_a_killed_replica() {
    a_replica_is_killed("replica killed, quorum", QUORUM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_with_one_copy_is_back_with_its_killed_node_and_nothing_answered_is_lost() {
    let setup = Setup { master: ONE_COPY, ..Setup::default() };
    let mut run = Scenario::start("only copy killed", setup, led_by("node-1")).await;
    run.cluster.nodes[0].kill();
    run.began();
    run.load.progress(300).await;
    run.cluster.restart_node(0).await;
    run.healed().await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_go_on_without_their_killed_master_and_it_goes_on_from_its_store() {
    let setup = Setup { master: TWO_COPIES, ..Setup::default() };
    let mut run = Scenario::start("master killed", setup, |_| true).await;
    run.cluster.master.kill();
    run.struck().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Half of the clients know the way without it.
    run.load.progress(400).await;
    run.cluster.master.start().await;
    run.healed().await;
    run.finish().await;
}

async fn all_nodes_are_killed(name: &str, master: Settings) {
    let mut run = Scenario::start(name, Setup { master, ..Setup::default() }, |_| true).await;
    run.cluster.nodes.iter_mut().for_each(crate::support::Server::kill);
    run.began();
    for index in 0..3 {
        run.cluster.nodes[index].spawn();
    }
    run.healed().await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_answered_is_lost_when_all_nodes_are_killed_at_once() {
    all_nodes_are_killed("all nodes killed", TWO_COPIES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_quorum_has_is_lost_when_all_nodes_are_killed_at_once() {
    all_nodes_are_killed("all nodes killed, quorum", QUORUM).await;
}

/// The second one while it takes over from the first, or soon after.
async fn two_primaries_are_killed(name: &str, master: Settings) {
    let mut run = Scenario::start(name, Setup { master, ..Setup::default() }, led_by("node-1")).await;
    run.cluster.nodes[0].kill();
    run.began();
    eventually("the replicas take over", PATIENCE, async || {
        let state = run.cluster.node("node-1").await?.state;
        if state == NodeState::Gone { Ok(()) } else { Err(format!("it is {state:?}")) }
    })
    .await;
    run.cluster.nodes[1].kill();
    run.cluster.restart_node(0).await;
    run.cluster.restart_node(1).await;
    run.healed().await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_third_copy_has_what_was_answered_when_two_are_killed_one_after_the_other() {
    two_primaries_are_killed("two primaries killed", THREE_COPIES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_quorum_had_is_there_when_two_are_killed_one_after_the_other() {
    two_primaries_are_killed("two primaries killed, quorum", QUORUM).await;
}
