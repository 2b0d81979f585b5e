//! Crashes, restarts, lost data, leaving: who takes over, and who is waited for.

use std::time::{Duration, Instant};

use cairn_api_spec::cluster::{Heartbeat, NodeState, Partition, PartitionChange, RegisterNode, Ring};
use reqwest::StatusCode;

use crate::support::{Master, asked, code, has_copies, heartbeat, is_moving, node, primaries, restarted, spawn_master};

const FAST: [&str; 3] = ["--suspect-after=1s", "--gone-after=1500ms", "--replace-after=1m"];

fn fast(more: &[&'static str]) -> Vec<&'static str> {
    FAST.iter().copied().chain(more.iter().copied()).collect()
}

fn leads(id: &str) -> impl Fn(&&Partition) -> bool {
    move |entry| entry.primary.as_deref() == Some(id)
}

fn pairs<'a>(before: &'a Ring, after: &'a Ring) -> impl Iterator<Item = (&'a Partition, &'a Partition)> {
    before.partitions.iter().zip(&after.partitions)
}

#[tokio::test]
async fn a_primary_that_is_gone_is_replaced_by_a_replica_and_gets_its_place_back() {
    let master = spawn_master(&fast(&[])).await;
    master.register_all(&["a", "b", "c"]).await;
    let _beating = [master.keep_beating("a"), master.keep_beating("b")];
    let silenced = master.keep_beating("c");
    let before = master.replicated(2).await;
    drop(silenced);
    let promoted = master.ring_when(|ring| !primaries(ring).contains_key("c")).await;
    for (before, after) in pairs(&before, &promoted).filter(|(before, _)| leads("c")(before)) {
        let other = before.in_sync.iter().find(|id| *id != "c").unwrap();
        assert_eq!((after.primary.as_ref(), &after.in_sync), (Some(other), &vec![other.clone(), "c".to_owned()]));
        assert_eq!((after.epoch, after.generation), (before.epoch + 1, before.generation));
    }
    let after = master.take_out("c").await;
    // Nobody else begins to copy what it will have again in a moment.
    assert!(!after.partitions.iter().any(is_moving));
    assert_eq!(master.register(&restarted("c")).await.status(), StatusCode::OK);
    let _beating_again = master.keep_beating("c");
    master.play(|ring| has_copies(ring, 2) && primaries(ring) == primaries(&before)).await;
    let back = master.ring().await;
    for (before, after) in pairs(&before, &back) {
        assert_eq!(before.primary, after.primary);
        assert!(before.sessions.keys().eq(after.sessions.keys()));
        assert!(after.sessions.get("c").is_none_or(|session| *session == 2));
    }
}

#[tokio::test]
async fn a_master_that_is_started_again_still_knows_for_whom_copies_are_kept() {
    let master = spawn_master(&fast(&[])).await;
    master.register_all(&["a", "b", "c"]).await;
    let beating = [master.keep_beating("a"), master.keep_beating("b")];
    master.replicated(2).await;
    master.take_out("c").await;
    let master = master.restart(&fast(&[])).await;
    drop(beating);
    let _beating = [master.keep_beating("a"), master.keep_beating("b")];
    master.node_when("c", NodeState::Gone).await;
    assert!(!master.ring().await.partitions.iter().any(is_moving));
}

#[tokio::test]
async fn copies_of_a_node_that_stays_away_are_made_elsewhere() {
    let master = spawn_master(&["--suspect-after=1s", "--gone-after=1100ms", "--replace-after=2s"]).await;
    master.register_all(&["a", "b", "c"]).await;
    let _beating = [master.keep_beating("a"), master.keep_beating("b")];
    let silenced = master.keep_beating("c");
    master.replicated(2).await;
    drop(silenced);
    let began = Instant::now();
    master.take_out("c").await;
    master.ring_when(|ring| ring.partitions.iter().any(is_moving)).await;
    assert!(began.elapsed() >= Duration::from_millis(1_900));
    let after = master.replicated(2).await;
    assert!(primaries(&after).values().all(|count| (120..=136).contains(count)), "{:?}", primaries(&after));
}

#[tokio::test]
async fn a_silent_primary_keeps_its_partitions_until_it_is_gone() {
    let master = spawn_master(&["--suspect-after=300ms"]).await;
    master.register_all(&["a", "b", "c"]).await;
    let _beating = [master.keep_beating("a"), master.keep_beating("b")];
    let silenced = master.keep_beating("c");
    let before = master.replicated(2).await;
    drop(silenced);
    master.node_when("c", NodeState::Suspect).await;
    let _third = master.keep_beating("c");
    master.node_when("c", NodeState::Active).await;
    assert_eq!(master.ring().await.partitions, before.partitions);
}

#[tokio::test]
async fn the_only_copy_is_waited_for_and_goes_on_when_its_node_is_started_again() {
    let master = spawn_master(&fast(&["--replication-factor=1", "--replace-after=1600ms"])).await;
    master.register_all(&["a", "b"]).await;
    let _beating = master.keep_beating("a");
    let silenced = master.keep_beating("b");
    let before = master.assigned_ring().await;
    drop(silenced);
    master.node_when("b", NodeState::Gone).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(master.ring().await.partitions, before.partitions);
    // From another port, and at once.
    let moved = RegisterNode { address: "http://b.test:8082".to_owned(), ..restarted("b") };
    assert_eq!(master.register(&moved).await.status(), StatusCode::OK);
    let _beating_again = master.keep_beating("b");
    let resumed = |ring: &Ring| ring.partitions.iter().filter(leads("b")).all(|entry| entry.sessions["b"] == 2);
    let after = master.ring_when(resumed).await;
    for (before, after) in pairs(&before, &after) {
        assert_eq!((&before.in_sync, before.generation), (&after.in_sync, after.generation));
        assert_eq!(after.epoch, before.epoch + u64::from(before.primary.as_deref() == Some("b")));
    }
    assert_eq!(master.ring_after(after.epoch, 1).await.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_node_that_was_started_again_is_in_sync_with_nothing_until_it_has_learned() {
    let master = spawn_master(&[]).await;
    master.register_all(&["a", "b"]).await;
    let before = master.replicated(2).await;
    assert_eq!(master.register(&restarted("b")).await.status(), StatusCode::OK);
    let after = master.take_out("b").await;
    assert_eq!(primaries(&after)["a"], 256);
    master.play(|ring| has_copies(ring, 2) && primaries(ring) == primaries(&before)).await;
    let after = master.ring().await;
    assert!(after.partitions.iter().all(|entry| entry.sessions["b"] == 2));
    assert!(pairs(&before, &after).all(|(before, after)| before.primary == after.primary));
}

#[tokio::test]
async fn a_restarted_replica_goes_on_without_its_primary_once_old_promises_are_over() {
    let master = spawn_master(&fast(&["--partitions=1"])).await;
    master.register_all(&["a", "b"]).await;
    let beating = [master.keep_beating("a"), master.keep_beating("b")];
    let before = master.replicated(2).await.partitions.remove(0);
    let (primary, replica) = (before.in_sync[0].clone(), before.in_sync[1].clone());
    drop(beating);
    master.node_when(&primary, NodeState::Gone).await;
    assert_eq!(master.register(&restarted(&replica)).await.status(), StatusCode::OK);
    let began = Instant::now();
    let _beating = master.keep_beating(&replica);
    let ring = master.ring_when(|ring| ring.partitions[0].primary.as_ref() == Some(&replica)).await;
    assert!(began.elapsed() >= Duration::from_millis(3_900), "{:?}", began.elapsed());
    let after = &ring.partitions[0];
    assert_eq!((&after.in_sync[..], after.sessions[&replica]), (&[replica][..], 2));
    assert_eq!(after.generation, before.generation);
}

#[tokio::test]
async fn a_quorum_without_a_copy_of_every_write_is_waited_for() {
    let quorum = ["--partitions=1", "--replication-factor=3", "--replication-strategy=quorum", "--write-quorum=2"];
    let master = spawn_master(&fast(&quorum)).await;
    master.register_all(&["a", "b", "c"]).await;
    let mut beating: Vec<_> = ["a", "b", "c"].map(|id| (id.to_owned(), master.keep_beating(id))).into();
    let before = master.replicated(3).await.partitions.remove(0);
    let (primary, left) = (before.in_sync[0].clone(), before.in_sync[1].clone());
    beating.retain(|(id, _)| *id == left);
    master.node_when(&primary, NodeState::Gone).await;
    master.node_when(&before.in_sync[2], NodeState::Gone).await;
    assert_eq!(master.ring().await.partitions[0], before);
    beating.push((before.in_sync[2].clone(), master.keep_beating(&before.in_sync[2])));
    let ring = master.ring_when(|ring| ring.partitions[0].primary.as_ref() != Some(&primary)).await;
    assert_eq!(ring.partitions[0].in_sync.len(), 3);
}

#[tokio::test]
async fn a_node_that_lost_its_data_learns_them_again_from_the_others() {
    let master = spawn_master(&[]).await;
    master.register_all(&["a", "b", "c"]).await;
    let before = master.replicated(2).await;
    master.lose_data("c").await;
    let out = |ring: &Ring| {
        pairs(&before, ring).all(|(before, after)| match before.sessions.contains_key("c") {
            true => after.epoch > before.epoch && !after.in_sync.contains(&"c".to_owned()),
            false => after == before,
        })
    };
    let after = master.ring_when(out).await;
    assert!(pairs(&before, &after).all(|(before, after)| before.generation == after.generation));
    master.replicated(2).await;
}

#[tokio::test]
async fn partitions_whose_every_copy_is_lost_begin_anew() {
    let master = spawn_master(&["--replication-factor=1"]).await;
    master.register_all(&["a", "b", "c"]).await;
    let before = master.assigned_ring().await;
    master.lose_data("c").await;
    let after = master
        .ring_when(|ring| {
            pairs(&before, ring).all(|(b, a)| a.epoch == b.epoch + u64::from(b.primary.as_deref() == Some("c")))
        })
        .await;
    for (before, after) in pairs(&before, &after) {
        assert_eq!((&after.in_sync, &after.primary), (&before.in_sync, &before.primary));
        let lost = before.primary.as_deref() == Some("c");
        assert_eq!(after.generation, if lost { after.epoch } else { before.generation });
    }
    // It is taken for what it is now, not once more for what it lost.
    assert_eq!(master.ring_after(after.epoch, 1).await.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn an_older_state_of_the_data_counts_as_lost() {
    let master = spawn_master(&["--replication-factor=1", "--partitions=4"]).await;
    master.register(&RegisterNode { session: 7, ..node("a") }).await;
    master.assigned_ring().await;
    let old = RegisterNode { session: 6, ..node("a") };
    assert_eq!(code(master.register(&old).await).await, (409, "node_conflict".to_owned()));
    assert_eq!(master.remove("a", "?force=true").await, StatusCode::ACCEPTED);
    assert_eq!(master.register(&old).await.status(), StatusCode::CREATED);
    let anew = |ring: &Ring| ring.partitions.iter().all(|entry| entry.generation == 2 && entry.sessions["a"] == 6);
    master.ring_when(anew).await;
}

#[tokio::test]
async fn a_removed_node_that_nobody_could_replace_comes_back_to_its_data() {
    let master = spawn_master(&[]).await;
    master.register_all(&["a"]).await;
    let before = master.assigned_ring().await;
    assert_eq!(master.remove("a", "?force=true").await, StatusCode::ACCEPTED);
    master.ring_when(|ring| ring.nodes.is_empty()).await;
    assert_eq!(code(master.get("/health/ready").await).await, (503, "no_nodes".to_owned()));
    master.register_all(&["a"]).await;
    let after = master.ring_when(|ring| ring.nodes.len() == 1).await;
    assert_eq!(after.partitions, before.partitions);
}

/// Looks are so far apart that a test would end before the next one.
async fn spawn_that_looks_only_at_news() -> (Master, Ring) {
    let master =
        spawn_master(&["--heartbeat-interval=50s", "--suspect-after=60s", "--gone-after=90s", "--replace-after=2m"])
            .await;
    master.register_all(&["a", "b", "c"]).await;
    let ring = master.replicated(2).await;
    (master, ring)
}

#[tokio::test]
async fn a_leaving_node_hands_over_at_once() {
    let (master, before) = spawn_that_looks_only_at_news().await;
    let leaving = Heartbeat { leaving: true, ..heartbeat() };
    assert_eq!(master.beat("c", &leaving).await.status(), StatusCode::OK);
    assert_eq!(master.node("c").await.state, NodeState::Draining);
    master.play(|ring| !primaries(ring).contains_key("c")).await;
    let after = master.take_out("c").await;
    for (before, after) in pairs(&before, &after).filter(|(before, _)| before.sessions.contains_key("c")) {
        assert!(before.in_sync.contains(after.primary.as_ref().unwrap()));
        assert_eq!(after.in_sync.len(), 1);
    }
    // Back again, it gets its place back.
    assert_eq!(master.register(&restarted("c")).await.status(), StatusCode::OK);
    master.play(|ring| has_copies(ring, 2) && primaries(ring) == primaries(&before)).await;
}

#[tokio::test]
async fn a_leaving_node_keeps_what_only_it_has() {
    let master = spawn_master(&["--replication-factor=1"]).await;
    master.register_all(&["a", "b"]).await;
    let before = master.assigned_ring().await;
    let _leaving = master.keep_beating_with("b", Heartbeat { leaving: true, ..heartbeat() });
    master.node_when("b", NodeState::Draining).await;
    assert_eq!(master.ring_after(before.epoch, 1).await.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_node_that_its_primary_gave_up_is_tried_again_later_or_when_it_was_started_again() {
    let master = spawn_master(&["--partitions=1"]).await;
    master.register_all(&["a", "b"]).await;
    let entry = master.replicated(2).await.partitions.remove(0);
    let replica = entry.in_sync[1].clone();
    let began = Instant::now();
    for _ in 0..2 {
        let next: Partition = master.ask(&entry, PartitionChange::Remove, &replica).await.json().await.unwrap();
        assert_eq!((next.in_sync.len(), next.learners.len(), next.epoch), (1, 0, entry.epoch + 1));
    }
    let ring = master.ring_when(|ring| is_moving(&ring.partitions[0])).await;
    assert!(began.elapsed() >= Duration::from_millis(4_900));
    master.ask(&ring.partitions[0], PartitionChange::Remove, &replica).await;
    let began = Instant::now();
    master.register(&restarted(&replica)).await;
    master.ring_when(|ring| is_moving(&ring.partitions[0])).await;
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_primary_that_was_started_again_may_not_ask_for_what_the_old_process_knew() {
    let master = spawn_master(&["--partitions=1"]).await;
    master.register_all(&["a", "b"]).await;
    let entry = master.replicated(2).await.partitions.remove(0);
    let old = asked(&entry, PartitionChange::Remove, &entry.in_sync[1]);
    master.register(&restarted(&entry.in_sync[0])).await;
    master.ring_when(|ring| ring.partitions[0].epoch > entry.epoch).await;
    assert_eq!(code(master.ask_for(0, &old).await).await, (412, "precondition_failed".to_owned()));
}
