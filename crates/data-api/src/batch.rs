//! `POST /batch`: many operations in one request, each with a result of its own.

use actix_web::{
    HttpRequest, HttpResponse, post,
    web::{Data, Payload},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cairn_api_spec::{
    ApiError, Bucket, EntryName, ErrorCode, MAX_FRAMED_VALUE_BYTES, Operation, Outcome,
    batch::{
        Batch, BatchAction, BatchOperation, BatchProblem, BatchResult, BatchResults, MAX_BATCH_BYTES,
        MAX_BATCH_IDEMPOTENCY_KEY_BYTES,
    },
    data::{self, TtlField, timestamp},
    operation::{Action, IdempotencyKey, Put},
    version::{Condition, Version},
};
use cairn_server_kit::http::trace_of;

use crate::{
    Shared,
    docs::{BatchErrors, BatchIdempotency},
    document::{self, Document},
    reply,
    request::{self, Query, invalid},
};

/// Execute many operations
///
/// Up to 1,000 operations in at most 16 MiB, each with its own key, condition and result: one that fails changes nothing
/// for the others. Operations on the same key are done in the order of the batch, all others at the same time; the batch
/// is no transaction. When one fails with 421, 503 or 504, those behind it on the same key are not done. A value has at
/// most 1 MiB, and all that are read have 16 MiB together: what is larger is sent and read by itself, under `/keys`.
/// Through a master, operations that may have been done without an answer in time are `outcome_unknown`; a node does those
/// on its own partitions and answers `not_owner` for all others.
#[utoipa::path(
    operation_id = "execute_batch",
    tag = "keys",
    params(BatchIdempotency),
    request_body(content = Batch, description = "The operations."),
    responses(
        (
            status = 200, description = "A result for each operation, in their order.", body = BatchResults,
            example = json!({"results": [
                {"status": 201, "key": "user:42", "version": "1099511627777"},
                {"status": 200, "key": "visits", "version": "1099511627778", "value": "7"},
                {"status": 404, "key": "user:43", "version": "0", "problem": {
                    "code": "key_not_found", "detail": "no value is stored under this key",
                }},
            ]}),
        ),
        BatchErrors,
    ),
)]
#[post("/batch")]
pub(crate) async fn execute_batch(request: HttpRequest, shared: Data<Shared>, payload: Payload) -> HttpResponse {
    reply::or_error(execute(&request, &shared, payload).await)
}

async fn execute(request: &HttpRequest, shared: &Shared, payload: Payload) -> Result<HttpResponse, ApiError> {
    Query::parse(request, &[])?;
    if request::condition(request)? != Condition::None {
        return Err(invalid("conditions stand in the operations of a batch, not in its headers"));
    }
    let batch_key = request::idempotency_key(request)?;
    if batch_key.as_ref().is_some_and(|key| key.as_str().len() > MAX_BATCH_IDEMPOTENCY_KEY_BYTES) {
        let limit = MAX_BATCH_IDEMPOTENCY_KEY_BYTES;
        return Err(invalid(format!("the Idempotency-Key of a batch has at most {limit} characters")));
    }
    let document: Document<Batch> = document::read(request, &shared.budget, payload, MAX_BATCH_BYTES).await?;
    let batch = document.content;

    let mut keys = Vec::with_capacity(batch.operations.len());
    let mut operations = Vec::with_capacity(batch.operations.len());
    let mut refused = Vec::with_capacity(batch.operations.len());
    for (index, item) in batch.operations.into_iter().enumerate() {
        keys.push(item.key.clone());
        match parse(item, batch_key.as_ref(), index, shared.api.max_value_bytes()) {
            Ok(operation) => {
                operations.push(Operation { trace: trace_of(request), ..operation });
                refused.push(None);
            }
            Err(error) => refused.push(Some(error)),
        }
    }

    let executed = shared.api.batch(operations).await;
    drop(document.body);
    let mut held = shared.budget.hold();
    held.grow(executed.iter().map(rendered_bytes).sum()).await?;
    let mut executed = executed.into_iter();
    let results = keys.into_iter().zip(refused).map(|(key, refused)| {
        let missing = || Err(ApiError::new(ErrorCode::Internal, "the operation has no result"));
        result(key, refused.map_or_else(|| executed.next().unwrap_or_else(missing), Err))
    });
    reply::large_json(held, &BatchResults { results: results.collect() })
}

/// What a value takes in the answer, at most.
fn rendered_bytes(result: &Result<Outcome, ApiError>) -> usize {
    match result {
        Ok(Outcome::Found { value: Some(value), .. }) => value.len() / 3 * 4,
        _ => 0,
    }
}

/// The operation at `index` of a batch that was sent under `batch_key`.
fn parse(
    item: BatchOperation,
    batch_key: Option<&IdempotencyKey>,
    index: usize,
    max_value_bytes: usize,
) -> Result<Operation, ApiError> {
    refuse_misplaced(&item)?;
    let bucket = item.bucket.as_deref().map_or_else(|| Ok(Bucket::default()), Bucket::parse)?;
    let name = EntryName::new(&bucket, &item.key)?;
    let condition = condition(item.if_match, item.if_none_match)?;
    let ttl = item.ttl.as_ref().map(TtlField::parse).transpose()?;
    let durability = item.durability;
    let action = match item.op {
        BatchAction::Get => Action::Get,
        BatchAction::Delete => Action::Delete { durability },
        BatchAction::Increment => Action::Increment { delta: item.delta.unwrap_or(1), ttl, durability },
        BatchAction::Put => {
            let (value, natural_type) = data::value_of(item.value.as_deref(), item.value_base64.as_deref())?;
            let limit = max_value_bytes.min(MAX_FRAMED_VALUE_BYTES);
            if value.len() > limit {
                let detail = format!("a value in a batch has at most {limit} bytes: PUT this one by itself");
                return Err(ApiError::new(ErrorCode::ValueTooLarge, detail));
            }
            let content_type = item.content_type.unwrap_or_else(|| natural_type.to_owned());
            Action::Put(Put { value, content_type: request::check_content_type(content_type)?, ttl, durability })
        }
    };
    let numbered = || batch_key.filter(|_| action.is_write()).map(|key| format!("{key}:{index}"));
    let idempotency_key = item.idempotency_key.or_else(numbered);
    let idempotency_key = idempotency_key.as_deref().map(IdempotencyKey::parse).transpose()?;
    Ok(Operation { idempotency_key, ..Operation::new(name, condition, action) })
}

/// A field that were silently dropped would turn a careful operation into a careless one.
fn refuse_misplaced(item: &BatchOperation) -> Result<(), ApiError> {
    let (put, increment) = (item.op == BatchAction::Put, item.op == BatchAction::Increment);
    let fields = [
        ("value", item.value.is_some(), put),
        ("value_base64", item.value_base64.is_some(), put),
        ("content_type", item.content_type.is_some(), put),
        ("ttl", item.ttl.is_some(), put || increment),
        ("delta", item.delta.is_some(), increment),
        ("durability", item.durability.is_some(), item.op != BatchAction::Get),
        ("idempotency_key", item.idempotency_key.is_some(), item.op != BatchAction::Get),
    ];
    match fields.into_iter().find(|(_, is_there, belongs)| *is_there && !belongs) {
        Some((field, ..)) => {
            Err(ApiError::new(ErrorCode::InvalidBody, format!("{field} has no meaning for this operation")))
        }
        None => Ok(()),
    }
}

/// Conditions as the headers have them, or without quotes, as `version` gives them.
fn condition(if_match: Option<String>, if_none_match: Option<String>) -> Result<Condition, ApiError> {
    let quoted = |text: String| match text.parse::<u64>() {
        Ok(version) => format!("\"{version}\""),
        Err(_) => text,
    };
    let (if_match, if_none_match) = (if_match.map(quoted), if_none_match.map(quoted));
    Ok(Condition::parse(if_match.as_deref(), if_none_match.as_deref())?)
}

fn result(key: String, result: Result<Outcome, ApiError>) -> BatchResult {
    let of = |status, version: Version| BatchResult { status, version: Some(version), ..BatchResult::default() };
    let result = match result {
        Ok(Outcome::Found { metadata, value: Some(value), .. }) => {
            let (value, value_base64) = text_or_base64(&value);
            BatchResult {
                value,
                value_base64,
                content_type: Some(metadata.content_type).filter(|text| !text.is_empty()),
                expires_at: metadata.expires_at.map(timestamp),
                ..of(200, metadata.version)
            }
        }
        Ok(Outcome::NotModified(metadata, _)) => of(304, metadata.version),
        Ok(Outcome::Stored { created, metadata }) => of(if created { 201 } else { 204 }, metadata.version),
        Ok(Outcome::Deleted(version)) => of(204, version),
        Ok(Outcome::Counted { value, metadata, .. }) => {
            BatchResult { value: Some(value.to_string()), ..of(200, metadata.version) }
        }
        Ok(other) => failed(reply::refused(&other)),
        Err(error) => failed(error),
    };
    BatchResult { key, ..result }
}

fn failed(error: ApiError) -> BatchResult {
    let ApiError { code, detail, retry_after, version, .. } = error;
    let problem = Some(BatchProblem { code, detail, retry_after });
    BatchResult { status: code.status(), version, problem, ..BatchResult::default() }
}

/// Text that JSON would write with many escapes goes as base64, too: it would be six times as long.
fn text_or_base64(value: &Bytes) -> (Option<String>, Option<String>) {
    let is_plain = |text: &&str| !text.chars().any(|c| c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r'));
    match std::str::from_utf8(value).ok().filter(is_plain) {
        Some(text) => (Some(text.to_owned()), None),
        None => (None, Some(STANDARD.encode(value))),
    }
}
