//! Where an operation goes, and when it is sent again.

use std::time::Duration;

use cairn_api_spec::{ErrorCode, Operation};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    cache::Shared,
    call::{self, Reply},
    error::{Error, Failure},
    router::Map,
};

/// The pause before the first repetition; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// However little time is left, an attempt gets this much of it.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);

impl Shared {
    pub(crate) async fn execute(&self, operation: &Operation) -> Result<Reply, Error> {
        let deadline = Instant::now() + self.timeout;
        let mut course = Course::default();
        let mut left = self.retries;
        loop {
            let map = self.router.map();
            let node = course.node(&map, operation);
            let target = node.unwrap_or_else(|| self.router.master());
            let patience = patience(deadline);
            let failure = match timeout(patience, call::send(&self.http, target, operation)).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Broken(format!("{target} did not answer within {patience:?}")),
            };
            let pause = course.pause_after(&failure, node.is_some());
            if left == 0 || !failure.may_pass() || Instant::now() + pause >= deadline {
                return Err(course.last_word(failure, operation));
            }
            left -= 1;
            if node.is_none() && failure.is_lost() {
                self.router.leave_master(target);
            }
            let has_new_map = match failure.code() {
                Some(ErrorCode::NotOwner) => timeout_at(deadline, self.router.refresh(&map)).await.unwrap_or(false),
                _ => false,
            };
            if failure.is_lost() {
                self.router.refresh_soon();
            }
            course.turn(&failure, node, has_new_map);
            sleep(pause).await;
        }
    }
}

/// How long the next attempt may take: half of what is left, so that a silent server leaves time for another one.
pub(crate) fn patience(deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    (left / 2).max(SHORTEST_PATIENCE).min(left)
}

/// The way of one operation so far.
#[derive(Default)]
struct Course {
    /// The next attempt goes through a master, which knows more and waits for a failover.
    to_master: bool,
    /// The node that failed last.
    failed: Option<String>,
    /// Why an earlier attempt of this write may have happened.
    doubt: Option<String>,
    pauses: Pauses,
}

impl Course {
    /// The node to ask; `None` for a master.
    fn node<'a>(&self, map: &'a Map, operation: &Operation) -> Option<&'a str> {
        if self.to_master {
            return None;
        }
        let replica = || map.any_in_sync(&operation.name, self.failed.as_deref());
        let replica = if operation.is_eventual() { replica() } else { None };
        replica.or_else(|| map.owner(&operation.name))
    }

    /// None, where another server can be asked at once.
    fn pause_after(&mut self, failure: &Failure, was_node: bool) -> Duration {
        if was_node && (failure.is_lost() || failure.is_elsewhere()) {
            return Duration::ZERO;
        }
        self.pauses.after(failure)
    }

    /// Nodes and masters take turns: either may be down, or not know yet. A new map is worth one more node.
    fn turn(&mut self, failure: &Failure, node: Option<&str>, has_new_map: bool) {
        let is_first_move = failure.code() == Some(ErrorCode::NotOwner) && self.failed.is_none();
        if failure.code() != Some(ErrorCode::RateLimited) {
            self.to_master = node.is_some() && !(has_new_map && is_first_move);
        }
        if let Some(node) = node {
            self.failed = Some(node.to_owned());
        }
        if !failure.had_no_effect() {
            self.doubt.get_or_insert_with(|| failure.to_string());
        }
    }

    /// A later attempt's promise that nothing was done does not hold for an earlier one. Its decision does: it is made
    /// under the same idempotency key.
    fn last_word(self, failure: Failure, operation: &Operation) -> Error {
        let is_decided = matches!(failure.code(), Some(ErrorCode::PreconditionFailed | ErrorCode::KeyNotFound));
        match self.doubt {
            Some(doubt) if operation.action.is_write() && !is_decided => Error::OutcomeUnknown(doubt),
            _ => failure.into_error(operation.action.is_write()),
        }
    }
}

/// The pauses between attempts: doubled each time, with jitter, and never shorter than the server asks for.
#[derive(Default)]
pub(crate) struct Pauses(u32);

impl Pauses {
    pub(crate) fn after(&mut self, failure: &Failure) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.0.min(10)).min(LONGEST_PAUSE);
        self.0 += 1;
        let asked = match failure {
            Failure::Refused { problem, .. } => Duration::from_secs(problem.retry_after.unwrap_or(0).into()),
            _ => Duration::ZERO,
        };
        pause.mul_f64(rand::random_range(0.5..1.0)).max(asked)
    }
}
