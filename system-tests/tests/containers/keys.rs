//! Keys, as users outside the network see them: by HTTP, and by the SDK.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_api_spec::ErrorCode;
use cairn_client::{Cache, Error, generated::master};
use reqwest::Method;

use crate::support::{Cluster, Setup, key_url, sends_problem};

/// Too long for one frame between the servers: the master sends it by HTTP to the name that the node advertises.
const LARGE: usize = (2 << 20) + 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_stored_read_changed_and_deleted_through_the_published_port() {
    let cluster = Cluster::start(Setup::default()).await;
    let (client, url) = (&cluster.client, &cluster.url);

    let json = Bytes::from_static(br#"{"key":"value3","value":"value3"}"#);
    let headers = [("content-type", "application/json")];
    let posted = client.send(Method::POST, &format!("{url}/keys"), &headers, json.clone()).await.unwrap();
    assert_eq!((posted.status, posted.header("location")), (201, Some("/keys/value3")), "{posted:?}");
    let again = client.send(Method::POST, &format!("{url}/keys"), &headers, json).await.unwrap();
    assert_eq!(again.status, 200, "{again:?}");
    let read = client.get_key(url, "value3").await;
    assert_eq!((read.status, read.text().as_str()), (200, "value3"), "{read:?}");

    let headers = [("content-type", "image/png")];
    let put = async |headers: &[(&'static str, &str)], body: &'static str| {
        client.send(Method::PUT, &key_url(url, "value3"), headers, Bytes::from_static(body.as_bytes())).await.unwrap()
    };
    let replaced = put(&headers, "other").await;
    assert_eq!(replaced.status, 204, "{replaced:?}");
    let read = client.get_key(url, "value3").await;
    assert_eq!((read.text().as_str(), read.header("content-type")), ("other", Some("image/png")), "{read:?}");
    assert_eq!(read.version(), replaced.version());

    let old = format!("\"{}\"", replaced.version() - 1);
    sends_problem(&put(&[("if-match", &old)], "late").await, ErrorCode::PreconditionFailed);
    sends_problem(&put(&[("if-none-match", "*")], "late").await, ErrorCode::PreconditionFailed);
    let new = format!("\"{}\"", replaced.version());
    assert_eq!(put(&[("if-match", &new)], "swapped").await.status, 204);
    let unchanged = client.get_key(url, "value3").await.version();
    let etag = format!("\"{unchanged}\"");
    let unread = client.send(Method::GET, &key_url(url, "value3"), &[("if-none-match", &etag)], Bytes::new()).await;
    assert_eq!(unread.unwrap().status, 304);

    assert_eq!(client.delete(&key_url(url, "value3")).await.status, 204);
    sends_problem(&client.get_key(url, "value3").await, ErrorCode::KeyNotFound);
    sends_problem(&client.delete(&key_url(url, "value3")).await, ErrorCode::KeyNotFound);

    let large: Bytes = (0..LARGE).map(|at| ((at * 31) ^ (at >> 8)) as u8).collect();
    assert_eq!(client.put_key(url, "large", "", large.clone()).await.status, 201);
    assert!(client.get_key(url, "large").await.body == large, "2 MiB came back as something else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_goes_through_the_master_where_it_cannot_reach_the_nodes() {
    let cluster = Cluster::start(Setup::default()).await;
    let cache = Cache::connect(&cluster.url).await.unwrap();
    let nodes = cache.nodes().await.unwrap();
    assert!(nodes.iter().all(|node| node.address.contains("-node-")), "names that only the network knows: {nodes:?}");

    let began = Instant::now();
    for round in 0..50 {
        let (key, value) = (format!("key {round}"), format!("value {round}"));
        let stored = cache.put(&key, value.clone()).ttl(Duration::from_secs(600)).await.unwrap();
        let read = cache.get(&key).await.unwrap().unwrap();
        assert_eq!((read.bytes, read.version), (Bytes::from(value), stored.version));
    }
    eprintln!("{:?} for a round trip through the SDK that finds no node", began.elapsed() / 100);
    let page = cache.list().prefix("key ").limit(1_000).page().await.unwrap();
    assert_eq!(page.keys.len(), 50);
    let taken = cache.put("key 0", "other").if_absent().await;
    assert!(matches!(taken, Err(Error::PreconditionFailed { .. })), "{taken:?}");
    assert!(cache.delete("key 0").await.unwrap().is_some());
    assert!(cache.get("key 0").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_generated_client_speaks_to_the_published_port() {
    let cluster = Cluster::start(Setup { nodes: 1, ..Setup::default() }).await;
    let client = master::Client::new(&cluster.url);
    let put = client.put_key("greeting", None, None, Some("10m"), None, None, None, None, "hello").await.unwrap();
    assert_eq!(put.status(), 201);
    assert_eq!(
        put.headers()["etag"],
        client.get_key("greeting", None, None, None, None).await.unwrap().headers()["etag"]
    );
    let keys = client.list_keys(None, None, None, None).await.unwrap().into_inner().keys;
    assert_eq!(keys.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["greeting"]);
    assert_eq!(client.get_ring(None, None).await.unwrap().nodes.len(), 1);
    assert_eq!(client.list_nodes().await.unwrap().nodes[0].node_id, cluster.node_id(0));
    client.delete_key("greeting", None, None, None, None, None).await.unwrap();
    let missing = client.get_key("greeting", None, None, None, None).await.err().and_then(|error| error.status());
    assert_eq!(missing.map(|status| status.as_u16()), Some(404));
}
