//! How often one request is tried. A failover or a restart is then a pause to the client, where that is safe, and not
//! an error.

use std::time::{Duration, Instant};

use cairn_api_spec::{ApiError, ErrorCode, Operation};
use prometheus::IntCounter;

use super::routes::Table;
use crate::ring::PublishedRing;

/// How long one node is waited for, so that a silent one leaves time to ask the next.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// The longest pause before the next attempt; a change of the map ends it.
const PAUSE: Duration = Duration::from_millis(100);

/// The time that a request has, and what is known of it.
#[derive(Clone)]
pub(super) struct Attempts<'a> {
    ring: &'a PublishedRing,
    /// Counts those after the first.
    retries: &'a IntCounter,
    until: Instant,
    /// Whether it may be sent again when it is not known whether it was done.
    is_repeatable: bool,
    /// Why an earlier attempt may have been done.
    doubt: Option<ApiError>,
}

impl<'a> Attempts<'a> {
    /// For a request that may be sent again only when nothing was done. No read is ever in doubt.
    pub(super) fn new(ring: &'a PublishedRing, deadline: Duration, retries: &'a IntCounter) -> Self {
        Self { ring, retries, until: Instant::now() + deadline, is_repeatable: false, doubt: None }
    }

    /// The same for an operation, which its idempotency key makes repeatable.
    pub(super) fn of(self, operation: &Operation) -> Self {
        Self { is_repeatable: operation.idempotency_key.is_some(), ..self }
    }

    /// How long the next call may wait for its answer.
    pub(super) fn call_deadline(&self) -> Duration {
        self.left().min(CALL_DEADLINE)
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits for a good moment to try again.
    ///
    /// # Errors
    /// The last word, when the failure will not pass, the request may not be repeated, or the time is up.
    pub(super) async fn again(&mut self, error: ApiError, routes: &Table) -> Result<(), ApiError> {
        self.judge(error)?;
        self.pause(routes).await;
        Ok(())
    }

    /// Whether it may be tried again.
    ///
    /// # Errors
    /// As [`Attempts::again`].
    pub(super) fn judge(&mut self, error: ApiError) -> Result<(), ApiError> {
        let is_worth_it = match error.code {
            ErrorCode::NotOwner | ErrorCode::NoNodes | ErrorCode::PartitionOffline | ErrorCode::ShuttingDown => true,
            ErrorCode::OutcomeUnknown => self.is_repeatable,
            _ => false,
        };
        if !is_worth_it || self.left() <= PAUSE {
            return Err(self.last_word(error));
        }
        if error.code == ErrorCode::OutcomeUnknown {
            self.doubt.get_or_insert(error);
        }
        Ok(())
    }

    /// Waits for another map than this one, but not for long.
    pub(super) async fn pause(&self, routes: &Table) {
        self.ring.changed_from(routes.ring_epoch, PAUSE).await;
        self.retries.inc();
    }

    /// No promise of a later attempt that nothing was done holds for an earlier one.
    pub(super) fn last_word(&mut self, error: ApiError) -> ApiError {
        match (self.doubt.take(), error.code) {
            (Some(doubt), _) => doubt,
            // The client asked the right server: who the owner is, is not its business.
            (None, ErrorCode::NotOwner) => ApiError {
                node: error.node,
                ..ApiError::new(ErrorCode::PartitionOffline, format!("the partition is moving: {}", error.detail))
            },
            (None, _) => error,
        }
    }
}
