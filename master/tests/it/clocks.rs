//! Wall clocks that are off.

use cairn_api_spec::cluster::{Health, Heartbeat, HeartbeatReply, PartitionChange, Ring};
use jiff::Timestamp;
use reqwest::StatusCode;

use crate::support::{Beating, Master, PATIENCE, heartbeat, is_moving, primaries, spawn_master};

fn ahead(clock_offset_ms: i64) -> Heartbeat {
    Heartbeat { clock_offset_ms: Some(clock_offset_ms), ..heartbeat() }
}

impl Master {
    async fn health(&self) -> Option<String> {
        self.get("/health/ready").await.json::<Health>().await.unwrap().warning
    }

    async fn clocks_off(&self) -> bool {
        self.get("/metrics").await.text().await.unwrap().contains("cairn_nodes_clock_off 1")
    }
}

/// Three nodes that beat, with two copies of each of 32 partitions.
async fn replicated(settings: &[&str]) -> (Master, Ring, [Beating; 2]) {
    let master = spawn_master(&[&["--partitions=32"], settings].concat()).await;
    master.register_all(&["a", "b", "c"]).await;
    let ring = master.replicated(2).await;
    let beating = ["b", "c"].map(|id| master.keep_beating_with(id, ahead(3)));
    (master, ring, beating)
}

#[tokio::test]
async fn the_answer_to_a_heartbeat_tells_the_masters_time() {
    let master = spawn_master(&[]).await;
    master.register_all(&["a"]).await;
    let before = Timestamp::now().as_millisecond();
    let reply: HeartbeatReply = master.beat("a", &heartbeat()).await.json().await.unwrap();
    assert!((before..=Timestamp::now().as_millisecond()).contains(&reply.now_ms), "{}", reply.now_ms);
}

#[tokio::test]
async fn a_node_whose_clock_is_off_leads_nothing_keeps_its_copies_and_comes_back() {
    let (master, before, _beating) = replicated(&[]).await;
    assert!(primaries(&before)["a"] > 0);
    assert_eq!((master.health().await, master.node("a").await.clock_offset_ms), (None, None));
    let beating = master.keep_beating_with("a", ahead(-5_001));
    let warned = master.ring_when(|ring| ring.partitions.iter().any(|entry| entry.successor.is_some())).await;
    assert!(warned.epoch > before.epoch);
    let warning = master.health().await.unwrap();
    assert!(
        warning.contains("a's clock is 5001 ms behind the master's; nodes with such clocks still lead"),
        "{warning}"
    );
    master.play(|ring| !primaries(ring).contains_key("a")).await;
    assert_eq!(master.node("a").await.clock_offset_ms, Some(-5_001));
    let warning = master.health().await.unwrap();
    assert!(warning.contains("nodes with such clocks lead no partition"), "{warning}");
    let after = master.ring().await;
    for (before, after) in before.partitions.iter().zip(&after.partitions) {
        assert!(before.sessions.keys().eq(after.sessions.keys()));
    }
    assert!(master.clocks_off().await);
    drop(beating);
    let _beating = master.keep_beating_with("a", ahead(2_500));
    master.play(|ring| primaries(ring) == primaries(&before)).await;
    assert_eq!(master.health().await, None);
}

#[tokio::test]
async fn a_node_that_has_not_told_its_offset_does_not_make_the_others_clocks_wrong() {
    let master = spawn_master(&["--max-clock-skew=5s"]).await;
    master.register_all(&["a", "b"]).await;
    for id in ["a", "b"] {
        master.beat(id, &ahead(6_000)).await;
    }
    master.register_all(&["c"]).await;
    let reply: HeartbeatReply = master.beat("a", &ahead(6_000)).await.json().await.unwrap();
    assert_eq!(reply.max_clock_skew_ms, 0, "the master's clock may be the wrong one");
    master.beat("c", &ahead(0)).await;
    let reply: HeartbeatReply = master.beat("a", &ahead(6_000)).await.json().await.unwrap();
    assert_eq!(reply.max_clock_skew_ms, 5_000);
}

#[tokio::test]
async fn while_every_clock_is_off_nothing_changes_and_the_warning_says_so() {
    let master = spawn_master(&["--partitions=32", "--max-clock-skew=100ms"]).await;
    master.register_all(&["a", "b"]).await;
    let before = master.replicated(2).await;
    for id in ["a", "b"] {
        assert_eq!(master.beat(id, &ahead(101)).await.status(), StatusCode::OK);
    }
    // The first may have been asked to hand over until the second was heard.
    let rest = async {
        loop {
            let ring = master.ring().await;
            if master.ring_after(ring.epoch, 1).await.status() == StatusCode::NOT_MODIFIED {
                return ring;
            }
        }
    };
    let ring = tokio::time::timeout(PATIENCE, rest).await.unwrap();
    assert_eq!(primaries(&ring), primaries(&before));
    assert!(!ring.partitions.iter().any(is_moving));
    let warning = master.health().await.unwrap();
    assert!(warning.contains("still lead 32 partitions"), "{warning}");
    // Still a primary's to change: it takes out who does not answer.
    let entry = &ring.partitions[0];
    let answer = master.ask(entry, PartitionChange::Remove, &entry.in_sync[1]).await;
    assert_eq!(answer.status(), StatusCode::OK);
}
