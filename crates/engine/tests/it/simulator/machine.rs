//! A node: a process that may be gone or stopped, and the driver of its engines, which is no kinder than the real one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cairn_api_spec::{
    operation::{Durability, IdempotencyKey},
    peer::FirstOutcome,
};
use cairn_engine::{Effect, Engine, JobId, Loaded, Moment, NodeId, Payload, ReadId, Step, TierError};
use cairn_replication::{Effect as ReplicaEffect, Member, Replica, Settings};

use super::{
    collecting::Collecting,
    copy::Doing,
    disk::{Disk, Done},
    loader::{Loader, Look},
    memory::Memory,
    network::{Body, CLIENTS, Envelope, MASTER, Message, Node, Packet, Process, name, node},
    random::Random,
    tables::Tables,
    uploads::{Mark, Uploads},
};
use crate::planted::Bug;

/// What the wall clocks say when the simulation begins.
pub(crate) const EPOCH: u64 = 1_700_000_000_000;

/// How far a clock may be set without being too far off, in milliseconds.
pub(crate) const SKEW: i64 = 400;

pub(crate) type Effects = Vec<ReplicaEffect<NodeId, Payload>>;

/// What a process has to do later.
pub(crate) enum Local {
    Tick,
    Heartbeat,
    /// The writer is to do what is next.
    Disk,
    Settled(Done),
    Reopened,
    Look(Look),
    /// A reader is to read what waits.
    Read,
    Loaded {
        partition: u32,
        read: ReadId,
        result: Result<Loaded, TierError>,
    },
    Recall {
        partition: u32,
        job: JobId,
        key: IdempotencyKey,
    },
    Recalled {
        partition: u32,
        job: JobId,
        result: Result<Option<FirstOutcome>, TierError>,
    },
    /// The attempt of the work on a partition is to go on.
    GoOn {
        partition: u32,
        attempt: u64,
    },
}

pub(crate) enum Out {
    Send(Packet),
    Later(u64, Local),
}

/// What does not change.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) partitions: u32,
    pub(crate) settings: Settings,
    pub(crate) eviction_per_mille: u64,
    /// How long rows gather before they are uploaded.
    pub(crate) upload_linger: u64,
    pub(crate) bug: Option<Bug>,
}

pub(crate) struct Machine {
    pub(crate) node: Node,
    pub(crate) me: Process,
    pub(crate) rules: Rules,
    pub(crate) is_up: bool,
    pub(crate) paused_until: u64,
    pub(crate) data_since: u64,
    pub(crate) leaving: bool,
    /// The revision of the map that it knows.
    pub(crate) seen: usize,
    pub(crate) sessions: Arc<BTreeMap<Node, u64>>,
    engines: Vec<Option<Engine<usize>>>,
    pub(crate) memory: Memory,
    pub(crate) disk: Disk,
    pub(crate) loader: Loader,
    /// The longest that a read of the disk takes.
    pub(crate) read_delay: u64,
    pub(crate) doing: BTreeMap<u32, Doing>,
    /// For each partition, in-sync processes that may have what no other one names.
    pub(crate) strangers: BTreeMap<u32, Vec<Process>>,
    pub(crate) attempts: u64,
    pub(crate) uploads: Uploads,
    pub(crate) collecting: Collecting,
    /// How far the wall clock is from the true time, as long as nothing is wrong with it, and now.
    base_skew: i64,
    skew: i64,
    pub(crate) clock_is_off: bool,
    pub(crate) random: Random,
    pub(crate) out: Vec<Out>,
    /// Which calls are not answered: of which partition, and since when.
    pub(crate) owed: BTreeMap<usize, (u32, u64)>,
    /// Partitions whose last copy has lost writes and said so.
    pub(crate) admitted: Vec<u32>,
    /// Partitions of which the disk has lost something in a power cut, with the session that wrote it.
    pub(crate) cuts: BTreeSet<(u32, u64)>,
    /// What was uploaded and counts, partitions that were restored, and what must never be.
    pub(crate) counted: Vec<Mark>,
    pub(crate) restored: Vec<u32>,
    pub(crate) wrong: Option<String>,
}

impl Machine {
    pub(crate) fn new(node: Node, rules: Rules, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let skew = i64::try_from(random.below(401)).unwrap_or(0) - 200;
        let mut machine = Self {
            node,
            me: Member { node: name(node).as_str().into(), session: 0 },
            rules,
            is_up: false,
            paused_until: 0,
            data_since: 1,
            leaving: false,
            seen: 0,
            sessions: Arc::default(),
            engines: Vec::new(),
            memory: Memory::new(random.next(), rules.eviction_per_mille),
            disk: Disk { delay: 3, bug: rules.bug, ..Disk::default() },
            loader: Loader::default(),
            read_delay: 4,
            doing: BTreeMap::new(),
            strangers: BTreeMap::new(),
            attempts: 0,
            uploads: Uploads::default(),
            collecting: Collecting::default(),
            base_skew: skew,
            skew,
            clock_is_off: false,
            random,
            out: Vec::new(),
            owed: BTreeMap::new(),
            admitted: Vec::new(),
            cuts: BTreeSet::new(),
            counted: Vec::new(),
            restored: Vec::new(),
            wrong: None,
        };
        machine.me.session += 1;
        machine
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.rules.bug == Some(bug)
    }

    /// The process ends.
    pub(crate) fn crash(&mut self) {
        self.is_up = false;
        self.me.session += 1;
        self.disk.crash();
        self.loader = Loader::default();
        self.engines.clear();
        self.doing.clear();
        self.strangers.clear();
        self.owed.clear();
        (self.uploads, self.collecting) = (Uploads::default(), Collecting::default());
        self.sessions = Arc::default();
        (self.seen, self.leaving, self.paused_until, self.clock_is_off) = (0, false, 0, false);
    }

    /// Sets the wall clock ahead of where it belongs. The node knows when that is too far.
    pub(crate) fn set_clock(&mut self, ahead: i64, now: u64) {
        self.skew = self.base_skew + ahead;
        let is_off = ahead.abs() > SKEW;
        if is_off != self.clock_is_off {
            self.clock_is_off = is_off;
            for partition in 0..self.rules.partitions {
                self.drive(partition, now, |engine, step| engine.set_clock_is_off(is_off, step));
            }
        }
    }

    /// The power was cut: the process that ran last has lost what was not flushed.
    pub(crate) fn lose_power(&mut self) {
        let ended = self.me.session - 1;
        self.cuts.extend(self.disk.tables.lose_unflushed().into_iter().map(|partition| (partition, ended)));
    }

    /// The data go, too.
    pub(crate) fn wipe(&mut self) {
        self.disk.tables = Tables::default();
        self.data_since = self.me.session;
    }

    pub(crate) fn start(&mut self, now: u64) {
        (self.is_up, self.skew) = (true, self.base_skew);
        // With the number of the session.
        self.disk.tables.flush();
        self.memory = Memory::new(self.random.next(), self.rules.eviction_per_mille);
        for ((partition, _), first) in &self.disk.tables.keys {
            self.memory.note(*partition, &first.key);
        }
        let new = |partition| Some(Engine::new(partition, self.me.clone()));
        self.engines = (0..self.rules.partitions).map(new).collect();
        let held: Vec<u32> = self.disk.tables.held.keys().copied().collect();
        for partition in 0..self.rules.partitions {
            let last = held.contains(&partition).then(|| self.disk.tables.last(partition));
            let (settings, session) = (self.rules.settings, self.me.session);
            self.protocol(partition, now, |replica, _, _| {
                replica.set_settings(settings);
                if session > 1 {
                    replica.restarted(now);
                }
                last.into_iter().for_each(|last| replica.observe(last));
            });
        }
    }

    pub(crate) fn later(&mut self, delay: u64, what: Local) {
        self.out.push(Out::Later(delay, what));
    }

    pub(crate) fn send(&mut self, to: Node, body: Body) {
        self.out.push(Out::Send(Packet { from: self.node, to, body }));
    }

    pub(crate) fn tell(&mut self, partition: u32, to: Process, message: Message) {
        let envelope = Envelope { from: self.me.clone(), to, message };
        self.send(node(&envelope.to.node), Body::Peer(partition, envelope));
    }

    pub(crate) fn wall(&self, now: u64) -> u64 {
        (EPOCH + now).saturating_add_signed(self.skew)
    }

    pub(crate) fn engine(&self, partition: u32) -> Option<&Engine<usize>> {
        self.engines.get(partition as usize)?.as_ref()
    }

    pub(crate) fn replica(&self, partition: u32) -> Option<&Replica<NodeId, Payload>> {
        self.engine(partition).map(Engine::replica)
    }

    /// Gives an engine what has happened, and does what follows.
    pub(crate) fn drive<R>(
        &mut self,
        partition: u32,
        now: u64,
        work: impl FnOnce(&mut Engine<usize>, &mut Step<'_, usize>) -> R,
    ) -> R {
        let moment = Moment { now, wall: self.wall(now) };
        let mut engine = self.engines[partition as usize].take().expect("an engine is driven by one at a time");
        let mut out = Vec::new();
        let result = work(&mut engine, &mut Step { near: &self.memory, moment, out: &mut out });
        let mut reads = Vec::new();
        while !out.is_empty() {
            let mut more = Vec::new();
            for effect in out {
                self.dispatch(partition, &mut engine, effect, moment, &mut more, &mut reads);
            }
            out = more;
        }
        self.engines[partition as usize] = Some(engine);
        for read in reads {
            let delay = self.random.between(0, self.read_delay);
            self.later(delay, read);
        }
        result
    }

    /// The same for what concerns the protocol and no key.
    pub(crate) fn protocol<R>(
        &mut self,
        partition: u32,
        now: u64,
        work: impl FnOnce(&mut Replica<NodeId, Payload>, u64, &mut Effects) -> R,
    ) -> R {
        self.drive(partition, now, |engine, step| engine.protocol(step, work))
    }

    fn dispatch(
        &mut self,
        partition: u32,
        engine: &mut Engine<usize>,
        effect: Effect<usize>,
        moment: Moment,
        more: &mut Vec<Effect<usize>>,
        reads: &mut Vec<Local>,
    ) {
        match effect {
            Effect::Reply { to, result } => {
                self.uploads.awaited.remove(&to);
                assert!(self.owed.remove(&to).is_some(), "call {to} is answered twice");
                self.send(CLIENTS, Body::Reply(to, result.into()));
            }
            Effect::Publish(_) => {}
            Effect::Load { read, name, with_value, .. } => {
                reads.push(Local::Look(Look { partition, read, name, with_value }));
            }
            Effect::Recall { job, key } => reads.push(Local::Recall { partition, job, key }),
            Effect::Persist(write) => {
                let queued = self.persist(partition, &write);
                let mut step = Step { near: &self.memory, moment, out: more };
                let Payload { change, durability, idempotency, .. } = &write.data;
                match queued {
                    Err(error) => {
                        let ahead = *durability == Durability::Memory;
                        engine.persist_failed(change, idempotency.as_ref(), ahead, &error, &mut step);
                    }
                    Ok(()) if self.rules.bug == Some(Bug::StoredWhenQueued) => {
                        engine.persisted(change, idempotency.as_ref(), &mut step);
                    }
                    Ok(()) => {}
                }
            }
            Effect::Protocol(effect) => self.ask(partition, effect),
        }
    }

    fn ask(&mut self, partition: u32, effect: ReplicaEffect<NodeId, Payload>) {
        match effect {
            ReplicaEffect::Append { to, header, write } => self.tell(partition, to, Message::Append { header, write }),
            ReplicaEffect::Renew { to, header, sent_at } => {
                self.tell(partition, to, Message::Renew { header, sent_at });
            }
            ReplicaEffect::Collect { to, header, sent_at } => {
                self.tell(partition, to, Message::Collect { header, sent_at });
            }
            ReplicaEffect::Ask { epoch, change } => {
                let request = super::roles::request(&self.me, epoch, change);
                self.send(MASTER, Body::Ask(partition, request));
            }
            ReplicaEffect::Lost(_) => self.admitted.push(partition),
            ReplicaEffect::Persist(_)
            | ReplicaEffect::Committed(_)
            | ReplicaEffect::Abandoned
            | ReplicaEffect::EpochTooHigh(_) => unreachable!("the engine keeps it for itself, or no epoch is so high"),
        }
    }

    /// Something that was to be done later is done now.
    pub(crate) fn happen(&mut self, what: Local, now: u64) {
        match what {
            Local::Tick => {
                (0..self.rules.partitions).for_each(|partition| self.drive(partition, now, Engine::tick));
                self.look_after_copies(now);
                self.look_after_uploads(now);
            }
            Local::Heartbeat => self.heartbeat(),
            Local::Disk => self.work_disk(now),
            Local::Settled(done) => self.settled(done, now),
            Local::Reopened => {
                self.disk.is_refusing = false;
                self.go_on_writing();
            }
            Local::Look(look) => self.look(look),
            Local::Read => self.read(now),
            Local::Loaded { partition, read, result } => self.loaded(partition, read, &result, now),
            Local::Recall { partition, job, key } => {
                let knows = !self.has(Bug::NothingRecalled);
                let first = self.read_disk(now, |disk, _| disk.first_outcome(partition, &key).filter(|_| knows));
                self.answer_read(|result| Local::Recalled { partition, job, result }, first);
            }
            Local::Recalled { partition, job, result } => {
                self.drive(partition, now, |engine, step| engine.recalled(job, result, step));
            }
            Local::GoOn { partition, attempt } => self.go_on(partition, attempt, now),
        }
    }
}
