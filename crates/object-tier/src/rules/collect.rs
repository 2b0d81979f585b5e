//! What may be removed from the bucket (P3), what is moved before, and which rows of deletions may go.

use std::{collections::HashSet, ops::Range, sync::Arc, time::Duration};

use cairn_api_spec::Version;

use crate::{
    name::{CheckpointName, Origin, SegmentName, ValueName},
    rules::upload::Lead,
};

/// Segments whose live share is below this, in percent, are moved.
const LIVE_PERCENT: u64 = 50;
/// Bytes between two values that are fetched with both, since a request costs more.
const GAP_BYTES: u64 = 64 << 10;

/// A checkpoint that its partition's primary knows to be in the bucket, which is what releases are based on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    /// Its name.
    pub name: CheckpointName,
    /// See [`crate::checkpoint::Head::covers`].
    pub covers: u64,
    /// The segments that it refers to.
    pub segments: HashSet<Arc<SegmentName>>,
    /// The objects of single values that it refers to.
    pub values: HashSet<Arc<ValueName>>,
}

/// Whether releases may be based on a checkpoint: no other of its partition counts before it. In a cluster that was begun
/// anew on an old bucket one may, which has the same watermark, a higher epoch, and other places.
pub fn may_be_basis<'a>(own: &CheckpointName, others: impl IntoIterator<Item = &'a CheckpointName>) -> bool {
    others.into_iter().all(|other| other.order() <= own.order())
}

impl Basis {
    /// Whether a segment is of no more use to the partition, of which it holds versions up to `newest`, gathered under
    /// `epoch`. `lead` is what the asking node is to the partition; one that is offline or being restored is led by
    /// nobody, and so releases nothing.
    pub fn releases_segment(&self, segment: &SegmentName, epoch: u64, newest: Version, lead: Option<Lead>) -> bool {
        self.releases(&segment.0, epoch, newest, lead) && !self.segments.contains(segment)
    }

    /// The same of a value's own object.
    pub fn releases_value(&self, value: &ValueName, lead: Option<Lead>) -> bool {
        self.releases(&value.origin, value.epoch, value.version, lead) && !self.values.contains(value)
    }

    /// The same of another checkpoint of the partition.
    pub fn releases_checkpoint(&self, other: &CheckpointName, lead: Option<Lead>) -> bool {
        self.leads(lead) && other.order() < self.name.order()
    }

    fn releases(&self, origin: &Origin, epoch: u64, newest: Version, lead: Option<Lead>) -> bool {
        self.leads(lead) && self.is_settled(origin, epoch) && newest <= self.name.watermark
    }

    /// Whether the primary that has gathered the checkpoint still leads.
    pub fn leads(&self, lead: Option<Lead>) -> bool {
        lead.is_some_and(|lead| lead.leased && lead.epoch == self.name.epoch)
    }

    /// Whether no row can begin to refer to it any more: it belongs to a former epoch, or the process that gathered the
    /// checkpoint had settled it before.
    fn is_settled(&self, origin: &Origin, epoch: u64) -> bool {
        let own = &self.name.origin;
        let by_same_process = (origin.term, &origin.node, origin.session) == (own.term, &own.node, own.session);
        (origin.term, epoch) < (own.term, self.name.epoch)
            || (epoch == self.name.epoch && by_same_process && origin.seq < self.covers)
    }
}

/// Whether something that was first found useless `since` may be removed, having been found so once more. Nothing depends
/// on the grace but reads under way, which would have to be done again.
pub fn grace_is_over(since: Duration, grace: Duration) -> bool {
    since >= grace
}

/// Whether an object of one version, as they were before there were segments, may be removed by a checkpoint of the leading
/// primary. Nobody stores such objects any more.
pub fn is_versioned_released(is_listed: bool, version: Version, watermark: Version) -> bool {
    !is_listed && version <= watermark
}

/// Whether the row of a deletion may go: the bucket has it, or a checkpoint speaks of it without listing the key.
pub fn tombstone_may_go(waits_for_upload: bool, version: Version, watermark: Version) -> bool {
    !waits_for_upload || version <= watermark
}

/// What a segment still holds that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Bytes of values that rows refer to.
    pub live: u64,
    /// Bytes of all its values.
    pub total: u64,
}

/// Whether what is left in a segment should move to another, so that it can be removed.
pub fn is_worth_moving(share: Share) -> bool {
    share.live.saturating_mul(100) < share.total.saturating_mul(LIVE_PERCENT)
}

/// How many bytes may be moved: never more in all than clients have written, so that a byte is written twice at most.
pub fn moving_budget(written: u64, moved: u64) -> u64 {
    written.saturating_sub(moved)
}

/// The parts of a segment to fetch for values that lie there: one part for those that are near to each other.
pub fn parts(values: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable_by_key(|value| value.start);
    let mut parts: Vec<Range<u64>> = Vec::new();
    for value in values {
        match parts.last_mut() {
            Some(last) if value.start <= last.end.saturating_add(GAP_BYTES) => last.end = last.end.max(value.end),
            _ => parts.push(value),
        }
    }
    parts
}
