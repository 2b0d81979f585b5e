//! Log output, and the ids that tie a reply to its log line.

use std::{
    fs::File,
    io::{self, IsTerminal},
    num::NonZeroU128,
    path::PathBuf,
    sync::OnceLock,
};

use cairn_api_spec::TraceId;
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{LevelFilter, ParseError},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    registry,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

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
    let lines = lines(format, io::stderr, io::stderr().is_terminal());
    begin(registry().with(lines.with_filter(EnvFilter::builder().parse(log_level)?)));
    Ok(())
}

/// The same to a file, which is begun anew with the first line; warnings and errors go to stderr, too.
///
/// # Errors
/// When `log_level` cannot be read.
pub fn init_to_file(log_level: &str, format: LogFormat, path: PathBuf) -> Result<(), TelemetryError> {
    let file = OnceLock::new();
    let file = move || -> Box<dyn io::Write> {
        match file.get_or_init(|| File::create(&path).ok()).as_ref().and_then(|file| file.try_clone().ok()) {
            Some(file) => Box::new(file),
            // Nothing is lost without a word.
            None => Box::new(io::stderr()),
        }
    };
    let all = lines(format, file, false).with_filter(EnvFilter::builder().parse(log_level)?);
    let urgent = lines(LogFormat::Text, io::stderr, io::stderr().is_terminal()).with_filter(LevelFilter::WARN);
    begin(registry().with(all).with(urgent));
    Ok(())
}

fn lines<S, W>(format: LogFormat, to: W, colours: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(to).with_ansi(colours);
    match format {
        LogFormat::Text => lines.boxed(),
        // The message and its fields stand beside the time and the level, where collectors look for them.
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

fn begin(subscriber: impl Into<Dispatch>) {
    // An error means that a subscriber is already there: the second call.
    let _ = subscriber.try_init();
}

/// The id of a trace that begins here.
pub fn random_trace_id() -> TraceId {
    TraceId::from(rand::random::<NonZeroU128>())
}
