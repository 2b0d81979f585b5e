//! A domain that is one map: conditions and versions as a node has them, without tiers or replicas.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use cairn_api_spec::{
    ApiError, EntryName, ErrorCode, Operation, Outcome, TraceContext, Version,
    batch::AnswerRoom,
    data::{Explanation, KeyState},
    events::Position,
    operation::{Action, ListQuery, ListedName, Metadata, Put, Tier},
    version::Condition,
};
use cairn_operations::{
    DataApi, DataMetrics, Feed, Reply, ValueStream,
    feed::Subscriber,
    metrics::{Details, End, Kind},
};
use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::{mpsc, watch};

pub(crate) const MAX_VALUE_BYTES: usize = 1 << 20;
pub(crate) const BUFFER_BYTES: usize = 64 << 10;
/// Longer values leave as a stream.
const WHOLE_BYTES: usize = 256 << 10;

#[derive(Clone)]
struct Entry {
    value: Bytes,
    metadata: Metadata,
}

/// What the domain has seen of its callers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The puts that came by `execute`.
    pub(crate) whole: usize,
    /// The puts that came by `put_stream` and were complete.
    pub(crate) streamed: usize,
    /// The streams that ended in an error.
    pub(crate) aborted: usize,
    /// The last put, without its value.
    pub(crate) last_put: Option<(Option<std::time::Duration>, Option<cairn_api_spec::operation::Durability>)>,
    /// The last operation's.
    pub(crate) idempotency_key: Option<String>,
    /// The operations that came in batches.
    pub(crate) batched: usize,
    /// The idempotency key of each of them.
    pub(crate) batch_keys: Vec<Option<String>>,
    /// Those who have subscribed.
    pub(crate) subscribed: usize,
    /// The last operation's, too.
    pub(crate) trace: Option<TraceContext>,
}

#[derive(Clone)]
pub(crate) struct Memory {
    state: Arc<Mutex<State>>,
    metrics: DataMetrics,
    pub(crate) seen: watch::Sender<Seen>,
    pub(crate) feed: Feed,
}

#[derive(Default)]
struct State {
    live: BTreeMap<Bytes, Entry>,
    deleted: BTreeMap<Bytes, Version>,
    last: Version,
}

impl Memory {
    pub(crate) fn new(metrics: DataMetrics) -> Self {
        Self { state: Arc::default(), metrics, seen: watch::Sender::default(), feed: Feed::new(7) }
    }

    fn apply(&self, operation: Operation) -> Outcome {
        let mut state = self.state.lock().unwrap();
        let tier = if operation.is_eventual() { Tier::Replica } else { Tier::Memory };
        self.seen.send_modify(|seen| {
            seen.idempotency_key = operation.idempotency_key.map(|key| key.to_string());
            seen.trace = operation.trace;
        });
        let name = operation.name.as_bytes().clone();
        let live = state.live.get(&name).cloned();
        let version = live.as_ref().map(|entry| entry.metadata.version);
        if !operation.condition.holds(version) {
            return match (live, operation.action, operation.condition) {
                (Some(entry), Action::Get | Action::Head, Condition::Differs(_) | Condition::Absent) => {
                    Outcome::NotModified(entry.metadata, tier)
                }
                _ => Outcome::ConditionFailed(version.or(state.deleted.get(&name).copied()).unwrap_or_default()),
            };
        }
        match (operation.action, live) {
            (Action::Put(put), live) => {
                self.seen.send_modify(|seen| seen.last_put = Some((put.ttl, put.durability)));
                let metadata = state.store(name, put);
                Outcome::Stored { created: live.is_none(), metadata }
            }
            (Action::Increment { delta, ttl, durability }, live) => {
                self.seen.send_modify(|seen| seen.last_put = Some((ttl, durability)));
                let before =
                    live.as_ref().map_or(0, |entry| std::str::from_utf8(&entry.value).unwrap().parse().unwrap());
                let value: i64 = before + delta;
                let text = value.to_string().into();
                let put = Put { value: text, content_type: "text/plain".to_owned(), ttl, durability };
                let metadata = state.store(name, put);
                Outcome::Counted { value, created: live.is_none(), metadata }
            }
            (Action::Explain, live) => Outcome::Explained(Box::new(explanation(&operation.name, live))),
            (_, None) => Outcome::Missing(state.deleted.get(&name).copied().unwrap_or_default()),
            (Action::Get, Some(Entry { value, metadata })) => {
                let value = (value.len() <= WHOLE_BYTES).then_some(value);
                Outcome::Found { metadata, tier, value }
            }
            (Action::Head, Some(Entry { metadata, .. })) => {
                Outcome::Found { metadata, tier: Tier::Disk, value: Some(Bytes::new()) }
            }
            (Action::Delete { .. }, Some(_)) => {
                state.last = state.last.next(1).unwrap();
                let version = state.last;
                state.live.remove(&name);
                state.deleted.insert(name, version);
                Outcome::Deleted(version)
            }
        }
    }

    fn reply(&self, operation: Operation) -> Reply {
        let (name, kind, began) = (operation.name.as_bytes().clone(), Kind::of(&operation.action), Instant::now());
        let outcome = self.apply(operation);
        self.metrics.observe(kind, began, End::of(Some(&outcome)), Details::default);
        let stream = match &outcome {
            Outcome::Found { value: None, .. } => {
                let value = self.state.lock().unwrap().live[&name].value.clone();
                let (sender, pieces) = mpsc::channel(2);
                let length = Some(value.len() as u64);
                tokio::spawn(async move {
                    for piece in value.chunks(10_000) {
                        if sender.send(Ok(value.slice_ref(piece))).await.is_err() {
                            break;
                        }
                    }
                });
                Some(ValueStream { length, pieces })
            }
            _ => None,
        };
        Reply { node: "node-1".into(), outcome, stream }
    }
}

impl State {
    fn store(&mut self, name: Bytes, put: Put) -> Metadata {
        self.last = self.last.next(1).unwrap();
        let metadata = metadata_of(&put, self.last);
        self.live.insert(name, Entry { value: put.value, metadata: metadata.clone() });
        metadata
    }
}

fn explanation(name: &EntryName, live: Option<Entry>) -> Explanation {
    let metadata = live.map(|entry| entry.metadata);
    Explanation {
        bucket: name.bucket().to_owned(),
        key: name.key().to_owned(),
        partition: 0,
        epoch: 1,
        primary: "node-1".to_owned(),
        in_sync: vec!["node-1".to_owned()],
        learners: Vec::new(),
        node: "node-1".to_owned(),
        state: if metadata.is_some() { KeyState::Live } else { KeyState::NeverWritten },
        detail: String::new(),
        version: metadata.as_ref().map_or(Version::NONE, |metadata| metadata.version),
        size: metadata.as_ref().map(|metadata| metadata.size),
        content_type: None,
        modified_at: None,
        expires_at: None,
        ttl: None,
        tier: metadata.map(|_| Tier::Memory),
        uploaded: None,
        object_version: None,
        write_pending: false,
        asked: None,
    }
}

fn metadata_of(put: &Put, version: Version) -> Metadata {
    let modified_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
    Metadata {
        version,
        modified_at,
        expires_at: put.ttl.map(|ttl| modified_at + u64::try_from(ttl.as_millis()).unwrap()),
        size: put.value.len() as u64,
        content_type: put.content_type.clone(),
    }
}

async fn collect(mut stream: ValueStream) -> io::Result<Bytes> {
    let mut value = BytesMut::new();
    while let Some(piece) = stream.pieces.recv().await {
        value.extend_from_slice(&piece?);
    }
    match stream.length {
        Some(length) if length != value.len() as u64 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(value.freeze()),
    }
}

impl DataApi for Memory {
    fn execute(&self, operation: Operation) -> BoxFuture<'_, Result<Reply, ApiError>> {
        async move {
            if let Action::Put(put) = &operation.action {
                assert!(put.value.len() <= BUFFER_BYTES, "longer values come as a stream");
                self.seen.send_modify(|seen| seen.whole += 1);
            }
            Ok(self.reply(operation))
        }
        .boxed()
    }

    fn batch(&self, operations: Vec<Operation>) -> BoxFuture<'_, Vec<Result<Outcome, ApiError>>> {
        async move {
            self.seen.send_modify(|seen| seen.batched += operations.len());
            let mut room = AnswerRoom::default();
            operations
                .into_iter()
                .map(|operation| {
                    let outcome = self.reply(operation.clone()).outcome;
                    self.seen.send_modify(|seen| seen.batch_keys.push(seen.idempotency_key.clone()));
                    room.admit(outcome)
                })
                .collect()
        }
        .boxed()
    }

    fn put_stream(&self, mut operation: Operation, value: ValueStream) -> BoxFuture<'_, Result<Reply, ApiError>> {
        async move {
            if operation.condition == Condition::Exists {
                // Decided before the value has come.
                return Ok(Reply {
                    node: "node-1".into(),
                    outcome: Outcome::ConditionFailed(Version::NONE),
                    stream: None,
                });
            }
            let domain = self.clone();
            // As behind an HTTP client: what reads the stream does not end with the request.
            let put = tokio::spawn(async move {
                let value = collect(value).await;
                domain.seen.send_modify(|seen| if value.is_ok() { seen.streamed += 1 } else { seen.aborted += 1 });
                let value = value.map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
                let Action::Put(put) = &mut operation.action else { panic!("only puts are streamed") };
                assert!(put.value.is_empty() && value.len() > BUFFER_BYTES);
                put.value = value;
                Ok(domain.reply(operation))
            });
            put.await.unwrap()
        }
        .boxed()
    }

    fn list(&self, query: ListQuery, _: Option<TraceContext>) -> BoxFuture<'_, Result<Vec<ListedName>, ApiError>> {
        async move {
            self.metrics.observe(Kind::List, Instant::now(), End::Hit, Details::default);
            let state = self.state.lock().unwrap();
            let names =
                state.live.range(query.start..).take_while(|(name, _)| query.end.is_empty() || *name < &query.end);
            let listed = names.take(query.limit).map(|(name, entry)| ListedName {
                name: cairn_api_spec::EntryName::from_bytes(name.clone()).unwrap(),
                metadata: entry.metadata.clone(),
            });
            Ok(listed.collect())
        }
        .boxed()
    }

    fn subscribe(&self, after: Option<Position>) -> BoxFuture<'_, Result<Subscriber, ApiError>> {
        async move {
            let subscriber = self.feed.subscribe(after);
            self.seen.send_modify(|seen| seen.subscribed += 1);
            subscriber
        }
        .boxed()
    }

    fn max_value_bytes(&self) -> usize {
        MAX_VALUE_BYTES
    }

    fn buffer_bytes(&self) -> usize {
        BUFFER_BYTES
    }
}
