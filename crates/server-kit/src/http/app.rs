//! The one registration that yields both the routes and the OpenAPI document: no route is served and undocumented.

use actix_web::{
    App, Error, HttpResponse,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    http::header,
    web,
};
use utoipa::openapi::OpenApi;
use utoipa_actix_web::{AppExt as _, service_config::ServiceConfig};
use utoipa_swagger_ui::SwaggerUi;

use super::{Edge, extractors, route_not_found};

/// The OpenAPI 3.1 document of exactly the routes that are served; `document` has what is said beside them.
pub fn openapi(document: OpenApi, routes: fn(&mut ServiceConfig<'_>)) -> OpenApi {
    App::new().into_utoipa_app().openapi(document).configure(routes).split_for_parts().1
}

/// The application of one worker: the routes, with the data that their handlers share, and Swagger UI.
pub fn app(
    document: OpenApi,
    routes: fn(&mut ServiceConfig<'_>),
    data: impl FnOnce(&mut web::ServiceConfig),
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
    let app = App::new().wrap(edge).into_utoipa_app().openapi(document).configure(routes);
    let (app, document) = app.split_for_parts();
    app.configure(data)
        .configure(extractors)
        .service(SwaggerUi::new("/swagger-ui/{_:.*}").url("/api-docs/openapi.json", document))
        .route("/", web::get().to(to_swagger_ui))
        .default_service(web::to(route_not_found))
}

async fn to_swagger_ui() -> HttpResponse {
    HttpResponse::TemporaryRedirect().insert_header((header::LOCATION, "/swagger-ui/")).finish()
}
