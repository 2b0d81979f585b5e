//! The requests that have options. Nothing is sent before they are awaited.

use std::{num::NonZeroU32, pin::Pin, time::Duration};

use bytes::Bytes;
use cairn_api_spec::{
    ApiError, ErrorCode, Operation, Version,
    data::{self, EntryMetadata, KeyList},
    operation::{self, Action, Consistency, Durability, IdempotencyKey},
    version::Condition,
};
use futures_util::{Stream, TryStreamExt as _, stream};
use reqwest::{StatusCode, header};

use crate::{call::Reply, connection::Connection, error::Error};

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

/// A read; `.await` sends it, and gives `None` when the key is not there.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Get<'a> {
    connection: &'a Connection,
    key: &'a str,
    consistency: Consistency,
}

impl<'a> Get<'a> {
    pub(crate) fn new(connection: &'a Connection, key: &'a str) -> Self {
        Self { connection, key, consistency: Consistency::Strong }
    }

    /// Any in-sync replica may answer, so the value may be stale. The reads of a hot key are spread over all of them,
    /// and go on while its primary is being replaced.
    pub fn eventual(mut self) -> Self {
        self.consistency = Consistency::Eventual;
        self
    }
}

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The value's version.
    pub version: Version,
    /// Whether the key was not there before.
    pub created: bool,
}

/// A put; `.await` sends it.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Put<'a> {
    connection: &'a Connection,
    key: &'a str,
    condition: Condition,
    idempotency_key: Option<String>,
    put: operation::Put,
}

impl<'a> Put<'a> {
    pub(crate) fn new(connection: &'a Connection, key: &'a str, value: Bytes) -> Self {
        let put = operation::Put { value, content_type: String::new(), ttl: None, durability: None };
        Self { connection, key, condition: Condition::None, idempotency_key: None, put }
    }

    /// How long the key lives, from 1 ms to ten years; without it, as the node is set (for ever, unless told).
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.put.ttl = Some(ttl);
        self
    }

    /// The media type that readers get.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.put.content_type = content_type.into();
        self
    }

    /// What must have happened before the answer; `disk` without it.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.put.durability = Some(durability);
        self
    }
}

/// A delete; `.await` sends it, and gives the version that the deletion has, or `None` when there was nothing.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Delete<'a> {
    connection: &'a Connection,
    key: &'a str,
    condition: Condition,
    idempotency_key: Option<String>,
    durability: Option<Durability>,
}

impl<'a> Delete<'a> {
    pub(crate) fn new(connection: &'a Connection, key: &'a str) -> Self {
        Self { connection, key, condition: Condition::None, idempotency_key: None, durability: None }
    }

    /// What must have happened before the answer; `disk` without it.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}

/// A counter after an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The sum.
    pub value: i64,
    /// The key's new version.
    pub version: Version,
}

/// An addition to a counter; `.await` sends it.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Increment<'a> {
    connection: &'a Connection,
    key: &'a str,
    condition: Condition,
    idempotency_key: Option<String>,
    delta: i64,
    ttl: Option<Duration>,
    durability: Option<Durability>,
}

impl<'a> Increment<'a> {
    pub(crate) fn new(connection: &'a Connection, key: &'a str, delta: i64) -> Self {
        Self { connection, key, condition: Condition::None, idempotency_key: None, delta, ttl: None, durability: None }
    }

    /// How long a counter lives that is created by this; one that is there keeps its expiry.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// What must have happened before the answer; `disk` without it.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}

macro_rules! writes {
    ($request:ident) => {
        impl $request<'_> {
            /// The name of this write, 1 to 255 visible ASCII characters: within ten minutes the servers do it once,
            /// however often it is sent, also by another process. Without it, every call has a random one of its own.
            pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
                self.idempotency_key = Some(key.into());
                self
            }

            /// Only under this condition; the methods below say each by its name.
            pub fn condition(mut self, condition: Condition) -> Self {
                self.condition = condition;
                self
            }

            /// Only when the key has this version (`If-Match: "version"`).
            pub fn if_match(mut self, version: Version) -> Self {
                self.condition = Condition::Matches(version);
                self
            }

            /// Only when the key is there (`If-Match: *`).
            pub fn if_present(mut self) -> Self {
                self.condition = Condition::Exists;
                self
            }

            /// Only when the key is not there (`If-None-Match: *`); with a TTL, this is a lock.
            pub fn if_absent(mut self) -> Self {
                self.condition = Condition::Absent;
                self
            }

            /// Only when the key does not have this version (`If-None-Match: "version"`).
            pub fn if_none_match(mut self, version: Version) -> Self {
                self.condition = Condition::Differs(version);
                self
            }
        }
    };
}

writes!(Put);
writes!(Delete);
writes!(Increment);

type Sending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A write that may be sent again.
fn repeatable(operation: Operation, key: Option<String>) -> Result<Operation, ApiError> {
    let key = key.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    Ok(Operation { idempotency_key: Some(IdempotencyKey::parse(&key)?), ..operation })
}

impl<'a> IntoFuture for Get<'a> {
    type Output = Result<Option<Value>, Error>;
    type IntoFuture = Sending<'a, Option<Value>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut operation = self.connection.operation(self.key, Condition::None, Action::Get)?;
            operation.consistency = self.consistency;
            match self.connection.execute(&operation).await {
                Ok(reply) => Ok(Some(Value::from_reply(reply))),
                Err(error) if error.code() == Some(ErrorCode::KeyNotFound) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }
}

impl<'a> IntoFuture for Put<'a> {
    type Output = Result<Stored, Error>;
    type IntoFuture = Sending<'a, Stored>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let operation = self.connection.operation(self.key, self.condition, Action::Put(self.put))?;
            let reply = self.connection.execute(&repeatable(operation, self.idempotency_key)?).await?;
            Ok(Stored { version: reply.version(), created: reply.status == StatusCode::CREATED })
        })
    }
}

impl<'a> IntoFuture for Delete<'a> {
    type Output = Result<Option<Version>, Error>;
    type IntoFuture = Sending<'a, Option<Version>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let action = Action::Delete { durability: self.durability };
            let operation = self.connection.operation(self.key, self.condition, action)?;
            match self.connection.execute(&repeatable(operation, self.idempotency_key)?).await {
                Ok(reply) => Ok(Some(reply.version())),
                Err(error) if error.code() == Some(ErrorCode::KeyNotFound) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }
}

impl<'a> IntoFuture for Increment<'a> {
    type Output = Result<Counted, Error>;
    type IntoFuture = Sending<'a, Counted>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { connection, key, condition, idempotency_key, delta, ttl, durability } = self;
            let operation = connection.operation(key, condition, Action::Increment { delta, ttl, durability })?;
            let reply = connection.execute(&repeatable(operation, idempotency_key)?).await?;
            let counter: data::Counter = reply.json().map_err(|failure| failure.into_error(true))?;
            Ok(Counted { value: counter.value, version: counter.version })
        })
    }
}

/// A listing; [`List::page`] and [`List::stream`] send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `page` or `stream`"]
pub struct List<'a> {
    connection: &'a Connection,
    prefix: Option<String>,
    limit: Option<NonZeroU32>,
    cursor: Option<String>,
}

impl<'a> List<'a> {
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self { connection, prefix: None, limit: None, cursor: None }
    }

    /// Only keys that begin with this.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into()).filter(|prefix| !prefix.is_empty());
        self
    }

    /// Keys in a page, 1 to 1,000; 100 without it.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = NonZeroU32::new(limit);
        self
    }

    /// Goes on where a page ended.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.cursor = Some(cursor.into());
        self
    }

    /// One page.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn page(&self) -> Result<KeyList, Error> {
        let Self { connection, prefix, limit, cursor } = self;
        let (prefix, cursor) = (prefix.as_deref(), cursor.as_deref());
        let bucket = Some(connection.bucket_name());
        connection.ask(|master| async move { master.list_keys(bucket, cursor, *limit, prefix).await }).await
    }

    /// Every key, fetched page by page as it is needed. What is written or removed meanwhile may or may not be seen.
    pub fn stream(self) -> impl Stream<Item = Result<EntryMetadata, Error>> + Send + 'a {
        let pages = stream::try_unfold(Some(self), |list| async move {
            let Some(list) = list else { return Ok(None) };
            let page = list.page().await?;
            let next = page.next_cursor.map(|cursor| list.cursor(cursor));
            Ok::<_, Error>(Some((stream::iter(page.keys.into_iter().map(Ok)), next)))
        });
        pages.try_flatten()
    }
}
