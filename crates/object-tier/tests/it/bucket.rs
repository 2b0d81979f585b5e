//! The bucket: objects, and requests that take effect whenever they like.

use std::sync::{Arc, LazyLock};

use cairn_api_spec::Version;
use cairn_object_tier::{
    CheckpointName, Origin, SegmentName,
    rules::{collect::Basis, restore},
};

use crate::planted::Bug;

pub(crate) type Node = u8;
pub(crate) type Key = u8;

/// An [`Origin`] in little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) node: Node,
    pub(crate) session: u64,
    pub(crate) seq: u64,
}

/// One key's state at one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fact {
    pub(crate) key: Key,
    pub(crate) version: Version,
    pub(crate) live: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Segment {
    pub(crate) id: Id,
    pub(crate) epoch: u64,
    pub(crate) facts: Vec<Fact>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Checkpoint {
    pub(crate) id: Id,
    pub(crate) epoch: u64,
    pub(crate) watermark: Version,
    pub(crate) covers: u64,
    pub(crate) rows: Vec<(Fact, Id)>,
}

/// What a node asks of the bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Request {
    PutSegment(Segment),
    PutCheckpoint(Checkpoint),
    RemoveSegment(Id),
    RemoveCheckpoint(Id),
}

/// A request under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Sent {
    pub(crate) request: Request,
    pub(crate) executed: bool,
    /// Its sender has stopped waiting, or was told that it failed. It may be executed all the same.
    pub(crate) given_up: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bucket {
    pub(crate) segments: Vec<Segment>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) sent: Vec<Sent>,
}

static NAMES: LazyLock<[Arc<str>; 2]> = LazyLock::new(|| ["a".into(), "b".into()]);

impl Id {
    fn origin(self) -> Origin {
        let node = NAMES[usize::from(self.node)].clone();
        Origin { term: 1, node, session: self.session, seq: self.seq }
    }

    pub(crate) fn segment(self) -> SegmentName {
        SegmentName(self.origin())
    }
}

impl Segment {
    pub(crate) fn newest(&self) -> Version {
        self.facts.iter().map(|fact| fact.version).max().unwrap_or_default()
    }
}

impl Checkpoint {
    pub(crate) fn name(&self) -> CheckpointName {
        CheckpointName { partition: 0, watermark: self.watermark, epoch: self.epoch, origin: self.id.origin() }
    }

    pub(crate) fn basis(&self) -> Basis {
        Basis {
            name: self.name(),
            covers: self.covers,
            segments: self.rows.iter().map(|(_, id)| Arc::new(id.segment())).collect(),
            values: [].into(),
        }
    }
}

impl Bucket {
    pub(crate) fn send(&mut self, request: Request) {
        self.sent.push(Sent { request, executed: false, given_up: false });
        self.sent.sort();
    }

    /// Carries out a request that is answered at once.
    pub(crate) fn execute_now(&mut self, request: Request) -> Request {
        self.execute(&Sent { request: request.clone(), executed: false, given_up: true });
        request
    }

    /// Carries out a request.
    pub(crate) fn execute(&mut self, sent: &Sent) {
        match &sent.request {
            Request::PutSegment(segment) => {
                self.segments.retain(|other| other.id != segment.id);
                self.segments.push(segment.clone());
                self.segments.sort();
            }
            Request::PutCheckpoint(checkpoint) => {
                self.checkpoints.push(checkpoint.clone());
                self.checkpoints.sort();
            }
            Request::RemoveSegment(id) => self.segments.retain(|segment| segment.id != *id),
            Request::RemoveCheckpoint(id) => self.checkpoints.retain(|checkpoint| checkpoint.id != *id),
        }
        let is_put = matches!(sent.request, Request::PutSegment(_) | Request::PutCheckpoint(_));
        self.sent.retain(|other| other != sent);
        // Somebody still waits for the answer.
        if is_put && !sent.given_up {
            self.sent.push(Sent { executed: true, ..sent.clone() });
            self.sent.sort();
        }
    }

    /// The process that has sent all this is gone, or will not wait any more.
    pub(crate) fn give_up(&mut self, which: impl Fn(&Sent) -> bool) {
        self.sent.iter_mut().filter(|sent| which(sent)).for_each(|sent| sent.given_up = true);
        self.sent.retain(|sent| !(sent.executed && sent.given_up));
        self.sent.sort();
    }

    /// The checkpoint that counts.
    pub(crate) fn newest_checkpoint(&self, bug: Option<Bug>) -> Option<&Checkpoint> {
        if bug == Some(Bug::NameOrderTrusted) {
            return self.checkpoints.iter().max_by_key(|checkpoint| checkpoint.name().to_string());
        }
        let name = restore::newest(self.checkpoints.iter().map(Checkpoint::name))?;
        self.checkpoints.iter().find(|checkpoint| checkpoint.name() == name)
    }

    pub(crate) fn holds(&self, fact: Fact, place: Id) -> bool {
        self.segments.iter().any(|segment| segment.id == place && segment.facts.contains(&fact))
    }
}
