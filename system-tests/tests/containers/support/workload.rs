//! Clients at work, and the history of what they were told.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_system_tests::{
    history::{Condition, Kind, NOBODY, Operation, Outcome},
    version_order,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;
use tokio::task::JoinSet;

use super::{
    Client, Cluster, PATIENCE,
    entry::{Answer, Entry},
    eventually,
};

const CLIENTS: u32 = 8;
/// The least time between the operations of one client: bounds the rate.
const PACE: Duration = Duration::from_millis(80);
/// More clients, that read at one server whatever it answers; the first of them, and how many.
const READERS: u32 = 1_000;
const READER_COUNT: u32 = 4;
/// The client that writes after a fault, and how often.
const PROBER: u32 = READERS - 1;
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// The client that reads at the end.
const JUDGE: u32 = u32::MAX;

const PUT: Kind = Kind::Put(Condition::Always);

/// See the module.
pub(crate) struct Workload {
    entry: Entry,
    shared: Arc<Shared>,
    first_write: Option<Duration>,
    clients: JoinSet<()>,
}

struct Shared {
    began: Instant,
    stop: AtomicBool,
    next: AtomicU64,
    acknowledged: AtomicU64,
    keys: Vec<String>,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    history: Vec<Operation>,
    failures: BTreeMap<String, u64>,
}

impl Done {
    /// When the first write of the prober was answered that was asked for since.
    fn first_write(&self, since: u64) -> Option<u64> {
        let answered = self.history.iter().filter(|operation| matches!(operation.outcome, Outcome::Written(_)));
        let probes = answered.filter(|operation| operation.client == PROBER && operation.invoked >= since);
        probes.map(|operation| operation.returned).min()
    }
}

/// What a load came to.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: String,
    operations: usize,
    acknowledged_writes: u64,
    unknown_writes: usize,
    /// From the fault to the first answered write to a key that it hit.
    first_write_seconds: Option<f64>,
    /// How often a user was told each kind of failure.
    pub(crate) failures: BTreeMap<String, u64>,
    /// The longest time in which no write at all, and in which no write to a key that the fault hit, was answered.
    longest_pause_seconds: f64,
    longest_pause_of_hit_seconds: f64,
    violations: usize,
}

/// The value that an operation puts: its id, and a tail that cannot be another's.
pub(crate) fn value_of(id: u64) -> Vec<u8> {
    let mut value = format!("{id} ").into_bytes();
    value.resize(value.len() + (id * 37 % 400) as usize, b'a' + (id % 26) as u8);
    value
}

/// The operation that put this value.
pub(crate) fn write_of(value: &[u8]) -> u64 {
    let digits = value.split(|byte| *byte == b' ').next().and_then(|digits| std::str::from_utf8(digits).ok());
    let id = digits.and_then(|digits| digits.parse().ok());
    id.filter(|id| value_of(*id) == value).unwrap_or(NOBODY)
}

impl Workload {
    /// Begins to read, write and delete these keys.
    pub(crate) fn start(entry: &Entry, keys: Vec<String>) -> Self {
        let shared = Shared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            keys,
            done: Mutex::default(),
        };
        let mut load =
            Self { entry: entry.clone(), shared: Arc::new(shared), first_write: None, clients: JoinSet::new() };
        for client in 0..CLIENTS {
            load.clients.spawn(load.shared.clone().work(client, entry.clone()));
        }
        load
    }

    /// Has more clients read at one server, whoever owns the keys.
    pub(crate) fn read_at(&mut self, server: &str) {
        for client in READERS..READERS + READER_COUNT {
            let entry = Entry::Master(Client::new(), server.to_owned());
            self.clients.spawn(self.shared.clone().work(client, entry));
        }
    }

    /// Waits until so many more writes are answered.
    pub(crate) async fn progress(&self, writes: u64) {
        let goal = self.shared.acknowledged.load(Ordering::Relaxed) + writes;
        eventually("writes go on", async || match self.shared.acknowledged.load(Ordering::Relaxed) {
            now if now >= goal => Ok(()),
            now => Err(format!("{now} of {goal}")),
        })
        .await;
    }

    /// Writes these keys, each by a client of its own, until one of these writes is answered; returns how long that took.
    /// The other clients may all wait for what was lost with the fault.
    pub(crate) async fn written_again(&mut self, keys: &[String]) -> Duration {
        let struck = self.shared.now();
        let mut keys = keys.iter().cycle();
        let probe = async {
            loop {
                let (shared, entry, key) = (self.shared.clone(), self.entry.clone(), keys.next().cloned().unwrap());
                self.clients.spawn(async move {
                    shared.perform(PROBER, &entry, key, PUT).await;
                });
                let done = self.shared.done.lock().unwrap().first_write(struck);
                match done {
                    Some(returned) => return Duration::from_micros(returned - struck),
                    None => tokio::time::sleep(PROBE_EVERY).await,
                }
            }
        };
        let first = tokio::time::timeout(PATIENCE, probe).await;
        *self.first_write.insert(first.unwrap_or_else(|_| panic!("no write was answered for {PATIENCE:?}")))
    }

    /// Ends the clients, reads every key through the master, and fails unless a linearizable register could have told all
    /// that. `hit` are the keys that the fault was about.
    pub(crate) async fn finish(mut self, scenario: &str, cluster: &Cluster, hit: &[String]) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        let entry = cluster.by_master();
        for key in &self.shared.keys {
            eventually(key, async || match self.shared.perform(JUDGE, &entry, key.clone(), Kind::Get).await {
                Outcome::Read { .. } | Outcome::Absent(_) => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await;
        }
        let done = std::mem::take(&mut *self.shared.done.lock().unwrap());
        let violations = version_order::check(&done.history);
        let report = Report {
            scenario: scenario.to_owned(),
            operations: done.history.len(),
            acknowledged_writes: self.shared.acknowledged.load(Ordering::Relaxed),
            unknown_writes: done.history.iter().filter(|operation| operation.is_doubtful()).count(),
            first_write_seconds: self.first_write.map(|time| time.as_secs_f64()),
            longest_pause_seconds: longest_pause(done.history.iter()),
            longest_pause_of_hit_seconds: longest_pause(done.history.iter().filter(|o| hit.contains(&o.key))),
            failures: done.failures,
            violations: violations.len(),
        };
        publish(&report);
        let shown: Vec<String> = violations.iter().take(20).map(ToString::to_string).collect();
        assert!(violations.is_empty(), "{}", shown.join("\n"));
        report
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    async fn work(self: Arc<Self>, client: u32, entry: Entry) {
        let mut random = StdRng::seed_from_u64(client.into());
        while !self.stop.load(Ordering::Relaxed) {
            let next = tokio::time::Instant::now() + PACE;
            let key = self.keys[random.random_range(0..self.keys.len())].clone();
            let kind = match random.random_range(0..100) {
                _ if client >= READERS => Kind::Get,
                0..40 => Kind::Get,
                40..90 => PUT,
                _ => Kind::Delete(Condition::Always),
            };
            self.perform(client, &entry, key, kind).await;
            tokio::time::sleep_until(next).await;
        }
    }

    async fn perform(&self, client: u32, entry: &Entry, key: String, kind: Kind) -> Outcome {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let invoked = self.now();
        let Answer { outcome, failure } = entry.perform(id, &key, kind, "").await;
        let operation = Operation { id, client, key, kind, lives: None, invoked, returned: self.now(), outcome };
        if matches!(outcome, Outcome::Written(_)) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        let mut done = self.done.lock().unwrap();
        done.history.push(operation);
        if let Some(failure) = failure.filter(|_| client < READERS) {
            *done.failures.entry(failure).or_default() += 1;
        }
        outcome
    }
}

/// The longest time between two answered writes, in seconds.
fn longest_pause<'a>(operations: impl Iterator<Item = &'a Operation>) -> f64 {
    let written = operations.filter(|operation| matches!(operation.outcome, Outcome::Written(_)));
    let mut times: Vec<u64> = written.map(|operation| operation.returned).collect();
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) as f64 / 1e6
}

/// One line on stderr, and one in the file of reports.
fn publish(report: &Report) {
    let line = serde_json::to_string(report).unwrap();
    eprintln!("{line}");
    let path = super::report_directory().join("containers.jsonl");
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}
