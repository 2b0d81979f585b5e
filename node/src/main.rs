//! The `cairn-node` process: settings, logs, listeners, and a graceful end.

use std::net::SocketAddr;

use anyhow::Context as _;
use cairn_node::{Config, Listeners, run};
use cairn_server_kit::{
    config::{Task, load_from_process},
    healthcheck::check_live,
    server::{bind, shutdown_signal},
    telemetry,
};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = load_from_process();
    if config.common.task == Task::Healthcheck {
        return Ok(check_live(config.listen_addr).await?);
    }
    telemetry::init(&config.common.log_level, config.common.log_format)?;
    let metrics = config.common.metrics_port.map(|port| SocketAddr::new(config.listen_addr.ip(), port));
    let listeners = Listeners {
        http: bind(config.listen_addr)?,
        peer: bind(config.peer_addr())?,
        metrics: metrics.map(bind).transpose()?,
    };
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let _signals = tokio::spawn(async move {
        shutdown_signal().await;
        stop.cancel();
    });
    run(config, listeners, shutdown).await.context("the node stopped")
}
