use std::sync::Arc;

use cairn_api_spec::{
    Bucket, EntryName, Version,
    events::{Change, EventKind},
};
use cairn_operations::feed::Item;

use crate::server::{Response, Server, start};

fn change(kind: EventKind, bucket: &str, key: &str, version: u64) -> Item {
    let name = EntryName::new(&Bucket::parse(bucket).unwrap(), key).unwrap();
    let expires_at = (kind == EventKind::Put).then_some(60_000);
    Item::Change(Arc::new(Change { kind, name, version: Version(version), at: 1_000, size: 3, expires_at }))
}

/// The whole stream of a reader that comes with `headers`, when these have happened and the server stops.
async fn stream(server: &Server, target: &str, headers: &[&str], items: Vec<Item>) -> Response {
    let happen = async {
        server.domain.seen.subscribe().wait_for(|seen| seen.subscribed > 0).await.unwrap();
        items.into_iter().for_each(|item| server.domain.feed.publish(|| Some(item)));
        server.domain.feed.close();
    };
    tokio::join!(server.send("GET", target, headers, b""), happen).0
}

#[tokio::test]
async fn a_reader_gets_every_change_of_the_keys_that_it_wants_with_what_happened() {
    let server = start().await;
    let items = vec![
        change(EventKind::Put, "default", "user:1", 7),
        change(EventKind::Put, "default", "other", 8),
        change(EventKind::Put, "elsewhere", "user:1", 9),
        change(EventKind::Delete, "default", "user:1", 10),
        change(EventKind::Expire, "default", "user:2", 11),
        change(EventKind::Evict, "default", "user:3", 12),
    ];
    let reply = stream(&server, "/events?prefix=user:", &[], items).await;
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("text/event-stream")));
    assert_eq!(reply.header("Cache-Control"), Some("no-store"));
    let text = reply.text();
    let put = "id: 7-1\nevent: put\ndata: {\"bucket\":\"default\",\"key\":\"user:1\",\"version\":\"7\",\
               \"at\":\"1970-01-01T00:00:01Z\",\"size\":3,\"expires_at\":\"1970-01-01T00:01:00Z\"}\n\n";
    assert!(text.contains(put), "{text}");
    let delete = "id: 7-4\nevent: delete\ndata: {\"bucket\":\"default\",\"key\":\"user:1\",\"version\":\"10\",\
                  \"at\":\"1970-01-01T00:00:01Z\"}\n\n";
    assert!(text.contains(delete), "{text}");
    let kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(kinds, ["begin", "put", "delete", "expire", "evict"]);
}

#[tokio::test]
async fn a_reader_may_want_every_bucket() {
    let server = start().await;
    let items = vec![change(EventKind::Put, "one", "k", 7), change(EventKind::Put, "two", "k", 8)];
    let text = stream(&server, "/events?bucket=*", &[], items).await.text().to_owned();
    assert!(text.contains("\"bucket\":\"one\"") && text.contains("\"bucket\":\"two\""), "{text}");
}

#[tokio::test]
async fn a_reader_goes_on_behind_the_last_event_that_it_has_seen_or_is_told_that_it_cannot() {
    for (last, ids) in [("7-1", vec!["7-1", "7-2"]), ("8-1", vec!["7-2", "7-2"])] {
        let server = start().await;
        let _other = server.domain.feed.subscribe(None).unwrap();
        for version in [1, 2] {
            server.domain.feed.publish(|| Some(change(EventKind::Put, "default", "k", version)));
        }
        let reply = stream(&server, "/events", &[&format!("Last-Event-ID: {last}")], Vec::new()).await;
        let text = reply.text();
        assert_eq!(text.contains("event: gap\ndata: {}\n\n"), last == "8-1", "{text}");
        let found: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(found, ids, "{text}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let server = start().await;
    for (target, headers, says) in [
        ("/events?bucket=A", vec![], "bucket"),
        ("/events?bucket=*&prefix=a", vec![], "bucket=*"),
        ("/events?key=a", vec![], "allowed are: bucket, prefix"),
        ("/events", vec!["Last-Event-ID: seven"], "not the id of an event"),
    ] {
        let reply = server.send("GET", target, &headers, b"").await;
        assert_eq!(reply.status, 400, "{target}");
        assert!(reply.text().contains(says), "{}", reply.text());
    }
}
