//! The clusters that are explored: each small enough to be explored completely, and about one part of the protocol.

use cairn_replication::Settings;

use crate::{
    goal::Goal,
    host::Rules,
    message::Node,
    model::{Bounds, Cluster},
    store::Step,
};

/// So many nodes, the first of them in sync. One tick is one lease: the comparisons are strict, so more ticks to a lease
/// would only make more states. What is sent is never lost but may take for ever, so nothing need be sent again.
fn cluster(nodes: Node, in_sync: Node, writes: usize, bounds: Bounds) -> Cluster {
    let settings = Settings { lease: 1, promise: 1, renew: 1, retry: 100, late: 1, ..Settings::default() };
    Cluster {
        nodes,
        in_sync,
        writes: vec![0; writes],
        preloaded: 0,
        ahead: false,
        rules: Rules { settings, page: 1, patience: 100, bug: None },
        bounds,
        allows: |_| false,
        slow_disk: false,
        prompt_leases: true,
        goals: vec![Goal::WriteAcknowledged],
    }
}

/// The primary of three seems gone.
pub(crate) fn failover() -> Cluster {
    let mut model = cluster(3, 3, 1, Bounds { ticks: 1, epoch: 2, ..Bounds::default() });
    model.allows = |step| matches!(step, Step::Promote { .. });
    model.goals.push(Goal::AnotherNodeServes);
    model
}

/// One of two seems gone, or is; disks and leases take their time.
pub(crate) fn failover_of_two() -> Cluster {
    let mut model = cluster(2, 2, 2, Bounds { ticks: 2, epoch: 3, ..Bounds::default() });
    (model.slow_disk, model.prompt_leases) = (true, false);
    model.allows = |step| matches!(step, Step::Promote { alone: true, .. } | Step::Remove(_));
    model.goals.push(Goal::AnotherNodeServes);
    model
}

/// The one that takes over finds out who is gone, and so may the one after it.
pub(crate) fn failover_and_back() -> Cluster {
    let mut model = cluster(2, 2, 1, Bounds { ticks: 2, epoch: 4, ..Bounds::default() });
    model.allows = |step| matches!(step, Step::Promote { alone: false, .. });
    model.goals.extend([Goal::AnotherNodeServes, Goal::FirstServesAgain]);
    model
}

/// Everything unanswered is sent again.
pub(crate) fn retries() -> Cluster {
    let mut model = cluster(2, 2, 2, Bounds { ticks: 3, epoch: 3, ..Bounds::default() });
    model.rules.settings.retry = 1;
    model.allows = |step| matches!(step, Step::Promote { alone: true, .. });
    model.goals.push(Goal::AnotherNodeServes);
    model
}

/// Writes are acknowledged before they are on a disk.
pub(crate) fn memory() -> Cluster {
    let mut model = cluster(2, 2, 2, Bounds { ticks: 1, epoch: 3, ..Bounds::default() });
    (model.slow_disk, model.ahead) = (true, true);
    model.allows = |step| matches!(step, Step::Promote { alone: true, .. } | Step::NameSuccessor(_));
    model.goals.push(Goal::AnotherNodeServes);
    model
}

/// A majority is enough, and so many are left that one of them has everything.
pub(crate) fn quorum() -> Cluster {
    let mut model = cluster(3, 3, 1, Bounds { ticks: 1, epoch: 2, ..Bounds::default() });
    model.rules.settings.write_quorum = Some(2);
    model.allows = |step| matches!(step, Step::Promote { alone: false, .. });
    model.goals.push(Goal::AnotherNodeServes);
    model
}

/// The primary is to hand over, and perhaps not after all.
pub(crate) fn handover() -> Cluster {
    let mut model = cluster(2, 2, 1, Bounds { ticks: 1, epoch: 4, ..Bounds::default() });
    model.allows = |step| matches!(step, Step::NameSuccessor(_) | Step::WithdrawSuccessor);
    model.goals.push(Goal::AnotherNodeServes);
    model
}

/// The primary hands over, and is handed over to.
pub(crate) fn back_and_forth() -> Cluster {
    let mut model = cluster(2, 2, 1, Bounds { ticks: 0, epoch: 5, ..Bounds::default() });
    model.allows = |step| matches!(step, Step::NameSuccessor(_));
    model.goals.extend([Goal::AnotherNodeServes, Goal::FirstServesAgain]);
    model
}

/// A primary that has handed over takes over from one that seems gone.
pub(crate) fn handover_and_failover() -> Cluster {
    let mut model = cluster(2, 2, 1, Bounds { ticks: 1, epoch: 4, ..Bounds::default() });
    model.allows = |step| matches!(step, Step::NameSuccessor(_) | Step::Promote { alone: true, .. });
    model.goals.extend([Goal::AnotherNodeServes, Goal::FirstServesAgain]);
    model
}

/// A node joins one that has data and takes writes, and may be promoted at once.
pub(crate) fn join() -> Cluster {
    let mut model = cluster(2, 1, 2, Bounds { ticks: 1, epoch: 4, copies: 2, duplicates: 1, ..Bounds::default() });
    (model.writes, model.preloaded, model.slow_disk) = (vec![0, 1], 1, true);
    model.allows =
        |step| matches!(step, Step::AddLearner(_) | Step::DropLearner(_) | Step::Promote { alone: true, .. });
    model.goals.extend([Goal::LearnerInSync, Goal::AnotherNodeServes]);
    model
}

/// A node joins, is dropped or removed, and joins again.
pub(crate) fn join_again() -> Cluster {
    let mut model = cluster(2, 1, 2, Bounds { ticks: 1, epoch: 6, copies: 2, ..Bounds::default() });
    (model.writes, model.preloaded) = (vec![0, 1], 1);
    model.allows = |step| matches!(step, Step::AddLearner(_) | Step::DropLearner(_) | Step::Remove(_));
    model.goals.push(Goal::LearnerInSync);
    model
}

/// A node joins two, while one of them has not got everything.
pub(crate) fn join_of_a_third() -> Cluster {
    let mut model = cluster(3, 2, 1, Bounds { ticks: 0, epoch: 4, copies: 1, ..Bounds::default() });
    model.allows = |step| matches!(step, Step::AddLearner(_) | Step::Promote { alone: true, .. });
    model.goals.push(Goal::LearnerInSync);
    model
}

/// Two copies are required, one is lost, and another node joins while writes wait for it.
pub(crate) fn too_few_copies() -> Cluster {
    let mut model = cluster(2, 2, 2, Bounds { ticks: 1, epoch: 4, copies: 1, ..Bounds::default() });
    model.rules.settings.min_in_sync = 2;
    model.allows = |step| matches!(step, Step::AddLearner(_) | Step::Remove(_));
    model.goals.push(Goal::WaitingWriteAcknowledged);
    model
}

/// A primary that seemed gone learns from the one that has taken its place.
pub(crate) fn rejoin() -> Cluster {
    let mut model = cluster(2, 2, 2, Bounds { ticks: 1, epoch: 5, copies: 1, ..Bounds::default() });
    model.allows = |step| matches!(step, Step::Promote { alone: true, .. } | Step::AddLearner(_));
    model.goals.push(Goal::AnotherNodeServes);
    model
}

/// A process starts anew, whatever it was, and its copy is resumed at once.
pub(crate) fn restart() -> Cluster {
    let mut model = cluster(2, 2, 2, Bounds { ticks: 2, epoch: 3, restarts: 1, ..Bounds::default() });
    model.slow_disk = true;
    model.allows = |step| matches!(step, Step::Promote { alone: true, .. } | Step::Resume(_));
    model.goals.extend([Goal::AnotherNodeServes, Goal::RestartedServes]);
    model
}

/// A disk is lost.
pub(crate) fn wipe() -> Cluster {
    let mut model = cluster(2, 2, 1, Bounds { ticks: 1, epoch: 5, wipes: 1, copies: 1, ..Bounds::default() });
    model.allows = |step| {
        matches!(step, Step::Promote { alone: true, .. } | Step::Resume(_) | Step::Remove(_) | Step::AddLearner(_))
    };
    model.goals.push(Goal::AnotherNodeServes);
    model
}

/// A disk refuses a write.
pub(crate) fn disk_failure() -> Cluster {
    let mut model = cluster(2, 2, 2, Bounds { ticks: 1, epoch: 3, disk_failures: 1, copies: 1, ..Bounds::default() });
    model.slow_disk = true;
    model.allows = |step| matches!(step, Step::Promote { alone: true, .. } | Step::AddLearner(_));
    model.goals.push(Goal::AnotherNodeServes);
    model
}

/// A disk refuses a write that was acknowledged before, and one of the two seems gone.
pub(crate) fn memory_and_disk_failure() -> Cluster {
    let mut model = cluster(2, 2, 1, Bounds { ticks: 1, epoch: 3, disk_failures: 1, ..Bounds::default() });
    (model.slow_disk, model.ahead) = (true, true);
    model.rules.settings.patience = 1;
    model.allows = |step| matches!(step, Step::Promote { to: 1, alone: false });
    model.goals.extend([Goal::AnotherNodeServes, Goal::LossIsTold, Goal::FirstServesAgain]);
    model
}
