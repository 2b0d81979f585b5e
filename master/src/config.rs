//! Every setting of the master, with its unit, default and bounds.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use cairn_server_kit::config::{Common, bytes_in, duration_in};
use clap::Parser;

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The master: registry of the nodes, keeper of the partition map, and gateway to the keys.
#[derive(Parser, Clone, Debug)]
#[command(name = "cairn-master", version)]
pub struct Config {
    /// Address that clients and nodes reach the master at
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen_addr: SocketAddr,
    /// Directory of the metadata store
    #[arg(long, default_value = "./.cairn/master")]
    pub data_dir: PathBuf,
    /// Number of partitions, 1 to 65536; fixed when the cluster is made
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub partitions: u32,
    /// Points on the hash ring for a node of average weight, 1 to 1024
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub vnodes: u32,
    /// How often nodes beat, 10ms to 1m; the master looks for silent ones twice as often
    #[arg(long, default_value = "1s", value_parser = duration_in(MS * 10..=MINUTE))]
    pub heartbeat_interval: Duration,
    /// Silence after which a node is suspected and gets no more partitions, 20ms to 10m, above heartbeat_interval
    #[arg(long, default_value = "3s", value_parser = duration_in(MS * 20..=MINUTE * 10))]
    pub suspect_after: Duration,
    /// Silence after which a node counts as crashed, 30ms to 1h, above suspect_after
    #[arg(long, default_value = "8s", value_parser = duration_in(MS * 30..=MINUTE * 60))]
    pub gone_after: Duration,
    /// Quiet time after a node joined before partitions are first assigned, 0 to 1m
    #[arg(long, default_value = "500ms", value_parser = duration_in(Duration::ZERO..=MINUTE))]
    pub settle: Duration,
    /// Partitions that may be moving at the same time, 1 to 65536
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_moves: u32,
    /// Longest value in bytes, 1KiB to 64MiB
    #[arg(long, default_value = "16MiB", value_parser = bytes_in(1 << 10..=64 << 20))]
    pub max_value_bytes: u64,
    /// How long the master waits for a node's answer, 10ms to 1m
    #[arg(long, default_value = "5s", value_parser = duration_in(MS * 10..=MINUTE))]
    pub link_deadline: Duration,
    /// Settings that every server has
    #[command(flatten)]
    pub common: Common,
}

/// Settings that contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "heartbeat_interval ({heartbeat_interval:?}) < suspect_after ({suspect_after:?}) < gone_after ({gone_after:?}) must hold"
)]
pub struct ContradictorySettings {
    heartbeat_interval: Duration,
    suspect_after: Duration,
    gone_after: Duration,
}

impl Config {
    /// Checks what no single setting can.
    ///
    /// # Errors
    /// When the three times of a node's silence are not in order.
    pub fn check(&self) -> Result<(), ContradictorySettings> {
        let Self { heartbeat_interval, suspect_after, gone_after, .. } = *self;
        if heartbeat_interval < suspect_after && suspect_after < gone_after {
            Ok(())
        } else {
            Err(ContradictorySettings { heartbeat_interval, suspect_after, gone_after })
        }
    }
}
