//! A master and its nodes.

use std::{fs, net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use cairn_api_spec::{
    Bucket, EntryName,
    cluster::{Health, Node, NodeState, NodeStats, Partition, Ring, Stats},
};
use futures_util::{StreamExt, stream};
use tempfile::TempDir;

use super::{CONCURRENCY, Client, Network, ObjectStore, PATIENCE, Reply, Server, SmallDisk, eventually, planted_node};

/// What a cluster is started with, beside what every cluster here has.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) nodes: usize,
    pub(crate) object_store: bool,
    /// Every server gets a network namespace of its own, so that the network between them can be cut; needs root.
    pub(crate) network: bool,
    /// The nodes have the bug that the judge must find.
    pub(crate) planted_bug: bool,
    pub(crate) master: &'static [(&'static str, &'static str)],
    pub(crate) node: &'static [(&'static str, &'static str)],
}

impl Default for Setup {
    fn default() -> Self {
        Self { nodes: 3, object_store: false, network: false, planted_bug: false, master: &[], node: &[] }
    }
}

/// Processes, their data, and the object store; all gone when it is dropped.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) master: Server,
    pub(crate) nodes: Vec<Server>,
    /// Where each server is, from its log.
    master_url: String,
    node_urls: Vec<String>,
    setup: Setup,
    host: Ipv4Addr,
    network: Option<Network>,
    store: Option<ObjectStore>,
    disks: Vec<SmallDisk>,
    directory: TempDir,
}

impl Cluster {
    /// Starts everything and waits until every partition is served.
    pub(crate) async fn start(setup: Setup) -> Self {
        let directory = TempDir::new().unwrap();
        let mut network = setup.network.then(Network::new);
        let place = network.as_mut().map(|network| network.add("master"));
        let host = place.as_ref().map_or_else(host, |place| place.address);
        let store = match setup.object_store {
            true => Some(ObjectStore::start().await),
            false => None,
        };
        let environment = [
            ("LISTEN_ADDR", format!("{host}:0")),
            ("DATA_DIR", "data".to_owned()),
            ("HEARTBEAT_INTERVAL", "250ms".to_owned()),
        ];
        let mut master = Server::new("master", "cairn-master", &directory.path().join("master"), &environment);
        setup.master.iter().for_each(|(name, value)| master.set(name, value));
        place.iter().for_each(|place| master.set_namespace(&place.namespace));
        let address = master.start().await;
        // From now on it is a server at a known address, as those of operators are.
        master.set("LISTEN_ADDR", &address);
        let mut cluster = Self {
            client: Client::new(),
            master,
            nodes: Vec::new(),
            master_url: format!("http://{address}"),
            node_urls: Vec::new(),
            setup,
            host,
            network,
            store,
            disks: Vec::new(),
            directory,
        };
        for _ in 0..setup.nodes {
            let mut node = cluster.new_node(&format!("node-{}", cluster.nodes.len() + 1));
            node.spawn();
            cluster.nodes.push(node);
        }
        for index in 0..setup.nodes {
            cluster.settle_node(index).await;
        }
        cluster.ready().await;
        cluster
    }

    pub(crate) fn url(&self) -> &str {
        &self.master_url
    }

    pub(crate) fn node_url(&self, index: usize) -> &str {
        &self.node_urls[index]
    }

    pub(crate) fn network(&self) -> &Network {
        self.network.as_ref().unwrap()
    }

    pub(crate) fn store(&self) -> &ObjectStore {
        self.store.as_ref().unwrap()
    }

    /// A node of this cluster that is not started.
    pub(crate) fn new_node(&mut self, node_id: &str) -> Server {
        let place = self.network.as_mut().map(|network| network.add(node_id));
        let host = place.as_ref().map_or(self.host, |place| place.address);
        let mut environment = vec![
            ("LISTEN_ADDR", format!("{host}:0")),
            ("DATA_DIR", "data".to_owned()),
            ("HEARTBEAT_INTERVAL", "250ms".to_owned()),
            ("ROUTER_ADDR", self.master_url.clone()),
            ("NODE_ID", node_id.to_owned()),
            // Tests wait for uploads.
            ("UPLOAD_LINGER", "250ms".to_owned()),
        ];
        environment.extend(self.store.iter().flat_map(|store| store.environment(node_id)));
        let directory = tempfile::Builder::new().prefix(node_id).tempdir_in(self.directory.path()).unwrap().keep();
        let mut node = Server::new(node_id, "cairn-node", &directory, &environment);
        self.setup.node.iter().for_each(|(name, value)| node.set(name, value));
        place.iter().for_each(|place| node.set_namespace(&place.namespace));
        if self.setup.planted_bug {
            node.set_binary(planted_node());
        }
        node
    }

    /// Starts one more node. Partitions are still on their way to it.
    pub(crate) async fn add_node(&mut self) -> usize {
        let index = self.nodes.len();
        let mut node = self.new_node(&format!("node-{}", index + 1));
        node.spawn();
        self.nodes.push(node);
        self.settle_node(index).await;
        index
    }

    /// Starts one more node, whose wall clock is off by `offset`; returns before the cluster knows it. `None`, said on
    /// stderr, where clocks cannot be set.
    pub(crate) async fn add_node_with_clock(&mut self, offset: &str) -> Option<usize> {
        let index = self.nodes.len();
        let mut node = self.new_node(&format!("node-{}", index + 1));
        if !node.set_clock(offset) {
            return None;
        }
        let address = node.start().await;
        self.node_urls.push(format!("http://{address}"));
        self.nodes.push(node);
        Some(index)
    }

    /// Learns the addresses that a new node took, and makes them its own.
    async fn settle_node(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let address = node.address().await;
        node.set("LISTEN_ADDR", &address);
        self.node_urls.push(format!("http://{address}"));
        let node_id = self.nodes[index].name.clone();
        let registered = eventually("the node registers", PATIENCE, async || self.node(&node_id).await).await;
        self.nodes[index].set("PEER_LISTEN_ADDR", &registered.peer_address);
    }

    /// A node as the master knows it.
    pub(crate) async fn node(&self, node_id: &str) -> Result<Node, String> {
        self.client.try_json(&format!("{}/nodes/{node_id}", self.master_url)).await
    }

    /// Waits until every running node is active, and every partition is served and stays where it is.
    pub(crate) async fn ready(&self) {
        eventually("the cluster is ready", PATIENCE * 2, async || {
            let stats: Stats = self.client.try_json(&format!("{}/stats", self.master_url)).await?;
            let ready: Health = self.client.try_json(&format!("{}/health/ready", self.master_url)).await?;
            let running = |id: &str| self.nodes.iter().any(|node| node.name == id && node.is_running());
            let idle = stats.nodes.iter().find(|node| running(&node.node_id) && node.state != NodeState::Active);
            if let Some(node) = idle {
                return Err(format!("{} is {:?}", node.node_id, node.state));
            }
            if stats.partitions_offline + stats.partitions_moving > 0 {
                let (offline, moving) = (stats.partitions_offline, stats.partitions_moving);
                return Err(format!("{offline} offline, {moving} moving, {ready:?}"));
            }
            let mut serving = 0;
            for index in (0..self.nodes.len()).filter(|index| self.nodes[*index].is_running()) {
                serving += self.node_stats(index).await?.partitions_serving as usize;
            }
            let wanted = self.ring().await.partitions.len();
            if serving == wanted { Ok(()) } else { Err(format!("{serving} of {wanted} partitions are served")) }
        })
        .await;
    }

    /// Waits until every partition has as many in-sync copies as there are to be, nothing moves, and nothing waits.
    pub(crate) async fn settled(&self) {
        self.whole(|stats| stats.replication_pending == 0).await;
    }

    /// The same under a load, of which there is always something under way: nothing waits for long.
    pub(crate) async fn settled_under_load(&self) {
        self.whole(|stats| stats.replication_lag_ms < 1_000).await;
    }

    async fn whole(&self, is_quiet: impl Fn(&NodeStats) -> bool) {
        self.ready().await;
        let running = self.nodes.iter().filter(|node| node.is_running()).count();
        eventually("every copy is in sync", PATIENCE * 3, async || {
            let ring = self.ring().await;
            let copies = (ring.replication.factor as usize).min(running);
            let is_settled = |partition: &&Partition| {
                partition.in_sync.len() == copies && partition.learners.is_empty() && partition.successor.is_none()
            };
            if let Some(other) = ring.partitions.iter().find(|partition| !is_settled(partition)) {
                return Err(format!("{copies} copies are wanted: {other:?}"));
            }
            match self.all_stats().await.iter().find(|stats| !is_quiet(stats)) {
                None => Ok(()),
                Some(NodeStats { replication_pending, replication_lag_ms, .. }) => {
                    Err(format!("{replication_pending} writes wait, one of them for {replication_lag_ms} ms"))
                }
            }
        })
        .await;
        self.ready().await;
    }

    pub(crate) async fn ring(&self) -> Ring {
        self.client.json(&format!("{}/ring", self.master_url)).await
    }

    pub(crate) async fn node_stats(&self, index: usize) -> Result<NodeStats, String> {
        self.client.try_json(&format!("{}/stats", self.node_urls[index])).await
    }

    /// The statistics of all running nodes, straight from them.
    pub(crate) async fn all_stats(&self) -> Vec<NodeStats> {
        let indices = (0..self.nodes.len()).filter(|index| self.nodes[*index].is_running());
        stream::iter(indices).then(async |index| self.node_stats(index).await.unwrap()).collect().await
    }

    /// Waits until no disk holds a value.
    pub(crate) async fn offloaded(&self) {
        eventually("values leave the disks", PATIENCE, async || {
            let on_disk: u64 = self.all_stats().await.iter().map(|stats| stats.entries_by_tier.disk).sum();
            if on_disk == 0 { Ok(()) } else { Err(format!("{on_disk} values are on the disks")) }
        })
        .await;
    }

    /// Waits until the object store has every change.
    pub(crate) async fn uploaded(&self) {
        eventually("all changes are uploaded", PATIENCE * 2, async || {
            // What a node says is a little old; a change that it does not count yet would be missed by one look.
            for _ in 0..2 {
                let pending: u64 = self.all_stats().await.iter().map(|stats| stats.uploads_pending).sum();
                if pending > 0 {
                    return Err(format!("{pending} are pending"));
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Ok(())
        })
        .await;
    }

    /// Where each key is, as the map says now.
    pub(crate) async fn owners<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Vec<usize> {
        let ring = self.ring().await;
        let owner = |key: &str| {
            let name = EntryName::new(&Bucket::default(), key).unwrap();
            let primary = ring.partitions[name.partition(ring.partition_count) as usize].primary.as_ref().unwrap();
            self.nodes.iter().position(|node| node.name == *primary).unwrap()
        };
        keys.into_iter().map(owner).collect()
    }

    /// Where a key is.
    pub(crate) async fn owner(&self, key: &str) -> usize {
        self.owners([key]).await[0]
    }

    /// The first `count` keys (`key 0`, `key 1`, ...) of the partitions that `is_meant` says.
    pub(crate) async fn keys_in(&self, count: usize, is_meant: impl Fn(&Partition) -> bool) -> Vec<String> {
        let ring = self.ring().await;
        let is_meant = |key: &String| {
            let name = EntryName::new(&Bucket::default(), key).unwrap();
            is_meant(&ring.partitions[name.partition(ring.partition_count) as usize])
        };
        (0..100_000).map(|number| format!("key {number}")).filter(is_meant).take(count).collect()
    }

    /// Stores a value through the master, again and again until it is stored.
    pub(crate) async fn put(&self, key: &str, query: &str, value: &str) {
        eventually(key, PATIENCE, async || {
            let reply = self.client.put_key(&self.master_url, key, query, value.to_owned()).await;
            if reply.is_stored() { Ok(()) } else { Err(reply.text()) }
        })
        .await;
    }

    /// Reads a key through the master, again and again until there is an answer other than 503 and 504.
    pub(crate) async fn get(&self, key: &str) -> Reply {
        eventually(key, PATIENCE, async || {
            let reply = self.client.get_key(&self.master_url, key).await;
            if matches!(reply.status, 503 | 504) { Err(reply.text()) } else { Ok(reply) }
        })
        .await
    }

    /// A sample of a node's metrics, without labels.
    pub(crate) async fn metric(&self, index: usize, name: &str) -> f64 {
        let metrics = self.client.get(&format!("{}/metrics", self.node_urls[index])).await.text();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is not there: {metrics}")).parse().unwrap()
    }

    /// Kills all nodes, and starts them again with empty disks.
    pub(crate) async fn lose_all_disks(&mut self) {
        self.nodes.iter_mut().for_each(Server::kill);
        for index in 0..self.nodes.len() {
            self.wipe_node(index);
            self.nodes[index].spawn();
        }
        self.ready().await;
    }

    /// Starts a stopped node again, at the address that it had.
    pub(crate) async fn restart_node(&mut self, index: usize) {
        self.nodes[index].start().await;
    }

    /// Puts a stopped node's data on a disk of this size; needs root.
    pub(crate) fn limit_disk(&mut self, index: usize, size: &str) -> &SmallDisk {
        assert!(!self.nodes[index].is_running());
        self.disks.push(SmallDisk::around(&self.nodes[index].directory().join("data"), size));
        &self.disks[self.disks.len() - 1]
    }

    pub(crate) fn small_disk(&self) -> &SmallDisk {
        &self.disks[0]
    }

    /// Deletes a stopped node's data.
    pub(crate) fn wipe_node(&self, index: usize) {
        assert!(!self.nodes[index].is_running());
        fs::remove_dir_all(self.nodes[index].directory().join("data")).unwrap();
    }

    /// Stores values through the master, many at a time; all must be stored. Returns their versions.
    pub(crate) async fn import(&self, entries: &[(String, String)]) -> Vec<u64> {
        let put = async |(key, value): &(String, String)| {
            let reply = self.client.put_key(&self.master_url, key, "", Bytes::copy_from_slice(value.as_bytes())).await;
            assert!(reply.is_stored(), "{key}: {reply:?}");
            reply.version()
        };
        stream::iter(entries).map(put).buffered(CONCURRENCY).collect().await
    }

    /// Reads keys at a server, many at a time.
    pub(crate) async fn read(&self, server: &str, keys: impl IntoIterator<Item = &String>) -> Vec<Reply> {
        let get = async |key: &String| self.client.get_key(server, key).await;
        stream::iter(keys).map(get).buffered(CONCURRENCY).collect().await
    }

    /// Reads all entries through the master and fails unless each is what was stored. Returns the replies.
    pub(crate) async fn read_back(&self, entries: &[(String, String)]) -> Vec<Reply> {
        let replies = self.read(&self.master_url, entries.iter().map(|(key, _)| key)).await;
        for ((key, value), reply) in entries.iter().zip(&replies) {
            assert_eq!((reply.status, reply.text().as_str()), (200, value.as_str()), "{key}");
        }
        replies
    }
}

/// A loopback address for one cluster. Where all of 127.0.0.0/8 is loopback, a random part of it keeps the port of a
/// stopped server free until it is started again: nobody else takes ports there.
fn host() -> Ipv4Addr {
    if cfg!(target_os = "linux") {
        Ipv4Addr::new(127, rand::random_range(1..=254), rand::random_range(1..=254), rand::random_range(1..=254))
    } else {
        Ipv4Addr::LOCALHOST
    }
}
