//! How a node uploads what waits on its disk: the rows of all partitions that it serves, in segments, as the real driver
//! does with the same rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use cairn_api_spec::Version;
use cairn_engine::Change;
use cairn_object_tier::{
    Origin, Place, Record, SegmentName,
    rules::upload::{Lead, Teller, Waiting, believes, counts, linger, may_gather},
};

use super::{
    bucket::{Ask, Found, Packed, Segment},
    checkpoints::{Known, Making},
    disk::{Task, Work},
    machine::Machine,
    network::{BUCKET, Body, Message, Process},
    tables::Row,
};

/// Rows of one segment, at most.
const MOST_ROWS: usize = 8;
/// How long the bucket's answer is waited for.
pub(crate) const PATIENCE: u64 = 12_000;
/// A pause after a failure.
const REST: u64 = 250;

/// The bucket has this version of a key.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) partition: u32,
    pub(crate) name: Bytes,
    pub(crate) version: Version,
    /// `None` for a deletion.
    pub(crate) place: Option<Place>,
}

/// A segment that may still count.
struct UnderWay {
    number: u64,
    since: u64,
    seq: u64,
    leads: BTreeMap<u32, Lead>,
    marks: Vec<Mark>,
    /// The bucket has it, and the disk is told.
    is_stored: bool,
}

/// What a process knows of its objects.
#[derive(Default)]
pub(crate) struct Uploads {
    /// The last number given to an object.
    pub(crate) seq: u64,
    under_way: Option<UnderWay>,
    rests_until: u64,
    /// Requests that wait for their uploads, and since when.
    pub(crate) awaited: BTreeMap<usize, u64>,
    pub(crate) known: BTreeMap<u32, Known>,
    pub(crate) making: BTreeMap<u32, Making>,
}

impl Uploads {
    /// Below this number, each segment either counts by now or never will.
    pub(crate) fn settled_below(&self) -> u64 {
        self.under_way.as_ref().map_or(self.seq + 1, |under_way| under_way.seq)
    }
}

impl Row {
    /// As it stands in a segment or a checkpoint.
    pub(crate) fn record(&self, place: Option<Place>) -> Record {
        let peer = self.change.to_peer();
        Record {
            name: Bytes::copy_from_slice(self.change.name()),
            version: self.change.version(),
            modified_at: self.change.at(),
            expires_at: Some(peer.expires_at).filter(|at| *at > 0),
            content_type: peer.content_type,
            size: peer.size,
            checksum: 0,
            place,
        }
    }
}

impl Machine {
    /// What this node is to a partition that it leads.
    pub(crate) fn lead_of(&self, partition: u32, now: u64) -> Option<Lead> {
        let published = self.engine(partition)?.published();
        (published.serving > 0).then_some(Lead { epoch: published.serving, leased: now < published.lease_until })
    }

    pub(crate) fn committed(&self, partition: u32) -> Version {
        self.replica(partition).map_or(Version::NONE, cairn_replication::Replica::committed)
    }

    /// A name for an object, never given before.
    pub(crate) fn mint(&mut self) -> Origin {
        self.uploads.seq += 1;
        Origin { term: 1, node: self.me.node.clone(), session: self.me.session, seq: self.uploads.seq }
    }

    /// Asks the bucket for something. Returns the number by which the answer is known.
    pub(crate) fn ask_bucket(&mut self, ask: Ask) -> u64 {
        self.attempts += 1;
        self.ask_bucket_as(self.attempts, ask);
        self.attempts
    }

    pub(crate) fn ask_bucket_as(&mut self, number: u64, ask: Ask) {
        self.send(BUCKET, Body::Bucket(self.me.session, number, ask));
    }

    /// What the bucket has answered.
    pub(crate) fn found(&mut self, number: u64, found: Found, now: u64) {
        if self.uploads.under_way.as_ref().is_some_and(|under_way| under_way.number == number) {
            return self.segment_stored(matches!(found, Found::Done), now);
        }
        if let (true, Found::Objects(_, segments)) = (self.collecting.number == number, &found) {
            return self.begin_round(segments.clone(), now);
        }
        let making = self.uploads.making.iter().find(|(_, making)| making.number == number);
        if let Some(partition) = making.map(|(partition, _)| *partition) {
            return self.checkpoint_answered(partition, found, now);
        }
        let doing = self.doing.iter().find(|(_, doing)| doing.attempt == number);
        if let Some(partition) = doing.map(|(partition, _)| *partition) {
            self.restore_answered(partition, found, now);
        }
    }

    pub(crate) fn look_after_uploads(&mut self, now: u64) {
        let is_late = |under_way: &UnderWay| !under_way.is_stored && under_way.since + PATIENCE <= now;
        if self.uploads.under_way.as_ref().is_some_and(is_late) {
            self.give_up_segment(now);
        }
        self.look_after_checkpoints(now);
        self.look_after_segments(now);
        if self.uploads.under_way.is_some() || now < self.uploads.rests_until || now < self.disk.hangs_until {
            return;
        }
        let wall = self.wall(now);
        let age = |since: u64, now: u64| Duration::from_millis(now.saturating_sub(since));
        let served = |row: &&Row| !row.uploaded && self.lead_of(row.partition, now).is_some();
        let oldest = self.disk.tables.rows.values().filter(served).map(|row| row.change.at()).min();
        let awaited = self.uploads.awaited.values().min().map(|since| age(*since, now));
        let waiting = Waiting { bytes: 0, oldest: oldest.map(|at| age(at, wall)), awaited };
        if linger(&waiting, Duration::from_millis(self.rules.upload_linger)) == Some(Duration::ZERO) {
            self.upload(now);
        }
    }

    /// Packs the oldest rows into a segment.
    fn upload(&mut self, now: u64) {
        let leads: BTreeMap<u32, Lead> = (0..self.rules.partitions)
            .filter_map(|partition| Some((partition, self.lead_of(partition, now)?)))
            .collect();
        let name = Arc::new(SegmentName(self.mint()));
        let gathered = |row: &&Row| {
            let lead = leads.get(&row.partition).copied();
            !row.uploaded && may_gather(lead, row.change.version(), self.committed(row.partition))
        };
        let packed = |(offset, row): (usize, &Row)| {
            let is_value = matches!(row.change, Change::Put(_));
            let place = is_value.then(|| Place::Packed { segment: name.clone(), offset: offset as u64 });
            let epoch = leads.get(&row.partition).map_or(0, |lead| lead.epoch);
            Packed { partition: row.partition, epoch, record: row.record(place), change: row.change.clone() }
        };
        let mut found: Vec<&Row> = self.disk.tables.rows.values().filter(gathered).collect();
        found.sort_by_key(|row| row.change.at());
        let rows: Vec<Packed> = found.into_iter().take(MOST_ROWS).enumerate().map(packed).collect();
        if rows.is_empty() {
            return;
        }
        let mark = |Packed { partition, record: Record { name, version, place, .. }, .. }: &Packed| Mark {
            partition: *partition,
            name: name.clone(),
            version: *version,
            place: place.clone(),
        };
        let (marks, seq) = (rows.iter().map(mark).collect(), name.0.seq);
        let number = self.ask_bucket(Ask::PutSegment(Arc::new(Segment { name, rows })));
        self.uploads.under_way = Some(UnderWay { number, since: now, seq, leads, marks, is_stored: false });
    }

    fn give_up_segment(&mut self, now: u64) {
        self.uploads.under_way = None;
        self.uploads.rests_until = now + REST;
    }

    /// The bucket has the segment, or says that it has not: what this node still leads as it did counts.
    fn segment_stored(&mut self, is_stored: bool, now: u64) {
        let counting: BTreeSet<u32> = match &self.uploads.under_way {
            Some(UnderWay { leads, .. }) => leads
                .iter()
                .filter(|(partition, lead)| counts(**lead, self.lead_of(**partition, now)))
                .map(|(partition, _)| *partition)
                .collect(),
            None => return,
        };
        let Some(under_way) = self.uploads.under_way.as_mut() else { return };
        under_way.is_stored = true;
        under_way.marks.retain(|mark| counting.contains(&mark.partition));
        let (number, marks) = (under_way.number, under_way.marks.clone());
        if !is_stored {
            return self.give_up_segment(now);
        }
        if !self.enqueue_task(0, number, Work::Mark { marks, waiting: Vec::new() }) {
            self.give_up_segment(now);
        }
    }

    /// The disk has noted what was uploaded. Returns whether that was this task.
    pub(crate) fn segment_marked(&mut self, task: &Task, is_done: bool, now: u64) -> bool {
        let is_it = |under_way: &mut UnderWay| under_way.number == task.attempt;
        let Some(UnderWay { leads, marks, .. }) = self.uploads.under_way.take_if(is_it) else { return false };
        if !is_done {
            self.give_up_segment(now);
            return true;
        }
        for mark in &marks {
            self.uploads.known.entry(mark.partition).or_default().changed += 1;
            self.drive(mark.partition, now, |engine, step| engine.uploaded(&mark.name, mark.version, step));
        }
        self.counted.extend(marks.iter().cloned());
        for (partition, Lead { epoch, .. }) in leads {
            let marks: Vec<Mark> = marks.iter().filter(|mark| mark.partition == partition).cloned().collect();
            let Some(entry) = self.replica(partition).map(|replica| replica.entry().clone()) else { continue };
            for member in entry.in_sync.iter().chain(&entry.learners) {
                if !marks.is_empty() && *member != self.me {
                    self.tell(partition, member.clone(), Message::Uploaded { epoch, marks: marks.clone() });
                }
            }
        }
        true
    }

    /// A primary says what it has uploaded.
    pub(crate) fn hear_of_upload(
        &mut self,
        partition: u32,
        from: &Process,
        to: &Process,
        epoch: u64,
        marks: Vec<Mark>,
    ) {
        let Some(entry) = self.replica(partition).map(cairn_replication::Replica::entry) else { return };
        let Some(primary) = entry.primary_process() else { return };
        let told = Teller { node: &*from.node, session: (from.session, to.session), epoch };
        let known = Teller { node: &*primary.node, session: (primary.session, self.me.session), epoch: entry.epoch };
        if believes(&told, &known) {
            // What fails is uploaded once more by this node, if it becomes the primary.
            self.enqueue_task(partition, 0, Work::Mark { marks, waiting: Vec::new() });
        }
    }
}
