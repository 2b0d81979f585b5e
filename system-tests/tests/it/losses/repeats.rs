//! Requests that are sent again.

use bytes::Bytes;
use reqwest::Method;

use crate::support::{Cluster, Reply, Setup, key_url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_repeated_under_its_idempotency_key_even_if_the_condition_holds_by_then() {
    let cluster = Cluster::start(Setup::default()).await;
    let url = key_url(cluster.url(), "lock");
    assert_eq!(cluster.client.put_key(cluster.url(), "lock", "", "first").await.status, 201);
    let create = async || -> Reply {
        let headers = [("if-none-match", "*"), ("idempotency-key", "the-same-request")];
        cluster.client.send(Method::PUT, &url, &headers, Bytes::from("second")).await.unwrap()
    };
    let refused = create().await;
    assert_eq!(refused.status, 412, "{refused:?}");
    assert_eq!(cluster.client.delete(&url).await.status, 204);
    let again = create().await;
    assert_eq!(again.status, 412, "{again:?}");
    let read = cluster.client.get(&url).await;
    assert_eq!(read.status, 404, "a request that was refused was done when it was sent again: {read:?}");
}
