//! How a node restores a partition of which no copy is left, as the real driver does with the same rules.

use std::{collections::HashMap, sync::Arc};

use cairn_api_spec::Version;
use cairn_engine::Change;
use cairn_object_tier::{
    CheckpointName, Place, Record, SegmentName,
    checkpoint::Head,
    rules::{
        checkpoint::floor,
        collect::{Basis, may_be_basis},
        restore::{Above, ends_with_checkpoint, newest},
    },
};

use super::{
    bucket::{Ask, Checkpoint, Found, Segment},
    checkpoints::{Draft, Known},
    copy::{Doing, What},
    disk::Work,
    machine::Machine,
    tables::{Held, Row},
};
use crate::planted::Bug;

/// A restore on its way.
#[derive(Clone)]
pub(crate) struct Restoring {
    pub(crate) generation: u64,
    /// This process took the lead in the partition's first epoch.
    pub(crate) is_first: bool,
    epoch: u64,
    last: Version,
    /// The checkpoint that was found.
    found: Option<CheckpointName>,
    /// Since when the bucket's answer is waited for.
    pub(crate) asked: Option<u64>,
    /// The checkpoint that it ends with, and how many keys that lists.
    published: Option<(Basis, u64)>,
}

impl Restoring {
    pub(crate) fn new(generation: u64, is_first: bool) -> Self {
        let (found, asked, published) = (None, None, None);
        Self { generation, is_first, epoch: 0, last: Version::NONE, found, asked, published }
    }
}

/// What a restore believes of a partition.
pub(crate) struct Belief {
    pub(crate) rows: Vec<Record>,
    /// The highest version heard of.
    pub(crate) last: Version,
}

/// What a restore believes: what the checkpoint lists and, above its watermark, the newest of what the segments hold.
pub(crate) fn believe(
    partition: u32,
    checkpoint: Option<&Checkpoint>,
    segments: &[Arc<Segment>],
    bug: Option<Bug>,
) -> Belief {
    let watermark = checkpoint.map_or(Version::NONE, |checkpoint| checkpoint.name.watermark);
    let mut above = Above::new(if bug == Some(Bug::DeadRecordsBelieved) { Version::NONE } else { watermark });
    for row in segments.iter().flat_map(|segment| &segment.rows).filter(|row| row.partition == partition) {
        above.add(row.record.clone());
    }
    let last = above.last().max(watermark);
    let listed = checkpoint.into_iter().flat_map(|checkpoint| &checkpoint.rows);
    let mut rows: Vec<Record> = listed.filter(|record| above.keeps(&record.name)).cloned().collect();
    rows.extend(above.into_live());
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Belief { rows, last }
}

/// The values of records, or the name of one that is nowhere.
pub(crate) fn values(records: &[Record], segments: &[Arc<Segment>]) -> Result<Vec<Change>, String> {
    let by_name: HashMap<&SegmentName, &Segment> =
        segments.iter().map(|segment| (&*segment.name, &**segment)).collect();
    let value = |record: &Record| {
        let Some(Place::Packed { segment, .. }) = &record.place else { return None };
        let mut rows = by_name.get(&**segment)?.rows.iter();
        rows.find(|row| row.record == *record).map(|row| row.change.clone())
    };
    records
        .iter()
        .map(|record| value(record).ok_or_else(|| format!("the bucket lacks the value of {record:?}")))
        .collect()
}

impl Machine {
    fn restoring(&mut self, partition: u32) -> Option<(u64, &mut Restoring)> {
        match self.doing.get_mut(&partition) {
            Some(Doing { attempt, what: What::Restore(restoring) }) => Some((*attempt, restoring)),
            _ => None,
        }
    }

    /// What was here is dropped: asks the bucket what it has.
    pub(crate) fn begin_restore(&mut self, partition: u32, now: u64) {
        let epoch = self.epoch(partition);
        let Some((attempt, restoring)) = self.restoring(partition) else { return };
        *restoring = Restoring { epoch, asked: Some(now), ..Restoring::new(restoring.generation, restoring.is_first) };
        self.ask_bucket_as(attempt, Ask::List(partition));
    }

    /// What the bucket has answered to a restore.
    pub(crate) fn restore_answered(&mut self, partition: u32, found: Found, now: u64) {
        let Some((attempt, restoring)) = self.restoring(partition) else { return };
        match found {
            Found::Names(checkpoints, segments) => {
                restoring.found = newest(checkpoints);
                restoring.asked = Some(now);
                let ask = Ask::Read(restoring.found.clone(), segments);
                self.ask_bucket_as(attempt, ask);
            }
            Found::Objects(checkpoint, segments) => {
                if checkpoint.is_none() && restoring.found.is_some() {
                    return self.try_again(partition);
                }
                self.store_restored(partition, checkpoint.as_deref(), &segments);
            }
            Found::Done => {
                let Some((basis, rows)) = restoring.published.take() else { return };
                let (epoch, found) = (restoring.epoch, restoring.found.clone());
                restoring.asked = None;
                let basis = may_be_basis(&basis.name, &found).then_some(basis);
                let known = Known { reconciled: epoch, changed: 0, listed: Some((rows, now)), basis };
                self.uploads.known.insert(partition, known);
                self.adopt_restored(partition);
            }
            Found::Failed => self.try_again(partition),
        }
    }

    fn store_restored(&mut self, partition: u32, checkpoint: Option<&Checkpoint>, segments: &[Arc<Segment>]) {
        let Belief { rows, last } = believe(partition, checkpoint, segments, self.rules.bug);
        let values = match values(&rows, segments) {
            Ok(values) => values,
            Err(error) => return self.wrong = Some(error),
        };
        let Some((attempt, restoring)) = self.restoring(partition) else { return };
        restoring.asked = None;
        if !ends_with_checkpoint(restoring.is_first, last > Version::NONE) {
            let known = Known { reconciled: restoring.epoch, ..Known::default() };
            self.uploads.known.insert(partition, known);
            return self.adopt_restored(partition);
        }
        restoring.last = last.max(floor(restoring.epoch));
        let row = |(record, change): (Record, Change)| Row { partition, change, uploaded: true, place: record.place };
        let rows = rows.into_iter().zip(values).map(row).collect();
        if !self.enqueue_task(partition, attempt, Work::StoreRows { outdated: Vec::new(), rows }) {
            self.try_again(partition);
        }
    }

    /// The disk has what was restored: a checkpoint of that is made.
    pub(crate) fn publish_restored(&mut self, partition: u32, now: u64) {
        let covers = self.uploads.settled_below();
        let Some((attempt, restoring)) = self.restoring(partition) else { return };
        let head = Head { partition, watermark: restoring.last, epoch: restoring.epoch, covers };
        restoring.asked = Some(now);
        let mut draft = Draft::new(head);
        self.disk.tables.rows.values().filter(|row| row.partition == partition).for_each(|row| draft.take(row));
        let published = self.publish(attempt, draft);
        if let Some((_, restoring)) = self.restoring(partition) {
            restoring.published = Some(published);
        }
    }

    fn adopt_restored(&mut self, partition: u32) {
        let Some((attempt, restoring)) = self.restoring(partition) else { return };
        let held = Held { generation: restoring.generation, last: restoring.last };
        restoring.asked = None;
        if !self.enqueue_task(partition, attempt, Work::Adopt(held)) {
            self.try_again(partition);
        }
    }

    /// The restored rows count: the node takes the lead.
    pub(crate) fn end_restore(&mut self, partition: u32, now: u64) {
        let Some(last) = self.restoring(partition).map(|(_, restoring)| restoring.last) else { return };
        self.restored.push(partition);
        self.protocol(partition, now, |replica, _, _| replica.observe(last));
        self.lead(partition, now);
    }
}
