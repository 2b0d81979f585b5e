//! An object store that is gone or slow, while everybody writes: nobody notices.

use std::time::Duration;

use super::TWO_COPIES;
use crate::support::{Mode, Scenario, Setup};

const BROKEN: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_store_that_fails_and_then_hangs_costs_no_request_its_answer() {
    let setup = Setup { master: TWO_COPIES, object_store: true, ..Setup::default() };
    let mut run = Scenario::start("object store dead and slow", setup, |_| true).await;
    run.cluster.store().set(Mode::Failing);
    run.struck().await;
    tokio::time::sleep(BROKEN).await;
    run.cluster.store().set(Mode::Stalled);
    tokio::time::sleep(BROKEN).await;
    run.cluster.store().set(Mode::Serving);
    run.healed().await;
    let report = run.finish().await;
    assert!(report.failures.is_empty(), "{report:?}");
}
