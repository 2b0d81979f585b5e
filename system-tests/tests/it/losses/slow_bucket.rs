//! Buckets that take their time.

use std::{process::Command, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{CONCURRENCY, Cluster, Fate, PATIENCE, Requests, Setup, eventually};

/// More than one thread of a master has room for on its way to a node.
const COLD: usize = 4_600;
const SLOW: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_keys_are_answered_while_many_cold_reads_wait_for_a_slow_bucket() {
    allow_descriptors(2 * COLD);
    let master = &[("PARTITIONS", "4"), ("WORKERS", "1")];
    let mut cluster = Cluster::start(Setup { nodes: 1, object_store: true, master, ..Setup::default() }).await;
    cluster.put("cold", "", "value").await;
    cluster.uploaded().await;
    cluster.lose_all_disks().await;
    cluster.put("hot", "", "value").await;
    cluster.uploaded().await;

    let slow = cluster.store().plan(Requests::of("GetObject"), Fate::Slow(SLOW));
    let address = cluster.url().strip_prefix("http://").unwrap();
    let connect = async |_| TcpStream::connect(address).await.unwrap();
    let mut asking: Vec<TcpStream> = stream::iter(0..COLD).map(connect).buffer_unordered(CONCURRENCY).collect().await;
    for connection in &mut asking {
        connection.write_all(b"GET /keys/cold HTTP/1.1\r\nhost: master\r\nconnection: close\r\n\r\n").await.unwrap();
    }
    eventually("the bucket is asked", PATIENCE, async || match slow.met() {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    let answers = tokio::spawn(join_all(asking.into_iter().map(async |mut connection| {
        let mut reply = String::new();
        connection.read_to_string(&mut reply).await.map(|_| reply.split(' ').nth(1).map(str::to_owned))
    })));
    let (mut asked, mut refused) = (0, Vec::new());
    while !answers.is_finished() {
        let reply = cluster.client.get_key(cluster.url(), "hot").await;
        asked += 1;
        if reply.status != 200 {
            refused.push(format!("{} {}", reply.status, reply.text()));
        }
    }
    for answer in answers.await.unwrap() {
        let status = answer.unwrap().unwrap_or_default();
        assert!(matches!(status.as_str(), "200" | "503"), "a cold read was answered {status:?}");
    }
    assert!(refused.is_empty(), "{} of {asked} reads of a hot key were refused, such as {}", refused.len(), refused[0]);
}

/// Lets this process, and those that it starts, have so many files and sockets open.
fn allow_descriptors(count: usize) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args([&format!("--pid={}", std::process::id()), &format!("--nofile={count}:")]);
    assert!(prlimit.status().is_ok_and(|status| status.success()), "{prlimit:?}");
}
