//! What the server says of itself, and which routes it serves.

use actix_web::{
    App, Error,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    web,
};
use cairn_server_kit::http::Edge;
use utoipa::OpenApi as _;
use utoipa_actix_web::service_config::ServiceConfig;

use super::routes;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Cairn node",
        description = "One node of a Cairn distributed cache: the keys of the partitions that it owns.",
        license(name = "MIT")
    ),
    tags(
        (name = "keys", description = "Keys and their values"),
        (name = "operations", description = "Health, statistics and metrics"),
    )
)]
struct Document;

fn configure(config: &mut ServiceConfig<'_>) {
    cairn_data_api::configure(config);
    routes::configure(config);
}

/// The OpenAPI 3.1 document of exactly the routes that are served.
pub fn openapi() -> utoipa::openapi::OpenApi {
    cairn_server_kit::http::openapi(Document::openapi(), configure)
}

/// The application of one worker.
pub(crate) fn app(
    state: routes::AppState,
    keys: cairn_data_api::Shared,
    edge: Edge,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    let data = |config: &mut web::ServiceConfig| {
        config.app_data(web::Data::new(state)).app_data(web::Data::new(keys));
    };
    cairn_server_kit::http::app(Document::openapi(), configure, data, edge)
}
