//! The first steps: put, get, list, delete. Start a cluster with `cairn dev`, then
//! `cargo run -p cairn-client-sdk --example quickstart`.

use std::time::Duration;

use cairn_client::{Cache, Error};
use futures_util::TryStreamExt as _;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("CAIRN_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
    let cache = Cache::connect(&url).await?;

    let stored = cache.put("user:42", "Ada").ttl(Duration::from_secs(600)).content_type("text/plain").await?;
    println!("stored version {}, new: {}", stored.version, stored.created);

    if let Some(value) = cache.get("user:42").await? {
        println!("{:?}, {}, {}", value.bytes, value.content_type, value.cache_status);
    }

    // The same keys in another bucket are other keys.
    let sessions = cache.bucket("sessions")?;
    println!("in the bucket sessions: {:?}", sessions.get("user:42").await?);

    let mut keys = std::pin::pin!(cache.list().prefix("user:").stream());
    while let Some(entry) = keys.try_next().await? {
        println!("{} has {} bytes", entry.key, entry.size);
    }

    println!("removed: {}", cache.delete("user:42").await?.is_some());
    Ok(())
}
