use std::{
    ops::Range,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use cairn_engine::TierError;
use cairn_object_tier::{
    FormatError, Record, SegmentName,
    name::SEGMENTS,
    segment::{Built, Directory, TAIL_BYTES, Trailer},
};

use super::{ObjectStore, bucket::Part};
use crate::error::NodeError;

impl ObjectStore {
    /// Stores a segment.
    ///
    /// # Errors
    /// When the store does not answer or refuses. It may have the segment all the same: the name must not be used again.
    pub async fn put_segment(&self, segment: &Built) -> Result<(), NodeError> {
        self.put_object(&segment.name.to_string(), segment.bytes.clone()).await
    }

    /// The names of all segments.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn segments(&self) -> Result<Vec<Arc<SegmentName>>, NodeError> {
        let names = self.list_objects(SEGMENTS).await?;
        Ok(names.iter().filter_map(|name| Some(Arc::new(name.parse().ok()?))).collect())
    }

    /// Removes a segment.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn remove_segment(&self, name: &SegmentName) -> Result<(), NodeError> {
        self.remove_object(&name.to_string()).await?;
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).pop(name);
        Ok(())
    }

    /// What a segment holds of which partitions; `None` when it is gone. Read once, as long as the
    /// cache has room for it.
    ///
    /// # Errors
    /// When the store does not answer or refuses, or the segment is damaged.
    pub async fn directory(&self, name: &Arc<SegmentName>) -> Result<Option<Arc<Directory>>, NodeError> {
        let cell = {
            let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
            directories.get_or_insert(name.clone(), Arc::default).clone()
        };
        match cell.get_or_try_init(|| self.read_directory(name)).await {
            Ok(directory) => Ok(Some(directory.clone())),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }

    /// `None` as the error: the segment is gone.
    async fn read_directory(&self, name: &Arc<SegmentName>) -> Result<Arc<Directory>, Option<NodeError>> {
        let text = name.to_string();
        let tail = self.get_object(&text, Part::Tail(TAIL_BYTES)).await?.ok_or(None)?;
        let trailer = Trailer::read(&tail.bytes, tail.length).map_err(|error| damaged(&text, error))?;
        let bytes = self.beside_tail(&text, &tail, trailer.directory()).await?.ok_or(None)?;
        let directory = Directory::read(&trailer, &bytes).map_err(|error| damaged(&text, error))?;
        self.tails.lock().unwrap_or_else(PoisonError::into_inner).put(name.clone(), Arc::new(tail));
        Ok(Arc::new(directory))
    }

    /// A segment's rows of a partition; none when it is gone.
    ///
    /// # Errors
    /// When the store does not answer or refuses, or the segment is damaged.
    pub async fn segment_rows(
        &self,
        name: &Arc<SegmentName>,
        directory: &Directory,
        partition: u32,
    ) -> Result<Vec<Record>, NodeError> {
        let Some(section) = directory.section(partition) else { return Ok(Vec::new()) };
        let text = name.to_string();
        let tail = self.tails.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let bytes = match tail {
            Some(tail) => self.beside_tail(&text, &tail, section.range.clone()).await?,
            None => self.get_object(&text, Part::Range(section.range.clone())).await?.map(|fetched| fetched.bytes),
        };
        match bytes {
            Some(bytes) => directory.rows(section, name, bytes).map_err(|error| damaged(&text, error)),
            None => Ok(Vec::new()),
        }
    }

    /// A part of a segment; `None` when the segment is gone.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn segment_part(&self, name: &SegmentName, range: Range<u64>) -> Result<Option<Bytes>, NodeError> {
        Ok(self.get_object(&name.to_string(), Part::Range(range)).await?.map(|fetched| fetched.bytes))
    }
}

pub(super) fn damaged(object: &str, error: FormatError) -> NodeError {
    TierError::ObjectStore(format!("{object} is damaged: {error}")).into()
}
