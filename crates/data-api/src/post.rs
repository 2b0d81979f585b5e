//! `POST /keys`: a key and its value in one JSON document, for people with curl.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    post,
    web::{Data, Payload},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cairn_api_spec::{
    ApiError, EntryName, ErrorCode, Operation,
    data::{EntryMetadata, PostKey, TtlField},
    name::{DEFAULT_BUCKET, encode_key},
    operation::{Action, Metadata, Put},
    ttl,
};
use cairn_server_kit::http::read_body;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    Shared,
    docs::{BucketQuery, Conditions, DurabilityQuery, Idempotency, PutErrors},
    list::timestamp,
    reply,
    request::{self, Query},
    upload,
};

/// What the document may have besides its value.
const ENVELOPE_BYTES: usize = 64 << 10;
/// serde_json quotes unknown fields; more than this is cut off.
const MAX_DETAIL_CHARS: usize = 400;

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

async fn post(request: &HttpRequest, shared: &Shared, mut payload: Payload) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(request, &["bucket", "durability"])?;
    let bucket = query.bucket()?;
    let durability = query.durability()?;
    let condition = request::condition(request)?;
    let idempotency_key = request::idempotency_key(request)?;
    request::require_json(request)?;
    request::refuse_content_encoding(request)?;

    let max = shared.api.max_value_bytes();
    let limit = max.saturating_add(max / 3).saturating_add(ENVELOPE_BYTES);
    let document = read_body(&mut payload, request::declared_length(request), limit).await?;
    let body: PostKey = serde_json::from_slice(&document).map_err(unreadable)?;

    let name = EntryName::new(&bucket, &body.key)?;
    let ttl = body.ttl.as_ref().map(parse_ttl).transpose()?;
    let (value, natural_type) = value_of(body.value, body.value_base64, &document)?;
    let content_type = request::check_content_type(body.content_type.unwrap_or_else(|| natural_type.to_owned()))?;
    let put = Put { value: Bytes::new(), content_type, ttl, durability };
    let mut operation = Operation { idempotency_key, ..Operation::new(name.clone(), condition, Action::Put(put)) };
    request::trace(request, &mut operation);
    let reply = upload::put_bytes(&*shared.api, operation, value).await?;
    request::describe(request, &reply);
    let (created, metadata) = reply::stored(reply.outcome)?;
    Ok(render(&name, created, &metadata))
}

fn parse_ttl(field: &TtlField) -> Result<std::time::Duration, ApiError> {
    match field {
        TtlField::Seconds(seconds) => ttl::parse(&seconds.to_string()),
        TtlField::Text(text) => ttl::parse(text),
    }
}

/// The bytes to store, and the content type that they have by themselves.
fn value_of(value: Option<Value>, base64: Option<String>, document: &[u8]) -> Result<(Bytes, &'static str), ApiError> {
    match (value, base64) {
        (Some(Value::String(text)), None) => Ok((text.into(), "text/plain; charset=utf-8")),
        (Some(_), None) => Ok((json_text(document)?, "application/json")),
        (None, Some(text)) => {
            let bytes = STANDARD.decode(text).map_err(|error| {
                ApiError::new(ErrorCode::InvalidBody, format!("value_base64 is not standard, padded base64: {error}"))
            })?;
            Ok((bytes.into(), ""))
        }
        (None, None) => Err(ApiError::new(ErrorCode::InvalidBody, "one of value and value_base64 is needed")),
        (Some(_), Some(_)) => Err(ApiError::new(ErrorCode::InvalidBody, "send value or value_base64, not both")),
    }
}

/// The value as it was written: a parsed one would have lost the order of its fields and the digits of big numbers.
fn json_text(document: &[u8]) -> Result<Bytes, ApiError> {
    #[derive(Deserialize)]
    struct Written<'a> {
        #[serde(borrow)]
        value: &'a RawValue,
    }
    let written: Written<'_> = serde_json::from_slice(document).map_err(unreadable)?;
    Ok(Bytes::copy_from_slice(written.value.get().as_bytes()))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreadable(error: serde_json::Error) -> ApiError {
    ApiError::new(ErrorCode::InvalidBody, error.to_string().chars().take(MAX_DETAIL_CHARS).collect::<String>())
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
