//! The composition root: what a running node is made of, and the order in which it starts and stops.

use std::{
    fs::{File, TryLockError},
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use cairn_api_spec::cluster::{RegisterNode, Ring};
use cairn_engine::TierError;
use cairn_link::Limits;
use cairn_operations::SlowLog;
use cairn_server_kit::{
    http::{Budget, Edge},
    metrics::new_registry,
    server::{HttpOptions, serve, serve_metrics, warn_if_open},
    trace::{TraceError, Tracer},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{
        collect,
        masters::Masters,
        membership,
        ownership::{Identity, Ownership},
        peers::Peers,
        protocol,
    },
    config::Config,
    doors::{api::NodeApi, http, link::LinkService, routes::AppState},
    driver::{self, Driver, checkpoint, moving, sweep, upload},
    error::NodeError,
    metrics::NodeMetrics,
    tiers::object::ObjectStore,
};

/// The sockets that the node serves.
#[derive(Debug)]
pub struct Listeners {
    /// The API.
    pub http: TcpListener,
    /// The link, for masters and other nodes.
    pub peer: TcpListener,
    /// `/metrics` alone, when it has a port of its own.
    pub metrics: Option<TcpListener>,
}

/// Why the node does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener or a directory failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A metric could not be registered.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// Tracing could not begin.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The HTTP client could not be set up.
    #[error(transparent)]
    HttpClient(#[from] reqwest::Error),
    /// The data directory cannot be used.
    #[error("the data directory cannot be used")]
    Store(#[from] NodeError),
    /// Another process has the data directory.
    #[error("another process uses the data directory {}: every node needs one of its own", .0.display())]
    DataInUse(PathBuf),
    /// The data in the directory are another cluster's.
    #[error(
        "{what} of the data directory is {stored}, that of the master is {offered}: use another data_dir or other master_urls"
    )]
    ForeignData {
        /// What differs.
        what: &'static str,
        /// What the directory says.
        stored: String,
        /// What the master says.
        offered: String,
    },
}

/// Serves until `shutdown`, then lets requests in flight end and closes the tiers.
///
/// # Errors
/// [`RunError`] when the node cannot start, or a listener fails.
pub async fn run(config: Config, listeners: Listeners, shutdown: CancellationToken) -> Result<(), RunError> {
    // What it was asked to do before it stops comes first, so this is no child of `shutdown`.
    let stop = CancellationToken::new();
    let _stop_on_drop = stop.clone().drop_guard();
    let _lock = lock_data_dir(&config.data_dir)?;
    let registry = new_registry("node")?;
    let driver = Arc::new(OnceLock::new());
    let peers = Arc::new(Peers::default());
    let node_id = node_id(&config)?;
    let own = listeners.http.local_addr()?;
    warn_if_open(own);
    tracing::info!(node_id, address = %own, master_urls = ?config.master_urls, "the node listens");

    let (tracer, exporter) = Tracer::start(&config.common, "cairn-node", &node_id, &registry)?;
    let edge = Edge::new(&registry, config.common.rate_limit)?.with_tracer(tracer.clone());
    let state = AppState { driver: driver.clone(), metrics: registry.clone() };
    let http = serve_http(&config, &node_id, listeners.http, edge, state, &stop);
    let peer = listeners.peer;
    peer.set_nonblocking(true)?;
    let peer_addr = peer.local_addr()?;
    let peer = tokio::net::TcpListener::from_std(peer)?;
    let link = cairn_link::serve(
        peer,
        Arc::new(LinkService::new(driver.clone(), peers.clone())),
        Limits::default(),
        stop.clone(),
    );
    let scrapes = async {
        match listeners.metrics {
            Some(listener) => serve_metrics(listener, registry.clone(), stop.clone()).await,
            None => Ok(()),
        }
    };
    let node = describe(&config, node_id, own, peer_addr);
    let metrics = NodeMetrics::new(&registry, SlowLog::new(config.common.slow_operation))?;
    let tiers = run_tiers(&config, node, metrics, tracer, (driver.clone(), peers), &shutdown, &stop);
    let (http, link, scrapes, tiers) = tokio::join!(
        stopping(&stop, async { http.await.map_err(RunError::from) }),
        stopping(&stop, async { link.await.map_err(RunError::from) }),
        async { scrapes.await.map_err(RunError::from) },
        stopping(&stop, tiers),
    );
    // Adapters have finished; now the disk can take what they queued, and close.
    if let Some(driver) = driver.get() {
        driver.disk.close().await;
    }
    exporter.finish().await;
    http.and(link).and(scrapes).and(tiers)
}

/// Whatever ends first ends the rest.
async fn stopping(stop: &CancellationToken, part: impl Future<Output = Result<(), RunError>>) -> Result<(), RunError> {
    let result = part.await;
    stop.cancel();
    result
}

fn serve_http(
    config: &Config,
    node_id: &str,
    listener: TcpListener,
    edge: Edge,
    state: AppState,
    stop: &CancellationToken,
) -> impl Future<Output = io::Result<()>> + use<> {
    let options = HttpOptions { workers: config.common.workers, shutdown_timeout: config.common.shutdown_timeout };
    let node: Arc<str> = node_id.into();
    let max_value_bytes = config.store_settings().max_value_bytes;
    let budget = Budget::new(config.common.body_memory);
    serve(listener, options, stop.clone(), move || {
        let api = NodeApi::new(node.clone(), state.driver.clone(), max_value_bytes);
        let keys = cairn_data_api::Shared::new(Arc::new(api), budget.clone());
        http::app(state.clone(), keys, edge.clone())
    })
}

/// Joins the cluster and works in it until `stop`.
async fn run_tiers(
    config: &Config,
    mut node: RegisterNode,
    metrics: NodeMetrics,
    tracer: Tracer,
    (cell, peers): (Arc<OnceLock<Arc<Driver>>>, Arc<Peers>),
    shutdown: &CancellationToken,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let masters = Arc::new(Masters::new(config.master_urls.clone())?);
    let Some(Some(ring)) = stop.run_until_cancelled(membership::first_ring(&masters, shutdown)).await else {
        return Ok(());
    };
    let objects = match config.object_settings() {
        Some(settings) => Some(ObjectStore::new(settings, metrics.object_duration.clone()).await),
        None => None,
    };
    let (sender, tasks) = driver::tasks();
    let node_id = node.node_id.as_str().into();
    let settings = config.store_settings();
    let network = peers.clone();
    let driver =
        Driver::open(node_id, settings, ring.partition_count, objects, network, metrics, tracer, sender).await?;
    peers.attach(&driver);
    check_cluster(&driver, &ring).await?;
    node.incarnation = incarnation(&driver).await?;
    node.session = driver.me.session;
    let identity = Identity {
        node_id: driver.me.node.clone(),
        incarnation: node.incarnation,
        session: driver.me.session,
        cluster_id: ring.cluster_id,
    };
    let ownership = Ownership::open(driver.clone(), peers.clone(), identity).await?;
    ownership.apply(&ring);
    cell.get_or_init(|| driver.clone());
    let leave = async {
        shutdown.cancelled().await;
        if config.hand_over {
            membership::leave(&masters, &ownership, &node, config.common.shutdown_timeout).await;
        }
        stop.cancel();
    };
    tokio::join!(
        async {
            stop.run_until_cancelled(leave).await;
            driver.feed.close();
        },
        async {
            membership::beat(&masters, &ownership, &node, config.heartbeat_interval, stop).await;
            stop.cancel();
        },
        membership::follow_ring(masters.clone(), ownership.clone(), stop.clone()),
        protocol::run(driver.clone(), peers.clone(), masters.clone(), ownership.clone(), tasks, stop.clone()),
        sweep::run(&driver, stop.clone()),
        Box::pin(upload::run(&driver, stop.clone())),
        Box::pin(checkpoint::run(&driver, stop.clone())),
        Box::pin(moving::run(&driver, stop.clone())),
        Box::pin(collect::run(&driver, &peers, stop.clone())),
    );
    Ok(())
}

/// Two processes on the same data would ruin them.
fn lock_data_dir(data_dir: &Path) -> Result<File, RunError> {
    std::fs::create_dir_all(data_dir)?;
    let lock = File::create(data_dir.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(RunError::DataInUse(data_dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// The node's name: as configured, else as stored beside the data, else made now.
fn node_id(config: &Config) -> io::Result<String> {
    if let Some(node_id) = &config.node_id {
        return Ok(node_id.clone());
    }
    let file = config.data_dir.join("node_id");
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let node_id = format!("node-{:08x}", rand::random::<u32>());
            std::fs::write(&file, &node_id)?;
            Ok(node_id)
        }
        Err(error) => Err(error),
    }
}

/// Stands in the same file as the rows, so that it cannot outlive them. 53 bits, which JavaScript keeps exactly.
async fn incarnation(driver: &Driver) -> Result<u64, NodeError> {
    let new = (rand::random::<u64>() >> 11).to_string();
    let stored = driver.disk.identity("incarnation", Some(new)).await?.unwrap_or_default();
    stored.parse().map_err(|_| TierError::Disk("the incarnation is no number".to_owned()).into())
}

/// Refuses data of another cluster: their partitions would be dropped as foreign.
async fn check_cluster(driver: &Driver, ring: &Ring) -> Result<(), RunError> {
    for (what, offered) in
        [("cluster_id", ring.cluster_id.to_string()), ("partition_count", ring.partition_count.to_string())]
    {
        let stored = driver.disk.identity(what, Some(offered.clone())).await?.unwrap_or_default();
        if stored != offered {
            return Err(RunError::ForeignData { what, stored, offered });
        }
    }
    Ok(())
}

fn describe(config: &Config, node_id: String, http: std::net::SocketAddr, peer: std::net::SocketAddr) -> RegisterNode {
    RegisterNode {
        node_id,
        // Known once the data are open.
        incarnation: 0,
        session: 0,
        address: config.advertised_url(http),
        peer_address: config.advertised_peer_addr(http, peer),
        weight: config.weight,
        zone: config.zone.clone(),
    }
}
