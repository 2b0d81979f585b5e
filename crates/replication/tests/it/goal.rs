//! What must be possible at all: a model in which nothing happens keeps every promise.

use stateright::Property;

use crate::{hashed::Hashed, host::Host, model::Cluster, state::State};

/// What must be possible at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    WriteAcknowledged,
    /// It was taken when there were enough copies, and acknowledged when there were again.
    WaitingWriteAcknowledged,
    AnotherNodeServes,
    LearnerInSync,
    RestartedServes,
    FirstServesAgain,
    LossIsTold,
}

impl Goal {
    pub(crate) fn property(self) -> Property<Cluster> {
        match self {
            Self::WriteAcknowledged => Property::sometimes("a write is acknowledged", |model, state: &State| {
                state.history.iter().skip(model.preloaded).any(|write| write.acknowledged)
            }),
            Self::WaitingWriteAcknowledged => Property::sometimes("a write waits for a copy", |_, state: &State| {
                state.entry().epoch > 3
                    && state.history.iter().any(|write| write.acknowledged && write.version.0 >> 40 == 1)
            }),
            Self::AnotherNodeServes => Property::sometimes("another node serves", |_, state: &State| {
                let serves = |host: &&Hashed<Host>| host.replica.check_serving().is_ok() && host.may_read(state.now);
                state.hosts.iter().skip(1).any(|host| serves(&host) && host.replica.entry() == state.entry())
            }),
            Self::LearnerInSync => Property::sometimes("a learner is in sync", |model, state: &State| {
                state.entry().in_sync.iter().any(|member| member.node >= model.in_sync)
            }),
            Self::RestartedServes => Property::sometimes("a restarted copy serves", |_, state: &State| {
                state.hosts.iter().any(|host| host.me.session > 1 && host.replica.check_serving().is_ok())
            }),
            Self::LossIsTold => Property::sometimes("a loss is told", |_, state: &State| {
                state.history.iter().any(|operation| operation.acknowledged && operation.lost)
            }),
            Self::FirstServesAgain => Property::sometimes("the first primary serves again", |_, state: &State| {
                state.hosts[0].replica.check_serving().is_ok() && state.hosts[1].replica.fence() > 2
            }),
        }
    }
}
