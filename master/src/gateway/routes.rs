//! The map as the gateway needs it on every request: from a name to an open link, without a search or a copy.

use std::{collections::HashMap, sync::Arc};

use cairn_api_spec::{EntryName, cluster::Ring};
use cairn_link::{Client, Limits};

use super::{GatewayError, Owner};

/// A node that owns partitions.
pub(super) struct Target {
    /// Its id.
    pub(super) node: Arc<str>,
    /// Where it speaks HTTP.
    pub(super) address: String,
    peer_address: String,
    /// The link to its peer listener.
    pub(super) link: Client,
}

/// A node, and the partitions that it owns.
type Share = (Arc<Target>, Vec<u32>);

/// The owners of all partitions at one epoch of the map.
#[derive(Default)]
pub(super) struct Routes {
    /// The epoch.
    pub(super) ring_epoch: u64,
    owners: Vec<Option<Owner>>,
}

impl Routes {
    /// The table for a map. Links to nodes that were known before stay open.
    pub(super) fn new(ring: &Ring, before: &Self) -> Self {
        let mut targets: HashMap<&str, Arc<Target>> = HashMap::new();
        for owner in before.owners.iter().flatten() {
            targets.insert(&owner.target.node, owner.target.clone());
        }
        let targets: HashMap<&str, Arc<Target>> = ring
            .nodes
            .iter()
            .map(|node| {
                let same =
                    |target: &&Arc<Target>| target.peer_address == node.peer_address && target.address == node.address;
                let target = targets.get(node.node_id.as_str()).filter(same).cloned();
                let open = || {
                    Arc::new(Target {
                        node: node.node_id.as_str().into(),
                        address: node.address.clone(),
                        peer_address: node.peer_address.clone(),
                        link: Client::new(&node.peer_address, Limits::default()),
                    })
                };
                (node.node_id.as_str(), target.unwrap_or_else(open))
            })
            .collect();
        let owner = |partition: &cairn_api_spec::cluster::Partition| {
            let target = targets.get(partition.primary.as_deref()?)?.clone();
            Some(Owner { target, epoch: partition.epoch })
        };
        Self { ring_epoch: ring.epoch, owners: ring.partitions.iter().map(owner).collect() }
    }

    /// The owner of a name.
    pub(super) fn owner(&self, name: &EntryName) -> Result<&Owner, GatewayError> {
        let count = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        let owner = self.owners.get(name.partition(count) as usize);
        owner.and_then(Option::as_ref).ok_or(GatewayError::NoNodes)
    }

    /// Every owner with its partitions.
    pub(super) fn by_target(&self) -> Result<Vec<Share>, GatewayError> {
        let mut by_node: HashMap<&str, Share> = HashMap::new();
        for (partition, owner) in (0..).zip(&self.owners) {
            let target = &owner.as_ref().ok_or(GatewayError::NoNodes)?.target;
            by_node.entry(&target.node).or_insert_with(|| (target.clone(), Vec::new())).1.push(partition);
        }
        if by_node.is_empty() { Err(GatewayError::NoNodes) } else { Ok(by_node.into_values().collect()) }
    }
}
