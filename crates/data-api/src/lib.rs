//! The data API over HTTP, once, for both servers: handlers parse a request into an `Operation`, call one method of
//! [`DataApi`], and render the outcome. They hold no rule of their own.
//!
//! The master implements `DataApi` by forwarding, a node by its partitions. Without this room the two servers would
//! each have their own copy of the same parsing, headers and documentation.
//!
//! | module | owns |
//! |---|---|
//! | `keys`, `post`, `list`, `counter`, `batch`, `explain`, `events` | the handlers, each of which is its own documentation |
//! | `request`, `document` | what a request says: key, query and headers, JSON |
//! | `upload` | bodies on their way into a put, collected or streamed |
//! | `patience` | large values on their way to clients that may not read them |
//! | `reply` | outcomes as status, headers and body |
//! | `docs` | the parts of the OpenAPI document that operations share |

mod batch;
mod counter;
mod docs;
mod document;
mod events;
mod explain;
mod keys;
mod list;
mod patience;
mod post;
mod reply;
mod request;
mod upload;

use std::sync::Arc;

use cairn_operations::DataApi;
use cairn_server_kit::http::Budget;

/// What the handlers work on, as `web::Data<Shared>`. Each worker may have its own.
pub struct Shared {
    api: Arc<dyn DataApi>,
    /// What bodies may take.
    budget: Budget,
}

impl Shared {
    /// The data API of a domain, whose request bodies take no more than `budget`.
    pub fn new(api: Arc<dyn DataApi>, budget: Budget) -> Self {
        Self { api, budget }
    }
}

/// Registers the routes and their documentation. They need a `web::Data<Shared>`, and a
/// [`cairn_server_kit::http::Edge`] that writes the bodies of their errors.
pub fn configure(config: &mut utoipa_actix_web::service_config::ServiceConfig<'_>) {
    // actix tries the routes in this order: reads are the most frequent.
    config
        .service(keys::get_key)
        .service(keys::put_key)
        .service(keys::head_key)
        .service(keys::delete_key)
        .service(post::post_key)
        .service(list::list_keys)
        .service(batch::execute_batch)
        .service(counter::increment_counter)
        .service(explain::explain_key)
        .service(events::follow_events)
        .service(docs::Schemas);
}
