//! `/metrics`: for Prometheus.

use actix_web::{HttpResponse, get, web};
use utoipa_actix_web::service_config::ServiceConfig;

use super::{AppState, EdgeErrors};

pub(super) fn configure(config: &mut ServiceConfig<'_>) {
    config.service(get_metrics);
}

/// Gives the master's metrics
#[utoipa::path(
    tag = "operations",
    operation_id = "get_metrics",
    responses((status = 200, description = "Metrics in Prometheus's text format", body = String, content_type = "text/plain"), EdgeErrors)
)]
#[get("/metrics")]
async fn get_metrics(state: web::Data<AppState>) -> HttpResponse {
    cairn_server_kit::metrics::render(&state.metrics)
}
