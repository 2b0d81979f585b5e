//! `/health`: for orchestrators.

use actix_web::{get, web};
use cairn_api_spec::{cluster::Health, error::Problem};
use cairn_server_kit::http::HttpError;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{AppState, EdgeErrors};

pub(super) fn configure(config: &mut ServiceConfig<'_>) {
    config.service(check_live).service(check_ready);
}

/// Says that the master listens
#[utoipa::path(
    tag = "operations",
    operation_id = "check_live",
    responses((status = 200, description = "The master listens", body = Health), EdgeErrors)
)]
#[get("/health/live")]
async fn check_live() -> web::Json<Health> {
    web::Json(healthy(None))
}

/// Says whether every key can be served
#[utoipa::path(
    tag = "operations",
    operation_id = "check_ready",
    responses(
        (status = 200, description = "Every partition has a primary, and at least one node is active; `warning` says what is missing nevertheless", body = Health),
        (status = 503, description = "Not so (`no_nodes`)", body = Problem, content_type = "application/problem+json"),
        EdgeErrors,
    )
)]
#[get("/health/ready")]
async fn check_ready(state: web::Data<AppState>) -> Result<web::Json<Health>, HttpError> {
    let now = state.clock.now();
    state.cluster.check_ready(now)?;
    Ok(web::Json(healthy(state.cluster.warning(now))))
}

fn healthy(warning: Option<String>) -> Health {
    Health { status: "ok".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), warning }
}
