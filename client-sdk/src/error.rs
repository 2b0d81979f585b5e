//! What a caller is told, and what one attempt came to.

use cairn_api_spec::{ApiError, ErrorCode, Version, error::Problem};

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request cannot be made: nothing was sent.
    #[error(transparent)]
    Invalid(#[from] ApiError),
    /// `If-Match` or `If-None-Match` does not hold: nothing was changed.
    #[error("precondition_failed: the condition does not hold, the key has version {version}")]
    PreconditionFailed {
        /// The version that the key has; also a key that is not there has one, 0 when it was never written.
        version: Version,
    },
    /// A server refused or failed.
    #[error("{}: {}", problem.code.as_str(), problem.detail)]
    Refused {
        /// What it said.
        problem: Box<Problem>,
    },
    /// The write may or may not have happened.
    #[error("outcome_unknown: the write may or may not have happened: {0}")]
    OutcomeUnknown(String),
    /// No server could be reached in time; nothing was changed.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// A server answered something that is no part of the contract.
    #[error("unexpected_reply: {0}")]
    UnexpectedReply(String),
    /// The HTTP client could not be set up.
    #[error("the HTTP client: {0}")]
    Setup(#[from] reqwest::Error),
}

impl Error {
    /// The stable code, for errors that have one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Invalid(error) => Some(error.code),
            Self::PreconditionFailed { .. } => Some(ErrorCode::PreconditionFailed),
            Self::Refused { problem } => Some(problem.code),
            Self::OutcomeUnknown(_) => Some(ErrorCode::OutcomeUnknown),
            Self::Unreachable(_) | Self::UnexpectedReply(_) | Self::Setup(_) => None,
        }
    }

    /// After a write: whether it may have happened all the same.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Refused { problem } => !problem.code.had_no_effect(),
            Self::OutcomeUnknown(_) | Self::UnexpectedReply(_) => true,
            Self::Invalid(_) | Self::PreconditionFailed { .. } | Self::Unreachable(_) | Self::Setup(_) => false,
        }
    }
}

/// What one attempt at one server came to, when not to a reply.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing has left this process.
    #[error("{0}")]
    Unsent(String),
    /// It may have arrived.
    #[error("{0}")]
    Broken(String),
    /// It was answered with something that is no part of the contract.
    #[error("{0}")]
    Strange(String),
    /// The server says no.
    #[error("{}", problem.detail)]
    Refused { problem: Box<Problem>, version: Version },
}

impl Failure {
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { problem, .. } => Some(problem.code),
            Self::Unsent(_) | Self::Broken(_) | Self::Strange(_) => None,
        }
    }

    /// Whether a write surely changed nothing.
    pub(crate) fn had_no_effect(&self) -> bool {
        match self {
            Self::Unsent(_) => true,
            Self::Broken(_) | Self::Strange(_) => false,
            Self::Refused { problem, .. } => problem.code.had_no_effect(),
        }
    }

    /// Whether the next attempt may end better.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unsent(_) | Self::Broken(_) => true,
            Self::Strange(_) => false,
            Self::Refused { problem, .. } => problem.code.may_pass(),
        }
    }

    /// The server itself is the trouble, or the way to it.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Unsent(_) | Self::Broken(_))
    }

    /// The server says that it is not, not yet or no longer the one to ask.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(
            self.code(),
            Some(ErrorCode::NotOwner | ErrorCode::NoNodes | ErrorCode::PartitionOffline | ErrorCode::ShuttingDown)
        )
    }

    /// The last word, for a request that is a write or not.
    pub(crate) fn into_error(self, is_write: bool) -> Error {
        match self {
            Self::Broken(why) if is_write => Error::OutcomeUnknown(why),
            Self::Unsent(why) | Self::Broken(why) => Error::Unreachable(why),
            Self::Strange(why) => Error::UnexpectedReply(why),
            Self::Refused { problem, version } if problem.code == ErrorCode::PreconditionFailed => {
                Error::PreconditionFailed { version }
            }
            Self::Refused { problem, .. } if problem.code == ErrorCode::OutcomeUnknown => {
                Error::OutcomeUnknown(problem.detail)
            }
            Self::Refused { problem, .. } => Error::Refused { problem },
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
