//! `/partitions`: what primaries ask for.

use actix_web::{post, web};
use cairn_api_spec::{
    cluster::{ChangePartition, Partition},
    error::Problem,
};
use cairn_server_kit::http::HttpError;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{AppState, BodyErrors, EdgeErrors};

pub(super) fn configure(config: &mut ServiceConfig<'_>) {
    config.service(change_partition);
}

/// Changes a partition's entry, as its primary asks
///
/// The same request again gets the same answer for as long as nothing else has changed.
#[utoipa::path(
    tag = "cluster",
    operation_id = "change_partition",
    params(("id" = u32, Path, description = "The partition")),
    responses(
        (status = 200, description = "The partition's new entry", body = Partition),
        (status = 400, description = "No such partition (`invalid_parameter`), or the body cannot be read (`invalid_body`)", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The entry is another one by now, or does not allow it (`precondition_failed`)", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The entry could not be changed just now (`overloaded`)", body = Problem, content_type = "application/problem+json"),
        EdgeErrors, BodyErrors,
    )
)]
#[post("/partitions/{id}/changes")]
async fn change_partition(
    state: web::Data<AppState>,
    id: web::Path<u32>,
    body: web::Json<ChangePartition>,
) -> Result<web::Json<Partition>, HttpError> {
    Ok(web::Json(state.controller.change(*id, body.into_inner()).await?))
}
