//! Objects of one version each, `{partition}/{sha256(bucket ‖ 0 ‖ key)}/{version}`: as they were before there were segments.
//! They are read and removed, and no longer written. Key, expiry and checksum stand in their metadata.

use std::collections::HashMap;

use aws_sdk_s3::{error::SdkError, operation::head_object::HeadObjectOutput};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use cairn_api_spec::{EntryName, Version};
use cairn_object_tier::{Place, Record};
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::{ObjectStore, bucket::failed};
use crate::{error::NodeError, tiers::disk::Row};

/// Objects whose metadata are read at a time.
const CONCURRENCY: usize = 16;

impl ObjectStore {
    /// The name of the object that held a row's value.
    pub fn versioned_name(row: &Row) -> String {
        let hash: String = Sha256::digest(&row.name).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}/{hash}/{}", row.partition, row.metadata.version)
    }

    /// The newest such object of every key of a partition.
    ///
    /// # Errors
    /// When the store does not answer or refuses: then nothing is known, which is not the same as nothing is there.
    pub async fn versioned(&self, partition: u32) -> Result<Vec<Record>, NodeError> {
        let mut newest: HashMap<String, (Version, String)> = HashMap::new();
        for (name, version) in self.versioned_names(partition).await? {
            let Some((key, _)) = name.rsplit_once('/') else { continue };
            let known = newest.entry(key.to_owned()).or_default();
            if version > known.0 {
                *known = (version, name);
            }
        }
        stream::iter(newest.into_values())
            .map(|(version, name)| self.describe(name, version))
            .buffer_unordered(CONCURRENCY)
            .try_filter_map(|record| async { Ok(record) })
            .try_collect()
            .await
    }

    /// The names and versions of such objects.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn versioned_names(&self, partition: u32) -> Result<Vec<(String, Version)>, NodeError> {
        let names = self.list_objects(&format!("{partition}/")).await?;
        let versioned = |name: String| {
            let version = name.rsplit_once('/')?.1.parse().ok()?;
            (name.split('/').count() == 3).then_some((name, Version(version)))
        };
        Ok(names.into_iter().filter_map(versioned).collect())
    }

    /// Removes such an object.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn remove_versioned(&self, name: &str) -> Result<(), NodeError> {
        self.remove_object(name).await
    }

    async fn describe(&self, name: String, version: Version) -> Result<Option<Record>, NodeError> {
        let _timer = self.durations.head.start_timer();
        let head = match self.client.head_object().bucket(&self.bucket).key(self.key(&name)).send().await {
            Ok(head) => head,
            Err(SdkError::ServiceError(error)) if error.err().is_not_found() => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let record = record_of(&head, version);
        if record.is_none() {
            tracing::warn!(object = name, "an object in the bucket has no readable metadata and is left alone");
        }
        Ok(record)
    }
}

fn record_of(head: &HeadObjectOutput, version: Version) -> Option<Record> {
    let fields = head.metadata()?;
    let number = |name: &str| fields.get(name)?.parse::<u64>().ok();
    let name = Bytes::from(URL_SAFE_NO_PAD.decode(fields.get("name")?).ok()?);
    EntryName::from_bytes(name.clone()).ok()?;
    let content_type = head.content_type().filter(|text| *text != "application/octet-stream");
    Some(Record {
        name,
        version,
        modified_at: number("modified-at")?,
        expires_at: number("expires-at"),
        content_type: content_type.unwrap_or_default().to_owned(),
        size: u64::try_from(head.content_length()?).ok()?,
        checksum: number("checksum")?,
        place: Some(Place::Versioned),
    })
}
