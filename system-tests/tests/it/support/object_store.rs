//! An S3 server in the test's process, that fails on demand and counts what it is asked.
//!
//! Its objects are in memory: an object on files is several files and directories, and removing those of a test takes
//! longer than the test on disks that discard.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{Ipv4Addr, SocketAddr},
    ops::{Bound, Range},
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use cairn_api_spec::{EntryName, Version};
use cairn_object_tier::{
    CheckpointName, Record, SegmentName,
    segment::{Directory, Section, Trailer},
};
use futures_util::TryStreamExt;

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{
    Body, S3, S3Request, S3Response, S3Result,
    access::{S3Access, S3AccessContext},
    auth::{Credentials, S3Auth, SecretKey},
    dto::{
        CommonPrefix, DeleteObjectInput, DeleteObjectOutput, GetObjectInput, GetObjectOutput, HeadObjectInput,
        HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Metadata, Object, PutObjectInput, PutObjectOutput,
    },
    s3_error,
    service::{S3Service, S3ServiceBuilder},
};
use sha2::{Digest, Sha256};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::bucket_faults::{Fate, Fault, Faults, Requests};

const BUCKET: &str = "cairn-test";
/// See `s3_prefix`.
const PREFIX: &str = "cairn";
const SECRET_KEY: &str = "only-for-tests";

/// What the server does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It answers them.
    Serving,
    /// It answers 503.
    Failing,
    /// It takes them and does not answer.
    Stalled,
}

/// See the module.
pub(crate) struct ObjectStore {
    address: SocketAddr,
    service: S3Service,
    objects: Objects,
    gate: Gate,
    accepting: Mutex<Option<AbortHandle>>,
}

#[derive(Clone)]
struct Gate {
    mode: watch::Sender<Mode>,
    requests: Arc<Mutex<HashMap<String, u64>>>,
}

impl ObjectStore {
    pub(crate) async fn start() -> Self {
        let gate = Gate { mode: watch::Sender::new(Mode::Serving), requests: Arc::default() };
        let objects = Objects::default();
        let mut service = S3ServiceBuilder::new(objects.clone());
        service.set_auth(AnyName);
        service.set_access(gate.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = Self { address, service: service.build(), objects, gate, accepting: Mutex::default() };
        store.accept(listener);
        store
    }

    /// The settings of a node that uses it under its own name.
    pub(crate) fn environment(&self, node: &str) -> [(&'static str, String); 5] {
        [
            ("S3_ENDPOINT", format!("http://{}", self.address)),
            ("S3_BUCKET", BUCKET.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", node.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// Changes what happens to requests from now on; those that are stalled go on when the store serves again.
    pub(crate) fn set(&self, mode: Mode) {
        self.gate.mode.send_replace(mode);
    }

    /// Gives requests another fate than to be executed and answered.
    pub(crate) fn plan(&self, requests: Requests, fate: Fate) -> Fault {
        self.objects.faults.plan(requests, fate)
    }

    /// Refuses connections, and breaks those that there are.
    pub(crate) fn disconnect(&self) {
        if let Some(task) = self.accepting.lock().unwrap().take() {
            task.abort();
        }
    }

    /// Accepts connections again, at the same address.
    pub(crate) async fn reconnect(&self) {
        self.disconnect();
        let listener = super::eventually("the object store has its port again", super::PATIENCE, async || {
            TcpListener::bind(self.address).await.map_err(|error| error.to_string())
        });
        self.accept(listener.await);
    }

    /// How often the store was asked for an operation, such as `GetObject`, or `GetObject of segments`.
    pub(crate) fn requests(&self, operation: &str) -> u64 {
        self.gate.requests.lock().unwrap().get(operation).copied().unwrap_or(0)
    }

    /// Whether some segment has this version of some key.
    pub(crate) fn has_version(&self, version: u64) -> bool {
        let objects = self.objects.stored.lock().unwrap();
        let mut segments = objects.iter().filter_map(|(key, stored)| Some((segment_name(key)?, &stored.value)));
        segments.any(|(name, bytes)| rows(&name, bytes).iter().any(|record| record.version.0 == version))
    }

    /// Whether the newest checkpoint of a partition speaks of this version.
    pub(crate) fn speaks_of(&self, partition: u32, version: u64) -> bool {
        let objects = self.objects.stored.lock().unwrap();
        let names = objects.keys().filter_map(|key| key.strip_prefix(PREFIX)?.strip_prefix('/')?.parse().ok());
        let mut names = names.filter(|name: &CheckpointName| name.partition == partition);
        names.any(|name| name.watermark.0 >= version)
    }

    /// Removes all objects whose names begin so, and returns them.
    pub(crate) fn take(&self, start: &str) -> BTreeMap<String, Bytes> {
        let start = format!("{PREFIX}/{start}");
        let mut objects = self.objects.stored.lock().unwrap();
        let taken: Vec<String> = objects.keys().filter(|key| key.starts_with(&start)).cloned().collect();
        taken.into_iter().filter_map(|key| Some((key.clone(), objects.remove(&key)?.value))).collect()
    }

    /// How many objects there are whose names begin so, behind the prefix.
    pub(crate) fn count(&self, start: &str) -> usize {
        let start = format!("{PREFIX}/{start}");
        self.objects.stored.lock().unwrap().keys().filter(|key| key.starts_with(&start)).count()
    }

    /// How many bytes those have.
    pub(crate) fn bytes(&self, start: &str) -> usize {
        let start = format!("{PREFIX}/{start}");
        let objects = self.objects.stored.lock().unwrap();
        objects.iter().filter(|(key, _)| key.starts_with(&start)).map(|(_, stored)| stored.value.len()).sum()
    }

    /// Removes the segments that tell of a deletion.
    pub(crate) fn forget_deletions(&self) {
        self.objects.stored.lock().unwrap().retain(|key, stored| {
            segment_name(key).is_none_or(|name| !rows(&name, &stored.value).iter().any(Record::is_tombstone))
        });
    }

    /// Stores a value as it was before there were segments.
    pub(crate) fn put_versioned(&self, name: &EntryName, partition: u32, version: Version, value: Bytes) {
        let hash: String = Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let checksum = cairn_object_tier::checksum(name.as_bytes(), version, &value);
        let metadata = [
            ("name", URL_SAFE_NO_PAD.encode(name.as_bytes())),
            ("modified-at", "1700000000000".to_owned()),
            ("checksum", checksum.to_string()),
        ];
        let metadata = metadata.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        let stored = Stored { value, content_type: None, metadata: Some(metadata) };
        self.objects.stored.lock().unwrap().insert(format!("{PREFIX}/{partition}/{hash}/{version}"), stored);
    }

    fn accept(&self, listener: TcpListener) {
        let service = self.service.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                // Else a reply of two segments waits for the acknowledgement of the first, which is held back 40 ms.
                stream.set_nodelay(true).unwrap();
                connections.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A connection that a killed node leaves behind is no failure here.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        *self.accepting.lock().unwrap() = Some(task.abort_handle());
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.disconnect();
    }
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        {
            let mut requests = self.requests.lock().unwrap();
            let operation = context.s3_op().name().to_owned();
            if context.s3_path().get_object_key().is_some_and(|key| segment_name(key).is_some()) {
                *requests.entry(format!("{operation} of segments")).or_default() += 1;
            }
            *requests.entry(operation).or_default() += 1;
        }
        let mode = *self.mode.subscribe().wait_for(|mode| *mode != Mode::Stalled).await.unwrap();
        match mode {
            Mode::Failing => Err(s3_error!(ServiceUnavailable, "switched off by the test")),
            Mode::Serving | Mode::Stalled => Ok(()),
        }
    }
}

/// Knows every name, so that the access key of a request says which node sends it.
struct AnyName;

#[async_trait::async_trait]
impl S3Auth for AnyName {
    async fn get_secret_key(&self, _: &str) -> S3Result<SecretKey> {
        Ok(SECRET_KEY.into())
    }
}

#[derive(Clone, Default)]
struct Objects {
    stored: Arc<Mutex<BTreeMap<String, Stored>>>,
    faults: Faults,
}

fn segment_name(key: &str) -> Option<Arc<SegmentName>> {
    key.strip_prefix(PREFIX)?.strip_prefix('/')?.parse().ok().map(Arc::new)
}

/// Every row of a segment.
fn rows(name: &Arc<SegmentName>, bytes: &Bytes) -> Vec<Record> {
    let part =
        |range: Range<u64>| bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
    let trailer = Trailer::read(bytes, bytes.len() as u64).unwrap();
    let directory = Directory::read(&trailer, &part(trailer.directory())).unwrap();
    let of = |section: &Section| directory.rows(section, name, part(section.range.clone())).unwrap();
    directory.sections().iter().flat_map(of).collect()
}

#[derive(Clone)]
struct Stored {
    value: Bytes,
    content_type: Option<String>,
    metadata: Option<Metadata>,
}

impl Objects {
    /// Works on the objects, unless a fault says otherwise.
    async fn perform<I, T: Send + 'static>(
        &self,
        operation: &str,
        credentials: &Option<Credentials>,
        input: I,
        work: impl FnOnce(&mut BTreeMap<String, Stored>, I) -> T + Send + 'static,
    ) -> S3Result<T>
    where
        I: Send + 'static,
    {
        let node = credentials.as_ref().map_or("", |credentials| &credentials.access_key);
        let stored = self.stored.clone();
        self.faults.meet(operation, node, move || work(&mut stored.lock().unwrap(), input)).await
    }

    async fn find(&self, operation: &str, key: String, credentials: &Option<Credentials>) -> S3Result<Stored> {
        let found = self.perform(operation, credentials, key, |stored, key| stored.get(&key).cloned());
        found.await?.ok_or_else(|| s3_error!(NoSuchKey))
    }
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let PutObjectInput { key, body, content_type, metadata, .. } = request.input;
        let value = match body {
            Some(body) => body.try_fold(BytesMut::new(), async |mut all, piece| {
                all.extend_from_slice(&piece);
                Ok(all)
            }),
            None => return Err(s3_error!(IncompleteBody)),
        };
        let value = value.await.map_err(|error| s3_error!(IncompleteBody, "{error}"))?.freeze();
        let object = (key, Stored { value, content_type, metadata });
        self.perform("PutObject", &request.credentials, object, |stored, (key, object)| {
            stored.insert(key, object);
        })
        .await?;
        Ok(S3Response::new(PutObjectOutput::default()))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let stored = self.find("GetObject", input.key, &request.credentials).await?;
        let whole = stored.value.len() as u64;
        let (value, content_range) = match input.range {
            Some(range) => {
                let range = range.check(whole)?;
                let shown = format!("bytes {}-{}/{whole}", range.start, range.end - 1);
                (stored.value.slice(range.start as usize..range.end as usize), Some(shown))
            }
            None => (stored.value, None),
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(value.len()).ok(),
            content_range,
            content_type: stored.content_type,
            metadata: stored.metadata,
            body: Some(Body::from(value).into()),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let stored = self.find("HeadObject", request.input.key, &request.credentials).await?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(stored.value.len()).ok(),
            content_type: stored.content_type,
            metadata: stored.metadata,
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.perform("DeleteObject", &request.credentials, request.input.key, |stored, key| {
            stored.remove(&key);
        })
        .await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let output = self.perform("ListObjectsV2", &request.credentials, request.input, list);
        Ok(S3Response::new(output.await?))
    }
}

/// A page of the keys that begin with a prefix.
fn list(stored: &mut BTreeMap<String, Stored>, input: ListObjectsV2Input) -> ListObjectsV2Output {
    let prefix = input.prefix.unwrap_or_default();
    let start = match input.continuation_token.or(input.start_after).filter(|last| *last >= prefix) {
        Some(last) => Bound::Excluded(last),
        None => Bound::Included(prefix.clone()),
    };
    let mut keys = stored.range::<String, _>((start, Bound::Unbounded)).map(|(key, _)| key);
    if let Some(delimiter) = input.delimiter {
        let rests = keys.map_while(|key| key.strip_prefix(&prefix));
        let parts: BTreeSet<&str> = rests.filter_map(|rest| Some(rest.split_once(&delimiter)?.0)).collect();
        let common = |part| CommonPrefix { prefix: Some(format!("{prefix}{part}{delimiter}")) };
        let common_prefixes = Some(parts.into_iter().map(common).collect());
        return ListObjectsV2Output { is_truncated: Some(false), common_prefixes, ..ListObjectsV2Output::default() };
    }
    let limit = usize::try_from(input.max_keys.unwrap_or(1_000)).unwrap();
    let page: Vec<String> = keys.by_ref().take_while(|key| key.starts_with(&prefix)).take(limit).cloned().collect();
    let next = page.last().filter(|_| page.len() == limit).cloned();
    let object = |key| Object { key: Some(key), ..Object::default() };
    ListObjectsV2Output {
        is_truncated: Some(next.is_some()),
        next_continuation_token: next,
        contents: Some(page.into_iter().map(object).collect()),
        ..ListObjectsV2Output::default()
    }
}
