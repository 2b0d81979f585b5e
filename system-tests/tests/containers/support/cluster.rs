//! A master, its nodes and, where it is asked for, an object store.

use std::fs;

use bytes::Bytes;
use cairn_api_spec::{
    Bucket, EntryName,
    cluster::{NodeState, NodeStats, Partition, Ring, Stats},
};
use cairn_client::Cache;
use futures_util::{StreamExt, future::join_all, stream};
use testcontainers::{ContainerRequest, GenericImage, ImageExt};

use super::{Client, Entry, Reply, SDK_TIMEOUT, container::Container, eventually, garage::Garage, report_directory};

const MASTER_PORT: u16 = 8080;
const NODE_PORT: u16 = 8081;
/// How many requests a test keeps in flight when it only wants to be done.
const CONCURRENCY: usize = 16;

/// Fewer than by default are enough for a few hundred keys, and there sooner.
const PARTITIONS: (&str, &str) = ("PARTITIONS", "64");

/// What a cluster is started with, beside what every cluster here has.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) nodes: usize,
    pub(crate) object_store: bool,
    pub(crate) master: &'static [(&'static str, &'static str)],
    pub(crate) node: &'static [(&'static str, &'static str)],
}

impl Default for Setup {
    fn default() -> Self {
        Self { nodes: 3, object_store: false, master: &[], node: &[] }
    }
}

/// Containers in a network of their own; all of it gone when it is dropped.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// Where the master's port is published.
    pub(crate) url: String,
    pub(crate) master: Container,
    pub(crate) nodes: Vec<Container>,
    garage: Option<Garage>,
    network: String,
    setup: Setup,
}

impl Cluster {
    /// Starts everything and waits until every partition is served.
    pub(crate) async fn start(setup: Setup) -> Self {
        let network = format!("cairn-test-{:08x}", rand::random::<u32>());
        let garage = match setup.object_store {
            true => Some(Garage::start(&format!("{network}-garage"), &network).await),
            false => None,
        };
        let name = format!("{network}-master");
        let request = [PARTITIONS].iter().chain(setup.master).fold(image("cairn-master"), with_setting);
        let master = Container::start(&name, &network, MASTER_PORT, request).await;
        let url = master.url().await;
        let mut cluster = Self { client: Client::new(), url, master, nodes: Vec::new(), garage, network, setup };
        // At once: partitions need not move from those that were there first.
        cluster.nodes = join_all((0..setup.nodes).map(|index| cluster.start_node(index))).await;
        cluster.settled().await;
        cluster
    }

    /// Starts a container for the node with this place in [`Self::nodes`], with an empty volume.
    async fn start_node(&self, index: usize) -> Container {
        let mut request = image("cairn-node")
            .with_env_var("NODE_ID", self.node_id(index))
            .with_env_var("ROUTER_ADDR", format!("http://{}:{MASTER_PORT}", self.master.name));
        for (name, value) in self.garage.iter().flat_map(Garage::environment) {
            request = request.with_env_var(name, value);
        }
        let request = self.setup.node.iter().fold(request, with_setting);
        let name = format!("{}-node-{}", self.network, index + 1);
        Container::start(&name, &self.network, NODE_PORT, request).await
    }

    /// Replaces a node by one of the same name with an empty volume.
    pub(crate) async fn replace_node(&mut self, index: usize) {
        self.nodes.remove(index).remove().await;
        let node = self.start_node(index).await;
        self.nodes.insert(index, node);
    }

    pub(crate) fn node_id(&self, index: usize) -> String {
        format!("node-{}", index + 1)
    }

    pub(crate) fn garage(&self) -> &Garage {
        self.garage.as_ref().unwrap()
    }

    /// The master, for clients that repeat nothing.
    pub(crate) fn by_master(&self) -> Entry {
        Entry::Master(self.client.clone(), self.url.clone())
    }

    /// The SDK, which repeats what is safe to repeat.
    pub(crate) async fn by_sdk(&self) -> Entry {
        Entry::Sdk(Cache::builder().url(&self.url).timeout(SDK_TIMEOUT).connect().await.unwrap())
    }

    /// Waits until all nodes are active, every partition has as many copies in sync as there are to be, and is served, and
    /// nothing moves or waits.
    pub(crate) async fn settled(&self) {
        eventually("the cluster is settled", async || {
            let ring: Ring = self.client.try_json(&format!("{}/ring", self.url)).await?;
            let copies = (ring.replication.factor as usize).min(self.nodes.len());
            let is_settled = |partition: &&Partition| {
                partition.in_sync.len() == copies && partition.learners.is_empty() && partition.successor.is_none()
            };
            if let Some(other) = ring.partitions.iter().find(|partition| !is_settled(partition)) {
                return Err(format!("{copies} copies are wanted: {other:?}"));
            }
            let stats: Stats = self.client.try_json(&format!("{}/stats", self.url)).await?;
            if let Some(idle) = stats.nodes.iter().find(|node| node.state != NodeState::Active) {
                return Err(format!("{} is {:?}", idle.node_id, idle.state));
            }
            let (mut serving, mut waiting) = (0, 0);
            for stats in self.node_stats().await? {
                serving += stats.partitions_serving as usize;
                waiting += stats.replication_pending;
            }
            match (serving, waiting) {
                (all, 0) if all == ring.partitions.len() => Ok(()),
                _ => Err(format!("{serving} partitions are served, {waiting} writes wait")),
            }
        })
        .await;
    }

    /// What the nodes say of themselves.
    pub(crate) async fn node_stats(&self) -> Result<Vec<NodeStats>, String> {
        let ask = async |node: &Container| self.client.try_json(&format!("{}/stats", node.url().await)).await;
        join_all(self.nodes.iter().map(ask)).await.into_iter().collect()
    }

    /// Waits until a sum over the nodes is as it should be.
    pub(crate) async fn counted(&self, what: &str, count: impl Fn(&NodeStats) -> u64, is_right: impl Fn(u64) -> bool) {
        eventually(what, async || {
            // What a node says is a little old; what it does not count yet would be missed by one look.
            for _ in 0..3 {
                let sum = self.node_stats().await?.iter().map(&count).sum();
                if !is_right(sum) {
                    return Err(sum.to_string());
                }
                tokio::time::sleep(super::PAUSE).await;
            }
            Ok(())
        })
        .await;
    }

    /// Waits until the object store has every change.
    pub(crate) async fn uploaded(&self) {
        self.counted("nothing waits for its upload", |stats| stats.uploads_pending, |pending| pending == 0).await;
    }

    /// The keys of `count` whose primary is this node, and as many others.
    pub(crate) async fn keys_of(&self, index: usize, count: usize) -> (Vec<String>, Vec<String>) {
        let ring: Ring = self.client.json(&format!("{}/ring", self.url)).await;
        let node_id = self.node_id(index);
        let is_led = |key: &String| {
            let name = EntryName::new(&Bucket::default(), key).unwrap();
            let partition = &ring.partitions[name.partition(ring.partition_count) as usize];
            partition.primary.as_ref() == Some(&node_id)
        };
        let (mut led, mut others): (Vec<_>, Vec<_>) = (0..count * 20).map(|key| format!("key {key}")).partition(is_led);
        led.truncate(count);
        others.truncate(count);
        (led, others)
    }

    /// Stores values through the master, many at a time; all must be stored.
    pub(crate) async fn import(&self, entries: &[(String, String)], query: &str) {
        let put = async |(key, value): &(String, String)| {
            let reply = self.client.put_key(&self.url, key, query, Bytes::copy_from_slice(value.as_bytes())).await;
            assert!(reply.is_stored(), "{key}: {reply:?}");
        };
        stream::iter(entries).map(put).buffer_unordered(CONCURRENCY).collect::<Vec<_>>().await;
    }

    /// Reads all entries through the master and fails unless each is what was stored.
    pub(crate) async fn read_back(&self, entries: &[(String, String)]) {
        let get = async |(key, value): &(String, String)| {
            let reply: Reply = self.client.get_key(&self.url, key).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, value.as_str()), "{key}");
        };
        stream::iter(entries).map(get).buffer_unordered(CONCURRENCY).collect::<Vec<_>>().await;
    }

    /// Keeps what the containers logged.
    async fn keep_logs(&self) {
        let directory = report_directory().join(&self.network);
        fs::create_dir_all(&directory).unwrap();
        let garage = self.garage.iter().map(Garage::container);
        for container in self.nodes.iter().chain([&self.master]).chain(garage) {
            fs::write(directory.join(format!("{}.log", container.name)), container.log().await).unwrap();
        }
        eprintln!("the containers' logs are in {}", directory.display());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(self.keep_logs()));
        }
    }
}

/// One of our images, as `make images` names it. It runs as in production: nothing is written but the volume.
fn image(name: &str) -> ContainerRequest<GenericImage> {
    let tag = std::env::var("IMAGE_TAG").unwrap_or_else(|_| "dev".to_owned());
    GenericImage::new(name, &tag).with_readonly_rootfs(true)
}

fn with_setting(
    request: ContainerRequest<GenericImage>,
    (name, value): &(&str, &str),
) -> ContainerRequest<GenericImage> {
    request.with_env_var(*name, *value)
}
