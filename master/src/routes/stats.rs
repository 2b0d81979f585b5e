//! `/stats`: sums over the cluster.

use actix_web::{get, web};
use cairn_api_spec::cluster::Stats;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{AppState, EdgeErrors};

pub(super) fn configure(config: &mut ServiceConfig<'_>) {
    config.service(get_stats);
}

/// Sums up what the nodes said with their last heartbeats
#[utoipa::path(
    tag = "cluster",
    operation_id = "get_stats",
    responses((status = 200, description = "Totals over the cluster, and the same by node", body = Stats), EdgeErrors)
)]
#[get("/stats")]
async fn get_stats(state: web::Data<AppState>) -> web::Json<Stats> {
    web::Json(state.cluster.stats(state.clock.now()))
}
