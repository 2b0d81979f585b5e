//! Restores of partitions of which nothing is here, from the object store.

use std::sync::Arc;

use cairn_api_spec::{Version, operation::Metadata};
use cairn_object_tier::{
    Record, SegmentName,
    checkpoint::Head,
    rules::{
        checkpoint::floor,
        restore::{Above, ends_with_checkpoint, is_relevant},
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    Driver,
    checkpoint::{gather, pages_of, publish},
};
use crate::{
    error::NodeError,
    tiers::{
        disk::Row,
        object::{Checkpoint, Listing, ObjectStore, SharedListing},
    },
};

/// Rows stored at a time.
const INGEST_ROWS: usize = 500;
/// Segments read at the same time for one restore.
const CONCURRENCY: usize = 8;

/// What a restore is about.
#[derive(Clone, Copy, Debug)]
pub struct Restore {
    /// The partition.
    pub partition: u32,
    /// Its epoch now.
    pub epoch: u64,
    /// This process took the lead in the partition's first epoch.
    pub is_first: bool,
}

/// What a restore has brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Keys.
    pub keys: u64,
    /// At least the highest version that the bucket knows of.
    pub last: Version,
}

impl Driver {
    /// Brings back a partition of which nothing is here: what its newest checkpoint lists, and above its watermark the
    /// newest of what the segments hold. Then makes a checkpoint of that, so that nothing that arrives later can count.
    /// `listing` must have begun after this node took the lead; see [`ObjectStore::listing`].
    ///
    /// # Errors
    /// When the object store does not answer or refuses, when something is missing or damaged there, and when the disk
    /// fails: then it is to be begun again, with another listing.
    pub async fn restore(&self, restore: Restore, listing: &SharedListing) -> Result<Restored, NodeError> {
        let nothing = Restored { keys: 0, last: Version::NONE };
        let Some(objects) = &self.objects else { return Ok(nothing) };
        let Restore { partition, epoch, is_first } = restore;
        let listing = listing.get(objects).await?;
        let newest = objects.listed_checkpoint(listing, partition).await?;
        let watermark = newest.as_ref().map_or(Version::NONE, Checkpoint::watermark);
        let mut above = newer(objects, listing, partition, watermark).await?;
        if let Some(newest) = &newest {
            self.restore_listed(objects, partition, newest, &above).await?;
        } else if listing.has_versioned(partition) {
            objects.versioned(partition).await?.into_iter().for_each(|record| above.add(record));
        }
        let last = above.last();
        if !ends_with_checkpoint(is_first, last > Version::NONE) {
            self.restored(partition, epoch, None, None);
            return Ok(nothing);
        }
        let live: Vec<Record> = above.into_live().collect();
        self.store(partition, live).await?;
        self.disk.barrier().await?;
        let watermark = last.max(floor(epoch));
        let covers = self.uploads.settled_below();
        let gathered = gather(self, Head { partition, watermark, epoch, covers }).await?;
        let published = publish(self, objects, gathered).await?;
        let (keys, found) = (published.rows, newest.as_ref().map(|newest| &newest.name));
        self.restored(partition, epoch, found, Some(published));
        Ok(Restored { keys, last: watermark })
    }

    async fn restore_listed(
        &self,
        objects: &ObjectStore,
        partition: u32,
        newest: &Checkpoint,
        above: &Above,
    ) -> Result<(), NodeError> {
        let mut pages = pages_of(objects, newest);
        while let Some(page) = pages.try_next().await? {
            self.store(partition, page.into_iter().filter(|record| above.keeps(&record.name)).collect()).await?;
        }
        Ok(())
    }

    async fn store(&self, partition: u32, records: Vec<Record>) -> Result<(), NodeError> {
        let mut rows = records.into_iter().map(|record| row_of(record, partition));
        loop {
            let some: Vec<Row> = rows.by_ref().take(INGEST_ROWS).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.disk.ingest(some).await?;
        }
    }
}

/// What the segments hold of a partition above a watermark.
async fn newer(
    objects: &ObjectStore,
    listing: &Listing,
    partition: u32,
    watermark: Version,
) -> Result<Above, NodeError> {
    let mut above = Above::new(watermark);
    let read = |name: Arc<SegmentName>| async move {
        // One that is gone was released by a checkpoint that is no later than the one that was found.
        let Some(directory) = objects.directory(&name).await? else { return Ok(Vec::new()) };
        match directory.section(partition).filter(|section| is_relevant(watermark, section)) {
            Some(_) => objects.segment_rows(&name, &directory, partition).await,
            None => Ok(Vec::new()),
        }
    };
    let mut found = stream::iter(listing.segments.iter().cloned()).map(read).buffer_unordered(CONCURRENCY);
    while let Some(records) = found.try_next().await? {
        let records: Vec<Record> = records;
        records.into_iter().for_each(|record| above.add(record));
    }
    Ok(above)
}

fn row_of(record: Record, partition: u32) -> Row {
    Row {
        name: record.name,
        partition,
        metadata: Metadata {
            version: record.version,
            modified_at: record.modified_at,
            expires_at: record.expires_at,
            size: record.size,
            content_type: record.content_type,
        },
        checksum: record.checksum,
        tombstone: false,
        dirty: false,
        object_version: record.version,
        place: record.place,
        value: None,
    }
}
