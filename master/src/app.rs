//! The one registration that yields both the routes and the OpenAPI document: a route cannot
//! be served and undocumented.

use actix_web::{
    App, Error, HttpResponse,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    http::header,
    web,
};
use cairn_server_kit::http::{Edge, extractors, route_not_found};
use utoipa::OpenApi as _;
use utoipa_actix_web::{AppExt as _, service_config::ServiceConfig};
use utoipa_swagger_ui::SwaggerUi;

use crate::routes::{self, AppState};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Cairn master",
        description = "The cluster of a Cairn distributed cache: its nodes, its partition map, its keys.",
        license(name = "MIT")
    ),
    tags(
        (name = "keys", description = "Keys and their values, forwarded to the nodes that own them"),
        (name = "cluster", description = "Nodes, the partition map, statistics"),
        (name = "operations", description = "Health and metrics"),
    )
)]
struct Document;

/// Registers every route of the master.
pub fn configure(config: &mut ServiceConfig<'_>) {
    cairn_data_api::configure(config);
    routes::configure(config);
}

/// The OpenAPI 3.1 document of exactly the routes that are served.
pub fn openapi() -> utoipa::openapi::OpenApi {
    App::new().into_utoipa_app().openapi(Document::openapi()).configure(configure).split_for_parts().1
}

/// The application of one worker.
pub(crate) fn app(
    state: AppState,
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
    let (app, document) = App::new()
        .wrap(edge)
        .into_utoipa_app()
        .openapi(Document::openapi())
        .configure(configure)
        .app_data(web::Data::new(state))
        .app_data(web::Data::new(keys))
        .split_for_parts();
    app.configure(extractors)
        .service(SwaggerUi::new("/swagger-ui/{_:.*}").url("/api-docs/openapi.json", document))
        .route("/", web::get().to(to_swagger_ui))
        .default_service(web::to(route_not_found))
}

async fn to_swagger_ui() -> HttpResponse {
    HttpResponse::TemporaryRedirect().insert_header((header::LOCATION, "/swagger-ui/")).finish()
}
