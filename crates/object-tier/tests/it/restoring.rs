//! A restore, step by step: whatever else happens in between, happens.

use bytes::Bytes;
use cairn_api_spec::Version;
use cairn_object_tier::{
    Place, Record,
    rules::{
        checkpoint::floor,
        restore::{Above, counts, ends_with_checkpoint},
    },
};

use crate::{
    bucket::{Bucket, Checkpoint, Fact, Id, Request},
    model::EPOCH,
    planted::Bug,
    state::{Row, State},
};

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Restore {
    Begun,
    /// It knows the names of what is in the bucket.
    Listed {
        checkpoint: Option<Checkpoint>,
        segments: Vec<Id>,
    },
    /// It knows the rows, and has them put into a checkpoint.
    Read {
        rows: Vec<Option<(Fact, Id)>>,
        watermark: Version,
    },
}

/// By key, what a restore believes that finds this checkpoint and those segments; `None` when something is missing.
pub(crate) fn believed(
    bucket: &Bucket,
    checkpoint: Option<&Checkpoint>,
    segments: &[Id],
    keys: usize,
    bug: Option<Bug>,
) -> Option<Vec<Option<(Fact, Id)>>> {
    let watermark = checkpoint.map_or(Version::NONE, |checkpoint| checkpoint.watermark);
    let mut above = Above::new(if bug == Some(Bug::P2Dropped) { Version::NONE } else { watermark });
    let mut places = Vec::new();
    // One that is listed and gone has nothing to say that the checkpoint does not.
    let found = bucket.segments.iter().filter(|segment| segments.contains(&segment.id));
    for segment in found {
        for fact in &segment.facts {
            above.add(record(*fact, segment.id));
            places.push((*fact, segment.id));
        }
    }
    let mut rows = vec![None; keys];
    for (fact, place) in checkpoint.iter().flat_map(|checkpoint| &checkpoint.rows) {
        if !bucket.holds(*fact, *place) {
            return None;
        }
        if above.keeps(&[fact.key]) {
            rows[usize::from(fact.key)] = Some((*fact, *place));
        }
    }
    for record in above.into_live() {
        let fact = Fact { key: record.name[0], version: record.version, live: true };
        let place = places.iter().find(|(other, _)| *other == fact).map(|(_, place)| *place)?;
        rows[usize::from(fact.key)] = Some((fact, place));
    }
    Some(rows)
}

/// The names of keys: each is its number.
static KEYS: &[u8] = &[0, 1];

fn record(fact: Fact, id: Id) -> Record {
    Record {
        name: Bytes::from_static(KEYS).slice(usize::from(fact.key)..=usize::from(fact.key)),
        version: fact.version,
        modified_at: 0,
        expires_at: None,
        content_type: String::new(),
        size: 0,
        checksum: 0,
        place: fact.live.then(|| Place::Packed { segment: id.segment().into(), offset: 0 }),
    }
}

impl State {
    /// All copies are gone, and with them the processes that had them.
    pub(crate) fn lose_disks(&mut self, next: u8) {
        for host in &mut self.hosts {
            host.rows.iter_mut().for_each(|row| *row = None);
            (host.basis, host.reconciled, host.seq) = (None, false, 0);
            host.session += 1;
        }
        self.bucket.give_up(|_| true);
        self.uncommitted = None;
        self.epoch += 1;
        self.primary = next;
        self.restore = Some(Restore::Begun);
    }

    /// The next step of the restore.
    pub(crate) fn restore_on(&mut self, restore: &Restore) {
        match restore {
            Restore::Begun => {
                let checkpoint = self.bucket.newest_checkpoint(self.bug).cloned();
                let segments = self.bucket.segments.iter().map(|segment| segment.id).collect();
                self.restore = Some(match self.bug {
                    // It began when nothing was there yet.
                    Some(Bug::ListedBeforeLeading) => Restore::Listed { checkpoint: None, segments: Vec::new() },
                    _ => Restore::Listed { checkpoint, segments },
                });
            }
            Restore::Listed { checkpoint, segments } => {
                let keys = self.truth.len();
                let rows = believed(&self.bucket, checkpoint.as_ref(), segments, keys, self.bug);
                let Some(rows) = rows else {
                    self.restore = Some(Restore::Begun);
                    return;
                };
                let highest = checkpoint.as_ref().map_or(Version::NONE, |checkpoint| checkpoint.watermark);
                let newest = rows.iter().flatten().map(|(fact, _)| fact.version).max().unwrap_or_default();
                let watermark = floor(self.epoch).max(highest).max(newest);
                self.restore = Some(Restore::Read { rows: rows.clone(), watermark });
                let found = checkpoint.is_some() || newest > Version::NONE;
                let is_first = self.epoch == EPOCH || self.bug == Some(Bug::NothingFoundUnsettled);
                if !ends_with_checkpoint(is_first, found) || self.bug == Some(Bug::RestoreUnsettled) {
                    self.serve(&rows, watermark);
                }
            }
            Restore::Read { rows, watermark } => {
                let listed = rows.iter().flatten().filter(|(fact, _)| counts(Version::NONE, fact.version)).copied();
                let checkpoint = self.written(*watermark, listed.collect());
                self.put(Request::PutCheckpoint(checkpoint));
            }
        }
    }

    /// Whether the restore's own checkpoint is under way.
    pub(crate) fn settles(&self) -> bool {
        self.bucket.sent.iter().any(|sent| matches!(sent.request, Request::PutCheckpoint(_)) && !sent.given_up)
    }

    /// The bucket has answered that it has the checkpoint.
    pub(crate) fn published(&mut self, checkpoint: &Checkpoint) {
        let of_primary = checkpoint.epoch == self.epoch && checkpoint.id.session == self.host().session;
        if !of_primary || checkpoint.id.node != self.primary {
            return;
        }
        if let Some(Restore::Read { rows, watermark }) = self.restore.clone() {
            self.serve(&rows, watermark);
        }
        let host = self.leader();
        if host.basis.as_ref().is_none_or(|basis| basis.name().order() < checkpoint.name().order()) {
            host.basis = Some(checkpoint.clone());
        }
    }

    fn serve(&mut self, rows: &[Option<(Fact, Id)>], watermark: Version) {
        self.wrong |= !self.is_right(rows);
        self.used.restored |= rows.iter().any(Option::is_some);
        for host in &mut self.hosts {
            host.rows = rows.iter().map(|row| row.map(|(fact, place)| Row { fact, place: Some(place) })).collect();
        }
        self.leader().reconciled = true;
        self.restore = None;
        for (key, row) in (0..).zip(rows) {
            let (truth, uploaded) = (&mut self.truth[usize::from(key)], &mut self.uploaded[usize::from(key)]);
            *truth = row.map(|(fact, _)| fact);
            // What is not there now must not come back.
            *uploaded = Some(truth.unwrap_or(Fact { key, version: watermark, live: false }));
        }
        self.last = watermark;
    }
}
