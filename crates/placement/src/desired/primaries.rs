//! Who of the holders is the primary: primaries are shared out like copies, with few handovers.
//!
//! Within the loads that the copies have, a fair choice always exists: each holder of a partition may take the same
//! fraction of it, and where a fractional flow exists there is one in whole numbers. It is found by augmenting paths.

use std::collections::VecDeque;

use super::{Plan, shares::Bounds};

type Bound = fn(&Bounds) -> usize;

/// Whose surplus goes to whom: givers have more than the first, takers less than the second.
const SHIFTS: [(Bound, Bound); 4] = [
    (|giver| giver.upper, |taker| taker.lower),
    (|giver| giver.upper, |taker| taker.upper),
    (|giver| giver.average, |taker| taker.lower),
    (|giver| giver.lower, |taker| taker.lower),
];

impl Plan<'_> {
    /// Makes other holders primaries until everyone has a fair share.
    pub(super) fn share_primaries(&mut self) {
        let mut held = vec![Vec::new(); self.nodes.len()];
        for (partition, holders) in self.holders.iter().enumerate() {
            for &holder in holders {
                held[holder].push(partition);
            }
        }
        let mut count = vec![0; self.nodes.len()];
        for &primary in self.holders.iter().filter_map(|holders| holders.first()) {
            count[primary] += 1;
        }
        self.depose(&mut count);
        for (more_than, less_than) in SHIFTS {
            while self.shift(&held, &mut count, more_than, less_than) {}
        }
    }

    /// Puts another holder, the one that leads the fewest, in the place of each primary that may not lead.
    fn depose(&mut self, count: &mut [usize]) {
        for holders in &mut self.holders {
            let may_lead = |node: usize| self.nodes[node].candidate.leads;
            let Some(&primary) = holders.first().filter(|primary| !may_lead(**primary)) else { continue };
            let others = (1..holders.len()).filter(|place| {
                let node = holders[*place];
                may_lead(node) && self.nodes[node].candidate.accepts
            });
            if let Some(place) = others.min_by_key(|place| count[holders[*place]]) {
                count[primary] -= 1;
                count[holders[place]] += 1;
                holders.swap(0, place);
            }
        }
    }

    /// Passes one primary on, from a giver over any number of others to a taker.
    fn shift(&mut self, held: &[Vec<usize>], count: &mut [usize], more_than: Bound, less_than: Bound) -> bool {
        let gives = |node: &usize| count[*node] > more_than(&self.nodes[*node].primaries);
        let takes = |node: usize| count[node] < less_than(&self.nodes[node].primaries);
        let may_take = |node: usize| self.nodes[node].candidate.accepts && self.nodes[node].candidate.leads;
        if !(0..self.nodes.len()).any(|node| may_take(node) && takes(node)) {
            return false;
        }
        let mut queue: VecDeque<usize> = (0..self.nodes.len()).filter(gives).collect();
        // From whom each node would get which partition.
        let mut from: Vec<Option<(usize, usize)>> = vec![None; self.nodes.len()];
        let mut seen = vec![false; self.nodes.len()];
        for &giver in &queue {
            seen[giver] = true;
        }
        while let Some(giver) = queue.pop_front() {
            for &partition in held[giver].iter().filter(|p| self.holders[**p].first() == Some(&giver)) {
                for &taker in &self.holders[partition] {
                    if seen[taker] || !may_take(taker) {
                        continue;
                    }
                    seen[taker] = true;
                    from[taker] = Some((giver, partition));
                    if takes(taker) {
                        self.pass_on(taker, &from, count);
                        return true;
                    }
                    queue.push_back(taker);
                }
            }
        }
        false
    }

    fn pass_on(&mut self, taker: usize, from: &[Option<(usize, usize)>], count: &mut [usize]) {
        count[taker] += 1;
        let mut node = taker;
        while let Some((giver, partition)) = from[node] {
            let holders = &mut self.holders[partition];
            if let Some(place) = holders.iter().position(|holder| *holder == node) {
                holders.swap(0, place);
            }
            node = giver;
        }
        count[node] -= 1;
    }
}
