use std::time::Duration;

use bytes::Bytes;
use cairn_engine::{TierError, checksum};
use cairn_object_tier::{Place, ValueName};

use super::{ObjectStore, bucket::Part};
use crate::{error::NodeError, tiers::disk::Row};

/// Fetching a value, for which a client waits: less than the 5 s that a master waits for a node, so that the client
/// hears of the object store and not of a silent node.
const FETCH_TIMEOUT: Duration = Duration::from_secs(4);

impl ObjectStore {
    /// Fetches a row's value by one request, and checks it; `None` when there is nothing where it should be.
    ///
    /// # Errors
    /// When the store does not answer in time or refuses, and when what it has is not the row's value.
    pub async fn fetch(&self, row: &Row, place: &Place) -> Result<Option<Bytes>, NodeError> {
        let late = || Err(TierError::ObjectStore("the value did not arrive in time".to_owned()).into());
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, async {
            let _slot = self.fetches.acquire().await;
            let (name, part) = match place {
                Place::Packed { segment, offset } => {
                    (segment.to_string(), Part::Range(*offset..offset.saturating_add(row.metadata.size)))
                }
                Place::Object(name) => (name.to_string(), Part::All),
                Place::Versioned => (Self::versioned_name(row), Part::All),
            };
            self.get_object(&name, part).await
        });
        let Some(fetched) = fetched.await.unwrap_or_else(|_| late())? else { return Ok(None) };
        if checksum(&row.name, row.metadata.version, &fetched.bytes) == row.checksum {
            Ok(Some(fetched.bytes))
        } else {
            Err(TierError::Corrupt.into())
        }
    }

    /// Stores a value under a name of its own.
    ///
    /// # Errors
    /// When the store does not answer or refuses. It may have the value all the same: the name must not be used again.
    pub async fn put_value(&self, name: &ValueName, value: Bytes) -> Result<(), NodeError> {
        self.put_object(&name.to_string(), value).await
    }

    /// The names of a partition's values with objects of their own.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn values(&self, partition: u32) -> Result<Vec<ValueName>, NodeError> {
        let names = self.list_objects(&cairn_object_tier::name::values_of(partition)).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Removes such a value.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn remove_value(&self, name: &ValueName) -> Result<(), NodeError> {
        self.remove_object(&name.to_string()).await
    }
}
