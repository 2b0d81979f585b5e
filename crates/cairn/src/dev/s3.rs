//! The object store of a local cluster: S3 over a directory, on a free loopback port.
//!
//! Its credentials are made anew for each run and only this process knows them, so no one else on the machine reads
//! or writes the bucket through it.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use cairn_node::tiers::object::Credentials;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{
    S3Request, S3Result,
    access::S3Access,
    auth::SimpleAuth,
    dto::{GetObjectInput, Range},
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{DevError, settings::BUCKET};

/// Connections at a time; the nodes' pools stay far below.
const MAX_CONNECTIONS: usize = 1024;
/// How long requests in flight may take to end.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait after the system refused to accept, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct EmbeddedS3 {
    endpoint: String,
    credentials: Credentials,
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl EmbeddedS3 {
    pub(super) async fn start(root: &Path) -> Result<Self, DevError> {
        // A bucket is a directory.
        std::fs::create_dir_all(root.join(BUCKET))?;
        let files = FileSystem::new(root).map_err(|error| DevError::S3(format!("{error:?}")))?;
        let (id, secret) = (random_text(), random_text());
        let mut service = S3ServiceBuilder::new(files);
        service.set_access(Ends(root.to_owned()));
        service.set_auth(SimpleAuth::from_single(id.as_str(), secret.as_str()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, service.build(), stop.clone()));
        let credentials = Credentials::new(id, secret, None, None, "cairn dev");
        Ok(Self { endpoint, credentials, stop: stop.drop_guard(), task })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    pub(super) async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the embedded S3 server failed");
        }
    }
}

/// Who asks for more bytes from the end of an object than it has gets all of it. The server over the file system would fail.
struct Ends(PathBuf);

#[async_trait::async_trait]
impl S3Access for Ends {
    async fn get_object(&self, request: &mut S3Request<GetObjectInput>) -> S3Result<()> {
        let GetObjectInput { bucket, key, range, .. } = &mut request.input;
        if let Some(Range::Suffix { length }) = range
            && let Ok(file) = tokio::fs::metadata(self.0.join(bucket).join(key)).await
        {
            *length = file.len().min(*length);
        }
        Ok(())
    }
}

fn random_text() -> String {
    format!("{:032x}", rand::random::<u128>())
}

async fn accept(listener: TcpListener, service: S3Service, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    // Without it every small object waits for a delayed acknowledgement.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve(stream, service.clone(), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the embedded S3 server could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    let drained = timeout(PATIENCE, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        connections.shutdown().await;
    }
}

async fn serve(stream: TcpStream, service: S3Service, stop: CancellationToken) {
    let server = auto::Builder::new(TokioExecutor::new());
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the embedded S3 server broke");
    }
}
