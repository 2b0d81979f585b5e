//! A whole cluster in this process: a master, nodes, and an S3 server on files for the object tier.
//!
//! It composes the servers exactly as their own binaries do, with settings from the same environment and file; it
//! decides only what several servers on one machine cannot share: addresses, names, directories and the bucket.

mod s3;
mod settings;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use cairn_api_spec::cluster::{Node, NodeState, Stats};
use cairn_server_kit::{
    config::{Common, ConfigError},
    server::bind,
};
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::{s3::EmbeddedS3, settings::Settings};

/// The ports of a node's peer listener and of its API are this far apart.
const PEER_OFFSET: u16 = 1000;
/// How long nodes, and then the master, may take to end. Together with the S3 server's second below ten seconds.
const NODES_PATIENCE: Duration = Duration::from_secs(5);
const MASTER_PATIENCE: Duration = Duration::from_secs(3);
/// How often the cluster is asked whether it is ready, and how long one answer may take.
const READY_INTERVAL: Duration = Duration::from_millis(50);
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes, 1 to 32.
    pub nodes: u16,
    /// The master's address; nodes take the next ports. With port 0 all take free ones.
    pub listen: SocketAddr,
    /// The directory of all data.
    pub data_dir: PathBuf,
    /// Whether there is an object tier.
    pub object_store: bool,
}

/// Why the local cluster does not run.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// An address cannot be had, or a directory not made.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A setting in the environment or the file is refused.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The ports would be above 65535.
    #[error("port {port} leaves no room for {nodes} nodes: their peer ports end at {port} + {PEER_OFFSET} + {nodes}")]
    Ports {
        /// The master's port.
        port: u16,
        /// How many nodes.
        nodes: u16,
    },
    /// The embedded S3 server cannot use its directory.
    #[error("the embedded S3 server: {0}")]
    S3(String),
    /// The master ended.
    #[error("the master: {0}")]
    Master(#[from] cairn_master::RunError),
    /// A node ended.
    #[error("{node}: {source}")]
    Node {
        /// Its id.
        node: String,
        /// Why.
        source: cairn_node::RunError,
    },
    /// A server ended without having been told to.
    #[error("{0} ended by itself")]
    Ended(String),
    /// A server's task failed.
    #[error(transparent)]
    Task(#[from] JoinError),
    /// The HTTP client could not be set up.
    #[error(transparent)]
    HttpClient(#[from] reqwest::Error),
    /// The cluster does not serve every key in time.
    #[error("the cluster is not ready yet: {0}")]
    NotReady(String),
}

/// The settings that all servers share: the caller sends the log where it belongs before it starts them.
///
/// # Errors
/// [`DevError::Settings`].
pub fn common(options: &Options, env: &dyn Fn(&str) -> Option<String>) -> Result<Common, DevError> {
    Ok(Settings { options, env, master: options.listen }.master()?.common)
}

/// A running local cluster. Dropping it ends the servers without waiting for them.
#[derive(Debug)]
pub struct DevCluster {
    master: SocketAddr,
    nodes: Vec<(String, SocketAddr)>,
    s3: Option<EmbeddedS3>,
    node_tasks: Tasks,
    master_task: Tasks,
}

impl DevCluster {
    /// Binds all addresses, then starts everything. It need not serve keys yet: see [`DevCluster::ready`].
    ///
    /// # Errors
    /// [`DevError`] when an address is in use, a setting is refused or a directory cannot be used.
    pub async fn start(options: &Options, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, DevError> {
        let sockets = Sockets::bind(options)?;
        let settings = Settings { options, env, master: reachable(sockets.master.local_addr()?) };
        let master_config = settings.master()?;
        let s3 = match options.object_store {
            true => Some(EmbeddedS3::start(&options.data_dir.join("s3")).await?),
            false => None,
        };
        let mut node_configs = Vec::new();
        for (index, sockets) in (1..).zip(&sockets.nodes) {
            let node_id = format!("node-{index}");
            let config =
                settings.node(&node_id, sockets.http.local_addr()?, sockets.peer.local_addr()?, s3.as_ref())?;
            node_configs.push((node_id, config));
        }

        let mut cluster = Self {
            master: settings.master,
            nodes: Vec::new(),
            s3,
            node_tasks: Tasks::default(),
            master_task: Tasks::default(),
        };
        let stop = cluster.master_task.stop.clone();
        let listeners = cairn_master::Listeners { http: sockets.master, metrics: None };
        cluster.master_task.spawn("the master".to_owned(), async move {
            cairn_master::run(master_config, listeners, stop).await.map_err(DevError::Master)
        });
        for ((node, config), listeners) in node_configs.into_iter().zip(sockets.nodes) {
            cluster.nodes.push((node.clone(), reachable(listeners.http.local_addr()?)));
            let stop = cluster.node_tasks.stop.clone();
            cluster.node_tasks.spawn(node.clone(), async move {
                cairn_node::run(config, listeners, stop).await.map_err(|source| DevError::Node { node, source })
            });
        }
        Ok(cluster)
    }

    /// The master's URL.
    pub fn master_url(&self) -> String {
        format!("http://{}", self.master)
    }

    /// The nodes' ids and URLs.
    pub fn node_urls(&self) -> Vec<(String, String)> {
        self.nodes.iter().map(|(id, address)| (id.clone(), format!("http://{address}"))).collect()
    }

    /// Waits until the nodes serve every partition.
    ///
    /// # Errors
    /// [`DevError::NotReady`] with what is missing after `patience`; why a server ended, when one does.
    pub async fn ready(&mut self, patience: Duration) -> Result<(), DevError> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(READY_TIMEOUT)
            .build()?;
        let (master, nodes) = (self.master_url(), self.node_urls());
        let mut missing = String::new();
        let poll = async {
            loop {
                match unready(&client, &master, &nodes).await {
                    Some(what) => missing = what,
                    None => return,
                }
                sleep(READY_INTERVAL).await;
            }
        };
        tokio::select! {
            polled = timeout(patience, poll) => polled.map_err(|_| DevError::NotReady(missing)),
            error = self.ended() => Err(error),
        }
    }

    /// Ends when a server ends that was not told to.
    pub async fn ended(&mut self) -> DevError {
        tokio::select! {
            error = self.master_task.ended() => error,
            error = self.node_tasks.ended() => error,
        }
    }

    /// Stops the nodes, then the S3 server that they upload to, then the master; in ten seconds at most.
    ///
    /// # Errors
    /// Why a server did not end as it should.
    pub async fn stop(mut self) -> Result<(), DevError> {
        let nodes = self.node_tasks.stop(NODES_PATIENCE).await;
        if let Some(s3) = self.s3.take() {
            s3.stop().await;
        }
        let master = self.master_task.stop(MASTER_PATIENCE).await;
        nodes.and(master)
    }
}

/// What keeps the cluster from serving every key, if anything.
async fn unready(client: &reqwest::Client, master: &str, nodes: &[(String, String)]) -> Option<String> {
    for (name, url) in nodes.iter().map(|(id, url)| (id.as_str(), url.as_str())).chain([("the master", master)]) {
        match client.get(format!("{url}/health/ready")).send().await {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => return Some(format!("{name} says {}", response.text().await.unwrap_or_default())),
            Err(error) => return Some(format!("{name}: {error}")),
        }
    }
    let stats = client.get(format!("{master}/stats")).send().await;
    let stats: Result<Stats, _> = match stats {
        Ok(response) => response.json().await,
        Err(error) => Err(error),
    };
    match stats {
        Ok(stats) if stats.partitions_offline > 0 => {
            Some(format!("{} partitions are offline", stats.partitions_offline))
        }
        Ok(stats) => {
            // A map of the run before has the addresses of then.
            let is_active = |(id, url): &&(String, String)| {
                let here = |node: &Node| node.node_id == *id && node.address == *url && node.state == NodeState::Active;
                stats.nodes.iter().any(here)
            };
            nodes.iter().find(|node| !is_active(node)).map(|(id, _)| format!("{id} is not active"))
        }
        Err(error) => Some(format!("the master: {error}")),
    }
}

/// Servers of one kind, and the token that stops them.
#[derive(Debug, Default)]
struct Tasks {
    stop: CancellationToken,
    running: JoinSet<(String, Result<(), DevError>)>,
}

impl Tasks {
    fn spawn(&mut self, name: String, server: impl Future<Output = Result<(), DevError>> + Send + 'static) {
        self.running.spawn(async move { (name, server.await) });
    }

    async fn ended(&mut self) -> DevError {
        loop {
            match self.running.join_next().await {
                Some(Ok((_, Err(error)))) => return error,
                // A node that was removed from the cluster; the last server to go is another matter.
                Some(Ok((name, Ok(())))) if self.running.is_empty() => return DevError::Ended(name),
                Some(Ok((name, Ok(())))) => tracing::info!("{name} has left"),
                Some(Err(error)) => return error.into(),
                None => std::future::pending().await,
            }
        }
    }

    /// The first error of all; the tasks that are late are aborted.
    async fn stop(&mut self, patience: Duration) -> Result<(), DevError> {
        self.stop.cancel();
        let deadline = Instant::now() + patience;
        let mut outcome = Ok(());
        while let Ok(Some(ended)) = timeout_at(deadline, self.running.join_next()).await {
            let ended = ended.map_err(DevError::from).and_then(|(_, result)| result);
            outcome = outcome.and(ended);
        }
        if !self.running.is_empty() {
            tracing::warn!(servers = self.running.len(), ?patience, "servers did not end in time and are dropped");
            self.running.shutdown().await;
        }
        outcome
    }
}

struct Sockets {
    master: TcpListener,
    nodes: Vec<cairn_node::Listeners>,
}

impl Sockets {
    /// All at once, so that an address in use is told before anything has started.
    fn bind(options: &Options) -> Result<Self, DevError> {
        let Options { nodes, listen, .. } = *options;
        let port = |offset: u16| match listen.port() {
            0 => Ok(0),
            port => port.checked_add(offset).ok_or(DevError::Ports { port, nodes }),
        };
        let at = |offset: u16| Ok::<_, DevError>(bind(SocketAddr::new(listen.ip(), port(offset)?))?);
        let node = |index: u16| {
            Ok(cairn_node::Listeners { http: at(index)?, peer: at(PEER_OFFSET.saturating_add(index))?, metrics: None })
        };
        Ok(Self { master: at(0)?, nodes: (1..=nodes).map(node).collect::<Result<_, DevError>>()? })
    }
}

/// The address at which this machine reaches a listener.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}
