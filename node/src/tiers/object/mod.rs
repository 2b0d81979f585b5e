//! The object tier: segments, checkpoints and large values in a bucket, by the formats and rules of `cairn_object_tier`.
//!
//! | module | owns |
//! |---|---|
//! | `bucket` | the requests: put, ranged get, list, remove |
//! | `values` | one value, wherever it is |
//! | `segments` | what segments hold of a partition |
//! | `checkpoints` | a partition's newest checkpoint |
//! | `listing` | the names of all of them, listed once for many restores |
//! | `versioned` | objects of one version each, as they were before there were segments |
//!
//! It does what it is told and decides nothing.

mod bucket;
mod checkpoints;
mod listing;
mod segments;
mod values;
mod versioned;

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig},
};
use cairn_object_tier::{SegmentName, segment::Directory};
use lru::LruCache;
use prometheus::Histogram;
use tokio::sync::{OnceCell, Semaphore};

pub use aws_sdk_s3::config::Credentials;
pub use checkpoints::Checkpoint;
pub use listing::{Listing, SharedListing};

use self::{bucket::Fetched, listing::LastListing};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// One attempt and all attempts of one request.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(12);
/// Values fetched at the same time. More wait, for no longer than a fetch may take.
const MAX_FETCHES: usize = 64;
/// Directories of segments that are kept, each of 64 bytes for a partition: those of 128 GiB, at 8 MiB a segment.
const MAX_DIRECTORIES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16_383);
/// Ends of segments that are kept.
const MAX_TAILS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(127);

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

/// Durations of requests to the object store.
#[derive(Clone, Debug)]
pub struct ObjectDurations {
    /// Fetching an object, or a part of it.
    pub get: Histogram,
    /// Storing an object.
    pub put: Histogram,
    /// Removing an object.
    pub delete: Histogram,
    /// Listing objects, page by page.
    pub list: Histogram,
    /// Asking what is known of an object.
    pub head: Histogram,
}

type Directories = Arc<Mutex<LruCache<Arc<SegmentName>, Arc<OnceCell<Arc<Directory>>>>>>;

/// See the module.
#[derive(Clone)]
pub struct ObjectStore {
    client: Client,
    bucket: String,
    prefix: String,
    durations: ObjectDurations,
    fetches: Arc<Semaphore>,
    /// The directories of segments that were read last, which never change.
    directories: Directories,
    /// The ends of segments that were read last: while many partitions are restored, each reads on in the same ones.
    tails: Arc<Mutex<LruCache<Arc<SegmentName>, Arc<Fetched>>>>,
    last_listing: Arc<Mutex<LastListing>>,
}

impl ObjectStore {
    /// A client. Connects to nothing yet.
    pub async fn new(settings: ObjectSettings, durations: ObjectDurations) -> Self {
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
        Self {
            client: Client::from_conf(config.build()),
            bucket: settings.bucket,
            prefix: settings.prefix,
            durations,
            fetches: Arc::new(Semaphore::new(MAX_FETCHES)),
            directories: Arc::new(Mutex::new(LruCache::new(MAX_DIRECTORIES))),
            tails: Arc::new(Mutex::new(LruCache::new(MAX_TAILS))),
            last_listing: Arc::default(),
        }
    }
}
