//! The model: everything that nodes may do with a bucket, in any order, within bounds.

use cairn_object_tier::rules::collect::{Basis, tombstone_may_go};
use stateright::{Model, Property};

use crate::{
    bucket::{Bucket, Checkpoint, Id, Key, Request, Sent},
    planted::Bug,
    restoring::Restore,
    state::{Host, Late, NODES, Row, State, Tell, Used},
};

/// How often things may happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) segments: usize,
    /// Of those, how many move what is in others already.
    pub(crate) moves: usize,
    pub(crate) checkpoints: usize,
    pub(crate) failovers: usize,
    /// Requests that seem to fail.
    pub(crate) failures: usize,
    /// How often all disks are lost.
    pub(crate) losses: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Situation {
    pub(crate) keys: Key,
    /// Puts (`true`) and deletions, one after the other.
    pub(crate) operations: Vec<(Key, bool)>,
    /// A write may be seen by the primary alone.
    pub(crate) uncommitted: bool,
    pub(crate) late: Late,
    pub(crate) bounds: Bounds,
    pub(crate) bug: Option<Bug>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Write,
    Commit,
    Gather { moving: bool },
    Execute(Sent),
    Answer(Sent),
    GiveUp(Sent),
    Tell(Tell),
    Checkpoint,
    Reconcile,
    RemoveSegment(Id),
    RemoveCheckpoint(Id),
    DropTombstone(Key),
    FailOver,
    LoseDisks,
    Restore,
}

/// The epoch of the first primary. The next one has a digit more.
pub(crate) const EPOCH: u64 = 9;

impl Model for Situation {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let keys = usize::from(self.keys);
        let host = Host { session: 1, seq: 0, rows: vec![None; keys], basis: None, reconciled: false };
        vec![State {
            late: self.late,
            bug: self.bug,
            epoch: EPOCH,
            primary: 0,
            hosts: vec![host; NODES],
            bucket: Bucket::default(),
            tells: Vec::new(),
            restore: Some(Restore::Begun),
            last: cairn_api_spec::Version::NONE,
            uncommitted: None,
            truth: vec![None; keys],
            uploaded: vec![None; keys],
            history: Vec::new(),
            wrong: false,
            used: Used::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let (bounds, used) = (self.bounds, state.used);
        for sent in &state.bucket.sent {
            actions.push(if sent.executed { Action::Answer(sent.clone()) } else { Action::Execute(sent.clone()) });
            let may_fail = used.failures < bounds.failures && !sent.given_up;
            if may_fail && matches!(sent.request, Request::PutSegment(_) | Request::PutCheckpoint(_)) {
                actions.push(Action::GiveUp(sent.clone()));
            }
        }
        actions.extend(state.tells.iter().cloned().map(Action::Tell));
        if used.losses < bounds.losses {
            actions.push(Action::LoseDisks);
        }
        self.removals(state, actions);
        match &state.restore {
            Some(Restore::Read { .. }) if state.settles() => {}
            Some(Restore::Read { .. }) if used.checkpoints >= bounds.checkpoints => {}
            Some(_) => actions.push(Action::Restore),
            None => self.service(state, actions),
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.act(&mut next, action).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a restore would be right", |_, state: &State| state.a_restore_would_be_right()),
            Property::always("a restore was right", |_, state: &State| !state.wrong),
            Property::always("nothing is left out", |_, state: &State| state.nothing_is_left_out()),
            Property::always("nothing is missing", |_, state: &State| state.nothing_is_missing()),
            Property::sometimes("something is removed", |model: &Self, state: &State| {
                state.used.removed || model.bounds.checkpoints < 2
            }),
            Property::sometimes("something is restored", |model: &Self, state: &State| {
                state.used.restored || model.bounds.losses == 0
            }),
        ]
    }
}

impl Situation {
    /// What a primary does that serves.
    fn service(&self, state: &State, actions: &mut Vec<Action>) {
        let (bounds, used) = (self.bounds, state.used);
        if state.uncommitted.is_some() {
            actions.push(Action::Commit);
        } else if used.operations < self.operations.len() {
            actions.push(Action::Write);
        }
        if used.segments < bounds.segments {
            actions.push(Action::Gather { moving: false });
            if used.moves < bounds.moves {
                actions.push(Action::Gather { moving: true });
            }
        }
        if used.checkpoints < bounds.checkpoints {
            actions.push(Action::Checkpoint);
        }
        if !state.host().reconciled {
            actions.push(Action::Reconcile);
        }
        if used.failovers < bounds.failovers {
            actions.push(Action::FailOver);
        }
        let deleted = state.host().rows.iter().flatten().filter(|row| !row.fact.live);
        let watermark = state.host().basis.as_ref().map(|basis| basis.watermark).unwrap_or_default();
        let may_go = |row: &&Row| {
            state.uncommitted != Some(row.fact)
                && (self.bug == Some(Bug::TombstoneEarly)
                    || tombstone_may_go(row.place.is_none(), row.fact.version, watermark))
        };
        actions.extend(deleted.filter(may_go).map(|row| Action::DropTombstone(row.fact.key)));
    }

    /// What may be removed from the bucket.
    fn removals(&self, state: &State, actions: &mut Vec<Action>) {
        let lead = state.lead();
        let basis = state.host().basis.as_ref();
        let based: Option<Basis> = basis.map(Checkpoint::basis);
        for segment in &state.bucket.segments {
            let released = based.as_ref().is_some_and(|basis| {
                basis.releases_segment(&segment.id.segment(), segment.epoch, segment.newest(), lead)
            });
            let unused = || state.host().rows.iter().flatten().all(|row| row.place != Some(segment.id));
            let released = match self.bug {
                Some(Bug::P3Dropped) => released || (lead.is_some() && unused()),
                Some(Bug::CollectedWhileRestoring) => released || (lead.is_none() && unused()),
                Some(Bug::WatermarkIgnored) => {
                    let segment = segment.id.segment();
                    lead.is_some() && based.as_ref().is_some_and(|basis| !basis.segments.contains(&segment))
                }
                _ => released,
            };
            let removal = Request::RemoveSegment(segment.id);
            if released && state.bucket.sent.iter().all(|sent| sent.request != removal) {
                actions.push(Action::RemoveSegment(segment.id));
            }
        }
        for checkpoint in &state.bucket.checkpoints {
            let released = based.as_ref().is_some_and(|basis| basis.releases_checkpoint(&checkpoint.name(), lead));
            let removal = Request::RemoveCheckpoint(checkpoint.id);
            if released && state.bucket.sent.iter().all(|sent| sent.request != removal) {
                actions.push(Action::RemoveCheckpoint(checkpoint.id));
            }
        }
    }

    /// Whether anything happens.
    fn act(&self, state: &mut State, action: Action) -> bool {
        match action {
            Action::Write => {
                let (key, live) = self.operations[state.used.operations];
                state.used.operations += 1;
                state.propose(key, live);
                if !self.uncommitted {
                    state.commit();
                }
            }
            Action::Commit => state.commit(),
            Action::Gather { moving } => {
                state.used.segments += 1;
                state.used.moves += usize::from(moving);
                return state.gather(moving);
            }
            Action::Execute(sent) => state.bucket.execute(&sent),
            Action::Answer(sent) => {
                state.bucket.sent.retain(|other| *other != sent);
                match &sent.request {
                    Request::PutSegment(segment) => state.stored(segment),
                    Request::PutCheckpoint(checkpoint) => state.published(checkpoint),
                    Request::RemoveSegment(_) | Request::RemoveCheckpoint(_) => return false,
                }
            }
            Action::GiveUp(sent) => {
                state.used.failures += 1;
                state.bucket.give_up(|other| *other == sent);
                if let (Some(Bug::NameUsedTwice), Request::PutSegment(segment)) = (self.bug, &sent.request) {
                    state.hosts[usize::from(segment.id.node)].seq = segment.id.seq - 1;
                }
            }
            Action::Tell(tell) => state.hear(&tell),
            Action::Checkpoint => {
                state.used.checkpoints += 1;
                let Some(checkpoint) = state.checkpoint() else { return false };
                state.put(Request::PutCheckpoint(checkpoint));
            }
            Action::Reconcile => state.reconcile(),
            Action::RemoveSegment(id) => {
                state.used.removed = true;
                state.put(Request::RemoveSegment(id));
            }
            Action::RemoveCheckpoint(id) => state.put(Request::RemoveCheckpoint(id)),
            Action::DropTombstone(key) => state.leader().rows[usize::from(key)] = None,
            Action::FailOver => {
                state.used.failovers += 1;
                state.fail_over();
            }
            Action::LoseDisks => {
                state.used.losses += 1;
                state.lose_disks(1 - state.primary);
            }
            Action::Restore => {
                let Some(restore) = state.restore.clone() else { return false };
                state.used.checkpoints += usize::from(matches!(restore, Restore::Read { .. }));
                state.restore_on(&restore);
            }
        }
        true
    }
}
