//! What a bucket holds by name, listed once for all partitions that are restored at about the same time.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, Weak},
    time::Instant,
};

use cairn_engine::TierError;
use cairn_object_tier::{CheckpointName, SegmentName, name::CHECKPOINTS, rules::restore::newest};
use tokio::sync::OnceCell;

use super::{Checkpoint, ObjectStore};
use crate::error::NodeError;

/// Names, as far as restores want them.
pub struct Listing {
    /// The segments.
    pub segments: Vec<Arc<SegmentName>>,
    /// The newest checkpoint of each partition that has one.
    checkpoints: HashMap<u32, CheckpointName>,
    /// The partitions of which there are objects of one version each.
    versioned: HashSet<u32>,
}

/// A listing that several restores wait for.
pub struct SharedListing {
    /// No request of it was sent earlier.
    begun: Instant,
    listing: OnceCell<Listing>,
}

pub(super) type LastListing = Weak<SharedListing>;

impl ObjectStore {
    /// The listing that counts for a restore whose node took the lead at `since`: the last one, if it begins no earlier,
    /// or another. It is kept as long as somebody waits for it.
    ///
    /// Until the node took the lead, a former primary may have stored segments that count, published checkpoints and
    /// removed what those do not name. An earlier listing would lack the first, and name the last. What is stored or
    /// removed after that moment is of no account, whenever a request for it was sent.
    pub fn listing(&self, since: Instant) -> Arc<SharedListing> {
        let mut last = self.last_listing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = last.upgrade().filter(|listing| listing.begun >= since) {
            return listing;
        }
        let listing = Arc::new(SharedListing { begun: Instant::now(), listing: OnceCell::new() });
        *last = Arc::downgrade(&listing);
        listing
    }

    async fn list(&self) -> Result<Listing, NodeError> {
        let mut checkpoints: HashMap<u32, CheckpointName> = HashMap::new();
        for name in self.list_objects(CHECKPOINTS).await? {
            let Ok(name) = name.parse::<CheckpointName>() else { continue };
            let known = checkpoints.remove(&name.partition);
            checkpoints.extend(newest(known.into_iter().chain([name])).map(|name| (name.partition, name)));
        }
        let segments = self.segments().await?;
        let directories = self.list_directories().await?;
        let versioned = directories.iter().filter_map(|name| name.parse().ok()).collect();
        Ok(Listing { segments, checkpoints, versioned })
    }

    /// The newest checkpoint of a partition in a listing.
    ///
    /// # Errors
    /// When the store does not answer or refuses, or the checkpoint is damaged; also when a later one has taken its place
    /// since, which only another listing can tell.
    pub async fn listed_checkpoint(&self, listing: &Listing, partition: u32) -> Result<Option<Checkpoint>, NodeError> {
        let Some(name) = listing.checkpoints.get(&partition) else { return Ok(None) };
        let gone = || TierError::ObjectStore("a checkpoint that is listed cannot be found".to_owned());
        Ok(Some(self.open_checkpoint(name.clone()).await?.ok_or_else(gone)?))
    }
}

impl SharedListing {
    /// The names. Whoever asks first has them listed; after a failure, the next one does.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn get(&self, objects: &ObjectStore) -> Result<&Listing, NodeError> {
        self.listing.get_or_try_init(|| objects.list()).await
    }
}

impl Listing {
    /// Whether a partition has objects of one version each.
    pub fn has_versioned(&self, partition: u32) -> bool {
        self.versioned.contains(&partition)
    }
}
