//! JSON documents that clients send.

use actix_web::{HttpRequest, web::Payload};
use cairn_api_spec::{ApiError, ErrorCode};
use cairn_server_kit::http::{Budget, read_body};
use serde::de::DeserializeOwned;

use crate::request;

/// What a document may have besides values.
pub(crate) const ENVELOPE_BYTES: usize = 64 << 10;
/// serde_json quotes unknown fields; more than this is cut off.
const MAX_DETAIL_CHARS: usize = 400;

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// `unsupported_media_type`, `value_too_large`, `request_timeout`, and `invalid_body` for what is no such document.
pub(crate) async fn read<T: DeserializeOwned>(
    request: &HttpRequest,
    budget: &Budget,
    mut payload: Payload,
    limit: usize,
) -> Result<T, ApiError> {
    request::require_json(request)?;
    request::refuse_content_encoding(request)?;
    let document = read_body(budget, &mut payload, request::declared_length(request), limit).await?;
    let invalid = |detail| ApiError::new(ErrorCode::InvalidBody, detail);
    // serde would take the fields from a list as well.
    if document.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid("the body is not a JSON object".to_owned()));
    }
    serde_json::from_slice(&document)
        .map_err(|error| invalid(error.to_string().chars().take(MAX_DETAIL_CHARS).collect()))
}
