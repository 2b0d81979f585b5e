//! A server's registry of metrics, and its text exposition. Nothing is global: each server of a process has its own.

use actix_web::{HttpResponse, http::header};
use cairn_api_spec::{ApiError, ErrorCode};
use prometheus::{IntGauge, Opts, Registry, TextEncoder, process_collector::ProcessCollector};

use crate::http::HttpError;

/// A registry with the process's own metrics and `cairn_build_info{version,server}`.
///
/// # Errors
/// None in practice: the names are constant and the registry is new.
pub fn new_registry(server: &'static str) -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let build = Opts::new("cairn_build_info", "Always 1; the labels say what runs")
        .const_label("version", env!("CARGO_PKG_VERSION"))
        .const_label("server", server);
    let build = IntGauge::with_opts(build)?;
    build.set(1);
    registry.register(Box::new(build))?;
    Ok(registry)
}

/// All metrics in Prometheus's text format 0.0.4.
pub fn render(registry: &Registry) -> HttpResponse {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
            .body(text),
        Err(error) => HttpResponse::from_error(HttpError(ApiError::new(ErrorCode::Internal, error.to_string()))),
    }
}
