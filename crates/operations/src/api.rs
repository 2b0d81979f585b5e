//! What a server must be able to do to offer the data API.

use std::{io, sync::Arc};

use bytes::Bytes;
use cairn_api_spec::{
    ApiError, Operation, Outcome, TraceContext,
    events::Position,
    operation::{ListQuery, ListedName},
};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::feed::Subscriber;

/// A value on its way, in pieces. The channel is short, so a slow receiver holds up the sender; an error or a
/// channel that closes before `length` bytes have come means that the value is not complete.
#[derive(Debug)]
pub struct ValueStream {
    /// How many bytes will come.
    pub length: Option<u64>,
    /// The pieces.
    pub pieces: mpsc::Receiver<io::Result<Bytes>>,
}

/// An outcome, and who produced it.
#[derive(Debug)]
pub struct Reply {
    /// The node that executed the operation.
    pub node: Arc<str>,
    /// What became of it.
    pub outcome: Outcome,
    /// The value of an [`Outcome::Found`] that came without one, because it is too large for a frame.
    pub stream: Option<ValueStream>,
}

/// The domain behind the data API.
pub trait DataApi: Send + Sync + 'static {
    /// Executes one operation.
    fn execute(&self, operation: Operation) -> BoxFuture<'_, Result<Reply, ApiError>>;

    /// Executes a put whose value is longer than [`DataApi::buffer_bytes`]; the operation's own value is empty.
    fn put_stream(&self, operation: Operation, value: ValueStream) -> BoxFuture<'_, Result<Reply, ApiError>>;

    /// Executes operations, those on the same key in their order, and gives a result for each. Values of reads come as
    /// far as an [`AnswerRoom`](cairn_api_spec::batch::AnswerRoom) admits them.
    fn batch(&self, operations: Vec<Operation>) -> BoxFuture<'_, Vec<Result<Outcome, ApiError>>>;

    /// The first names of a range, over all partitions, in the order of their bytes; asked for in a trace, or in none.
    fn list(&self, query: ListQuery, trace: Option<TraceContext>) -> BoxFuture<'_, Result<Vec<ListedName>, ApiError>>;

    /// Subscribes to what becomes visible from now on, or from after a position.
    fn subscribe(&self, after: Option<Position>) -> BoxFuture<'_, Result<Subscriber, ApiError>>;

    /// The longest value that is taken, in bytes.
    fn max_value_bytes(&self) -> usize;

    /// Values up to this many bytes are collected before [`DataApi::execute`] is called.
    fn buffer_bytes(&self) -> usize;
}
