//! The judge is judged: a node that answers writes before its replicas have them, and reads whoever else may have
//! become the primary, must be found out.

use std::time::Duration;

use super::TWO_COPIES;
use crate::support::{Scenario, Setup, led_by, needs_root};

/// Too short for the primary to give its replicas up, long enough for many writes.
const CUT: Duration = Duration::from_millis(500);

/// A primary goes on while its replicas do not hear it, and then is no more.
pub(super) async fn cut_and_kill(run: &mut Scenario) {
    run.cluster.network().cut("node-1", "node-2");
    run.cluster.network().cut("node-1", "node-3");
    tokio::time::sleep(CUT).await;
    run.cluster.nodes[0].kill();
    run.struck().await;
    run.cluster.network().heal();
    run.cluster.restart_node(0).await;
    run.healed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_too_early_and_reads_without_a_lease_is_found_out() {
    if !needs_root() {
        return;
    }
    let setup = Setup { master: TWO_COPIES, network: true, planted_bug: true, ..Setup::default() };
    let mut run = Scenario::start("planted bug, early answers", setup, led_by("node-1")).await;
    cut_and_kill(&mut run).await;
    let (report, evidence) = run.judge().await;
    assert!(report.violations > 0, "{evidence}");

    let mut run = Scenario::start("planted bug, no lease", setup, led_by("node-1")).await;
    super::freeze::freeze(&mut run).await;
    let (report, evidence) = run.judge().await;
    assert!(report.violations > 0, "{evidence}");
}
