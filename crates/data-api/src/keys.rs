//! One key by its path: GET, HEAD, PUT, DELETE.

use actix_web::{
    HttpRequest, HttpResponse, delete, get, head, put,
    web::{Data, Payload},
};
use cairn_api_spec::{
    ApiError, Operation, Outcome,
    operation::{Action, Put},
};
use cairn_operations::Reply;
use cairn_server_kit::http::UNCOUNTED;

use crate::{
    Shared,
    docs::{
        Binary, BucketQuery, CacheControl, Conditions, ConsistencyQuery, DeleteErrors, DurabilityQuery, Idempotency,
        KeyPath, PutErrors, ReadErrors, TtlQuery,
    },
    reply,
    request::{self, Query},
    upload,
};

const PREFIX: &str = "/keys/";

/// Read a value
///
/// The value as it was stored, with its `Content-Type`. Every reply has the key's version as `ETag`; with
/// `If-None-Match` a value that the client already has is not sent again. With `consistency=eventual` any in-sync
/// replica may answer, and the value may be stale.
#[utoipa::path(
    operation_id = "get_key",
    tag = "keys",
    params(KeyPath, BucketQuery, ConsistencyQuery, Conditions),
    responses(
        (
            status = 200, description = "The value.", body = inline(Binary), content_type = "application/octet-stream",
            headers(
                ("ETag" = String, description = "The key's version, quoted."),
                ("Last-Modified" = String, description = "When the value was stored."),
                ("Age" = u64, description = "Seconds since the value was stored."),
                ("Expires" = String, description = "When the value expires; absent when it does not."),
                ("Cache-Control" = String, description = "`max-age=` with the value's whole lifetime in seconds; \
                    absent when it does not expire."),
                ("Cache-Status" = String, description = "Which node and which tier answered, and the seconds that are \
                    left (RFC 9211): `node-1; hit; ttl=30; detail=memory`. With `detail=replica` the value may be \
                    stale."),
                ("X-Content-Type-Options" = String, description = "`nosniff`."),
            ),
        ),
        (
            status = 304, description = "The client has this version.",
            headers(("ETag" = String, description = "The key's version, quoted.")),
        ),
        ReadErrors,
    ),
)]
#[get("/keys/{key:.*}")]
pub(crate) async fn get_key(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    reply::or_error(read(&request, &shared, Action::Get).await.and_then(reply::get))
}

/// Read a value's headers
///
/// The headers that GET would send, `Content-Length` among them, without the value.
#[utoipa::path(
    operation_id = "head_key",
    tag = "keys",
    params(KeyPath, BucketQuery, ConsistencyQuery, Conditions),
    responses(
        (
            status = 200, description = "The key exists.",
            headers(
                ("ETag" = String, description = "The key's version, quoted."),
                ("Content-Length" = u64, description = "The value's length in bytes."),
                ("Last-Modified" = String, description = "When the value was stored."),
                ("Age" = u64, description = "Seconds since the value was stored."),
                ("Expires" = String, description = "When the value expires; absent when it does not."),
                ("Cache-Control" = String, description = "`max-age=` with the value's whole lifetime in seconds; \
                    absent when it does not expire."),
                ("Cache-Status" = String, description = "Which node and which tier answered, and the seconds that are \
                    left (RFC 9211): `node-1; hit; ttl=30; detail=memory`. With `detail=replica` the value may be \
                    stale."),
            ),
        ),
        (
            status = 304, description = "The client has this version.",
            headers(("ETag" = String, description = "The key's version, quoted.")),
        ),
        ReadErrors,
    ),
)]
#[head("/keys/{key:.*}")]
pub(crate) async fn head_key(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    reply::or_error(read(&request, &shared, Action::Head).await.and_then(reply::head))
}

/// Store a value
///
/// The body is the value. The `Content-Type` that it is sent with, at most 255 bytes, is stored and given back.
/// `If-None-Match: *` stores only what is not there, which together with a time to live makes a lock; `If-Match`
/// changes only the version that the client knows. A reply of 504 leaves open whether the value was stored: with an
/// `Idempotency-Key` the same request may be sent again.
#[utoipa::path(
    operation_id = "put_key",
    tag = "keys",
    params(KeyPath, BucketQuery, TtlQuery, DurabilityQuery, Conditions, CacheControl, Idempotency),
    request_body(
        content = inline(Binary), content_type = "application/octet-stream",
        description = "The value. Any `Content-Type` is taken; `Content-Encoding` is not.",
    ),
    responses(
        (
            status = 201, description = "The key is new.",
            headers(("ETag" = String, description = "The key's new version, quoted.")),
        ),
        (
            status = 204, description = "The value was replaced.",
            headers(("ETag" = String, description = "The key's new version, quoted.")),
        ),
        PutErrors,
    ),
)]
#[put("/keys/{key:.*}")]
pub(crate) async fn put_key(request: HttpRequest, shared: Data<Shared>, payload: Payload) -> HttpResponse {
    reply::or_error(put(&request, &shared, payload).await)
}

/// Remove a key
///
/// The key's version grows by this, too, and is remembered.
#[utoipa::path(
    operation_id = "delete_key",
    tag = "keys",
    params(KeyPath, BucketQuery, DurabilityQuery, Conditions, Idempotency),
    responses(
        (
            status = 204, description = "The key was removed.",
            headers(("ETag" = String, description = "The version of the removal, quoted.")),
        ),
        DeleteErrors,
    ),
)]
#[delete("/keys/{key:.*}")]
pub(crate) async fn delete_key(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    reply::or_error(delete(&request, &shared).await)
}

async fn read(request: &HttpRequest, shared: &Shared, action: Action) -> Result<Reply, ApiError> {
    let query = Query::parse(request, &["bucket", "consistency"])?;
    let mut operation = Operation::new(request::name(request, &query, PREFIX)?, request::condition(request)?, action);
    operation.consistency = query.consistency()?;
    request::trace(request, &mut operation);
    let mut reply = shared.api.execute(operation).await?;
    // A value that is being sent is in memory whatever the memory tier drops meanwhile.
    if let Outcome::Found { value: Some(value), .. } = &mut reply.outcome
        && value.len() > UNCOUNTED
    {
        *value = shared.budget.count(std::mem::take(value)).await?;
    }
    request::describe(request, &reply);
    Ok(reply)
}

async fn put(request: &HttpRequest, shared: &Shared, payload: Payload) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(request, &["bucket", "ttl", "durability"])?;
    request::refuse_content_encoding(request)?;
    let put = Put {
        value: bytes::Bytes::new(),
        content_type: request::content_type(request)?,
        ttl: request::ttl(request, &query)?,
        durability: query.durability()?,
    };
    let operation = write(request, &query, Action::Put(put))?;
    let declared = request::declared_length(request);
    let reply = upload::put_body(&*shared.api, &shared.budget, operation, payload, declared).await?;
    request::describe(request, &reply);
    reply::put(reply.outcome)
}

async fn delete(request: &HttpRequest, shared: &Shared) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(request, &["bucket", "durability"])?;
    let operation = write(request, &query, Action::Delete { durability: query.durability()? })?;
    let reply = shared.api.execute(operation).await?;
    request::describe(request, &reply);
    reply::delete(&reply.outcome)
}

fn write(request: &HttpRequest, query: &Query<'_>, action: Action) -> Result<Operation, ApiError> {
    let mut operation = Operation::new(request::name(request, query, PREFIX)?, request::condition(request)?, action);
    operation.idempotency_key = request::idempotency_key(request)?;
    request::trace(request, &mut operation);
    Ok(operation)
}
