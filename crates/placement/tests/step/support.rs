//! Entries, standings, and what is expected of one step.

use cairn_api_spec::cluster::{ChangePartition, Partition, PartitionChange};
use cairn_placement::{Holder, Reason, Standing, Step, View, next_step};

/// An entry at epoch 5 whose holders have session 1; the first in-sync node is the primary.
pub(crate) fn entry(in_sync: &[&str], learners: &[&str]) -> Partition {
    let names = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
    let sessions = in_sync.iter().chain(learners).map(|&id| (id.to_owned(), 1)).collect();
    Partition {
        id: 3,
        epoch: 5,
        generation: 1,
        primary: in_sync.first().map(|&id| id.to_owned()),
        in_sync: names(in_sync),
        learners: names(learners),
        sessions,
        successor: None,
    }
}

pub(crate) fn alive() -> Standing {
    Standing { holder: Holder::Alive, session: 1, accepts: true, leaving: false, clock_off: false }
}

pub(crate) fn as_holder(holder: Holder) -> Standing {
    let session = if matches!(holder, Holder::Restarted { .. }) { 2 } else { 1 };
    let accepts = matches!(holder, Holder::Alive | Holder::Restarted { .. } | Holder::DataLost);
    Standing { holder, session, accepts, leaving: false, clock_off: false }
}

pub(crate) fn leaving() -> Standing {
    Standing { accepts: false, leaving: true, ..alive() }
}

pub(crate) struct Case {
    pub(crate) desired: Vec<String>,
    pub(crate) standings: Vec<(&'static str, Standing)>,
    pub(crate) write_quorum: Option<usize>,
    pub(crate) may_copy: bool,
}

pub(crate) fn case(desired: &[&str], standings: &[(&'static str, Standing)]) -> Case {
    let desired = desired.iter().map(|&id| id.to_owned()).collect();
    Case { desired, standings: standings.to_vec(), write_quorum: None, may_copy: true }
}

impl Case {
    pub(crate) fn step(&self, current: &Partition) -> Option<Step> {
        let standing = |id: &str| self.standings.iter().find(|(other, _)| *other == id).map_or(alive(), |(_, s)| *s);
        let view = View {
            desired: &self.desired,
            write_quorum: self.write_quorum,
            may_copy: self.may_copy,
            standing: &standing,
        };
        next_step(current, view)
    }

    pub(crate) fn expect(&self, current: &Partition, reason: Reason, next: &Partition) {
        let expected = Step { next: Partition { epoch: current.epoch + 1, ..next.clone() }, reason };
        assert_eq!(self.step(current), Some(expected));
    }

    pub(crate) fn expect_none(&self, current: &Partition) {
        assert_eq!(self.step(current), None);
    }
}

pub(crate) fn with_session(mut entry: Partition, id: &str, session: u64) -> Partition {
    entry.sessions.insert(id.to_owned(), session);
    entry
}

pub(crate) fn named(entry: Partition, successor: &str) -> Partition {
    Partition { successor: Some(successor.to_owned()), ..entry }
}

pub(crate) fn clock_off() -> Standing {
    Standing { clock_off: true, ..alive() }
}

pub(crate) fn asks(change: PartitionChange, subject: &str) -> ChangePartition {
    ChangePartition { node_id: "a".to_owned(), session: 1, epoch: 5, change, subject: subject.to_owned() }
}
