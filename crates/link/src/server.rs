//! The answering end.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use prost::Message;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Limits,
    frame::{FrameReader, Outbox, PREFACE},
};

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// The message that asks.
    type Request: Message + Default + 'static;
    /// The message that answers.
    type Response: Message + 'static;

    /// Answers one request. It is polled in place first, so what needs no waiting costs no task.
    fn call(&self, request: Self::Request) -> impl Future<Output = Self::Response> + Send;
}

/// Accepts connections until `shutdown`, then finishes what is in flight and returns.
///
/// # Errors
/// When the listener itself fails; a broken connection is only logged.
pub async fn serve<S: Service>(
    listener: TcpListener,
    service: Arc<S>,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let connection = handle(socket, service.clone(), limits, shutdown.clone());
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%peer, %error, "link from a peer ended");
                    }
                });
            }
            // Out of file descriptors and the like: others may end soon.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a link");
                tokio::time::sleep(limits.io_timeout / 10).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn handle<S: Service>(
    mut socket: TcpStream,
    service: Arc<S>,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut preface = [0; PREFACE.len()];
    tokio::time::timeout(limits.io_timeout, socket.read_exact(&mut preface)).await??;
    if &preface != PREFACE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a stranger spoke on the peer listener"));
    }
    let (reader, writer) = socket.into_split();
    let outbox = Arc::new(Outbox::default());
    let permits = Arc::new(Semaphore::new(limits.max_in_flight));
    let mut reader = FrameReader::new(reader, limits.max_message_bytes);
    let requests = async {
        loop {
            while let Some((id, frame)) = reader.buffered()? {
                let request = S::Request::decode(frame)?;
                answer(&service, id, request, &outbox, &permits).await?;
            }
            outbox.room(limits.max_outbox_bytes).await;
            tokio::select! {
                () = shutdown.cancelled() => break,
                more = reader.fill() => if !more? { break },
            }
        }
        // Every permit back means that every answer stands in the outbox.
        let all = u32::try_from(limits.max_in_flight).unwrap_or(u32::MAX);
        let idle = tokio::time::timeout(limits.io_timeout, permits.acquire_many(all)).await?;
        let _idle = idle.map_err(io::Error::other)?;
        outbox.room(1).await;
        Ok(())
    };
    tokio::select! {
        result = requests => result,
        result = outbox.write_to(writer, limits.io_timeout) => result,
    }
}

async fn answer<S: Service>(
    service: &Arc<S>,
    id: u32,
    request: S::Request,
    outbox: &Arc<Outbox>,
    permits: &Arc<Semaphore>,
) -> io::Result<()> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let mut call: Pin<Box<dyn Future<Output = S::Response> + Send>> = {
        let service = service.clone();
        Box::pin(async move { service.call(request).await })
    };
    // Most answers come out of memory. Polling here spares them a task; whatever registered this waker registers the
    // task's own when the task polls again.
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(response) => outbox.push(id, &response),
        Poll::Pending => {
            let outbox = outbox.clone();
            tokio::spawn(async move {
                let response = call.await;
                outbox.push(id, &response);
                drop(permit);
            });
        }
    }
    Ok(())
}
