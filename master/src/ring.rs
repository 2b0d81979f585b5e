//! The partition map as requests read it: whole, without a lock, and with word of every change.

use std::{sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Guard};
use cairn_api_spec::cluster::Ring;
use tokio::sync::watch;

/// The last map that the controller published.
#[derive(Debug)]
pub struct PublishedRing {
    ring: ArcSwap<Ring>,
    epoch: watch::Sender<u64>,
}

impl PublishedRing {
    /// A map of no partitions, at epoch 0.
    pub fn empty() -> Self {
        Self { ring: ArcSwap::from_pointee(Ring::default()), epoch: watch::Sender::new(0) }
    }

    /// The map, for a short look. Nodes are in the order of their ids, partitions in the order of theirs.
    pub fn load(&self) -> Guard<Arc<Ring>> {
        self.ring.load()
    }

    /// The map, to keep.
    pub fn load_full(&self) -> Arc<Ring> {
        self.ring.load_full()
    }

    /// Tells of new epochs, always after [`PublishedRing::load`] gives the map.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// The map, as soon as its epoch is another than `epoch`, or as it is after `wait`.
    pub async fn changed_from(&self, epoch: u64, wait: Duration) -> Arc<Ring> {
        let mut epochs = self.subscribe();
        // Neither a timeout nor a closed channel is a failure: the map as it is is the answer then.
        let _ = tokio::time::timeout(wait, epochs.wait_for(|current| *current != epoch)).await;
        self.load_full()
    }

    /// Puts a map in the last one's place.
    pub(crate) fn publish(&self, ring: Ring) {
        let epoch = ring.epoch;
        self.ring.store(Arc::new(ring));
        self.epoch.send_replace(epoch);
    }
}
