//! Drives the protocol: time, messages and answers go into a partition's state machine, and what it asks for is done.
//!
//! Two ends: [`Parts::drive`] is called by whoever has news for a partition, and does at once what needs no waiting;
//! [`run`] does the rest, and lets time pass. Messages of primaries to this node are answered in [`crate::follow`].

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use cairn_api_spec::{
    Version,
    cluster::{ChangePartition, PartitionChange},
    name::partition_of,
    operation::Durability,
    peer::{Collect, Lease, Refused, Renew, Replicated as Answer, Uploaded},
};
use cairn_replication::{Change, Collected, Effect, Header, Member, Write as Replicated};
use cairn_server_kit::trace::{Span, SpanKind};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock,
    disk::Write,
    error::NodeError,
    masters::Masters,
    ownership::Ownership,
    partition::{Locked, NodeId, Outward, Payload, tell},
    peers::{Outgoing, PeerError},
    store::{Parts, Store},
};

/// How often partitions are told the time.
const TICK: Duration = Duration::from_millis(100);
/// What may wait for [`run`]. More is dropped; the protocol asks again.
const MAX_WAITING: usize = 65_536;
/// Questions to the master, and to peers, at the same time.
const CONCURRENCY: usize = 64;

/// What a partition asks of [`run`].
pub struct Task {
    partition: u32,
    effect: Outward,
}

/// The way from partitions to [`run`].
pub type Tasks = mpsc::Sender<Task>;

/// A way, and its end.
pub fn tasks() -> (Tasks, mpsc::Receiver<Task>) {
    mpsc::channel(MAX_WAITING)
}

impl Parts {
    /// Does something with a partition, and what follows from it.
    pub fn drive<R>(&self, partition: u32, work: impl FnOnce(&mut Locked<'_>, u64, &mut Vec<Outward>) -> R) -> R {
        let (mut effects, mut told) = (Vec::new(), Vec::new());
        let result = {
            let mut locked = self.partitions.lock(partition);
            let result = work(&mut locked, clock::now(), &mut effects);
            locked.absorb(&mut effects, &mut told);
            self.dispatch(partition, effects);
            result
        };
        tell(told);
        result
    }

    /// Does what other rooms do for the protocol; nothing here waits.
    pub fn dispatch(&self, partition: u32, effects: Vec<Outward>) {
        let mut effects = effects.into_iter().peekable();
        while let Some(effect) = effects.next() {
            match effect {
                Effect::Append { to, header, write } => {
                    let mut route = Vec::new();
                    if self.chain.load(Ordering::Relaxed) {
                        while let Some(Effect::Append { to, .. }) = effects.next_if(|next| follows(next, &write)) {
                            route.push(to);
                        }
                    }
                    let mut span = self.tracer.child("replicate", SpanKind::Client, write.data.trace);
                    span.set("cairn.node", &to.node);
                    self.peers.send(Outgoing { partition, to, route, header, write, span });
                }
                Effect::Persist(write) => self.persist(partition, &write),
                effect => {
                    if self.tasks.try_send(Task { partition, effect }).is_err() {
                        tracing::debug!(partition, "too many questions wait; this one is asked again");
                    }
                }
            }
        }
    }

    /// Tells the replicas what was uploaded, so that none of them does it again when it becomes the primary.
    pub fn tell_replicas(&self, uploaded: &[(Bytes, Version, Version)]) {
        for (name, version, object_version) in uploaded {
            let partition = partition_of(name, self.partitions.count());
            let locked = self.partitions.lock(partition);
            for member in locked.replica.entry().in_sync.iter().filter(|member| **member != self.me) {
                let (version, object_version) = (version.0, object_version.0);
                self.peers.tell(&member.node, Uploaded { name: name.clone(), version, object_version });
            }
        }
    }

    /// Takes what peers answered to writes.
    pub fn answered(&self, batch: Vec<Outgoing>, result: Result<Answer, PeerError>) {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                self.metrics.replication.failures.with_label_values(&["unanswered"]).inc();
                tracing::debug!(%error, writes = batch.len(), "writes have not reached a replica");
                batch.into_iter().for_each(|mut outgoing| outgoing.span.fail("unanswered"));
                return;
            }
        };
        if !answer.refused.is_empty() {
            self.metrics.replication.failures.with_label_values(&["refused"]).inc();
        }
        let mut told = Vec::new();
        for Outgoing { partition, to, route, write, .. } in batch {
            let mut effects = Vec::new();
            let mut locked = self.partitions.lock(partition);
            for member in std::iter::once(&to).chain(&route) {
                let is_it = |refused: &&Refused| refused.partition == partition && *refused.node_id == *member.node;
                match answer.refused.iter().find(is_it) {
                    None => locked.replica.acknowledge(member, write.version, &mut effects),
                    Some(refused) => locked.replica.refused(member, refused.failed, clock::now(), &mut effects),
                }
            }
            locked.absorb(&mut effects, &mut told);
            self.dispatch(partition, effects);
        }
        tell(told);
    }

    fn persist(&self, partition: u32, write: &Replicated<Payload>) {
        let Payload { change, durability, idempotency, .. } = write.data.clone();
        // Whoever sends it again under its idempotency key is answered as if this node had taken it.
        let flush = durability == Durability::Fsync;
        let (reply, reservation, span) = (None, None, Span::default());
        let write = Write { partition, change, flush, awaited: true, reply, reservation, idempotency, span };
        let queued = self.disk.enqueue(write);
        if let Err(error) = queued {
            // It stays unsettled, so the partition is not served: the controller gives it to another node.
            tracing::error!(partition, %error, "a write of the former primary cannot be stored");
        }
    }
}

/// Whether an effect sends the same write to one more peer.
fn follows(effect: &Outward, write: &Replicated<Payload>) -> bool {
    matches!(effect, Effect::Append { write: next, .. } if next.version == write.version)
}

/// Works until `stop`.
pub async fn run(
    store: Store,
    masters: Arc<Masters>,
    ownership: Arc<Ownership>,
    mut tasks: mpsc::Receiver<Task>,
    stop: CancellationToken,
) {
    let driver = Arc::new(Driver { store, masters, ownership, slots: Semaphore::new(CONCURRENCY) });
    let running = TaskTracker::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => driver.tick(),
            _ = tasks.recv_many(&mut waiting, MAX_WAITING) => {}
        }
        let mut renewals: HashMap<Member<NodeId>, Vec<Renewal>> = HashMap::new();
        for Task { partition, effect } in waiting.drain(..) {
            match effect {
                Effect::Renew { to, header, sent_at } => {
                    renewals.entry(to).or_default().push((partition, header, sent_at));
                }
                Effect::Collect { to, header, sent_at } => {
                    let driver = driver.clone();
                    running.spawn(async move { driver.collect(partition, &to, &header, sent_at).await });
                }
                Effect::Ask { epoch, change } => {
                    let driver = driver.clone();
                    running.spawn(async move { driver.ask(partition, epoch, change).await });
                }
                Effect::Append { .. } | Effect::Persist(_) | Effect::Committed(_) | Effect::Abandoned => {}
            }
        }
        for (to, leases) in renewals {
            let driver = driver.clone();
            running.spawn(async move { driver.renew(&to, leases).await });
        }
    }
    running.close();
    running.wait().await;
}

/// A lease to ask for: its partition, what the protocol says, and when.
type Renewal = (u32, Header<NodeId>, u64);

struct Driver {
    store: Store,
    masters: Arc<Masters>,
    ownership: Arc<Ownership>,
    slots: Semaphore,
}

impl Driver {
    fn tick(&self) {
        for partition in 0..self.store.partitions.count() {
            self.store.drive(partition, |locked, now, effects| locked.replica.tick(now, effects));
        }
    }

    async fn renew(&self, to: &Member<NodeId>, leases: Vec<Renewal>) {
        let Some((_, first, _)) = leases.first() else { return };
        let message = Renew {
            primary: first.primary.node.to_string(),
            primary_session: first.primary.session,
            session: to.session,
            leases: leases
                .iter()
                .map(|(partition, header, _)| Lease {
                    partition: *partition,
                    epoch: header.epoch,
                    stable: header.stable.0,
                })
                .collect(),
        };
        match self.store.peers.renew(&to.node, message).await {
            Ok(granted) => {
                for (partition, _, sent_at) in leases {
                    self.store.drive(partition, |locked, now, effects| {
                        if granted.leaving {
                            locked.replica.refused(to, true, now, effects);
                        } else if granted.partitions.contains(&partition) {
                            locked.replica.granted(to, sent_at);
                        }
                    });
                }
            }
            Err(error) => tracing::debug!(%error, "leases are not renewed"),
        }
    }

    async fn collect(&self, partition: u32, to: &Member<NodeId>, header: &Header<NodeId>, sent_at: u64) {
        let message = Collect {
            primary: header.primary.node.to_string(),
            primary_session: header.primary.session,
            session: to.session,
            partition,
            epoch: header.epoch,
            stable: header.stable.0,
        };
        let answer = match self.store.peers.collect(&to.node, message).await {
            Ok(answer) if answer.no_holder => {
                self.store.drive(partition, |locked, now, effects| locked.replica.no_holder(to, now, effects));
                return;
            }
            Ok(answer) if answer.stale => return,
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(partition, %error, "a replica has not said which writes it has");
                if error.is_down {
                    self.store.drive(partition, |locked, now, effects| {
                        locked.replica.refused(to, true, now, effects);
                    });
                }
                return;
            }
        };
        let (stable, last) = (Version(answer.stable), Version(answer.last_version));
        let writes: Result<Vec<_>, NodeError> = answer.appends.into_iter().map(crate::follow::write).collect();
        match writes {
            Ok(writes) => self.store.drive(partition, |locked, now, effects| {
                let collected = Collected { writes, stable, last };
                locked.replica.collected(to, header.epoch, sent_at, collected, now, effects);
            }),
            Err(error) => tracing::warn!(partition, peer = %to.node, %error, "what a replica has cannot be read"),
        }
    }

    /// Asks the master for a change of the entry. A refusal needs no answer: the entry that explains it is on its way.
    async fn ask(&self, partition: u32, epoch: u64, change: Change<NodeId>) {
        let Ok(_slot) = self.slots.acquire().await else { return };
        let (kind, subject) = match change {
            Change::CaughtUp(node) => (PartitionChange::CaughtUp, node),
            Change::Remove(node) => (PartitionChange::Remove, node),
            Change::HandOver(node) => (PartitionChange::HandOver, node),
            Change::StepDown(node) => (PartitionChange::StepDown, node),
        };
        let identity = self.ownership.identity();
        let message = ChangePartition {
            node_id: identity.node_id.to_string(),
            session: identity.session,
            epoch,
            change: kind,
            subject: subject.to_string(),
        };
        match self.masters.change_partition(partition, &message).await {
            Ok(entry) => {
                tracing::info!(partition, epoch = entry.epoch, change = ?kind, node = %subject, "the entry changed");
                self.ownership.apply_entry(&entry);
            }
            Err(error) => tracing::debug!(partition, %error, change = ?kind, "the entry has not changed"),
        }
    }
}
