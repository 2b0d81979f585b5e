//! The smart client: how it is set up, and what can be asked of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_api_spec::{
    ApiError, Bucket, EntryName, ErrorCode, Operation, TraceContext, Version,
    cluster::{ChangeRebalance, Node, Rebalance, Ring, Stats},
    error::Problem,
    operation::Action,
    version::Condition,
};
use progenitor_client::ResponseValue;
use reqwest::header;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    call::{self, Http, Reply},
    dots::DotClient,
    error::Error,
    generated::master,
    request::{Delete, Get, List, Put},
    retry::{Pauses, patience},
    router::Router,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Shorter than the servers' 75 s, so that the client is the one that closes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Above every deadline that is set here; no request is without one.
const LONGEST_REQUEST: Duration = Duration::from_secs(300);
/// Longer than a failover takes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// A value, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The value.
    pub bytes: Bytes,
    /// As it was put, `application/octet-stream` when it was put without one.
    pub content_type: String,
    /// The version, which [`Put::if_match`] compares.
    pub version: Version,
    /// When it expires, to the second; `None` when it does not.
    pub expires: Option<std::time::SystemTime>,
    /// `Cache-Status` (RFC 9211): the node that had it, and the tier.
    pub cache_status: String,
}

impl Value {
    pub(crate) fn from_reply(reply: Reply) -> Self {
        let text = |name| reply.text(&name).unwrap_or_default().to_owned();
        Self {
            content_type: text(header::CONTENT_TYPE),
            version: reply.version(),
            expires: reply.text(&header::EXPIRES).and_then(|date| httpdate::parse_http_date(date).ok()),
            cache_status: text(header::HeaderName::from_static("cache-status")),
            bytes: reply.body,
        }
    }
}

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
        Ok(Cache { shared: Arc::new(shared), bucket })
    }
}

/// A connection to a cluster, in one bucket. Clones share it; the last one that is dropped ends its background task.
#[derive(Clone, Debug)]
pub struct Cache {
    shared: Arc<Shared>,
    bucket: Bucket,
}

#[derive(Debug)]
pub(crate) struct Shared {
    _follower: AbortOnDropHandle<()>,
    pub(crate) router: Arc<Router>,
    pub(crate) http: Http,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
    trace_context: fn() -> Option<String>,
}

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
        Ok(Self { shared: self.shared.clone(), bucket: Bucket::parse(bucket)? })
    }

    /// Reads a key; options follow, and `.await` sends it, and gives `None` when the key is not there.
    pub fn get<'a>(&'a self, key: &'a str) -> Get<'a> {
        Get::new(self, key)
    }

    /// Stores a value; options follow, and `.await` sends it.
    pub fn put<'a>(&'a self, key: &'a str, value: impl Into<Bytes>) -> Put<'a> {
        Put::new(self, key, value.into())
    }

    /// Removes a key; options follow, and `.await` sends it.
    pub fn delete<'a>(&'a self, key: &'a str) -> Delete<'a> {
        Delete::new(self, key)
    }

    /// The bucket's keys in the order of their bytes.
    pub fn list(&self) -> List<'_> {
        List::new(self)
    }

    /// Every registered node.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        Ok(self.ask(|master| async move { master.list_nodes().await }).await?.nodes)
    }

    /// The partition map, as the master has it now.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn ring(&self) -> Result<Ring, Error> {
        self.ask(|master| async move { master.get_ring(None, None).await }).await
    }

    /// What is moving between nodes, how fast, and how long that will take.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn rebalance(&self) -> Result<Rebalance, Error> {
        self.ask(|master| async move { master.get_rebalance().await }).await
    }

    /// Pauses, resumes or limits moves; what is absent stays as it is.
    ///
    /// # Errors
    /// When no master answers, or a number is out of its bounds.
    pub async fn change_rebalance(&self, change: ChangeRebalance) -> Result<Rebalance, Error> {
        self.ask(|master| async move { master.change_rebalance(&change).await }).await
    }

    /// Statistics of the whole cluster.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn stats(&self) -> Result<Stats, Error> {
        self.ask(|master| async move { master.get_stats().await }).await
    }

    pub(crate) fn bucket_name(&self) -> &str {
        self.bucket.as_str()
    }

    /// Asks a master something that may as well be asked twice.
    pub(crate) async fn ask<T, F>(&self, question: impl Fn(master::Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<ResponseValue<T>, progenitor_client::Error<Problem>>>,
    {
        let Shared { router, timeout, retries, .. } = &*self.shared;
        let deadline = Instant::now() + *timeout;
        let mut pauses = Pauses::default();
        let mut left = *retries;
        loop {
            let failure = match router.ask(patience(deadline), &question).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let pause = pauses.after(&failure);
            if left == 0 || !failure.may_pass() || Instant::now() + pause >= deadline {
                return Err(failure.into_error(false));
            }
            left -= 1;
            sleep(pause).await;
        }
    }

    /// An operation on a key of this bucket.
    pub(crate) fn operation(&self, key: &str, condition: Condition, action: Action) -> Result<Operation, Error> {
        let name = EntryName::new(&self.bucket, key)?;
        if let Action::Put(put) = &action {
            call::content_type(put)?;
        }
        let trace = (self.shared.trace_context)().and_then(|header| TraceContext::parse(&header));
        Ok(Operation { trace, ..Operation::new(name, condition, action) })
    }

    pub(crate) async fn execute(&self, operation: &Operation) -> Result<Reply, Error> {
        self.shared.execute(operation).await
    }
}
