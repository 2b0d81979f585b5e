//! Reads of the lower tiers: everybody who asks for a key shares one, and one that began before the key changed decides
//! and answers nothing.

use std::collections::HashMap;

use bytes::Bytes;
use cairn_api_spec::{
    Version,
    operation::{Metadata, Tier},
};

use crate::{entry::Entry, request::JobId};

/// The number of a read of the lower tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadId(u64);

/// What a read of the lower tiers found.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// Nothing was ever stored, or its deletion is forgotten.
    Nothing,
    /// The row without its value, or a tombstone.
    Head(Head),
    /// The value, and the tier that had it.
    Value(Entry, Tier),
}

/// A row of the disk without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What is known of the key.
    pub metadata: Metadata,
    /// Whether the row is a deletion.
    pub tombstone: bool,
    /// Whether the object store has this version.
    pub uploaded: bool,
    /// Whether the value is on the disk.
    pub on_disk: bool,
}

impl Head {
    /// Whether the key is there at `wall`, in milliseconds since the Unix epoch.
    pub fn is_live(&self, wall: u64) -> bool {
        !self.tombstone && self.metadata.expires_at.is_none_or(|at| at > wall)
    }
}

impl Loaded {
    /// The version of the value or of the deletion; 0 when there is neither.
    pub fn version(&self) -> Version {
        match self {
            Self::Nothing => Version::NONE,
            Self::Head(head) => head.metadata.version,
            Self::Value(entry, _) => entry.version(),
        }
    }

    /// Whether the key is there at `wall`, in milliseconds since the Unix epoch.
    pub fn is_live(&self, wall: u64) -> bool {
        match self {
            Self::Nothing => false,
            Self::Head(head) => head.is_live(wall),
            Self::Value(entry, _) => entry.is_live(wall),
        }
    }
}

/// A read that has ended.
pub(crate) struct Ended {
    pub(crate) jobs: Vec<JobId>,
    /// The key may have changed since the read began.
    pub(crate) stale: bool,
}

struct Flight {
    key: (Bytes, bool),
    jobs: Vec<JobId>,
    stale: bool,
}

/// The reads that are under way.
#[derive(Default)]
pub(crate) struct Reads {
    last: u64,
    flights: HashMap<ReadId, Flight>,
    /// Those that whoever asks from now on may join, by name and whether the value is read, too.
    open: HashMap<(Bytes, bool), ReadId>,
}

impl Reads {
    /// Lets a request wait for a read of `name`. Returns its number when it must be started.
    pub(crate) fn join(&mut self, name: &Bytes, with_value: bool, job: JobId) -> Option<ReadId> {
        let key = (name.clone(), with_value);
        if let Some(flight) = self.open.get(&key).and_then(|id| self.flights.get_mut(id)) {
            flight.jobs.push(job);
            return None;
        }
        self.last += 1;
        let id = ReadId(self.last);
        self.flights.insert(id, Flight { key: key.clone(), jobs: vec![job], stale: false });
        self.open.insert(key, id);
        Some(id)
    }

    /// Takes a read out; `None` for one that is not known.
    pub(crate) fn end(&mut self, id: ReadId) -> Option<Ended> {
        let Flight { key, jobs, stale } = self.flights.remove(&id)?;
        if self.open.get(&key) == Some(&id) {
            self.open.remove(&key);
        }
        Some(Ended { jobs, stale })
    }

    /// The key has changed: whoever asks from now on must read anew.
    pub(crate) fn changed(&mut self, name: &[u8]) {
        if self.open.is_empty() {
            return;
        }
        for with_value in [false, true] {
            let id = self.open.remove(&(Bytes::copy_from_slice(name), with_value));
            if let Some(flight) = id.and_then(|id| self.flights.get_mut(&id)) {
                flight.stale = true;
            }
        }
    }

    /// Every key may have changed.
    pub(crate) fn all_changed(&mut self) {
        self.open.clear();
        self.flights.values_mut().for_each(|flight| flight.stale = true);
    }
}
