//! The map as the gateway needs it on every request: from a name to an open link, without a search or a copy.

use std::{collections::HashMap, sync::Arc};

use cairn_api_spec::{
    EntryName,
    cluster::{Partition, Ring, RingNode},
    routes::Routes,
};
use cairn_link::{Client, Limits};

use super::GatewayError;

/// A node that holds partitions.
pub(super) struct Target {
    /// Its id.
    pub(super) node: Arc<str>,
    /// Where it speaks HTTP.
    pub(super) address: String,
    peer_address: String,
    /// The link to its peer listener.
    pub(super) link: Client,
}

impl Target {
    fn new(node: &RingNode) -> Self {
        Self {
            node: node.node_id.as_str().into(),
            address: node.address.clone(),
            peer_address: node.peer_address.clone(),
            link: Client::new(&node.peer_address, Limits::default()),
        }
    }

    fn is(&self, node: &RingNode) -> bool {
        *self.node == *node.node_id && self.peer_address == node.peer_address && self.address == node.address
    }
}

/// A node that holds a partition, and the epoch at which the map says so.
#[derive(Clone)]
pub(super) struct Holder {
    pub(super) target: Arc<Target>,
    pub(super) epoch: u64,
}

/// A node, and the partitions that it owns.
type Share = (Arc<Target>, Vec<u32>);

/// The holders of all partitions at one epoch of the map.
#[derive(Default)]
pub(super) struct Table {
    /// The epoch.
    pub(super) ring_epoch: u64,
    targets: HashMap<String, Arc<Target>>,
    routes: Routes<Holder>,
}

impl Table {
    /// The table for a map. Links to nodes that were known before stay open.
    pub(super) fn new(ring: &Ring, before: &Self) -> Self {
        let target = |node: &RingNode| {
            let known = before.targets.get(&node.node_id).filter(|target| target.is(node));
            (node.node_id.clone(), known.cloned().unwrap_or_else(|| Arc::new(Target::new(node))))
        };
        let targets: HashMap<String, Arc<Target>> = ring.nodes.iter().map(target).collect();
        let holder = |node: &RingNode, partition: &Partition| Holder {
            target: targets[&node.node_id].clone(),
            epoch: partition.epoch,
        };
        Self { ring_epoch: ring.epoch, routes: Routes::new(ring, holder), targets }
    }

    /// The owner of a name.
    pub(super) fn primary(&self, name: &EntryName) -> Result<&Holder, GatewayError> {
        self.routes.primary(name).ok_or(GatewayError::NoNodes)
    }

    /// Any node that is in sync with a name's partition.
    pub(super) fn any_in_sync(&self, name: &EntryName) -> Option<&Holder> {
        self.routes.any_in_sync(name, rand::random(), |_| false)
    }

    /// Every owner with its partitions.
    pub(super) fn by_target(&self) -> Result<Vec<Share>, GatewayError> {
        let mut by_node: HashMap<&str, Share> = HashMap::new();
        for (partition, holders) in self.routes.partitions() {
            let target = &holders.primary.as_ref().ok_or(GatewayError::NoNodes)?.target;
            by_node.entry(&target.node).or_insert_with(|| (target.clone(), Vec::new())).1.push(partition);
        }
        if by_node.is_empty() { Err(GatewayError::NoNodes) } else { Ok(by_node.into_values().collect()) }
    }
}
