//! A store in a temporary directory, serving every partition.

use std::{path::Path, sync::Arc, time::Duration};

use cairn_api_spec::{
    Bucket, EntryName, Operation, Outcome, Version,
    operation::{Action, Durability, IdempotencyKey, Put},
    version::Condition,
};
use cairn_engine::NodeId;
use cairn_node::{
    cluster::{peers::Peers, transfers::Transfers},
    config::StoreSettings,
    driver::Driver,
    error::NodeError,
    metrics::NodeMetrics,
    tiers::disk::HeldPartition,
};
use cairn_operations::SlowLog;
use cairn_replication::{Entry, Replica};
use cairn_server_kit::trace::Tracer;
use prometheus::Registry;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

pub(crate) const MAX_VALUE_BYTES: usize = 100_000;
pub(crate) const PARTITIONS: u32 = 4;

pub(crate) struct TestStore {
    pub(crate) driver: Arc<Driver>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) transfers: Transfers,
    pub(crate) directory: TempDir,
    lru_size: usize,
}

impl TestStore {
    pub(crate) async fn open(lru_size: usize) -> Self {
        Self::open_in(tempfile::tempdir().unwrap(), lru_size).await
    }

    async fn open_in(directory: TempDir, lru_size: usize) -> Self {
        let opened = Self::start("node", directory, lru_size).await;
        opened.serve_all(1).await;
        opened
    }

    /// A store of another node, that has nothing to do with any partition.
    pub(crate) async fn of_node(node: &str) -> Self {
        Self::start(node, tempfile::tempdir().unwrap(), 100).await
    }

    async fn start(node: &str, directory: TempDir, lru_size: usize) -> Self {
        let settings = StoreSettings {
            data_dir: directory.path().to_owned(),
            lru_size,
            max_memory: 1 << 20,
            disk_max_bytes: 1 << 30,
            default_ttl: None,
            max_value_bytes: MAX_VALUE_BYTES,
            upload_linger: Duration::from_millis(100),
            collect_after: Duration::from_secs(1),
        };
        let metrics = NodeMetrics::new(&Registry::new(), SlowLog::new(Duration::ZERO)).unwrap();
        let (tasks, _) = cairn_node::driver::tasks();
        let (peers, tracer) = (Arc::new(Peers::default()), Tracer::default());
        let network = peers.clone();
        let driver =
            Driver::open(node.into(), settings, PARTITIONS, None, network, metrics, tracer, tasks).await.unwrap();
        Self { driver, peers, transfers: Transfers::default(), directory, lru_size }
    }

    /// Makes the node the primary of every partition, with the only copy.
    pub(crate) async fn serve_all(&self, epoch: u64) {
        let held = self.driver.disk.partitions().await.unwrap();
        for partition in 0..PARTITIONS {
            let last_version =
                held.iter().find(|(id, _)| *id == partition).map_or(Version::NONE, |(_, h)| h.last_version);
            self.driver.disk.adopt_partition(partition, HeldPartition { generation: 1, last_version }).await.unwrap();
            self.driver.protocol(partition, |replica, _, _| replica.observe(last_version));
            let me = self.driver.me.clone();
            self.configure(
                partition,
                Entry { epoch, primary: Some(me.node.clone()), in_sync: vec![me], ..Entry::default() },
            );
            self.driver.protocol(partition, Replica::lead);
        }
    }

    pub(crate) fn configure(&self, partition: u32, entry: Entry<NodeId>) {
        self.driver.protocol(partition, |replica, now, effects| assert!(replica.configure(entry, now, effects)));
    }

    pub(crate) async fn reopen(self) -> Self {
        self.driver.disk.close().await;
        Self::open_in(self.directory, self.lru_size).await
    }

    pub(crate) async fn reopen_after(self, statement: &'static str) -> Self {
        self.driver.disk.close().await;
        execute(&self.directory.path().join("data.sqlite"), statement).await;
        Self::open_in(self.directory, self.lru_size).await
    }

    pub(crate) fn serve_none(&self) {
        for partition in 0..PARTITIONS {
            self.configure(partition, Entry { epoch: 2, ..Entry::default() });
        }
    }

    pub(crate) async fn run(&self, operation: Operation) -> Result<Outcome, NodeError> {
        tokio::time::timeout(Duration::from_secs(20), self.driver.execute(operation, 0, None)).await.unwrap()
    }
}

async fn execute(file: &Path, statement: &'static str) {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn operation(key: &str, condition: Condition, action: Action) -> Operation {
    Operation::new(EntryName::new(&Bucket::default(), key).unwrap(), condition, action)
}

pub(crate) fn put(key: &str, value: &str) -> Operation {
    put_with(key, value, Condition::None, None)
}

pub(crate) fn put_with(key: &str, value: &str, condition: Condition, durability: Option<Durability>) -> Operation {
    let value = value.as_bytes().to_vec().into();
    operation(key, condition, Action::Put(Put { value, content_type: String::new(), ttl: None, durability }))
}

pub(crate) fn keyed(operation: Operation, key: &str) -> Operation {
    Operation { idempotency_key: Some(IdempotencyKey::parse(key).unwrap()), ..operation }
}

pub(crate) fn get(key: &str) -> Operation {
    operation(key, Condition::None, Action::Get)
}

pub(crate) fn head(key: &str) -> Operation {
    operation(key, Condition::None, Action::Head)
}

pub(crate) fn delete(key: &str) -> Operation {
    delete_with(key, Durability::Disk)
}

pub(crate) fn delete_with(key: &str, durability: Durability) -> Operation {
    operation(key, Condition::None, Action::Delete { durability: Some(durability) })
}

pub(crate) fn add(key: &str, delta: i64) -> Operation {
    operation(key, Condition::None, Action::Increment { delta, ttl: None, durability: None })
}

pub(crate) fn value_of(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Found { value, .. } => Some(String::from_utf8(value.clone().unwrap().to_vec()).unwrap()),
        _ => None,
    }
}
