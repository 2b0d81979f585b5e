//! A master on a free port, and nodes that only talk to it.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use cairn_api_spec::{
    cluster::{ChangePartition, Heartbeat, Node, NodeState, Partition, PartitionChange, RegisterNode, Ring},
    error::Problem,
};
use cairn_master::{Config, Listeners, RunError, run};
use clap::{CommandFactory as _, FromArgMatches as _};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Serialize;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Master {
    pub(crate) url: String,
    client: Client,
    directory: Arc<TempDir>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

pub(crate) async fn spawn_master(settings: &[&str]) -> Master {
    spawn_in(Arc::new(TempDir::new().unwrap()), settings).await
}

pub(crate) fn config(directory: &Path, settings: &[&str]) -> Config {
    let data_dir = format!("--data-dir={}", directory.display());
    // Nodes that say nothing stay alive for as long as a test takes, unless it wants it otherwise.
    let silence = ["--suspect-after=60s", "--gone-after=90s", "--replace-after=2m"];
    let fixed = ["cairn-master", data_dir.as_str(), "--workers=1", "--heartbeat-interval=50ms", "--settle=200ms"];
    let fixed = fixed.iter().chain(&silence);
    let command = Config::command().args_override_self(true);
    Config::from_arg_matches(&command.get_matches_from(fixed.chain(settings))).unwrap()
}

pub(crate) fn listeners() -> (Listeners, SocketAddr) {
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = http.local_addr().unwrap();
    (Listeners { http, metrics: None }, address)
}

pub(crate) async fn spawn_in(directory: Arc<TempDir>, settings: &[&str]) -> Master {
    let (listeners, address) = listeners();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(run(config(directory.path(), settings), listeners, shutdown.clone()));
    let client =
        Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE).build().unwrap();
    let master = Master { url: format!("http://{address}"), client, directory, shutdown, task };
    assert_eq!(master.get("/health/live").await.status(), StatusCode::OK);
    master
}

impl Master {
    pub(crate) async fn stop(self) -> Arc<TempDir> {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
        self.directory
    }

    pub(crate) async fn restart(self, settings: &[&str]) -> Master {
        spawn_in(self.stop().await, settings).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: &impl Serialize) -> Response {
        self.client.request(method, format!("{}{path}", self.url)).json(body).send().await.unwrap()
    }

    pub(crate) async fn register(&self, node: &RegisterNode) -> Response {
        self.send(Method::POST, "/nodes", node).await
    }

    /// Registers nodes of these names together.
    pub(crate) async fn register_all(&self, ids: &[&str]) {
        for id in ids {
            assert_eq!(self.register(&node(id)).await.status(), StatusCode::CREATED);
        }
    }

    pub(crate) async fn beat(&self, id: &str, heartbeat: &Heartbeat) -> Response {
        self.send(Method::PUT, &format!("/nodes/{id}/heartbeat"), heartbeat).await
    }

    /// The node stops, and is started again with an empty directory.
    pub(crate) async fn lose_data(&self, id: &str) {
        let leaving = Heartbeat { leaving: true, ..heartbeat() };
        assert_eq!(self.beat(id, &leaving).await.status(), StatusCode::OK);
        let empty = RegisterNode { incarnation: 2, ..node(id) };
        assert_eq!(self.register(&empty).await.status(), StatusCode::OK);
    }

    pub(crate) async fn remove(&self, id: &str, query: &str) -> StatusCode {
        self.client.delete(format!("{}/nodes/{id}{query}", self.url)).send().await.unwrap().status()
    }

    pub(crate) async fn ring(&self) -> Ring {
        self.get("/ring").await.json().await.unwrap()
    }

    pub(crate) async fn ring_after(&self, epoch: u64, wait: u64) -> Response {
        let url = format!("{}/ring?wait={wait}", self.url);
        self.client.get(url).header("If-None-Match", format!("\"{epoch}\"")).send().await.unwrap()
    }

    /// The first map that is as it should be.
    pub(crate) async fn ring_when(&self, condition: impl Fn(&Ring) -> bool) -> Ring {
        let reach = async {
            let mut ring = self.ring().await;
            while !condition(&ring) {
                let next = self.ring_after(ring.epoch, 10).await;
                if next.status() == StatusCode::OK {
                    ring = next.json().await.unwrap();
                }
            }
            ring
        };
        tokio::time::timeout(PATIENCE, reach).await.expect("the map did not become what it should be")
    }

    pub(crate) async fn assigned_ring(&self) -> Ring {
        self.ring_when(|ring| ring.partitions.iter().all(|p| p.primary.is_some())).await
    }

    pub(crate) async fn node(&self, id: &str) -> Node {
        self.get(&format!("/nodes/{id}")).await.json().await.unwrap()
    }

    pub(crate) async fn node_when(&self, id: &str, state: NodeState) -> Node {
        let reach = async {
            loop {
                let node = self.node(id).await;
                if node.state == state {
                    return node;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reach).await.unwrap_or_else(|_| panic!("{id} did not become {state:?}"))
    }

    /// Asks for a change as the primary of the entry would.
    pub(crate) async fn ask(&self, entry: &Partition, change: PartitionChange, subject: &str) -> Response {
        self.ask_for(entry.id, &asked(entry, change, subject)).await
    }

    pub(crate) async fn ask_for(&self, id: u32, asked: &ChangePartition) -> Response {
        self.send(Method::POST, &format!("/partitions/{id}/changes"), asked).await
    }

    /// Plays the primaries until nothing is moving any more and `condition` holds. Returns the most partitions that
    /// were seen moving at once.
    pub(crate) async fn play(&self, condition: impl Fn(&Ring) -> bool) -> usize {
        let mut most = 0;
        loop {
            let ring = self.ring_when(|ring| condition(ring) || ring.partitions.iter().any(is_moving)).await;
            let moving: Vec<&Partition> = ring.partitions.iter().filter(|p| is_moving(p)).collect();
            most = most.max(moving.iter().filter(|p| !p.learners.is_empty()).count());
            if moving.is_empty() {
                return most;
            }
            // Where the entry has changed meanwhile this is refused, and the next look at the map shows it.
            futures_util::future::join_all(moving.into_iter().map(|entry| async move {
                match (entry.learners.first(), &entry.successor) {
                    (Some(learner), _) => self.ask(entry, PartitionChange::CaughtUp, learner).await,
                    (None, successor) => {
                        self.ask(entry, PartitionChange::HandOver, successor.as_deref().unwrap()).await
                    }
                }
            }))
            .await;
        }
    }

    /// Plays the primaries that do without a node: as soon as none of them is that node itself, each takes it out.
    pub(crate) async fn take_out(&self, id: &str) -> Ring {
        let ring = self.ring_when(|ring| !primaries(ring).contains_key(id)).await;
        let with = entries_with(&ring, id);
        futures_util::future::join_all(with.iter().map(|entry| self.ask(entry, PartitionChange::Remove, id))).await;
        self.ring_when(|ring| ring.partitions.iter().all(|p| p.in_sync.iter().all(|other| other != id))).await
    }

    /// The map once nothing moves and every partition has so many in-sync copies.
    pub(crate) async fn replicated(&self, copies: usize) -> Ring {
        self.play(|ring| has_copies(ring, copies)).await;
        self.ring().await
    }

    /// Beats for a node until the guard is dropped.
    pub(crate) fn keep_beating(&self, id: &str) -> Beating {
        self.keep_beating_with(id, heartbeat())
    }

    pub(crate) fn keep_beating_with(&self, id: &str, heartbeat: Heartbeat) -> Beating {
        let (client, url) = (self.client.clone(), format!("{}/nodes/{id}/heartbeat", self.url));
        Beating(tokio::spawn(async move {
            loop {
                let _ = client.put(&url).json(&heartbeat).send().await;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }))
    }
}

pub(crate) struct Beating(JoinHandle<()>);

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn node(id: &str) -> RegisterNode {
    RegisterNode {
        node_id: id.to_owned(),
        incarnation: 1,
        session: 1,
        address: format!("http://{id}.test:8081"),
        peer_address: format!("{id}.test:9081"),
        weight: 1.0,
        zone: None,
    }
}

/// The node once it has been started again on its data.
pub(crate) fn restarted(id: &str) -> RegisterNode {
    RegisterNode { session: 2, ..node(id) }
}

pub(crate) fn heartbeat() -> Heartbeat {
    // Not below any session that a test registers.
    Heartbeat { incarnation: 1, session: 9, ..Heartbeat::default() }
}

pub(crate) fn asked(entry: &Partition, change: PartitionChange, subject: &str) -> ChangePartition {
    let node_id = entry.primary.clone().unwrap();
    let session = entry.sessions[&node_id];
    ChangePartition { node_id, session, epoch: entry.epoch, change, subject: subject.to_owned() }
}

pub(crate) fn is_moving(partition: &Partition) -> bool {
    !partition.learners.is_empty() || partition.successor.is_some()
}

/// Whether every partition has so many in-sync copies.
pub(crate) fn has_copies(ring: &Ring, copies: usize) -> bool {
    ring.partitions.iter().all(|entry| entry.in_sync.len() == copies)
}

/// The partitions whose entry names the node.
pub(crate) fn entries_with<'a>(ring: &'a Ring, id: &str) -> Vec<&'a Partition> {
    ring.partitions.iter().filter(|entry| entry.sessions.contains_key(id)).collect()
}

pub(crate) fn primaries(ring: &Ring) -> HashMap<&str, usize> {
    let mut count = HashMap::new();
    for primary in ring.partitions.iter().filter_map(|p| p.primary.as_deref()) {
        *count.entry(primary).or_default() += 1;
    }
    count
}

pub(crate) async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status);
    (status, problem.code.as_str().to_owned())
}
