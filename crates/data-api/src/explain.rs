//! `GET /explain/{key}`: where a key is and why, for people who wonder.

use actix_web::{HttpRequest, HttpResponse, get, web::Data};
use cairn_api_spec::{ApiError, Operation, Outcome, data::Explanation, operation::Action, version::Condition};

use crate::{
    Shared,
    docs::{BucketQuery, ExplainErrors, KeyPath},
    reply,
    request::{self, Query},
};

/// Explain a key
///
/// Everything that is known of a key but its value: which node answers for it and which have copies, whether it is there
/// and if not, why, which tier holds it, and whether the object store has it. The value is not read. A
/// master adds which node it has asked.
#[utoipa::path(
    operation_id = "explain_key",
    tag = "keys",
    params(KeyPath, BucketQuery),
    responses(
        (status = 200, description = "Where the key is, whether it is there or not.", body = Explanation),
        ExplainErrors,
    ),
)]
#[get("/explain/{key:.*}")]
pub(crate) async fn explain_key(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    reply::or_error(explain(&request, &shared).await)
}

async fn explain(request: &HttpRequest, shared: &Shared) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(request, &["bucket"])?;
    let name = request::name(request, &query, "/explain/")?;
    let mut operation = Operation::new(name, Condition::None, Action::Explain);
    request::trace(request, &mut operation);
    let reply = shared.api.execute(operation).await?;
    request::describe(request, &reply);
    match reply.outcome {
        Outcome::Explained(explanation) => Ok(HttpResponse::Ok().json(explanation)),
        other => Err(reply::refused(&other)),
    }
}
