//! The ring's proposal, with bounded loads and without needless moves.
//!
//! A copy that has no holder goes to the first node on its way around the ring that still has room: consistent hashing
//! with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016). A plain ring cannot do: 256 partitions on 3 nodes
//! scatter by more than 15 %.
//!
//! Bounded loads alone, computed from the set of nodes only, were tried and rejected: near its bound the assignment of
//! one partition pushes the next, so that a join moved up to twice the newcomer's share. So the present holders come in
//! as well, a copy stays where it is while both ends are within their bounds, and a join or a leave moves no more than
//! its share. Applied to its own result, the proposal is that result: nothing moves forever.

use std::cell::OnceCell;

use consistent_hash_ring::{Ring, RingBuilder};
use xxhash_rust::xxh3::{Xxh3DefaultBuilder, xxh3_64_with_seed};

/// How far a node's share of the copies may stand from its weighted average.
const TOLERANCE: f64 = 0.05;
/// The most points on a ring: building one takes time with their square, and the bounds do the balancing.
const MAX_POINTS: f64 = 16_384.0;

/// A node that may hold partitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its stable name: the only thing that is hashed.
    pub node_id: String,
    /// Its share next to other nodes; one that is not above zero takes no part.
    pub weight: f64,
    /// Whether it may be given copies that it does not hold yet. A silent node keeps what it has and gets nothing.
    pub accepts: bool,
}

/// Proposes the holders of every partition, the primary first, `replication_factor` of them where there are so many
/// nodes.
///
/// `vnodes` is the number of points that a node of average weight has on the ring; all together have at most 16,384.
///
/// `current` has one list for each partition: the holders now, or those that are on their way to hold it. The answer
/// depends on nothing else, in particular not on the order of `candidates`. A partition that no accepting node can
/// take keeps the holders that it has, which may be none.
pub fn desired(
    candidates: &[Candidate],
    vnodes: u32,
    current: &[Vec<String>],
    replication_factor: usize,
) -> Vec<Vec<String>> {
    let mut plan = Plan::new(candidates, vnodes, current, replication_factor);
    plan.fill();
    plan.shed();
    plan.steal();
    plan.into_holders()
}

struct Node<'a> {
    candidate: &'a Candidate,
    load: usize,
    lower: usize,
    average: usize,
    upper: usize,
}

struct Plan<'a> {
    nodes: Vec<Node<'a>>,
    /// Built when the first copy looks for a place: mostly every copy has one.
    ring: OnceCell<Ring<&'a str, Xxh3DefaultBuilder>>,
    vnodes: u32,
    holders: Vec<Vec<usize>>,
    copies: usize,
}

impl<'a> Plan<'a> {
    fn new(candidates: &'a [Candidate], vnodes: u32, current: &[Vec<String>], replication_factor: usize) -> Self {
        let mut candidates: Vec<&Candidate> =
            candidates.iter().filter(|c| c.weight.is_finite() && c.weight > 0.0).collect();
        candidates.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        candidates.dedup_by(|a, b| a.node_id == b.node_id);
        let copies = replication_factor.min(candidates.len());
        let weights: f64 = candidates.iter().map(|c| c.weight).sum();
        let nodes = candidates
            .into_iter()
            .map(|candidate| Node::new(candidate, current.len(), copies, candidate.weight / weights))
            .collect();
        let mut plan =
            Self { nodes, ring: OnceCell::new(), vnodes, holders: Vec::with_capacity(current.len()), copies };
        for ids in current {
            plan.keep(ids);
        }
        plan
    }

    fn keep(&mut self, ids: &[String]) {
        let mut kept = Vec::with_capacity(self.copies);
        for id in ids {
            let Some(node) = self.index(id) else { continue };
            if kept.len() < self.copies && !kept.contains(&node) {
                self.nodes[node].load += 1;
                kept.push(node);
            }
        }
        self.holders.push(kept);
    }

    /// Finds a holder for every copy that has none.
    fn fill(&mut self) {
        for partition in 0..self.holders.len() {
            while self.holders[partition].len() < self.copies {
                let Some(node) = self.room(partition).or_else(|| self.walk(partition, |_| true)) else { break };
                self.holders[partition].push(node);
                self.nodes[node].load += 1;
            }
        }
    }

    /// Takes from nodes above their bound what others have room for.
    fn shed(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].load <= self.nodes[node].upper {
                continue;
            }
            for partition in self.by_affinity(node) {
                if self.nodes[node].load <= self.nodes[node].upper {
                    break;
                }
                if self.holders[partition].contains(&node)
                    && let Some(to) = self.room(partition)
                {
                    self.replace(partition, node, to);
                }
            }
        }
    }

    /// Gives nodes below their bound a part of what others have, from those above their average first.
    fn steal(&mut self) {
        for node in 0..self.nodes.len() {
            if !self.nodes[node].candidate.accepts || self.nodes[node].load >= self.nodes[node].lower {
                continue;
            }
            let partitions = self.by_affinity(node);
            for spared in [|donor: &Node<'_>| donor.average, |donor: &Node<'_>| donor.lower] {
                for &partition in &partitions {
                    if self.nodes[node].load >= self.nodes[node].lower {
                        break;
                    }
                    let holders = &self.holders[partition];
                    let donor = holders.iter().rev().copied().find(|h| self.nodes[*h].load > spared(&self.nodes[*h]));
                    if let Some(donor) = donor.filter(|_| !holders.contains(&node)) {
                        self.replace(partition, donor, node);
                    }
                }
            }
        }
    }

    fn replace(&mut self, partition: usize, from: usize, to: usize) {
        for holder in self.holders[partition].iter_mut().filter(|h| **h == from) {
            *holder = to;
        }
        self.nodes[from].load -= 1;
        self.nodes[to].load += 1;
    }

    /// The next node on the ring that is within its bounds with one copy more, those that lack copies first.
    fn room(&self, partition: usize) -> Option<usize> {
        self.walk(partition, |node| node.load < node.lower)
            .or_else(|| self.walk(partition, |node| node.load < node.upper))
    }

    fn walk(&self, partition: usize, fits: impl Fn(&Node<'_>) -> bool) -> Option<usize> {
        // The ring is not asked when no node fits: a walk around it costs far more than this look.
        let takes = |node: &Node<'_>| node.candidate.accepts && fits(node);
        if !self.nodes.iter().any(takes) {
            return None;
        }
        self.ring
            .get_or_init(|| self.build_ring())
            .replicas(partition)
            .filter_map(|id| self.index(id))
            .find(|node| takes(&self.nodes[*node]) && !self.holders[partition].contains(node))
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

    /// All partitions in an order that is this node's own, so that what it sheds or takes is spread evenly.
    fn by_affinity(&self, node: usize) -> Vec<usize> {
        let id = self.nodes[node].candidate.node_id.as_bytes();
        let mut partitions: Vec<usize> = (0..self.holders.len()).collect();
        partitions.sort_by_cached_key(|partition| xxh3_64_with_seed(id, *partition as u64));
        partitions
    }

    fn index(&self, id: &str) -> Option<usize> {
        self.nodes.binary_search_by(|node| node.candidate.node_id.as_str().cmp(id)).ok()
    }

    fn into_holders(self) -> Vec<Vec<String>> {
        let id = |node: usize| self.nodes[node].candidate.node_id.clone();
        self.holders.into_iter().map(|nodes| nodes.into_iter().map(id).collect()).collect()
    }
}

impl<'a> Node<'a> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "copies are far below 2^52 and shares are not negative"
    )]
    fn new(candidate: &'a Candidate, partitions: usize, copies: usize, share: f64) -> Self {
        let average = ((partitions * copies) as f64 * share).min(partitions as f64);
        Self {
            candidate,
            load: 0,
            lower: average.floor().min((average * (1.0 - TOLERANCE)).ceil()) as usize,
            average: average.ceil() as usize,
            upper: average.ceil().max((average * (1.0 + TOLERANCE)).floor()) as usize,
        }
    }
}

/// A node's points on the ring. Never none: the ring's walk would not end.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and MAX_POINTS")]
fn points(share: f64) -> usize {
    (share.round() as usize).max(1)
}
