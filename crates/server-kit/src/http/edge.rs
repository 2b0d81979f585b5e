//! The one outermost middleware. Everything that must hold for every request is here and nowhere else: the rate limit,
//! the counters, the request's span, the form of an error, and the pace of bodies that no handler paces.
//!
//! A success that is not traced pays for one boxed future, three relaxed atomics and a look for `traceparent`; all
//! labels are resolved at start.

use std::{
    future::{Ready, ready},
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    rc::Rc,
    sync::Arc,
};

use actix_web::{
    Error, HttpRequest, HttpResponse,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready},
    error::InternalError,
    http::{Method, StatusCode, header},
    web::Bytes,
};
use cairn_api_spec::{ApiError, ErrorCode, TraceId, error::Problem, trace::SpanId};
use futures_util::future::LocalBoxFuture;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{
    HttpError, Pace,
    held::{SharedBody, hold},
    traced::{self, Ids},
};
use crate::{telemetry::random_trace_id, trace::Tracer};

const METHODS: [&str; 8] = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "other"];

/// The outermost middleware, `App::new().wrap(edge.clone())`. Clones share their counters and limits.
#[derive(Clone)]
pub struct Edge {
    shared: Arc<Shared>,
    pace: Pace,
}

#[derive(Clone)]
struct Shared {
    limiter: Option<Arc<Limiter>>,
    requests: Vec<IntCounter>,
    errors: Vec<IntCounter>,
    in_flight: IntGauge,
    tracer: Tracer,
}

impl Edge {
    /// Registers `cairn_requests_total{method}`, `cairn_errors_total{code}` and `cairn_requests_in_flight`.
    /// `rate_limit` is what one client may send, in requests per second and at once; 0 = no limit.
    ///
    /// # Errors
    /// When the registry already has these metrics.
    pub fn new(registry: &Registry, rate_limit: u32) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, label: &str, values: &mut dyn Iterator<Item = &str>| {
            let family = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(family.clone()))?;
            values.map(|value| family.get_metric_with_label_values(&[value])).collect::<Result<Vec<_>, _>>()
        };
        let in_flight = IntGauge::new("cairn_requests_in_flight", "HTTP requests that have no reply yet")?;
        registry.register(Box::new(in_flight.clone()))?;
        let codes = &mut ErrorCode::ALL.iter().map(|code| code.as_str());
        let shared = Shared {
            limiter: NonZeroU32::new(rate_limit).map(|rate| Arc::new(Limiter::new(rate))),
            requests: counters("cairn_requests_total", "HTTP requests by method", "method", &mut METHODS.into_iter())?,
            errors: counters("cairn_errors_total", "HTTP replies with an error, by its code", "code", codes)?,
            in_flight,
            tracer: Tracer::default(),
        };
        Ok(Self { shared: Arc::new(shared), pace: Pace::default() })
    }

    /// The same with a span for each request.
    #[must_use]
    pub fn with_tracer(self, tracer: Tracer) -> Self {
        Self { shared: Arc::new(Shared { tracer, ..Shared::clone(&self.shared) }), ..self }
    }

    /// The same with another pace for chunked and JSON bodies.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }
}

/// One token bucket per client. The clients are folded into a fixed number of buckets, so the table is bounded (by
/// some 8 MiB) whatever comes; two clients share a bucket with a chance of one in [`Limiter::BUCKETS`].
struct Limiter {
    buckets: DefaultKeyedRateLimiter<u64>,
    hasher: RandomState,
}

impl Limiter {
    const BUCKETS: u64 = 1 << 18;

    fn new(rate: NonZeroU32) -> Self {
        Self { buckets: RateLimiter::keyed(Quota::per_second(rate)), hasher: RandomState::new() }
    }

    fn admits(&self, client: IpAddr) -> bool {
        let client = match client {
            // One subscriber has a whole /64.
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            other => other.to_canonical(),
        };
        self.buckets.check_key(&(self.hasher.hash_one(client) % Self::BUCKETS)).is_ok()
    }
}

impl Shared {
    fn count(&self, method: &Method) {
        let index = match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::PUT => 2,
            Method::POST => 3,
            Method::DELETE => 4,
            Method::PATCH => 5,
            Method::OPTIONS => 6,
            _ => 7,
        };
        self.requests[index].inc();
    }

    /// Headers such as `X-Forwarded-For` are the client's own words and do not count.
    fn admits(&self, request: &ServiceRequest) -> bool {
        let Some(limiter) = &self.limiter else { return true };
        request.peer_addr().is_none_or(|peer| limiter.admits(peer.ip()))
    }

    /// Gives a failed reply its document, counts it and logs it. `request` is unknown when a middleware failed.
    fn explain<B>(
        &self,
        request: Option<&HttpRequest>,
        response: HttpResponse<B>,
        ids: Ids,
    ) -> HttpResponse<EitherBody<B>> {
        let made;
        let error = match response.error().and_then(Error::as_error::<HttpError>) {
            Some(HttpError(error)) => error,
            None => {
                made = from_status(response.status(), response.error());
                &made
            }
        };
        self.errors[error.code as usize].inc();
        let trace_id = ids.trace.or(error.trace_id).unwrap_or_else(random_trace_id);
        log(request, &response, error, trace_id, ids.span);

        let retry_after = error.retry_after;
        let mut problem = Problem::new(error, trace_id.to_string());
        problem.status = response.status().as_u16();
        let document = Bytes::from(serde_json::to_vec(&problem).unwrap_or_default());
        let mut response = response.set_body(EitherBody::right(BoxBody::new(document)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::CONTENT_ENCODING);
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The error of a reply that no handler made, or that a handler made without an [`HttpError`].
fn from_status(status: StatusCode, cause: Option<&Error>) -> ApiError {
    let code = match status {
        StatusCode::NOT_FOUND => ErrorCode::RouteNotFound,
        StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
        StatusCode::REQUEST_TIMEOUT => ErrorCode::RequestTimeout,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::ValueTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
        StatusCode::TOO_MANY_REQUESTS => ErrorCode::RateLimited,
        StatusCode::SERVICE_UNAVAILABLE => ErrorCode::Overloaded,
        status if status.is_server_error() => ErrorCode::Internal,
        _ => ErrorCode::BadRequest,
    };
    match cause {
        // The cause of a failure inside is for the log, not for the client.
        Some(cause) if status.is_client_error() => HttpError::cut(code, &cause.to_string()).0,
        _ => ApiError::new(code, status.canonical_reason().unwrap_or("the request failed")),
    }
}

fn log<B>(
    request: Option<&HttpRequest>,
    response: &HttpResponse<B>,
    error: &ApiError,
    trace_id: TraceId,
    span_id: Option<SpanId>,
) {
    let span_id = span_id.map(tracing::field::display);
    let status = response.status().as_u16();
    let method = request.map(|request| request.method().as_str());
    let path = request.map(HttpRequest::path);
    let code = error.code.as_str();
    // A probe that says no is an answer, and comes again every second.
    let probe = path.is_some_and(|path| path.starts_with("/health/"));
    match status {
        500 => tracing::error!(%trace_id, span_id, method, path, status, code, "{}", error.detail),
        501.. if !probe => tracing::warn!(%trace_id, span_id, method, path, status, code, "{}", error.detail),
        _ => tracing::debug!(%trace_id, span_id, method, path, status, code, "{}", error.detail),
    }
}

impl<S, B> Transform<S, ServiceRequest> for Edge
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = EdgeService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(EdgeService { service, shared: Rc::new(Shared::clone(&self.shared)), pace: self.pace }))
    }
}

/// [`Edge`] around one worker's service.
pub struct EdgeService<S> {
    service: S,
    /// A copy per worker, so that a request does not touch a reference count that all workers share.
    shared: Rc<Shared>,
    pace: Pace,
}

impl<S, B> Service<ServiceRequest> for EdgeService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Error>>;

    forward_ready!(service);

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        self.shared.count(request.method());
        let ids = traced::begin(&self.shared.tracer, &request);
        let body = SharedBody::take(&mut request, self.pace);
        if !self.shared.admits(&request) {
            let (request, _) = request.into_parts();
            let detail = "this client sends more requests per second than are taken from one client";
            let response = HttpResponse::from_error(HttpError(ApiError::new(ErrorCode::RateLimited, detail)));
            traced::end(ids, &request, response.status());
            let response = self.shared.explain(Some(&request), response, ids);
            let response = response.map_into_boxed_body().map_into_right_body();
            return Box::pin(ready(Ok(hold(body, ServiceResponse::new(request, response)))));
        }
        let in_flight = InFlight::begin(&self.shared);
        let reply = self.service.call(request);
        Box::pin(async move {
            let reply = reply.await;
            let shared = &in_flight.0;
            if let Ok(reply) = &reply {
                traced::end(ids, reply.request(), reply.status());
            }
            let reply = match reply {
                Ok(reply) if reply.status().as_u16() < 400 => reply.map_into_left_body(),
                Ok(reply) => {
                    let (request, response) = reply.into_parts();
                    let response = shared.explain(Some(&request), response, ids);
                    ServiceResponse::new(request, response)
                }
                Err(error) => {
                    let response = shared.explain(None, HttpResponse::from_error(error), ids).map_into_boxed_body();
                    return Err(InternalError::from_response("a middleware failed", response).into());
                }
            };
            Ok(hold(body, reply))
        })
    }
}

/// Counts a request until its reply begins, also when the client leaves before.
struct InFlight(Rc<Shared>);

impl InFlight {
    fn begin(shared: &Rc<Shared>) -> Self {
        shared.in_flight.inc();
        Self(Rc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}
