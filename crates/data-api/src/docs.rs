//! The parts of the OpenAPI document that operations share: parameters, and the errors that they can end in, taken
//! from the table of codes. Nothing here runs while a request is served.

#![expect(dead_code, reason = "the parameters' fields are only documented; `request` reads them more strictly")]

use std::collections::BTreeMap;

use actix_web::dev::{AppService, HttpServiceFactory};
use cairn_api_spec::{
    ApiError,
    ErrorCode::{self, *},
    error::Problem,
    operation::{Consistency, Durability},
};
use utoipa::{
    IntoParams, IntoResponses, PartialSchema, ToSchema,
    openapi::{
        Content, Header, Object, Paths, Ref, RefOr, Response, Schema,
        schema::{SchemaType, Type},
    },
};
use utoipa_actix_web::OpenApiFactory;

/// Bytes, as they are.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(crate) struct Binary(Vec<u8>);

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct KeyPath {
    /// 1 to 1,024 bytes of UTF-8 without control characters: all the rest of the path, percent-decoded once. A slash may
    /// be written as it is or as `%2F`.
    #[param(example = "user:42")]
    key: String,
}

// Swagger UI fills in the examples of parameters: optional ones have none, or "Try it out" would send them all.

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct BucketQuery {
    /// Which bucket the key is in: `[a-z0-9][a-z0-9._-]{0,62}`.
    #[param(value_type = String, required = false, default = "default")]
    bucket: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DurabilityQuery {
    /// What must have happened on every in-sync replica before the reply; the server's default is `disk`.
    #[param(value_type = Durability, required = false)]
    durability: Durability,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ConsistencyQuery {
    /// `strong`, the default, sees every write that was answered before. `eventual` may be answered by any in-sync
    /// replica: it goes on while the primary is being replaced, and spreads the reads of a hot key.
    #[param(value_type = Consistency, required = false)]
    consistency: Consistency,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TtlQuery {
    /// How long the value lives: whole seconds, or `250ms`, `10s`, `10m`, `1h`, `7d`; above 0, at most ten years. It
    /// goes before `Cache-Control`.
    #[param(value_type = String, required = false)]
    ttl: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct CacheControl {
    /// `max-age=N` is a time to live of N seconds, when `ttl` is not given; other directives are not looked at.
    #[param(rename = "Cache-Control", value_type = String, required = false)]
    cache_control: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct Conditions {
    /// `"1099511627777"`, a version in quotes: only when the key has it. `*`: only when it exists. Not together with `If-None-Match`.
    #[param(rename = "If-Match", value_type = String, required = false)]
    if_match: String,
    /// `"1099511627777"`: only when the key does not have this version. `*`: only when it does not exist.
    #[param(rename = "If-None-Match", value_type = String, required = false)]
    if_none_match: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct Idempotency {
    /// 1 to 255 visible ASCII characters, made up for this one write, such as a random UUID. For ten minutes the same
    /// write sent again under it is not done again, and gets the first one's answer.
    #[param(rename = "Idempotency-Key", value_type = String, required = false)]
    idempotency_key: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct BatchIdempotency {
    /// 1 to 251 visible ASCII characters, made up for this one batch. Each write of it counts as sent under this key, a
    /// colon and its place in the batch, from 0: `order-17:0`. For ten minutes the same batch sent again under it does no
    /// write again, and gets the first answers.
    #[param(rename = "Idempotency-Key", value_type = String, required = false)]
    idempotency_key: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Only keys that begin with this.
    #[param(value_type = String, required = false)]
    prefix: String,
    /// The most keys on a page.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 1_000, default = 100)]
    limit: u32,
    /// The `next_cursor` of the page before, with the same bucket and prefix.
    #[param(value_type = String, required = false)]
    cursor: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Which bucket the keys are in: `[a-z0-9][a-z0-9._-]{0,62}`, or `*` for every bucket.
    #[param(value_type = String, required = false, default = "default")]
    bucket: String,
    /// Only keys that begin with this; not with `bucket=*`.
    #[param(value_type = String, required = false)]
    prefix: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct LastEventId {
    /// The `id` of the last event that the reader has seen, to go on behind it.
    #[param(rename = "Last-Event-ID", value_type = String, required = false)]
    last_event_id: String,
}

/// The schemas that parameters and errors refer to: utoipa collects those of bodies only. It serves nothing.
pub(crate) struct Schemas;

impl HttpServiceFactory for Schemas {
    fn register(self, _: &mut AppService) {}
}

impl OpenApiFactory for Schemas {
    fn paths(&self) -> Paths {
        Paths::new()
    }

    fn schemas(&self, schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Problem::name().into(), Problem::schema()));
        <Problem as ToSchema>::schemas(schemas);
        schemas.push((Consistency::name().into(), Consistency::schema()));
        schemas.push((Durability::name().into(), Durability::schema()));
    }
}

const COMMON: &[ErrorCode] = &[
    BadRequest,
    InvalidBucket,
    InvalidParameter,
    RequestTimeout,
    NotOwner,
    RateLimited,
    Internal,
    NoNodes,
    PartitionOffline,
    Overloaded,
    ShuttingDown,
];

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $codes:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                problems(&$codes)
            }
        }
    )*};
}

errors! {
    /// How GET and HEAD can fail.
    ReadErrors = [InvalidKey, KeyNotFound, PreconditionFailed, ObjectStoreUnavailable];
    /// How PUT can fail.
    PutErrors = [
        InvalidKey, InvalidTtl, InvalidBody, PreconditionFailed, ValueTooLarge, UnsupportedMediaType, BelowMinInSync,
        ObjectStoreUnavailable, OutcomeUnknown, StorageFull,
    ];
    /// How DELETE can fail.
    DeleteErrors = [
        InvalidKey, KeyNotFound, PreconditionFailed, BelowMinInSync, ObjectStoreUnavailable, OutcomeUnknown,
        StorageFull,
    ];
    /// How an increment can fail.
    IncrementErrors = [
        InvalidKey, InvalidTtl, InvalidBody, NotAnInteger, PreconditionFailed, ValueTooLarge, UnsupportedMediaType,
        BelowMinInSync, ObjectStoreUnavailable, OutcomeUnknown, StorageFull,
    ];
    /// How a batch as a whole can fail.
    BatchErrors = [InvalidBody, ValueTooLarge, UnsupportedMediaType];
    /// How an explanation can fail.
    ExplainErrors = [InvalidKey];
    /// How a listing can fail.
    ListErrors = [];
    /// How following events can fail.
    EventErrors = [];
}

/// One response for each status, which lists the codes that come with it.
fn problems(own: &[ErrorCode]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status = BTreeMap::<u16, Vec<ErrorCode>>::new();
    for code in own.iter().chain(COMMON) {
        by_status.entry(code.status()).or_default().push(*code);
    }
    by_status.into_iter().map(|(status, codes)| (status.to_string(), problem(status, &codes).into())).collect()
}

fn problem(status: u16, codes: &[ErrorCode]) -> Response {
    let described: Vec<_> = codes.iter().map(|code| format!("`{}`: {}.", code.as_str(), code.title())).collect();
    let example = codes.first().map(|code| {
        let error = ApiError::new(*code, format!("{}.", code.title()));
        serde_json::json!(Problem::new(&error, "4bf92f3577b34da6a3ce929d0e0e4736".to_owned()))
    });
    let schema = Ref::from_schema_name("Problem");
    let content = Content::builder().schema(Some(schema)).example(example).build();
    let mut response =
        Response::builder().description(described.join(" ")).content("application/problem+json", content);
    if matches!(status, 404 | 409 | 412) {
        response = response
            .header("ETag", header(Type::String, "The key's version, quoted; `\"0\"` means never seen, or forgotten."));
    }
    if matches!(status, 429 | 503) {
        response = response.header("Retry-After", header(Type::Integer, "Seconds after which a retry makes sense."));
    }
    response.build()
}

fn header(of: Type, description: &str) -> Header {
    let schema = Object::builder().schema_type(SchemaType::Type(of)).build();
    Header::builder().schema(Some(schema)).description(Some(description)).build()
}
