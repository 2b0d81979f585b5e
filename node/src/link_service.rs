//! The peer listener's adapter: messages in, the store's methods, messages out.

use std::sync::{Arc, OnceLock};

use cairn_api_spec::{
    ApiError, ErrorCode, MAX_FRAMED_VALUE_BYTES, Outcome,
    peer::{Execute, Executed, Listed, Request, RequestKind, Response, ResponseKind},
};
use cairn_link::Service;

use crate::{error::NodeError, follow, store::Store, transfer::serve_fetch};

/// See the module. The store comes once the node has joined.
pub(crate) struct LinkService {
    store: Arc<OnceLock<Store>>,
}

impl LinkService {
    /// An adapter over a store that may come later.
    pub(crate) fn new(store: Arc<OnceLock<Store>>) -> Self {
        Self { store }
    }

    async fn answer(&self, request: Request) -> Result<ResponseKind, ApiError> {
        let store = self.store.get().ok_or(NodeError::NotJoined)?;
        match request.kind {
            Some(RequestKind::Execute(message)) => execute(store, message).await.map(ResponseKind::Executed),
            Some(RequestKind::List(message)) => {
                let (query, partitions) = message.into_query();
                let names = store.list(query, &partitions).await?;
                Ok(ResponseKind::Listed(Listed { names: names.into_iter().map(Into::into).collect() }))
            }
            Some(RequestKind::Fetch(message)) => Ok(ResponseKind::Fetched(serve_fetch(store, message).await?)),
            Some(RequestKind::Replicate(message)) => {
                Ok(ResponseKind::Replicated(follow::replicate(store, message).await?))
            }
            Some(RequestKind::Renew(message)) => {
                store.begin_lending().await?;
                Ok(ResponseKind::Granted(follow::renew(store, &message)))
            }
            Some(RequestKind::Collect(message)) => {
                store.begin_lending().await?;
                Ok(ResponseKind::Collected(follow::collect(store, &message)))
            }
            None => Err(ApiError::new(ErrorCode::Internal, "the peer asked something that this release does not know")),
        }
    }
}

async fn execute(store: &Store, message: Execute) -> Result<Executed, ApiError> {
    let epoch = message.epoch;
    let operation = message.into_operation()?;
    let streamable = !operation.name.is_dots();
    let mut outcome = store.execute(operation, epoch).await?;
    if let Outcome::Found { value, .. } = &mut outcome
        && streamable
        && value.as_ref().is_some_and(|value| value.len() > MAX_FRAMED_VALUE_BYTES)
    {
        *value = None;
    }
    Ok(outcome.into())
}

impl Service for LinkService {
    type Request = Request;
    type Response = Response;

    async fn call(&self, request: Request) -> Response {
        match self.answer(request).await {
            Ok(kind) => Response { kind: Some(kind) },
            Err(error) => Response::failed(error),
        }
    }
}
