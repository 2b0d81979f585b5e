//! Which restores share a listing of the bucket.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_node::{
    metrics::NodeMetrics,
    tiers::object::{Credentials, ObjectSettings, ObjectStore},
};
use cairn_operations::SlowLog;
use prometheus::Registry;

async fn object_store() -> ObjectStore {
    let metrics = NodeMetrics::new(&Registry::new(), SlowLog::new(Duration::ZERO)).unwrap();
    let settings = ObjectSettings {
        bucket: "bucket".to_owned(),
        region: "us-east-1".to_owned(),
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        prefix: "cairn".to_owned(),
        credentials: Some(Credentials::new("name", "secret", None, None, "test")),
    };
    ObjectStore::new(settings, metrics.object_duration).await
}

#[tokio::test]
async fn a_listing_counts_for_those_who_took_the_lead_before_it_began() {
    let store = object_store().await;
    let before = Instant::now();
    let first = store.listing(before);
    assert!(Arc::ptr_eq(&first, &store.listing(before)));
    std::thread::sleep(Duration::from_millis(1));
    let after = Instant::now();
    let second = store.listing(after);
    assert!(!Arc::ptr_eq(&first, &second));
    // Whoever was earlier may have the later one.
    assert!(Arc::ptr_eq(&second, &store.listing(before)));
}
