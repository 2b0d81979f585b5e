//! The transitions of a partition's map entry that its primary asks for. Each raises the epoch by one.
//!
//! Only the primary that the entry names, with that session, may ask, and only from the present epoch: what it found
//! out under an older entry may be true no more. And what it asks for must not make a node count as in sync or as the
//! primary that the master knows to be another process by now, or away.

use cairn_api_spec::cluster::{ChangePartition, Partition, PartitionChange};

use crate::{
    reason::Reason,
    step::{Holder, LAST_EPOCH, Standing, Step, following, make_primary, take_out},
};

/// The step that the primary asks for, or `None` when it may not, or the entry is at [`LAST_EPOCH`].
pub fn change(current: &Partition, asked: &ChangePartition, standing: &dyn Fn(&str) -> Standing) -> Option<Step> {
    let ChangePartition { node_id: primary, session, epoch, change, subject } = asked;
    let asks = current.epoch == *epoch
        && current.epoch < LAST_EPOCH
        && current.primary.as_ref() == Some(primary)
        && current.sessions.get(primary) == Some(session)
        && matches!(standing(primary).holder, Holder::Alive | Holder::Silent | Holder::Gone);
    if !asks || subject == primary {
        return None;
    }
    let is_in_sync = current.in_sync.contains(subject);
    let is_learner = current.learners.contains(subject);
    let is_alive = standing(subject).holder == Holder::Alive;
    let mut next = following(current);
    let reason = match change {
        PartitionChange::CaughtUp if is_learner && is_alive => {
            next.learners.retain(|node| node != subject);
            next.in_sync.push(subject.clone());
            Reason::CaughtUp
        }
        PartitionChange::Remove if is_in_sync || is_learner => {
            take_out(&mut next, subject);
            Reason::Late
        }
        PartitionChange::HandOver if is_in_sync && is_alive => {
            make_primary(&mut next, subject);
            Reason::HandedOver
        }
        PartitionChange::StepDown if is_in_sync && is_alive => {
            make_primary(&mut next, subject);
            take_out(&mut next, primary);
            Reason::SteppedDown
        }
        _ => return None,
    };
    Some(Step { next, reason })
}

/// Whether the entry is what it became, or could have become, by this request: then the answer got lost.
pub fn is_done(current: &Partition, asked: &ChangePartition) -> bool {
    let ChangePartition { node_id: primary, session, epoch, change, subject } = asked;
    let same_session = current.sessions.get(primary) == Some(session);
    let leads = |node: &String| current.primary.as_ref() == Some(node);
    let done = match change {
        PartitionChange::CaughtUp => same_session && leads(primary) && current.in_sync.contains(subject),
        PartitionChange::Remove => same_session && leads(primary) && !current.sessions.contains_key(subject),
        PartitionChange::HandOver => same_session && leads(subject),
        PartitionChange::StepDown => leads(subject) && !current.sessions.contains_key(primary),
    };
    done && epoch.checked_add(1) == Some(current.epoch)
}
