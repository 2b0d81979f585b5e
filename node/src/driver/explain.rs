//! Where a key is and why: what the tiers and the map say of it, without its value.

use cairn_api_spec::{
    EntryName, Operation, Outcome, Version,
    data::{Explanation, KeyState, timestamp},
    operation::{Action, Metadata, Tier},
    version::Condition,
};
use cairn_engine::{Newest, NodeId};
use cairn_replication::Member;

use super::{Driver, load::in_time};
use crate::{clock, error::NodeError, tiers::disk::Row};

/// How often a partition may change while a key is explained.
const ATTEMPTS: u32 = 3;

/// The newest committed state of a key.
struct Known {
    version: Version,
    /// `None` for a removal, and for nothing at all.
    metadata: Option<Metadata>,
    /// The highest one that holds the value.
    tier: Tier,
}

impl Driver {
    /// Explains a key. As with a read, what was found counts only if the partition was served at the same epoch before and
    /// after.
    pub(super) async fn explain(&self, partition: u32, name: &EntryName, epoch: u64) -> Result<Outcome, NodeError> {
        for _ in 0..ATTEMPTS {
            let served = self.ready(partition, epoch).await?;
            let explanation = self.explain_once(partition, name).await?;
            if self.partitions.serving_epoch(partition) == served && self.partitions.has_lease(partition) {
                return Ok(Outcome::Explained(Box::new(explanation)));
            }
        }
        Err(self.not_owner(partition))
    }

    async fn explain_once(&self, partition: u32, name: &EntryName) -> Result<Explanation, NodeError> {
        let newest = || self.partitions.lock(partition).newest(name.as_bytes());
        let before = newest();
        let row = in_time(self.disk.load(name.as_bytes().clone(), false)).await?;
        let after = newest();
        let write_pending = [&before, &after].iter().any(|newest| matches!(newest, Newest::Uncommitted));
        let known = match (before, after) {
            // The disk may have a write before it is committed: what a read is told counts.
            (Newest::Uncommitted, _) | (_, Newest::Uncommitted) => self.known_to_reads(partition, name).await?,
            // What was ahead of the disk may be on it since, and the row may be older.
            (newest, Newest::Stored) | (_, newest) => {
                let on_disk = in_time(self.disk.holds_value(name.as_bytes())).await?;
                self.known(name, newest, row.as_ref(), on_disk)
            }
        };
        Ok(self.explanation(partition, name, &known, row.as_ref(), write_pending))
    }

    async fn known_to_reads(&self, partition: u32, name: &EntryName) -> Result<Known, NodeError> {
        let mut head = Operation::new(name.clone(), Condition::None, Action::Head);
        Ok(match self.run(partition, &mut head, 0, None).await? {
            Outcome::Found { metadata, tier, .. } => {
                Known { version: metadata.version, metadata: Some(metadata), tier }
            }
            Outcome::Missing(version) => Known { version, metadata: None, tier: Tier::Memory },
            _ => Known { version: Version::NONE, metadata: None, tier: Tier::Memory },
        })
    }

    /// A write that the disk did not have before the row was read goes before that, unless it has it now.
    fn known(&self, name: &EntryName, newest: Newest, row: Option<&Row>, on_disk: bool) -> Known {
        let stored = row.map_or(Version::NONE, |row| row.metadata.version);
        match newest {
            Newest::Ahead(version, entry) if version > stored => {
                Known { version, metadata: entry.map(|entry| entry.metadata()), tier: Tier::Memory }
            }
            _ => Known {
                version: stored,
                metadata: row.filter(|row| !row.tombstone).map(|row| row.metadata.clone()),
                tier: match self.memory.contains(name.as_bytes()) {
                    true => Tier::Memory,
                    false if on_disk => Tier::Disk,
                    false => Tier::Object,
                },
            },
        }
    }

    fn explanation(
        &self,
        partition: u32,
        name: &EntryName,
        known: &Known,
        row: Option<&Row>,
        write_pending: bool,
    ) -> Explanation {
        let Known { version, metadata, tier } = known;
        let (now, expires_at) = (clock::wall(), metadata.as_ref().and_then(|metadata| metadata.expires_at));
        let state = match metadata {
            Some(_) if expires_at.is_some_and(|at| at <= now) => KeyState::Expired,
            Some(_) => KeyState::Live,
            None if *version == Version::NONE => KeyState::NeverWritten,
            None => KeyState::Deleted,
        };
        let is_live = state == KeyState::Live;
        let object_version = row.map(|row| row.object_version).filter(|has| *has != Version::NONE);
        let entry = self.partitions.lock(partition).replica().entry().clone();
        let names =
            |members: &[Member<NodeId>]| members.iter().map(|member| member.node.to_string()).collect::<Vec<_>>();
        Explanation {
            bucket: name.bucket().to_owned(),
            key: name.key().to_owned(),
            partition,
            epoch: entry.epoch,
            primary: entry.primary.as_deref().unwrap_or_default().to_owned(),
            in_sync: names(&entry.in_sync),
            learners: names(&entry.learners),
            node: self.me.node.to_string(),
            state,
            detail: sentence(state, *version, expires_at),
            version: *version,
            size: metadata.as_ref().map(|metadata| metadata.size),
            content_type: metadata.as_ref().map(|metadata| metadata.content_type.clone()),
            modified_at: metadata.as_ref().map(|metadata| timestamp(metadata.modified_at)),
            expires_at: expires_at.map(timestamp),
            ttl: expires_at.filter(|_| is_live).map(|at| at.saturating_sub(now).div_ceil(1_000)),
            tier: is_live.then_some(*tier),
            uploaded: self.objects.as_ref().filter(|_| is_live).map(|_| object_version == Some(*version)),
            object_version,
            write_pending,
            asked: None,
        }
    }
}

fn sentence(state: KeyState, version: Version, expires_at: Option<u64>) -> String {
    match state {
        KeyState::Live => format!("the key is there, at version {version}"),
        KeyState::Expired => {
            let at = timestamp(expires_at.unwrap_or_default());
            format!("the key expired at {at}, at version {version}, and has not been swept yet")
        }
        KeyState::Deleted => format!("the key was removed by version {version}: by a delete, its expiry or eviction"),
        KeyState::NeverWritten => "the key was never written, or its removal is forgotten".to_owned(),
    }
}
