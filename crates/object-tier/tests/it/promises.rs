//! What must hold at every moment.

use crate::{
    bucket::{Fact, Id},
    planted::Bug,
    restoring::believed,
    state::State,
};

impl State {
    /// Whether a restore that found these rows would have found the right ones.
    pub(crate) fn is_right(&self, rows: &[Option<(Fact, Id)>]) -> bool {
        rows.iter().zip(&self.truth).zip(&self.uploaded).all(|((row, truth), uploaded)| {
            let found = row.map(|(fact, _)| fact);
            let was_committed = found.is_none_or(|fact| self.history.contains(&fact));
            let is_newest = match uploaded {
                None => true,
                // Nothing came after it.
                Some(uploaded) if truth.is_none_or(|truth| truth == *uploaded) => {
                    found == Some(*uploaded).filter(|uploaded| uploaded.live)
                }
                // What came after it is not in the bucket, or not known to be.
                Some(uploaded) => found.is_none_or(|fact| fact.version >= uploaded.version),
            };
            was_committed && is_newest
        })
    }

    /// When no row waits for its upload, a restore would find the newest state of every key.
    pub(crate) fn nothing_is_left_out(&self) -> bool {
        let waits = self.host().rows.iter().flatten().any(|row| row.place.is_none());
        if waits || self.restore.is_some() || self.uncommitted.is_some() {
            return true;
        }
        let rows = self.restored_now().unwrap_or_default();
        let expected = self.truth.iter().map(|truth| truth.filter(|fact| fact.live));
        rows.iter().map(|row| row.map(|(fact, _)| fact)).eq(expected)
    }

    /// If all disks were lost now, everything that was said to be uploaded and not superseded would come back exactly,
    /// and nothing that is deleted would.
    pub(crate) fn a_restore_would_be_right(&self) -> bool {
        self.restored_now().is_some_and(|rows| self.is_right(&rows))
    }

    fn restored_now(&self) -> Option<Vec<Option<(Fact, Id)>>> {
        let segments: Vec<Id> = self.bucket.segments.iter().map(|segment| segment.id).collect();
        let checkpoint = self.bucket.newest_checkpoint(self.bug);
        believed(&self.bucket, checkpoint, &segments, self.truth.len(), self.bug)
    }

    /// Every place that the primary or the newest checkpoint names is there, with what is expected there.
    pub(crate) fn nothing_is_missing(&self) -> bool {
        let host = self.host();
        let trusted = self.restore.is_none() && (host.reconciled || self.bug == Some(Bug::NotReconciled));
        let rows = host.rows.iter().flatten().filter(|row| trusted && row.fact.live);
        let mut placed = rows.filter_map(|row| Some((row.fact, row.place?)));
        let mut listed = self.bucket.newest_checkpoint(self.bug).into_iter().flat_map(|newest| newest.rows.clone());
        placed.all(|(fact, place)| self.bucket.holds(fact, place))
            && listed.all(|(fact, place)| self.bucket.holds(fact, place))
    }
}
