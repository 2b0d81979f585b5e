//! The settings that every server has, and the units that settings are written in.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use tracing_subscriber::EnvFilter;

/// The settings that every server has, for `#[command(flatten)]`.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// What the process does: `healthcheck` asks the server with these settings whether it lives, and exits with 0 or 1
    #[arg(value_enum, default_value_t)]
    pub task: Task,
    /// Port of a second listener, on the same host, that has only `/metrics`
    #[arg(long)]
    pub metrics_port: Option<u16>,
    /// What to log: a level, or directives such as `info,cairn_node=debug`
    #[arg(long, default_value = "info", value_parser = parse_log_level)]
    pub log_level: String,
    /// How log lines are written
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// URL of a collector that takes traces as OTLP over HTTP, such as http://127.0.0.1:4318; without it, no traces
    #[arg(long, value_parser = parse_collector_url)]
    pub otel_endpoint: Option<String>,
    /// Share of the requests that are traced, 0 to 1; where a client sends `traceparent`, that decides
    #[arg(long, default_value_t = 1.0, value_parser = parse_ratio)]
    pub otel_sample_ratio: f64,
    /// Operations on keys that take so long are logged, 1ms to 1h, at most ten a second; 0 = none
    #[arg(long, default_value = "1s", value_parser = duration_in(Duration::ZERO..=Duration::from_secs(3600)))]
    pub slow_operation: Duration,
    /// Requests per second that one client (an IPv4 address, an IPv6 /64 network) may send; 0 = no limit
    #[arg(long, default_value_t = 0)]
    pub rate_limit: u32,
    /// Most bytes of values that the server holds on their way in and out, 16MiB to 1TiB; a client waits 5 s for room
    #[arg(long, default_value = "128MiB", value_parser = bytes_in(16 << 20..=1 << 40))]
    pub body_memory: u64,
    /// Threads that serve HTTP, at most 256; 0 = one per core
    #[arg(long, default_value_t = 0, value_parser = RangedU64ValueParser::<usize>::new().range(0..=256))]
    pub workers: usize,
    /// How long requests in flight may take to end when the server stops, 1 to 60 seconds
    #[arg(long, default_value = "8", value_parser = parse_shutdown_timeout)]
    pub shutdown_timeout: Duration,
}

/// What a server's process does.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// Serves until it is told to stop.
    #[default]
    Serve,
    /// Asks the server whether it lives: see [`check_live`](crate::healthcheck::check_live).
    Healthcheck,
}

/// The form of a log line.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for collectors.
    Json,
}

fn parse_log_level(text: &str) -> Result<String, String> {
    EnvFilter::builder().parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Without TLS, which our HTTP client does not have.
fn parse_collector_url(text: &str) -> Result<String, String> {
    match reqwest::Url::parse(text) {
        Ok(url) if url.scheme() == "http" && url.host().is_some() && url.query().is_none() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("must be an http URL such as http://127.0.0.1:4318".to_owned()),
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or_else(|| "must be 0 to 1".to_owned())
}

fn parse_shutdown_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration_setting(text)?;
    let bounds = Duration::from_secs(1)..=Duration::from_secs(60);
    bounds.contains(&timeout).then_some(timeout).ok_or_else(|| format!("{text} is not within 1 to 60 seconds"))
}

/// Reads `30` (seconds), `250ms`, `10s`, `5m`, `1h`.
///
/// # Errors
/// What would be right.
pub fn parse_duration_setting(text: &str) -> Result<Duration, String> {
    let units = [("", 1_000), ("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    scaled(text, &units).map(Duration::from_millis).ok_or_else(|| {
        format!("`{text}` is not a duration: write whole seconds, or a whole number with ms, s, m or h, such as 250ms")
    })
}

/// Reads a number of bytes: `1048576`, `64KiB`, `1MiB`, `2GiB`, `1TiB`, `500MB` and their like.
///
/// # Errors
/// What would be right.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("", 1),
        ("B", 1),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    scaled(text, &units).ok_or_else(|| {
        format!(
            "`{text}` is not a size: write bytes, or a whole number with KiB, MiB, GiB, KB, MB or GB, such as 64MiB"
        )
    })
}

/// A whole number times the unit behind it.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A parser for durations within bounds.
pub fn duration_in(
    bounds: std::ops::RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| {
        let value = parse_duration_setting(text)?;
        let (least, most) = (bounds.start(), bounds.end());
        if bounds.contains(&value) { Ok(value) } else { Err(format!("must be {least:?} to {most:?}")) }
    }
}

/// A parser for byte counts within bounds.
pub fn bytes_in(
    bounds: std::ops::RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let value = parse_bytes(text)?;
        let (least, most) = (bounds.start(), bounds.end());
        if bounds.contains(&value) { Ok(value) } else { Err(format!("must be {least} to {most} bytes")) }
    }
}
