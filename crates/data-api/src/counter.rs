//! `POST /counters/{key}`: addition to a key whose value is an integer.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    post,
    web::{Data, Payload},
};
use cairn_api_spec::{
    ApiError, Operation,
    data::{self, TtlField},
    operation::Action,
};

use crate::{
    Shared,
    docs::{BucketQuery, Conditions, DurabilityQuery, Idempotency, IncrementErrors, KeyPath},
    document::{self, Document},
    reply,
    request::{self, Query},
};

/// Add to a counter
///
/// A counter is a key whose value is an integer as decimal text, at most 64 bits with its sign; `GET /keys/{key}` reads
/// it, `PUT` sets it. A key that is not there counts as 0. Additions are atomic: of many at the same time, none is lost.
/// A counter that is created by an addition lives as long as `ttl` says; one that is there keeps its expiry.
#[utoipa::path(
    operation_id = "increment_counter",
    tag = "keys",
    params(KeyPath, BucketQuery, DurabilityQuery, Conditions, Idempotency),
    request_body(content = data::Increment, description = "What to add, and how long a new counter lives."),
    responses(
        (
            status = 200, description = "The sum was stored.", body = data::Counter,
            headers(("ETag" = String, description = "The key's new version, quoted.")),
        ),
        IncrementErrors,
    ),
)]
#[post("/counters/{key:.*}")]
pub(crate) async fn increment_counter(request: HttpRequest, shared: Data<Shared>, payload: Payload) -> HttpResponse {
    reply::or_error(increment(&request, &shared, payload).await)
}

async fn increment(request: &HttpRequest, shared: &Shared, payload: Payload) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(request, &["bucket", "durability"])?;
    let name = request::name(request, &query, "/counters/")?;
    let (condition, durability) = (request::condition(request)?, query.durability()?);
    let idempotency_key = request::idempotency_key(request)?;
    let Document { content: body, .. }: Document<data::Increment> =
        document::read(request, &shared.budget, payload, document::ENVELOPE_BYTES).await?;

    let ttl = body.ttl.as_ref().map(TtlField::parse).transpose()?;
    let action = Action::Increment { delta: body.delta, ttl, durability };
    let mut operation = Operation { idempotency_key, ..Operation::new(name.clone(), condition, action) };
    request::trace(request, &mut operation);
    let reply = shared.api.execute(operation).await?;
    request::describe(request, &reply);
    let (value, metadata) = reply::counted(reply.outcome)?;

    let mut response = HttpResponse::Ok();
    if let Some(etag) = reply::etag(metadata.version) {
        response.insert_header((header::ETAG, etag));
    }
    Ok(response.json(data::Counter { key: name.key().to_owned(), value, version: metadata.version }))
}
