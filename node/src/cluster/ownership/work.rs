//! What a new role asks for and takes a while: restoring, merging, learning and dropping a partition's rows.

use std::time::{Duration, Instant};

use cairn_api_spec::{Version, backoff::Backoff};
use cairn_engine::NodeId;
use cairn_replication::Member;

use super::Ownership;
use crate::{
    cluster::transfer,
    driver::restore::{Restore, Restored},
    error::NodeError,
    tiers::disk::HeldPartition,
};

/// Pauses after failures.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// How long rows of a partition that went elsewhere are kept.
const DISCARD_AFTER: Duration = Duration::from_secs(60);

impl Ownership {
    /// Takes the lead once everything that this node has acknowledged is on its disk, where reads look for it.
    pub(super) async fn resume(&self, partition: u32) {
        retry("what was acknowledged is not on the disk", partition, || self.driver.disk.barrier()).await;
        self.lead(partition);
    }

    pub(super) fn lead(&self, partition: u32) {
        let inner = self.inner();
        self.driver.protocol(partition, |replica, now, effects| {
            replica.lead(now, effects);
            let has_ended = |member: &&Member<NodeId>| {
                inner.sessions.get(&*member.node).is_some_and(|session| member.session < *session)
            };
            let ended: Vec<_> = replica.entry().in_sync.iter().filter(has_ended).cloned().collect();
            ended.iter().for_each(|process| replica.session_ended(process, now, effects));
        });
    }

    /// Brings back what the object store has, then takes the lead. This node was given the partition at `since`, in its
    /// first epoch or (`is_first` is false) in a later one.
    pub(super) async fn restore(&self, partition: u32, generation: u64, is_first: bool, since: Instant) {
        // What has failed with one listing is tried with a later one.
        let mut since = Some(since);
        let restored = retry("a partition cannot be restored", partition, || {
            let since = since.take().unwrap_or_else(Instant::now);
            async move {
                let listing = self.driver.objects.as_ref().map(|objects| objects.listing(since));
                let _slot = self.slots.acquire().await;
                self.driver.disk.drop_partition(partition).await?;
                let epoch = self.driver.partitions.lock(partition).replica().entry().epoch;
                let Restored { keys, last } = match &listing {
                    Some(listing) => self.driver.restore(Restore { partition, epoch, is_first }, listing).await?,
                    None => Restored { keys: 0, last: Version::NONE },
                };
                let held = HeldPartition { generation, last_version: last };
                self.driver.disk.adopt_partition(partition, held).await?;
                Ok((held, keys))
            }
        });
        let (held, count) = restored.await;
        if count > 0 {
            self.driver.metrics.restored.inc_by(count);
            tracing::info!(partition, keys = count, "restored from the object store");
        }
        self.inner().held.insert(partition, held);
        self.driver.protocol(partition, |replica, _, _| replica.observe(held.last_version));
        self.lead(partition);
    }

    /// Processes of a quorum were restarted: they do not know any more which of their writes may not be everywhere. Takes
    /// over all that they have, then the lead; they learn it all anew. Fewer than a quorum need not answer: each write that
    /// was answered is on one of the others.
    pub(super) async fn merge(&self, partition: u32, generation: u64, others: &[Member<NodeId>], quorum: usize) {
        let merged = retry("the copies of a partition cannot be merged", partition, || async {
            let _slot = self.slots.acquire().await;
            let (mut last, mut missing) = (Version::NONE, 0);
            for other in others {
                match transfer::merge(&self.driver, &self.peers, &self.transfers, partition, &other.node).await {
                    Ok(newest) => last = last.max(newest),
                    Err(error) if missing + 1 < quorum => {
                        missing += 1;
                        tracing::warn!(partition, node = &*other.node, %error, "a copy does not say what it has");
                    }
                    Err(error) => return Err(error),
                }
            }
            self.driver.disk.adopt_partition(partition, HeldPartition { generation, last_version: last }).await?;
            Ok(last)
        });
        let last = merged.await;
        self.driver.protocol(partition, |replica, _, _| replica.observe(last));
        self.lead(partition);
        for other in others {
            self.driver.protocol(partition, |replica, now, effects| replica.refused(other, true, now, effects));
        }
    }

    /// Copies everything from the primary, and stays with it until it is in-sync; the entry that says so, or that it is
    /// none any more, ends the task.
    pub(super) async fn learn(&self, partition: u32, generation: u64, primary: NodeId) {
        let learner = Member { node: self.identity.node_id.clone(), session: self.identity.session };
        retry("a partition cannot be learned", partition, || async {
            let mut copy =
                transfer::Copy::new(&self.driver, &self.peers, &self.transfers, &learner, partition, &primary)?;
            let held = {
                let _slot = self.slots.acquire().await;
                self.driver.disk.disown_partition(partition).await?;
                let held = HeldPartition { generation, last_version: copy.run().await? };
                self.driver.disk.adopt_partition(partition, held).await?;
                held
            };
            self.inner().held.insert(partition, held);
            self.driver.protocol(partition, |replica, _, _| replica.observe(held.last_version));
            copy.stay().await
        })
        .await;
    }

    /// Drops the rows of a partition that is no longer this node's: after a while, since it may come back before long,
    /// and then needs only what has changed.
    pub(super) async fn discard(&self, partition: u32) {
        retry("a partition cannot be disowned", partition, || self.driver.disk.disown_partition(partition)).await;
        tokio::time::sleep(DISCARD_AFTER).await;
        retry("a partition cannot be dropped", partition, || self.driver.disk.drop_partition(partition)).await;
    }
}

/// Does something again until it works; the task that it stands in ends it.
async fn retry<T, F: Future<Output = Result<T, NodeError>>>(
    what: &str,
    partition: u32,
    mut work: impl FnMut() -> F,
) -> T {
    let mut backoff = BACKOFF;
    loop {
        let error = match work().await {
            Ok(done) => return done,
            Err(error) => error,
        };
        let pause = backoff.pause(rand::random());
        tracing::warn!(partition, %error, retry_in = ?pause, "{what}");
        tokio::time::sleep(pause).await;
    }
}
