//! What this node sends to other nodes as a primary: one ordered, batched stream of writes to each, and leases.
//!
//! A write that does not get through is dropped here: the protocol sends it again, or gives the peer up. So nothing
//! grows while a peer is away.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use cairn_api_spec::peer::{
    self, Collect, Collected, Execute, Granted, Hop, Release, Released, Renew, Replicate, Replicated, Request,
    RequestKind, Response, ResponseKind, Trace, Uploaded,
};
use cairn_api_spec::{
    EntryName, Operation, Outcome,
    operation::{Action, Consistency, Metadata},
    version::Condition,
};
use cairn_engine::{Change, NodeId, Payload};
use cairn_link::{CallError, Client, Limits};
use cairn_replication::{Header, Member, Write};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::driver::{Driver, Network, Outgoing};

/// Writes of one message, and bytes of their values after which it is full.
const BATCH_WRITES: usize = 512;
const BATCH_BYTES: usize = 4 << 20;
/// Messages to one peer that are not answered.
const BATCHES: usize = 4;
/// Writes that wait for one peer.
const MAX_WAITING: usize = 65_536;
/// When uploads that a peer has not heard of are told again.
const TELL_AGAIN: Duration = Duration::from_millis(500);
/// How long a peer may take to store a message's writes, or to answer anything else.
const REPLICATE_DEADLINE: Duration = Duration::from_secs(3);
const ASK_DEADLINE: Duration = Duration::from_secs(1);

/// The message for a write on its way.
fn message(outgoing: &Outgoing) -> peer::Append {
    let trace = outgoing.span.context().map(Trace::from);
    peer::Append { trace, ..append(outgoing.partition, &outgoing.header, &outgoing.write) }
}

/// Why a peer did not answer as it should.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{peer}: {why}")]
pub struct PeerError {
    /// The peer.
    pub peer: NodeId,
    /// Why.
    pub why: String,
    /// Nobody listens where it should be.
    pub is_down: bool,
}

/// The other nodes.
#[derive(Default)]
pub struct Peers {
    links: Mutex<HashMap<NodeId, Link>>,
    /// Who hears what peers answer to writes.
    driver: Arc<OnceLock<Weak<Driver>>>,
}

struct Link {
    address: String,
    client: Client,
    queue: Arc<Queue>,
    _ship: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    writes: Vec<Outgoing>,
    /// Uploads that have ended. Lost ones only cost a second upload later.
    uploads: Vec<Uploaded>,
}

impl Peers {
    /// Names the driver that hears what peers answer to writes. Until then nothing is sent.
    pub fn attach(&self, driver: &Arc<Driver>) {
        self.driver.get_or_init(|| Arc::downgrade(driver));
    }

    fn links(&self) -> MutexGuard<'_, HashMap<NodeId, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over where the nodes are. Runs on the node's runtime, where the links then work.
    pub fn set_addresses<'a>(&self, nodes: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut links = self.links();
        let mut before = std::mem::take(&mut *links);
        for (node, address) in nodes {
            let known = before.remove_entry(node).filter(|(_, link)| link.address == address);
            let (node, link) = known.unwrap_or_else(|| {
                let node: NodeId = node.into();
                let link = Link::open(&node, address, &self.driver);
                (node, link)
            });
            links.insert(node, link);
        }
    }

    /// The link to a node.
    ///
    /// # Errors
    /// When no such node is registered.
    pub fn client(&self, node: &NodeId) -> Result<Client, PeerError> {
        let client = self.links().get(node).map(|link| link.client.clone());
        client.ok_or_else(|| PeerError { peer: node.clone(), why: "it is not registered".to_owned(), is_down: false })
    }

    /// Passes writes on, as the link of a chain.
    ///
    /// # Errors
    /// When the peer does not answer.
    pub async fn replicate(&self, to: &NodeId, message: Replicate) -> Result<Replicated, PeerError> {
        replicate(to, &self.client(to)?, message, ASK_DEADLINE).await
    }

    /// Asks for leases.
    ///
    /// # Errors
    /// When the peer does not answer.
    pub async fn renew(&self, to: &NodeId, message: Renew) -> Result<Granted, PeerError> {
        match call(to, &self.client(to)?, RequestKind::Renew(message), ASK_DEADLINE).await? {
            ResponseKind::Granted(granted) => Ok(granted),
            other => Err(unexpected(to, &other)),
        }
    }

    /// Asks a partition's primary whether a segment is of no more use to it.
    ///
    /// # Errors
    /// When the peer does not answer.
    pub async fn release(&self, to: &NodeId, message: Release) -> Result<Released, PeerError> {
        match call(to, &self.client(to)?, RequestKind::Release(message), ASK_DEADLINE).await? {
            ResponseKind::Released(released) => Ok(released),
            other => Err(unexpected(to, &other)),
        }
    }

    /// Asks for unstable writes.
    ///
    /// # Errors
    /// When the peer does not answer.
    pub async fn collect(&self, to: &NodeId, message: Collect) -> Result<Collected, PeerError> {
        match call(to, &self.client(to)?, RequestKind::Collect(message), ASK_DEADLINE).await? {
            ResponseKind::Collected(collected) => Ok(collected),
            other => Err(unexpected(to, &other)),
        }
    }
}

impl Network for Peers {
    fn send(&self, outgoing: Outgoing) {
        if let Some(link) = self.links().get(&outgoing.to.node) {
            link.queue.push(|waiting| {
                if waiting.writes.len() < MAX_WAITING {
                    waiting.writes.push(outgoing);
                }
            });
        }
    }

    fn tell(&self, to: &NodeId, uploaded: Uploaded) {
        if let Some(link) = self.links().get(to) {
            link.queue.push(|waiting| {
                if waiting.uploads.len() < MAX_WAITING {
                    waiting.uploads.push(uploaded);
                }
            });
        }
    }

    fn read_copy<'a>(&'a self, from: &'a NodeId, name: &'a EntryName) -> BoxFuture<'a, Option<(Metadata, Bytes)>> {
        let operation = Operation {
            consistency: Consistency::Eventual,
            ..Operation::new(name.clone(), Condition::None, Action::Get)
        };
        async move {
            let execute = RequestKind::Execute(Execute::new(operation, 0));
            let answer = call(from, &self.client(from).ok()?, execute, ASK_DEADLINE).await.ok()?;
            let ResponseKind::Executed(executed) = answer else { return None };
            match executed.try_into().ok()? {
                Outcome::Found { metadata, value: Some(value), .. } => Some((metadata, value)),
                _ => None,
            }
        }
        .boxed()
    }
}

impl Link {
    fn open(node: &NodeId, address: &str, driver: &Arc<OnceLock<Weak<Driver>>>) -> Self {
        let client = Client::new(address, Limits::default());
        let queue = Arc::new(Queue::default());
        let ship = (0..BATCHES).map(|_| ship(node.clone(), client.clone(), queue.clone(), driver.clone()));
        let ship = futures_util::future::join_all(ship.collect::<Vec<_>>());
        let ship = AbortOnDropHandle::new(tokio::spawn(async move {
            ship.await;
        }));
        Self { address: address.to_owned(), client, queue, _ship: ship }
    }
}

impl Queue {
    fn push(&self, push: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = waiting.writes.is_empty() && waiting.uploads.is_empty();
        push(&mut waiting);
        drop(waiting);
        if idle {
            self.filled.notify_one();
        }
    }

    /// The next writes, all for the same process and on the same way, and uploads.
    fn take(&self) -> Waiting {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        let fits = |first: &Outgoing, next: &&Outgoing| {
            let fits = bytes < BATCH_BYTES;
            bytes += next.write.data.change.value_len();
            fits && next.to.session == first.to.session && next.route == first.route
        };
        let count = match waiting.writes.first() {
            None => 0,
            Some(first) => {
                let mut fits = fits;
                waiting.writes.iter().take(BATCH_WRITES).take_while(|next| fits(first, next)).count()
            }
        };
        let batch =
            Waiting { writes: waiting.writes.drain(..count).collect(), uploads: std::mem::take(&mut waiting.uploads) };
        if !waiting.writes.is_empty() {
            self.filled.notify_one();
        }
        batch
    }
}

async fn ship(node: NodeId, client: Client, queue: Arc<Queue>, driver: Arc<OnceLock<Weak<Driver>>>) {
    loop {
        let Waiting { writes, uploads } = queue.take();
        let session = writes.first().map_or(0, |first| first.to.session);
        if writes.is_empty() && uploads.is_empty() {
            queue.filled.notified().await;
            // Lets the thread that woke this one, if they share a core, send what else it holds.
            tokio::task::yield_now().await;
            continue;
        }
        let Some(me) = driver.get().and_then(Weak::upgrade).map(|driver| driver.me.clone()) else { return };
        let message = Replicate {
            primary: me.node.to_string(),
            primary_session: me.session,
            session,
            appends: writes.iter().map(message).collect(),
            route: writes.first().map(|first| first.route.iter().map(hop).collect()).unwrap_or_default(),
            uploads: uploads.clone(),
        };
        let result = replicate(&node, &client, message, REPLICATE_DEADLINE).await;
        let Some(driver) = driver.get().and_then(Weak::upgrade) else { return };
        let answer = result.inspect_err(|error| {
            tracing::debug!(%error, writes = writes.len(), "writes have not reached a replica");
        });
        let is_lost = answer.is_err() && !uploads.is_empty();
        driver.answered(writes, answer.ok().as_ref());
        drop(driver);
        if is_lost {
            tokio::time::sleep(TELL_AGAIN).await;
            queue.push(|waiting| {
                let room = MAX_WAITING.saturating_sub(waiting.uploads.len());
                waiting.uploads.extend(uploads.into_iter().take(room));
            });
        }
    }
}

async fn replicate(
    to: &NodeId,
    client: &Client,
    message: Replicate,
    deadline: Duration,
) -> Result<Replicated, PeerError> {
    match call(to, client, RequestKind::Replicate(message), deadline).await? {
        ResponseKind::Replicated(replicated) => Ok(replicated),
        other => Err(unexpected(to, &other)),
    }
}

async fn call(to: &NodeId, client: &Client, kind: RequestKind, deadline: Duration) -> Result<ResponseKind, PeerError> {
    let failed = |why: String, is_down: bool| PeerError { peer: to.clone(), why, is_down };
    let response: Response = client.call(&Request { kind: Some(kind) }, deadline).await.map_err(|error| {
        let refuses = |source: &io::Error| source.kind() == io::ErrorKind::ConnectionRefused;
        let is_down = matches!(&error, CallError::Unreachable { source, .. } if refuses(source));
        failed(error.to_string(), is_down)
    })?;
    response.kind.ok_or_else(|| failed("it answered something that this release does not know".to_owned(), false))
}

fn unexpected(to: &NodeId, other: &ResponseKind) -> PeerError {
    let why = match other {
        ResponseKind::Failed(failed) => format!("{}: {}", failed.code, failed.detail),
        _ => "it answered something else".to_owned(),
    };
    PeerError { peer: to.clone(), why, is_down: false }
}

fn hop(member: &Member<NodeId>) -> Hop {
    Hop { node_id: member.node.to_string(), session: member.session }
}

/// The message for a write.
pub fn append(partition: u32, header: &Header<NodeId>, write: &Write<Payload>) -> peer::Append {
    let idempotency = write.data.idempotency.as_ref();
    let refused = match &write.data.change {
        Change::Note { refused, .. } => Some(refused.to_peer()),
        _ => None,
    };
    let (refused, refused_version) = refused.unwrap_or_default();
    peer::Append {
        partition,
        epoch: header.epoch,
        stable: header.stable.0,
        durability: peer::Durability::from(write.data.durability).into(),
        row: Some(write.data.change.to_peer()),
        idempotency_key: idempotency.map_or_else(String::new, |it| it.key.to_string()),
        created: idempotency.is_some_and(|it| it.created),
        counted: idempotency.and_then(|it| it.counted),
        trace: None,
        refused,
        refused_version,
    }
}
