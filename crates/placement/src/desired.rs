//! The ring's proposal, with bounded loads, spread over zones, and without needless moves.
//!
//! A copy that has no holder goes to the first node on its way around the ring that still has room: consistent hashing
//! with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016). A plain ring cannot do: 256 partitions on 3 nodes
//! scatter by more than 15 %.
//!
//! Bounded loads alone, computed from the set of nodes only, were tried and rejected: near its bound the assignment of
//! one partition pushes the next, so that a join moved up to twice the newcomer's share. So the present holders come in
//! as well, a copy stays where it is while both ends are within their bounds, and a join or a leave moves no more than
//! its share. Applied to its own result, the proposal is that result: nothing moves forever.

use std::{
    cell::OnceCell,
    collections::{BTreeSet, HashMap},
};

use consistent_hash_ring::Ring;
use xxhash_rust::xxh3::{Xxh3DefaultBuilder, xxh3_64_with_seed};

mod places;
mod primaries;
mod shares;

use shares::{Bounds, shares};

/// A node that may hold partitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its stable name: the only thing that is hashed.
    pub node_id: String,
    /// Its share next to other nodes; one that is not above zero takes no part.
    pub weight: f64,
    /// The failure zone that it stands in; without one it stands alone.
    pub zone: Option<String>,
    /// Whether it may be given copies that it does not hold yet. A silent node keeps what it has and gets nothing.
    pub accepts: bool,
    /// Whether it may be a primary. One that may not is one only where no other holder may.
    pub leads: bool,
    /// Partitions, by their index, that it must not hold, not even where `current` names it.
    pub barred: BTreeSet<usize>,
}

/// Proposes the holders of every partition, the primary first, `replication_factor` of them where there are so many
/// nodes.
///
/// `vnodes` is the number of points that a node of average weight has on the ring; all together have at most 16,384.
///
/// `current` has one list for each partition: the holders now, or those that are on their way to hold it, the primary
/// first. The answer depends on nothing else, in particular not on the order of `candidates`. A partition that no
/// accepting node can take keeps the holders that it has, which may be none.
///
/// The zones of a partition's copies differ as far as there are zones, whatever that does to the loads: a node that is
/// alone in the second of two zones gets a copy of everything.
pub fn desired(
    candidates: &[Candidate],
    vnodes: u32,
    current: &[Vec<String>],
    replication_factor: usize,
) -> Vec<Vec<String>> {
    let mut plan = Plan::new(candidates, vnodes, current, replication_factor);
    plan.fill();
    // Every move makes zones less crowded, or without crowding one puts a load nearer to its bounds: this ends.
    while plan.spread() | plan.shed() | plan.steal() {}
    plan.share_primaries();
    plan.into_holders()
}

struct Node<'a> {
    candidate: &'a Candidate,
    zone: usize,
    load: usize,
    bounds: Bounds,
    primaries: Bounds,
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
        let zones = zones(&candidates);
        let weights: Vec<f64> = candidates.iter().map(|candidate| candidate.weight).collect();
        let shares = shares(&weights, &zones, current.len(), copies);
        let led = primary_shares(&candidates, &shares, current.len());
        let nodes = candidates.into_iter().zip(zones).zip(shares.iter().zip(led));
        let nodes = nodes.map(|((candidate, zone), (share, led))| Node {
            candidate,
            zone,
            load: 0,
            bounds: Bounds::around(*share),
            primaries: Bounds::around(led),
        });
        let mut plan = Self {
            nodes: nodes.collect(),
            ring: OnceCell::new(),
            vnodes,
            holders: Vec::with_capacity(current.len()),
            copies,
        };
        for ids in current {
            plan.keep(ids);
        }
        plan
    }

    fn keep(&mut self, ids: &[String]) {
        let mut kept = Vec::with_capacity(self.copies);
        let partition = self.holders.len();
        for id in ids {
            let Some(node) = self.index(id) else { continue };
            let is_barred = self.nodes[node].candidate.barred.contains(&partition);
            if !is_barred && kept.len() < self.copies && !kept.contains(&node) {
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
                let Some(node) = self.place(partition, self.copies) else { break };
                self.holders[partition].push(node);
                self.nodes[node].load += 1;
            }
        }
    }

    /// Takes copies out of zones that hold several of a partition, while another zone has fewer.
    fn spread(&mut self) -> bool {
        let mut changed = false;
        for partition in 0..self.holders.len() {
            while let Some((from, to)) = self.less_crowded(partition) {
                self.replace(partition, from, to);
                changed = true;
            }
        }
        changed
    }

    /// A holder of the most crowded zone, and a node of a zone that would be less crowded with it.
    fn less_crowded(&self, partition: usize) -> Option<(usize, usize)> {
        let crowd = |node: usize| self.crowd(partition, self.nodes[node].zone);
        let surplus = |node: usize| self.nodes[node].load as f64 - self.nodes[node].bounds.average as f64;
        let most = self.holders[partition]
            .iter()
            .copied()
            .max_by(|a, b| crowd(*a).cmp(&crowd(*b)).then(surplus(*a).total_cmp(&surplus(*b))))?;
        let least = crowd(most).checked_sub(2)?;
        Some((most, self.place(partition, least)?))
    }

    /// Takes from nodes above their bound what others have room for.
    fn shed(&mut self) -> bool {
        let mut changed = false;
        for node in 0..self.nodes.len() {
            if self.nodes[node].load <= self.nodes[node].bounds.upper {
                continue;
            }
            for partition in self.by_affinity(node) {
                if self.nodes[node].load <= self.nodes[node].bounds.upper {
                    break;
                }
                if self.holders[partition].contains(&node)
                    && let Some(to) = self.room_instead_of(partition, node)
                {
                    self.replace(partition, node, to);
                    changed = true;
                }
            }
        }
        changed
    }

    /// Gives nodes below their bound a part of what others have, from those above their average first.
    fn steal(&mut self) -> bool {
        let mut changed = false;
        for node in 0..self.nodes.len() {
            let lower = self.nodes[node].bounds.lower;
            if !self.nodes[node].candidate.accepts || self.nodes[node].load >= lower {
                continue;
            }
            let partitions = self.by_affinity(node);
            for spared in [|donor: &Node<'_>| donor.bounds.average, |donor: &Node<'_>| donor.bounds.lower] {
                for &partition in &partitions {
                    if self.nodes[node].load >= lower {
                        break;
                    }
                    let holders = &self.holders[partition];
                    let gives = |donor: &usize| {
                        self.nodes[*donor].load > spared(&self.nodes[*donor])
                            && self.may_replace(partition, *donor, node)
                    };
                    if self.takes(partition, node)
                        && let Some(donor) = holders.iter().rev().copied().find(gives)
                    {
                        self.replace(partition, donor, node);
                        changed = true;
                    }
                }
            }
        }
        changed
    }

    fn replace(&mut self, partition: usize, from: usize, to: usize) {
        for holder in self.holders[partition].iter_mut().filter(|h| **h == from) {
            *holder = to;
        }
        self.nodes[from].load -= 1;
        self.nodes[to].load += 1;
    }

    /// How many copies of the partition stand in the zone.
    fn crowd(&self, partition: usize, zone: usize) -> usize {
        self.holders[partition].iter().filter(|holder| self.nodes[**holder].zone == zone).count()
    }

    /// Whether the partition's copies stand no closer together with `to` in the place of `from`.
    fn may_replace(&self, partition: usize, from: usize, to: usize) -> bool {
        let (from, to) = (self.nodes[from].zone, self.nodes[to].zone);
        from == to || self.crowd(partition, to) < self.crowd(partition, from)
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

impl Node<'_> {
    /// Its load next to its share.
    #[expect(clippy::cast_precision_loss, reason = "copies are far below 2^52")]
    fn fullness(&self) -> f64 {
        (self.load + 1) as f64 / self.bounds.average.max(1) as f64
    }
}

/// The share of every candidate of the primaries: of those that may lead in proportion to their copies, and no more than
/// these. Where nobody may, nothing is to change.
#[expect(clippy::cast_precision_loss, reason = "partitions are far below 2^52")]
fn primary_shares(candidates: &[&Candidate], shares: &[f64], partitions: usize) -> Vec<f64> {
    let of_leaders = |(candidate, share): (&&Candidate, &f64)| if candidate.leads { *share } else { 0.0 };
    let copies: f64 = candidates.iter().zip(shares).map(of_leaders).sum();
    let led = |each| if copies > 0.0 { of_leaders(each) / copies * partitions as f64 } else { 0.0 };
    candidates.iter().zip(shares).map(|each| led(each).min(*each.1)).collect()
}

/// The zone of every candidate, as a number. One without a zone stands in one of its own.
fn zones(candidates: &[&Candidate]) -> Vec<usize> {
    let mut numbers = HashMap::new();
    let mut count = 0;
    let mut next = || {
        count += 1;
        count - 1
    };
    candidates
        .iter()
        .map(|candidate| match &candidate.zone {
            Some(zone) => *numbers.entry(zone).or_insert_with(&mut next),
            None => next(),
        })
        .collect()
}
