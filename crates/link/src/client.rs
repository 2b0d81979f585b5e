//! The calling end: one connection, opened when it is first needed and again after it broke.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message;
use slab::Slab;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Limits,
    frame::{FrameReader, Outbox, PREFACE, lock},
};

/// How often waiting calls are compared with their deadlines: the most by which a deadline may be missed.
const DEADLINE_TICK: Duration = Duration::from_millis(50);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection could be made: nothing was sent.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// The peer.
        address: Arc<str>,
        /// Why.
        source: io::Error,
    },
    /// Too much is in flight already: nothing was sent.
    #[error("too many requests to {0} are in flight")]
    Overloaded(Arc<str>),
    /// The request is longer than a frame may be: nothing was sent.
    #[error("a message of {0} bytes does not fit a frame")]
    TooLarge(usize),
    /// No answer in time: the request may have been executed.
    #[error("{0} did not answer in time")]
    Deadline(Arc<str>),
    /// The connection broke before the answer: the request may have been executed.
    #[error("the connection to {0} broke")]
    Broken(Arc<str>),
    /// The answer could not be read: the request was executed.
    #[error("{address} sent an unreadable answer: {source}")]
    Unreadable {
        /// The peer.
        address: Arc<str>,
        /// Why.
        source: prost::DecodeError,
    },
}

impl CallError {
    /// Whether the peer may have executed the request.
    pub fn was_sent(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Overloaded(_) | Self::TooLarge(_) => false,
            Self::Deadline(_) | Self::Broken(_) | Self::Unreadable { .. } => true,
        }
    }
}

/// A handle to one peer; clones share the connection. Its tasks run on the runtime of the call that connects, and
/// end with the last handle.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    address: Arc<str>,
    limits: Limits,
    current: Mutex<Option<Arc<Connection>>>,
    /// Held while connecting, so that many callers open one connection.
    connecting: tokio::sync::Mutex<()>,
}

struct Connection {
    state: Arc<State>,
    _reader: AbortOnDropHandle<()>,
    _writer: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct State {
    outbox: Outbox,
    waiting: Mutex<Slab<Waiting>>,
    received: AtomicU64,
    broken: AtomicBool,
}

/// A call in flight. Its slot is its id on the wire, so it stays taken until the answer comes, even when nobody
/// waits any more.
struct Waiting {
    answer: Option<oneshot::Sender<Bytes>>,
    deadline: Instant,
    received_before: u64,
}

impl Client {
    /// A handle to the peer at `address` (`host:port`). Nothing is opened yet.
    pub fn new(address: &str, limits: Limits) -> Self {
        let shared = Shared {
            address: address.into(),
            limits,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::was_sent`] tells whether the peer may have acted.
    pub async fn call<A: Message + Default>(&self, request: &impl Message, deadline: Duration) -> Result<A, CallError> {
        let address = || self.shared.address.clone();
        let connection = match self.live() {
            Some(connection) => connection,
            // Many may wait for one connection, and none of them longer than its deadline.
            None => tokio::time::timeout(deadline, self.connect())
                .await
                .map_err(|late| CallError::Unreachable { address: address(), source: late.into() })
                .flatten()?,
        };
        let answer = self.send(&connection.state, request, deadline)?;
        let Ok(frame) = answer.await else {
            let broken = connection.state.broken.load(Ordering::Acquire);
            return Err(if broken { CallError::Broken(address()) } else { CallError::Deadline(address()) });
        };
        A::decode(frame).map_err(|source| CallError::Unreadable { address: address(), source })
    }

    fn live(&self) -> Option<Arc<Connection>> {
        lock(&self.shared.current).clone().filter(|c| !c.state.broken.load(Ordering::Acquire))
    }

    fn send(
        &self,
        state: &State,
        request: &impl Message,
        deadline: Duration,
    ) -> Result<oneshot::Receiver<Bytes>, CallError> {
        let limits = &self.shared.limits;
        let length = request.encoded_len();
        if length > limits.max_message_bytes {
            return Err(CallError::TooLarge(length));
        }
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&state.waiting);
        if waiting.len() >= limits.max_in_flight || state.outbox.len() >= limits.max_outbox_bytes {
            return Err(CallError::Overloaded(self.shared.address.clone()));
        }
        // Checked under the lock that `State::fail` takes after setting it: a call is refused here or failed there.
        if state.broken.load(Ordering::Acquire) {
            return Err(CallError::Unreachable {
                address: self.shared.address.clone(),
                source: io::ErrorKind::ConnectionReset.into(),
            });
        }
        let id = waiting.insert(Waiting {
            answer: Some(sender),
            deadline: Instant::now() + deadline,
            received_before: state.received.load(Ordering::Relaxed),
        });
        drop(waiting);
        #[expect(clippy::cast_possible_truncation, reason = "ids stay below max_in_flight")]
        state.outbox.push(id as u32, request);
        Ok(receiver)
    }

    async fn connect(&self) -> Result<Arc<Connection>, CallError> {
        let _one = self.shared.connecting.lock().await;
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        let limits = self.shared.limits;
        let address = self.shared.address.clone();
        let opened = tokio::time::timeout(limits.io_timeout, open(&address)).await.map_err(io::Error::from).flatten();
        let (reader, writer) = match opened {
            Ok(socket) => socket.into_split(),
            Err(source) => return Err(CallError::Unreachable { address, source }),
        };
        let state = Arc::new(State::default());
        let write = {
            let state = state.clone();
            tokio::spawn(async move {
                let result = tokio::select! {
                    result = state.outbox.write_to(writer, limits.io_timeout) => result,
                    () = state.watch_deadlines() => Ok(()),
                };
                state.fail(&address, result);
            })
        };
        let read = {
            let (state, address) = (state.clone(), self.shared.address.clone());
            tokio::spawn(async move {
                let result = state.read_from(FrameReader::new(reader, limits.max_message_bytes)).await;
                state.fail(&address, result);
            })
        };
        let connection = Arc::new(Connection {
            state,
            _reader: AbortOnDropHandle::new(read),
            _writer: AbortOnDropHandle::new(write),
        });
        *lock(&self.shared.current) = Some(connection.clone());
        Ok(connection)
    }
}

async fn open(address: &str) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(PREFACE).await?;
    Ok(socket)
}

impl State {
    async fn read_from(&self, mut reader: FrameReader<tokio::net::tcp::OwnedReadHalf>) -> io::Result<()> {
        while reader.fill().await? {
            while let Some((id, frame)) = reader.buffered()? {
                self.received.fetch_add(1, Ordering::Relaxed);
                let waiting = lock(&self.waiting).try_remove(id as usize);
                if let Some(answer) = waiting.and_then(|w| w.answer) {
                    // The caller may have gone away; then nobody wants the answer.
                    let _ = answer.send(frame);
                }
            }
        }
        Ok(())
    }

    /// Gives up calls whose deadline has passed. Returns when one of them saw nothing at all arrive while it waited:
    /// then the peer, or the way to it, has stopped, and a new connection is the way out.
    async fn watch_deadlines(&self) {
        loop {
            tokio::time::sleep(DEADLINE_TICK).await;
            let now = Instant::now();
            let received = self.received.load(Ordering::Relaxed);
            let mut stopped = false;
            for (_, waiting) in lock(&self.waiting).iter_mut() {
                if waiting.deadline <= now && waiting.answer.take().is_some() {
                    stopped |= waiting.received_before == received;
                }
            }
            if stopped {
                return;
            }
        }
    }

    /// Fails everything that waits. The connection is not used again.
    fn fail(&self, address: &str, result: io::Result<()>) {
        self.broken.store(true, Ordering::Release);
        let lost = std::mem::take(&mut *lock(&self.waiting)).len();
        match result {
            Err(error) => tracing::debug!(peer = address, lost, %error, "link broke"),
            Ok(()) => tracing::debug!(peer = address, lost, "link closed"),
        }
    }
}
