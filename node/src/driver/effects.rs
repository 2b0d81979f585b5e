//! What is done for the engines. Under the partition's lock, in order and without waiting: the disk's queue, messages to
//! peers. After it: answers, and reads of the lower tiers.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use cairn_api_spec::{
    EntryName, TraceContext,
    events::{self, EventKind},
    operation::{Durability, IdempotencyKey, Metadata},
    peer::{Refused, Replicated as Answer},
};
use cairn_engine::{Change, Effect, Engine, Entry, JobId, Moment, Near, NodeId, Payload, ReadId, Replicated, Step};
use cairn_operations::feed::Item;
use cairn_replication::{Effect as ReplicaEffect, Header, Member, Replica, Write as Unstable};
use cairn_server_kit::trace::{Span, SpanKind};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::Driver;
use crate::{
    clock,
    mailbox::{self, Reply},
    tiers::disk::{Stored, Write},
};

/// What may wait for [`Tasks`]. More is dropped; the protocol asks again.
const MAX_WAITING: usize = 65_536;

/// The way to the other nodes. Nothing here waits; what does not get through is asked for or sent again.
pub trait Network: Send + Sync {
    /// Sends a write, with others.
    fn send(&self, outgoing: Outgoing);
    /// Tells of an upload, with the next writes.
    fn tell(&self, to: &NodeId, uploaded: cairn_api_spec::peer::Uploaded);
    /// Reads a key from a node's copy; `None` when the node does not answer with a value in time.
    fn read_copy<'a>(&'a self, from: &'a NodeId, name: &'a EntryName) -> BoxFuture<'a, Option<(Metadata, Bytes)>>;
}

/// A write on its way to a peer.
pub struct Outgoing {
    /// The partition.
    pub partition: u32,
    /// The peer.
    pub to: Member<NodeId>,
    /// Those that the peer passes it on to.
    pub route: Vec<Member<NodeId>>,
    /// The protocol's part.
    pub header: Header<NodeId>,
    /// The write.
    pub write: Unstable<Payload>,
    /// Ends when the peer has answered, or the write is given up.
    pub span: Span,
}

/// What the protocol wants to ask of a peer or of the master.
pub struct Task {
    /// The partition.
    pub partition: u32,
    /// What to ask: [`ReplicaEffect::Renew`], [`ReplicaEffect::Collect`] or [`ReplicaEffect::Ask`].
    pub effect: ReplicaEffect<NodeId, Payload>,
}

/// The way to whoever asks.
pub type Tasks = mpsc::Sender<Task>;

/// A way, and its end.
pub fn tasks() -> (Tasks, mpsc::Receiver<Task>) {
    mpsc::channel(MAX_WAITING)
}

/// What is done when no partition is locked any more.
#[derive(Default)]
pub struct After {
    answers: Vec<(Reply, mailbox::Answer)>,
    reads: Vec<Read>,
}

enum Read {
    Load { partition: u32, read: ReadId, name: Bytes, with_value: bool, trace: Option<TraceContext> },
    Recall { partition: u32, job: JobId, key: IdempotencyKey },
}

impl Near for Driver {
    fn get(&self, name: &[u8]) -> Option<Entry> {
        self.memory.get(name)
    }

    fn insert(&self, entry: Entry) {
        self.memory.insert(entry);
    }

    fn remove(&self, name: &[u8]) {
        self.memory.remove(name);
    }

    fn may_recall(&self, partition: u32, key: &IdempotencyKey) -> bool {
        self.disk.may_recall(partition, key)
    }
}

impl Driver {
    /// Gives an engine what has happened, and does what follows.
    pub fn drive<R>(&self, partition: u32, work: impl FnOnce(&mut Engine<Reply>, &mut Step<'_, Reply>) -> R) -> R {
        let mut after = After::default();
        let result = self.drive_before(partition, &mut after, work);
        self.finish(after);
        result
    }

    /// The same for what concerns the protocol and no key.
    pub fn protocol<R>(
        &self,
        partition: u32,
        work: impl FnOnce(&mut Replica<NodeId, Payload>, u64, &mut Vec<ReplicaEffect<NodeId, Payload>>) -> R,
    ) -> R {
        self.drive(partition, |engine, step| engine.protocol(step, work))
    }

    /// [`Driver::drive`], but for what is done when no partition is locked: the caller gives `after` to
    /// [`Driver::finish`], once for many partitions.
    pub fn drive_before<R>(
        &self,
        partition: u32,
        after: &mut After,
        work: impl FnOnce(&mut Engine<Reply>, &mut Step<'_, Reply>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let moment = Moment { now: clock::now(), wall: clock::wall() };
        let mut engine = self.partitions.lock(partition);
        let result = work(&mut engine, &mut Step { near: self, moment, out: &mut out });
        while !out.is_empty() {
            let mut more = Vec::new();
            let mut step = Step { near: self, moment, out: &mut more };
            self.dispatch(partition, &mut engine, out, &mut step, after);
            out = more;
        }
        self.partitions.publish(partition, &engine);
        result
    }

    /// Answers, in few wake-ups, and begins to read.
    pub fn finish(&self, after: After) {
        if !after.answers.is_empty() {
            mailbox::deliver(after.answers);
        }
        for read in after.reads {
            let Some(driver) = self.itself.upgrade() else { return };
            match read {
                Read::Load { partition, read, name, with_value, trace } => {
                    tokio::spawn(async move { driver.load(partition, read, name, with_value, trace).await });
                }
                Read::Recall { partition, job, key } => {
                    tokio::spawn(async move { driver.recall(partition, job, key).await });
                }
            }
        }
    }

    fn dispatch(
        &self,
        partition: u32,
        engine: &mut Engine<Reply>,
        effects: Vec<Effect<Reply>>,
        step: &mut Step<'_, Reply>,
        after: &mut After,
    ) {
        let mut effects = effects.into_iter().peekable();
        while let Some(effect) = effects.next() {
            match effect {
                Effect::Reply { to, result } => after.answers.push((to, result)),
                Effect::Publish(change) => self.feed.publish(|| event(&change)),
                Effect::Load { read, name, with_value, trace } => {
                    after.reads.push(Read::Load { partition, read, name, with_value, trace });
                }
                Effect::Recall { job, key } => after.reads.push(Read::Recall { partition, job, key }),
                Effect::Persist(write) => self.persist(partition, engine, write, step),
                Effect::Protocol(ReplicaEffect::Append { to, header, write }) => {
                    let mut route = Vec::new();
                    if self.chain.load(Ordering::Relaxed) {
                        while let Some(Effect::Protocol(ReplicaEffect::Append { to, .. })) =
                            effects.next_if(|next| follows(next, &write))
                        {
                            route.push(to);
                        }
                    }
                    let mut span = self.tracer.child("replicate", SpanKind::Client, write.data.trace);
                    span.set("cairn.node", &to.node);
                    self.network.send(Outgoing { partition, to, route, header, write, span });
                }
                Effect::Protocol(effect) => {
                    if self.tasks.try_send(Task { partition, effect }).is_err() {
                        tracing::debug!(partition, "too many questions wait; this one is asked again");
                    }
                }
            }
        }
    }

    fn persist(&self, partition: u32, engine: &mut Engine<Reply>, write: Replicated, step: &mut Step<'_, Reply>) {
        let Payload { change, durability, room, idempotency, trace } = write.data;
        let mut span = self.tracer.child("disk", SpanKind::Internal, trace);
        span.set("cairn.operation", "write");
        let queued = self.disk.enqueue(Write {
            partition,
            change: change.clone(),
            // What the bucket has, too: after a power cut a partition goes on from its disks and does not ask the bucket.
            flush: durability >= Durability::Fsync,
            awaited: durability != Durability::Memory,
            stored: None,
            room,
            idempotency: idempotency.clone(),
            span,
        });
        if let Err(error) = queued {
            let ahead = durability == Durability::Memory;
            engine.persist_failed(&change, idempotency.as_ref(), ahead, &error.into(), step);
        }
    }

    /// The disk has stored a batch, or has not.
    pub(super) fn stored(&self, writes: Vec<Write>, result: &Stored) {
        let mut after = After::default();
        for Write { partition, change, idempotency, awaited, stored, room, span, .. } in writes {
            self.drive_before(partition, &mut after, |engine, step| match result {
                Ok(()) => engine.persisted(&change, idempotency.as_ref(), step),
                Err(error) => engine.persist_failed(&change, idempotency.as_ref(), !awaited, error, step),
            });
            drop((room, span));
            if let Some(stored) = stored {
                // The primary's message may have been given up.
                let _ = stored.send(result.clone());
            }
        }
        self.finish(after);
    }

    /// Takes what peers answered to writes; `None`: nothing.
    pub fn answered(&self, batch: Vec<Outgoing>, answer: Option<&Answer>) {
        let Some(answer) = answer else {
            self.metrics.replication.failures.with_label_values(&["unanswered"]).inc();
            batch.into_iter().for_each(|mut outgoing| outgoing.span.fail("unanswered"));
            return;
        };
        if !answer.refused.is_empty() {
            self.metrics.replication.failures.with_label_values(&["refused"]).inc();
        }
        let mut after = After::default();
        for Outgoing { partition, to, route, write, .. } in batch {
            self.drive_before(partition, &mut after, |engine, step| {
                engine.protocol(step, |replica, now, effects| {
                    for member in std::iter::once(&to).chain(&route) {
                        let is_it =
                            |refused: &&Refused| refused.partition == partition && *refused.node_id == *member.node;
                        match answer.refused.iter().find(is_it) {
                            None => replica.acknowledge(member, write.version, effects),
                            Some(refused) => replica.refused(member, refused.failed, now, effects),
                        }
                    }
                });
            });
        }
        self.finish(after);
    }

    async fn load(
        self: Arc<Self>,
        partition: u32,
        read: ReadId,
        name: Bytes,
        with_value: bool,
        trace: Option<TraceContext>,
    ) {
        let result = self.look_up(&name, with_value, trace).await;
        self.drive(partition, |engine, step| engine.loaded(read, &result, step));
    }

    async fn recall(self: Arc<Self>, partition: u32, job: JobId, key: IdempotencyKey) {
        let result = super::load::in_time(self.disk.first_outcome(partition, &key)).await;
        self.drive(partition, |engine, step| engine.recalled(job, result, step));
    }
}

/// Whether an effect sends the same write to one more peer.
fn follows(effect: &Effect<Reply>, write: &Replicated) -> bool {
    matches!(effect, Effect::Protocol(ReplicaEffect::Append { write: next, .. }) if next.version == write.version)
}

/// What those who have subscribed are told of a change.
fn event(change: &Change) -> Option<Item> {
    let (kind, size, expires_at) = match change {
        Change::Put(entry) => (EventKind::Put, entry.value().len() as u64, entry.metadata().expires_at),
        Change::Delete { why, .. } => ((*why).into(), 0, None),
        Change::Note { .. } => return None,
    };
    let name = EntryName::from_bytes(Bytes::copy_from_slice(change.name())).ok()?;
    let (version, at) = (change.version(), change.at());
    Some(Item::Change(Arc::new(events::Change { kind, name, version, at, size, expires_at })))
}
