//! What a restore believes.

use std::collections::HashMap;

use bytes::Bytes;
use cairn_api_spec::Version;

use crate::{name::CheckpointName, record::Record, segment::Section};

/// The checkpoint that counts, of those of one partition (P1).
pub fn newest(checkpoints: impl IntoIterator<Item = CheckpointName>) -> Option<CheckpointName> {
    checkpoints.into_iter().max_by_key(CheckpointName::order)
}

/// Whether a segment has anything to say beside a checkpoint with this watermark.
pub fn is_relevant(watermark: Version, section: &Section) -> bool {
    section.newest > watermark
}

/// Whether a record counts that a segment holds and the checkpoint does not list (P2).
pub fn counts(watermark: Version, version: Version) -> bool {
    version > watermark
}

/// Whether a restore ends with a checkpoint, before anything is served. `is_first`: the process that restores took the lead
/// in the partition's first epoch. `found`: the bucket has something of the partition.
///
/// The checkpoint is what keeps dead whatever a deposed primary stores later, also where nothing was found. Before the
/// first epoch there was none, so nothing can come.
pub fn ends_with_checkpoint(is_first: bool, found: bool) -> bool {
    found || !is_first
}

/// What the segments say beside a checkpoint: the newest record of each key above its watermark.
#[derive(Debug, Default)]
pub struct Above {
    watermark: Version,
    newest: HashMap<Bytes, Record>,
    last: Version,
}

impl Above {
    /// Nothing yet, beside a checkpoint with this watermark ([`Version::NONE`] where there is none).
    pub fn new(watermark: Version) -> Self {
        Self { watermark, newest: HashMap::new(), last: watermark }
    }

    /// Takes note of a segment's record.
    pub fn add(&mut self, record: Record) {
        if !counts(self.watermark, record.version) {
            return;
        }
        self.last = self.last.max(record.version);
        match self.newest.get_mut(&record.name) {
            Some(known) if known.version >= record.version => {}
            Some(known) => *known = record,
            None => {
                self.newest.insert(record.name.clone(), record);
            }
        }
    }

    /// Whether a row of the checkpoint is still the newest.
    pub fn keeps(&self, name: &[u8]) -> bool {
        !self.newest.contains_key(name)
    }

    /// The highest version heard of: that of the watermark, at least.
    pub fn last(&self) -> Version {
        self.last
    }

    /// The live keys that are newer than the checkpoint.
    pub fn into_live(self) -> impl Iterator<Item = Record> {
        self.newest.into_values().filter(|record| !record.is_tombstone())
    }
}
