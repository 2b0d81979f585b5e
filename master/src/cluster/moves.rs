//! How the map moves, and how far it has come.

use std::time::Duration;

use cairn_api_spec::cluster::{Move, Rebalance};

use super::Cluster;

impl Cluster {
    /// How the map moves, and how far it has come.
    pub fn rebalance(&self, now: Duration) -> Rebalance {
        let limits = self.rebalancing.limits();
        let moves = self.moves();
        let sum = |bytes: fn(&Move) -> u64| moves.iter().map(bytes).fold(0, u64::saturating_add);
        let (bytes_copied, bytes_total) = (sum(|each| each.bytes), sum(|each| each.total_bytes));
        let moves_left = self.rebalancing.left();
        let bytes_rate = self.registry.copy_rate(now);
        let bytes_left = bytes_total.saturating_sub(bytes_copied) as f64;
        // Partitions still to come are taken to be as large as those on their way.
        let bytes_to_begin = f64::from(moves_left) * bytes_total as f64 / moves.len().max(1) as f64;
        let is_measured = !moves.is_empty() && bytes_rate > 0.0;
        Rebalance {
            paused: limits.paused,
            max_moves: limits.max_moves,
            bytes_per_second: limits.bytes_per_second,
            moves_done: self.rebalancing.done(),
            moves_active: u32::try_from(moves.len()).unwrap_or(u32::MAX),
            moves_left,
            bytes_copied,
            bytes_total,
            bytes_rate,
            eta_seconds: is_measured.then(|| (bytes_left + bytes_to_begin) / bytes_rate),
            moves,
        }
    }

    fn moves(&self) -> Vec<Move> {
        let members = self.registry.members();
        let ring = self.ring.load();
        let learned = ring.partitions.iter().flat_map(|entry| entry.learners.iter().map(move |to| (entry, to)));
        learned
            .map(|(entry, to)| {
                let transfers = members.get(to).map_or(&[][..], |member| member.transfers.as_slice());
                let transfer = transfers.iter().find(|transfer| transfer.partition == entry.id).copied();
                let transfer = transfer.unwrap_or_default();
                Move {
                    partition: entry.id,
                    from: entry.primary.clone(),
                    to: to.clone(),
                    bytes: transfer.bytes,
                    total_bytes: transfer.total_bytes,
                }
            })
            .collect()
    }
}
