//! From the name of a key to those who may answer for it.

use std::collections::HashMap;

use crate::{
    cluster::{HASH, Partition, Ring, RingNode},
    name::EntryName,
};

/// Who may answer for a partition.
#[derive(Clone, Debug)]
pub struct Holders<T> {
    /// The one that takes writes and strongly consistent reads.
    pub primary: Option<T>,
    /// Those that may answer reads that may be stale.
    pub in_sync: Vec<T>,
}

/// The holders of every partition at one epoch of the map, ready for look-ups.
#[derive(Clone, Debug)]
pub struct Routes<T> {
    /// By partition.
    holders: Vec<Holders<T>>,
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self { holders: Vec::new() }
    }
}

impl<T> Routes<T> {
    /// The table for a map, with what `holder` makes of each node that holds a partition. It is empty when the map's
    /// partition function is another one.
    pub fn new(ring: &Ring, holder: impl Fn(&RingNode, &Partition) -> T) -> Self {
        if ring.hash != HASH {
            return Self::default();
        }
        let nodes: HashMap<&str, &RingNode> = ring.nodes.iter().map(|node| (node.node_id.as_str(), node)).collect();
        let holders = |partition: &Partition| {
            let of = |id: &String| Some(holder(nodes.get(id.as_str())?, partition));
            Holders {
                primary: partition.primary.as_ref().and_then(of),
                in_sync: partition.in_sync.iter().filter_map(of).collect(),
            }
        };
        Self { holders: ring.partitions.iter().map(holders).collect() }
    }

    /// Every partition.
    pub fn partitions(&self) -> impl Iterator<Item = (u32, &Holders<T>)> {
        (0..).zip(&self.holders)
    }

    /// The owner of a name.
    pub fn primary(&self, name: &EntryName) -> Option<&T> {
        self.holders(name)?.primary.as_ref()
    }

    /// One of those that are in sync with the partition of a name, by `random`; another one than those to avoid, if there
    /// is one.
    pub fn any_in_sync(&self, name: &EntryName, random: u32, avoid: impl Fn(&T) -> bool) -> Option<&T> {
        let in_sync = &self.holders(name)?.in_sync;
        let good = || in_sync.iter().filter(|holder| !avoid(holder));
        match good().count() {
            0 => in_sync.get((random as usize).checked_rem(in_sync.len())?),
            count => good().nth(random as usize % count),
        }
    }

    fn holders(&self, name: &EntryName) -> Option<&Holders<T>> {
        let count = u32::try_from(self.holders.len()).ok()?;
        self.holders.get(name.partition(count) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Bucket;

    fn routes(in_sync: &[&str], hash: &str) -> Routes<String> {
        let node = |id: &str| RingNode {
            node_id: id.to_owned(),
            incarnation: 1,
            session: 1,
            address: format!("http://{id}"),
            peer_address: String::new(),
        };
        let ring = Ring {
            hash: hash.to_owned(),
            nodes: vec![node("n1"), node("n2")],
            partitions: vec![Partition {
                primary: in_sync.first().map(ToString::to_string),
                in_sync: in_sync.iter().map(ToString::to_string).collect(),
                ..Partition::default()
            }],
            ..Ring::default()
        };
        Routes::new(&ring, |node, _| node.address.clone())
    }

    fn name() -> EntryName {
        EntryName::new(&Bucket::default(), "k").unwrap()
    }

    #[test]
    fn a_name_leads_to_the_primary_of_its_partition() {
        assert_eq!(routes(&["n2", "n1"], HASH).primary(&name()).unwrap(), "http://n2");
        assert!(routes(&[], HASH).primary(&name()).is_none());
        assert!(Routes::<String>::default().primary(&name()).is_none());
    }

    #[test]
    fn a_holder_that_is_no_node_of_the_map_is_left_out() {
        let routes = routes(&["gone", "n1"], HASH);
        assert!(routes.primary(&name()).is_none());
        assert_eq!(routes.any_in_sync(&name(), 7, |_| false).unwrap(), "http://n1");
    }

    #[test]
    fn whoever_is_to_be_avoided_is_taken_only_when_there_is_nobody_else() {
        let avoid = |holder: &String| holder == "http://n1";
        for random in 0..4 {
            let both = routes(&["n1", "n2"], HASH);
            assert_eq!(both.any_in_sync(&name(), random, avoid).unwrap(), "http://n2");
            assert_eq!(routes(&["n1"], HASH).any_in_sync(&name(), random, avoid).unwrap(), "http://n1");
            assert!(routes(&[], HASH).any_in_sync(&name(), random, avoid).is_none());
        }
        let both = routes(&["n1", "n2"], HASH);
        assert_ne!(both.any_in_sync(&name(), 0, |_| false), both.any_in_sync(&name(), 1, |_| false));
    }

    #[test]
    fn the_map_of_another_partition_function_leads_nowhere() {
        assert!(routes(&["n1"], "crc32").primary(&name()).is_none());
    }
}
