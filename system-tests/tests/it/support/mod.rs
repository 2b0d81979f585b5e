//! A cluster of processes, and what tests ask of it.

mod client;
mod cluster;
mod load;
mod object_store;
mod process;
mod raw;
mod unicode;

use std::time::Duration;

pub(crate) use self::{
    client::{Client, Reply, key_url, sends_problem},
    cluster::{Cluster, Setup},
    load::Load,
    object_store::{Mode, ObjectStore},
    process::Server,
    raw::send_raw,
    unicode::unicode_data,
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
