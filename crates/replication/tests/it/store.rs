//! The metadata store's entry of one partition, and everything that may legally be done to it.

use cairn_replication::{Change, Entry};

use crate::message::{Node, Process, Request};

/// What the store knows of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Registered {
    pub(crate) process: Process,
    /// The first session on the data that it has now.
    pub(crate) data_since: u64,
}

/// A step of the controller. It acts on beliefs: that a node is gone may be wrong, that a process has started is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// An in-sync replica takes the place of a primary that seems gone, and is to take out who does not answer; or `alone`,
    /// as if it had done that at once.
    Promote {
        to: Node,
        alone: bool,
    },
    /// A copy whose process has been restarted counts again, as the only one.
    Resume(Node),
    /// A replica that seems gone, or is not needed, leaves.
    Remove(Node),
    AddLearner(Node),
    DropLearner(Node),
    NameSuccessor(Node),
    WithdrawSuccessor,
}

/// The entry after a primary's request, if that is legal.
pub(crate) fn answer(entry: &Entry<Node>, request: &Request) -> Option<Entry<Node>> {
    let asker = &request.from;
    if request.epoch != entry.epoch || entry.primary != Some(asker.node) || !entry.in_sync.contains(asker) {
        return None;
    }
    let mut next = Entry { epoch: entry.epoch + 1, ..entry.clone() };
    let in_sync = |node: Node| entry.in_sync.iter().any(|member| member.node == node);
    match request.change {
        Change::CaughtUp(node) => {
            let index = next.learners.iter().position(|member| member.node == node)?;
            next.in_sync.push(next.learners.remove(index));
        }
        Change::Remove(node) => {
            next.in_sync.retain(|member| member.node != node);
            next.learners.retain(|member| member.node != node);
            next.successor = next.successor.filter(|successor| *successor != node);
        }
        Change::HandOver(node) | Change::StepDown(node) => {
            if !in_sync(node) {
                return None;
            }
            next.primary = Some(node);
            next.successor = None;
            if matches!(request.change, Change::StepDown(_)) {
                next.in_sync.retain(|member| member != asker);
            }
        }
    }
    Some(next)
}

/// Every step that is legal.
pub(crate) fn legal_steps(entry: &Entry<Node>, nodes: &[Registered]) -> Vec<Step> {
    let mut steps = Vec::new();
    for Registered { process, data_since } in nodes {
        let node = process.node;
        let is_primary = entry.primary == Some(node);
        if let Some(member) = entry.in_sync.iter().find(|member| member.node == node) {
            if member != process && member.session >= *data_since {
                steps.push(Step::Resume(node));
            }
            if !is_primary {
                steps.push(Step::Remove(node));
                if member == process {
                    steps.extend([false, true].map(|alone| Step::Promote { to: node, alone }));
                    steps.push(Step::NameSuccessor(node));
                }
            }
        } else if entry.learners.iter().any(|member| member.node == node) {
            steps.push(Step::DropLearner(node));
        } else {
            steps.push(Step::AddLearner(node));
        }
    }
    steps.push(Step::WithdrawSuccessor);
    steps
}

/// The entry after a step.
pub(crate) fn take(entry: &Entry<Node>, step: Step, nodes: &[Registered]) -> Entry<Node> {
    let mut next = Entry { epoch: entry.epoch + 1, ..entry.clone() };
    let process = |node: Node| nodes.iter().map(|known| &known.process).find(|process| process.node == node).cloned();
    match step {
        Step::Promote { to, alone } => {
            next.in_sync.retain(|member| !alone || member.node == to);
            next.primary = Some(to);
            next.learners.clear();
            next.successor = None;
        }
        Step::Resume(node) => {
            next.primary = Some(node);
            next.in_sync = process(node).into_iter().collect();
            next.learners.clear();
            next.successor = None;
        }
        Step::Remove(node) => {
            next.in_sync.retain(|member| member.node != node);
            next.successor = next.successor.filter(|successor| *successor != node);
        }
        Step::AddLearner(node) => next.learners.extend(process(node)),
        Step::DropLearner(node) => next.learners.retain(|member| member.node != node),
        Step::NameSuccessor(node) => next.successor = Some(node),
        Step::WithdrawSuccessor => next.successor = None,
    }
    next
}
