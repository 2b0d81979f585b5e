//! When a checkpoint is due, what its watermark is, and when it may be published.

use std::time::Duration;

use cairn_api_spec::Version;

/// A checkpoint is due when as many keys have changed since the last one as this share of those that it lists.
const CHURN_PERCENT: u64 = 25;
/// A checkpoint is due when the last one is this old and anything has changed.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// What has happened since a partition's last checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// Keys that the last one lists; `None`: there is none.
    pub listed: Option<u64>,
    /// Keys written, deleted or moved since.
    pub changed: u64,
    /// How old it is.
    pub age: Duration,
}

/// Whether a checkpoint is due. The first one is as soon as there is anything to list.
pub fn is_due(since: &Since) -> bool {
    let Some(listed) = since.listed else { return since.changed > 0 };
    let churned = since.changed.saturating_mul(100) >= listed.max(1).saturating_mul(CHURN_PERCENT);
    since.changed > 0 && (churned || since.age >= MAX_AGE)
}

/// The first version that a primary may give in an epoch is above this. [`Version::MAX`] where there is none.
pub fn floor(epoch: u64) -> Version {
    Version::NONE.next(epoch).map_or(Version::MAX, |first| Version(first.0 - 1))
}

/// The watermark of a checkpoint that is gathered now, by the primary of `epoch`: everything up to `committed` is
/// committed, and `oldest_waiting` is the lowest version that the bucket has yet to hear of, deletions included.
///
/// `None` while something waits that is older than the epoch: the watermark would be below what former primaries may
/// still store.
pub fn watermark(epoch: u64, committed: Version, oldest_waiting: Option<Version>) -> Option<Version> {
    let floor = floor(epoch);
    let settled = committed.max(floor);
    match oldest_waiting {
        Some(waiting) if waiting <= floor => None,
        Some(waiting) => Some(settled.min(Version(waiting.0 - 1))),
        None => Some(settled),
    }
}

/// Whether what was gathered may be published: everything seen on the way is committed. A write that is not may vanish,
/// and then the state that it hid is the newest, which the checkpoint would not list.
pub fn may_publish(newest_seen: Version, committed: Version) -> bool {
    newest_seen <= committed
}
