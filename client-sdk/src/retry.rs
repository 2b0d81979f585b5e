//! Where an operation goes, and when it is sent again.

use std::time::Duration;

use cairn_api_spec::{ErrorCode, Operation, backoff::Backoff};
use tokio::time::Instant;

use crate::{
    error::{Error, Failure},
    router::Map,
};

/// The pause before the first repetition; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// However little time is left, an attempt gets this much of it.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);

/// How long the next attempt may take: half of what is left, so that a silent server leaves time for another one.
pub(crate) fn patience(deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    (left / 2).max(SHORTEST_PATIENCE).min(left)
}

/// The way of one operation so far.
#[derive(Default)]
pub(crate) struct Course {
    /// The next attempt goes through a master, which knows more and waits for a failover.
    to_master: bool,
    /// The node that failed last.
    failed: Option<String>,
    doubt: Doubt,
    pauses: Pauses,
}

impl Course {
    /// The node to ask; `None` for a master.
    pub(crate) fn node<'a>(&self, map: &'a Map, operation: &Operation) -> Option<&'a str> {
        if self.to_master {
            return None;
        }
        let replica = || map.any_in_sync(&operation.name, self.failed.as_deref());
        let replica = if operation.is_eventual() { replica() } else { None };
        replica.or_else(|| map.owner(&operation.name))
    }

    /// None, where another server can be asked at once.
    pub(crate) fn pause_after(&mut self, failure: &Failure, was_node: bool) -> Duration {
        if was_node && (failure.is_lost() || failure.is_elsewhere()) {
            return Duration::ZERO;
        }
        self.pauses.after(failure)
    }

    /// Nodes and masters take turns: either may be down, or not know yet. A new map is worth one more node.
    pub(crate) fn turn(&mut self, failure: &Failure, node: Option<&str>, has_new_map: bool) {
        let is_first_move = failure.code() == Some(ErrorCode::NotOwner) && self.failed.is_none();
        if failure.code() != Some(ErrorCode::RateLimited) {
            self.to_master = node.is_some() && !(has_new_map && is_first_move);
        }
        if let Some(node) = node {
            self.failed = Some(node.to_owned());
        }
        self.doubt.note(failure);
    }

    /// The error of an operation that is not sent again.
    pub(crate) fn last_word(self, failure: Failure, operation: &Operation) -> Error {
        self.doubt.last_word(failure, operation.action.is_write())
    }
}

/// Why an earlier attempt of a write may have happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt(Option<String>);

impl Doubt {
    /// Notes an attempt that failed.
    pub(crate) fn note(&mut self, failure: &Failure) {
        if !failure.had_no_effect() {
            self.0.get_or_insert_with(|| failure.to_string());
        }
    }

    /// A later attempt's promise that nothing was done does not hold for an earlier one. Its decision does: it is made
    /// under the same idempotency key.
    pub(crate) fn last_word(self, failure: Failure, is_write: bool) -> Error {
        let is_decided = matches!(
            failure.code(),
            Some(ErrorCode::PreconditionFailed | ErrorCode::KeyNotFound | ErrorCode::NotAnInteger)
        );
        match self.0 {
            Some(doubt) if is_write && !is_decided => Error::OutcomeUnknown(doubt),
            _ => failure.into_error(is_write),
        }
    }
}

/// The pauses between attempts: never shorter than the server asks for.
pub(crate) struct Pauses(Backoff);

impl Default for Pauses {
    fn default() -> Self {
        Self(Backoff::new(FIRST_PAUSE, LONGEST_PAUSE))
    }
}

impl Pauses {
    /// The next pause, after a failure.
    pub(crate) fn after(&mut self, failure: &Failure) -> Duration {
        self.next().max(asked_for(failure))
    }

    /// The next pause, if no server asks for a longer one.
    pub(crate) fn next(&mut self) -> Duration {
        self.0.pause(rand::random())
    }
}

/// The pause that a server asks for.
pub(crate) fn asked_for(failure: &Failure) -> Duration {
    match failure {
        Failure::Refused { problem, .. } => Duration::from_secs(problem.retry_after.unwrap_or(0).into()),
        Failure::Unsent(_) | Failure::Broken(_) | Failure::Strange(_) => Duration::ZERO,
    }
}
