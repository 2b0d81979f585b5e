//! Asks peers and the master what the protocol wants to know, and lets time pass for the engines. Messages of primaries to
//! this node are answered in [`super::follow`].

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_api_spec::{
    Version,
    cluster::{ChangePartition, PartitionChange},
    peer::{Collect, Lease, Renew},
};
use cairn_engine::{Engine, NodeId};
use cairn_replication::{Change, Collected, Effect, Header, Member};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{masters::Masters, ownership::Ownership, peers::Peers};
use crate::{
    driver::{Driver, Task},
    error::NodeError,
};

/// How often partitions are told the time.
const TICK: Duration = Duration::from_millis(100);
/// How long requests that wait may take to end when the node stops: longer than their deadlines.
const LAST_ANSWERS: Duration = Duration::from_secs(6);
/// Questions taken at a time.
const MAX_TAKEN: usize = 65_536;
/// Questions to the master at the same time.
const CONCURRENCY: usize = 64;

/// Works until `stop`.
pub async fn run(
    driver: Arc<Driver>,
    peers: Arc<Peers>,
    masters: Arc<Masters>,
    ownership: Arc<Ownership>,
    mut tasks: mpsc::Receiver<Task>,
    stop: CancellationToken,
) {
    let asker = Arc::new(Asker { driver, peers, masters, ownership, slots: Arc::new(Semaphore::new(CONCURRENCY)) });
    let running = TaskTracker::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => asker.tick(),
            _ = tasks.recv_many(&mut waiting, MAX_TAKEN) => {}
        }
        let mut renewals: HashMap<Member<NodeId>, Vec<Renewal>> = HashMap::new();
        for Task { partition, effect } in waiting.drain(..) {
            match effect {
                Effect::Renew { to, header, sent_at } => {
                    renewals.entry(to).or_default().push((partition, header, sent_at));
                }
                Effect::Collect { to, header, sent_at } => {
                    let asker = asker.clone();
                    running.spawn(async move { asker.collect(partition, &to, &header, sent_at).await });
                }
                Effect::Ask { epoch, change } => {
                    // Without a slot it is dropped; the protocol asks again, and then for what is needed by then.
                    if let Ok(slot) = asker.slots.clone().try_acquire_owned() {
                        let asker = asker.clone();
                        running.spawn(async move {
                            asker.ask(partition, epoch, change).await;
                            drop(slot);
                        });
                    }
                }
                Effect::Lost(version) => {
                    asker.driver.metrics.lost_writes.inc();
                    tracing::error!(partition, %version, "the last copy goes on without writes that its disk has lost");
                }
                Effect::EpochTooHigh(epoch) => {
                    tracing::error!(partition, epoch, "an entry is not followed: no version can have its epoch");
                }
                Effect::Append { .. } | Effect::Persist(_) | Effect::Committed(_) | Effect::Abandoned => {}
            }
        }
        for (to, leases) in renewals {
            let asker = asker.clone();
            running.spawn(async move { asker.renew(&to, leases).await });
        }
    }
    running.close();
    // A peer or a master that does not answer holds up nobody who stops.
    let _ = tokio::time::timeout(LAST_ANSWERS, running.wait()).await;
    // Whoever waits is answered, by a commit or by a deadline.
    asker.driver.end_uploads();
    let end = Instant::now() + LAST_ANSWERS;
    while asker.driver.waiting_requests() > 0 && Instant::now() < end {
        ticks.tick().await;
        asker.tick();
    }
}

/// A lease to ask for: its partition, what the protocol says, and when.
type Renewal = (u32, Header<NodeId>, u64);

struct Asker {
    driver: Arc<Driver>,
    peers: Arc<Peers>,
    masters: Arc<Masters>,
    ownership: Arc<Ownership>,
    slots: Arc<Semaphore>,
}

impl Asker {
    fn tick(&self) {
        self.ownership.watch_clock();
        self.driver.watch_disk();
        for partition in 0..self.driver.partitions.count() {
            self.driver.drive(partition, Engine::tick);
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
        match self.peers.renew(&to.node, message).await {
            Ok(granted) => {
                for (partition, _, sent_at) in leases {
                    self.driver.protocol(partition, |replica, now, effects| {
                        if granted.leaving || granted.failed.contains(&partition) {
                            replica.refused(to, true, now, effects);
                        } else if granted.partitions.contains(&partition) {
                            replica.granted(to, sent_at);
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
        let answer = match self.peers.collect(&to.node, message).await {
            Ok(answer) if answer.no_holder => {
                self.driver.protocol(partition, |replica, now, effects| replica.no_holder(to, now, effects));
                return;
            }
            Ok(answer) if answer.stale => return,
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(partition, %error, "a replica has not said which writes it has");
                if error.is_down {
                    self.driver.protocol(partition, |replica, now, effects| {
                        replica.refused(to, true, now, effects);
                    });
                }
                return;
            }
        };
        let (stable, last) = (Version(answer.stable), Version(answer.last_version));
        let writes: Result<Vec<_>, NodeError> = answer.appends.into_iter().map(super::follow::write).collect();
        match writes {
            Ok(writes) => self.driver.protocol(partition, |replica, now, effects| {
                let collected = Collected { writes, stable, last };
                replica.collected(to, header.epoch, sent_at, collected, now, effects);
            }),
            Err(error) => tracing::warn!(partition, peer = %to.node, %error, "what a replica has cannot be read"),
        }
    }

    /// Asks the master for a change of the entry. A refusal needs no answer: the entry that explains it is on its way.
    async fn ask(&self, partition: u32, epoch: u64, change: Change<NodeId>) {
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
                tracing::debug!(partition, epoch = entry.epoch, change = ?kind, node = %subject, "the entry changed");
                self.ownership.apply_entry(&entry);
            }
            Err(error) => tracing::debug!(partition, %error, change = ?kind, "the entry has not changed"),
        }
    }
}
