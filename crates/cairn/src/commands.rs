//! What each command does. Results go to stdout, everything else to stderr.

mod dev;
mod export;
mod import;
mod keys;
mod progress;
mod rebalance;
mod rows;
mod tables;
mod watch;

use std::process::ExitCode;

use cairn_client::Cache;

use crate::cli::{Cli, Cluster, Command};

pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let cluster = cli.cluster;
    match cli.command {
        Command::Dev(args) => dev::run(args).await?,
        Command::Get { key } => keys::get(&connect(&cluster).await?, &key).await?,
        Command::Put(args) => keys::put(&connect(&cluster).await?, args).await?,
        Command::Delete { key, conditions } => keys::delete(&connect(&cluster).await?, &key, &conditions).await?,
        Command::Incr { key, delta, ttl, conditions } => {
            keys::increment(&connect(&cluster).await?, &key, delta, ttl, &conditions).await?;
        }
        Command::Explain { key } => tables::explain(&connect(&cluster).await?, &key).await?,
        Command::List { prefix, limit, long } => keys::list(&connect(&cluster).await?, prefix, limit, long).await?,
        Command::Watch { prefix, long } => watch::watch(&connect(&cluster).await?, prefix, long).await?,
        Command::Import(args) => return import::run(&connect(&cluster).await?, args).await,
        Command::Export(args) => return export::run(&connect(&cluster).await?, args).await,
        Command::Nodes => tables::nodes(&connect(&cluster).await?).await?,
        Command::Ring { partitions } => tables::ring(&connect(&cluster).await?, partitions).await?,
        Command::Rebalance(args) => rebalance::run(&connect(&cluster).await?, &args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn connect(cluster: &Cluster) -> Result<Cache, cairn_client::Error> {
    Cache::builder().url(&cluster.url()).bucket(&cluster.bucket).connect().await
}
