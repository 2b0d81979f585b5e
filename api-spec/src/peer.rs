//! The protobuf messages that our own processes exchange over the link, and their translation to and from
//! [`Operation`](crate::Operation) and [`Outcome`](crate::Outcome).
//!
//! The messages are described in `proto/cairn/peer/v1`; `make proto` writes `generated.rs` from there. What cannot be
//! read, such as an enum's value that this release does not know, is an error, never a guess.

mod convert;
mod events;
#[rustfmt::skip]
#[expect(unreachable_pub, reason = "the generator knows no other visibility")]
mod generated;
mod modes;

pub use generated::{
    Action, Append, AskedDurability, BatchAnswer, Collect, Collected, Condition, Durability, Event, Execute,
    ExecuteBatch, Executed, ExecutedBatch, Failed, Fetch, Fetched, FirstOutcome, Granted, Hop, Lease, List, Listed,
    ListedRow, OutcomeKind, Place, PollEvents, PolledEvents, Refusal, Refused, Release, Released, Removal, Renew,
    Replicate, Replicated, Request, Response, Row, Tier, Trace, Uploaded, batch_answer::Kind as AnswerKind,
    request::Kind as RequestKind, response::Kind as ResponseKind,
};
