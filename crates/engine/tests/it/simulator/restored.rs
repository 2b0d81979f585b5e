//! Whether the bucket has what it was said to have: when a partition was restored from it, and at the end.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_api_spec::{Version, operation::Durability};
use cairn_engine::Change;

use super::{
    history::Reply,
    network::Node,
    restoring::{believe, values},
    uploads::Mark,
    world::{Event, World},
};

impl World {
    /// Takes note of what was uploaded and counts.
    pub(crate) fn count(&mut self, counted: Vec<Mark>) {
        for mark in counted {
            let is_newer = self.counted.get(&mark.name).is_none_or(|known| known.version < mark.version);
            if is_newer {
                self.counted.insert(mark.name.clone(), mark);
            }
        }
    }

    /// No key of a partition that was just restored is older than the newest that was uploaded, or is missing.
    pub(crate) fn check_restored(&mut self, node: Node, partition: u32) {
        let Some(machine) = self.machines.get(&node) else { return };
        let rows = &machine.disk.tables.rows;
        for mark in self.counted.values().filter(|mark| mark.partition == partition) {
            let restored = rows.get(&mark.name).map(|row| row.change.version());
            let is_right = match restored {
                Some(version) => version >= mark.version,
                None => mark.place.is_none() || self.was_overwritten(&mark.name, mark.version),
            };
            if !is_right && self.wrong.is_none() {
                self.wrong = Some(format!("{} ms: node {node} restored {restored:?} of {mark:?}", self.now));
            }
        }
    }

    /// Whether a write may have come after a version of a key: a checkpoint does not list what that has replaced, although
    /// the bucket need not have the write itself.
    fn was_overwritten(&self, name: &Bytes, version: Version) -> bool {
        self.history.iter().any(|operation| {
            let is_later = match &operation.answer {
                Some((_, reply)) if reply.version().is_some() => reply.version() > Some(version),
                Some((_, Reply::Refused(_))) => false,
                _ => true,
            };
            is_later && operation.call.is_write() && operation.call.name().as_bytes() == name
        })
    }

    /// Carries out whatever is still on its way to the bucket.
    pub(crate) fn settle_bucket(&mut self) {
        let due: Vec<(u64, u64)> =
            self.events.iter().filter(|(_, event)| matches!(event, Event::Bucket(..))).map(|(at, _)| *at).collect();
        for at in due {
            if let Some(Event::Bucket(request, _)) = self.events.remove(&at) {
                drop(self.bucket.execute(request.ask));
            }
        }
    }

    /// What a restore would believe now is not newer than what is committed, and of each key that the primary says to have
    /// uploaded it is exactly the primary's row.
    pub(crate) fn check_bucket(&self, partition: u32) -> Result<(), String> {
        let primary = self.master.primary(partition).and_then(|node| self.machines.get(&node));
        let Some(machine) = primary else { return Ok(()) };
        let segments: Vec<_> = self.bucket.segments.values().cloned().collect();
        let checkpoint = self.bucket.newest(partition);
        let belief = believe(partition, checkpoint.map(|checkpoint| &**checkpoint), &segments, self.config.bug);
        let values = values(&belief.rows, &segments)?;
        let believed: BTreeMap<&[u8], &Change> = values.iter().map(|change| (change.name(), change)).collect();
        let committed = machine.committed(partition);
        // Until the next checkpoint the bucket may have what the disks have lost.
        let excuses = self.excuses.get(&partition).map(Vec::as_slice).unwrap_or_default();
        let has_lost = excuses.iter().any(|excuse| excuse.up_to < Durability::Fsync);
        if let Some(change) = values.iter().find(|change| change.version() > committed && !has_lost) {
            return Err(format!("the bucket has {change:?} of partition {partition}, committed is {committed}"));
        }
        for (name, row) in machine.disk.tables.rows.iter().filter(|(_, row)| row.partition == partition && row.uploaded)
        {
            let is_value = matches!(row.change, Change::Put(_));
            let version = believed.get(&name[..]).map(|change| change.version());
            let is_lost = has_lost && version.is_none_or(|version| version > row.change.version());
            if version != is_value.then(|| row.change.version()) && !is_lost {
                return Err(format!("a restore of partition {partition} would find {version:?} instead of {row:?}"));
            }
        }
        Ok(())
    }
}
