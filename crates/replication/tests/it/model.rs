//! The model: a few nodes with one partition, a network, a store and a controller, in which anything that can go wrong
//! does, within bounds.

use cairn_replication::{Entry, Member};
use stateright::{Model, Property};

use crate::{
    goal::Goal,
    hashed::Hashed,
    host::{Host, Rules},
    message::{Envelope, Key, Message, Node, Request, Row},
    planted::Bug,
    state::{Operation, State, Used},
    store::{self, Registered, Step},
};

/// How often things may happen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) ticks: u64,
    pub(crate) epoch: u64,
    pub(crate) restarts: usize,
    pub(crate) wipes: usize,
    pub(crate) disk_failures: usize,
    pub(crate) duplicates: usize,
    /// Copies that a learner begins.
    pub(crate) copies: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Node,
    /// How many of them are in sync in the beginning.
    pub(crate) in_sync: Node,
    /// The keys of the writes, one after the other; the first `preloaded` are acknowledged in the beginning.
    pub(crate) writes: Vec<Key>,
    pub(crate) preloaded: usize,
    /// Writes are acknowledged before they are on a disk.
    pub(crate) ahead: bool,
    pub(crate) rules: Rules,
    pub(crate) bounds: Bounds,
    pub(crate) allows: fn(Step) -> bool,
    /// The disk takes its time, so that a crash may lose what is on its way there.
    pub(crate) slow_disk: bool,
    /// Leases are granted in the moment in which they are asked for, or never.
    pub(crate) prompt_leases: bool,
    pub(crate) goals: Vec<Goal>,
}

/// Something that may happen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Tick,
    Deliver(Hashed<Envelope>),
    Duplicate(Hashed<Envelope>),
    Flush(Node),
    FailDisk(Node),
    Configure(Node, u64),
    HearOfSessions(Node),
    Write(Node),
    Restart(Node),
    Wipe(Node),
    Answer(Hashed<Request>),
    Control(Step),
}

/// The beginning: 0 is what never was.
const START: u64 = 10;

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let Bounds { ticks, epoch, restarts, wipes, disk_failures, duplicates, .. } = self.bounds;
        if state.now < START + ticks {
            actions.push(Action::Tick);
        }
        actions.extend(state.network.iter().cloned().map(Action::Deliver));
        if state.used.duplicates < duplicates {
            actions.extend(state.network.iter().cloned().map(Action::Duplicate));
        }
        for node in 0..self.nodes {
            let host = &state.hosts[usize::from(node)];
            if !host.queue.is_empty() {
                actions.push(Action::Flush(node));
                if state.used.disk_failures < disk_failures {
                    actions.push(Action::FailDisk(node));
                }
            }
            let news = state.entries.iter().filter(|entry| state.is_news(usize::from(node), entry));
            actions.extend(news.map(|entry| Action::Configure(node, entry.epoch)));
            if state.heard[usize::from(node)] != state.sessions() {
                actions.push(Action::HearOfSessions(node));
            }
            if state.history.len() < self.writes.len() && host.replica.check_serving().is_ok() {
                actions.push(Action::Write(node));
            }
            if state.used.restarts < restarts {
                actions.push(Action::Restart(node));
            }
            if state.used.wipes < wipes {
                actions.push(Action::Wipe(node));
            }
        }
        if state.entry().epoch < epoch {
            actions.extend(state.requests.iter().cloned().map(Action::Answer));
            let mut steps = store::legal_steps(state.entry(), &state.nodes);
            if self.rules.bug == Some(Bug::StaleCopyResumed) {
                steps.extend((0..self.nodes).map(Step::Resume));
            }
            actions.extend(steps.into_iter().filter(|step| (self.allows)(*step)).map(Action::Control));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.act(&mut next, action)?;
        if !self.slow_disk {
            next.flush_all();
        }
        next.settle();
        Some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.hosts.iter().all(|host| host.attempts <= self.bounds.copies)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("reads never go back", |_, state: &State| state.reads_never_go_back()),
            Property::always("conditions held", |_, state: &State| state.conditions_held()),
            Property::always("what was undone is gone", |_, state: &State| state.what_was_undone_is_gone()),
            Property::always("only the last copy loses anything", |_, state: &State| !state.lost_in_vain),
            Property::always("replicas are equal", |_, state: &State| state.replicas_are_equal()),
        ];
        if self.rules.settings.write_quorum.is_none() {
            let complete = |model: &Self, state: &State| state.in_sync_copies_are_complete(model.ahead);
            properties.push(Property::always("in-sync copies are complete", complete));
        }
        properties.extend(self.goals.iter().map(|goal| goal.property()));
        properties
    }
}

impl Cluster {
    fn start(&self) -> State {
        let process = |node: Node| Member { node, session: 1 };
        let entry = Entry {
            epoch: 1,
            primary: Some(0),
            in_sync: (0..self.in_sync).map(process).collect(),
            learners: Vec::new(),
            successor: None,
        };
        let registered = |node: Node| Registered { process: process(node), data_since: 1 };
        let mut state = State {
            now: START,
            entries: vec![Hashed::new(entry.clone())],
            nodes: (0..self.nodes).map(registered).collect(),
            heard: vec![vec![1; usize::from(self.nodes)]; usize::from(self.nodes)],
            hosts: (0..self.nodes).map(|node| Hashed::new(Host::new(process(node), self.rules))).collect(),
            network: Vec::new(),
            requests: Vec::new(),
            used: Used::default(),
            history: Vec::new(),
            lost_in_vain: false,
        };
        (0..self.nodes).rev().for_each(|node| state.at(node, |host, now, out| host.configure(&entry, now, out)));
        self.calm_down(&mut state);
        for _ in 0..self.preloaded {
            self.write(&mut state, 0);
            self.calm_down(&mut state);
        }
        state
    }

    /// Everything arrives.
    fn calm_down(&self, state: &mut State) {
        state.flush_all();
        while let Some(envelope) = state.network.pop() {
            self.deliver(state, &envelope);
            state.flush_all();
        }
        state.settle();
    }

    fn act(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Tick => {
                state.now += 1;
                if self.prompt_leases {
                    state.forget_renewals();
                }
                (0..self.nodes).for_each(|node| state.at(node, Host::tick));
            }
            Action::Deliver(envelope) => {
                state.network.retain(|other| *other != envelope);
                self.deliver(state, &envelope);
            }
            Action::Duplicate(envelope) => {
                state.used.duplicates += 1;
                self.deliver(state, &envelope);
            }
            Action::Flush(node) => state.at(node, Host::flush),
            Action::FailDisk(node) => {
                state.used.disk_failures += 1;
                state.at(node, Host::fail);
            }
            Action::Configure(node, epoch) => {
                let entry = state.entries.iter().find(|entry| entry.epoch == epoch)?.clone();
                state.at(node, |host, now, out| host.configure(&entry, now, out));
            }
            Action::HearOfSessions(node) => state.hear_of_sessions(node),
            Action::Write(node) => self.write(state, node)?,
            Action::Restart(node) => {
                state.used.restarts += 1;
                state.restart(node, false);
            }
            Action::Wipe(node) => {
                state.used.wipes += 1;
                state.restart(node, true);
            }
            Action::Answer(request) => {
                let entry = store::answer(state.entry(), &request);
                state.requests.retain(|other| *other != request);
                state.publish(entry?);
            }
            Action::Control(step) => state.publish(store::take(state.entry(), step, &state.nodes)),
        }
        Some(())
    }

    fn deliver(&self, state: &mut State, envelope: &Envelope) {
        state.at(envelope.to.node, |host, now, out| host.deliver(envelope, now, out));
        if self.prompt_leases {
            let is_renewed = |envelope: &Hashed<Envelope>| matches!(envelope.message, Message::Renewed { .. });
            while let Some(index) = state.network.iter().position(is_renewed) {
                let answer = state.network.remove(index);
                state.at(answer.to.node, |host, now, out| host.deliver(&answer, now, out));
            }
        }
    }

    fn write(&self, state: &mut State, node: Node) -> Option<()> {
        let number = state.history.len();
        let key = self.writes[number];
        let row = Row { key, operation: u32::try_from(number).ok()?, ahead: self.ahead };
        let (expected, version, acknowledged) = state.at(node, |host, now, out| {
            let (expected, version) = host.write(row, now, out)?;
            Some((expected, version, out.acknowledged.contains(&version)))
        })?;
        state.history.push(Operation { key, expected, version, acknowledged, ..Operation::default() });
        Some(())
    }
}
