//! The smart client: how it is set up, and what can be asked of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_api_spec::{
    ApiError, Bucket, ErrorCode,
    cluster::{ChangeRebalance, Node, Rebalance, Ring, Stats},
    data::Explanation,
    operation::Action,
    version::Condition,
};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    batch::{BatchOperation, BatchReply, execute},
    call::Http,
    connection::{Connection, Shared},
    dots::DotClient,
    error::Error,
    events::Events,
    request::{Delete, Get, Increment, List, Put},
    router::Router,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Shorter than the servers' 75 s, so that the client is the one that closes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Above every deadline that is set here; no request is without one.
const LONGEST_REQUEST: Duration = Duration::from_secs(300);
/// Longer than a failover takes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// How a [`Cache`] is to be.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `connect`"]
pub struct Builder {
    urls: Vec<String>,
    bucket: Result<Bucket, ApiError>,
    timeout: Duration,
    retries: u32,
    trace_context: fn() -> Option<String>,
}

impl Builder {
    /// Adds a master's URL, or several, separated by commas.
    pub fn url(mut self, urls: &str) -> Self {
        let urls = urls.split(',').map(|url| url.trim().trim_end_matches('/')).filter(|url| !url.is_empty());
        self.urls.extend(urls.map(str::to_owned));
        self
    }

    /// The bucket of all keys; `default` when none is set.
    pub fn bucket(mut self, bucket: &str) -> Self {
        self.bucket = Bucket::parse(bucket);
        self
    }

    /// How long one call may take with all its repetitions, at most five minutes; 15 s when none is set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(LONGEST_REQUEST);
        self
    }

    /// How often a call is repeated at most; as often as the time allows when none is set.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Says which trace an operation on a key belongs to: the value of its `traceparent` header (W3C Trace Context), or
    /// none, which is also what one that is not valid counts as. Asked once for each operation, where that is awaited.
    pub fn trace_context(mut self, trace_context: fn() -> Option<String>) -> Self {
        self.trace_context = trace_context;
        self
    }

    /// Learns the partition map, and follows it from then on.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a URL or for an invalid bucket, [`Error::Unreachable`] when no master answers.
    pub async fn connect(self) -> Result<Cache, Error> {
        let bucket = self.bucket?;
        if self.urls.is_empty() {
            return Err(ApiError::new(ErrorCode::InvalidParameter, "a master's URL is needed").into());
        }
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .timeout(LONGEST_REQUEST)
            .build()?;
        let connecting = Router::connect(client.clone(), self.urls);
        let late = |_| Error::Unreachable(format!("no master gave the partition map within {:?}", self.timeout));
        let router = timeout(self.timeout, connecting).await.map_err(late)?;
        let router = Arc::new(router.map_err(|failure| failure.into_error(false))?);
        let shared = Shared {
            _follower: AbortOnDropHandle::new(tokio::spawn(router.clone().follow())),
            router,
            http: Http { client, dots: DotClient::new(CONNECT_TIMEOUT) },
            timeout: self.timeout,
            retries: self.retries,
            trace_context: self.trace_context,
        };
        Ok(Cache(Connection { shared: Arc::new(shared), bucket }))
    }
}

/// A connection to a cluster, in one bucket. Clones share it; the last one that is dropped ends its background task.
#[derive(Clone, Debug)]
pub struct Cache(Connection);

impl Cache {
    /// Connects with the defaults; `urls` is a master's URL, or several, separated by commas.
    ///
    /// # Errors
    /// As [`Builder::connect`].
    pub async fn connect(urls: &str) -> Result<Self, Error> {
        Self::builder().url(urls).connect().await
    }

    /// For everything that is not to be the default.
    pub fn builder() -> Builder {
        Builder {
            urls: Vec::new(),
            bucket: Ok(Bucket::default()),
            timeout: DEFAULT_TIMEOUT,
            retries: u32::MAX,
            trace_context: || None,
        }
    }

    /// The same connection in another bucket.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it does not fit the grammar.
    pub fn bucket(&self, bucket: &str) -> Result<Self, Error> {
        Ok(Self(Connection { shared: self.0.shared.clone(), bucket: Bucket::parse(bucket)? }))
    }

    /// Reads a key; options follow, and `.await` sends it, and gives `None` when the key is not there.
    pub fn get<'a>(&'a self, key: &'a str) -> Get<'a> {
        Get::new(&self.0, key)
    }

    /// Stores a value; options follow, and `.await` sends it.
    pub fn put<'a>(&'a self, key: &'a str, value: impl Into<Bytes>) -> Put<'a> {
        Put::new(&self.0, key, value.into())
    }

    /// Removes a key; options follow, and `.await` sends it.
    pub fn delete<'a>(&'a self, key: &'a str) -> Delete<'a> {
        Delete::new(&self.0, key)
    }

    /// Adds to a counter, a key whose value is an integer as decimal text; options follow, and `.await` sends it. A key
    /// that is not there counts as 0, and of additions at the same time none is lost.
    ///
    /// ```no_run
    /// # async fn run(cache: cairn_client::Cache) -> Result<(), cairn_client::Error> {
    /// let visits = cache.increment("visits", 1).await?;
    /// println!("visit {}", visits.value);
    /// # Ok(()) }
    /// ```
    pub fn increment<'a>(&'a self, key: &'a str, delta: i64) -> Increment<'a> {
        Increment::new(&self.0, key, delta)
    }

    /// Executes many operations, and gives a result for each, in their order. Each server gets its part in one request,
    /// all at the same time; those on the same key are done in the order of the batch. It is no transaction: an operation
    /// that fails changes nothing for the others. Any number may be given; values of more than 1 MiB are refused.
    ///
    /// ```no_run
    /// use cairn_client::{BatchOperation, BatchReply};
    ///
    /// # async fn run(cache: cairn_client::Cache) -> Result<(), cairn_client::Error> {
    /// let operations = [
    ///     BatchOperation::put("user:42", "Ada"),
    ///     BatchOperation::increment("visits", 1),
    ///     BatchOperation::get("user:43"),
    /// ];
    /// for result in cache.batch(operations).await {
    ///     match result? {
    ///         BatchReply::Found(value) => println!("{value:?}"),
    ///         BatchReply::Counted(counted) => println!("{}", counted.value),
    ///         BatchReply::Stored(_) | BatchReply::Deleted(_) => {}
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn batch(&self, operations: impl IntoIterator<Item = BatchOperation>) -> Vec<Result<BatchReply, Error>> {
        execute(&self.0, operations.into_iter().collect()).await
    }

    /// Where a key is and why: everything that is known of it but its value.
    ///
    /// # Errors
    /// When no server that could know answers.
    pub async fn explain(&self, key: &str) -> Result<Explanation, Error> {
        let operation = self.0.operation(key, Condition::None, Action::Explain)?;
        let reply = self.0.execute(&operation).await?;
        reply.json().map_err(|failure| failure.into_error(false))
    }

    /// The bucket's keys in the order of their bytes.
    pub fn list(&self) -> List<'_> {
        List::new(&self.0)
    }

    /// What becomes visible of the bucket's keys from now on: puts, removals, expiry and eviction, by whomever.
    ///
    /// ```no_run
    /// use futures_util::StreamExt as _;
    ///
    /// # async fn run(cache: cairn_client::Cache) -> Result<(), cairn_client::Error> {
    /// let mut events = cache.events().prefix("user:").open().await?;
    /// while let Some(event) = events.next().await {
    ///     match event? {
    ///         cairn_client::Event::Changed { kind, key, .. } => println!("{kind:?} {key}"),
    ///         cairn_client::Event::Gap => println!("events are missing"),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn events(&self) -> Events {
        Events::new(&self.0)
    }

    /// Every registered node.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        Ok(self.0.ask(|master| async move { master.list_nodes().await }).await?.nodes)
    }

    /// The partition map, as the master has it now.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn ring(&self) -> Result<Ring, Error> {
        self.0.ask(|master| async move { master.get_ring(None, None).await }).await
    }

    /// What is moving between nodes, how fast, and how long that will take.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn rebalance(&self) -> Result<Rebalance, Error> {
        self.0.ask(|master| async move { master.get_rebalance().await }).await
    }

    /// Pauses, resumes or limits moves; what is absent stays as it is.
    ///
    /// # Errors
    /// When no master answers, or a number is out of its bounds.
    pub async fn change_rebalance(&self, change: ChangeRebalance) -> Result<Rebalance, Error> {
        self.0.ask(|master| async move { master.change_rebalance(&change).await }).await
    }

    /// Statistics of the whole cluster.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn stats(&self) -> Result<Stats, Error> {
        self.0.ask(|master| async move { master.get_stats().await }).await
    }
}
