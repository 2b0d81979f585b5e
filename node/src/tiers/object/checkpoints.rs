use std::sync::Arc;

use bytes::Bytes;
use cairn_api_spec::Version;
use cairn_engine::TierError;
use cairn_object_tier::{
    CheckpointName, Record,
    checkpoint::{Index, TAIL_BYTES, Trailer},
    name::checkpoints_of,
    rules::restore::newest,
};

use super::{ObjectStore, bucket::Part, segments::damaged};
use crate::error::NodeError;

/// How often the newest checkpoint is looked for.
const ATTEMPTS: usize = 3;

/// A checkpoint whose rows are yet to be read.
pub struct Checkpoint {
    /// Its name.
    pub name: CheckpointName,
    /// What stands at its end.
    pub trailer: Trailer,
    /// Which segments it refers to, and where its pages are.
    pub index: Index,
}

impl Checkpoint {
    /// Up to which version it speaks.
    pub fn watermark(&self) -> Version {
        self.trailer.head.watermark
    }
}

impl ObjectStore {
    /// The names of a partition's checkpoints.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn checkpoints(&self, partition: u32) -> Result<Vec<CheckpointName>, NodeError> {
        let names = self.list_objects(&checkpoints_of(partition)).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// A partition's newest checkpoint.
    ///
    /// # Errors
    /// When the store does not answer or refuses, or the checkpoint is damaged.
    pub async fn newest_checkpoint(&self, partition: u32) -> Result<Option<Arc<Checkpoint>>, NodeError> {
        // A later one may take its place, and then it is removed.
        for _ in 0..ATTEMPTS {
            let Some(name) = newest(self.checkpoints(partition).await?) else { return Ok(None) };
            if let Some(checkpoint) = self.open_checkpoint(name).await? {
                return Ok(Some(Arc::new(checkpoint)));
            }
        }
        Err(TierError::ObjectStore("checkpoints that are listed cannot be found".to_owned()).into())
    }

    pub(super) async fn open_checkpoint(&self, name: CheckpointName) -> Result<Option<Checkpoint>, NodeError> {
        let text = name.to_string();
        let Some(tail) = self.get_object(&text, Part::Tail(TAIL_BYTES)).await? else { return Ok(None) };
        let trailer = Trailer::read(&tail.bytes, tail.length).map_err(|error| damaged(&text, error))?;
        let Some(bytes) = self.beside_tail(&text, &tail, trailer.index()).await? else { return Ok(None) };
        let index = Index::read(&trailer, &bytes).map_err(|error| damaged(&text, error))?;
        Ok(Some(Checkpoint { name, trailer, index }))
    }

    /// The rows of a checkpoint's page; `None` when the checkpoint is gone, since a later one has taken its place.
    ///
    /// # Errors
    /// When the store does not answer or refuses, or the checkpoint is damaged.
    pub async fn checkpoint_page(
        &self,
        checkpoint: &Checkpoint,
        page: usize,
    ) -> Result<Option<Vec<Record>>, NodeError> {
        let Some(page) = checkpoint.index.pages.get(page) else { return Ok(Some(Vec::new())) };
        let text = checkpoint.name.to_string();
        let Some(fetched) = self.get_object(&text, Part::Range(page.range.clone())).await? else { return Ok(None) };
        checkpoint.index.rows(page, fetched.bytes).map(Some).map_err(|error| damaged(&text, error))
    }

    /// Stores a checkpoint.
    ///
    /// # Errors
    /// When the store does not answer or refuses. It may have it all the same: the name must not be used again.
    pub async fn put_checkpoint(&self, name: &CheckpointName, bytes: Bytes) -> Result<(), NodeError> {
        self.put_object(&name.to_string(), bytes).await
    }

    /// Removes a checkpoint.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn remove_checkpoint(&self, name: &CheckpointName) -> Result<(), NodeError> {
        self.remove_object(&name.to_string()).await
    }
}
