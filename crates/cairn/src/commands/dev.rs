//! `cairn dev`: the local cluster until a signal, and what to do with it.

use std::{fmt::Write as _, time::Duration};

use anyhow::Context as _;
use cairn::dev::{DevCluster, DevError, Options, common};
use cairn_server_kit::{server::shutdown_signal, telemetry};

use crate::cli::Dev;

/// The log of all servers, beside their data.
const LOG: &str = "cairn.log";
/// A large disk may take longer; then it is said what is missing, and the cluster goes on.
const READY_PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run(args: Dev) -> anyhow::Result<()> {
    let options = Options {
        nodes: args.nodes,
        listen: args.listen,
        data_dir: args.data_dir,
        object_store: !args.no_object_store,
    };
    let env = |name: &str| std::env::var(name).ok();
    let common = common(&options, &env)?;
    telemetry::init_to_file(&common.log_level, common.log_format, options.data_dir.join(LOG))?;
    let mut cluster = DevCluster::start(&options, &env).await?;
    let signal = shutdown_signal();
    tokio::pin!(signal);
    let failed = tokio::select! {
        error = serve(&mut cluster, &options) => Some(error),
        () = &mut signal => None,
    };
    let stopped = cluster.stop().await;
    match failed {
        Some(error) => Err(error),
        None => stopped.context("while stopping"),
    }
}

/// Until a server ends by itself.
async fn serve(cluster: &mut DevCluster, options: &Options) -> anyhow::Error {
    match cluster.ready(READY_PATIENCE).await {
        Ok(()) => {}
        Err(DevError::NotReady(missing)) => tracing::warn!(missing, "the cluster is not ready yet"),
        Err(error) => return error.into(),
    }
    println!("{}", greeting(cluster, options));
    cluster.ended().await.into()
}

fn greeting(cluster: &DevCluster, options: &Options) -> String {
    let (master, nodes) = (cluster.master_url(), cluster.node_urls());
    let data = options.data_dir.display();
    let log = options.data_dir.join(LOG);
    let mut text =
        format!("Cairn runs: a master and {} nodes, data in {data}, log in {}\n\n", nodes.len(), log.display());
    let mut line = |what: &str, rest: &str| {
        // Writing into a `String` cannot fail.
        let _ = writeln!(text, "  {what:<8}{rest}");
    };
    for (what, (id, url)) in ["nodes"].into_iter().chain(std::iter::repeat("")).zip(&nodes) {
        line(what, &format!("{url}  {id}"));
    }
    line("open", &format!("{master}/swagger-ui/"));
    line("", &format!("{}/swagger-ui/", nodes.first().map_or(&master, |(_, url)| url)));
    let json = "-H 'Content-Type: application/json' -d '{\"key\":\"hello\",\"value\":\"world\"}'";
    line("try", &format!("curl -i {master}/keys {json}"));
    line("", &format!("curl -i {master}/keys/hello"));
    line("", &format!("curl -i -X DELETE {master}/keys/hello"));
    text += "\nCtrl-C stops it.";
    text
}
