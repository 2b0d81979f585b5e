//! The gateway: every key through one address. It finds the owner in the cached map and forwards.
//!
//! Operations travel over the link; values too large for a frame are streamed over HTTP. Every request is rebuilt from
//! parsed parts; no byte that a client sent as syntax reaches a node. It repeats a request only where that is safe:
//! once after `not_owner`, which promises that nothing was done, and reads after a broken connection.

mod http;
mod routes;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use cairn_api_spec::{
    ApiError, ErrorCode, MAX_FRAMED_VALUE_BYTES, Operation, Outcome,
    operation::{Action, Durability, ListQuery, ListedName, Put},
    peer::{Execute, List, Request, RequestKind, Response, ResponseKind},
};
use cairn_data_api::{DataApi, Reply, ValueStream};
use cairn_link::{CallError, Client};
use futures_util::{FutureExt, future::BoxFuture};

use self::routes::{Routes, Target};
use crate::{cluster::Cluster, config::Config};

/// How long a connection for large values is kept for the next one.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long opening a connection for a large value may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a request waits for a map in which its partition has moved on.
const MAP_TIMEOUT: Duration = Duration::from_secs(1);
/// What `durability=object` takes longer than anything else.
const UPLOAD_ALLOWANCE: Duration = Duration::from_secs(30);

/// Why the gateway has no answer of a node.
#[derive(Debug, thiserror::Error)]
enum GatewayError {
    #[error("no node serves the partition of this key yet")]
    NoNodes,
    #[error("{0}; nothing was changed")]
    NotSent(CallError),
    #[error("{0}")]
    Read(CallError),
    #[error("{0}: the write may or may not have happened")]
    Write(CallError),
    #[error("the node answered something that this master does not understand")]
    Strange,
}

impl From<GatewayError> for ApiError {
    fn from(error: GatewayError) -> Self {
        let code = match &error {
            GatewayError::NoNodes => ErrorCode::NoNodes,
            GatewayError::NotSent(CallError::Overloaded(_)) => ErrorCode::Overloaded,
            GatewayError::NotSent(_) | GatewayError::Read(_) => ErrorCode::PartitionOffline,
            GatewayError::Write(_) => ErrorCode::OutcomeUnknown,
            GatewayError::Strange => ErrorCode::Internal,
        };
        ApiError::new(code, error.to_string())
    }
}

/// What gateways are made of.
#[derive(Clone)]
pub(crate) struct Plan {
    cluster: Arc<Cluster>,
    http: reqwest::Client,
    deadline: Duration,
    max_value_bytes: usize,
}

impl Plan {
    /// Gateways over the cluster's map.
    pub(crate) fn new(cluster: Arc<Cluster>, config: &Config) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // Servers close a connection that asks nothing for five seconds after it was opened.
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        let max_value_bytes = usize::try_from(config.max_value_bytes).unwrap_or(usize::MAX);
        Ok(Self { cluster, http, deadline: config.link_deadline, max_value_bytes })
    }

    /// A gateway for one worker, with connections of its own.
    pub(crate) fn gateway(&self) -> Gateway {
        Gateway { plan: self.clone(), routes: RwLock::default() }
    }
}

/// See the module.
pub(crate) struct Gateway {
    plan: Plan,
    routes: RwLock<Arc<Routes>>,
}

/// The owner of a partition, and the epoch at which the map says so.
#[derive(Clone)]
struct Owner {
    target: Arc<Target>,
    epoch: u64,
}

impl Gateway {
    /// The table for the map as it is; made anew when that has changed.
    fn routes(&self) -> Arc<Routes> {
        let ring = self.plan.cluster.ring.load();
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner).clone();
        if known.ring_epoch == ring.epoch {
            return known;
        }
        let routes = Arc::new(Routes::new(&ring, &known));
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes.clone();
        routes
    }

    async fn forward(&self, operation: Operation) -> Result<Reply, ApiError> {
        let mut retried = false;
        loop {
            let routes = self.routes();
            let owner = routes.owner(&operation.name)?;
            let answered_by = |error| ApiError { node: Some(owner.target.node.to_string()), ..error };
            match self.ask(owner, operation.clone()).await {
                Err(error) if error.code == ErrorCode::NotOwner && !retried => {
                    retried = true;
                    self.plan.cluster.ring.changed_from(routes.ring_epoch, MAP_TIMEOUT).await;
                }
                Err(error) if error.code == ErrorCode::NotOwner => {
                    return Err(answered_by(moving(error)));
                }
                result => return result.map_err(answered_by),
            }
        }
    }

    async fn ask(&self, owner: &Owner, operation: Operation) -> Result<Reply, ApiError> {
        let large = matches!(&operation.action, Action::Put(put) if put.value.len() > MAX_FRAMED_VALUE_BYTES);
        if large && !operation.name.is_dots() {
            return self.put_over_http(owner, operation, None).await;
        }
        let deadline = match &operation.action {
            Action::Put(Put { durability: Some(Durability::Object), .. })
            | Action::Delete { durability: Some(Durability::Object) } => self.plan.deadline + UPLOAD_ALLOWANCE,
            _ => self.plan.deadline,
        };
        let is_write = operation.action.is_write();
        let get = matches!(operation.action, Action::Get).then(|| operation.name.clone());
        let request = Request { kind: Some(RequestKind::Execute(Execute::new(operation, owner.epoch))) };
        let outcome: Outcome = match call(&owner.target.link, &request, deadline, is_write).await? {
            ResponseKind::Executed(executed) => executed.try_into()?,
            ResponseKind::Failed(error) => return Err(error.into()),
            _ => return Err(GatewayError::Strange.into()),
        };
        match (&outcome, get) {
            (Outcome::Found { value: None, .. }, Some(name)) => self.get_over_http(owner, &name).await,
            _ => Ok(Reply { node: owner.target.node.clone(), outcome, stream: None }),
        }
    }

    async fn list_all(&self, query: ListQuery) -> Result<Vec<ListedName>, ApiError> {
        let mut retried = false;
        loop {
            let routes = self.routes();
            match self.list_once(&routes, &query).await {
                Err(error) if error.code == ErrorCode::NotOwner && !retried => {
                    retried = true;
                    self.plan.cluster.ring.changed_from(routes.ring_epoch, MAP_TIMEOUT).await;
                }
                Err(error) if error.code == ErrorCode::NotOwner => {
                    return Err(moving(error));
                }
                result => return result,
            }
        }
    }

    /// Asks each node for its first names and merges them: the first of all are among them.
    async fn list_once(&self, routes: &Routes, query: &ListQuery) -> Result<Vec<ListedName>, ApiError> {
        let pages = routes.by_target()?.into_iter().map(|(target, partitions)| async move {
            let request = Request { kind: Some(RequestKind::List(List::new(query.clone(), partitions))) };
            match call(&target.link, &request, self.plan.deadline, false).await? {
                ResponseKind::Listed(listed) => {
                    listed.names.into_iter().map(TryInto::try_into).collect::<Result<Vec<ListedName>, ApiError>>()
                }
                ResponseKind::Failed(error) => Err(error.into()),
                _ => Err(GatewayError::Strange.into()),
            }
        });
        let mut names: Vec<ListedName> =
            futures_util::future::try_join_all(pages).await?.into_iter().flatten().collect();
        names.sort_unstable_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        names.truncate(query.limit);
        Ok(names)
    }
}

/// A second `not_owner` says that the map is changing faster than it is worth following; the client may.
fn moving(error: ApiError) -> ApiError {
    match error.code {
        ErrorCode::NotOwner => {
            ApiError::new(ErrorCode::PartitionOffline, format!("the partition is moving: {}", error.detail))
        }
        _ => error,
    }
}

async fn call(link: &Client, request: &Request, deadline: Duration, is_write: bool) -> Result<ResponseKind, ApiError> {
    let mut result = link.call::<Response>(request, deadline).await;
    // A connection that broke may have been an old one; nothing is lost by reading once more.
    if !is_write && matches!(result, Err(CallError::Broken(_))) {
        result = link.call::<Response>(request, deadline).await;
    }
    let response = result.map_err(|error| match error {
        error if !error.was_sent() => GatewayError::NotSent(error),
        error if is_write => GatewayError::Write(error),
        error => GatewayError::Read(error),
    })?;
    response.kind.ok_or_else(|| GatewayError::Strange.into())
}

impl DataApi for Gateway {
    fn execute(&self, operation: Operation) -> BoxFuture<'_, Result<Reply, ApiError>> {
        self.forward(operation).boxed()
    }

    fn put_stream(&self, operation: Operation, value: ValueStream) -> BoxFuture<'_, Result<Reply, ApiError>> {
        async move {
            if operation.name.is_dots() {
                return self.forward(http::collect(operation, value).await?).await;
            }
            let routes = self.routes();
            let owner = routes.owner(&operation.name)?;
            // What has been streamed cannot be sent again.
            self.put_over_http(owner, operation, Some(value)).await.map_err(moving)
        }
        .boxed()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Vec<ListedName>, ApiError>> {
        self.list_all(query).boxed()
    }

    fn max_value_bytes(&self) -> usize {
        self.plan.max_value_bytes
    }

    fn buffer_bytes(&self) -> usize {
        MAX_FRAMED_VALUE_BYTES.min(self.plan.max_value_bytes)
    }
}
