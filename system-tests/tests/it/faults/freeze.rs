//! Processes that stand still for a while and do not know it, as a paused virtual machine does.

use std::time::Duration;

use super::{CHAIN, QUORUM, Settings, TWO_COPIES};
use crate::support::{Scenario, Setup, led_by};

const FROZEN: Duration = Duration::from_secs(10);

async fn a_primary_is_frozen(name: &str, master: Settings) {
    let mut run = Scenario::start(name, Setup { master, ..Setup::default() }, led_by("node-1")).await;
    freeze(&mut run).await;
    run.finish().await;
}

/// A primary stands still until others have taken over, while some go on to believe in it: they would notice if it
/// answered from the past.
pub(super) async fn freeze(run: &mut Scenario) {
    freeze_for_a_while(run).await;
    run.healed().await;
}

/// The same, without waiting for the end of it.
pub(super) async fn freeze_for_a_while(run: &mut Scenario) {
    let old_primary = run.cluster.node_url(0).to_owned();
    run.load.ask_only(&old_primary);
    let thaw = tokio::time::Instant::now() + FROZEN;
    run.cluster.nodes[0].freeze();
    run.struck().await;
    tokio::time::sleep_until(thaw).await;
    run.cluster.nodes[0].thaw();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_stood_still_answers_nothing_from_the_past() {
    a_primary_is_frozen("primary frozen, two copies", TWO_COPIES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_of_a_chain_that_stood_still_answers_nothing_from_the_past() {
    a_primary_is_frozen("primary frozen, chain", CHAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_of_a_quorum_that_stood_still_answers_nothing_from_the_past() {
    a_primary_is_frozen("primary frozen, quorum", QUORUM).await;
}
