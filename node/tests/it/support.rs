//! A store in a temporary directory, serving every partition.

use std::{path::Path, time::Duration};

use cairn_api_spec::{
    Bucket, EntryName, Operation, Outcome,
    operation::{Action, Durability, Put},
    version::Condition,
};
use cairn_node::{
    config::StoreSettings, disk::HeldPartition, error::NodeError, metrics::NodeMetrics, partition::Role, store::Store,
};
use prometheus::Registry;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

pub(crate) const MAX_VALUE_BYTES: usize = 100_000;
const PARTITIONS: u32 = 4;

pub(crate) struct TestStore {
    pub(crate) store: Store,
    directory: TempDir,
    lru_size: usize,
}

impl TestStore {
    pub(crate) async fn open(lru_size: usize) -> Self {
        Self::open_in(tempfile::tempdir().unwrap(), lru_size).await
    }

    async fn open_in(directory: TempDir, lru_size: usize) -> Self {
        let settings = StoreSettings {
            data_dir: directory.path().to_owned(),
            lru_size,
            max_memory: 1 << 20,
            disk_max_bytes: 1 << 30,
            default_ttl: None,
            max_value_bytes: MAX_VALUE_BYTES,
        };
        let metrics = NodeMetrics::new(&Registry::new()).unwrap();
        let store = Store::open(settings, PARTITIONS, None, metrics).await.unwrap();
        for (partition, held) in store.disk.partitions().await.unwrap() {
            store.partitions.lock(partition).last_version = held.last_version;
        }
        for partition in 0..PARTITIONS {
            let last_version = store.partitions.lock(partition).last_version;
            store.disk.adopt_partition(partition, HeldPartition { generation: 1, last_version }).await.unwrap();
            let mut state = store.partitions.lock(partition);
            state.epoch = 1;
            store.partitions.set_role(partition, &mut state, Role::Serving);
        }
        Self { store, directory, lru_size }
    }

    pub(crate) async fn reopen(self) -> Self {
        self.store.disk.close().await;
        Self::open_in(self.directory, self.lru_size).await
    }

    pub(crate) async fn reopen_after(self, statement: &'static str) -> Self {
        self.store.disk.close().await;
        execute(&self.directory.path().join("data.sqlite"), statement).await;
        Self::open_in(self.directory, self.lru_size).await
    }

    pub(crate) fn serve_none(&self) {
        for partition in 0..PARTITIONS {
            let partitions = &self.store.partitions;
            partitions.set_role(partition, &mut partitions.lock(partition), Role::None);
        }
    }

    pub(crate) async fn run(&self, operation: Operation) -> Result<Outcome, NodeError> {
        tokio::time::timeout(Duration::from_secs(20), self.store.execute(operation, 0)).await.unwrap()
    }
}

async fn execute(file: &Path, statement: &'static str) {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn operation(key: &str, condition: Condition, action: Action) -> Operation {
    Operation { name: EntryName::new(&Bucket::default(), key).unwrap(), condition, action }
}

pub(crate) fn put(key: &str, value: &str) -> Operation {
    put_with(key, value, Condition::None, None)
}

pub(crate) fn put_with(key: &str, value: &str, condition: Condition, durability: Option<Durability>) -> Operation {
    let value = value.as_bytes().to_vec().into();
    operation(key, condition, Action::Put(Put { value, content_type: String::new(), ttl: None, durability }))
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

pub(crate) fn value_of(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Found { value, .. } => Some(String::from_utf8(value.clone().unwrap().to_vec()).unwrap()),
        _ => None,
    }
}
