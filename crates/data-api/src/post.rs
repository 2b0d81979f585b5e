//! `POST /keys`: a key and its value in one JSON document, for people with curl.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    post,
    web::{Data, Payload},
};
use bytes::Bytes;
use cairn_api_spec::{
    ApiError, EntryName, Operation,
    data::{self, EntryMetadata, PostKey, TtlField, timestamp},
    name::{DEFAULT_BUCKET, encode_key},
    operation::{Action, Metadata, Put},
};

use crate::{
    Shared,
    docs::{BucketQuery, Conditions, DurabilityQuery, Idempotency, PutErrors},
    document::{self, Document},
    reply,
    request::{self, Query},
    upload,
};

/// Store a value with JSON
///
/// Stores `value` (text as it is; any other JSON value as its JSON text) or `value_base64` under `key`.
#[utoipa::path(
    operation_id = "post_key",
    tag = "keys",
    params(BucketQuery, DurabilityQuery, Conditions, Idempotency),
    request_body(content = PostKey, description = "The key, its value, and how long it lives."),
    responses(
        (
            status = 200, description = "The value was replaced.", body = EntryMetadata,
            headers(("ETag" = String, description = "The key's new version, quoted.")),
        ),
        (
            status = 201, description = "The key is new.", body = EntryMetadata,
            headers(
                ("ETag" = String, description = "The key's new version, quoted."),
                ("Location" = String, description = "Where the key is: `/keys/value3`."),
            ),
        ),
        PutErrors,
    ),
)]
#[post("/keys")]
pub(crate) async fn post_key(request: HttpRequest, shared: Data<Shared>, payload: Payload) -> HttpResponse {
    reply::or_error(post(&request, &shared, payload).await)
}

async fn post(request: &HttpRequest, shared: &Shared, payload: Payload) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(request, &["bucket", "durability"])?;
    let bucket = query.bucket()?;
    let durability = query.durability()?;
    let condition = request::condition(request)?;
    let idempotency_key = request::idempotency_key(request)?;
    let max = shared.api.max_value_bytes();
    let limit = max.saturating_add(max / 3).saturating_add(document::ENVELOPE_BYTES);
    let document: Document<PostKey> = document::read(request, &shared.budget, payload, limit).await?;
    let body = document.content;

    let name = EntryName::new(&bucket, &body.key)?;
    let ttl = body.ttl.as_ref().map(TtlField::parse).transpose()?;
    let (value, natural_type) = data::value_of(body.value.as_deref(), body.value_base64.as_deref())?;
    let content_type = request::check_content_type(body.content_type.unwrap_or_else(|| natural_type.to_owned()))?;
    let put = Put { value: Bytes::new(), content_type, ttl, durability };
    let mut operation = Operation { idempotency_key, ..Operation::new(name.clone(), condition, Action::Put(put)) };
    request::trace(request, &mut operation);
    let reply = upload::put_bytes(&*shared.api, operation, value).await?;
    drop(document.body);
    request::describe(request, &reply);
    let (created, metadata) = reply::stored(reply.outcome)?;
    Ok(render(&name, created, &metadata))
}

fn render(name: &EntryName, created: bool, metadata: &Metadata) -> HttpResponse {
    let mut response = HttpResponse::build(if created { StatusCode::CREATED } else { StatusCode::OK });
    if let Some(etag) = reply::etag(metadata.version) {
        response.insert_header((header::ETAG, etag));
    }
    if created {
        let mut location = format!("/keys/{}", encode_key(name.key()));
        if name.bucket() != DEFAULT_BUCKET {
            location = format!("{location}?bucket={}", name.bucket());
        }
        response.insert_header((header::LOCATION, location));
    }
    response.json(EntryMetadata {
        key: name.key().to_owned(),
        size: metadata.size,
        version: metadata.version,
        expires_at: metadata.expires_at.map(timestamp),
    })
}
