//! One fault under load, from the start of a cluster to the judgement.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use cairn_api_spec::{Bucket, EntryName, cluster::Partition};
use cairn_system_tests::{
    history::{Operation, Outcome, by_key},
    version_order::{self, Fault, Violation},
    wing_gong::{self, Verdict},
};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::{
    CONCURRENCY, Client, Cluster, Setup, Through, Workload, Writes,
    entry::{Entry, Routes},
    replicas,
};

/// Keys of a load; about half of them are those that the fault hits.
const KEYS: usize = 200;
/// Keys that are watched for when they are written again.
const WATCHED: usize = 30;
/// A guard against hanging, not a promise: what was measured is reported.
const RECOVERY: Duration = Duration::from_secs(15);
/// Writes before a fault, and after it is healed.
const WARM_UP: u64 = 400;
/// Operations of a key that are shown with a violation.
const SHOWN: usize = 40;

/// See the module.
pub(crate) struct Scenario {
    pub(crate) cluster: Cluster,
    pub(crate) load: Workload,
    /// The keys that the fault is about.
    pub(crate) hit: Vec<String>,
    report: Report,
    struck: Option<u64>,
    healed: Option<u64>,
}

/// What a scenario came to.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    pub(crate) operations: usize,
    pub(crate) acknowledged_writes: usize,
    /// Keys of which an answered write is missing.
    pub(crate) lost: usize,
    pub(crate) violations: usize,
    /// Of all writes.
    pub(crate) unknown_share: f64,
    /// From the fault to the first answered write to a key that it hit, and until all of them had one.
    pub(crate) first_write_seconds: Option<f64>,
    pub(crate) all_written_seconds: Option<f64>,
    /// The longest time in which no write to a key that the fault hit was answered.
    pub(crate) longest_pause_seconds: f64,
    /// From the end of the fault until every partition had all its copies.
    pub(crate) healed_seconds: Option<f64>,
    pub(crate) p99_before_ms: f64,
    pub(crate) p99_during_ms: f64,
    /// Keys whose history the search confirmed, and those that were too long for it.
    pub(crate) searched: usize,
    pub(crate) not_searched: usize,
    /// What a user would have called an error.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl Scenario {
    /// Starts a cluster, and clients on keys of which half are in partitions that the fault will hit.
    pub(crate) async fn start(name: &str, setup: Setup, is_hit: impl Fn(&Partition) -> bool) -> Self {
        Self::start_through(name, Cluster::start(setup).await, Through::MasterAndOwners, Writes::default(), is_hit)
            .await
    }

    pub(crate) async fn start_through(
        name: &str,
        cluster: Cluster,
        through: Through,
        writes: Writes,
        is_hit: impl Fn(&Partition) -> bool,
    ) -> Self {
        cluster.settled().await;
        let ring = cluster.ring().await;
        let is_hit_key = |key: &String| {
            let name = EntryName::new(&Bucket::default(), key).unwrap();
            is_hit(&ring.partitions[name.partition(ring.partition_count) as usize])
        };
        let (hit, spared): (Vec<_>, Vec<_>) = (0..KEYS * 4).map(|key| format!("key {key}")).partition(is_hit_key);
        let half = KEYS / 2;
        let keys: Vec<String> = hit.iter().take(half).zip(&spared).flat_map(|(h, s)| [h.clone(), s.clone()]).collect();
        // Where the fault hits every key, or none.
        let keys = if keys.is_empty() { [hit.clone(), spared].concat()[..KEYS].to_vec() } else { keys };
        let hit: Vec<String> = hit.into_iter().filter(|key| keys.contains(key)).collect();
        let load = Workload::start(cluster.url(), keys, through, writes).await;
        let report = Report { scenario: name.to_owned(), ..Report::default() };
        load.progress(WARM_UP).await;
        Self { cluster, load, hit, report, struck: None, healed: None }
    }

    /// The fault has happened: waits until the keys that it hit are written again.
    pub(crate) async fn struck(&mut self) {
        let struck = self.load.now();
        self.struck.get_or_insert(struck);
        let (first, last) = self.load.written_again(&self.hit[..WATCHED.min(self.hit.len())], struck, RECOVERY).await;
        let worst = |seen: Option<f64>, now: Duration| Some(seen.unwrap_or(0.0).max(now.as_secs_f64()));
        self.report.first_write_seconds = worst(self.report.first_write_seconds, first);
        self.report.all_written_seconds = worst(self.report.all_written_seconds, last);
    }

    /// The fault has happened, and need not end anything.
    pub(crate) fn began(&mut self) {
        self.struck.get_or_insert(self.load.now());
    }

    /// The fault is over: waits until every partition has all its copies.
    pub(crate) async fn healed(&mut self) {
        let began = Instant::now();
        self.cluster.settled_under_load().await;
        self.report.healed_seconds = Some(began.elapsed().as_secs_f64());
        self.healed = Some(self.load.now());
        self.load.progress(WARM_UP / 2).await;
    }

    /// Stops everything, and fails the test unless all is as it must be.
    pub(crate) async fn finish(self) -> Report {
        let recovery = self.report.all_written_seconds;
        let (report, evidence) = self.judge().await;
        assert!(report.lost == 0 && report.violations == 0, "{evidence}");
        assert!(recovery.is_none_or(|seconds| seconds < RECOVERY.as_secs_f64()), "{report:?}");
        report
    }

    /// Stops everything; returns what was found and what shows it.
    pub(crate) async fn judge(mut self) -> (Report, String) {
        self.cluster.settled().await;
        self.load.stop().await;
        self.read_everything().await;
        self.cluster.settled().await;
        let ring = self.cluster.ring().await;
        self.cluster.nodes.iter_mut().for_each(super::Server::kill);
        self.cluster.master.kill();
        let nodes = self.cluster.nodes.iter();
        let directories: BTreeMap<String, PathBuf> =
            nodes.map(|node| (node.name.clone(), node.directory().join("data"))).collect();
        let directories = directories.iter().filter(|(_, path)| path.join("data.sqlite").exists());
        let directories = directories.map(|(name, path)| (name.clone(), path.as_path())).collect();
        let differences = replicas::differences(&ring, &directories).await;

        let done = self.load.done();
        let violations = version_order::check(&done.history);
        let refuted = self.search(&done.history);
        self.summarize(&done.history, &violations);
        self.report.violations = violations.len() + refuted.len() + differences.len();
        self.report.failures = done.failures;
        let evidence = evidence(&done.history, &violations, &refuted, &differences);
        self.publish(&evidence);
        (self.report.clone(), evidence)
    }

    /// Reads every key through the master and at its owner.
    async fn read_everything(&self) {
        let (client, url) = (Client::new(), self.cluster.url().to_owned());
        let routes = Routes::follow(client.clone(), url.clone()).await;
        for entry in [Entry::Master(client.clone(), url), Entry::Owner(client, routes)] {
            let read = async |key: &String| self.load.read(&entry, key).await;
            stream::iter(self.load.keys()).map(read).buffer_unordered(CONCURRENCY).collect::<Vec<_>>().await;
        }
    }

    /// The second opinion; returns the keys for whose history there is no order.
    fn search(&mut self, history: &[Operation]) -> Vec<String> {
        let mut refuted = Vec::new();
        for (key, operations) in by_key(history) {
            match wing_gong::check(&operations) {
                Verdict::Linearizable => self.report.searched += 1,
                Verdict::Undecided => self.report.not_searched += 1,
                Verdict::Violated => refuted.push(key.to_owned()),
            }
        }
        refuted
    }

    fn summarize(&mut self, history: &[Operation], violations: &[Violation]) {
        let (struck, healed) = (self.struck.unwrap_or(0), self.healed.unwrap_or(u64::MAX));
        let is_lost = |v: &&Violation| v.fault == Fault::WriteNotSeen && v.operation.client == super::workload::JUDGE;
        let lost: BTreeSet<_> = violations.iter().filter(is_lost).map(|v| &v.operation.key).collect();
        let writes = history.iter().filter(|operation| operation.is_write());
        let doubtful = writes.clone().filter(|operation| operation.is_doubtful()).count();
        let answered = writes.clone().filter(|write| matches!(write.outcome, Outcome::Written(_))).count();
        self.report.operations = history.len();
        self.report.acknowledged_writes = answered;
        self.report.lost = lost.len();
        self.report.unknown_share = doubtful as f64 / writes.count().max(1) as f64;
        self.report.p99_before_ms = p99(history.iter().filter(|operation| operation.returned < struck));
        let during = |operation: &&Operation| (struck..healed).contains(&operation.invoked);
        self.report.p99_during_ms = p99(history.iter().filter(during));
        let hit: BTreeSet<&String> = self.hit.iter().collect();
        let is_written = |o: &&Operation| matches!(o.outcome, Outcome::Written(_)) && hit.contains(&o.key);
        let mut written: Vec<u64> = history.iter().filter(is_written).map(|operation| operation.returned).collect();
        written.retain(|at| (struck..healed).contains(at));
        written.push(struck);
        written.sort_unstable();
        let pauses = written.windows(2).map(|pair| pair[1] - pair[0]);
        self.report.longest_pause_seconds = pauses.max().unwrap_or(0) as f64 / 1e6;
    }

    /// One line on stderr and one in the file of reports; what shows a violation beside the logs.
    fn publish(&self, evidence: &str) {
        let report = serde_json::to_string(&self.report).unwrap();
        eprintln!("{report}");
        let directory = directory();
        fs::create_dir_all(&directory).unwrap();
        let file = fs::OpenOptions::new().create(true).append(true).open(directory.join("report.jsonl"));
        file.unwrap().write_all(format!("{report}\n").as_bytes()).unwrap();
        if !evidence.is_empty() {
            fs::write(self.keep_logs().join("evidence.txt"), evidence).unwrap();
        }
    }

    /// Keeps what the servers logged; returns where.
    fn keep_logs(&self) -> PathBuf {
        let kept = directory().join(self.report.scenario.replace([' ', ','], "-"));
        fs::create_dir_all(&kept).unwrap();
        for server in self.cluster.nodes.iter().chain([&self.cluster.master]) {
            fs::write(kept.join(format!("{}.log", server.name)), server.whole_log()).unwrap();
        }
        eprintln!("the servers' logs are in {}", kept.display());
        kept
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
    }
}

/// Where reports go.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("system-tests")
}

/// The 99th percentile of what was answered, in milliseconds.
fn p99<'a>(operations: impl Iterator<Item = &'a Operation>) -> f64 {
    let answered = operations.filter(|operation| !matches!(operation.outcome, Outcome::Refused | Outcome::Unknown));
    let mut times: Vec<u64> = answered.map(|operation| operation.returned - operation.invoked).collect();
    times.sort_unstable();
    times.get(times.len() * 99 / 100).map_or(0.0, |time| *time as f64 / 1_000.0)
}

/// What is wrong, and the operations around it.
fn evidence(history: &[Operation], violations: &[Violation], refuted: &[String], differences: &[String]) -> String {
    let mut text = String::new();
    for difference in differences {
        let _ = writeln!(text, "replicas differ: {difference}");
    }
    for key in refuted {
        let _ = writeln!(text, "no order of the operations on {key:?} is that of a register");
    }
    let keys = by_key(history);
    for violation in violations.iter().take(20) {
        let _ = writeln!(text, "{violation}");
    }
    let shown = violations.iter().map(|violation| &violation.operation.key).chain(refuted);
    for key in shown.collect::<BTreeSet<_>>().into_iter().take(5) {
        let mut operations = keys[key.as_str()].clone();
        operations.sort_unstable_by_key(|operation| operation.invoked);
        let at = violations.iter().find(|v| v.operation.key == *key).map_or(u64::MAX, |v| v.operation.returned);
        let until = operations.partition_point(|operation| operation.invoked <= at);
        let _ = writeln!(text, "the operations on {key:?} before:");
        for operation in &operations[until.saturating_sub(SHOWN)..until] {
            let Operation { id, client, kind, invoked, returned, outcome, .. } = operation;
            let _ = writeln!(text, "  {id} of {client} at {invoked}..{returned}: {kind:?} -> {outcome:?}");
        }
    }
    text
}

/// The partitions whose primary is this node.
pub(crate) fn led_by(node: &str) -> impl Fn(&Partition) -> bool {
    move |partition| partition.primary.as_deref() == Some(node)
}

/// The partitions of which this node has a copy and another one is the primary.
pub(crate) fn followed_by(node: &str) -> impl Fn(&Partition) -> bool {
    move |partition| partition.in_sync.iter().any(|holder| holder == node) && !led_by(node)(partition)
}
