//! Conditional writes from many clients at once.

use bytes::Bytes;
use futures_util::future::join_all;
use reqwest::Method;

use crate::support::{Client, Cluster, Setup, key_url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_200_clients_that_create_a_key_at_once_exactly_one_does() {
    let cluster = Cluster::start(Setup::default()).await;
    let url = key_url(cluster.url(), "lock");
    let create = async |client: usize| {
        let body = Bytes::from(client.to_string());
        let headers = [("if-none-match", "*")];
        cluster.client.send(Method::PUT, &url, &headers, body).await.unwrap()
    };
    let replies = join_all((0..200).map(create)).await;
    let winners: Vec<usize> = (0..200).filter(|client| replies[*client].status == 201).collect();
    let refused = replies.iter().filter(|reply| reply.status == 412).count();
    assert_eq!((winners.len(), refused), (1, 199));
    assert_eq!(cluster.client.get(&url).await.text(), winners[0].to_string());
    let version = replies[winners[0]].version();
    assert!(replies.iter().all(|reply| reply.version() == version), "a refusal names another version");
}

/// Adds one, as often as it takes.
async fn increment(client: &Client, url: &str) {
    loop {
        let read = client.get(url).await;
        let (count, version) = (read.text().parse::<u64>().unwrap(), format!("\"{}\"", read.version()));
        let body = Bytes::from((count + 1).to_string());
        let reply = client.send(Method::PUT, url, &[("if-match", &version)], body).await.unwrap();
        match reply.status {
            204 => return,
            412 => {}
            _ => panic!("{reply:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_of_64_clients_through_the_master_and_the_owner_is_lost() {
    let cluster = Cluster::start(Setup::default()).await;
    cluster.client.put_key(cluster.url(), "counter", "", "0").await;
    let owner = cluster.owner("counter").await;
    let entries = [key_url(cluster.url(), "counter"), key_url(cluster.node_url(owner), "counter")];
    join_all((0..64).map(async |client: usize| {
        for round in 0..10 {
            increment(&cluster.client, &entries[(client + round) % 2]).await;
        }
    }))
    .await;
    assert_eq!(cluster.client.get(&entries[0]).await.text(), "640");
}
