//! An update that depends on the value and loses no other: read, compute, write back under `If-Match`, and again when
//! somebody was faster. For addition alone, there is `Cache::increment`. Start a cluster with `cairn dev`, then `cargo run -p cairn-client-sdk --example counter`.

use cairn_client::{Cache, Error};

const COUNTER: &str = "counters/visits";

/// Adds one, and gives the new value.
async fn increment(cache: &Cache) -> Result<u64, Error> {
    loop {
        let value = cache.get(COUNTER).await?;
        let number: u64 = value.as_ref().and_then(|v| std::str::from_utf8(&v.bytes).ok()?.parse().ok()).unwrap_or(0);
        let next = number + 1;
        let put = cache.put(COUNTER, next.to_string());
        let put = match value {
            Some(value) => put.if_match(value.version),
            None => put.if_absent(),
        };
        match put.await {
            Ok(_) => return Ok(next),
            Err(Error::PreconditionFailed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("CAIRN_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
    let cache = Cache::connect(&url).await?;
    cache.delete(COUNTER).await?;
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    increment(&cache).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await.map_err(|error| Error::OutcomeUnknown(error.to_string()))??;
    }
    let total = cache.get(COUNTER).await?.map(|value| value.bytes);
    println!("8 workers, 25 increments each: {total:?}");
    Ok(())
}
