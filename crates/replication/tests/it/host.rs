//! A node's side of one partition: the state machine, and around it what a node does with its effects. The disk takes
//! one thing after the other; what is still on its way there is lost in a crash.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{Hash, Hasher},
};

use cairn_api_spec::Version;
use cairn_replication::{Collected, Effect, Entry, Replica, Role, Settings, Write};

use crate::{
    copy::Copying,
    message::{Envelope, Key, Message, Node, Out, Process, Request, Row},
    planted::Bug,
};

/// What is on its way to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Job {
    /// The primary's own write.
    Own(Write<Row>),
    /// A write for the primary that sent it.
    Replicated { write: Write<Row>, primary: Process, acknowledged: bool },
    /// Rows of a learner's copy.
    Page { attempt: u32, activation: u64, rows: Vec<Write<Row>>, is_last: bool },
    /// The first page of a learner's copy, which is to contain all that is before it in the queue.
    Snapshot { learner: Process, attempt: u32, activation: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) me: Process,
    pub(crate) replica: Replica<Node, Row>,
    pub(crate) disk: BTreeMap<Key, Write<Row>>,
    pub(crate) queue: VecDeque<Job>,
    /// The disk takes nothing into its queue.
    pub(crate) is_refusing: bool,
    /// Own writes that the disk has refused, and that stay what they were.
    pub(crate) refused: Vec<Write<Row>>,
    /// What a primary shows: the newest committed write of each key.
    pub(crate) visible: Option<BTreeMap<Key, Write<Row>>>,
    /// Writes whose clients wait.
    pub(crate) waiting: Vec<Version>,
    pub(crate) copying: Option<Copying>,
    /// Copies begun so far.
    pub(crate) attempts: u32,
    pub(crate) rules: Rules,
}

/// What does not change, and so is no part of a state's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) settings: Settings,
    /// Rows in a page of a copy.
    pub(crate) page: usize,
    /// When a learner asks again for what does not come.
    pub(crate) patience: u64,
    pub(crate) bug: Option<Bug>,
}

impl Host {
    pub(crate) fn new(me: Process, rules: Rules) -> Self {
        Self {
            replica: Replica::new(me.clone(), rules.settings),
            me,
            disk: BTreeMap::new(),
            queue: VecDeque::new(),
            is_refusing: false,
            refused: Vec::new(),
            visible: None,
            waiting: Vec::new(),
            copying: None,
            attempts: 0,
            rules,
        }
    }

    /// The process ends, and a new one starts on what is on the disk.
    pub(crate) fn restart(&mut self, now: u64) {
        if !self.has(Bug::SessionKept) {
            self.me.session += 1;
        }
        self.replica = Replica::new(self.me.clone(), self.rules.settings);
        if !self.has(Bug::PromisesForgotten) {
            self.replica.restarted(now);
        }
        if let Some(newest) = self.disk.values().map(|write| write.version).max() {
            self.replica.observe(newest);
        }
        self.queue.clear();
        self.refused.clear();
        self.visible = None;
        self.waiting.clear();
        self.copying = None;
    }

    /// The data are gone, and with them the count of sessions.
    pub(crate) fn wiped(&mut self) {
        self.disk.clear();
        if self.has(Bug::WipedSessionUsedAgain) {
            self.me.session -= 1;
            self.replica = Replica::new(self.me.clone(), self.rules.settings);
        }
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.rules.bug == Some(bug)
    }

    /// The newest row of each key, those on their way to the disk included.
    pub(crate) fn rows(&self) -> BTreeMap<Key, Write<Row>> {
        let mut rows = self.disk.clone();
        for job in &self.queue {
            match job {
                Job::Own(write) | Job::Replicated { write, .. } => store(&mut rows, write),
                Job::Page { rows: page, .. } => page.iter().for_each(|write| store(&mut rows, write)),
                Job::Snapshot { .. } => {}
            }
        }
        rows
    }

    /// The same with writes that the disk has refused, and that the state machine still has.
    pub(crate) fn rows_and_refused(&self) -> BTreeMap<Key, Write<Row>> {
        let mut rows = self.rows();
        self.refused.iter().for_each(|write| store(&mut rows, write));
        rows
    }

    /// The newest row of each key that is not pending: on the disk, or acknowledged before it is there.
    fn settled_rows(&self) -> BTreeMap<Key, Write<Row>> {
        let mut rows = self.disk.clone();
        for job in &self.queue {
            match job {
                Job::Replicated { write, acknowledged: true, .. } => store(&mut rows, write),
                Job::Own(write) if write.data.ahead => store(&mut rows, write),
                _ => {}
            }
        }
        rows
    }

    /// The newest version of a key, pending ones included, and those that the disk has refused.
    pub(crate) fn newest(&self, key: Key) -> Version {
        let queued = |job: &Job| match job {
            Job::Own(write) | Job::Replicated { write, .. } if write.data.key == key => Some(write.version),
            _ => None,
        };
        let refused = self.refused.iter().filter(|write| write.data.key == key);
        let known = self.disk.get(&key).into_iter().chain(refused).map(|write| write.version);
        self.queue.iter().filter_map(queued).chain(known).max().unwrap_or_default()
    }

    /// Whether a read that looks now may be answered.
    pub(crate) fn may_read(&self, now: u64) -> bool {
        self.replica.role().reads() && (now < self.replica.lease_until() || self.has(Bug::ReadWithoutLease))
    }

    /// A client's write. The version of what the primary has of the key, pending writes included, and the write's own.
    pub(crate) fn write(&mut self, row: Row, now: u64, out: &mut Out) -> Option<(Version, Version)> {
        let newest = self.newest(row.key);
        let mut effects = Vec::new();
        let version = self.replica.propose(newest, row.ahead, now, &mut effects, |_| row).ok()?;
        let write = Write { version, data: row };
        if !self.is_refusing {
            self.queue.push_back(Job::Own(write));
        } else if self.own_failed(write, &mut effects) {
            self.absorb(effects, now, out);
            return None;
        }
        self.waiting.push(version);
        self.absorb(effects, now, out);
        Some((newest, version))
    }

    pub(crate) fn configure(&mut self, entry: &Entry<Node>, now: u64, out: &mut Out) {
        let mut effects = Vec::new();
        if self.replica.configure(entry.clone(), now, &mut effects) {
            if self.replica.role() == Role::Preparing {
                self.replica.lead(now, &mut effects);
            }
            let is_held = self.replica.role() != Role::Idle || entry.in_sync.iter().any(|member| self.is_me(member));
            if !is_held {
                self.disk.clear();
                self.queue.clear();
                self.refused.clear();
            }
            self.copy_from_primary(now, out);
        }
        self.absorb(effects, now, out);
    }

    /// Whether an entry means this node: if another process of it, the rows may be wanted yet.
    fn is_me(&self, member: &Process) -> bool {
        if self.has(Bug::FormerSessionsForgotten) { *member == self.me } else { member.node == self.me.node }
    }

    pub(crate) fn session_ended(&mut self, ended: &Process, now: u64, out: &mut Out) {
        let mut effects = Vec::new();
        self.replica.session_ended(ended, now, &mut effects);
        self.absorb(effects, now, out);
    }

    pub(crate) fn tick(&mut self, now: u64, out: &mut Out) {
        let mut effects = Vec::new();
        self.replica.tick(now, &mut effects);
        self.ask_again(now, out);
        self.absorb(effects, now, out);
    }

    pub(crate) fn send(&self, to: Process, message: Message, out: &mut Out) {
        out.sent.push(Envelope { from: self.me.clone(), to, message });
    }

    /// Does what the state machine wants.
    pub(crate) fn absorb(&mut self, mut effects: Vec<Effect<Node, Row>>, now: u64, out: &mut Out) {
        let (mut forged, mut committed) = (Vec::new(), Vec::new());
        for effect in effects.drain(..) {
            match effect {
                Effect::Append { to, write, .. } if self.has(Bug::LearnerNotAwaited) && self.is_learner(&to) => {
                    self.replica.acknowledge(&to, write.version, &mut forged);
                }
                Effect::Collect { to, header, sent_at } if self.has(Bug::ServesBeforeSync) => {
                    let nothing = Collected { writes: Vec::new(), stable: Version::NONE, last: Version::NONE };
                    self.replica.collected(&to, header.epoch, sent_at, nothing, now, &mut forged);
                }
                Effect::Append { to, header, write } => self.send(to, Message::Append { header, write }, out),
                Effect::Renew { to, header, sent_at } => self.send(to, Message::Renew { header, sent_at }, out),
                Effect::Collect { to, header, sent_at } => self.send(to, Message::Collect { header, sent_at }, out),
                Effect::Persist(write) if self.is_refusing => drop(self.own_failed(write, &mut forged)),
                Effect::Persist(write) => self.queue.push_back(Job::Own(write)),
                Effect::Committed(write) => {
                    self.visible.iter_mut().for_each(|visible| store(visible, &write));
                    committed.push(write.clone());
                    if let Some(index) = self.waiting.iter().position(|version| *version == write.version) {
                        out.acknowledged.push(self.waiting.remove(index));
                    }
                }
                Effect::Abandoned => {
                    self.waiting.clear();
                    self.visible = None;
                }
                Effect::Lost(_) => out.lost = true,
                Effect::EpochTooHigh(_) => {}
                Effect::Ask { epoch, change } => out.asked.push(Request { from: self.me.clone(), epoch, change }),
            }
        }
        if !forged.is_empty() {
            return self.absorb(forged, now, out);
        }
        if !self.replica.role().reads() {
            self.visible = None;
        } else if self.visible.is_none() {
            let mut visible = self.settled_rows();
            committed.iter().for_each(|write| store(&mut visible, write));
            self.visible = Some(visible);
        }
    }
}

impl Hash for Rules {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// The newest version wins.
pub(crate) fn store(rows: &mut BTreeMap<Key, Write<Row>>, write: &Write<Row>) {
    let newest = rows.entry(write.data.key).or_insert_with(|| write.clone());
    if newest.version < write.version {
        newest.clone_from(write);
    }
}
