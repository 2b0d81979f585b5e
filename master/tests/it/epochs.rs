//! The end of epochs.

use cairn_api_spec::cluster::{Health, PartitionChange};
use cairn_master::metastore::{MetadataStore as _, sqlite::SqliteStore};
use cairn_placement::LAST_EPOCH;
use serde_json::Value;

use crate::support::{asked, code, spawn_master};

#[tokio::test]
async fn an_entry_at_the_last_epoch_is_never_changed_and_the_master_says_so() {
    let master = spawn_master(&["--partitions=2"]).await;
    master.register_all(&["a", "b"]).await;
    master.replicated(2).await;
    let directory = master.stop().await;
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let stored = store.get("partitions/0").await.unwrap().unwrap();
    let mut entry: Value = serde_json::from_slice(&stored.value).unwrap();
    entry["partition"]["epoch"] = LAST_EPOCH.into();
    store.cas("partitions/0", Some(stored.revision), Some(serde_json::to_vec(&entry).unwrap())).await.unwrap();
    store.close().await;

    let master = crate::support::spawn_in(directory, &["--partitions=2"]).await;
    let health: Health = master.get("/health/ready").await.json().await.unwrap();
    let warning = health.warning.unwrap();
    assert!(warning.contains("1 partitions are at epoch 8388607, the last one"), "{warning}");
    let before = master.ring().await.partitions;
    for kind in [PartitionChange::Remove, PartitionChange::HandOver, PartitionChange::StepDown] {
        let asked = asked(&before[0], kind, &before[0].in_sync[1]);
        assert_eq!(code(master.ask_for(0, &asked).await).await, (500, "internal".to_owned()));
    }
    // Everything else goes on: only what needs no change of this entry.
    master.lose_data("b").await;
    let after = master.ring_when(|ring| ring.partitions[1].epoch > before[1].epoch).await;
    assert_eq!(after.partitions[0], before[0]);
}
