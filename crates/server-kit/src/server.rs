//! Binding, serving and stopping. The caller supplies the listener and the shutdown, so that tests run many servers
//! on free ports in one process; nothing here installs a signal handler except [`shutdown_signal`].

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_web::{
    App, Error, HttpServer,
    body::MessageBody,
    dev::{Server, ServiceFactory, ServiceRequest, ServiceResponse},
    web,
};
use prometheus::Registry;
use socket2::{Domain, Socket, Type};
use tokio_util::sync::CancellationToken;

use crate::{
    http::{Edge, route_not_found},
    metrics,
};

/// Connections that may wait to be accepted (the kernel caps it at `net.core.somaxconn`).
const BACKLOG: i32 = 2_048;
/// Connections per worker; more wait in the backlog.
const MAX_CONNECTIONS: usize = 10_000;
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection stays open: longer than the idle timeout of common proxies' pools (60 s), so that
/// the client is the one that closes.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How to serve HTTP.
#[derive(Clone, Copy, Debug)]
pub struct HttpOptions {
    /// Threads; 0 = one per core.
    pub workers: usize,
    /// How long requests in flight may take to end after shutdown began. Whole seconds, rounded up.
    pub shutdown_timeout: Duration,
}

/// Serves `app` on a bound listener until `shutdown`, then lets requests in flight end and returns. Dropping the
/// future stops the server, too.
///
/// # Errors
/// When the listener or the threads fail.
pub async fn serve<F, T, B>(
    listener: TcpListener,
    options: HttpOptions,
    shutdown: CancellationToken,
    app: F,
) -> io::Result<()>
where
    F: Fn() -> App<T> + Clone + Send + 'static,
    T: ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<B>, Error = Error, InitError = ()>
        + 'static,
    B: MessageBody + 'static,
{
    let mut server = start(listener, options, app)?;
    // actix's threads outlive a dropped server; a task that owns it hears of the drop through the guard and stops it.
    let stop = shutdown.child_token();
    let _stop_on_drop = stop.clone().drop_guard();
    let task = tokio::spawn(async move {
        tokio::select! {
            result = &mut server => result,
            () = stop.cancelled() => {
                let stopped = server.handle().stop(true);
                tokio::join!(server, stopped).0
            }
        }
    });
    task.await.map_err(io::Error::other)?
}

/// Not part of [`serve`]'s future, which could not be sent between threads with a builder in it.
fn start<F, T, B>(listener: TcpListener, options: HttpOptions, app: F) -> io::Result<Server>
where
    F: Fn() -> App<T> + Clone + Send + 'static,
    T: ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<B>, Error = Error, InitError = ()>
        + 'static,
    B: MessageBody + 'static,
{
    let shutdown_seconds = options.shutdown_timeout.as_millis().div_ceil(1_000);
    let mut http = HttpServer::new(app)
        .client_request_timeout(HEAD_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .max_connections(MAX_CONNECTIONS)
        .tcp_nodelay(true)
        .shutdown_timeout(shutdown_seconds.try_into().unwrap_or(u64::MAX))
        .disable_signals();
    if options.workers > 0 {
        http = http.workers(options.workers);
    }
    Ok(http.listen(listener)?.run())
}

/// Serves nothing but `/metrics` until `shutdown`.
///
/// # Errors
/// When the listener or the thread fails.
pub async fn serve_metrics(listener: TcpListener, registry: Registry, shutdown: CancellationToken) -> io::Result<()> {
    // The edge's own counters stay out of the registry: scrapes are no traffic.
    let edge = Edge::new(&Registry::new(), 0).map_err(io::Error::other)?;
    let options = HttpOptions { workers: 1, shutdown_timeout: Duration::from_secs(1) };
    serve(listener, options, shutdown, move || {
        App::new()
            .wrap(edge.clone())
            .app_data(web::Data::new(registry.clone()))
            .route("/metrics", web::get().to(async |registry: web::Data<Registry>| metrics::render(&registry)))
            .default_service(web::to(route_not_found))
    })
    .await
}

/// Ends when the process is told to stop: SIGTERM or SIGINT.
pub async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            // The signals keep their default action: the process ends at once instead of gracefully.
            tracing::warn!(%error, "signals cannot be caught; the server will not stop gracefully");
            std::future::pending::<()>().await;
        }
    }
}

/// Binds a listener.
///
/// # Errors
/// The cause, with the address in its text.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        // A restarted server takes its port back while old connections are in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}")))
}

/// Says once that everybody who reaches `addr` may do everything, unless only this machine can reach it.
pub fn warn_if_open(addr: SocketAddr) {
    if !addr.ip().is_loopback() {
        tracing::warn!(%addr, "listening beyond loopback without authentication: whoever reaches this address may do everything");
    }
}
