//! The settings of each server of the local cluster: what `cairn dev` decides stands as flags over the environment
//! and the file.

use std::{ffi::OsString, net::SocketAddr, path::Path, time::Duration};

use cairn_server_kit::config::{Common, ConfigError, load_shared};
use clap::CommandFactory as _;

use super::{DevError, Options, reachable, s3::EmbeddedS3};

/// What our servers say, and of their libraries only what needs attention.
const DEFAULTS: &[(&str, &str)] = &[("log_level", "warn,cairn=info")];
/// The bucket in the embedded S3 server.
pub(super) const BUCKET: &str = "cairn";
/// Requests in flight get less time than in production, so that all servers together end in ten seconds.
const NODE_DRAIN: Duration = Duration::from_secs(4);
const MASTER_DRAIN: Duration = Duration::from_secs(2);

pub(super) struct Settings<'a> {
    pub(super) options: &'a Options,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) master: SocketAddr,
}

impl Settings<'_> {
    pub(super) fn master(&self) -> Result<cairn_master::Config, DevError> {
        let flags = [
            "cairn-master".into(),
            flag("listen-addr", self.master.to_string()),
            flag("data-dir", self.options.data_dir.join("master")),
        ];
        let mut config: cairn_master::Config = self.load(flags.into(), cairn_node::Config::command())?;
        adapt(&mut config.common, MASTER_DRAIN);
        Ok(config)
    }

    pub(super) fn node(
        &self,
        node_id: &str,
        http: SocketAddr,
        peer: SocketAddr,
        s3: Option<&EmbeddedS3>,
    ) -> Result<cairn_node::Config, DevError> {
        let mut flags = vec![
            "cairn-node".into(),
            flag("listen-addr", http.to_string()),
            flag("peer-listen-addr", peer.to_string()),
            flag("advertise-url", format!("http://{}", reachable(http))),
            flag("advertise-peer-addr", reachable(peer).to_string()),
            flag("master-urls", format!("http://{}", self.master)),
            flag("node-id", node_id),
            flag("data-dir", self.options.data_dir.join(node_id)),
        ];
        if let Some(s3) = s3 {
            flags.extend([
                flag("s3-bucket", BUCKET),
                flag("s3-endpoint", s3.endpoint()),
                flag("aws-region", "us-east-1"),
            ]);
        }
        let mut config: cairn_node::Config = self.load(flags, cairn_master::Config::command())?;
        match s3 {
            Some(s3) => config.s3_credentials = Some(s3.credentials()),
            None => config.s3_bucket = None,
        }
        // All servers stop together: nobody is left to hand over to.
        config.hand_over = false;
        adapt(&mut config.common, NODE_DRAIN);
        Ok(config)
    }

    /// The one file may have the settings of both kinds of servers.
    fn load<C: clap::Parser>(&self, flags: Vec<OsString>, other: clap::Command) -> Result<C, ConfigError> {
        load_shared(flags, self.env, &[other], DEFAULTS)
    }
}

/// One port for the metrics of several servers cannot be; each has `/metrics` on its API.
fn adapt(common: &mut Common, drain: Duration) {
    common.metrics_port = None;
    common.shutdown_timeout = common.shutdown_timeout.min(drain);
}

fn flag(name: &str, value: impl AsRef<Path>) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(value.as_ref());
    flag
}
