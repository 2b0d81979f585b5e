//! Many keys, while nodes join and leave.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::DEFAULTS;
use crate::support::{Client, Cluster, PATIENCE, Scenario, Setup, Through, Writes, eventually, pipeline};

const KEYS: usize = 100_000;
const READERS: usize = 12;
const PACE: Duration = Duration::from_millis(20);

/// When a read was sent, how long it took, and what was wrong with it.
type Read = (Instant, Duration, Option<String>);

/// Clients that read keys which are there.
struct Readers {
    stop: Arc<AtomicBool>,
    reads: Arc<Mutex<Vec<Read>>>,
    tasks: JoinSet<()>,
}

impl Readers {
    fn start(url: &str) -> Self {
        let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<Read>>>::default());
        let mut tasks = JoinSet::new();
        let client = Client::new();
        for _ in 0..READERS {
            let (stop, reads, client, url) = (stop.clone(), Arc::clone(&reads), client.clone(), url.to_owned());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (key, sent) = (rand::random_range(0..KEYS), Instant::now());
                    let reply = client.get_key(&url, &name(key)).await;
                    let is_right = reply.status == 200 && reply.text() == value(key);
                    let wrong = (!is_right).then(|| format!("{key}: {reply:?}"));
                    reads.lock().unwrap().push((sent, sent.elapsed(), wrong));
                    tokio::time::sleep(PACE).await;
                }
            });
        }
        Self { stop, reads, tasks }
    }

    async fn finish(mut self) -> Vec<Read> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut self.reads.lock().unwrap())
    }
}

fn name(key: usize) -> String {
    format!("many-{key}")
}

fn value(key: usize) -> String {
    format!("the value of key {key}, {:060}", key * 7)
}

/// Does the same with every key at its owner.
async fn at_owners(
    cluster: &Cluster,
    request: impl Fn(usize) -> (&'static str, String, String),
) -> Vec<(usize, u16, String)> {
    let names: Vec<String> = (0..KEYS).map(name).collect();
    let owners = cluster.owners(names.iter().map(String::as_str)).await;
    let at_node = async |node: usize| {
        let keys: Vec<usize> = (0..KEYS).filter(|key| owners[*key] == node).collect();
        let requests: Vec<_> = keys.iter().map(|key| request(*key)).collect();
        let replies = pipeline(cluster.node_url(node), &requests).await;
        keys.into_iter().zip(replies).map(|(key, (status, body))| (key, status, body)).collect::<Vec<_>>()
    };
    let nodes = (0..cluster.nodes.len()).filter(|node| owners.contains(node));
    join_all(nodes.map(at_node)).await.concat()
}

async fn fill(cluster: &Cluster) {
    let put = |key| ("PUT", format!("/keys/{}?durability=memory", name(key)), value(key));
    for (key, status, body) in at_owners(cluster, put).await {
        assert_eq!(status, 201, "{key}: {body}");
    }
}

fn p99(reads: &[Read], is_in: impl Fn(Instant) -> bool) -> f64 {
    let mut times: Vec<Duration> = reads.iter().filter(|(sent, ..)| is_in(*sent)).map(|(_, took, _)| *took).collect();
    times.sort_unstable();
    times.get(times.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_100_000_keys_none_is_missing_for_a_moment_while_one_node_joins_and_another_leaves() {
    let cluster = Cluster::start(Setup { master: DEFAULTS, ..Setup::default() }).await;
    fill(&cluster).await;
    let through = Through::MasterAndOwners;
    let mut run =
        Scenario::start_through("100000 keys, join and leave", cluster, through, Writes::default(), |_| true).await;
    let readers = Readers::start(run.cluster.url());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let began = Instant::now();
    run.began();
    run.cluster.add_node().await;
    run.cluster.settled().await;
    let joined = began.elapsed();
    let removed = run.cluster.client.delete(&format!("{}/nodes/node-2", run.cluster.url())).await;
    assert_eq!(removed.status, 202, "{removed:?}");
    eventually("the node has left", PATIENCE * 3, async || match run.cluster.node("node-2").await {
        Ok(node) => Err(format!("it leads {} partitions", node.partitions)),
        Err(_) => Ok(()),
    })
    .await;
    run.cluster.nodes[1].ended().await;
    let ended = Instant::now();
    run.healed().await;
    let reads = readers.finish().await;
    let wrong: Vec<&String> = reads.iter().filter_map(|(.., wrong)| wrong.as_ref()).collect();
    eprintln!(
        "{} reads, {} wrong; joined in {joined:?}, joined and left in {:?}; p99 {:.1} ms before, {:.1} ms during",
        reads.len(),
        wrong.len(),
        ended - began,
        p99(&reads, |sent| sent < began),
        p99(&reads, |sent| (began..ended).contains(&sent)),
    );
    assert!(wrong.is_empty(), "{} of {}: {:?}", wrong.len(), reads.len(), &wrong[..wrong.len().min(5)]);
    run.load.stop().await;
    let replies = at_owners(&run.cluster, |key| ("GET", format!("/keys/{}", name(key)), String::new())).await;
    let is_wrong = |reply: &&(usize, u16, String)| reply.1 != 200 || reply.2 != value(reply.0);
    let missing: Vec<_> = replies.iter().filter(is_wrong).collect();
    assert!(missing.is_empty(), "{} are missing: {:?}", missing.len(), &missing[..missing.len().min(5)]);
    run.finish().await;
}
