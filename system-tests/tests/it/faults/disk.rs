//! Disks that are full, fail, or are gone.

use std::time::Duration;

use super::TWO_COPIES;
use crate::support::{BrokenDisk, Cluster, Scenario, Setup, Through, Writes, led_by, needs_root};

const BROKEN: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_full_disk_loses_no_answered_write_and_goes_on_when_it_has_room() {
    if !needs_root() {
        return;
    }
    let mut cluster = Cluster::start(Setup { master: TWO_COPIES, ..Setup::default() }).await;
    cluster.nodes[0].terminate().await;
    cluster.limit_disk(0, "96m");
    cluster.restart_node(0).await;
    cluster.settled().await;
    let through = Through::MasterAndOwners;
    let mut run = Scenario::start_through("disk full", cluster, through, Writes::default(), led_by("node-1")).await;
    run.cluster.small_disk().fill();
    run.struck().await;
    tokio::time::sleep(BROKEN).await;
    run.cluster.small_disk().free();
    run.healed().await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_cannot_be_synced_loses_no_answered_write() {
    let cluster = Cluster::start(Setup { master: TWO_COPIES, ..Setup::default() }).await;
    let writes = Writes { durabilities: &["fsync"], ..Writes::default() };
    let through = Through::MasterAndOwners;
    let mut run = Scenario::start_through("fsync fails", cluster, through, writes, led_by("node-1")).await;
    let Some(errors) = BrokenDisk::syncs_fail(run.cluster.nodes[0].pid()) else { return };
    run.struck().await;
    tokio::time::sleep(BROKEN).await;
    drop(errors);
    run.healed().await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_gets_everything_back_from_the_other_copies() {
    let setup = Setup { master: TWO_COPIES, ..Setup::default() };
    let mut run = Scenario::start("disk wiped", setup, led_by("node-1")).await;
    run.cluster.nodes[0].kill();
    run.cluster.wipe_node(0);
    // At once, so that nobody has noticed that it was away.
    run.cluster.restart_node(0).await;
    run.struck().await;
    run.healed().await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_uploaded_is_back_when_every_disk_is_lost() {
    let setup = Setup { master: TWO_COPIES, object_store: true, ..Setup::default() };
    let mut run = Scenario::start("all disks wiped", setup, |_| true).await;
    run.load.stop().await;
    run.cluster.uploaded().await;
    run.cluster.nodes.iter_mut().for_each(crate::support::Server::kill);
    run.began();
    for index in 0..3 {
        run.cluster.wipe_node(index);
        run.cluster.nodes[index].spawn();
    }
    run.finish().await;
}
