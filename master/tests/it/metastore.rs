//! What any metadata store must do, on SQLite.

use cairn_master::metastore::{Change, MetadataStore as _, StoreError, sqlite::SqliteStore};

async fn open() -> (tempfile::TempDir, SqliteStore) {
    let directory = tempfile::TempDir::new().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    (directory, store)
}

fn change(key: &str, expected: Option<u64>, value: Option<&str>) -> Change {
    Change { key: key.to_owned(), expected, value: value.map(|text| text.as_bytes().to_vec()) }
}

#[tokio::test]
async fn a_change_needs_the_revision_that_the_key_has() {
    let (_directory, store) = open().await;
    let first = store.cas("a", None, Some(b"1".to_vec())).await.unwrap();
    let second = store.cas("a", Some(first), Some(b"2".to_vec())).await.unwrap();
    assert!(second > first);
    for (expected, value) in [(None, Some("3")), (Some(first), Some("3")), (Some(first), None), (None, None)] {
        let refused = store.cas_all(vec![change("a", expected, value)]).await;
        assert!(matches!(&refused, Err(StoreError::Conflict { key }) if key == "a"), "{refused:?}");
    }
    let kept = store.get("a").await.unwrap().unwrap();
    assert_eq!((kept.value.as_slice(), kept.revision), (b"2".as_slice(), second));
    store.cas("a", Some(second), None).await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
}

#[tokio::test]
async fn a_batch_is_made_whole_or_not_at_all() {
    let (_directory, store) = open().await;
    let first = store.cas("a", None, Some(b"1".to_vec())).await.unwrap();
    let batch = vec![change("b", None, Some("1")), change("a", Some(first + 9), Some("2"))];
    assert!(matches!(store.cas_all(batch).await, Err(StoreError::Conflict { .. })));
    assert_eq!((store.get("b").await.unwrap(), store.revision().await.unwrap()), (None, first));
    let batch = vec![change("b", None, Some("1")), change("a", Some(first), None)];
    assert_eq!(store.cas_all(batch).await.unwrap(), first + 1);
}

#[tokio::test]
async fn a_list_has_the_keys_of_a_prefix_in_order() {
    let (_directory, store) = open().await;
    let keys = ["nodes/b", "nodes/a", "node", "nodes0", "partitions/1"];
    store.cas_all(keys.iter().map(|key| change(key, None, Some("{}"))).collect()).await.unwrap();
    let listed: Vec<String> = store.list("nodes/").await.unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(listed, ["nodes/a", "nodes/b"]);
}

#[tokio::test]
async fn everything_survives_a_restart_and_revisions_go_on_growing() {
    let (directory, store) = open().await;
    let mut watch = store.watch();
    let first = store.cas("a", None, Some(b"1".to_vec())).await.unwrap();
    let second = store.cas("a", Some(first), None).await.unwrap();
    assert_eq!(*watch.borrow_and_update(), second);
    store.close().await;
    let store = SqliteStore::open(directory.path()).await.unwrap();
    assert_eq!(*store.watch().borrow(), second);
    assert!(store.cas("a", None, Some(b"2".to_vec())).await.unwrap() > second);
}
