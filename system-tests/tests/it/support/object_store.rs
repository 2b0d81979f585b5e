//! An S3 server in the test's process, that fails on demand and counts what it is asked.
//!
//! Its objects are in memory: an object on files is several files and directories, and removing those of a test takes
//! longer than the test on disks that discard.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    ops::Bound,
    sync::{Arc, Mutex},
};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{
    Body, S3, S3Request, S3Response, S3Result,
    access::{S3Access, S3AccessContext},
    auth::SimpleAuth,
    dto::{
        DeleteObjectInput, DeleteObjectOutput, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
        ListObjectsV2Input, ListObjectsV2Output, Metadata, Object, PutObjectInput, PutObjectOutput,
    },
    s3_error,
    service::{S3Service, S3ServiceBuilder},
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};

const BUCKET: &str = "cairn-test";
const ACCESS_KEY: &str = "test";
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
    objects: Arc<Mutex<BTreeMap<String, Stored>>>,
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
        let objects = Arc::default();
        let mut service = S3ServiceBuilder::new(Objects(Arc::clone(&objects)));
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        service.set_access(gate.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = Self { address, service: service.build(), objects, gate, accepting: Mutex::default() };
        store.accept(listener);
        store
    }

    /// The settings of a node that uses it.
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("S3_ENDPOINT", format!("http://{}", self.address)),
            ("S3_BUCKET", BUCKET.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// Changes what happens to requests from now on; those that are stalled go on when the store serves again.
    pub(crate) fn set(&self, mode: Mode) {
        self.gate.mode.send_replace(mode);
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

    /// How often the store was asked for an operation, such as `GetObject`.
    pub(crate) fn requests(&self, operation: &str) -> u64 {
        self.gate.requests.lock().unwrap().get(operation).copied().unwrap_or(0)
    }

    /// Whether the store has the object of this version of some key.
    pub(crate) fn has_version(&self, version: u64) -> bool {
        let end = format!("/{version}");
        self.objects.lock().unwrap().keys().any(|key| key.ends_with(&end))
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
        *self.requests.lock().unwrap().entry(context.s3_op().name().to_owned()).or_default() += 1;
        let mode = *self.mode.subscribe().wait_for(|mode| *mode != Mode::Stalled).await.unwrap();
        match mode {
            Mode::Failing => Err(s3_error!(ServiceUnavailable, "switched off by the test")),
            Mode::Serving | Mode::Stalled => Ok(()),
        }
    }
}

struct Objects(Arc<Mutex<BTreeMap<String, Stored>>>);

#[derive(Clone)]
struct Stored {
    value: Bytes,
    content_type: Option<String>,
    metadata: Option<Metadata>,
}

impl Objects {
    fn find(&self, key: &str) -> Option<Stored> {
        self.0.lock().unwrap().get(key).cloned()
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
        self.0.lock().unwrap().insert(key, Stored { value, content_type, metadata });
        Ok(S3Response::new(PutObjectOutput::default()))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let stored = self.find(&request.input.key).ok_or_else(|| s3_error!(NoSuchKey))?;
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(stored.value.len()).ok(),
            content_type: stored.content_type,
            metadata: stored.metadata,
            body: Some(Body::from(stored.value).into()),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let stored = self.find(&request.input.key).ok_or_else(|| s3_error!(NoSuchKey))?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(stored.value.len()).ok(),
            content_type: stored.content_type,
            metadata: stored.metadata,
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.0.lock().unwrap().remove(&request.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let prefix = input.prefix.unwrap_or_default();
        let start = match &input.continuation_token {
            Some(last) => Bound::Excluded(last.as_str()),
            None => Bound::Included(prefix.as_str()),
        };
        let objects = self.0.lock().unwrap();
        let mut keys = objects.range::<str, _>((start, Bound::Unbounded)).map(|(key, _)| key);
        let limit = usize::try_from(input.max_keys.unwrap_or(1_000)).unwrap();
        let page: Vec<String> = keys.by_ref().take_while(|key| key.starts_with(&prefix)).take(limit).cloned().collect();
        let next = page.last().filter(|_| page.len() == limit).cloned();
        let object = |key| Object { key: Some(key), ..Object::default() };
        Ok(S3Response::new(ListObjectsV2Output {
            is_truncated: Some(next.is_some()),
            next_continuation_token: next,
            contents: Some(page.into_iter().map(object).collect()),
            ..ListObjectsV2Output::default()
        }))
    }
}
