//! When a segment is cut, what counts as uploaded, and whom a replica believes.

use std::time::Duration;

use cairn_api_spec::Version;

use crate::segment::CUT_BYTES;

/// How long rows gather for which somebody waits.
pub const AWAITED_LINGER: Duration = Duration::from_millis(100);

/// What waits to be packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Bytes of values.
    pub bytes: usize,
    /// How long the oldest row has waited; `None`: there is no row.
    pub oldest: Option<Duration>,
    /// How long the oldest row has waited for which somebody waits, if there is one.
    pub awaited: Option<Duration>,
}

/// How long to go on gathering; zero: the segment is cut now. `None` while there is nothing to upload.
pub fn linger(waiting: &Waiting, upload_linger: Duration) -> Option<Duration> {
    let oldest = waiting.oldest?;
    if waiting.bytes >= CUT_BYTES {
        return Some(Duration::ZERO);
    }
    let left = upload_linger.saturating_sub(oldest);
    let awaited = waiting.awaited.map(|age| AWAITED_LINGER.saturating_sub(age));
    Some(awaited.map_or(left, |awaited| awaited.min(left)))
}

/// What a node is to a partition that it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lead {
    /// The epoch since which it has led without a break.
    pub epoch: u64,
    /// It serves, and its leases have not run out.
    pub leased: bool,
}

/// Whether rows that were gathered under `gathered` count as uploaded when their segment is known to be stored. Each then
/// counts by its exact version only: one that was overwritten meanwhile still waits.
///
/// Without this, an answer that comes after another primary has been there would bring back places that the other one
/// has released.
pub fn counts(gathered: Lead, now: Option<Lead>) -> bool {
    now.is_some_and(|now| now.leased && now.epoch == gathered.epoch)
}

/// Whether a row may be packed: it is committed, and its partition is led with a lease.
pub fn may_gather(lead: Option<Lead>, version: Version, committed: Version) -> bool {
    lead.is_some_and(|lead| lead.leased) && version <= committed
}

/// What a primary says of itself when it tells others what it has uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Teller<N> {
    /// The primary.
    pub node: N,
    /// Its process, and the one that it speaks to.
    pub session: (u64, u64),
    /// The epoch under which it has uploaded.
    pub epoch: u64,
}

/// Whether a replica or learner believes it: only while that process is the primary, in the epoch that this one knows.
/// What it says afterwards may have been released by its successor.
pub fn believes<N: PartialEq>(told: &Teller<N>, known: &Teller<N>) -> bool {
    told == known
}
