//! The node's own resources beside the keys: health, statistics, metrics.

use std::sync::{Arc, OnceLock, atomic::Ordering};

use actix_web::{HttpResponse, get, web};
use cairn_api_spec::{
    ErrorCode,
    cluster::{Health, NodeStats},
    error::Problem,
};
use cairn_server_kit::http::HttpError;
use prometheus::Registry;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{driver::Driver, error::NodeError};

/// What handlers share.
#[derive(Clone)]
pub(crate) struct AppState {
    /// The driver, once the node has joined.
    pub(crate) driver: Arc<OnceLock<Arc<Driver>>>,
    /// What `/metrics` shows.
    pub(crate) metrics: Registry,
}

/// Registers the routes.
pub(crate) fn configure(config: &mut ServiceConfig<'_>) {
    config.service(check_live).service(check_ready).service(get_stats).service(get_metrics);
}

/// Says that the node listens
#[utoipa::path(
    tag = "operations",
    operation_id = "check_live",
    responses((status = 200, description = "The node listens", body = Health))
)]
#[get("/health/live")]
async fn check_live() -> web::Json<Health> {
    web::Json(healthy())
}

/// Says whether the node is registered and serves everything that is its
#[utoipa::path(
    tag = "operations",
    operation_id = "check_ready",
    responses(
        (status = 200, description = "The node is registered, and no partition of it waits to be restored", body = Health),
        (status = 503, description = "Not so (`partition_offline`)", body = Problem, content_type = "application/problem+json"),
    )
)]
#[get("/health/ready")]
async fn check_ready(state: web::Data<AppState>) -> Result<web::Json<Health>, HttpError> {
    let offline = |detail: &str| HttpError(cairn_api_spec::ApiError::new(ErrorCode::PartitionOffline, detail));
    let driver = state.driver.get().ok_or_else(|| HttpError(NodeError::NotJoined.into()))?;
    if !driver.registered.load(Ordering::Relaxed) {
        return Err(offline("the master does not know this node"));
    }
    if driver.partitions.any_unready() {
        return Err(offline("partitions are being restored or taken over"));
    }
    Ok(web::Json(healthy()))
}

/// Gives the node's statistics
#[utoipa::path(
    tag = "operations",
    operation_id = "get_stats",
    responses(
        (status = 200, description = "What the node holds and has done; tiers below memory are counted every few seconds", body = NodeStats),
        (status = 503, description = "The node has not joined a cluster yet (`partition_offline`)", body = Problem, content_type = "application/problem+json"),
    )
)]
#[get("/stats")]
async fn get_stats(state: web::Data<AppState>) -> Result<web::Json<NodeStats>, HttpError> {
    let driver = state.driver.get().ok_or_else(|| HttpError(NodeError::NotJoined.into()))?;
    driver.refresh_metrics();
    Ok(web::Json(driver.metrics.stats()))
}

/// Gives the node's metrics
#[utoipa::path(
    tag = "operations",
    operation_id = "get_metrics",
    responses((status = 200, description = "Metrics in Prometheus's text format", body = String, content_type = "text/plain"))
)]
#[get("/metrics")]
async fn get_metrics(state: web::Data<AppState>) -> HttpResponse {
    if let Some(driver) = state.driver.get() {
        driver.refresh_metrics();
    }
    cairn_server_kit::metrics::render(&state.metrics)
}

fn healthy() -> Health {
    Health { status: "ok".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), warning: None }
}
