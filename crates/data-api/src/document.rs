//! JSON documents that clients send.

use actix_web::{
    HttpRequest,
    web::{Bytes, Payload},
};
use cairn_api_spec::{ApiError, ErrorCode};
use cairn_server_kit::http::{Budget, read_body};
use serde::de::DeserializeOwned;

use crate::request;

/// What a document may have besides values.
pub(crate) const ENVELOPE_BYTES: usize = 64 << 10;
/// serde_json quotes unknown fields; more than this is cut off.
const MAX_DETAIL_CHARS: usize = 400;

/// What a document says, and its body, which holds its room in the budget: the values that were read from it take as much.
pub(crate) struct Document<T> {
    pub(crate) content: T,
    pub(crate) body: Bytes,
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// `unsupported_media_type`, `value_too_large`, `request_timeout`, and `invalid_body` for what is no such document.
pub(crate) async fn read<T: DeserializeOwned>(
    request: &HttpRequest,
    budget: &Budget,
    mut payload: Payload,
    limit: usize,
) -> Result<Document<T>, ApiError> {
    request::require_json(request)?;
    request::refuse_content_encoding(request)?;
    let body = read_body(budget, &mut payload, request::declared_length(request), limit).await?;
    let invalid = |detail| ApiError::new(ErrorCode::InvalidBody, detail);
    // serde would take the fields from a list as well.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid("the body is not a JSON object".to_owned()));
    }
    let content = serde_json::from_slice(&body)
        .map_err(|error| invalid(error.to_string().chars().take(MAX_DETAIL_CHARS).collect()))?;
    Ok(Document { content, body })
}
