//! Following events, and what becomes of a stream that breaks.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use cairn_client::{ErrorCode, Event, EventKind, Version};
use futures_util::StreamExt as _;

use crate::{
    NOBODY, connect, connect_for,
    fake::{Answer, problem},
    master,
};

fn stream(messages: &str) -> Answer {
    Answer::Reply("200 OK", "Content-Type: text/event-stream\r\n".to_owned(), messages.to_owned())
}

fn put(id: &str, version: u64) -> String {
    let data =
        format!(r#"{{"bucket":"default","key":"k","version":"{version}","at":"2026-01-01T00:00:00Z","size":3}}"#);
    format!("id: {id}\nevent: put\ndata: {data}\n\n")
}

fn changed(version: u64) -> Event {
    let (kind, version) = (EventKind::Put, Version(version));
    Event::Changed { kind, key: "k".to_owned(), version, size: Some(3), expires: None }
}

const BEGIN: &str = "id: 7-0\nevent: begin\ndata: {}\n\n";

#[tokio::test]
async fn a_stream_that_breaks_goes_on_behind_the_last_event_that_it_has_brought() {
    let asked = AtomicUsize::new(0);
    let master = master(&[NOBODY], move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => stream(BEGIN),
        1 => problem(ErrorCode::Overloaded),
        2 => stream(&format!("{BEGIN}{}id: 7-2\nevent: unheard-of\ndata: {{}}\n\n", put("7-1", 1))),
        3 => stream("id: 8-5\nevent: begin\ndata: {}\n\n"),
        _ => stream(&format!(
            "id: 8-5\nevent: begin\ndata: {{}}\n\nid: 8-5\nevent: gap\ndata: {{}}\n\n{}",
            put("8-6", 2)
        )),
    })
    .await;
    let cache = connect(&master).await;
    let events = cache.events().prefix("a b").open().await.unwrap();
    let told: Vec<Event> = events.take(3).map(Result::unwrap).collect().await;
    assert_eq!(told, [changed(1), Event::Gap, changed(2)]);
    assert_eq!(master.operations()[0], "GET /events?bucket=default&prefix=a+b");
    // Where a stream began is known before it has brought anything, and is no event that was seen.
    assert_eq!(master.header("last-event-id"), ["7-0", "7-0", "7-2", "7-2"]);
}

#[tokio::test]
async fn a_stream_ends_with_an_error_that_does_not_pass_or_when_nobody_answers_in_time() {
    let refusing = master(&[NOBODY], |_| problem(ErrorCode::InvalidParameter)).await;
    let refused = connect(&refusing).await.events().open().await;
    assert_eq!(refused.err().and_then(|error| error.code()), Some(ErrorCode::InvalidParameter));
    let asked = AtomicUsize::new(0);
    let leaving = master(&[NOBODY], move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => stream(&format!("{BEGIN}{}", put("7-1", 1))),
        _ => problem(ErrorCode::ShuttingDown),
    })
    .await;
    let mut events = connect_for(&leaving, Duration::from_secs(1)).await.events().open().await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), changed(1));
    assert_eq!(events.next().await.unwrap().unwrap_err().code(), Some(ErrorCode::ShuttingDown));
    assert!(events.next().await.is_none());
}
