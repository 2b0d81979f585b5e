//! The smart client: where a request goes, and when it is sent again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_api_spec::{
    ApiError, Bucket, EntryName, ErrorCode, Operation, Version,
    cluster::{Node, Ring, Stats},
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
    error::{Error, Failure},
    generated::master,
    request::{Delete, List, Put},
    router::Router,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Shorter than the servers' 75 s, so that the client is the one that closes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Above every deadline that is set here; no request is without one.
const LONGEST_REQUEST: Duration = Duration::from_secs(300);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_RETRIES: u32 = 4;
/// The pause before the first repetition; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

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
    fn from_reply(reply: Reply) -> Self {
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

    /// How long one call may take with all its repetitions, at most five minutes; 10 s when none is set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(LONGEST_REQUEST);
        self
    }

    /// How often a call is repeated where that is safe; 4 when none is set. The crate's documentation says where.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
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
struct Shared {
    _follower: AbortOnDropHandle<()>,
    router: Arc<Router>,
    http: Http,
    timeout: Duration,
    retries: u32,
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
        Builder { urls: Vec::new(), bucket: Ok(Bucket::default()), timeout: DEFAULT_TIMEOUT, retries: DEFAULT_RETRIES }
    }

    /// The same connection in another bucket.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it does not fit the grammar.
    pub fn bucket(&self, bucket: &str) -> Result<Self, Error> {
        Ok(Self { shared: self.shared.clone(), bucket: Bucket::parse(bucket)? })
    }

    /// Reads a key; `None` when it is not there.
    ///
    /// # Errors
    /// [`Error`], but never `key_not_found`.
    pub async fn get(&self, key: &str) -> Result<Option<Value>, Error> {
        match self.execute(key, Condition::None, Action::Get).await {
            Ok(reply) => Ok(Some(Value::from_reply(reply))),
            Err(error) if error.code() == Some(ErrorCode::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
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

    /// Asks a master something that changes nothing.
    pub(crate) async fn ask<T, F>(&self, question: impl Fn(master::Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<ResponseValue<T>, progenitor_client::Error<Problem>>>,
    {
        let Shared { router, timeout, retries, .. } = &*self.shared;
        let deadline = Instant::now() + *timeout;
        let mut pauses = Pauses::default();
        for left in (0..=*retries).rev() {
            let share = if left > 0 { 2 } else { 1 };
            let failure = match router.ask(deadline.saturating_duration_since(Instant::now()) / share, &question).await
            {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let pause = pauses.after(&failure);
            if left == 0 || !failure.may_pass() || Instant::now() + pause >= deadline {
                return Err(failure.into_error(false));
            }
            sleep(pause).await;
        }
        Err(Error::Unreachable("no master answered in time".to_owned()))
    }

    pub(crate) async fn execute(&self, key: &str, condition: Condition, action: Action) -> Result<Reply, Error> {
        let name = EntryName::new(&self.bucket, key)?;
        if let Action::Put(put) = &action {
            call::content_type(put)?;
        }
        self.shared.execute(&Operation { name, condition, action }).await
    }
}

impl Shared {
    async fn execute(&self, operation: &Operation) -> Result<Reply, Error> {
        let is_write = operation.action.is_write();
        let is_repeatable = !is_write || matches!(operation.condition, Condition::Matches(_));
        let deadline = Instant::now() + self.timeout;
        let mut pauses = Pauses::default();
        let mut route = Route::Owner;
        // Why an earlier attempt of this write may have happened.
        let mut doubt = None;
        let mut left = self.retries;
        loop {
            let map = self.router.map();
            let owner = map.owner(&operation.name).filter(|_| route != Route::Master);
            let target = owner.unwrap_or_else(|| self.router.master());
            let share = if is_repeatable && left > 0 { 2 } else { 1 };
            let patience = deadline.saturating_duration_since(Instant::now()) / share;
            let failure = match timeout(patience, call::send(&self.http, target, operation)).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Broken(format!("{target} did not answer within {patience:?}")),
            };
            let pause = if owner.is_some() && is_lost(&failure) { Duration::ZERO } else { pauses.after(&failure) };
            let is_safe = is_repeatable || failure.had_no_effect();
            if left == 0 || !is_safe || !failure.may_pass() || Instant::now() + pause >= deadline {
                return Err(last_word(failure, is_write, doubt));
            }
            left -= 1;
            if is_write && !failure.had_no_effect() {
                doubt.get_or_insert_with(|| failure.to_string());
            }
            route = self.reroute(route, target, owner.is_some(), &failure);
            if failure.code() == Some(ErrorCode::NotOwner) && route == Route::NewOwner {
                self.router.refresh(&map).await;
            }
            sleep(pause).await;
        }
    }

    /// The way that the next attempt takes.
    fn reroute(&self, route: Route, target: &str, was_owner: bool, failure: &Failure) -> Route {
        match (failure.code(), route) {
            (Some(ErrorCode::NotOwner), Route::Owner) => Route::NewOwner,
            (Some(ErrorCode::RateLimited), route) => route,
            _ => {
                if !was_owner && is_lost(failure) {
                    self.router.leave_master(target);
                }
                Route::Master
            }
        }
    }
}

/// Who is asked: the owner by the map, the owner by a map fetched after `not_owner`, or a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Owner,
    NewOwner,
    Master,
}

/// The server itself is the trouble, so that another one can be asked at once.
fn is_lost(failure: &Failure) -> bool {
    matches!(failure, Failure::Unsent(_) | Failure::Broken(_)) || failure.code() == Some(ErrorCode::NotOwner)
}

/// A repeated write that meets its own first attempt's effect cannot tell it from another's.
fn last_word(failure: Failure, is_write: bool, doubt: Option<String>) -> Error {
    match doubt {
        Some(doubt) => Error::OutcomeUnknown(doubt),
        None => failure.into_error(is_write),
    }
}

/// The pauses between attempts: doubled each time, with jitter, or what the server asks for.
#[derive(Default)]
struct Pauses(u32);

impl Pauses {
    fn after(&mut self, failure: &Failure) -> Duration {
        if let Failure::Refused { problem, .. } = failure
            && problem.code == ErrorCode::RateLimited
            && let Some(seconds) = problem.retry_after
        {
            return Duration::from_secs(seconds.into());
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.0.min(10)).min(LONGEST_PAUSE);
        self.0 += 1;
        pause.mul_f64(rand::random_range(0.5..1.0))
    }
}
