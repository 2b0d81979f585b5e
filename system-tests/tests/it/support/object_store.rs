//! An S3 server on files, in the test's process, that fails on demand and counts what it is asked.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{
    S3Result,
    access::{S3Access, S3AccessContext},
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};

pub(crate) const BUCKET: &str = "cairn-test";
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
    gate: Gate,
    accepting: Mutex<Option<AbortHandle>>,
}

#[derive(Clone)]
struct Gate {
    mode: watch::Sender<Mode>,
    requests: Arc<Mutex<HashMap<String, u64>>>,
}

impl ObjectStore {
    pub(crate) async fn start(root: &Path) -> Self {
        // A bucket is a directory.
        std::fs::create_dir_all(root.join(BUCKET)).unwrap();
        let gate = Gate { mode: watch::Sender::new(Mode::Serving), requests: Arc::default() };
        let mut service = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        service.set_access(gate.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = Self { address, service: service.build(), gate, accepting: Mutex::default() };
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

    fn accept(&self, listener: TcpListener) {
        let service = self.service.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
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
            Mode::Failing => Err(s3s::s3_error!(ServiceUnavailable, "switched off by the test")),
            Mode::Serving | Mode::Stalled => Ok(()),
        }
    }
}
