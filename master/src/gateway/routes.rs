//! The map as the gateway needs it on every request: from a name to an open link, without a search or a copy.

use std::{collections::HashMap, sync::Arc};

use cairn_api_spec::{
    EntryName,
    cluster::{Partition, Ring, RingNode},
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

/// Who may answer for a partition.
struct Holders {
    primary: Option<Holder>,
    in_sync: Vec<Holder>,
}

/// A node, and the partitions that it owns.
type Share = (Arc<Target>, Vec<u32>);

/// The holders of all partitions at one epoch of the map.
#[derive(Default)]
pub(super) struct Routes {
    /// The epoch.
    pub(super) ring_epoch: u64,
    targets: Vec<Arc<Target>>,
    /// By partition.
    holders: Vec<Holders>,
}

impl Routes {
    /// The table for a map. Links to nodes that were known before stay open.
    pub(super) fn new(ring: &Ring, before: &Self) -> Self {
        let target = |node: &RingNode| {
            let known = before.targets.iter().find(|target| target.is(node));
            known.cloned().unwrap_or_else(|| Arc::new(Target::new(node)))
        };
        let targets: Vec<_> = ring.nodes.iter().map(target).collect();
        let by_id: HashMap<&str, &Arc<Target>> = targets.iter().map(|target| (&*target.node, target)).collect();
        let holders = |partition: &Partition| {
            let holder =
                |id: &String| Some(Holder { target: Arc::clone(by_id.get(id.as_str())?), epoch: partition.epoch });
            Holders {
                primary: partition.primary.as_ref().and_then(holder),
                in_sync: partition.in_sync.iter().filter_map(holder).collect(),
            }
        };
        let holders = ring.partitions.iter().map(holders).collect();
        drop(by_id);
        Self { ring_epoch: ring.epoch, targets, holders }
    }

    /// The owner of a name.
    pub(super) fn primary(&self, name: &EntryName) -> Result<&Holder, GatewayError> {
        self.holders(name).and_then(|holders| holders.primary.as_ref()).ok_or(GatewayError::NoNodes)
    }

    /// Any node that is in sync with a name's partition.
    pub(super) fn any_in_sync(&self, name: &EntryName) -> Option<&Holder> {
        let in_sync = &self.holders(name)?.in_sync;
        in_sync.get(rand::random_range(0..in_sync.len().max(1)))
    }

    fn holders(&self, name: &EntryName) -> Option<&Holders> {
        let count = u32::try_from(self.holders.len()).unwrap_or(u32::MAX);
        self.holders.get(name.partition(count) as usize)
    }

    /// Every owner with its partitions.
    pub(super) fn by_target(&self) -> Result<Vec<Share>, GatewayError> {
        let mut by_node: HashMap<&str, Share> = HashMap::new();
        for (partition, holders) in (0..).zip(&self.holders) {
            let target = &holders.primary.as_ref().ok_or(GatewayError::NoNodes)?.target;
            by_node.entry(&target.node).or_insert_with(|| (target.clone(), Vec::new())).1.push(partition);
        }
        if by_node.is_empty() { Err(GatewayError::NoNodes) } else { Ok(by_node.into_values().collect()) }
    }
}
