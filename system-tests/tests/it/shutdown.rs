//! SIGTERM, with clients at work.

use std::time::Duration;

use crate::support::{Cluster, Load, Mode, PATIENCE, Setup, eventually};

/// What an orchestrator waits before it kills.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_a_server_in_time_and_loses_no_answered_write() {
    let mut cluster = Cluster::start(Setup { object_store: true, ..Setup::default() }).await;
    let (client, url) = (cluster.client.clone(), cluster.url().to_owned());
    let load = Load::start(&client, &url, &[]);
    load.progress(200).await;

    let node = cluster.nodes[0].terminate().await;
    assert!(node.status.success() && node.took < GRACE, "the node: {} after {:?}", node.status, node.took);
    load.progress(100).await;
    cluster.restart_node(0).await;
    cluster.ready().await;
    load.progress(100).await;

    let master = cluster.master.terminate().await;
    assert!(master.status.success() && master.took < GRACE, "the master: {} after {:?}", master.status, master.took);
    cluster.master.start().await;
    cluster.ready().await;
    load.progress(100).await;
    load.finish(&client, &url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_a_node_in_time_also_while_the_object_store_does_not_answer() {
    let mut cluster = Cluster::start(Setup { nodes: 1, object_store: true, ..Setup::default() }).await;
    let (client, url) = (cluster.client.clone(), cluster.url().to_owned());
    cluster.store().set(Mode::Stalled);
    for key in 0..50 {
        assert_eq!(client.put_key(&url, &key.to_string(), "", "value").await.status, 201);
    }
    eventually("an upload is under way", PATIENCE, async || match cluster.store().requests("PutObject") {
        0 => Err("none is".to_owned()),
        _ => Ok(()),
    })
    .await;
    let waiting = tokio::spawn(async move { client.put_key(&url, "durable", "?durability=object", "value").await });

    let ended = cluster.nodes[0].terminate().await;
    assert!(ended.status.success() && ended.took < GRACE, "{} after {:?}", ended.status, ended.took);
    let reply = waiting.await.unwrap();
    assert!(matches!(reply.status, 503 | 504), "the object store does not have it: {reply:?}");
    cluster.store().set(Mode::Serving);
    cluster.restart_node(0).await;
    cluster.ready().await;
    cluster.uploaded().await;
    assert_eq!(cluster.client.get_key(cluster.url(), "49").await.status, 200);
}
