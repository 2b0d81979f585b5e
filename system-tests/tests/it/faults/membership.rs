//! Nodes that come and go, come back with old data, or claim to be another.

use std::time::Duration;

use cairn_system_tests::history::{Condition, Kind, Outcome};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::TWO_COPIES;
use crate::support::{
    Client, Cluster, PATIENCE, Scenario, Setup, copy_directory, entry::Entry, eventually, key_url, led_by,
};

/// Steps of a storm, and the longest pause between two.
const STEPS: usize = 14;
const PAUSE_MS: u64 = 1_500;

/// Asks the master to drain a node.
async fn remove(cluster: &Cluster, node_id: &str) {
    let reply = cluster.client.delete(&format!("{}/nodes/{node_id}", cluster.url())).await;
    assert_eq!(reply.status, 202, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_join_leave_and_crash_in_any_order_lose_nothing() {
    let seed = 20_260_801;
    let mut random = StdRng::seed_from_u64(seed);
    let setup = Setup { master: TWO_COPIES, ..Setup::default() };
    let mut run = Scenario::start("join and leave storm", setup, |_| true).await;
    run.began();
    let mut leaving: Vec<usize> = Vec::new();
    for step in 0..STEPS {
        let stays = |index: &usize| !leaving.contains(index);
        let (running, down): (Vec<usize>, Vec<usize>) =
            (0..run.cluster.nodes.len()).filter(stays).partition(|index| run.cluster.nodes[*index].is_running());
        let chosen = running[random.random_range(0..running.len())];
        match random.random_range(0..4) {
            // One at a time is away: the copies of a partition are not to be all on nodes that are.
            _ if !down.is_empty() => run.cluster.restart_node(down[0]).await,
            0 if running.len() < 5 => drop(run.cluster.add_node().await),
            1 if running.len() > 3 => {
                remove(&run.cluster, &run.cluster.nodes[chosen].name).await;
                leaving.push(chosen);
            }
            2 => run.cluster.nodes[chosen].kill(),
            _ => {
                run.cluster.nodes[chosen].terminate().await;
            }
        }
        eprintln!("seed {seed}, step {step}: {running:?} run, {down:?} are down, {leaving:?} leave");
        tokio::time::sleep(Duration::from_millis(random.random_range(0..PAUSE_MS))).await;
    }
    for index in 0..run.cluster.nodes.len() {
        if leaving.contains(&index) {
            run.cluster.nodes[index].ended().await;
        } else if !run.cluster.nodes[index].is_running() {
            run.cluster.restart_node(index).await;
        }
    }
    run.healed().await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_through_deletions_does_not_bring_the_keys_back() {
    let master = &[("PARTITIONS", "64"), ("REPLICATION_FACTOR", "2"), ("REPLACE_AFTER", "5s")];
    let mut run = Scenario::start("stale rejoin", Setup { master, ..Setup::default() }, led_by("node-1")).await;
    run.load.stop().await;
    let client = Client::new();
    let entry = Entry::Master(client.clone(), run.cluster.url().to_owned());
    for key in run.load.keys() {
        run.load.perform(&entry, key, Kind::Put(Condition::Always)).await;
    }
    run.cluster.nodes[0].kill();
    run.began();
    for key in run.load.keys() {
        eventually(key, PATIENCE, async || {
            match run.load.perform(&entry, key, Kind::Delete(Condition::Always)).await {
                Outcome::Written(_) | Outcome::Absent(_) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    // Forgotten: nothing is left that could tell the node that these keys were deleted.
    for key in run.load.keys() {
        eventually(key, PATIENCE, async || {
            let reply = client.get_key(run.cluster.url(), key).await;
            if (reply.status, reply.version()) == (404, 0) { Ok(()) } else { Err(format!("{reply:?}")) }
        })
        .await;
    }
    run.cluster.restart_node(0).await;
    run.cluster.settled().await;
    eventually("the node is a primary again", PATIENCE, async || {
        let ring = run.cluster.ring().await;
        let led = ring.partitions.iter().filter(|partition| led_by("node-1")(partition)).count();
        if led > 0 { Ok(()) } else { Err("it leads nothing".to_owned()) }
    })
    .await;
    for key in run.load.keys() {
        let reply = client.get(&key_url(run.cluster.url(), key)).await;
        assert_eq!(reply.status, 404, "{key}: {reply:?}");
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_that_claims_to_be_a_node_is_refused_and_harms_nobody() {
    let setup = Setup { master: TWO_COPIES, ..Setup::default() };
    let mut run = Scenario::start("duplicate node", setup, led_by("node-1")).await;
    let copy = run.cluster.new_node("node-1");
    run.cluster.nodes[0].kill();
    copy_directory(&run.cluster.nodes[0].directory().join("data"), &copy.directory().join("data"));
    run.cluster.restart_node(0).await;
    run.healed().await;
    run.began();
    let first = run.cluster.node("node-1").await.unwrap();
    // One without data, and one with a copy of the data.
    for mut second in [run.cluster.new_node("node-1"), copy] {
        second.spawn();
        let line = second.log_line("node_conflict").await;
        assert!(line.contains(&first.address), "{line}");
        run.load.progress(200).await;
        assert_eq!(run.cluster.node("node-1").await.unwrap().address, first.address);
    }
    run.healed().await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_back_on_an_old_copy_of_its_disk_is_not_taken_for_up_to_date() {
    let setup = Setup { master: TWO_COPIES, ..Setup::default() };
    let mut run = Scenario::start("old disk", setup, led_by("node-1")).await;
    let data = run.cluster.nodes[0].directory().join("data");
    let old = data.with_extension("old");
    run.cluster.nodes[0].kill();
    copy_directory(&data, &old);
    run.cluster.restart_node(0).await;
    run.healed().await;
    run.cluster.nodes[0].kill();
    run.cluster.wipe_node(0);
    copy_directory(&old, &data);
    // At once, so that nobody has noticed that it was away.
    run.cluster.restart_node(0).await;
    run.struck().await;
    run.healed().await;
    run.finish().await;
}
