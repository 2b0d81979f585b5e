//! A cluster of processes, and what tests ask of it.

mod bucket_faults;
mod client;
mod cluster;
mod disk;
pub(crate) mod entry;
mod load;
mod network;
mod object_store;
mod pipeline;
mod process;
mod raw;
mod replicas;
mod scenario;
mod unicode;
mod workload;

use std::time::Duration;

pub(crate) use self::{
    bucket_faults::{Fate, Fault, Requests},
    client::{Client, Reply, key_url, sends_problem},
    cluster::{Cluster, Setup},
    disk::{BrokenDisk, SmallDisk, copy_directory, rot},
    load::Load,
    network::{Network, needs_root},
    object_store::{Mode, ObjectStore},
    pipeline::pipeline,
    process::{Server, planted_node},
    raw::send_raw,
    scenario::{Scenario, followed_by, led_by},
    unicode::unicode_data,
    workload::{Through, Workload, Writes},
};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How many requests a test keeps in flight when it only wants to be done.
pub(crate) const CONCURRENCY: usize = 32;

/// Asks until the answer is the right one. Fails the test with the last wrong answer when it takes too long.
pub(crate) async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let mut last = "nothing was answered in time".to_owned();
    let found = async {
        loop {
            match probe().await {
                Ok(found) => return found,
                Err(wrong) => last = wrong,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(patience, found).await {
        Ok(found) => found,
        Err(_) => panic!("{what}: not within {patience:?}; last seen: {last}"),
    }
}
