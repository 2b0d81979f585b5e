//! Clients that do not end what they begin.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use crate::support::{Cluster, Fate, PATIENCE, Requests, Setup, eventually};

/// What a node may take in these tests: 64 MiB for values in memory, 128 MiB for bodies, 70 MiB as it starts, and the
/// copies of the one value that SQLite is writing. With a copy for each client it takes more than 750 MiB.
const MOST_BYTES: u64 = 512 << 20;
const VALUE: usize = 16 << 20;
/// How long it may take until requests are on their way: less than a node waits for the object store.
const WAIT: Duration = Duration::from_secs(2);
/// How long a client that does nothing wrong may have to wait.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection to the first node.
async fn connect(cluster: &Cluster) -> TcpStream {
    TcpStream::connect(cluster.node_url(0).strip_prefix("http://").unwrap()).await.unwrap()
}

/// Asks for keys that only the object store has, which does not answer; goes without waiting for the replies.
async fn ask_and_go(cluster: &Cluster, keys: &[String]) {
    let in_flight = async || cluster.metric(0, "cairn_requests_in_flight").await as usize;
    let mut connections = Vec::new();
    for key in keys {
        let mut connection = connect(cluster).await;
        connection.write_all(format!("GET /keys/{key} HTTP/1.1\r\nhost: node\r\n\r\n").as_bytes()).await.unwrap();
        connections.push(connection);
    }
    // The request for the metrics is among them; a node may refuse some of the others.
    let end = Instant::now() + WAIT;
    while in_flight().await <= keys.len() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for connection in connections {
        connection.set_zero_linger().unwrap();
    }
    eventually("the node has seen that they are gone", PATIENCE, async || match in_flight().await {
        1 => Ok(()),
        waiting => Err(format!("{waiting} wait")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_whose_clients_are_gone_leave_no_descriptors_behind() {
    const RESETS: usize = 50;
    let master = &[("PARTITIONS", "8")];
    let mut cluster = Cluster::start(Setup { nodes: 1, object_store: true, master, ..Setup::default() }).await;
    let keys: Vec<String> = (0..4 * RESETS).map(|number| format!("cold{number}")).collect();
    let entries: Vec<_> = keys.iter().map(|key| (key.clone(), "value".to_owned())).collect();
    cluster.import(&entries).await;
    cluster.uploaded().await;
    cluster.lose_all_disks().await;
    // Without the connections of the restore.
    cluster.store().disconnect();
    cluster.store().reconnect().await;
    let mut open = Vec::new();
    for keys in keys.chunks(RESETS) {
        let stalled = cluster.store().plan(Requests::of("GetObject"), Fate::Held);
        ask_and_go(&cluster, keys).await;
        stalled.release();
        eventually("the object store has answered", PATIENCE, async || match (stalled.executed(), stalled.met()) {
            (executed, met) if executed == met => Ok(()),
            (executed, met) => Err(format!("{executed} of {met}")),
        })
        .await;
        open.push(cluster.nodes[0].descriptors());
    }
    // The first round may leave connections that the node keeps for the next requests.
    let most = open[0] + RESETS;
    eventually("descriptors are closed", PATIENCE / 2, async || match cluster.nodes[0].descriptors() {
        left if left <= most => Ok(()),
        left => Err(format!("{left} are open; after each of the rounds of {RESETS} resets there were {open:?}")),
    })
    .await;
}

/// The most that the first node takes while `work` says what is still going on, until that is the same for a while.
async fn peak_while(cluster: &Cluster, progress: impl Fn() -> u64) -> u64 {
    let (mut peak, mut last, mut since) = (0, progress(), Instant::now());
    let end = Instant::now() + PATIENCE;
    while since.elapsed() < Duration::from_secs(2) && Instant::now() < end {
        peak = peak.max(cluster.nodes[0].resident_bytes());
        tokio::time::sleep(Duration::from_millis(50)).await;
        if progress() != last {
            (last, since) = (progress(), Instant::now());
        }
    }
    peak
}

/// Somebody who wants little gets it.
async fn others_are_answered(cluster: &Cluster) {
    let answered = tokio::time::timeout(ANSWER, cluster.client.get_key(cluster.node_url(0), "small")).await;
    let reply = answered.unwrap_or_else(|_| panic!("a small read got no answer"));
    assert_eq!((reply.status, reply.text().as_str()), (200, "value"));
    let written = cluster.client.put_key(cluster.node_url(0), "small", "", "value");
    let reply = tokio::time::timeout(ANSWER, written).await.unwrap_or_else(|_| panic!("a small write got no answer"));
    assert!(reply.is_stored() || reply.status == 503, "{reply:?}");
}

async fn with_little_memory() -> Cluster {
    let (master, node) = (&[("PARTITIONS", "8")], &[("MAX_MEMORY", "64MiB")]);
    let cluster = Cluster::start(Setup { nodes: 1, master, node, ..Setup::default() }).await;
    cluster.put("small", "", "value").await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_clients_do_not_finish_sending_take_bounded_memory() {
    const CLIENTS: usize = 60;
    let cluster = with_little_memory().await;
    let sent = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (mut connection, sent) = (connect(&cluster).await, sent.clone());
        clients.spawn(async move {
            let head = format!("PUT /keys/large{client} HTTP/1.1\r\nhost: node\r\ncontent-length: {VALUE}\r\n\r\n");
            let (piece, mut left) = (vec![7; 64 << 10], VALUE - 1);
            let mut result = connection.write_all(head.as_bytes()).await;
            // A server that has no room may stop to read, or refuse.
            while left > 0 && result.is_ok() {
                let length = piece.len().min(left);
                result = connection.write_all(&piece[..length]).await;
                left -= length;
                sent.fetch_add(length as u64, Ordering::Relaxed);
            }
            connection
        });
    }
    let peak = peak_while(&cluster, || sent.load(Ordering::Relaxed)).await;
    let sent = sent.load(Ordering::Relaxed);
    assert!(peak <= MOST_BYTES, "the node took {} MiB for {} MiB that were sent", peak >> 20, sent >> 20);
    others_are_answered(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_clients_do_not_read_take_bounded_memory() {
    const CLIENTS: usize = 30;
    let cluster = with_little_memory().await;
    let value = bytes::Bytes::from(vec![b'v'; VALUE]);
    let mut connections = Vec::new();
    let mut peak = 0;
    for _ in 0..CLIENTS {
        // Each asks for another value, which is replaced when it has begun to come.
        let reply = cluster.client.put_key(cluster.node_url(0), "large", "", value.clone()).await;
        if reply.status == 503 {
            break;
        }
        assert!(reply.is_stored(), "{reply:?}");
        let mut connection = connect(&cluster).await;
        connection.write_all(b"GET /keys/large HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();
        let began = tokio::time::timeout(ANSWER, connection.readable()).await;
        began.unwrap_or_else(|_| panic!("a large read got no answer")).unwrap();
        connections.push(connection);
        peak = peak.max(cluster.nodes[0].resident_bytes());
    }
    let readers = connections.len();
    assert!(readers > 0);
    assert!(peak <= MOST_BYTES, "the node took {} MiB for {readers} readers", peak >> 20);
    others_are_answered(&cluster).await;
    join_all(connections.into_iter().map(async |mut connection| connection.shutdown().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_whose_answers_clients_do_not_read_take_bounded_memory() {
    const CLIENTS: usize = 40;
    let cluster = with_little_memory().await;
    let value = bytes::Bytes::from(vec![0; 1 << 20]);
    for key in 0..16 {
        assert!(cluster.client.put_key(cluster.node_url(0), &key.to_string(), "", value.clone()).await.is_stored());
    }
    let reads: Vec<String> = (0..16).map(|key| format!(r#"{{"op":"get","key":"{key}"}}"#)).collect();
    let batch = format!(r#"{{"operations":[{}]}}"#, reads.join(","));
    let head = "POST /batch HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\n";
    let request = format!("{head}content-length: {}\r\n\r\n{batch}", batch.len());
    let began = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (mut connection, began, request) = (connect(&cluster).await, began.clone(), request.clone());
        clients.spawn(async move {
            connection.write_all(request.as_bytes()).await.unwrap();
            connection.readable().await.unwrap();
            began.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
            drop(connection);
        });
    }
    let peak = peak_while(&cluster, || began.load(Ordering::Relaxed)).await;
    let began = began.load(Ordering::Relaxed);
    assert!(began > 0);
    assert!(peak <= MOST_BYTES, "the node took {} MiB for {began} of {CLIENTS} answers", peak >> 20);
    others_are_answered(&cluster).await;
}
