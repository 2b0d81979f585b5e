//! One engine that serves its partition without peers, and whatever it asks for, done by hand.

use std::{cell::RefCell, collections::BTreeMap};

use bytes::Bytes;
use cairn_api_spec::{
    Bucket, EntryName, Outcome, Version,
    operation::{IdempotencyKey, Metadata},
    peer::FirstOutcome,
};
use cairn_engine::{
    Change, Effect, Engine, Entry, Error, JobId, Loaded, Moment, Near, NodeId, Payload, ReadId, Replicated, Request,
    Step, TierError, Verb,
};
use cairn_replication::{Entry as MapEntry, Member, Replica};

/// What memory holds.
#[derive(Default)]
struct Tiers(RefCell<BTreeMap<Bytes, Entry>>);

impl Near for Tiers {
    fn get(&self, name: &[u8]) -> Option<Entry> {
        self.0.borrow().get(name).cloned()
    }

    fn insert(&self, entry: Entry) {
        self.0.borrow_mut().insert(Bytes::copy_from_slice(entry.name()), entry);
    }

    fn remove(&self, name: &[u8]) {
        self.0.borrow_mut().remove(name);
    }

    fn may_recall(&self, _: u32, _: &IdempotencyKey) -> bool {
        true
    }
}

/// See the module. What the engine asked for is kept until it is taken.
pub(crate) struct Alone {
    engine: Engine<usize>,
    tiers: Tiers,
    /// Milliseconds, on both clocks.
    pub(crate) now: u64,
    pub(crate) wall: u64,
    pub(crate) answers: Vec<(usize, Result<Outcome, Error>)>,
    pub(crate) loads: Vec<ReadId>,
    pub(crate) recalls: Vec<JobId>,
    pub(crate) writes: Vec<Replicated>,
    pub(crate) published: Vec<Change>,
}

impl Alone {
    pub(crate) fn new() -> Self {
        let me = Member { node: "node".into(), session: 1 };
        let mut alone = Self {
            engine: Engine::new(0, me),
            tiers: Tiers::default(),
            now: 1_000,
            wall: 1_000_000,
            answers: Vec::new(),
            loads: Vec::new(),
            recalls: Vec::new(),
            writes: Vec::new(),
            published: Vec::new(),
        };
        alone.configure(1, Vec::new());
        alone.drive(|engine, step| engine.protocol(step, Replica::lead));
        alone
    }

    fn configure(&mut self, epoch: u64, learners: Vec<Member<NodeId>>) {
        let me = Member { node: NodeId::from("node"), session: 1 };
        let primary = Some(me.node.clone());
        let entry = MapEntry { epoch, primary, in_sync: vec![me], learners, successor: None };
        self.drive(|engine, step| {
            engine.protocol(step, |replica, now, out| replica.configure(entry, now, out));
        });
    }

    /// Another node begins to copy the partition.
    pub(crate) fn add_learner(&mut self) {
        let learner = Member { node: NodeId::from("learner"), session: 1 };
        self.configure(2, vec![learner.clone()]);
        self.drive(|engine, step| {
            engine.protocol(step, |replica, _, _| replica.activate(&learner, 2)).unwrap();
        });
    }

    /// It is given up.
    pub(crate) fn drop_learner(&mut self) {
        self.configure(3, Vec::new());
    }

    pub(crate) fn drive(&mut self, work: impl FnOnce(&mut Engine<usize>, &mut Step<'_, usize>)) {
        let mut out = Vec::new();
        let moment = Moment { now: self.now, wall: self.wall };
        work(&mut self.engine, &mut Step { near: &self.tiers, moment, out: &mut out });
        for effect in out {
            match effect {
                Effect::Reply { to, result } => self.answers.push((to, result)),
                Effect::Load { read, .. } => self.loads.push(read),
                Effect::Recall { job, .. } => self.recalls.push(job),
                Effect::Persist(write) => self.writes.push(write),
                Effect::Publish(change) => self.published.push(change),
                Effect::Protocol(_) => {}
            }
        }
    }

    pub(crate) fn ask(&mut self, number: usize, request: Request) {
        self.drive(|engine, step| engine.submit(request, number, step));
    }

    /// Lets the memory tier drop everything.
    pub(crate) fn evict(&mut self) {
        self.tiers.0.borrow_mut().clear();
    }

    /// The next read of the disk finds this.
    pub(crate) fn load(&mut self, result: &Result<Loaded, TierError>) {
        let read = self.loads.remove(0);
        self.drive(|engine, step| engine.loaded(read, result, step));
    }

    /// The next look for an idempotency key finds this.
    pub(crate) fn recall(&mut self, first: Option<FirstOutcome>) {
        let job = self.recalls.remove(0);
        self.drive(|engine, step| engine.recalled(job, Ok(first), step));
    }

    /// The disk takes the next write, or does not.
    pub(crate) fn store(&mut self, result: &Result<(), TierError>) -> Replicated {
        let write = self.writes.remove(0);
        let Payload { change, durability, idempotency, .. } = write.data.clone();
        let ahead = durability == cairn_api_spec::operation::Durability::Memory;
        self.drive(|engine, step| match result {
            Ok(()) => engine.persisted(&change, idempotency.as_ref(), step),
            Err(error) => engine.persist_failed(&change, idempotency.as_ref(), ahead, error, step),
        });
        write
    }

    /// Time passes, as the driver tells it.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(100) {
            (self.now, self.wall) = (self.now + 100, self.wall + 100);
            self.drive(Engine::tick);
        }
    }

    pub(crate) fn answer(&mut self, number: usize) -> Option<Result<Outcome, Error>> {
        let index = self.answers.iter().position(|(to, _)| *to == number)?;
        Some(self.answers.remove(index).1)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.engine.waiting_requests()
    }

    /// The versions of the writes that a learner must keep although they are not in its copy.
    pub(crate) fn ahead(&self) -> Vec<u64> {
        self.engine.heads_ahead().iter().map(|head| head.version).collect()
    }

    pub(crate) fn waiting_places(&self) -> usize {
        self.engine.waiting_places()
    }
}

pub(crate) fn name() -> EntryName {
    EntryName::new(&Bucket::default(), "key").unwrap()
}

pub(crate) fn entry(value: &str, version: u64, expires_at: Option<u64>) -> Entry {
    let metadata = Metadata {
        version: Version(version),
        modified_at: 0,
        expires_at,
        size: value.len() as u64,
        content_type: String::new(),
    };
    Entry::new(&name(), &metadata, value.as_bytes())
}

pub(crate) fn get() -> Request {
    Request::new(name(), Verb::Get)
}

pub(crate) fn put(value: &str) -> Request {
    Request::new(name(), Verb::Put(entry(value, 0, None)))
}

pub(crate) fn with_key(request: Request) -> Request {
    Request { key: Some(IdempotencyKey::parse("again").unwrap()), ..request }
}
