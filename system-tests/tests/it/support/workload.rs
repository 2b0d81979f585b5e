//! Clients of all kinds at work, and the history of what they were told.
//!
//! Each client does one thing after the other: it reads, writes, deletes, creates, and swaps what it has seen. Some
//! ask the master, some the owner of the key by the map that they follow, some go through the SDK. Nobody repeats
//! anything by itself but the SDK.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_client::Cache;
use cairn_system_tests::history::{Condition, Kind, NOBODY, Operation, Outcome};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;

use super::{
    Client, PATIENCE,
    entry::{Answer, Entry, Routes},
    eventually,
};

/// Clients of the mixed load.
const CLIENTS: u32 = 24;
/// The least time between the operations of one client: bounds the rate.
const PACE: Duration = Duration::from_millis(45);
/// Keys that get a third of all operations.
const HOT_KEYS: usize = 8;
/// One value in so many is too long for one frame between the servers.
const LARGE_EVERY: u64 = 300;
const LARGE_BYTES: usize = (1 << 20) + 1_000;
/// How often a key of the fault is tried until it is written again.
const PROBE_EVERY: Duration = Duration::from_millis(100);
const PROBES: usize = 10;

/// The client that reads at the end.
pub(crate) const JUDGE: u32 = u32::MAX;

/// How the clients of a load reach the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Through {
    /// Half of them ask the master, half the owners.
    MasterAndOwners,
    /// All of them go through the SDK.
    Sdk,
}

/// What the writes of a load ask for, beside the write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Writes {
    /// Each asks for one of these durabilities in turn; without any, for none.
    pub(crate) durabilities: &'static [&'static str],
    /// Every third value lives so long.
    pub(crate) ttl: Option<Duration>,
}

/// See the module.
pub(crate) struct Workload {
    shared: Arc<Shared>,
    entries: Vec<Entry>,
    clients: JoinSet<()>,
}

struct Shared {
    began: Instant,
    stop: AtomicBool,
    next: AtomicU64,
    acknowledged: AtomicU64,
    keys: Vec<String>,
    writes: Writes,
    done: Mutex<Done>,
}

/// What has been done.
#[derive(Clone, Default)]
pub(crate) struct Done {
    pub(crate) history: Vec<Operation>,
    /// How often each kind of failure was told.
    pub(crate) failures: BTreeMap<String, u64>,
}

/// The value that an operation puts: its id, and a tail that cannot be another's.
pub(crate) fn value_of(id: u64) -> Vec<u8> {
    let length = if id % LARGE_EVERY == LARGE_EVERY - 1 { LARGE_BYTES } else { (id * 37 % 400) as usize };
    let mut value = format!("{id} ").into_bytes();
    value.resize(value.len() + length, b'a' + (id % 26) as u8);
    value
}

/// The operation that put this value.
pub(crate) fn write_of(value: &[u8]) -> u64 {
    let digits = value.split(|byte| *byte == b' ').next().and_then(|digits| std::str::from_utf8(digits).ok());
    let id = digits.and_then(|digits| digits.parse().ok());
    id.filter(|id| value_of(*id) == value).unwrap_or(NOBODY)
}

impl Workload {
    pub(crate) async fn start(url: &str, keys: Vec<String>, through: Through, writes: Writes) -> Self {
        let client = Client::new();
        let routes = Routes::follow(client.clone(), url.to_owned()).await;
        let master = Entry::Master(client.clone(), url.to_owned());
        let entries = match through {
            Through::MasterAndOwners => vec![master, Entry::Owner(client, routes)],
            Through::Sdk => vec![Entry::Sdk(Cache::connect(url).await.unwrap())],
        };
        let shared = Shared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            keys,
            writes,
            done: Mutex::default(),
        };
        let mut load = Self { shared: Arc::new(shared), entries, clients: JoinSet::new() };
        for client in 0..CLIENTS {
            let entry = load.entries[client as usize % load.entries.len()].clone();
            load.clients.spawn(Worker::new(client, entry, load.shared.clone()).run());
        }
        load
    }

    /// More clients, that read the hot keys at one server, whoever owns them.
    pub(crate) fn ask_only(&mut self, server: &str) {
        for client in 0..CLIENTS / 2 {
            let entry = Entry::Master(Client::new(), server.to_owned());
            let mut worker = Worker::new(CLIENTS + client, entry, self.shared.clone());
            worker.reads_only = true;
            self.clients.spawn(worker.run());
        }
    }

    pub(crate) fn keys(&self) -> &[String] {
        &self.shared.keys
    }

    /// Microseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        self.shared.now()
    }

    /// Waits until so many more writes are answered.
    pub(crate) async fn progress(&self, writes: u64) {
        let acknowledged = || self.shared.acknowledged.load(Ordering::Relaxed);
        let goal = acknowledged() + writes;
        eventually("writes go on", PATIENCE, async || match acknowledged() {
            now if now >= goal => Ok(()),
            now => Err(format!("{now} of {goal}")),
        })
        .await;
    }

    /// Writes the keys, again and again, until each has been written once. Returns when the first one was, and when
    /// the last one, since `struck`; what takes longer than `patience` counts as that.
    pub(crate) async fn written_again(
        &mut self,
        keys: &[String],
        struck: u64,
        patience: Duration,
    ) -> (Duration, Duration) {
        let deadline = struck + patience.as_micros() as u64;
        let mut at = 0;
        loop {
            let written = self.first_writes_since(struck);
            let missing: Vec<&String> = keys.iter().filter(|key| !written.contains_key(*key)).collect();
            if missing.is_empty() || self.now() > deadline {
                let since = |at: Option<u64>| Duration::from_micros(at.unwrap_or(deadline).min(deadline) - struck);
                let times = keys.iter().map(|key| since(written.get(key).copied()));
                let (first, last) = (times.clone().min(), times.max());
                return (first.unwrap_or_default(), last.unwrap_or_default());
            }
            for _ in 0..PROBES {
                at += 1;
                let (ways, round) = (self.entries.len(), at / self.entries.len());
                let (entry, key) = (&self.entries[at % ways], missing[round % missing.len()]);
                let (shared, entry, key) = (self.shared.clone(), entry.clone(), key.clone());
                let client = 1_000 + at as u32;
                self.clients.spawn(async move {
                    shared.perform(client, &entry, key, PUT).await;
                });
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    /// When the first write of each key was answered that was asked for after this time.
    fn first_writes_since(&self, struck: u64) -> BTreeMap<String, u64> {
        let mut first = BTreeMap::new();
        for done in self.shared.done.lock().unwrap().history.iter().rev() {
            if done.invoked >= struck && matches!((done.kind, done.outcome), (Kind::Put(_), Outcome::Written(_))) {
                let at = first.entry(done.key.clone()).or_insert(u64::MAX);
                *at = done.returned.min(*at);
            }
        }
        first
    }

    /// Reads a key until it is answered, and keeps that in the history.
    pub(crate) async fn read(&self, entry: &Entry, key: &str) -> Outcome {
        eventually(key, PATIENCE, async || match self.shared.perform(JUDGE, entry, key.to_owned(), Kind::Get).await {
            outcome @ (Outcome::Read { .. } | Outcome::Absent(_)) => Ok(outcome),
            other => Err(format!("{other:?}, all failures: {:?}", self.done().failures)),
        })
        .await
    }

    /// Does one thing, and keeps it in the history.
    pub(crate) async fn perform(&self, entry: &Entry, key: &str, kind: Kind) -> Outcome {
        self.shared.perform(JUDGE, entry, key.to_owned(), kind).await
    }

    /// Ends the clients after what they are doing.
    pub(crate) async fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
    }

    pub(crate) fn done(&self) -> Done {
        self.shared.done.lock().unwrap().clone()
    }
}

const PUT: Kind = Kind::Put(Condition::Always);

impl Writes {
    /// What the URL of a write says of this; begins with `?` unless it is empty.
    fn query(&self, id: u64, ttl: Option<Duration>) -> String {
        let count = self.durabilities.len().max(1) as u64;
        let durability = self.durabilities.get((id % count) as usize).map(|name| format!("durability={name}"));
        let ttl = ttl.map(|ttl| format!("ttl={}ms", ttl.as_millis()));
        let parts: Vec<String> = durability.into_iter().chain(ttl).collect();
        if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    async fn perform(&self, client: u32, entry: &Entry, key: String, kind: Kind) -> Outcome {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let ttl = self.writes.ttl.filter(|_| matches!(kind, Kind::Put(_)) && id.is_multiple_of(3));
        let query = self.writes.query(id, ttl);
        let invoked = self.now();
        let Answer { outcome, failure } = entry.perform(id, &key, kind, &query).await;
        let lives = ttl.map(|ttl| ttl.as_micros() as u64);
        let operation = Operation { id, client, key, kind, lives, invoked, returned: self.now(), outcome };
        if matches!(outcome, Outcome::Written(_)) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        let mut done = self.done.lock().unwrap();
        done.history.push(operation);
        if let Some(failure) = failure {
            *done.failures.entry(failure).or_default() += 1;
        }
        outcome
    }
}

struct Worker {
    client: u32,
    entry: Entry,
    shared: Arc<Shared>,
    random: StdRng,
    /// The version that it saw last, by key.
    seen: BTreeMap<usize, u64>,
    reads_only: bool,
}

impl Worker {
    fn new(client: u32, entry: Entry, shared: Arc<Shared>) -> Self {
        let random = StdRng::seed_from_u64(client.into());
        Self { client, entry, shared, random, seen: BTreeMap::new(), reads_only: false }
    }

    async fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let next = tokio::time::Instant::now() + PACE;
            self.step().await;
            tokio::time::sleep_until(next).await;
        }
    }

    async fn step(&mut self) {
        let is_hot = self.reads_only || self.random.random_range(0..3) == 0;
        let keys = if is_hot { HOT_KEYS.min(self.shared.keys.len()) } else { self.shared.keys.len() };
        let key = self.random.random_range(0..keys);
        let seen = self.seen.get(&key).map(|version| Condition::Version(*version));
        let kind = match (self.random.random_range(0..100), seen) {
            _ if self.reads_only => Kind::Get,
            (0..35, _) => Kind::Get,
            (35..60, _) => PUT,
            (60..80, Some(condition)) => Kind::Put(condition),
            (60..80, None) => Kind::Get,
            (80..90, _) => Kind::Put(Condition::Absent),
            (90..98, _) => Kind::Delete(Condition::Always),
            (_, seen) => Kind::Delete(seen.unwrap_or(Condition::Always)),
        };
        let name = self.shared.keys[key].clone();
        match self.shared.perform(self.client, &self.entry, name, kind).await {
            Outcome::Read { version, .. } => drop(self.seen.insert(key, version)),
            Outcome::Written(version) if matches!(kind, Kind::Put(_)) => drop(self.seen.insert(key, version)),
            Outcome::Written(_) | Outcome::Absent(_) | Outcome::ConditionFailed(_) => drop(self.seen.remove(&key)),
            Outcome::Refused | Outcome::Unknown => {}
        }
    }
}
