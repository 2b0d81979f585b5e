//! Wall clocks that are off.

use bytes::Bytes;
use cairn_api_spec::cluster::Stats;
use reqwest::Method;

use crate::support::{Client, Cluster, PATIENCE, Reply, Setup, eventually, key_url, led_by};

const KEYS: usize = 200;

/// Takes a lock for half an hour, if it is free.
async fn lock(client: &Client, server: &str, key: &str, owner: &str) -> Reply {
    let url = format!("{}?ttl=30m", key_url(server, key));
    client.send(Method::PUT, &url, &[("if-none-match", "*")], Bytes::from(owner.to_owned())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_an_hour_ahead_expires_nobodys_keys_and_that_is_said() {
    let master = &[("PARTITIONS", "32")];
    let mut cluster = Cluster::start(Setup { nodes: 2, master, ..Setup::default() }).await;
    let (client, url) = (cluster.client.clone(), cluster.url().to_owned());
    let keys: Vec<String> = (0..KEYS).map(|number| format!("lock {number}")).collect();
    for key in &keys {
        let reply = lock(&client, &url, key, "the first").await;
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    let Some(fast) = cluster.add_node_with_clock("+1h").await else { return };
    let says_so = || [&cluster.nodes[fast], &cluster.master].iter().any(|server| server.log().contains("clock"));
    eventually("somebody says that its clock is off, or it leads partitions", PATIENCE, async || {
        let ring = cluster.ring().await;
        let led = ring.partitions.iter().filter(|partition| led_by("node-3")(partition)).count();
        if led > 0 || says_so() { Ok(()) } else { Err(format!("{led} partitions are led by it")) }
    })
    .await;
    eventually("nothing moves", PATIENCE, async || {
        let Stats { partitions_offline, partitions_moving, .. } = client.try_json(&format!("{url}/stats")).await?;
        match partitions_offline + partitions_moving {
            0 => Ok(()),
            _ => Err(format!("{partitions_offline} are offline, {partitions_moving} move")),
        }
    })
    .await;

    let mut lost = Vec::new();
    for key in &keys {
        let taken = lock(&client, &url, key, "the second").await;
        let read = client.get_key(&url, key).await;
        if (taken.status, read.status, read.text().as_str()) != (412, 200, "the first") {
            lost.push((key, taken.status, read.status, read.text()));
        }
    }
    let shown = &lost[..lost.len().min(5)];
    assert!(lost.is_empty(), "{} of {KEYS} locks have another owner: {shown:?}", lost.len());
    eventually("somebody says that its clock is off", PATIENCE, async || match says_so() {
        true => Ok(()),
        false => Err("nobody does".to_owned()),
    })
    .await;
}
