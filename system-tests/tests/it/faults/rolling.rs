//! Restarts that users do not notice.

use std::time::Duration;

use super::TWO_COPIES;
use crate::support::{Cluster, Scenario, Setup, Through, Writes};

/// What an orchestrator waits before it kills.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_costs_users_of_the_sdk_no_error() {
    let cluster = Cluster::start(Setup { master: TWO_COPIES, ..Setup::default() }).await;
    let mut run = Scenario::start_through("rolling restart", cluster, Through::Sdk, Writes::default(), |_| true).await;
    run.began();
    for index in 0..3 {
        let ended = run.cluster.nodes[index].terminate().await;
        assert!(ended.status.success() && ended.took < GRACE, "{} after {:?}", ended.status, ended.took);
        run.load.progress(100).await;
        run.cluster.restart_node(index).await;
        run.healed().await;
    }
    let report = run.finish().await;
    assert!(report.failures.is_empty(), "{report:?}");
}
