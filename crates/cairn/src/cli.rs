//! What can be written on the command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use cairn_api_spec::{ApiError, ErrorCode, ttl, version::Condition};
use cairn_server_kit::config::bytes_in;
use clap::{Args, Parser, Subcommand};

/// A distributed cache: a local cluster, and its keys from the shell
#[derive(Debug, Parser)]
#[command(name = "cairn", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args, Debug)]
pub(crate) struct Cluster {
    /// URL of a master, or several, separated by commas [env: CAIRN_URL] [default: http://127.0.0.1:8080]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// Bucket of the keys
    #[arg(long, global = true, default_value = "default")]
    pub(crate) bucket: String,
}

impl Cluster {
    pub(crate) fn url(&self) -> String {
        let from_env = || std::env::var("CAIRN_URL").ok().filter(|url| !url.is_empty());
        self.url.clone().or_else(from_env).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a master, nodes and an S3 server in this process; Ctrl-C stops them
    Dev(Dev),
    /// Write a key's value to stdout
    Get {
        /// The key, 1 to 1,024 bytes
        key: String,
    },
    /// Store a value
    Put(Put),
    /// Remove a key
    Delete {
        /// The key, 1 to 1,024 bytes
        key: String,
        #[command(flatten)]
        conditions: Conditions,
    },
    /// Add to a counter, and write the sum to stdout
    Incr {
        /// The key, 1 to 1,024 bytes
        key: String,
        /// What to add; negative to subtract
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        delta: i64,
        /// How long a counter lives that is created by this: seconds, or 250ms, 10s, 10m, 1h, 7d
        #[arg(long, value_parser = ttl::parse)]
        ttl: Option<Duration>,
        #[command(flatten)]
        conditions: Conditions,
    },
    /// Show where a key is and why, without its value
    Explain {
        /// The key, 1 to 1,024 bytes
        key: String,
    },
    /// Write keys to stdout, in the order of their bytes
    List {
        /// Only keys that begin with this
        #[arg(long)]
        prefix: Option<String>,
        /// Most keys to write; without it, all
        #[arg(long)]
        limit: Option<usize>,
        /// Sizes, versions and expiry, too
        #[arg(long, short)]
        long: bool,
    },
    /// Write what happens to keys to stdout, line by line, until it is stopped
    Watch {
        /// Only keys that begin with this
        #[arg(long)]
        prefix: Option<String>,
        /// Versions and sizes, too
        #[arg(long, short)]
        long: bool,
    },
    /// Store many values from JSON lines or CSV
    Import(Import),
    /// Write keys and values to stdout, as `import` reads them
    Export(Export),
    /// Show the nodes
    Nodes,
    /// Show how the partitions are spread
    Ring {
        /// Every partition, too
        #[arg(long)]
        partitions: bool,
    },
    /// Show what is moving between nodes; pause, resume or limit it
    Rebalance(Rebalance),
}

const DEV_HELP: &str = "Settings of master and nodes, such as LRU_SIZE or DISK_MAX_BYTES, come from the environment or \
    from the file that CONFIG names (config.toml when it exists); cairn-node --help and cairn-master --help list them.";

#[derive(Args, Debug)]
#[command(after_help = DEV_HELP)]
pub(crate) struct Dev {
    /// Number of nodes, 1 to 32
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(crate) nodes: u16,
    /// Address of the master; node i takes port + i for clients and port + 1000 + i for peers. Port 0 takes free ones
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Directory of all data
    #[arg(long, value_name = "DIR", default_value = "./.cairn")]
    pub(crate) data_dir: PathBuf,
    /// Run without an object tier
    #[arg(long)]
    pub(crate) no_object_store: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Put {
    /// The key, 1 to 1,024 bytes
    pub(crate) key: String,
    /// The value; `-` reads it from stdin
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub(crate) value: Option<String>,
    /// Read the value from a file
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// How long the key lives: seconds, or 250ms, 10s, 10m, 1h, 7d
    #[arg(long, value_parser = ttl::parse)]
    pub(crate) ttl: Option<Duration>,
    /// Media type that readers get
    #[arg(long)]
    pub(crate) content_type: Option<String>,
    #[command(flatten)]
    pub(crate) conditions: Conditions,
}

#[derive(Args, Debug)]
pub(crate) struct Conditions {
    /// Only when the key has this version; `*`: when it is there
    #[arg(long, value_name = "VERSION", value_parser = version_or_any, conflicts_with = "if_none_match")]
    if_match: Option<String>,
    /// Only when the key does not have this version; `*`: when it is not there
    #[arg(long, value_name = "VERSION", value_parser = version_or_any)]
    if_none_match: Option<String>,
}

impl Conditions {
    pub(crate) fn condition(&self) -> anyhow::Result<Condition> {
        let condition = Condition::parse(self.if_match.as_deref(), self.if_none_match.as_deref());
        Ok(condition.map_err(ApiError::from)?)
    }
}

/// A version as `list --long` writes it, with or without the quotes that HTTP has; as HTTP has it.
fn version_or_any(text: &str) -> Result<String, String> {
    match text.trim_matches('"').parse::<u64>() {
        Ok(version) => Ok(format!("\"{version}\"")),
        Err(_) if text == "*" => Ok(text.to_owned()),
        Err(_) => Err(format!("{}: a version is a whole number, or *", ErrorCode::InvalidParameter.as_str())),
    }
}

#[derive(Args, Debug)]
pub(crate) struct Import {
    /// The file; `-` is stdin
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// CSV with a header, instead of lines of {"key","value" or "value_base64","ttl"?,"content_type"?}
    #[arg(long)]
    pub(crate) csv: bool,
    /// CSV column of the key
    #[arg(long, default_value = "key", requires = "csv")]
    pub(crate) key_column: String,
    /// CSV column of the value
    #[arg(long, default_value = "value", requires = "csv")]
    pub(crate) value_column: String,
    /// How long keys live whose line does not say: seconds, or 250ms, 10s, 10m, 1h, 7d
    #[arg(long, value_parser = ttl::parse)]
    pub(crate) ttl: Option<Duration>,
    /// Batches of up to 500 values on their way at the same time, 1 to 64
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) concurrency: u16,
}

#[derive(Args, Debug)]
pub(crate) struct Export {
    /// CSV with the header key,value,value_base64,ttl,content_type, instead of JSON lines
    #[arg(long)]
    pub(crate) csv: bool,
    /// Only keys that begin with this
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// Values on their way at the same time, 1 to 1024
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: u16,
}

#[derive(Args, Debug)]
pub(crate) struct Rebalance {
    /// Begin no move; what has begun goes on, and lost copies are made nevertheless
    #[arg(long, conflicts_with = "resume")]
    pub(crate) pause: bool,
    /// Begin moves again
    #[arg(long)]
    pub(crate) resume: bool,
    /// Partitions that may be copied at the same time, 1 to 65536
    #[arg(long, value_name = "N")]
    pub(crate) max_moves: Option<u32>,
    /// Most bytes a second that each node copies from others, 0 to 1TiB, such as 20MiB; 0: no limit
    #[arg(long, value_name = "N", value_parser = bytes_in(0..=1 << 40))]
    pub(crate) bytes_per_second: Option<u64>,
}
