//! The map entry of a partition as its replicas see it.

/// One process of a node: a restarted node is another member, since it has forgotten what it promised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member<N> {
    /// The node.
    pub node: N,
    /// How often it has been started on its data.
    pub session: u64,
}

/// Who holds a partition: changed only by compare-and-swap on its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry<N> {
    /// Grows with every change; 0: never assigned.
    pub epoch: u64,
    /// The node that orders writes and answers reads.
    pub primary: Option<N>,
    /// Those that hold every acknowledged write, the primary among them.
    pub in_sync: Vec<Member<N>>,
    /// Those that are being brought up to date.
    pub learners: Vec<Member<N>>,
    /// The in-sync node that the primary is to hand over to.
    pub successor: Option<N>,
}

/// What an entry makes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    None,
    Learner,
    InSync,
    Primary,
}

impl<N> Default for Entry<N> {
    fn default() -> Self {
        Self { epoch: 0, primary: None, in_sync: Vec::new(), learners: Vec::new(), successor: None }
    }
}

impl<N: PartialEq> Entry<N> {
    /// The process that orders writes and answers reads.
    pub fn primary_process(&self) -> Option<&Member<N>> {
        self.in_sync.iter().find(|member| Some(&member.node) == self.primary.as_ref())
    }

    pub(crate) fn place(&self, member: &Member<N>) -> Place {
        if self.in_sync.contains(member) {
            if self.primary.as_ref() == Some(&member.node) { Place::Primary } else { Place::InSync }
        } else if self.learners.contains(member) {
            Place::Learner
        } else {
            Place::None
        }
    }
}

/// What a primary asks of the metadata store, as a compare-and-swap on the epoch that it knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change<N> {
    /// The learner has everything: it becomes in-sync.
    CaughtUp(N),
    /// The replica or learner does not acknowledge: it leaves the entry.
    Remove(N),
    /// The in-sync node becomes the primary; the asker has stopped serving and stays in-sync.
    HandOver(N),
    /// The in-sync node becomes the primary; the asker cannot store writes and leaves.
    StepDown(N),
}
