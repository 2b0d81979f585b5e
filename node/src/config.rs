//! Every setting of a node, with its unit, default and bounds.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use cairn_server_kit::config::{Common, bytes_in, duration_in};
use clap::Parser;

use crate::tiers::object::{Credentials, ObjectSettings};

const SECOND: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A node: it holds keys in memory, on disk and in an object store.
#[derive(Parser, Clone, Debug)]
#[command(name = "cairn-node", version)]
pub struct Config {
    /// Address that clients reach the node at
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub listen_addr: SocketAddr,
    /// Address that masters and other nodes reach the node at; without it, listen_addr with a port 1000 higher
    #[arg(long)]
    pub peer_listen_addr: Option<SocketAddr>,
    /// URL that clients are told to reach the node at; without it, http:// and listen_addr, with this machine's host name in place of 0.0.0.0 or ::
    #[arg(long, value_parser = parse_url)]
    pub advertise_url: Option<String>,
    /// host:port that peers are told to reach the node at; without it, peer_listen_addr, with the host of advertise_url in place of 0.0.0.0 or ::
    #[arg(long)]
    pub advertise_peer_addr: Option<String>,
    /// URLs of the masters, separated by commas
    #[arg(long, alias = "router_addr", alias = "router-addr", value_delimiter = ',', default_value = "http://127.0.0.1:8080", value_parser = parse_url)]
    pub master_urls: Vec<String>,
    /// Stable name of the node, 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-'; without it, a random one that is stored with the data
    #[arg(long, value_parser = parse_node_id)]
    pub node_id: Option<String>,
    /// Failure zone that the node stands in
    #[arg(long)]
    pub zone: Option<String>,
    /// Share of the ring next to other nodes, 0.1 to 100
    #[arg(long, default_value_t = 1.0, value_parser = parse_weight)]
    pub weight: f64,
    /// Directory of the disk tier and of what the node knows of itself
    #[arg(long, default_value = "./.cairn/node")]
    pub data_dir: PathBuf,
    /// Most entries in memory, 1 to 4294967295
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub lru_size: u32,
    /// Most bytes that entries take in memory, 64KiB to 1TiB
    #[arg(long, default_value = "512MiB", value_parser = bytes_in(64 << 10..=1 << 40))]
    pub max_memory: u64,
    /// Most bytes in use in the disk tier, 64KiB to 64TiB; above it, values leave for the object store, or are evicted when there is none
    #[arg(long, default_value = "10GiB", value_parser = bytes_in(64 << 10..=64 << 40))]
    pub disk_max_bytes: u64,
    /// How long a key lives when its write does not say, 1ms to ten years; without it, for ever
    #[arg(long, alias = "ttl_seconds", alias = "ttl-seconds", value_parser = duration_in(Duration::from_millis(1)..=10 * YEAR))]
    pub default_ttl: Option<Duration>,
    /// Longest value in bytes, 1KiB to 64MiB
    #[arg(long, default_value = "16MiB", value_parser = bytes_in(1 << 10..=64 << 20))]
    pub max_value_bytes: u64,
    /// How often the node tells the master that it lives, 10ms to 1m
    #[arg(long, default_value = "1s", value_parser = duration_in(Duration::from_millis(10)..=60 * SECOND))]
    pub heartbeat_interval: Duration,
    /// S3 bucket of the object tier; without it there is no object tier
    #[arg(long)]
    pub s3_bucket: Option<String>,
    /// Region of the bucket
    #[arg(long, default_value = "us-east-1")]
    pub aws_region: String,
    /// URL of an S3 server other than Amazon's
    #[arg(long, value_parser = parse_url)]
    pub s3_endpoint: Option<String>,
    /// First part of every object's name
    #[arg(long, default_value = "cairn")]
    pub s3_prefix: String,
    /// How long writes gather before they are uploaded together, 100ms to ten minutes: what is lost at most when all disks are
    #[arg(long, default_value = "10s", value_parser = duration_in(Duration::from_millis(100)..=600 * SECOND))]
    pub upload_linger: Duration,
    /// How long objects stay in the bucket that nobody needs any more, 1s to seven days
    #[arg(long, default_value = "1h", value_parser = duration_in(SECOND..=7 * 24 * 3600 * SECOND))]
    pub collect_after: Duration,
    /// Credentials for the bucket; without them, the environment, profile or instance as usual with AWS. No setting: a
    /// flag or a file would show them to others.
    #[arg(skip)]
    pub s3_credentials: Option<Credentials>,
    /// Whether the node hands its primaries over before it stops. No setting: who stops all nodes at once says no.
    #[arg(skip = true)]
    pub hand_over: bool,
    /// Settings that every server has
    #[command(flatten)]
    pub common: Common,
}

/// What the store needs to know.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// See [`Config::data_dir`].
    pub data_dir: PathBuf,
    /// See [`Config::lru_size`].
    pub lru_size: usize,
    /// See [`Config::max_memory`].
    pub max_memory: usize,
    /// See [`Config::disk_max_bytes`].
    pub disk_max_bytes: u64,
    /// See [`Config::default_ttl`].
    pub default_ttl: Option<Duration>,
    /// See [`Config::max_value_bytes`].
    pub max_value_bytes: usize,
    /// See [`Config::upload_linger`].
    pub upload_linger: Duration,
    /// See [`Config::collect_after`].
    pub collect_after: Duration,
}

impl Config {
    /// The address of the peer listener.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer_listen_addr.unwrap_or_else(|| {
            let port = self.listen_addr.port();
            SocketAddr::new(self.listen_addr.ip(), if port == 0 { 0 } else { port.wrapping_add(1000) })
        })
    }

    /// The URL that clients are told, for a node that listens on `http`.
    pub fn advertised_url(&self, http: SocketAddr) -> String {
        self.advertise_url.clone().unwrap_or_else(|| {
            if http.ip().is_unspecified() {
                format!("http://{}:{}", host_name(), http.port())
            } else {
                format!("http://{http}")
            }
        })
    }

    /// The host:port that peers are told, for a node that listens on `http` and `peer`.
    pub fn advertised_peer_addr(&self, http: SocketAddr, peer: SocketAddr) -> String {
        if let Some(addr) = &self.advertise_peer_addr {
            return addr.clone();
        }
        // Whoever reaches one listener under a name reaches the other one under it, too.
        let url = reqwest::Url::parse(&self.advertised_url(http)).ok();
        match url.as_ref().and_then(reqwest::Url::host_str) {
            Some(host) if peer.ip().is_unspecified() => format!("{host}:{}", peer.port()),
            _ => peer.to_string(),
        }
    }

    /// What the store needs to know.
    pub fn store_settings(&self) -> StoreSettings {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        StoreSettings {
            data_dir: self.data_dir.clone(),
            lru_size: self.lru_size as usize,
            max_memory: size(self.max_memory),
            disk_max_bytes: self.disk_max_bytes,
            default_ttl: self.default_ttl,
            max_value_bytes: size(self.max_value_bytes),
            upload_linger: self.upload_linger,
            collect_after: self.collect_after,
        }
    }

    /// Where the objects are, if anywhere.
    pub fn object_settings(&self) -> Option<ObjectSettings> {
        self.s3_bucket.clone().map(|bucket| ObjectSettings {
            bucket,
            region: self.aws_region.clone(),
            endpoint: self.s3_endpoint.clone(),
            prefix: self.s3_prefix.trim_matches('/').to_owned(),
            credentials: self.s3_credentials.clone(),
        })
    }
}

/// This machine's name, or the container's, which others on its network resolve.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn parse_node_id(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=63).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-'".to_owned())
    }
}

fn parse_weight(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|weight| (0.1..=100.0).contains(weight)).ok_or_else(|| "must be 0.1 to 100".to_owned())
}

fn parse_url(text: &str) -> Result<String, String> {
    match reqwest::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("must be a URL such as http://127.0.0.1:8080".to_owned()),
    }
}
