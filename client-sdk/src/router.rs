//! The masters and the partition map: which server a key's request goes to.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use cairn_api_spec::{
    EntryName,
    backoff::Backoff,
    cluster::{Ring, RingNode},
    error::Problem,
    routes::Routes,
};
use progenitor_client::{Error, ResponseValue};
use reqwest::StatusCode;
use tokio::{
    sync::{Mutex, Notify},
    time::{Instant, sleep, timeout},
};

use crate::{call::failure, error::Failure, generated::master};

/// How long the master holds a question for the next map, and how long the answer is waited for.
const POLL_SECONDS: i64 = 30;
const POLL_TIMEOUT: Duration = Duration::from_secs(40);
/// Between two polls that brought nothing, and at first after one that failed.
const POLL_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Between two fetches that requests asked for.
const FETCH_PAUSE: Duration = Duration::from_millis(200);
/// How long one master is asked for the map before the next one is.
const RING_TIMEOUT: Duration = Duration::from_secs(3);

/// A partition map, with the base URL of each node.
#[derive(Debug)]
pub(crate) struct Map {
    cluster_id: u64,
    epoch: u64,
    routes: Routes<Arc<str>>,
}

impl Map {
    fn new(ring: &Ring) -> Self {
        let address = |node: &RingNode| (node.node_id.clone(), Arc::from(node.address.trim_end_matches('/')));
        let addresses: HashMap<String, Arc<str>> = ring.nodes.iter().map(address).collect();
        // With another partition function every key goes through the master.
        let routes = Routes::new(ring, |node, _| addresses[&node.node_id].clone());
        Self { cluster_id: ring.cluster_id, epoch: ring.epoch, routes }
    }

    /// The base URL of the node that owns a key, if the map knows one.
    pub(crate) fn owner(&self, name: &EntryName) -> Option<&str> {
        self.routes.primary(name).map(|address| &**address)
    }

    /// The base URL of any node that is in sync with a key's partition, of another one than `failed` if there is one.
    pub(crate) fn any_in_sync(&self, name: &EntryName, failed: Option<&str>) -> Option<&str> {
        let avoid = |address: &Arc<str>| Some(&**address) == failed;
        self.routes.any_in_sync(name, rand::random(), avoid).map(|address| &**address)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Router {
    http: reqwest::Client,
    masters: Vec<String>,
    current: AtomicUsize,
    map: ArcSwap<Map>,
    /// Held while the map is fetched, so that many requests that met an old map fetch one.
    fetching: Mutex<()>,
    /// Somebody suspects that the map is old.
    suspected: Notify,
}

impl Router {
    /// Learns the map from the first master that gives it.
    pub(crate) async fn connect(http: reqwest::Client, masters: Vec<String>) -> Result<Self, Failure> {
        let map = ArcSwap::from_pointee(Map::new(&Ring::default()));
        let router = Self {
            http,
            masters,
            current: AtomicUsize::new(0),
            map,
            fetching: Mutex::default(),
            suspected: Notify::new(),
        };
        router.fetch().await?;
        Ok(router)
    }

    pub(crate) fn map(&self) -> Arc<Map> {
        self.map.load_full()
    }

    /// The master to ask.
    pub(crate) fn master(&self) -> &str {
        &self.masters[self.current.load(Ordering::Relaxed) % self.masters.len()]
    }

    /// Another master, when the failed one is still the one to ask.
    pub(crate) fn leave_master(&self, failed: &str) {
        let current = self.current.load(Ordering::Relaxed);
        if self.masters[current % self.masters.len()] == failed {
            let next = current.wrapping_add(1);
            // When somebody else was faster, it is done.
            let _ = self.current.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Asks the masters one after the other until one answers.
    pub(crate) async fn ask<T, F>(
        &self,
        patience: Duration,
        question: impl Fn(master::Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<ResponseValue<T>, Error<Problem>>>,
    {
        let mut last = Failure::Unsent("there is no master to ask".to_owned());
        for _ in &self.masters {
            let url = self.master();
            let client = master::Client::new_with_client(url, self.http.clone());
            last = match timeout(patience, question(client)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(error)) => failure(error).await,
                Err(_) => Failure::Broken(format!("{url} did not answer within {patience:?}")),
            };
            if !matches!(last, Failure::Unsent(_) | Failure::Broken(_)) {
                break;
            }
            self.leave_master(url);
        }
        Err(last)
    }

    /// Has the map fetched in the background.
    pub(crate) fn refresh_soon(&self) {
        self.suspected.notify_one();
    }

    /// Fetches the map, unless it is already another one than `known`. Whether it is then.
    pub(crate) async fn refresh(&self, known: &Arc<Map>) -> bool {
        let _fetching = self.fetching.lock().await;
        if Arc::ptr_eq(known, &self.map())
            && let Err(error) = self.fetch().await
        {
            tracing::debug!(%error, "the partition map could not be fetched");
        }
        !Arc::ptr_eq(known, &self.map())
    }

    async fn fetch(&self) -> Result<(), Failure> {
        let ring = self.ask(RING_TIMEOUT, |master| async move { master.get_ring(None, None).await }).await?;
        self.adopt(&ring);
        Ok(())
    }

    /// Takes a map unless it is older than the one that is there.
    fn adopt(&self, ring: &Ring) {
        let known = self.map.load();
        if ring.cluster_id != known.cluster_id || ring.epoch > known.epoch {
            self.map.store(Arc::new(Map::new(ring)));
        }
    }

    /// Follows the changes of the map for ever. A suspicion cuts a question or a pause short, since the master that was
    /// asked may hang.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut backoff = Backoff::new(POLL_PAUSE, LONGEST_PAUSE);
        loop {
            tokio::select! {
                () = self.follow_once(&mut backoff) => {}
                () = self.suspected.notified() => {
                    self.refresh(&self.map()).await;
                    sleep(FETCH_PAUSE).await;
                }
            }
        }
    }

    async fn follow_once(&self, backoff: &mut Backoff) {
        let began = Instant::now();
        match self.poll().await {
            Ok(changed) => {
                backoff.reset();
                // Something between here and the master may not let it wait.
                if !changed && began.elapsed() < POLL_PAUSE {
                    sleep(POLL_PAUSE).await;
                }
            }
            Err(()) => sleep(backoff.pause(rand::random())).await,
        }
    }

    /// Whether the map has changed.
    async fn poll(&self) -> Result<bool, ()> {
        let url = self.master();
        let master = master::Client::new_with_client(url, self.http.clone());
        let etag = format!("\"{}\"", self.map().epoch);
        match timeout(POLL_TIMEOUT, master.get_ring(Some(POLL_SECONDS), Some(&etag))).await {
            Ok(Ok(ring)) => {
                self.adopt(&ring);
                Ok(true)
            }
            Ok(Err(Error::UnexpectedResponse(response))) if response.status() == StatusCode::NOT_MODIFIED => Ok(false),
            Ok(Err(_)) | Err(_) => {
                self.leave_master(url);
                Err(())
            }
        }
    }
}
