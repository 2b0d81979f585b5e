//! The data API's adapter: what `cairn-data-api` asks, over the store.

use std::sync::{Arc, OnceLock};

use cairn_api_spec::{
    ApiError, ErrorCode, Operation, TraceContext,
    operation::{ListQuery, ListedName},
};
use cairn_data_api::{DataApi, Reply, ValueStream};
use futures_util::{FutureExt, future::BoxFuture};
use tokio_util::task::AbortOnDropHandle;

use crate::{error::NodeError, mailbox::Mailbox, store::Store};

/// See the module. Each thread that serves HTTP has its own. The store comes once the node has joined.
pub(crate) struct NodeApi {
    node: Arc<str>,
    joined: Arc<OnceLock<Store>>,
    store: OnceLock<Store>,
    mailbox: Arc<Mailbox>,
    _hand_out: AbortOnDropHandle<()>,
    max_value_bytes: usize,
}

impl NodeApi {
    /// An adapter for the thread that calls this, of the node with this id.
    pub(crate) fn new(node: Arc<str>, joined: Arc<OnceLock<Store>>, max_value_bytes: usize) -> Self {
        let (mailbox, hand_out) = Mailbox::open();
        Self { node, joined, store: OnceLock::new(), mailbox, _hand_out: hand_out, max_value_bytes }
    }

    fn store(&self) -> Result<&Store, NodeError> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let joined = self.joined.get().ok_or(NodeError::NotJoined)?;
        Ok(self.store.get_or_init(|| joined.with_mailbox(self.mailbox.clone())))
    }
}

impl DataApi for NodeApi {
    fn execute(&self, operation: Operation) -> BoxFuture<'_, Result<Reply, ApiError>> {
        async move {
            let outcome = self.store()?.execute(operation, 0).await?;
            Ok(Reply { node: self.node.clone(), outcome, stream: None })
        }
        .boxed()
    }

    // Never called: values up to `max_value_bytes` are collected first.
    fn put_stream(&self, _: Operation, _: ValueStream) -> BoxFuture<'_, Result<Reply, ApiError>> {
        async { Err(ApiError::new(ErrorCode::ValueTooLarge, "the value is over the limit")) }.boxed()
    }

    fn list(&self, query: ListQuery, trace: Option<TraceContext>) -> BoxFuture<'_, Result<Vec<ListedName>, ApiError>> {
        async move {
            let store = self.store()?;
            Ok(store.list(query, &store.served(), trace).await?)
        }
        .boxed()
    }

    fn max_value_bytes(&self) -> usize {
        self.max_value_bytes
    }

    fn buffer_bytes(&self) -> usize {
        self.max_value_bytes
    }
}
