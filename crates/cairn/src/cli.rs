//! What can be written on the command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

/// A distributed cache: a local cluster, and its keys from the shell
#[derive(Debug, Parser)]
#[command(name = "cairn", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a master, nodes and an S3 server in this process; Ctrl-C stops them
    Dev(Dev),
}

/// Settings of master and nodes, such as `LRU_SIZE` or `DISK_MAX_BYTES`, come from the environment or from the file that
/// `CONFIG` names (`config.toml` when it exists); `cairn-node --help` and `cairn-master --help` list them.
#[derive(Args, Debug)]
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
