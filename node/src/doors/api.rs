//! The data API's adapter: what `cairn-operations` asks for, over the driver.

use std::sync::{Arc, OnceLock};

use cairn_api_spec::{
    ApiError, ErrorCode, Operation, Outcome, TraceContext,
    events::Position,
    operation::{ListQuery, ListedName},
};
use cairn_operations::{DataApi, Reply, ValueStream, feed::Subscriber};
use futures_util::{FutureExt, future::BoxFuture};
use tokio_util::task::AbortOnDropHandle;

use crate::{driver::Driver, error::NodeError, mailbox::Mailbox};

/// See the module. Each thread that serves HTTP has its own. The driver comes once the node has joined.
pub(crate) struct NodeApi {
    node: Arc<str>,
    joined: Arc<OnceLock<Arc<Driver>>>,
    mailbox: Arc<Mailbox>,
    _hand_out: AbortOnDropHandle<()>,
    max_value_bytes: usize,
}

impl NodeApi {
    /// An adapter for the thread that calls this, of the node with this id.
    pub(crate) fn new(node: Arc<str>, joined: Arc<OnceLock<Arc<Driver>>>, max_value_bytes: usize) -> Self {
        let (mailbox, hand_out) = Mailbox::open();
        Self { node, joined, mailbox, _hand_out: hand_out, max_value_bytes }
    }

    fn driver(&self) -> Result<&Driver, NodeError> {
        self.joined.get().map(Arc::as_ref).ok_or(NodeError::NotJoined)
    }
}

impl DataApi for NodeApi {
    fn execute(&self, operation: Operation) -> BoxFuture<'_, Result<Reply, ApiError>> {
        async move {
            let outcome = self.driver()?.execute(operation, 0, Some(&self.mailbox)).await?;
            Ok(Reply { node: self.node.clone(), outcome, stream: None })
        }
        .boxed()
    }

    fn batch(&self, operations: Vec<Operation>) -> BoxFuture<'_, Vec<Result<Outcome, ApiError>>> {
        async move {
            match self.driver() {
                Ok(driver) => {
                    let operations = operations.into_iter().map(|operation| (operation, 0)).collect();
                    driver.execute_batch(operations, Some(&self.mailbox)).await
                }
                Err(error) => operations.iter().map(|_| Err(error.clone().into())).collect(),
            }
        }
        .boxed()
    }

    // Never called: values up to `max_value_bytes` are collected first.
    fn put_stream(&self, _: Operation, _: ValueStream) -> BoxFuture<'_, Result<Reply, ApiError>> {
        async { Err(ApiError::new(ErrorCode::ValueTooLarge, "the value is over the limit")) }.boxed()
    }

    fn list(&self, query: ListQuery, trace: Option<TraceContext>) -> BoxFuture<'_, Result<Vec<ListedName>, ApiError>> {
        async move {
            let driver = self.driver()?;
            Ok(driver.list(query, &driver.partitions.served(), trace).await?)
        }
        .boxed()
    }

    fn subscribe(&self, after: Option<Position>) -> BoxFuture<'_, Result<Subscriber, ApiError>> {
        async move { self.driver()?.feed.subscribe(after) }.boxed()
    }

    fn max_value_bytes(&self) -> usize {
        self.max_value_bytes
    }

    fn buffer_bytes(&self) -> usize {
        self.max_value_bytes
    }
}
