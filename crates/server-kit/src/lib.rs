//! What every server needs and none owns: settings, logs, metrics, the edge of HTTP, and a graceful end.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | settings in layers (flag over environment over file over default) and the units they are written in |
//! | [`telemetry`] | log output and trace ids |
//! | [`trace`] | spans, and their way to a collector |
//! | [`metrics`] | a server's registry and its text exposition |
//! | [`http`] | the outermost middleware, the form of every error, extractors' errors, bodies with limits and deadlines |
//! | [`server`] | binding, serving, and stopping |
//! | [`healthcheck`] | the question whether a server lives |
//!
//! No word of the domain stands here, so that this crate cannot become a drawer; and nothing is global except the
//! process's one log output, so that several servers live in one process.

pub mod config;
pub mod healthcheck;
pub mod http;
pub mod metrics;
pub mod server;
pub mod telemetry;
pub mod trace;
