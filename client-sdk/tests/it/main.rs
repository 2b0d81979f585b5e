//! Where requests go, and which of them are repeated, against servers that misbehave as told.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod batches;
mod events;
mod fake;
mod reads;
mod repetitions;
mod routes;

use std::time::Duration;

use cairn_client::Cache;

use crate::fake::{Answer, Fake, ring};

/// Port 9 (discard) has no listener.
const NOBODY: &str = "http://127.0.0.1:9";

async fn connect(master: &Fake) -> Cache {
    Cache::builder().url(&master.url).timeout(Duration::from_secs(20)).connect().await.unwrap()
}

async fn connect_for(master: &Fake, timeout: Duration) -> Cache {
    Cache::builder().url(&master.url).timeout(timeout).connect().await.unwrap()
}

fn value() -> Answer {
    Answer::Reply("200 OK", "ETag: \"7\"\r\nContent-Type: text/plain\r\n".to_owned(), "value".to_owned())
}

fn stored() -> Answer {
    Answer::Reply("204 No Content", "ETag: \"8\"\r\n".to_owned(), String::new())
}

/// A master whose map has one partition, with `nodes` in sync and the first of them its primary, and which answers all
/// else with `keys`.
async fn master(nodes: &[&str], keys: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Fake {
    let ring = ring(1, nodes);
    Fake::start(move |request| match request.starts_with("GET /ring ") {
        true => ring.clone(),
        false => keys(request),
    })
    .await
}
