//! `/ring`: the partition map, and waiting for its next change.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, get, http::header, web};
use cairn_api_spec::{ApiError, Version, cluster::Ring, error::Problem};
use cairn_server_kit::http::HttpError;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{AppState, EdgeErrors};
use crate::error::Error;

const LONGEST_WAIT_SECONDS: u64 = 60;

pub(super) fn configure(config: &mut ServiceConfig<'_>) {
    config.service(get_ring);
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Waiting {
    /// Seconds to hold the answer while the epoch is the one in `If-None-Match`
    #[serde(default)]
    #[param(default = 0, minimum = 0, maximum = 60, required = false)]
    wait: u64,
}

/// Gives the partition map
///
/// With `If-None-Match` and `wait` the answer comes as soon as the map is another one.
#[utoipa::path(
    tag = "cluster",
    operation_id = "get_ring",
    params(
        Waiting,
        ("If-None-Match" = Option<String>, Header, nullable = false, description = "The `ETag` of the map that the client has"),
    ),
    responses(
        (status = 200, description = "The map", body = Ring, headers(("ETag" = String, description = "The epoch, in double quotes"))),
        (status = 304, description = "The map still is the one in `If-None-Match`"),
        (status = 400, description = "`wait` or `If-None-Match` is not valid (`invalid_parameter`)", body = Problem, content_type = "application/problem+json"),
        EdgeErrors,
    )
)]
#[get("/ring")]
async fn get_ring(
    state: web::Data<AppState>,
    request: HttpRequest,
    query: web::Query<Waiting>,
) -> Result<HttpResponse, HttpError> {
    if query.wait > LONGEST_WAIT_SECONDS {
        return Err(Error::InvalidParameter(format!(
            "wait is {}: it must be 0 to {LONGEST_WAIT_SECONDS} seconds",
            query.wait
        ))
        .into());
    }
    let known = request.headers().get(header::IF_NONE_MATCH);
    let known = known.map(|etag| Version::parse_etag(etag.to_str().unwrap_or_default()).map_err(ApiError::from));
    let known = known.transpose()?;
    let ring = &state.cluster.ring;
    let ring = match known {
        Some(Version(epoch)) => tokio::select! {
            ring = ring.changed_from(epoch, Duration::from_secs(query.wait)) => ring,
            () = state.shutdown.cancelled() => ring.load_full(),
        },
        None => ring.load_full(),
    };
    let etag = (header::ETAG, format!("\"{}\"", ring.epoch));
    if known == Some(Version(ring.epoch)) {
        return Ok(HttpResponse::NotModified().insert_header(etag).finish());
    }
    Ok(HttpResponse::Ok().insert_header(etag).json(&*ring))
}
