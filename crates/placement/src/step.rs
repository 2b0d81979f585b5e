//! The legal transitions of a partition's map entry. Each raises its epoch by one.
//!
//! | from | to | when |
//! |---|---|---|
//! | no primary | primary | a node is there to take it |
//! | primary | primary + learner | another node should hold it, and both are alive |
//! | primary + learner | primary | the learner is no longer wanted, or does not answer: writes wait for its word |
//! | primary + learner | learner is primary | the learner says that it has everything ([`promote`]) |
//! | primary | another primary | every in-sync copy is lost: removed by force, or its data are gone |
//!
//! What is absent matters most: a silent primary keeps its partitions, because its disk holds acknowledged writes.

use cairn_api_spec::cluster::Partition;

/// What is known of a node as the holder of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Heard of lately, with the data that it had when it became a holder.
    Alive,
    /// Registered, with its data as far as anyone knows, but not heard of lately.
    Silent,
    /// No longer registered.
    Removed,
    /// Registered with another incarnation than the one that became a holder.
    DataLost,
}

impl Holder {
    fn is_lost(self) -> bool {
        matches!(self, Self::Removed | Self::DataLost)
    }
}

/// Why an entry changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It had no primary yet.
    Assigned,
    /// A node begins to learn it.
    LearnerAdded,
    /// A learner is given up.
    LearnerDropped,
    /// A learner became the primary.
    Promoted,
    /// Every in-sync copy was lost.
    Reassigned,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::Assigned, Self::LearnerAdded, Self::LearnerDropped, Self::Promoted, Self::Reassigned];

    /// The reason in `snake_case`, for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::LearnerAdded => "learner_added",
            Self::LearnerDropped => "learner_dropped",
            Self::Promoted => "promoted",
            Self::Reassigned => "reassigned",
        }
    }
}

/// The entry to store next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The entry, with an epoch one above the present one.
    pub next: Partition,
    /// Why.
    pub reason: Reason,
}

/// The next step of an entry towards its `desired` holders, or `None` while there is none to take.
pub fn next_step(current: &Partition, desired: &[String], holder: &dyn Fn(&str) -> Holder) -> Option<Step> {
    let Some(primary) = &current.primary else { return assign(current, desired, holder, Reason::Assigned) };
    if holder(primary).is_lost() {
        let survives = current.in_sync.iter().any(|node| !holder(node).is_lost());
        return if survives { None } else { assign(current, desired, holder, Reason::Reassigned) };
    }
    let given_up = |node: &&String| !desired.contains(node) || holder(node) != Holder::Alive;
    if let Some(learner) = current.learners.iter().find(given_up) {
        let mut next = following(current);
        next.learners.retain(|node| node != learner);
        return Some(Step { next, reason: Reason::LearnerDropped });
    }
    if holder(primary) != Holder::Alive || !current.learners.is_empty() {
        return None;
    }
    let missing = |node: &&String| !current.in_sync.contains(node) && holder(node) == Holder::Alive;
    let learner = desired.iter().find(missing)?;
    let mut next = following(current);
    next.learners.push(learner.clone());
    Some(Step { next, reason: Reason::LearnerAdded })
}

/// The step that puts a learner in the primary's place; `None` when the node is no learner of the partition.
pub fn promote(current: &Partition, learner: &str) -> Option<Step> {
    if !current.learners.iter().any(|node| node == learner) {
        return None;
    }
    let mut next = following(current);
    next.learners.retain(|node| node != learner);
    next.in_sync.retain(|node| Some(node) != current.primary.as_ref());
    next.in_sync.insert(0, learner.to_owned());
    next.primary = Some(learner.to_owned());
    Some(Step { next, reason: Reason::Promoted })
}

fn assign(current: &Partition, desired: &[String], holder: &dyn Fn(&str) -> Holder, reason: Reason) -> Option<Step> {
    // A node that lost its data may begin anew with none: it restores what the object store has.
    let takes = |node: &&String| matches!(holder(node), Holder::Alive | Holder::DataLost);
    let primary = desired.first().filter(takes)?;
    let mut next = following(current);
    next.generation = next.epoch;
    next.primary = Some(primary.clone());
    next.in_sync = vec![primary.clone()];
    next.learners.clear();
    Some(Step { next, reason })
}

fn following(current: &Partition) -> Partition {
    Partition { epoch: current.epoch + 1, ..current.clone() }
}
