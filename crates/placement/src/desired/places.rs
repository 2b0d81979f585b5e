//! Where a copy goes: the way around the ring, past those that have no room or stand where others do.

use consistent_hash_ring::{Ring, RingBuilder};
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::{Node, Plan, shares::Bounds};

/// The most points on a ring: building one takes time with their square, and the bounds do the balancing.
const MAX_POINTS: f64 = 16_384.0;

impl<'a> Plan<'a> {
    /// A node for one copy more, in a zone that has at most `most`: where there are the fewest, and among those nodes
    /// one with room, or the one that is least above its share.
    pub(super) fn place(&self, partition: usize, most: usize) -> Option<usize> {
        (0..=most).find_map(|crowd| {
            let fits = |node: usize| self.crowd(partition, self.nodes[node].zone) == crowd;
            self.room(partition, fits).or_else(|| {
                let takes = (0..self.nodes.len()).filter(|node| self.takes(partition, *node) && fits(*node));
                takes.min_by(|a, b| self.nodes[*a].fullness().total_cmp(&self.nodes[*b].fullness()))
            })
        })
    }

    pub(super) fn room_instead_of(&self, partition: usize, holder: usize) -> Option<usize> {
        self.room(partition, |node| self.may_replace(partition, holder, node))
    }

    /// The next node on the ring that is within its bounds with one copy more, those that lack copies first.
    fn room(&self, partition: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let load_below = |bound: fn(&Bounds) -> usize| {
            self.walk(partition, |node| self.nodes[node].load < bound(&self.nodes[node].bounds) && fits(node))
        };
        load_below(|bounds| bounds.lower).or_else(|| load_below(|bounds| bounds.upper))
    }

    fn walk(&self, partition: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
        // The ring is not asked when no node fits: a walk around it costs far more than this look.
        let takes = |node: &usize| fits(*node) && self.takes(partition, *node);
        if !(0..self.nodes.len()).any(|node| takes(&node)) {
            return None;
        }
        let ring = self.ring.get_or_init(|| self.build_ring());
        ring.replicas(partition).filter_map(|id| self.index(id)).find(takes)
    }

    /// Whether the node may be given a copy of the partition that it does not hold.
    pub(super) fn takes(&self, partition: usize, node: usize) -> bool {
        let candidate = self.nodes[node].candidate;
        candidate.accepts && !candidate.barred.contains(&partition) && !self.holders[partition].contains(&node)
    }

    #[expect(clippy::cast_precision_loss, reason = "nodes are far below 2^52")]
    fn build_ring(&self) -> Ring<&'a str, Xxh3DefaultBuilder> {
        let weights: f64 = self.nodes.iter().map(|node| node.candidate.weight).sum();
        let all_points = (f64::from(self.vnodes) * self.nodes.len() as f64).min(MAX_POINTS);
        let point = |node: &Node<'a>| {
            let candidate = node.candidate;
            (candidate.node_id.as_str(), points(all_points * candidate.weight / weights))
        };
        RingBuilder::new(Xxh3DefaultBuilder::new()).weighted_nodes_iter(self.nodes.iter().map(point)).build()
    }
}

/// A node's points on the ring. Never none: the ring's walk would not end.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and MAX_POINTS")]
fn points(share: f64) -> usize {
    (share.round() as usize).max(1)
}
