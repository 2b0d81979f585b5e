//! The data API's adapter: what `cairn-data-api` asks, over the store.

use std::sync::{Arc, OnceLock};

use cairn_api_spec::{
    ApiError, ErrorCode, Operation,
    operation::{ListQuery, ListedName},
};
use cairn_data_api::{DataApi, Reply, ValueStream};
use futures_util::{FutureExt, future::BoxFuture};

use crate::{error::NodeError, store::Store};

/// See the module. The store comes once the node has joined.
pub(crate) struct NodeApi {
    /// The node's id, for `Cache-Status`.
    pub(crate) node: Arc<str>,
    /// The tiers.
    pub(crate) store: Arc<OnceLock<Store>>,
    /// See `Config::max_value_bytes`.
    pub(crate) max_value_bytes: usize,
}

impl NodeApi {
    fn store(&self) -> Result<&Store, NodeError> {
        self.store.get().ok_or(NodeError::NotJoined)
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

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Vec<ListedName>, ApiError>> {
        async move {
            let store = self.store()?;
            Ok(store.list(query, &store.served()).await?)
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
