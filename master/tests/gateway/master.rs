//! A master on a free port whose map is made by hand.

use std::{net::TcpListener, time::Duration};

use cairn_api_spec::{
    cluster::{ChangePartition, PartitionChange, Ring},
    error::Problem,
};
use cairn_master::{Config, Listeners, RunError, run};
use clap::{CommandFactory as _, FromArgMatches as _};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::node::FakeNode;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Master {
    url: String,
    client: Client,
    _task: JoinHandle<Result<(), RunError>>,
    _stop: DropGuard,
    _directory: TempDir,
}

impl Master {
    /// One partition, and nodes that need not beat.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let data_dir = format!("--data-dir={}", directory.path().display());
        let fixed = ["cairn-master", &data_dir, "--workers=1", "--partitions=1", "--settle=50ms"];
        let silence = ["--suspect-after=60s", "--gone-after=90s", "--replace-after=2m"];
        let arguments = fixed.iter().chain(&silence).chain(settings);
        let command = Config::command().args_override_self(true);
        let config = Config::from_arg_matches(&command.get_matches_from(arguments)).unwrap();
        let http = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", http.local_addr().unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(config, Listeners { http, metrics: None }, stop.clone()));
        let client = Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { url, client, _task: task, _stop: stop.drop_guard(), _directory: directory }
    }

    /// With these nodes in sync, of which the first is the primary.
    pub(crate) async fn with(nodes: &[&FakeNode], settings: &[&str]) -> Self {
        let factor = format!("--replication-factor={}", nodes.len());
        let master = Self::start(&[&[factor.as_str()], settings].concat()).await;
        for (already, node) in nodes.iter().enumerate() {
            master.join(node).await;
            if already == 0 {
                master.ring_when(|ring| ring.partitions[0].primary.is_some()).await;
            } else {
                master.catch_up(node.id).await;
            }
        }
        master.make_primary(nodes[0].id).await;
        master
    }

    pub(crate) async fn join(&self, node: &FakeNode) {
        let sent = self.client.post(format!("{}/nodes", self.url)).json(&node.registration()).send().await.unwrap();
        assert!(sent.status().is_success(), "{}", sent.text().await.unwrap());
    }

    async fn catch_up(&self, id: &str) {
        let ring = self.ring_when(|ring| ring.partitions[0].learners.iter().any(|learner| learner == id)).await;
        self.change(&ring, PartitionChange::CaughtUp, id).await;
        self.ring_when(|ring| ring.partitions[0].in_sync.iter().any(|holder| holder == id)).await;
    }

    /// Follows what the controller wants until nothing is to be handed over any more.
    async fn make_primary(&self, id: &str) {
        let ring = self.ring().await;
        if ring.partitions[0].primary.as_deref() != Some(id) || ring.partitions[0].successor.is_some() {
            self.change(&ring, PartitionChange::HandOver, id).await;
            self.ring_when(|ring| ring.partitions[0].primary.as_deref() == Some(id)).await;
        }
    }

    /// Asks for a change as the primary would.
    pub(crate) async fn change(&self, ring: &Ring, change: PartitionChange, subject: &str) {
        let entry = &ring.partitions[0];
        let node_id = entry.primary.clone().unwrap();
        let session = entry.sessions[&node_id];
        let asked = ChangePartition { node_id, session, epoch: entry.epoch, change, subject: subject.to_owned() };
        let url = format!("{}/partitions/0/changes", self.url);
        let reply = self.client.post(url).json(&asked).send().await.unwrap();
        assert!(reply.status().is_success(), "{}", reply.text().await.unwrap());
    }

    pub(crate) async fn ring(&self) -> Ring {
        self.client.get(format!("{}/ring", self.url)).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn ring_when(&self, is_so: impl Fn(&Ring) -> bool) -> Ring {
        let reach = async {
            loop {
                let ring = self.ring().await;
                if ring.partitions.len() == 1 && is_so(&ring) {
                    return ring;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reach).await.expect("the map did not become what it should be")
    }

    /// Sends a request for the key at once, also when nobody waits for its answer.
    pub(crate) fn get(&self, query: &str) -> Sent {
        Sent::new(self.client.get(format!("{}/keys/k{query}", self.url)))
    }

    pub(crate) fn put(&self, value: impl Into<reqwest::Body>) -> Sent {
        Sent::new(self.client.put(format!("{}/keys/k", self.url)).body(value))
    }

    /// A put that may be sent again.
    pub(crate) fn put_once(&self, value: impl Into<reqwest::Body>) -> Sent {
        let put = self.client.put(format!("{}/keys/k", self.url)).header("Idempotency-Key", "once");
        Sent::new(put.body(value))
    }

    /// The operations of a batch, as they stand in its body; with an idempotency key, it may be sent again.
    pub(crate) fn batch(&self, operations: &Value, key: Option<&str>) -> Sent {
        let post = self.client.post(format!("{}/batch", self.url)).json(&json!({"operations": operations}));
        Sent::new(key.into_iter().fold(post, |post, key| post.header("Idempotency-Key", key)))
    }

    /// What the master says of where the key is.
    pub(crate) fn explain(&self) -> Sent {
        Sent::new(self.client.get(format!("{}/explain/k", self.url)))
    }

    pub(crate) fn list(&self) -> Sent {
        Sent::new(self.client.get(format!("{}/keys", self.url)))
    }
}

pub(crate) struct Sent(JoinHandle<reqwest::Result<Response>>);

impl Sent {
    fn new(request: RequestBuilder) -> Self {
        Self(tokio::spawn(request.send()))
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.0.is_finished()
    }

    pub(crate) async fn reply(self) -> Response {
        self.0.await.unwrap().unwrap()
    }

    pub(crate) async fn status(self) -> StatusCode {
        self.reply().await.status()
    }

    pub(crate) async fn text(self) -> String {
        self.reply().await.text().await.unwrap()
    }

    /// Status and code of an error.
    pub(crate) async fn error(self) -> (u16, String) {
        code(self.reply().await).await
    }
}

pub(crate) async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let problem: Problem = response.json().await.unwrap();
    (status, problem.code.as_str().to_owned())
}
