//! The legal transitions of a partition's map entry that the master takes by itself. Each raises its epoch by one.
//! Those that a primary asks for stand in [`mod@crate::change`].
//!
//! In this order, the first that is due:
//!
//! | when | reason |
//! |---|---|
//! | there is no primary, and a node can take it | assigned |
//! | the primary is gone, and an in-sync replica answers | promoted |
//! | the primary is gone or restarted, no copy is silent, and enough of them are back with their data | resumed |
//! | every in-sync copy is lost: removed by force, or its data are gone | reassigned |
//! | an in-sync replica was removed by force, or lost its data; of a quorum, if too few are left without it | replica lost |
//! | of a quorum too few are left to tell the primary everything, none is silent, and enough were restarted | resumed |
//! | a learner is no longer wanted, or does not answer: writes wait for its word | learner dropped |
//! | the primary is about to stop or its clock is off, and a replica can take over | successor named |
//! | a node should hold the partition and does not | learner added |
//! | everyone wanted is in sync, and another one should be the primary | successor named |
//! | the named successor no longer is the right one | successor withdrawn |
//! | everyone wanted is in sync and answers, and there are others, of a quorum only such that answer | released |
//!
//! What is absent matters most. A primary that is merely silent keeps its partition. A copy that may come back with its
//! data is waited for, while no other copy has all that was acknowledged. No step takes the last in-sync copy away. And
//! a copy that does not answer, was restarted or stops is left to its primary, which takes it out as soon as it has to
//! do without it: the master only believes that the primary is there, and if it was wrong, that copy is what is left.

use cairn_api_spec::cluster::Partition;

use crate::reason::Reason;

/// The last epoch of an entry: a version has room for no later one, beside the sequence, in 63 bits.
pub const LAST_EPOCH: u64 = (1 << 23) - 1;

/// What is known of a node as a holder of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Heard of lately: the process that the entry speaks of, or that it could speak of.
    Alive,
    /// Not heard of lately.
    Silent,
    /// Not heard of for so long that it counts as crashed. Its data may come back.
    Gone,
    /// Heard of lately, with its data, but started anew: it is in sync with nothing.
    Restarted {
        /// It has been there for longer than anything that it had promised before holds.
        settled: bool,
    },
    /// Registered with other data.
    DataLost,
    /// No longer registered.
    Removed,
}

impl Holder {
    fn is_lost(self) -> bool {
        matches!(self, Self::Removed | Self::DataLost)
    }
}

/// How a node stands towards one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is known of it as a holder.
    pub holder: Holder,
    /// The session that it is registered with.
    pub session: u64,
    /// It answers, stays, and may be given more.
    pub accepts: bool,
    /// It is about to stop, and will come back with its data.
    pub leaving: bool,
    /// Its wall clock is off: it must not lead, for it would let keys expire too early or too late.
    pub clock_off: bool,
}

/// The entry to store next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The entry, with an epoch one above the present one.
    pub next: Partition,
    /// Why.
    pub reason: Reason,
}

/// What the next step of an entry depends on besides the entry.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The nodes that should hold the partition, the primary first.
    pub desired: &'a [String],
    /// In-sync copies that have a write before it is acknowledged; `None` when every one of them has it.
    pub write_quorum: Option<usize>,
    /// Whether nodes may begin to learn it now.
    pub may_copy: bool,
    /// How a node stands towards the partition.
    pub standing: &'a dyn Fn(&str) -> Standing,
}

/// The next step of an entry towards its desired holders, or `None` while there is none to take. An entry at
/// [`LAST_EPOCH`] changes no more.
pub fn next_step(current: &Partition, view: View<'_>) -> Option<Step> {
    if current.epoch >= LAST_EPOCH {
        return None;
    }
    let Some(primary) = &current.primary else { return view.begin_anew(current, Reason::Assigned) };
    match view.holder(primary) {
        // Whatever its replicas do: it may have what they lack, or they what it lost, and it may be back in a moment.
        Holder::Silent => None,
        Holder::Alive => view
            .lose_replicas(current, primary)
            .or_else(|| view.resume_quorum(current, primary))
            .or_else(|| view.drop_learners(current))
            .or_else(|| view.name_successor(current, view.heir(current, primary)?))
            .or_else(|| view.add_learners(current))
            .or_else(|| view.settle_successor(current, primary))
            .or_else(|| view.release_surplus(current, primary)),
        _ => view.replace_primary(current, primary),
    }
}

impl View<'_> {
    fn holder(&self, node: &str) -> Holder {
        (self.standing)(node).holder
    }

    fn is_alive(&self, node: &str) -> bool {
        self.holder(node) == Holder::Alive
    }

    /// It holds the partition in sync, answers, and may be given more.
    fn can_lead(&self, node: &str) -> bool {
        let standing = (self.standing)(node);
        standing.holder == Holder::Alive && standing.accepts
    }

    fn begin_anew(&self, current: &Partition, reason: Reason) -> Option<Step> {
        let accepting = || self.desired.iter().filter(|node| (self.standing)(node).accepts);
        let primary = accepting().find(|node| !(self.standing)(node).clock_off).or_else(|| accepting().next())?;
        let mut next = following(current);
        next.generation = next.epoch;
        self.lead(&mut next, primary, vec![primary.clone()]);
        Some(Step { next, reason })
    }

    /// Another in-sync copy takes over, or the same goes on, or all waits, or nothing is left to wait for.
    fn replace_primary(&self, current: &Partition, primary: &str) -> Option<Step> {
        let left = self.left(current);
        if left == 0 {
            return self.begin_anew(current, Reason::Reassigned);
        }
        // Without any hope of so many, those that are left.
        let needed = self.needed(current).min(left);
        let alive = self.in_order(current, |holder| holder == Holder::Alive);
        if alive.len() >= needed {
            return alive.first().map(|next| self.promote(current, next));
        }
        if needed == 1 && matches!(self.holder(primary), Holder::Restarted { .. }) {
            return self.resume(current, vec![primary.to_owned()]);
        }
        self.resume(current, self.back(current, primary, needed)?)
    }

    /// So many copies that every acknowledged write is on one of them.
    fn needed(&self, current: &Partition) -> usize {
        (current.in_sync.len() + 1).saturating_sub(self.write_quorum.unwrap_or(usize::MAX)).max(1)
    }

    /// In-sync copies that are there, or may come back.
    fn left(&self, current: &Partition) -> usize {
        current.in_sync.iter().filter(|node| !self.holder(node).is_lost()).count()
    }

    /// Whether more than one copy is needed to know every acknowledged write, and they are there or may come back. Then no
    /// copy but those that have told the primary what they have is taken out, not even a lost one: of fewer copies fewer
    /// would seem to be needed, and a write may be on one of the others only.
    fn counts_all(&self, current: &Partition) -> bool {
        (2..=self.left(current)).contains(&self.needed(current))
    }

    /// So many copies of those that are back with their data, the primary first, and those before others that were not
    /// started anew: they have what memory alone held.
    fn back(&self, current: &Partition, primary: &str, needed: usize) -> Option<Vec<String>> {
        let alive = self.in_order(current, |holder| holder == Holder::Alive);
        let restarted = self.in_order(current, |holder| holder == Holder::Restarted { settled: true });
        let mut back: Vec<String> = alive.into_iter().chain(restarted).collect();
        back.sort_by_key(|node| node != primary);
        back.truncate(needed);
        (back.len() == needed).then_some(back)
    }

    /// The in-sync nodes of a kind, the best primary first: one whose clock is right, one that stays, one that is to be it
    /// in the end.
    fn in_order(&self, current: &Partition, kind: impl Fn(Holder) -> bool) -> Vec<String> {
        let mut nodes: Vec<String> = current.in_sync.iter().filter(|node| kind(self.holder(node))).cloned().collect();
        let place = |node: &String| self.desired.iter().position(|d| d == node).unwrap_or(self.desired.len());
        nodes.sort_by_key(|node| {
            let standing = (self.standing)(node);
            (standing.clock_off, !standing.accepts, place(node))
        });
        nodes
    }

    /// The others stay in sync, those that are gone or restarted too: the new primary takes them out if it can, and if it
    /// is gone itself, nobody has begun to do without them.
    fn promote(&self, current: &Partition, primary: &str) -> Step {
        let mut next = following(current);
        let counts_all = self.counts_all(current);
        for node in current.in_sync.iter().filter(|node| self.holder(node).is_lost() && !counts_all) {
            take_out(&mut next, node);
        }
        make_primary(&mut next, primary);
        Step { next, reason: Reason::Promoted }
    }

    /// A primary of which too few of the quorum are left to tell it everything goes on with processes that were restarted:
    /// it cannot take them out by itself.
    fn resume_quorum(&self, current: &Partition, primary: &str) -> Option<Step> {
        self.write_quorum?;
        let needed = self.needed(current);
        let alive = self.in_order(current, |holder| holder == Holder::Alive);
        if alive.len() >= needed {
            return None;
        }
        self.resume(current, self.back(current, primary, needed)?)
    }

    /// Goes on with these copies alone, unless one of the others may answer in a moment: a process that is merely silent
    /// still has what memory alone held. Of a quorum the others stay in the entry, as the processes that they were, until
    /// the primary has taken over what these have: should it fail before, as many copies are needed again.
    fn resume(&self, current: &Partition, in_sync: Vec<String>) -> Option<Step> {
        if current.in_sync.iter().any(|node| self.holder(node) == Holder::Silent) {
            return None;
        }
        let mut next = following(current);
        let primary = in_sync.first()?.clone();
        self.lead(&mut next, &primary, in_sync);
        if self.counts_all(current) {
            for (node, session) in current.in_sync.iter().filter_map(|node| current.sessions.get_key_value(node)) {
                if !next.in_sync.contains(node) {
                    next.in_sync.push(node.clone());
                    next.sessions.insert(node.clone(), *session);
                }
            }
        }
        Some(Step { next, reason: Reason::Resumed })
    }

    /// Puts a primary and its in-sync set in the place of those that were, each with its session of now.
    fn lead(&self, next: &mut Partition, primary: &str, in_sync: Vec<String>) {
        next.primary = Some(primary.to_owned());
        next.sessions = in_sync.iter().map(|node| (node.clone(), (self.standing)(node).session)).collect();
        next.in_sync = in_sync;
        next.learners.clear();
        next.successor = None;
    }

    fn lose_replicas(&self, current: &Partition, primary: &str) -> Option<Step> {
        if self.counts_all(current) {
            return None;
        }
        let lost = |node: &str| node != primary && self.holder(node).is_lost();
        without(current, &current.in_sync, lost, Reason::ReplicaLost)
    }

    fn drop_learners(&self, current: &Partition) -> Option<Step> {
        let given_up = |node: &str| {
            !self.is_alive(node) || (self.standing)(node).leaving || !self.desired.iter().any(|d| d == node)
        };
        without(current, &current.learners, given_up, Reason::LearnerDropped)
    }

    /// Who is to take over at once from a primary that is about to stop, or whose clock is off. When it stops, any other
    /// is better than none; otherwise only one whose clock is right.
    fn heir(&self, current: &Partition, primary: &str) -> Option<String> {
        let Standing { leaving, clock_off, .. } = (self.standing)(primary);
        if !leaving && !clock_off {
            return None;
        }
        let may_follow = |node: &String| self.can_lead(node) && (leaving || !(self.standing)(node).clock_off);
        self.in_order(current, |holder| holder == Holder::Alive).into_iter().find(may_follow)
    }

    fn name_successor(&self, current: &Partition, successor: String) -> Option<Step> {
        if current.successor.as_ref() == Some(&successor) {
            return None;
        }
        let next = Partition { successor: Some(successor), ..following(current) };
        Some(Step { next, reason: Reason::SuccessorNamed })
    }

    fn add_learners(&self, current: &Partition) -> Option<Step> {
        let mut next = following(current);
        let has = |node: &String| current.in_sync.contains(node) || current.learners.contains(node);
        let missing = |node: &&String| self.may_copy && !has(node) && (self.standing)(node).accepts;
        for node in self.desired.iter().filter(missing) {
            next.learners.push(node.clone());
            next.sessions.insert(node.clone(), (self.standing)(node).session);
        }
        (next.learners.len() > current.learners.len()).then_some(Step { next, reason: Reason::LearnerAdded })
    }

    /// Names the desired primary once everyone else is in sync, so that nothing is copied from two primaries.
    fn settle_successor(&self, current: &Partition, primary: &str) -> Option<Step> {
        let clock_off = |node: &str| (self.standing)(node).clock_off;
        let may_follow = |node: &&String| {
            // Among clocks that are off nothing is won by a change, unless the primary is to hold no copy any more.
            let is_no_worse = !clock_off(node) || clock_off(primary) && !self.desired.iter().any(|d| d == primary);
            *node != primary && current.in_sync.contains(*node) && self.can_lead(node) && is_no_worse
        };
        let wanted = match self.heir(current, primary) {
            Some(successor) => Some(successor),
            None => self.desired.first().filter(may_follow).cloned(),
        };
        match wanted {
            Some(successor) if current.learners.is_empty() => self.name_successor(current, successor),
            wanted if wanted == current.successor => None,
            _ if current.successor.is_none() => None,
            _ => {
                let next = Partition { successor: None, ..following(current) };
                Some(Step { next, reason: Reason::SuccessorWithdrawn })
            }
        }
    }

    fn release_surplus(&self, current: &Partition, primary: &str) -> Option<Step> {
        let holds = |node: &String| current.in_sync.contains(node) && self.is_alive(node);
        if self.desired.is_empty() || !self.desired.iter().all(holds) {
            return None;
        }
        // One of a quorum that is away may have what the primary, as long as it has not taken over, lacks.
        if self.counts_all(current) && !current.in_sync.iter().all(|node| self.is_alive(node)) {
            return None;
        }
        let surplus = |node: &str| node != primary && !self.desired.iter().any(|d| d == node);
        without(current, &current.in_sync, surplus, Reason::Released)
    }
}

/// The step that takes some of `among` out of the entry, if there are any.
fn without(current: &Partition, among: &[String], which: impl Fn(&str) -> bool, reason: Reason) -> Option<Step> {
    let out: Vec<&String> = among.iter().filter(|node| which(node)).collect();
    if out.is_empty() {
        return None;
    }
    let mut next = following(current);
    for node in out {
        take_out(&mut next, node);
    }
    Some(Step { next, reason })
}

pub(crate) fn take_out(entry: &mut Partition, node: &str) {
    entry.in_sync.retain(|other| other != node);
    entry.learners.retain(|other| other != node);
    entry.sessions.remove(node);
    entry.successor.take_if(|successor| successor == node);
}

/// Makes an in-sync node the primary. Learners begin again with it: what they have is the old primary's word.
pub(crate) fn make_primary(entry: &mut Partition, node: &str) {
    entry.primary = Some(node.to_owned());
    entry.in_sync.sort_by_key(|other| other != node);
    for learner in std::mem::take(&mut entry.learners) {
        entry.sessions.remove(&learner);
    }
    entry.successor = None;
}

pub(crate) fn following(current: &Partition) -> Partition {
    Partition { epoch: current.epoch + 1, ..current.clone() }
}
