//! The master: it knows the nodes, keeps the partition map, and lets clients reach every key through one address.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | every setting |
//! | [`clock`] | the clock of the driver; what decides takes the time as an argument |
//! | [`metastore`] | the stored truth: compare-and-swap over SQLite |
//! | [`registry`] | who is registered, who was heard when |
//! | [`meter`] | rates |
//! | [`validation`] | what a registration may say |
//! | [`resolver`] | which addresses a name stands for |
//! | [`map`] | the stored partition map and its copy in memory |
//! | [`plan`] | who should hold what, and the steps towards it |
//! | [`controller`] | the one writer of the map: takes those steps, and those that primaries ask for |
//! | [`rebalance`] | how fast the map moves, and how far it has come |
//! | [`ring`] | the map as requests read it |
//! | `gateway` | the way of every key to its owner |
//! | [`cluster`] | registry and map read together: nodes, statistics, readiness |
//! | [`app`], `routes` | HTTP, and its OpenAPI document |
//! | [`error`] | what can go wrong, and what a client is told |
//! | [`metrics`] | what Prometheus is told |
//!
//! The master holds no key. What it knows of liveness is lost with it and learned again within seconds; all else
//! stands in the metadata store.

use std::{io, net::TcpListener, sync::Arc};

use cairn_operations::{DataMetrics, SlowLog};
use cairn_server_kit::{
    http::{Budget, Edge},
    metrics::new_registry,
    server::{HttpOptions, serve, serve_metrics, warn_if_open},
    trace::{TraceError, Tracer},
};
use tokio_util::sync::CancellationToken;

pub mod app;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod error;
mod gateway;
pub mod map;
pub mod metastore;
pub mod meter;
pub mod metrics;
pub mod plan;
pub mod rebalance;
pub mod registry;
pub mod resolver;
pub mod ring;
mod routes;
pub mod validation;

pub use app::openapi;
pub use config::Config;
pub use map::OpenError;
pub use routes::AppState;

use crate::{
    clock::Clock,
    cluster::Cluster,
    config::ContradictorySettings,
    controller::{Controller, Pace, Shape},
    metastore::{MetadataStore, StoreError, sqlite::SqliteStore},
    metrics::Metrics,
    rebalance::{Limits, Rebalancing},
    registry::{Patience, Registry},
    ring::PublishedRing,
};

/// What a learner fetches at once besides one value, at most.
const PAGE_BYTES: u64 = 1 << 20;

/// The sockets that the master serves.
#[derive(Debug)]
pub struct Listeners {
    /// The API.
    pub http: TcpListener,
    /// `/metrics` alone, when it has a port of its own.
    pub metrics: Option<TcpListener>,
}

/// Why the master does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Settings that contradict each other.
    #[error(transparent)]
    Settings(#[from] ContradictorySettings),
    /// The metadata store cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A metric could not be registered.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// The HTTP client could not be set up.
    #[error(transparent)]
    HttpClient(#[from] reqwest::Error),
    /// Tracing could not begin.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A listener failed.
    #[error(transparent)]
    Serve(#[from] io::Error),
}

/// Serves until `shutdown`, then lets requests in flight end and closes the store.
///
/// # Errors
/// [`RunError`] when the master cannot start, or a listener fails.
pub async fn run(config: Config, listeners: Listeners, shutdown: CancellationToken) -> Result<(), RunError> {
    config.check()?;
    let store = Arc::new(SqliteStore::open(&config.data_dir).await.map_err(OpenError::Store)?);
    // Whatever ends first ends the rest.
    let stop = shutdown.child_token();
    let served = run_over(&config, store.clone(), listeners, stop).await;
    store.close().await;
    served
}

async fn run_over(
    config: &Config,
    store: Arc<dyn MetadataStore>,
    listeners: Listeners,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let own = listeners.http.local_addr()?;
    let prometheus = new_registry("master")?;
    let metrics = Metrics::new(&prometheus)?;
    let clock = Clock::start();
    let cluster = Arc::new(open_cluster(config, store.clone(), own.port(), clock).await.map_err(OpenError::Store)?);
    let pace = Pace {
        settle: config.settle,
        tick: config.heartbeat_interval / 2,
        // A learner says with its heartbeats how far it is: some of them must fit in.
        stuck_after: config.stuck_after.max(config.heartbeat_interval * 8),
        page_bytes: config.max_value_bytes.saturating_add(PAGE_BYTES),
    };
    let shape = Shape { partition_count: config.partitions, vnodes: config.vnodes, replication: config.replication() };
    let retries = metrics.gateway_retries.clone();
    let controller = Arc::new(Controller::open(store, cluster.clone(), metrics, shape, pace, clock).await?);
    let (tracer, exporter) = Tracer::start(&config.common, "cairn-master", &own.to_string(), &prometheus)?;
    let edge = Edge::new(&prometheus, config.common.rate_limit)?.with_tracer(tracer.clone());
    let operations = DataMetrics::new(&prometheus, SlowLog::new(config.common.slow_operation))?;
    let plan = gateway::Plan::new(cluster.clone(), config, gateway::Watch { operations, retries, tracer })?;
    let (events, ring) = (plan.events.clone(), cluster.clone());
    let state = AppState {
        cluster,
        controller: controller.clone(),
        clock,
        metrics: prometheus.clone(),
        shutdown: stop.clone(),
    };
    let budget = Budget::new(config.common.body_memory);
    let options = HttpOptions { workers: config.common.workers, shutdown_timeout: config.common.shutdown_timeout };
    warn_if_open(own);
    tracing::info!(address = %own, "the master listens");

    let _stop_on_drop = stop.clone().drop_guard();
    let control = async {
        controller.run(stop.clone()).await;
        Ok(())
    };
    let api = stopping(
        &stop,
        serve(listeners.http, options, stop.clone(), move || {
            let keys = cairn_data_api::Shared::new(Arc::new(plan.gateway()), budget.clone());
            app::app(state.clone(), keys, edge.clone())
        }),
    );
    let scrapes = async {
        match listeners.metrics {
            Some(listener) => stopping(&stop, serve_metrics(listener, prometheus, stop.clone())).await,
            None => Ok(()),
        }
    };
    let (control, api, scrapes, ()) = tokio::join!(control, api, scrapes, events.run(&ring.ring, stop.clone()));
    exporter.finish().await;
    control.and(api).and(scrapes).map_err(RunError::Serve)
}

async fn open_cluster(
    config: &Config,
    store: Arc<dyn MetadataStore>,
    own_port: u16,
    clock: Clock,
) -> Result<Cluster, StoreError> {
    let patience = Patience {
        suspect_after: config.suspect_after,
        gone_after: config.gone_after,
        replace_after: config.replace_after,
        max_clock_skew: config.max_clock_skew,
    };
    let limits =
        Limits { paused: false, max_moves: config.max_moves, bytes_per_second: config.transfer_bytes_per_second };
    let rebalancing = Rebalancing::load(store.clone(), limits).await?;
    Ok(Cluster {
        registry: Registry::load(store, patience, own_port, clock.now()).await?,
        ring: PublishedRing::empty(),
        rebalancing,
    })
}

/// A server that ends takes the others with it.
async fn stopping(stop: &CancellationToken, server: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let result = server.await;
    stop.cancel();
    result
}
