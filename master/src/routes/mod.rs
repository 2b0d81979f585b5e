//! One file per resource. A handler parses, calls one method of the domain, and renders.

use utoipa::{
    IntoResponses,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder},
};
use utoipa_actix_web::service_config::ServiceConfig;

mod health;
mod metrics;
mod nodes;
mod partitions;
mod rebalance;
mod ring;
mod state;
mod stats;

pub use self::state::AppState;

/// Registers every route.
pub(crate) fn configure(config: &mut ServiceConfig<'_>) {
    nodes::configure(config);
    ring::configure(config);
    partitions::configure(config);
    rebalance::configure(config);
    stats::configure(config);
    health::configure(config);
    metrics::configure(config);
}

/// The answers that any request can meet at the edge, whatever it asks for.
pub(crate) struct EdgeErrors;

impl IntoResponses for EdgeErrors {
    fn responses() -> std::collections::BTreeMap<String, RefOr<Response>> {
        [
            (
                "429",
                "The client sends more requests than it may (`rate_limited`); `Retry-After` says when to come back",
            ),
            ("500", "The master failed (`internal`)"),
        ]
        .map(|(status, description)| (status.to_owned(), problem(description).into()))
        .into()
    }
}

/// The answers that any request with a JSON body can meet besides.
pub(crate) struct BodyErrors;

impl IntoResponses for BodyErrors {
    fn responses() -> std::collections::BTreeMap<String, RefOr<Response>> {
        [
            ("408", "The body did not arrive in time (`request_timeout`)"),
            ("413", "The body is too large (`value_too_large`)"),
            ("415", "The body is not declared as JSON (`unsupported_media_type`)"),
        ]
        .map(|(status, description)| (status.to_owned(), problem(description).into()))
        .into()
    }
}

fn problem(description: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}
