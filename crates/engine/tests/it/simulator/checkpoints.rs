//! Checkpoints of the partitions that a node serves, as the real driver makes them with the same rules.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_api_spec::Version;
use cairn_engine::Change;
use cairn_object_tier::{
    CheckpointName, Place, Record,
    checkpoint::Head,
    rules::{
        checkpoint::{Since, is_due, may_publish, watermark},
        collect::{Basis, may_be_basis},
        upload::{Lead, counts},
    },
};
use cairn_replication::Replica;

use super::{
    bucket::{Ask, Checkpoint, Found},
    disk::Work,
    machine::{Local, Machine},
    tables::Row,
    uploads::{Mark, PATIENCE},
};

/// How often a tick looks at whether a checkpoint is due, of a thousand.
const LOOKS: u64 = 100;
/// Rows read at a time.
const PAGE: usize = 2;

/// What is known of a partition's checkpoints.
#[derive(Default)]
pub(crate) struct Known {
    /// The epoch in which the places of the newest one were taken over.
    pub(crate) reconciled: u64,
    /// Keys changed since the last one.
    pub(crate) changed: u64,
    /// Keys that the last one lists, and when it was seen.
    pub(crate) listed: Option<(u64, u64)>,
    /// The one that releases are based on.
    pub(crate) basis: Option<Basis>,
}

/// A checkpoint that is being made.
pub(crate) struct Making {
    pub(crate) number: u64,
    since: u64,
    lead: Lead,
    /// Of the changes since the last one, those that it surely has.
    changed: u64,
    stage: Stage,
}

enum Stage {
    /// Asks for the newest one, whose places it takes over.
    Reconciling,
    /// Keys that the newest one lists, if there is one.
    TakingOver(Option<u64>),
    /// Waits for what is committed, with the number below which segments are settled.
    Barrier(Version, u64),
    Scanning(Draft),
    Committing(Draft),
    Publishing(Basis, u64),
    Listing(Basis, u64),
}

/// What was gathered.
pub(crate) struct Draft {
    head: Head,
    pub(crate) rows: Vec<Record>,
    after: Bytes,
    newest_seen: Version,
}

impl Draft {
    pub(crate) fn new(head: Head) -> Self {
        Self { head, rows: Vec::new(), after: Bytes::new(), newest_seen: Version::NONE }
    }

    pub(crate) fn take(&mut self, row: &Row) {
        self.newest_seen = self.newest_seen.max(row.change.version());
        let is_listed =
            matches!(row.change, Change::Put(_)) && row.uploaded && row.change.version() <= self.head.watermark;
        if is_listed && row.place.is_some() {
            self.rows.push(row.record(row.place.clone()));
        }
    }
}

impl Machine {
    pub(crate) fn look_after_checkpoints(&mut self, now: u64) {
        self.uploads.making.retain(|_, making| now < making.since + 2 * PATIENCE);
        for partition in 0..self.rules.partitions {
            self.publish_committed(partition, now);
            let Some(known) = self.uploads.known.get(&partition) else { continue };
            let (listed, at) = known.listed.unzip();
            let age = Duration::from_millis(at.map_or(0, |at| now.saturating_sub(at)));
            let since = Since { listed, changed: known.changed, age };
            let lead = self.lead_of(partition, now).filter(|lead| lead.leased);
            let Some(lead) = lead.filter(|_| !self.uploads.making.contains_key(&partition)) else { continue };
            if is_due(&since) && self.random.chance(LOOKS) {
                self.begin_checkpoint(partition, lead, now);
            }
        }
    }

    fn begin_checkpoint(&mut self, partition: u32, lead: Lead, now: u64) {
        self.attempts += 1;
        let number = self.attempts;
        let making = Making { number, since: now, lead, changed: 0, stage: Stage::Reconciling };
        self.uploads.making.insert(partition, making);
        let known = self.uploads.known.entry(partition).or_default();
        if known.reconciled == lead.epoch {
            return self.wait_for_disk(partition);
        }
        (known.basis, known.listed) = (None, None);
        self.ask_bucket_as(number, Ask::Newest(partition));
    }

    fn wait_for_disk(&mut self, partition: u32) {
        let (covers, committed) = (self.uploads.settled_below(), self.committed(partition));
        let changed = self.uploads.known.get(&partition).map_or(0, |known| known.changed);
        let Some(making) = self.uploads.making.get_mut(&partition) else { return };
        (making.stage, making.changed) = (Stage::Barrier(committed, covers), changed);
        let number = making.number;
        if !self.enqueue_task(partition, number, Work::Barrier) {
            self.uploads.making.remove(&partition);
        }
    }

    /// What the bucket has answered to a checkpoint that is being made.
    pub(crate) fn checkpoint_answered(&mut self, partition: u32, found: Found, now: u64) {
        let Some(making) = self.uploads.making.get_mut(&partition) else { return };
        let (number, lead) = (making.number, making.lead);
        match (std::mem::replace(&mut making.stage, Stage::Reconciling), found) {
            (Stage::Reconciling, Found::Objects(newest, _)) => {
                making.stage = Stage::TakingOver(newest.as_ref().map(|newest| newest.rows.len() as u64));
                let work = newest.map_or(Work::Barrier, |newest| self.places_of(partition, &newest));
                if self.enqueue_task(partition, number, work) {
                    return;
                }
            }
            (Stage::Publishing(basis, rows), Found::Done) => {
                making.stage = Stage::Listing(basis, rows);
                return self.ask_bucket_as(number, Ask::List(partition));
            }
            (Stage::Listing(basis, rows), Found::Names(names, _)) => {
                let changed = making.changed;
                if counts(lead, self.lead_of(partition, now)) {
                    let known = self.uploads.known.entry(partition).or_default();
                    known.changed -= changed.min(known.changed);
                    known.listed = Some((rows, now));
                    known.basis = may_be_basis(&basis.name, &names).then_some(basis);
                    self.remove_former(partition, names, now);
                }
            }
            _ => {}
        }
        self.uploads.making.remove(&partition);
    }

    fn remove_former(&mut self, partition: u32, names: Vec<CheckpointName>, now: u64) {
        let lead = self.lead_of(partition, now);
        let Some(basis) = self.uploads.known.get(&partition).and_then(|known| known.basis.clone()) else { return };
        for name in names.into_iter().filter(|name| basis.releases_checkpoint(name, lead)) {
            self.ask_bucket(Ask::RemoveCheckpoint(name));
        }
    }

    /// Takes over the places of the newest checkpoint, which the former primary may have changed.
    fn places_of(&self, partition: u32, newest: &Checkpoint) -> Work {
        let listed: HashMap<&Bytes, &Record> = newest.rows.iter().map(|record| (&record.name, record)).collect();
        let (mut marks, mut waiting) = (Vec::new(), Vec::new());
        for (name, row) in self.disk.tables.rows.iter().filter(|(_, row)| row.partition == partition) {
            let version = row.change.version();
            if version > newest.name.watermark || !matches!(row.change, Change::Put(_)) {
                continue;
            }
            match listed.get(name).filter(|record| record.version == version) {
                Some(record) if record.place == row.place => {}
                Some(record) => {
                    marks.push(Mark { partition, name: name.clone(), version, place: record.place.clone() });
                }
                None if row.place.is_some() => waiting.push((name.clone(), version)),
                None => {}
            }
        }
        Work::Mark { marks, waiting }
    }

    /// A task of the disk has ended. Returns whether a checkpoint waited for it.
    pub(crate) fn checkpoint_stored(&mut self, partition: u32, attempt: u64, is_done: bool, now: u64) -> bool {
        let Some(making) = self.uploads.making.get(&partition).filter(|making| making.number == attempt) else {
            return false;
        };
        match making.stage {
            _ if !is_done => drop(self.uploads.making.remove(&partition)),
            Stage::TakingOver(rows) => {
                let (epoch, known) = (making.lead.epoch, self.uploads.known.entry(partition).or_default());
                (known.reconciled, known.listed) = (epoch, rows.map(|rows| (rows, now)));
                self.wait_for_disk(partition);
            }
            Stage::Barrier(committed, covers) => self.begin_scan(partition, committed, covers),
            _ => {}
        }
        true
    }

    /// Everything committed is on the disk, and what waits is marked so; but what the disk has refused.
    fn begin_scan(&mut self, partition: u32, committed: Version, covers: u64) {
        let has_stored = self.replica(partition).is_some_and(|replica| replica.has_stored(committed));
        let rows = self.disk.tables.rows.values().filter(|row| row.partition == partition && !row.uploaded);
        let waiting = rows.map(|row| row.change.version()).min();
        let Some(mut making) = self.uploads.making.remove(&partition).filter(|_| has_stored) else { return };
        let (epoch, attempt) = (making.lead.epoch, making.number);
        let Some(watermark) = watermark(epoch, committed, waiting) else { return };
        making.stage = Stage::Scanning(Draft::new(Head { partition, watermark, epoch, covers }));
        self.uploads.making.insert(partition, making);
        self.scan_later(partition, attempt);
    }

    fn scan_later(&mut self, partition: u32, attempt: u64) {
        let delay = self.random.between(0, 30);
        self.later(delay, Local::GoOn { partition, attempt });
    }

    /// Reads the next rows. Returns whether a checkpoint waited for that.
    pub(crate) fn scan(&mut self, partition: u32, attempt: u64, now: u64) -> bool {
        let Some(making) = self.uploads.making.get_mut(&partition).filter(|making| making.number == attempt) else {
            return false;
        };
        let Stage::Scanning(draft) = &mut making.stage else { return true };
        let rows =
            self.disk.tables.rows.iter().filter(|(name, row)| row.partition == partition && **name > draft.after);
        let page: Vec<(Bytes, Row)> = rows.take(PAGE).map(|(name, row)| (name.clone(), row.clone())).collect();
        page.iter().for_each(|(_, row)| draft.take(row));
        if let Some((last, _)) = page.into_iter().next_back() {
            draft.after = last;
            self.scan_later(partition, attempt);
        } else if let Stage::Scanning(draft) = std::mem::replace(&mut making.stage, Stage::Reconciling) {
            making.stage = Stage::Committing(draft);
            self.publish_committed(partition, now);
        }
        true
    }

    /// Publishes what was gathered, as soon as all of it is committed.
    fn publish_committed(&mut self, partition: u32, now: u64) {
        let (committed, lead) = (self.committed(partition), self.lead_of(partition, now));
        let Some(making) = self.uploads.making.get(&partition) else { return };
        let Stage::Committing(draft) = &making.stage else { return };
        if !counts(making.lead, lead) {
            self.uploads.making.remove(&partition);
        } else if may_publish(draft.newest_seen, committed) {
            let Some(mut making) = self.uploads.making.remove(&partition) else { return };
            if let Stage::Committing(draft) = making.stage {
                let (basis, rows) = self.publish(making.number, draft);
                making.stage = Stage::Publishing(basis, rows);
                self.uploads.making.insert(partition, making);
            }
        }
    }

    /// Sends a checkpoint to the bucket. Returns what releases are based on once it is there, and how many keys it lists.
    pub(crate) fn publish(&mut self, number: u64, Draft { head, rows, .. }: Draft) -> (Basis, u64) {
        let Head { partition, watermark, epoch, covers } = head;
        let name = CheckpointName { partition, watermark, epoch, origin: self.mint() };
        let segments = rows.iter().filter_map(|record| match &record.place {
            Some(Place::Packed { segment, .. }) => Some(segment.clone()),
            _ => None,
        });
        let basis = Basis { name: name.clone(), covers, segments: segments.collect(), values: [].into() };
        let listed = rows.len() as u64;
        self.ask_bucket_as(number, Ask::PutCheckpoint(Arc::new(Checkpoint { name, rows })));
        (basis, listed)
    }

    pub(crate) fn epoch(&self, partition: u32) -> u64 {
        self.replica(partition).map(Replica::entry).map_or(0, |entry| entry.epoch)
    }
}
