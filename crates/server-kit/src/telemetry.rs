//! Log output, and the ids that tie a reply to its log line.

use std::{
    fmt,
    io::{self, IsTerminal},
};

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
        .with_env_filter(parse_filter(log_level)?);
    // An error means that a subscriber is already there: the second call.
    let _ = match format {
        LogFormat::Text => output.finish().try_init(),
        LogFormat::Json => output.json().finish().try_init(),
    };
    Ok(())
}

pub(crate) fn parse_filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(text)
}

/// The id of one request across processes: the `trace-id` of W3C Trace Context. Displays as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

impl TraceId {
    /// A new id.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The id in a `traceparent` header (W3C Trace Context, section 3.2), `None` when the header is not valid.
    pub fn from_traceparent(header: &str) -> Option<Self> {
        let is_hex = |text: &str, length| {
            text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut fields = header.split('-');
        let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let well_formed = is_hex(version, 2) && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
        // Version 00 ends here; later versions may have more fields; ff is forbidden.
        let ends = fields.next().is_none() || version != "00";
        if !well_formed || !ends || version == "ff" || parent.bytes().all(|byte| byte == b'0') {
            return None;
        }
        u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0).map(Self)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
