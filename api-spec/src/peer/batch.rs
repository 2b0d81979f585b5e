//! Several operations in one message, and what became of each.

use prost::{Message, Oneof};

use super::{Execute, Executed, Failed};
use crate::{
    error::{ApiError, ErrorCode},
    operation::Outcome,
};

/// Operations on keys of one node. Those on the same key are done in this order.
#[derive(Clone, PartialEq, Message)]
pub struct ExecuteBatch {
    /// At most [`MAX_BATCH_OPERATIONS`](crate::batch::MAX_BATCH_OPERATIONS).
    #[prost(message, repeated, tag = "1")]
    pub operations: Vec<Execute>,
}

/// The answer to an [`ExecuteBatch`].
#[derive(Clone, PartialEq, Message)]
pub struct ExecutedBatch {
    /// One for each operation, in their order.
    #[prost(message, repeated, tag = "1")]
    pub answers: Vec<BatchAnswer>,
}

/// What became of one operation of a batch.
#[derive(Clone, PartialEq, Message)]
pub struct BatchAnswer {
    /// The answer.
    #[prost(oneof = "AnswerKind", tags = "1, 2")]
    pub kind: Option<AnswerKind>,
}

/// The kinds of [`BatchAnswer`].
#[derive(Clone, PartialEq, Oneof)]
pub enum AnswerKind {
    /// The operation's outcome.
    #[prost(message, tag = "1")]
    Executed(Executed),
    /// It failed.
    #[prost(message, tag = "2")]
    Failed(Failed),
}

impl From<Result<Outcome, ApiError>> for BatchAnswer {
    fn from(result: Result<Outcome, ApiError>) -> Self {
        let kind = match result {
            Ok(outcome) => AnswerKind::Executed(outcome.into()),
            Err(error) => AnswerKind::Failed(error.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl From<BatchAnswer> for Result<Outcome, ApiError> {
    fn from(answer: BatchAnswer) -> Self {
        match answer.kind {
            Some(AnswerKind::Executed(executed)) => executed.try_into(),
            Some(AnswerKind::Failed(failed)) => Err(failed.into()),
            None => Err(ApiError::new(ErrorCode::Internal, "a peer sent a message without a readable answer")),
        }
    }
}
