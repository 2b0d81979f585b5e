//! A lock: `If-None-Match: *` lets one worker in, the TTL frees the lock of one that died, and `If-Match` keeps a late
//! one from freeing another's. Start a cluster with `cairn dev`, then
//! `cargo run -p cairn-client-sdk --example lock`.

use std::time::Duration;

use cairn_client::{Cache, Error, Version};

const LOCK: &str = "locks/nightly-report";
/// Longer than the work takes; a lock that runs out while its owner still works protects nothing.
const LEASE: Duration = Duration::from_secs(10);

/// The lock's version when this worker has it, `None` when another one does.
async fn acquire(cache: &Cache, worker: &str) -> Result<Option<Version>, Error> {
    match cache.put(LOCK, worker.to_owned()).if_absent().ttl(LEASE).await {
        Ok(stored) => Ok(Some(stored.version)),
        Err(Error::PreconditionFailed { .. }) => Ok(None),
        // Perhaps it is ours: then nobody has it until the lease ends, which is safe.
        Err(error) => Err(error),
    }
}

async fn release(cache: &Cache, version: Version) -> Result<(), Error> {
    match cache.delete(LOCK).if_match(version).await {
        // Not ours any more: the lease was over.
        Ok(_) | Err(Error::PreconditionFailed { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("CAIRN_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
    let cache = Cache::connect(&url).await?;
    let first = acquire(&cache, "worker 1").await?;
    let second = acquire(&cache, "worker 2").await?;
    println!("worker 1 has it: {}, worker 2 has it: {}", first.is_some(), second.is_some());
    if let Some(version) = first {
        release(&cache, version).await?;
    }
    let second = acquire(&cache, "worker 2").await?;
    println!("after worker 1 let go, worker 2 has it: {}", second.is_some());
    if let Some(version) = second {
        release(&cache, version).await?;
    }
    Ok(())
}
