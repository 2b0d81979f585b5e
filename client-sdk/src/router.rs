//! The masters and the partition map: which server a key's request goes to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use cairn_api_spec::{
    EntryName,
    cluster::{HASH, Partition, Ring},
    error::Problem,
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

/// A partition map, ready for look-ups.
#[derive(Debug)]
pub(crate) struct Map {
    cluster_id: u64,
    epoch: u64,
    /// By partition.
    holders: Vec<Holders>,
    addresses: Vec<String>,
}

/// Who may answer for a partition: indices into the map's addresses.
#[derive(Debug)]
struct Holders {
    primary: Option<usize>,
    in_sync: Vec<usize>,
}

impl Map {
    fn new(ring: &Ring) -> Self {
        let addresses = ring.nodes.iter().map(|node| node.address.trim_end_matches('/').to_owned()).collect();
        let index = |id: &String| ring.nodes.iter().position(|node| node.node_id == *id);
        // With another partition function every key goes through the master.
        let partitions = if ring.hash == HASH { ring.partitions.as_slice() } else { &[] };
        let holders = |partition: &Partition| Holders {
            primary: partition.primary.as_ref().and_then(index),
            in_sync: partition.in_sync.iter().filter_map(index).collect(),
        };
        let holders = partitions.iter().map(holders).collect();
        Self { cluster_id: ring.cluster_id, epoch: ring.epoch, holders, addresses }
    }

    /// The base URL of the node that owns a key, if the map knows one.
    pub(crate) fn owner(&self, name: &EntryName) -> Option<&str> {
        self.address(self.holders(name)?.primary?)
    }

    /// The base URL of any node that is in sync with a key's partition, of another one than `failed` if there is one.
    pub(crate) fn any_in_sync(&self, name: &EntryName, failed: Option<&str>) -> Option<&str> {
        let holders = self.holders(name)?;
        let mut addresses: Vec<&str> = holders.in_sync.iter().filter_map(|index| self.address(*index)).collect();
        if addresses.len() > 1 {
            addresses.retain(|address| Some(*address) != failed);
        }
        addresses.get(rand::random_range(0..addresses.len().max(1))).copied()
    }

    fn holders(&self, name: &EntryName) -> Option<&Holders> {
        let count = u32::try_from(self.holders.len()).ok()?;
        self.holders.get(name.partition(count) as usize)
    }

    fn address(&self, index: usize) -> Option<&str> {
        self.addresses.get(index).map(String::as_str)
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
        let mut pause = POLL_PAUSE;
        loop {
            tokio::select! {
                () = self.follow_once(&mut pause) => {}
                () = self.suspected.notified() => {
                    self.refresh(&self.map()).await;
                    sleep(FETCH_PAUSE).await;
                }
            }
        }
    }

    async fn follow_once(&self, pause: &mut Duration) {
        let began = Instant::now();
        match self.poll().await {
            Ok(changed) => {
                *pause = POLL_PAUSE;
                // Something between here and the master may not let it wait.
                if !changed && began.elapsed() < POLL_PAUSE {
                    sleep(POLL_PAUSE).await;
                }
            }
            Err(()) => {
                sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                *pause = (*pause * 2).min(LONGEST_PAUSE);
            }
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
