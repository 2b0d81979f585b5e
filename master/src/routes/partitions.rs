//! `/partitions`: what learners tell.

use actix_web::{post, web};
use cairn_api_spec::{
    cluster::{CaughtUp, Partition},
    error::Problem,
};
use cairn_server_kit::http::HttpError;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{BodyErrors, EdgeErrors};
use crate::app::AppState;

pub(super) fn configure(config: &mut ServiceConfig<'_>) {
    config.service(promote_learner);
}

/// Makes a learner that has caught up the primary
///
/// The same request again gets the same answer for as long as nothing else has changed.
#[utoipa::path(
    tag = "cluster",
    operation_id = "promote_learner",
    params(("id" = u32, Path, description = "The partition")),
    responses(
        (status = 200, description = "The partition's new entry", body = Partition),
        (status = 400, description = "No such partition (`invalid_parameter`), or the body cannot be read (`invalid_body`)", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The entry is another one by now (`precondition_failed`)", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The entry was changed at the same time (`overloaded`)", body = Problem, content_type = "application/problem+json"),
        EdgeErrors, BodyErrors,
    )
)]
#[post("/partitions/{id}/caught_up")]
async fn promote_learner(
    state: web::Data<AppState>,
    id: web::Path<u32>,
    body: web::Json<CaughtUp>,
) -> Result<web::Json<Partition>, HttpError> {
    Ok(web::Json(state.controller.caught_up(*id, &body).await?))
}
