//! `/rebalance`, and what is said of missing copies.

use cairn_api_spec::cluster::{
    ChangeRebalance, Health, Heartbeat, HeartbeatReply, Move, PartitionChange, Rebalance, Stats, Transfer,
};
use reqwest::{Method, Response, StatusCode};

use crate::support::{Master, code, entries_with, has_copies, heartbeat, is_moving, spawn_master};

impl Master {
    async fn rebalance(&self) -> Rebalance {
        self.get("/rebalance").await.json().await.unwrap()
    }

    async fn change_rebalance(&self, change: &ChangeRebalance) -> Response {
        self.send(Method::PATCH, "/rebalance", change).await
    }

    async fn warning(&self) -> Option<String> {
        let health = self.get("/health/ready").await;
        assert_eq!(health.status(), StatusCode::OK);
        health.json::<Health>().await.unwrap().warning
    }
}

#[tokio::test]
async fn a_cluster_with_fewer_nodes_than_copies_serves_and_warns() {
    let master = spawn_master(&["--partitions=16"]).await;
    master.register_all(&["a"]).await;
    master.assigned_ring().await;
    assert!(master.warning().await.unwrap().contains("replication_factor is 2"));
    let stats: Stats = master.get("/stats").await.json().await.unwrap();
    assert_eq!((stats.partitions_under_replicated, stats.partitions_offline), (16, 0));
    master.register_all(&["b"]).await;
    master.ring_when(|ring| ring.partitions.iter().any(is_moving)).await;
    assert!(master.warning().await.unwrap().contains("of 16 partitions have fewer than 2 in-sync copies"));
    master.replicated(2).await;
    assert_eq!(master.warning().await, None);
    let stats: Stats = master.get("/stats").await.json().await.unwrap();
    assert_eq!(stats.partitions_under_replicated, 0);
}

#[tokio::test]
async fn a_pause_holds_back_moves_but_not_copies_that_are_missing() {
    let master = spawn_master(&["--settle=1s"]).await;
    master.register_all(&["a", "b", "c"]).await;
    let before = master.replicated(2).await;
    let pause = ChangeRebalance { paused: Some(true), ..ChangeRebalance::default() };
    let paused: Rebalance = master.change_rebalance(&pause).await.json().await.unwrap();
    assert!(paused.paused && paused.moves_left == 0 && paused.eta_seconds.is_none());
    master.register_all(&["d"]).await;
    let ring = master.ring_when(|ring| ring.nodes.len() == 4).await;
    assert_eq!(master.ring_after(ring.epoch, 1).await.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(ring.partitions, before.partitions);
    assert!((120..=147).contains(&master.rebalance().await.moves_left));
    assert_eq!(master.remove("c", "?force=true").await, StatusCode::ACCEPTED);
    master.play(|ring| has_copies(ring, 2) && entries_with(ring, "c").is_empty()).await;
    let after = master.ring().await;
    let had_c = entries_with(&before, "c").len();
    let moved =
        before.partitions.iter().zip(&after.partitions).filter(|(b, a)| !b.sessions.keys().eq(a.sessions.keys()));
    assert_eq!(moved.count(), had_c);
    let resume = ChangeRebalance { paused: Some(false), ..ChangeRebalance::default() };
    master.change_rebalance(&resume).await;
    master.play(|ring| has_copies(ring, 2) && (162..=180).contains(&entries_with(ring, "d").len())).await;
    let done = master.rebalance().await;
    assert_eq!((done.moves_left, done.moves_active), (0, 0));
    assert!(done.moves_done as usize >= 256 + had_c);
}

#[tokio::test]
async fn limits_hold_and_outlive_the_master() {
    let settings = ["--max-moves=5", "--transfer-bytes-per-second=1000000"];
    let master = spawn_master(&settings).await;
    let configured = master.rebalance().await;
    assert_eq!((configured.max_moves, configured.bytes_per_second, configured.paused), (5, 1_000_000, false));
    for change in [
        ChangeRebalance { max_moves: Some(3), ..ChangeRebalance::default() },
        ChangeRebalance { bytes_per_second: Some(0), paused: Some(true), ..ChangeRebalance::default() },
    ] {
        assert_eq!(master.change_rebalance(&change).await.status(), StatusCode::OK);
    }
    let master = master.restart(&settings).await;
    let kept = master.rebalance().await;
    assert_eq!((kept.max_moves, kept.bytes_per_second, kept.paused), (3, 0, true));
    let resume = ChangeRebalance { paused: Some(false), bytes_per_second: Some(7_000), ..ChangeRebalance::default() };
    assert_eq!(master.change_rebalance(&resume).await.status(), StatusCode::OK);
    master.register_all(&["a", "b"]).await;
    let reply: HeartbeatReply = master.beat("a", &heartbeat()).await.json().await.unwrap();
    assert_eq!(reply.transfer_bytes_per_second, 7_000);
    let most = master.play(|ring| has_copies(ring, 2)).await;
    assert!((1..=3).contains(&most), "{most} were moving at once");
}

#[tokio::test]
async fn limits_out_of_bounds_are_refused_with_the_bounds() {
    let master = spawn_master(&[]).await;
    for (change, bounds) in [
        (ChangeRebalance { max_moves: Some(0), ..ChangeRebalance::default() }, "1 to 65536"),
        (ChangeRebalance { max_moves: Some(65_537), ..ChangeRebalance::default() }, "1 to 65536"),
        (ChangeRebalance { bytes_per_second: Some((1 << 40) + 1), ..ChangeRebalance::default() }, "to 1099511627776"),
    ] {
        let refused = master.change_rebalance(&change).await;
        let problem: cairn_api_spec::error::Problem = refused.json().await.unwrap();
        assert_eq!((problem.status, problem.code.as_str()), (400, "invalid_parameter"));
        assert!(problem.detail.contains(bounds), "{}", problem.detail);
    }
    for body in [serde_json::json!({"max_moves": -1}), serde_json::json!({"speed": 1})] {
        let refused = master.send(Method::PATCH, "/rebalance", &body).await;
        assert_eq!(code(refused).await, (400, "invalid_body".to_owned()));
    }
    assert_eq!(master.rebalance().await.max_moves, 32);
}

#[tokio::test]
async fn moves_are_shown_with_what_the_nodes_say_of_them() {
    let master = spawn_master(&["--partitions=8", "--max-moves=2"]).await;
    master.register_all(&["a"]).await;
    master.assigned_ring().await;
    master.register_all(&["b"]).await;
    let ring = master.ring_when(|ring| ring.partitions.iter().filter(|entry| is_moving(entry)).count() == 2).await;
    let moving: Vec<u32> = ring.partitions.iter().filter(|entry| is_moving(entry)).map(|entry| entry.id).collect();
    let transfer = |bytes| Transfer { partition: moving[0], bytes, total_bytes: 4_000, ..Transfer::default() };
    let says = |bytes| Heartbeat { transfers: vec![transfer(bytes)], ..heartbeat() };
    master.beat("b", &says(1_000)).await;
    master.beat("b", &says(1_500)).await;
    let begun = |partition, bytes, total_bytes| Move {
        partition,
        from: Some("a".to_owned()),
        to: "b".to_owned(),
        bytes,
        total_bytes,
    };
    let shown = master.rebalance().await;
    assert_eq!(shown.moves, [begun(moving[0], 1_500, 4_000), begun(moving[1], 0, 0)]);
    assert_eq!((shown.moves_active, shown.moves_left, shown.moves_done), (2, 6, 0));
    assert_eq!((shown.bytes_copied, shown.bytes_total), (1_500, 4_000));
    // 2,500 bytes of these, and as many for each of the others as these have on average.
    let left = 2_500.0 + 6.0 * 2_000.0;
    assert!(shown.bytes_rate > 0.0 && shown.bytes_rate <= 1_500.0, "{}", shown.bytes_rate);
    assert!((shown.eta_seconds.unwrap() - left / shown.bytes_rate).abs() < 1e-6);
    for entry in ring.partitions.iter().filter(|entry| is_moving(entry)) {
        master.ask(entry, PartitionChange::CaughtUp, "b").await;
    }
    assert_eq!(master.rebalance().await.moves_done, 2);
}
