//! The bucket: what is stored there, and how its requests fail: refused, carried out and answered with an error, or carried
//! out so late that whoever sent them is gone.

use std::{collections::BTreeMap, sync::Arc};

use cairn_api_spec::Version;
use cairn_engine::Change;
use cairn_object_tier::{CheckpointName, Record, SegmentName, rules::restore};

use super::{
    network::{BUCKET, Body, Node, Packet},
    world::{Event, World},
};

/// The longest that a request may be carried out late.
const LATE: u64 = 60_000;

/// A record of a segment, with its value.
pub(crate) struct Packed {
    pub(crate) partition: u32,
    /// The epoch under which it was gathered.
    pub(crate) epoch: u64,
    pub(crate) record: Record,
    pub(crate) change: Change,
}

pub(crate) struct Segment {
    pub(crate) name: Arc<SegmentName>,
    pub(crate) rows: Vec<Packed>,
}

impl Segment {
    /// The epoch under which it was gathered, and its newest version, of a partition.
    pub(crate) fn section(&self, partition: u32) -> Option<(u64, Version)> {
        let rows = self.rows.iter().filter(|row| row.partition == partition);
        rows.map(|row| (row.epoch, row.record.version)).max_by_key(|(_, version)| *version)
    }
}

pub(crate) struct Checkpoint {
    pub(crate) name: CheckpointName,
    pub(crate) rows: Vec<Record>,
}

/// What is asked of the bucket.
#[derive(Clone)]
pub(crate) enum Ask {
    PutSegment(Arc<Segment>),
    PutCheckpoint(Arc<Checkpoint>),
    RemoveCheckpoint(CheckpointName),
    RemoveSegment(Arc<SegmentName>),
    /// All segments.
    Segments,
    /// The names of a partition's checkpoints, and of all segments.
    List(u32),
    /// A partition's newest checkpoint.
    Newest(u32),
    Read(Option<CheckpointName>, Vec<Arc<SegmentName>>),
}

impl Ask {
    fn story(&self) -> String {
        let key = |record: &Record| {
            let name = String::from_utf8_lossy(&record.name);
            format!("{name} {}{}", record.version, if record.is_tombstone() { " deleted" } else { "" })
        };
        match self {
            Self::PutSegment(segment) => {
                let rows: Vec<String> = segment.rows.iter().map(|row| key(&row.record)).collect();
                format!("{} {rows:?}", segment.name)
            }
            Self::PutCheckpoint(checkpoint) => {
                let rows: Vec<String> = checkpoint.rows.iter().map(key).collect();
                format!("{} {rows:?}", checkpoint.name)
            }
            Self::RemoveCheckpoint(name) => format!("remove {name}"),
            Self::RemoveSegment(name) => format!("remove {name}"),
            Self::Segments => "list for the collector".to_owned(),
            Self::List(partition) => format!("list for partition {partition}"),
            Self::Newest(partition) => format!("read the newest checkpoint of partition {partition}"),
            Self::Read(checkpoint, _) => format!("restore from {checkpoint:?}"),
        }
    }
}

/// What it answers.
pub(crate) enum Found {
    Done,
    Failed,
    Names(Vec<CheckpointName>, Vec<Arc<SegmentName>>),
    /// Those of them that are there.
    Objects(Option<Arc<Checkpoint>>, Vec<Arc<Segment>>),
}

/// A request on its way.
pub(crate) struct Request {
    pub(crate) from: Node,
    /// The process that asks, and its number for the request.
    pub(crate) session: u64,
    pub(crate) number: u64,
    pub(crate) ask: Ask,
}

#[derive(Default)]
pub(crate) struct Bucket {
    pub(crate) segments: BTreeMap<Arc<SegmentName>, Arc<Segment>>,
    pub(crate) checkpoints: BTreeMap<CheckpointName, Arc<Checkpoint>>,
    /// Of a thousand requests, so many fail in some way.
    pub(crate) fails_per_mille: u64,
}

impl Bucket {
    pub(crate) fn execute(&mut self, ask: Ask) -> Found {
        match ask {
            Ask::PutSegment(segment) => drop(self.segments.insert(segment.name.clone(), segment)),
            Ask::PutCheckpoint(checkpoint) => drop(self.checkpoints.insert(checkpoint.name.clone(), checkpoint)),
            Ask::RemoveCheckpoint(name) => drop(self.checkpoints.remove(&name)),
            Ask::RemoveSegment(name) => drop(self.segments.remove(&name)),
            Ask::Segments => return Found::Objects(None, self.segments.values().cloned().collect()),
            Ask::List(partition) => {
                return Found::Names(self.names(partition).cloned().collect(), self.segments.keys().cloned().collect());
            }
            Ask::Newest(partition) => return Found::Objects(self.newest(partition).cloned(), Vec::new()),
            Ask::Read(checkpoint, segments) => {
                let segments = segments.iter().filter_map(|name| self.segments.get(name).cloned()).collect();
                return Found::Objects(checkpoint.and_then(|name| self.checkpoints.get(&name).cloned()), segments);
            }
        }
        Found::Done
    }

    fn names(&self, partition: u32) -> impl Iterator<Item = &CheckpointName> {
        self.checkpoints.keys().filter(move |name| name.partition == partition)
    }

    pub(crate) fn newest(&self, partition: u32) -> Option<&Arc<Checkpoint>> {
        self.checkpoints.get(&restore::newest(self.names(partition).cloned())?)
    }
}

impl World {
    /// A request has come to the bucket: it decides what becomes of it.
    pub(crate) fn ask_bucket(&mut self, request: Request) {
        let soon = self.now + self.random.between(2, 60);
        if !self.random.chance(self.bucket.fails_per_mille) {
            return self.at(soon, Event::Bucket(request, true));
        }
        let late = self.now + self.random.between(1_000, LATE);
        match self.random.below(4) {
            0 => self.answer_from_bucket(&request, Found::Failed),
            1 => {
                self.answer_from_bucket(&request, Found::Failed);
                self.at(soon, Event::Bucket(request, false));
            }
            2 => {
                self.answer_from_bucket(&request, Found::Failed);
                self.at(late, Event::Bucket(request, false));
            }
            _ => {
                let later = self.now + self.random.between(100, 14_000);
                self.at(later, Event::Bucket(request, true));
            }
        }
    }

    pub(crate) fn execute(&mut self, request: &Request, is_told: bool) {
        if let Some(story) = &mut self.master.story {
            story.push(format!("{} ms: of node {}: {}", self.now, request.from, request.ask.story()));
        }
        if let Ask::RemoveSegment(name) = &request.ask {
            self.check_removal(name);
        }
        let found = self.bucket.execute(request.ask.clone());
        if is_told {
            self.answer_from_bucket(request, found);
        }
    }

    fn answer_from_bucket(&mut self, request: &Request, found: Found) {
        let Request { from, session, number, .. } = *request;
        self.send(Packet { from: BUCKET, to: from, body: Body::Found(session, number, found) });
    }
}
