//! The span of a request between its arrival at the edge and the head of its reply, kept among the request's
//! extensions so that handlers can pass it on. There is nothing there where nobody asked for a trace.

use actix_web::{
    HttpMessage, HttpRequest,
    dev::ServiceRequest,
    http::{
        Method, StatusCode,
        header::{HeaderName, HeaderValue},
    },
};
use cairn_api_spec::{TraceContext, TraceId, trace::SpanId};

use crate::trace::{Span, SpanKind, Tracer};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

struct Traced {
    context: TraceContext,
    span: Span,
}

/// What ties log lines to a trace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ids {
    pub(super) trace: Option<TraceId>,
    /// This server's span.
    pub(super) span: Option<SpanId>,
}

/// Begins the request's span, or notes the trace that the client named, if there is either.
pub(super) fn begin(tracer: &Tracer, request: &ServiceRequest) -> Ids {
    let parent = request.headers().get(TRACEPARENT);
    let parent = parent.and_then(|header: &HeaderValue| TraceContext::parse(header.to_str().ok()?));
    let span = match tracer.is_on() && !is_probe(request.path()) {
        true => tracer.begin(method(request.method()), SpanKind::Server, parent),
        false => Span::default(),
    };
    let own = span.context();
    let Some(context) = own.or(parent) else { return Ids::default() };
    request.extensions_mut().insert(Traced { context, span });
    Ids { trace: Some(context.trace_id), span: own.map(|own| own.span_id) }
}

/// Ends what [`begin`] began.
pub(super) fn end(ids: Ids, request: &HttpRequest, status: StatusCode) {
    if ids.span.is_none() {
        return;
    }
    let Some(Traced { mut span, .. }) = request.extensions_mut().remove::<Traced>() else { return };
    let method = method(request.method());
    span.set("http.request.method", method);
    span.set_number("http.response.status_code", status.as_u16().into());
    if let Some(route) = request.match_pattern() {
        // As OpenAPI writes it: without actix's `:.*`, which lets a key have slashes.
        let route = route.replace(":.*", "");
        span.rename(format!("{method} {route}"));
        span.set("http.route", &route);
    }
    if status.is_server_error() {
        span.fail(status.canonical_reason().unwrap_or("the request failed"));
    }
}

/// The trace that a request belongs to, if anybody asked for one.
pub fn trace_of(request: &HttpRequest) -> Option<TraceContext> {
    request.extensions().get::<Traced>().map(|traced| traced.context)
}

/// Adds an attribute to the request's span, if it has one. Nothing that tells of people: no key, no value.
pub fn annotate(request: &HttpRequest, name: &'static str, value: &str) {
    if let Some(traced) = request.extensions_mut().get_mut::<Traced>() {
        traced.span.set(name, value);
    }
}

/// Somebody asks every few seconds, and nobody wants to see it.
fn is_probe(path: &str) -> bool {
    path == "/metrics" || path.starts_with("/health/")
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}
