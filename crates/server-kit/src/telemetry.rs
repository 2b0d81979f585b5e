//! Log output, and the ids that tie a reply to its log line.

use std::{
    io::{self, IsTerminal},
    num::NonZeroU128,
};

use cairn_api_spec::TraceId;
use tracing_subscriber::{EnvFilter, filter::ParseError, util::SubscriberInitExt};

use crate::config::LogFormat;

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is neither a level nor a list of directives.
    #[error("log_level: {0}")]
    Filter(#[from] ParseError),
}

/// Sends log lines of `log_level` (a level or `EnvFilter` directives) to stderr. A second call in one process is
/// without effect, so that several servers can share it.
///
/// # Errors
/// When `log_level` cannot be read.
pub fn init(log_level: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let output = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(EnvFilter::builder().parse(log_level)?);
    // An error means that a subscriber is already there: the second call.
    let _ = match format {
        LogFormat::Text => output.finish().try_init(),
        // The message and its fields stand beside the time and the level, where collectors look for them.
        LogFormat::Json => output.json().flatten_event(true).finish().try_init(),
    };
    Ok(())
}

/// The id of a trace that begins here.
pub fn random_trace_id() -> TraceId {
    TraceId::from(rand::random::<NonZeroU128>())
}
