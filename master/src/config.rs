//! Every setting of the master, with its unit, default and bounds.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use cairn_api_spec::cluster::{Replication, Strategy};
use cairn_server_kit::config::{Common, bytes_in, duration_in};
use clap::Parser;

/// The most partitions that may be copied at the same time.
pub const MAX_MOVES: u32 = 65_536;
/// The highest limit of what a node may copy in a second, in bytes.
pub const MAX_TRANSFER_RATE: u64 = 1 << 40;

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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
    #[arg(long, default_value = "2s", value_parser = duration_in(MS * 20..=MINUTE * 10))]
    pub suspect_after: Duration,
    /// Silence after which a node counts as crashed, 30ms to 1h, above suspect_after
    #[arg(long, default_value = "3s", value_parser = duration_in(MS * 30..=MINUTE * 60))]
    pub gone_after: Duration,
    /// Silence after which a node's copies are made elsewhere, 30ms to 24h, not below gone_after
    #[arg(long, default_value = "30s", value_parser = duration_in(MS * 30..=DAY))]
    pub replace_after: Duration,
    /// Quiet time after a node joined before partitions are first assigned, 0 to 1m
    #[arg(long, default_value = "500ms", value_parser = duration_in(Duration::ZERO..=MINUTE))]
    pub settle: Duration,
    /// Copies of each partition, 1 to 7, where there are so many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=7))]
    pub replication_factor: u32,
    /// With fewer in-sync copies writes are refused, 1 to 7, at most replication_factor
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=7))]
    pub min_in_sync: u32,
    /// When a write is acknowledged: primary_replica or chain (by all in-sync copies), or quorum (by write_quorum)
    #[arg(long, default_value = "primary_replica", value_parser = parse_strategy)]
    pub replication_strategy: Strategy,
    /// Copies that acknowledge a write with quorum, 0 to 7, at most replication_factor; 0: the majority
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=7))]
    pub write_quorum: u32,
    /// Partitions that may be copied at the same time, 1 to 65536, and as many again of which copies were lost; PATCH /rebalance changes it
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_MOVES)))]
    pub max_moves: u32,
    /// The most bytes a second that a node copies from others, 0 to 1TiB, 0: no limit; PATCH /rebalance changes it
    #[arg(long, default_value = "0", value_parser = bytes_in(0..=MAX_TRANSFER_RATE))]
    pub transfer_bytes_per_second: u64,
    /// Time without progress after which a copy is given up, 1s to 1h; longer where the transfer limit is small
    #[arg(long, default_value = "1m", value_parser = duration_in(MS * 1000..=MINUTE * 60))]
    pub stuck_after: Duration,
    /// How far a node's wall clock may be from the master's before it leads no partition, 100ms to 1h
    #[arg(long, default_value = "5s", value_parser = duration_in(MS * 100..=MINUTE * 60))]
    pub max_clock_skew: Duration,
    /// Longest value in bytes, 1KiB to 64MiB
    #[arg(long, default_value = "16MiB", value_parser = bytes_in(1 << 10..=64 << 20))]
    pub max_value_bytes: u64,
    /// How long the master looks for a node that answers a request, 10ms to 1m; a failover takes about 5s
    #[arg(long, default_value = "10s", value_parser = duration_in(MS * 10..=MINUTE))]
    pub link_deadline: Duration,
    /// Settings that every server has
    #[command(flatten)]
    pub common: Common,
}

/// Settings that contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContradictorySettings {
    /// The times of a node's silence are not in order.
    #[error(
        "heartbeat_interval ({heartbeat_interval:?}) < suspect_after ({suspect_after:?}) < gone_after ({gone_after:?}) \
         <= replace_after ({replace_after:?}) must hold"
    )]
    Silence {
        /// See [`Config::heartbeat_interval`].
        heartbeat_interval: Duration,
        /// See [`Config::suspect_after`].
        suspect_after: Duration,
        /// See [`Config::gone_after`].
        gone_after: Duration,
        /// See [`Config::replace_after`].
        replace_after: Duration,
    },
    /// More copies are asked for than there can be.
    #[error("{setting} ({value}) must not be above replication_factor ({replication_factor})")]
    Copies {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: u32,
        /// See [`Config::replication_factor`].
        replication_factor: u32,
    },
}

impl Config {
    /// Checks what no single setting can.
    ///
    /// # Errors
    /// When the times of a node's silence are not in order, or more copies are asked for than there can be.
    pub fn check(&self) -> Result<(), ContradictorySettings> {
        let Self { heartbeat_interval, suspect_after, gone_after, replace_after, replication_factor, .. } = *self;
        if heartbeat_interval >= suspect_after || suspect_after >= gone_after || gone_after > replace_after {
            let times = ContradictorySettings::Silence { heartbeat_interval, suspect_after, gone_after, replace_after };
            return Err(times);
        }
        for (setting, value) in [("min_in_sync", self.min_in_sync), ("write_quorum", self.write_quorum)] {
            if value > replication_factor {
                return Err(ContradictorySettings::Copies { setting, value, replication_factor });
            }
        }
        Ok(())
    }

    /// How partitions are replicated.
    pub fn replication(&self) -> Replication {
        let factor = self.replication_factor;
        let write_quorum = if self.write_quorum == 0 { factor / 2 + 1 } else { self.write_quorum };
        Replication { factor, min_in_sync: self.min_in_sync, strategy: self.replication_strategy, write_quorum }
    }
}

fn parse_strategy(text: &str) -> Result<Strategy, String> {
    let known = Strategy::ALL.into_iter().find(|strategy| strategy.as_str() == text);
    known.ok_or_else(|| format!("it must be one of {}", Strategy::ALL.map(Strategy::as_str).join(", ")))
}
