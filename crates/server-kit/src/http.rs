//! The edge of HTTP: how every error looks, what extractors say, how a body is read. Knows no route and no resource.
//!
//! An [`HttpError`] only names what went wrong; [`Edge`] writes the document, because it alone knows the request's
//! trace id and also has to write it for the errors that actix makes by itself.

mod app;
mod body;
mod budget;
mod edge;
mod held;
mod traced;

use std::fmt;

use actix_web::{
    HttpRequest, HttpResponse, Responder, ResponseError,
    error::JsonPayloadError,
    http::{StatusCode, header},
    web,
};
use cairn_api_spec::{ApiError, ErrorCode};

pub use self::{
    app::{app, openapi},
    body::{Pace, Paced, read_body, read_body_at},
    budget::{Budget, Held, UNCOUNTED},
    edge::Edge,
    traced::{annotate, trace_of},
};

/// JSON bodies up to this many bytes are read.
pub const MAX_JSON_BYTES: usize = 16 << 20;
/// An explanation may quote the request; more of it than this is cut off.
const MAX_DETAIL_CHARS: usize = 400;

/// An [`ApiError`] that a handler returns. Outside of an [`Edge`] the reply has its status and headers, but no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError(pub ApiError);

impl HttpError {
    fn cut(code: ErrorCode, detail: &str) -> Self {
        Self(ApiError::new(code, detail.chars().take(MAX_DETAIL_CHARS).collect::<String>()))
    }
}

impl From<ApiError> for HttpError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for HttpError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(version) = self.0.version {
            response.insert_header((header::ETAG, format!("\"{version}\"")));
        }
        if let Some(seconds) = self.0.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        response.finish()
    }
}

impl Responder for HttpError {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::from_error(self)
    }
}

/// What actix's extractors answer when they fail: `invalid_body`, `invalid_parameter`, and for JSON also
/// `value_too_large` above [`MAX_JSON_BYTES`] and `unsupported_media_type`.
pub fn extractors(config: &mut web::ServiceConfig) {
    config
        .app_data(web::JsonConfig::default().limit(MAX_JSON_BYTES).error_handler(|error, _| json_error(error).into()))
        .app_data(
            web::QueryConfig::default()
                .error_handler(|error, _| HttpError::cut(ErrorCode::InvalidParameter, &error.to_string()).into()),
        )
        .app_data(
            web::PathConfig::default()
                .error_handler(|error, _| HttpError::cut(ErrorCode::InvalidParameter, &error.to_string()).into()),
        );
}

fn json_error(error: JsonPayloadError) -> HttpError {
    match error {
        JsonPayloadError::OverflowKnownLength { limit, .. } | JsonPayloadError::Overflow { limit } => {
            body::too_large(limit).into()
        }
        JsonPayloadError::ContentType => {
            HttpError::cut(ErrorCode::UnsupportedMediaType, "send JSON, with `Content-Type: application/json`")
        }
        JsonPayloadError::Payload(error) => body::broken(error).into(),
        JsonPayloadError::Deserialize(error) => HttpError::cut(ErrorCode::InvalidBody, &error.to_string()),
        other => HttpError::cut(ErrorCode::InvalidBody, &other.to_string()),
    }
}

/// For `default_service`: `method_not_allowed` when the path is served under another method, else `route_not_found`.
pub async fn route_not_found(request: HttpRequest) -> HttpError {
    // Each handler is its own resource with a guard on the method, so actix takes a wrong method for a wrong path.
    if request.match_pattern().is_some() {
        HttpError::cut(ErrorCode::MethodNotAllowed, &format!("this path does not take {}", request.method()))
    } else {
        HttpError::cut(ErrorCode::RouteNotFound, &format!("nothing is served at {}", request.path()))
    }
}
