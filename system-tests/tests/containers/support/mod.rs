//! A cluster of containers, and what tests ask of it. The HTTP client and what answers mean are those of the tests over
//! processes.

#[expect(dead_code, reason = "what only the tests over processes ask")]
#[path = "../../it/support/client.rs"]
mod client;
mod cluster;
mod container;
#[expect(dead_code, reason = "what only the tests over processes ask")]
#[path = "../../it/support/entry.rs"]
mod entry;
mod garage;
mod workload;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use self::{
    client::{Client, Reply, key_url, sends_problem},
    cluster::{Cluster, Setup},
    container::Container,
    entry::Entry,
    workload::Workload,
};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the SDK may repeat a request. How slow things are is measured, not judged, for that depends on the machine;
/// what is judged is whether a user is told of an error in the end.
const SDK_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks until the answer is the right one. Fails the test with the last wrong answer when it takes too long.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let mut last = "nothing was answered in time".to_owned();
    let found = async {
        loop {
            match probe().await {
                Ok(found) => return found,
                Err(wrong) => last = wrong,
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    match tokio::time::timeout(PATIENCE, found).await {
        Ok(found) => found,
        Err(_) => panic!("{what}: not within {PATIENCE:?}; last seen: {last}"),
    }
}

/// Where reports and the logs of failed tests go, as those of the tests over processes do.
fn report_directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("system-tests");
    fs::create_dir_all(&directory).unwrap();
    directory
}
