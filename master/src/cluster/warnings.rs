//! What an operator should know although every key can be served.

use std::time::Duration;

use cairn_api_spec::cluster::{Partition, Ring};
use cairn_placement::LAST_EPOCH;

use super::Cluster;
use crate::registry::Member;

/// Nodes that a warning names.
const MAX_NAMED: usize = 5;

impl Cluster {
    /// What is not as it should be, if anything.
    pub fn warning(&self, now: Duration) -> Option<String> {
        let off = self.clocks_off(now);
        let ring = self.ring.load();
        let warnings = [last_epochs(&ring), clocks(&off, &ring), self.missing_copies(&ring)];
        let warnings: Vec<String> = warnings.into_iter().flatten().collect();
        (!warnings.is_empty()).then(|| warnings.join("; "))
    }

    /// The nodes that are there and whose clocks are too far from the master's, by id.
    pub fn clocks_off(&self, now: Duration) -> Vec<Member> {
        let patience = self.registry.patience();
        let is_off = |member: &Member| member.is_clock_off() && member.is_alive(patience, now);
        self.registry.members().into_values().filter(is_off).collect()
    }

    fn missing_copies(&self, ring: &Ring) -> Option<String> {
        let (nodes, factor) = (ring.nodes.len(), ring.replication.factor);
        if nodes < factor as usize {
            return Some(format!(
                "{nodes} registered, and replication_factor is {factor}: what is stored is in fewer copies than asked for",
                nodes = if nodes == 1 { "1 node is".to_owned() } else { format!("{nodes} nodes are") },
            ));
        }
        let under_replicated = self.under_replicated();
        (under_replicated > 0).then(|| {
            format!("{under_replicated} of {} partitions have fewer than {factor} in-sync copies", ring.partition_count)
        })
    }
}

fn last_epochs(ring: &Ring) -> Option<String> {
    let count = ring.partitions.iter().filter(|partition| partition.epoch >= LAST_EPOCH).count();
    (count > 0).then(|| {
        format!("{count} partitions are at epoch {LAST_EPOCH}, the last one: nobody takes over from their primaries")
    })
}

fn clocks(off: &[Member], ring: &Ring) -> Option<String> {
    if off.is_empty() {
        return None;
    }
    let clock = |member: &Member| {
        let ms = member.clock_offset_ms.unwrap_or_default();
        let side = if ms < 0 { "behind" } else { "ahead of" };
        format!("{}'s clock is {} ms {side} the master's", member.registration().node_id, ms.unsigned_abs())
    };
    let mut named: Vec<String> = off.iter().take(MAX_NAMED).map(clock).collect();
    if off.len() > MAX_NAMED {
        named.push(format!("and those of {} more nodes are off", off.len() - MAX_NAMED));
    }
    let leads = |partition: &&Partition| {
        let is_primary = |member: &Member| partition.primary.as_ref() == Some(&member.registration().node_id);
        off.iter().any(is_primary)
    };
    let led = match ring.partitions.iter().filter(leads).count() {
        0 => "nodes with such clocks lead no partition".to_owned(),
        led => format!(
            "nodes with such clocks still lead {led} partitions, since no other in-sync copy with a right clock has taken over"
        ),
    };
    Some(format!("{}; {led}", named.join(", ")))
}
