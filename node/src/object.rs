//! The object tier: immutable objects in a bucket, one for each version of a key.
//!
//! An object's name is `{prefix}/{partition}/{sha256(bucket ‖ 0 ‖ key)}/{version}`; key, expiry and checksum stand in its
//! metadata, so that the bucket alone can rebuild a node. Nothing of a key becomes part of an object's name.

use std::{collections::HashMap, time::Duration};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::{DisplayErrorContext, SdkError},
    operation::head_object::HeadObjectOutput,
    primitives::ByteStream,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use cairn_api_spec::{EntryName, Version, operation::Metadata};
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use crate::{disk::Row, error::NodeError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// One attempt and all attempts of one request.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(12);
/// Fetching a value, for which a client waits: less than the 5 s that a master waits for a node, so that the client
/// hears of the object store and not of a silent node.
const FETCH_TIMEOUT: Duration = Duration::from_secs(4);
/// Objects whose metadata are read at a time while a partition is restored.
const RESTORE_CONCURRENCY: usize = 16;

pub use aws_sdk_s3::config::Credentials;

/// Where the objects are.
#[derive(Clone, Debug)]
pub struct ObjectSettings {
    /// The S3 bucket.
    pub bucket: String,
    /// The region.
    pub region: String,
    /// An S3 server other than the region's own.
    pub endpoint: Option<String>,
    /// The first part of every object's name.
    pub prefix: String,
    /// Who asks; without them, what the environment, profile or instance says. `Debug` keeps the secret.
    pub credentials: Option<Credentials>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    client: Client,
    bucket: String,
    prefix: String,
}

impl ObjectStore {
    /// A client. Connects to nothing yet.
    pub async fn new(settings: ObjectSettings) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let mut shared = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(settings.region))
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(2));
        if let Some(credentials) = settings.credentials {
            shared = shared.credentials_provider(credentials);
        }
        let shared = shared.load().await;
        let mut config = aws_sdk_s3::config::Builder::from(&shared);
        if let Some(endpoint) = settings.endpoint {
            // Servers other than Amazon's are reached by path, not by one host name for each bucket.
            config = config.endpoint_url(endpoint).force_path_style(true);
        }
        let client = Client::from_conf(config.build());
        Self { client, bucket: settings.bucket, prefix: settings.prefix }
    }

    fn object_name(&self, partition: u32, name: &[u8], version: Version) -> String {
        let hash: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}{hash}/{version}", self.partition_prefix(partition))
    }

    fn partition_prefix(&self, partition: u32) -> String {
        format!("{}/{partition}/", self.prefix)
    }

    /// Stores a row's value.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn put(&self, row: &Row) -> Result<(), NodeError> {
        let metadata = &row.metadata;
        let mut request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.object_name(row.partition, &row.name, metadata.version))
            .body(ByteStream::from(row.value.clone().unwrap_or_default()))
            .metadata("name", URL_SAFE_NO_PAD.encode(&row.name))
            .metadata("modified-at", metadata.modified_at.to_string())
            .metadata("checksum", row.checksum.to_string());
        if let Some(expires_at) = metadata.expires_at {
            request = request.metadata("expires-at", expires_at.to_string());
        }
        if !metadata.content_type.is_empty() {
            request = request.content_type(&metadata.content_type);
        }
        request.send().await.map(|_| ()).map_err(failed)
    }

    /// Fetches a value; `None` when there is no such object.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn get(&self, partition: u32, name: &[u8], version: Version) -> Result<Option<Bytes>, NodeError> {
        let request = self.client.get_object().bucket(&self.bucket).key(self.object_name(partition, name, version));
        let fetch = async {
            match request.send().await {
                Ok(object) => match object.body.collect().await {
                    Ok(body) => Ok(Some(body.into_bytes())),
                    Err(error) => Err(NodeError::ObjectStore(error.to_string())),
                },
                Err(SdkError::ServiceError(error)) if error.err().is_no_such_key() => Ok(None),
                Err(error) => Err(failed(error)),
            }
        };
        let late = || Err(NodeError::ObjectStore("the value did not arrive in time".to_owned()));
        tokio::time::timeout(FETCH_TIMEOUT, fetch).await.unwrap_or_else(|_| late())
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn delete(&self, partition: u32, name: &[u8], version: Version) -> Result<(), NodeError> {
        let key = self.object_name(partition, name, version);
        match self.client.delete_object().bucket(&self.bucket).key(key).send().await {
            Ok(_) => Ok(()),
            // Some servers answer 404 where Amazon's says that nothing was there to delete.
            Err(SdkError::ServiceError(error)) if error.raw().status().as_u16() == 404 => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Removes every object of a key but the one of version `keep` (0: all of them).
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn delete_others(&self, partition: u32, name: &[u8], keep: Version) -> Result<(), NodeError> {
        let kept = self.object_name(partition, name, keep);
        let prefix = self.object_name(partition, name, Version::NONE);
        let prefix = prefix.trim_end_matches('0');
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        while let Some(page) = pages.next().await {
            for key in page.map_err(failed)?.contents().iter().filter_map(|object| object.key()) {
                if key != kept {
                    self.client.delete_object().bucket(&self.bucket).key(key).send().await.map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Every key of a partition, as rows that refer to the newest object of each.
    ///
    /// # Errors
    /// When the store does not answer or refuses: then nothing is known, which is not the same as nothing is there.
    pub async fn restore(&self, partition: u32) -> Result<Vec<Row>, NodeError> {
        let prefix = self.partition_prefix(partition);
        let mut newest: HashMap<String, Version> = HashMap::new();
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(&prefix).into_paginator().send();
        while let Some(page) = pages.next().await {
            for object in page.map_err(failed)?.contents() {
                let path = object.key().and_then(|key| key.strip_prefix(&prefix)).and_then(|rest| rest.split_once('/'));
                let Some((hash, Ok(version))) = path.map(|(hash, version)| (hash, version.parse().map(Version))) else {
                    continue;
                };
                let known = newest.entry(hash.to_owned()).or_default();
                *known = version.max(*known);
            }
        }
        stream::iter(newest)
            .map(|(hash, version)| self.describe(partition, format!("{prefix}{hash}/{version}"), version))
            .buffer_unordered(RESTORE_CONCURRENCY)
            .try_filter_map(|row| async { Ok(row) })
            .try_collect()
            .await
    }

    async fn describe(&self, partition: u32, key: String, version: Version) -> Result<Option<Row>, NodeError> {
        let head = match self.client.head_object().bucket(&self.bucket).key(&key).send().await {
            Ok(head) => head,
            Err(SdkError::ServiceError(error)) if error.err().is_not_found() => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let row = row_of(&head, partition, version);
        if row.is_none() {
            tracing::warn!(object = key, "an object in the bucket has no readable metadata and is left alone");
        }
        Ok(row)
    }
}

fn row_of(head: &HeadObjectOutput, partition: u32, version: Version) -> Option<Row> {
    let fields = head.metadata()?;
    let number = |name: &str| fields.get(name)?.parse::<u64>().ok();
    let name = Bytes::from(URL_SAFE_NO_PAD.decode(fields.get("name")?).ok()?);
    EntryName::from_bytes(name.clone()).ok()?;
    Some(Row {
        name,
        partition,
        metadata: Metadata {
            version,
            modified_at: number("modified-at")?,
            expires_at: number("expires-at"),
            size: u64::try_from(head.content_length()?).ok()?,
            content_type: head
                .content_type()
                .filter(|t| *t != "application/octet-stream")
                .unwrap_or_default()
                .to_owned(),
        },
        checksum: number("checksum")?,
        tombstone: false,
        dirty: false,
        object_version: version,
        value: None,
    })
}

fn failed<E: std::error::Error + 'static, R: std::fmt::Debug + 'static>(error: SdkError<E, R>) -> NodeError {
    NodeError::ObjectStore(DisplayErrorContext(error).to_string())
}
