//! Many operations at once: one request to each owner, all at the same time, and again for what is left.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cairn_api_spec::{
    ApiError, EntryName, ErrorCode, MAX_FRAMED_VALUE_BYTES, Operation, Version,
    batch::{self, Batch, BatchAction, BatchProblem, BatchResult, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS},
    data::TtlField,
    error::Problem,
    operation::{Action, Durability, IdempotencyKey, Put},
    ttl,
    version::Condition,
};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    call,
    connection::{Connection, Shared},
    error::{Error, Failure},
    request::{Counted, Stored, Value},
    retry::{Doubt, Pauses, asked_for, patience},
};

/// What an operation takes in a request beside its key and value: field names, numbers, an idempotency key.
const ENVELOPE_BYTES: usize = 512;

/// One operation of a batch, which [`Cache::batch`](crate::Cache::batch) sends.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before it stands in a batch"]
pub struct BatchOperation {
    key: String,
    condition: Condition,
    action: Action,
}

impl BatchOperation {
    fn new(key: impl Into<String>, action: Action) -> Self {
        Self { key: key.into(), condition: Condition::None, action }
    }

    /// Reads a key.
    pub fn get(key: impl Into<String>) -> Self {
        Self::new(key, Action::Get)
    }

    /// Stores a value of at most 1 MiB.
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        let put = Put { value: value.into(), content_type: String::new(), ttl: None, durability: None };
        Self::new(key, Action::Put(put))
    }

    /// Removes a key.
    pub fn delete(key: impl Into<String>) -> Self {
        Self::new(key, Action::Delete { durability: None })
    }

    /// Adds to a counter.
    pub fn increment(key: impl Into<String>, delta: i64) -> Self {
        Self::new(key, Action::Increment { delta, ttl: None, durability: None })
    }

    /// How long a value that is put lives, or a counter that is created; for others it means nothing.
    pub fn ttl(mut self, lifetime: Duration) -> Self {
        if let Action::Put(Put { ttl, .. }) | Action::Increment { ttl, .. } = &mut self.action {
            *ttl = Some(lifetime);
        }
        self
    }

    /// The media type that readers of a value that is put get; for others it means nothing.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        if let Action::Put(put) = &mut self.action {
            put.content_type = content_type.into();
        }
        self
    }

    /// What must have happened before a write is answered, `disk` without it; for a read it means nothing.
    pub fn durability(mut self, level: Durability) -> Self {
        match &mut self.action {
            Action::Put(put) => put.durability = Some(level),
            Action::Delete { durability } | Action::Increment { durability, .. } => *durability = Some(level),
            Action::Get | Action::Head | Action::Explain => {}
        }
        self
    }

    /// A write only under this condition; a read under one is refused.
    pub fn condition(mut self, condition: Condition) -> Self {
        self.condition = condition;
        self
    }
}

/// What one operation of a batch came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchReply {
    /// What a read found; `None` when the key is not there. [`Value::cache_status`] is empty.
    Found(Option<Value>),
    /// A value was stored.
    Stored(Stored),
    /// The version of a removal; `None` when there was nothing.
    Deleted(Option<Version>),
    /// An addition was stored.
    Counted(Counted),
}

/// An operation on its way to a result.
struct Pending {
    index: usize,
    operation: Operation,
    doubt: Doubt,
}

impl Pending {
    /// Its error, if it is not sent again after a failure.
    fn last_word(&self, failure: Failure) -> Error {
        self.doubt.clone().last_word(failure, self.operation.action.is_write())
    }
}

/// What a server said of an operation that was sent to it.
type Answer = Option<Result<BatchReply, Failure>>;

pub(crate) async fn execute(
    connection: &Connection,
    operations: Vec<BatchOperation>,
) -> Vec<Result<BatchReply, Error>> {
    let name = rand::random::<u128>();
    let mut pending = Vec::with_capacity(operations.len());
    let mut results = Vec::with_capacity(operations.len());
    for (index, operation) in operations.into_iter().enumerate() {
        match prepare(connection, operation, name, index) {
            Ok(operation) => {
                pending.push(Pending { index, operation, doubt: Doubt::default() });
                results.push(Err(Error::Unreachable("the time was over before it was sent".to_owned())));
            }
            Err(error) => results.push(Err(error)),
        }
    }
    run(&connection.shared, pending, &mut results).await;
    results
}

fn prepare(connection: &Connection, operation: BatchOperation, name: u128, index: usize) -> Result<Operation, Error> {
    let BatchOperation { key, condition, action } = operation;
    let refuse = |code, detail: String| Err(ApiError::new(code, detail).into());
    match &action {
        Action::Put(put) if put.value.len() > MAX_FRAMED_VALUE_BYTES => {
            let detail =
                format!("a value in a batch has at most {MAX_FRAMED_VALUE_BYTES} bytes: put this one by itself");
            return refuse(ErrorCode::ValueTooLarge, detail);
        }
        Action::Get if condition != Condition::None => {
            return refuse(ErrorCode::InvalidParameter, "a read in a batch has no condition".to_owned());
        }
        _ => {}
    }
    let operation = connection.operation(&key, condition, action)?;
    let idempotency_key = match operation.action.is_write() {
        true => Some(IdempotencyKey::parse(&format!("{name:032x}:{index}"))?),
        false => None,
    };
    Ok(Operation { idempotency_key, ..operation })
}

/// Asks nodes and masters in turns, as long as something is left and there is time. A result always says what is known
/// so far, so at the end no operation that was ever sent counts as one that was not.
async fn run(shared: &Shared, mut pending: Vec<Pending>, results: &mut [Result<BatchReply, Error>]) {
    let deadline = Instant::now() + shared.timeout;
    let (mut to_master, mut retries, mut pauses) = (false, shared.retries, Pauses::default());
    while !pending.is_empty() {
        let map = shared.router.map();
        let mut parts: BTreeMap<String, Vec<Pending>> = BTreeMap::new();
        for operation in pending {
            let node = map.owner(&operation.operation.name).filter(|_| !to_master);
            parts.entry(node.unwrap_or_else(|| shared.router.master()).to_owned()).or_default().push(operation);
        }
        let asked = join_all(parts.into_iter().map(|(target, part)| ask(shared, target, part, deadline))).await;
        let mut answers: Vec<_> = asked.into_iter().flatten().collect();
        // They came by server; those on one key are to keep their order.
        answers.sort_unstable_by_key(|(operation, _)| operation.index);

        pending = Vec::new();
        let (mut pause, mut has_moved, usual) = (Duration::ZERO, false, pauses.next());
        // Keys of operations that are given up and may still be under way: nothing behind these is sent again.
        let mut given_up: HashSet<EntryName> = HashSet::new();
        for (mut operation, answer) in answers {
            let name = &operation.operation.name;
            match answer {
                Some(Ok(reply)) => {
                    results[operation.index] = Ok(reply);
                    continue;
                }
                Some(Err(failure)) => {
                    results[operation.index] = Err(operation.last_word(failure.clone()));
                    if !failure.may_pass() {
                        continue;
                    }
                    let wait = match !to_master && (failure.is_lost() || failure.is_elsewhere()) {
                        true => Duration::ZERO,
                        false => usual.max(asked_for(&failure)),
                    };
                    if retries == 0 || Instant::now() + wait >= deadline {
                        given_up.insert(name.clone());
                    } else if !given_up.contains(name) {
                        pause = pause.max(wait);
                        has_moved |= failure.code() == Some(ErrorCode::NotOwner);
                    }
                    operation.doubt.note(&failure);
                }
                None => {}
            }
            if !given_up.contains(&operation.operation.name) {
                pending.push(operation);
            }
        }
        if pending.is_empty() || Instant::now() + pause >= deadline {
            return;
        }
        retries = retries.saturating_sub(1);
        if has_moved {
            // Without a new map, the master is asked, which has it.
            let _ = timeout_at(deadline, shared.router.refresh(&map)).await;
        }
        to_master = !to_master;
        sleep(pause).await;
    }
}

/// Sends a server its part, in as many requests as it takes. What is not sent, since an operation before it must be sent
/// again first, has no answer.
async fn ask(shared: &Shared, target: String, part: Vec<Pending>, deadline: Instant) -> Vec<(Pending, Answer)> {
    let mut answers = Vec::with_capacity(part.len());
    let mut chunks = chunks(part).into_iter();
    for chunk in chunks.by_ref() {
        let batch = Batch { operations: chunk.iter().map(|pending| message(&pending.operation)).collect() };
        let trace = chunk.iter().find_map(|pending| pending.operation.trace);
        let patience = patience(deadline);
        let sent = timeout(patience, call::send_batch(&shared.http, &target, &batch, trace)).await;
        let late = |_| Failure::Broken(format!("{target} did not answer within {patience:?}"));
        let results = sent.map_err(late).flatten().and_then(|results| match results.len() == chunk.len() {
            true => Ok(results),
            false => Err(Failure::Strange("the answer to a batch has another number of results".to_owned())),
        });
        let mut must_end = false;
        match results {
            Ok(results) => {
                for (pending, result) in chunk.into_iter().zip(results) {
                    let reply = reply(&pending.operation.action, result);
                    must_end |= reply.as_ref().is_err_and(Failure::may_pass);
                    answers.push((pending, Some(reply)));
                }
            }
            Err(failure) => {
                if failure.is_lost() {
                    shared.router.leave_master(&target);
                    shared.router.refresh_soon();
                }
                must_end = failure.may_pass();
                answers.extend(chunk.into_iter().map(|pending| (pending, Some(Err(failure.clone())))));
            }
        }
        if must_end {
            break;
        }
    }
    answers.extend(chunks.flatten().map(|pending| (pending, None)));
    answers
}

/// Operations by requests that no server finds too large.
fn chunks(part: Vec<Pending>) -> Vec<Vec<Pending>> {
    let mut chunks: Vec<Vec<Pending>> = Vec::new();
    let mut bytes = 0;
    for pending in part {
        let needed = length(&pending.operation);
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < MAX_BATCH_OPERATIONS && bytes + needed <= MAX_BATCH_BYTES => {
                bytes += needed;
                chunk.push(pending);
            }
            _ => {
                bytes = needed;
                chunks.push(vec![pending]);
            }
        }
    }
    chunks
}

/// The most bytes that an operation takes in a request: a character is escaped with six at most, a value that would
/// need more than base64 goes as that.
fn length(operation: &Operation) -> usize {
    let value = match &operation.action {
        Action::Put(put) => put.value.len() * 2 + put.content_type.len() * 2,
        _ => 0,
    };
    ENVELOPE_BYTES + operation.name.as_bytes().len() * 6 + value
}

/// An operation as it stands in a request.
fn message(operation: &Operation) -> batch::BatchOperation {
    let action = &operation.action;
    let op = match action {
        Action::Put(_) => BatchAction::Put,
        Action::Delete { .. } => BatchAction::Delete,
        Action::Increment { .. } => BatchAction::Increment,
        Action::Get | Action::Head | Action::Explain => BatchAction::Get,
    };
    let (if_match, if_none_match) = operation.condition.headers();
    let mut message = batch::BatchOperation {
        bucket: Some(operation.name.bucket().to_owned()),
        if_match,
        if_none_match,
        durability: action.durability(),
        idempotency_key: operation.idempotency_key.as_ref().map(ToString::to_string),
        ..batch::BatchOperation::new(op, operation.name.key().to_owned())
    };
    match action {
        Action::Put(put) => {
            message.value = text(&put.value).and_then(|text| serde_json::value::to_raw_value(text).ok());
            message.value_base64 = message.value.is_none().then(|| STANDARD.encode(&put.value));
            // Said even when it is empty: text would get a type of its own.
            message.content_type = Some(put.content_type.clone());
            message.ttl = put.ttl.map(ttl::format).map(TtlField::Text);
        }
        Action::Increment { delta, ttl: lifetime, .. } => {
            message.delta = Some(*delta);
            message.ttl = lifetime.map(ttl::format).map(TtlField::Text);
        }
        Action::Get | Action::Head | Action::Delete { .. } | Action::Explain => {}
    }
    message
}

/// The value, when it is text that JSON writes in at most twice its length.
fn text(value: &[u8]) -> Option<&str> {
    let is_short = |c: char| !c.is_ascii_control() || matches!(c, '\t' | '\n' | '\r');
    std::str::from_utf8(value).ok().filter(|text| text.chars().all(is_short))
}

fn reply(action: &Action, result: BatchResult) -> Result<BatchReply, Failure> {
    let version = result.version.unwrap_or(Version::NONE);
    if let Some(BatchProblem { code, detail, retry_after }) = result.problem {
        return match action {
            Action::Get if code == ErrorCode::KeyNotFound => Ok(BatchReply::Found(None)),
            Action::Delete { .. } if code == ErrorCode::KeyNotFound => Ok(BatchReply::Deleted(None)),
            _ => {
                let error = ApiError { retry_after, ..ApiError::new(code, detail) };
                Err(Failure::Refused { problem: Box::new(Problem::new(&error, String::new())), version })
            }
        };
    }
    match action {
        Action::Put(_) => Ok(BatchReply::Stored(Stored { version, created: result.status == 201 })),
        Action::Delete { .. } => Ok(BatchReply::Deleted(Some(version))),
        Action::Increment { .. } => {
            let value = result.value.and_then(|text| text.parse().ok());
            let strange = || Failure::Strange("an addition was answered without a sum".to_owned());
            Ok(BatchReply::Counted(Counted { value: value.ok_or_else(strange)?, version }))
        }
        Action::Get | Action::Head | Action::Explain => found(result, version),
    }
}

fn found(result: BatchResult, version: Version) -> Result<BatchReply, Failure> {
    let bytes = match (result.value, result.value_base64) {
        (Some(text), _) => text.into(),
        (None, Some(text)) => {
            STANDARD.decode(text).map_err(|error| Failure::Strange(format!("value_base64: {error}")))?.into()
        }
        (None, None) => return Err(Failure::Strange("a value was answered without its bytes".to_owned())),
    };
    Ok(BatchReply::Found(Some(Value {
        bytes,
        content_type: result.content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
        version,
        expires: result.expires_at.map(Into::into),
        cache_status: String::new(),
    })))
}
