//! What handlers share.

use std::sync::Arc;

use prometheus::Registry as MetricsRegistry;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, cluster::Cluster, controller::Controller};

/// What handlers share.
#[derive(Clone)]
pub struct AppState {
    /// The registry and the published map.
    pub cluster: Arc<Cluster>,
    /// Changes the map.
    pub controller: Arc<Controller>,
    /// What the time is.
    pub clock: Clock,
    /// What `/metrics` shows.
    pub metrics: MetricsRegistry,
    /// Ends waiting requests when the server stops.
    pub shutdown: CancellationToken,
}
