//! `/rebalance`: how the map moves towards what the ring proposes.

use actix_web::{get, patch, web};
use cairn_api_spec::{
    cluster::{ChangeRebalance, Rebalance},
    error::Problem,
};
use cairn_server_kit::http::HttpError;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{AppState, BodyErrors, EdgeErrors};

pub(super) fn configure(config: &mut ServiceConfig<'_>) {
    config.service(get_rebalance).service(change_rebalance);
}

/// Says what is moving, how fast, and how long that will take
#[utoipa::path(
    tag = "cluster",
    operation_id = "get_rebalance",
    responses((status = 200, description = "The limits and the moves", body = Rebalance), EdgeErrors)
)]
#[get("/rebalance")]
async fn get_rebalance(state: web::Data<AppState>) -> web::Json<Rebalance> {
    web::Json(state.cluster.rebalance(state.clock.now()))
}

/// Pauses, resumes and limits moves
///
/// A pause ends no move that has begun, and copies that were lost are made nevertheless. What is changed here holds
/// after a restart, too.
#[utoipa::path(
    tag = "cluster",
    operation_id = "change_rebalance",
    responses(
        (status = 200, description = "The limits and the moves", body = Rebalance),
        (status = 400, description = "A number is out of its bounds (`invalid_parameter`), or the body cannot be read (`invalid_body`)", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The limits were changed at the same time (`overloaded`)", body = Problem, content_type = "application/problem+json"),
        EdgeErrors, BodyErrors,
    )
)]
#[patch("/rebalance")]
async fn change_rebalance(
    state: web::Data<AppState>,
    body: web::Json<ChangeRebalance>,
) -> Result<web::Json<Rebalance>, HttpError> {
    state.cluster.rebalancing.change(&body).await?;
    Ok(web::Json(state.cluster.rebalance(state.clock.now())))
}
