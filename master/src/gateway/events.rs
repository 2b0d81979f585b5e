//! Events of all nodes, merged into one feed.
//!
//! As long as anybody has subscribed, each node is asked again and again for what has become visible on it. A node that
//! does not answer may have events that nobody will hear of: then the feed has a gap.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_api_spec::{
    ApiError,
    backoff::Backoff,
    cluster::RingNode,
    events::{Change, Position},
    peer::{PollEvents, PolledEvents, Request, RequestKind, ResponseKind},
};
use cairn_link::{Client, Limits};
use cairn_operations::feed::{Feed, Item, Subscriber};
use tokio::{sync::Notify, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{GatewayError, call};
use crate::ring::PublishedRing;

/// How long a node may take to answer; it waits for events for two seconds.
const PATIENCE: Duration = Duration::from_secs(4);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// How often it is looked at which nodes there are, at least.
const LOOK: Duration = Duration::from_secs(1);
/// How long a subscription waits for the nodes.
const BEGIN: Duration = Duration::from_secs(5);

/// The merged feed.
pub(crate) struct Events {
    feed: Feed,
    /// Nodes that are asked, and have answered or are known not to.
    known: Mutex<HashSet<String>>,
    changed: Notify,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { feed: Feed::new(rand::random()), known: Mutex::default(), changed: Notify::new() }
    }

    /// Subscribes to what happens on every node of the map.
    pub(super) async fn subscribe(
        &self,
        ring: &PublishedRing,
        after: Option<Position>,
    ) -> Result<Subscriber, ApiError> {
        let subscriber = self.feed.subscribe(after)?;
        let all = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let asked = ring.load().nodes.iter().all(|node| self.known().contains(&node.node_id));
                if asked {
                    return;
                }
                changed.await;
            }
        };
        // A node that is not heard of by then begins with a gap.
        let _ = timeout(BEGIN, all).await;
        Ok(subscriber)
    }

    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, node: &str) {
        self.known().insert(node.to_owned());
        self.changed.notify_waiters();
    }

    /// Asks the nodes until `stop`, as long as anybody wants to hear of it.
    pub(crate) async fn run(self: &Arc<Self>, ring: &PublishedRing, stop: CancellationToken) {
        let work = async {
            loop {
                self.feed.recording().await;
                self.ask_all(ring).await;
                self.known().clear();
            }
        };
        stop.run_until_cancelled(work).await;
        self.feed.close();
    }

    /// Keeps a task for each node of the map.
    async fn ask_all(self: &Arc<Self>, ring: &PublishedRing) {
        let mut asking: HashMap<(String, String), AbortOnDropHandle<()>> = HashMap::new();
        while self.feed.is_recording() {
            let map = ring.load_full();
            let key = |node: &RingNode| (node.node_id.clone(), node.peer_address.clone());
            let nodes: HashSet<_> = map.nodes.iter().map(key).collect();
            let before = asking.len();
            asking.retain(|node, _| nodes.contains(node));
            if asking.len() < before {
                // What they had not told yet.
                self.feed.publish(|| Some(Item::Gap));
            }
            for node in nodes {
                asking.entry(node).or_insert_with_key(|(id, address)| {
                    let task: JoinHandle<()> = tokio::spawn(ask(self.clone(), id.clone(), address.clone()));
                    AbortOnDropHandle::new(task)
                });
            }
            ring.changed_from(map.epoch, LOOK).await;
        }
    }

    fn take(&self, polled: PolledEvents) -> Result<Position, ApiError> {
        if polled.gap {
            self.feed.publish(|| Some(Item::Gap));
        }
        for event in polled.events {
            let change: Change = event.try_into()?;
            self.feed.publish(|| Some(Item::Change(Arc::new(change))));
        }
        Ok(Position { process: polled.process, number: polled.last })
    }
}

/// Asks one node, for ever.
async fn ask(events: Arc<Events>, node: String, address: String) {
    let link = Client::new(&address, Limits::default());
    let (mut position, mut backoff) = (Position { process: 0, number: 0 }, BACKOFF);
    let mut is_lost = false;
    loop {
        let poll = PollEvents { process: position.process, after: position.number };
        let request = Request { kind: Some(RequestKind::PollEvents(poll)) };
        let polled = match call(&link, &request, PATIENCE, false).await {
            Ok(ResponseKind::PolledEvents(polled)) => events.take(polled),
            Ok(ResponseKind::Failed(error)) => Err(error.into()),
            Ok(_) => Err(GatewayError::Strange.into()),
            Err(error) => Err(error),
        };
        match polled {
            Ok(next) => {
                (position, is_lost) = (next, false);
                backoff.reset();
                events.note(&node);
            }
            Err(error) => {
                if !std::mem::replace(&mut is_lost, true) {
                    tracing::debug!(node, %error, "the events of a node are missing");
                    events.feed.publish(|| Some(Item::Gap));
                }
                events.note(&node);
                tokio::time::sleep(backoff.pause(rand::random())).await;
            }
        }
    }
}
