//! What a node has stored, and what of it a power cut takes back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cairn_api_spec::{Version, peer::FirstOutcome};
use cairn_engine::{Change, Idempotency};
use cairn_object_tier::Place;

use super::{
    disk::{Task, Work, Write},
    uploads::Mark,
};
use crate::planted::Bug;

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) partition: u32,
    /// A put or a deletion.
    pub(crate) change: Change,
    /// It does not wait for its upload.
    pub(crate) uploaded: bool,
    /// Where the bucket has the value.
    pub(crate) place: Option<Place>,
}

/// A partition whose rows are a complete copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) generation: u64,
    pub(crate) last: Version,
}

/// One change of what is stored, with what was there before.
enum Undo {
    Row(Bytes, Option<Row>),
    Key((u32, Version), Option<FirstOutcome>),
    Held(u32, Option<Held>),
}

#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) rows: BTreeMap<Bytes, Row>,
    pub(crate) keys: BTreeMap<(u32, Version), FirstOutcome>,
    pub(crate) held: BTreeMap<u32, Held>,
    /// What has changed since the medium was flushed last, in order.
    unflushed: Vec<Undo>,
}

impl Tables {
    /// What is stored by now survives a power cut.
    pub(crate) fn flush(&mut self) {
        self.unflushed.clear();
    }

    /// A power cut: what is stored is as it was when the medium was flushed last. Returns of which partitions something
    /// is lost.
    pub(crate) fn lose_unflushed(&mut self) -> BTreeSet<u32> {
        let mut lost = BTreeSet::new();
        for undo in std::mem::take(&mut self.unflushed).into_iter().rev() {
            match undo {
                Undo::Row(name, before) => {
                    let now = self.rows.get(&name);
                    lost.extend(now.into_iter().chain(&before).map(|row| row.partition));
                    set(&mut self.rows, name, before);
                }
                Undo::Key(key, before) => {
                    lost.insert(key.0);
                    set(&mut self.keys, key, before);
                }
                Undo::Held(partition, before) => drop(set(&mut self.held, partition, before)),
            }
        }
        lost
    }

    fn set_row(&mut self, name: &Bytes, row: Option<Row>) {
        let before = set(&mut self.rows, name.clone(), row);
        self.unflushed.push(Undo::Row(name.clone(), before));
    }

    fn set_key(&mut self, key: (u32, Version), first: Option<FirstOutcome>) {
        let before = set(&mut self.keys, key, first);
        self.unflushed.push(Undo::Key(key, before));
    }

    fn set_held(&mut self, partition: u32, held: Option<Held>) {
        let before = set(&mut self.held, partition, held);
        self.unflushed.push(Undo::Held(partition, before));
    }

    pub(crate) fn store(&mut self, write: &Write, bug: Option<Bug>) {
        if let Some(first) = first_outcome(write).filter(|_| bug != Some(Bug::KeysNotStored)) {
            self.set_key((write.partition, write.change.version()), Some(first));
        }
        if !matches!(write.change, Change::Note { .. }) {
            let uploaded = bug == Some(Bug::DeletionsNotUploaded) && matches!(write.change, Change::Delete { .. });
            let (partition, change) = (write.partition, write.change.clone());
            self.put(Row { partition, change, uploaded, place: None });
        }
    }

    fn put(&mut self, row: Row) {
        let name = Bytes::copy_from_slice(row.change.name());
        if self.rows.get(&name).is_none_or(|known| known.change.version() < row.change.version()) {
            self.set_row(&name, Some(row));
        }
    }

    /// Removes a row, unless it has another version by now.
    fn remove(&mut self, name: &Bytes, version: Version) {
        if self.rows.get(name).is_some_and(|row| row.change.version() == version) {
            self.set_row(name, None);
        }
    }

    /// The bucket has a row there, or does not have it, unless it has another version by now.
    fn mark(&mut self, name: &Bytes, version: Version, uploaded: bool, place: Option<Place>) {
        if let Some(row) = self.rows.get(name).filter(|row| row.change.version() == version) {
            let row = Row { uploaded, place, ..row.clone() };
            self.set_row(name, Some(row));
        }
    }

    fn drop_keys(&mut self, partition: u32) {
        let keys = self.keys.keys().filter(|(of, _)| *of == partition);
        keys.copied().collect::<Vec<_>>().into_iter().for_each(|key| self.set_key(key, None));
    }

    fn drop_rows(&mut self, partition: u32) {
        let rows = self.rows.iter().filter(|(_, row)| row.partition == partition);
        let names: Vec<Bytes> = rows.map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.set_row(name, None));
    }

    /// The highest version of a partition that is stored.
    pub(crate) fn last(&self, partition: u32) -> Version {
        let rows = self.rows.values().filter(|row| row.partition == partition).map(|row| row.change.version());
        let keys = self.keys.keys().filter(|(of, _)| *of == partition).map(|(_, version)| *version);
        rows.chain(keys).chain(self.held.get(&partition).map(|held| held.last)).max().unwrap_or_default()
    }

    pub(crate) fn apply(&mut self, Task { partition, work, .. }: &mut Task) {
        let partition = *partition;
        match work {
            Work::Barrier | Work::Snapshot { .. } => {}
            Work::BeginCopy { mine } => {
                self.set_held(partition, None);
                self.drop_keys(partition);
                let rows = self.rows.iter().filter(|(_, row)| row.partition == partition);
                *mine = rows.map(|(name, row)| (name.clone(), row.change.version())).collect();
            }
            Work::StoreRows { outdated, rows } => {
                outdated.iter().for_each(|(name, version)| self.remove(name, *version));
                rows.drain(..).for_each(|row| self.put(row));
            }
            Work::StoreKeys(keys) => {
                for first in keys.drain(..) {
                    let key = (partition, Version(first.version));
                    if !self.keys.contains_key(&key) {
                        self.set_key(key, Some(first));
                    }
                }
            }
            Work::Mark { marks, waiting } => {
                for Mark { name, version, place, .. } in marks.drain(..) {
                    self.mark(&name, version, true, place);
                }
                waiting.drain(..).for_each(|(name, version)| self.mark(&name, version, false, None));
            }
            Work::Adopt(held) => self.set_held(partition, Some(*held)),
            Work::Forget(deletions) => {
                for (name, version) in deletions.iter() {
                    if let Some(held) = self.held.get(&partition).copied() {
                        self.set_held(partition, Some(Held { last: held.last.max(*version), ..held }));
                    }
                    self.remove(name, *version);
                }
            }
            Work::Disown => self.set_held(partition, None),
            Work::Drop => {
                self.set_held(partition, None);
                self.drop_rows(partition);
                self.drop_keys(partition);
            }
        }
    }
}

/// Returns what was there before.
fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

/// What is kept of a write with an idempotency key.
fn first_outcome(write: &Write) -> Option<FirstOutcome> {
    let Idempotency { key, created, counted } = write.idempotency.as_ref()?;
    let (tombstone, expires_at, (refused, refused_version)) = match &write.change {
        Change::Put(entry) => (false, entry.metadata().expires_at.unwrap_or(0), (0, 0)),
        Change::Delete { .. } => (true, 0, (0, 0)),
        Change::Note { refused, deletes, .. } => (*deletes, 0, refused.to_peer()),
    };
    Some(FirstOutcome {
        key: key.as_str().to_owned(),
        name: Bytes::copy_from_slice(write.change.name()),
        version: write.change.version().0,
        created: *created,
        tombstone,
        modified_at: write.change.at(),
        expires_at,
        refused,
        refused_version,
        counted: *counted,
    })
}
