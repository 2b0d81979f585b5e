//! The partition map: formation, moves, restarts, lost data.

use cairn_api_spec::cluster::{CaughtUp, Partition, RegisterNode};
use cairn_master::{OpenError, RunError, run};
use reqwest::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::support::{code, config, is_moving, learned, listeners, node, primaries, spawn_master};

#[tokio::test]
async fn nodes_that_start_together_share_the_partitions_without_a_move() {
    let master = spawn_master(&["--settle=1s"]).await;
    assert_eq!(code(master.get("/health/ready").await).await, (503, "no_nodes".to_owned()));
    master.register_all(&["a", "b", "c"]).await;
    let ring = master.assigned_ring().await;
    assert_eq!((ring.partition_count, ring.partitions.len(), ring.nodes.len()), (256, 256, 3));
    assert!(ring.partitions.iter().all(|p| p.epoch == 1 && p.in_sync.len() == 1 && p.learners.is_empty()));
    assert!(primaries(&ring).values().all(|count| (73..=98).contains(count)), "{:?}", primaries(&ring));
    assert_eq!(master.get("/health/ready").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_newcomer_learns_its_share_a_few_partitions_at_a_time() {
    let master = spawn_master(&["--max-moves=8"]).await;
    master.register_all(&["a", "b", "c"]).await;
    let before = master.assigned_ring().await;
    master.register_all(&["d"]).await;
    let most = master.finish_moves(|ring| primaries(ring).get("d").is_some_and(|count| *count >= 60)).await;
    assert!((1..=8).contains(&most), "{most} were moving at once");
    let after = master.ring().await;
    let moved = |(before, after): &(&Partition, &Partition)| before.primary != after.primary;
    let moved: Vec<_> = before.partitions.iter().zip(&after.partitions).filter(moved).collect();
    assert!(moved.len() <= 256 * 115 / 400, "{} moved", moved.len());
    assert!(moved.iter().all(|(before, after)| {
        after.primary.as_deref() == Some("d") && after.in_sync == ["d"] && after.epoch == before.epoch + 2
    }));
}

#[tokio::test]
async fn only_what_was_learned_from_the_present_entry_is_promoted() {
    let master = spawn_master(&[]).await;
    master.register_all(&["a"]).await;
    master.assigned_ring().await;
    master.register_all(&["b"]).await;
    let ring = master.ring_when(|ring| ring.partitions.iter().any(is_moving)).await;
    let partition = ring.partitions.iter().find(|p| is_moving(p)).unwrap();
    let right = CaughtUp { epoch: partition.epoch, ..learned("b") };
    for wrong in [
        CaughtUp { epoch: right.epoch - 1, ..right.clone() },
        CaughtUp { incarnation: 2, ..right.clone() },
        CaughtUp { node_id: "a".to_owned(), ..right.clone() },
    ] {
        let answer = code(master.caught_up(partition.id, &wrong).await).await;
        assert_eq!(answer, (412, "precondition_failed".to_owned()), "{wrong:?}");
    }
    for _ in 0..2 {
        let next: Partition = master.caught_up(partition.id, &right).await.json().await.unwrap();
        assert_eq!((next.epoch, next.primary.as_deref(), next.learners.len()), (right.epoch + 1, Some("b"), 0));
    }
    assert_eq!(code(master.caught_up(256, &right).await).await, (400, "invalid_parameter".to_owned()));
}

#[tokio::test]
async fn a_learner_that_falls_silent_is_given_up_so_that_writes_go_on() {
    let master = spawn_master(&["--suspect-after=600ms", "--gone-after=2s"]).await;
    master.register_all(&["a"]).await;
    let _beating = master.keep_beating("a");
    master.assigned_ring().await;
    master.register_all(&["b"]).await;
    let beating = master.keep_beating("b");
    master.ring_when(|ring| ring.partitions.iter().any(is_moving)).await;
    drop(beating);
    let ring = master.ring_when(|ring| !ring.partitions.iter().any(is_moving)).await;
    assert_eq!(primaries(&ring)["a"], 256);
}

#[tokio::test]
async fn the_map_survives_a_restart() {
    let master = spawn_master(&[]).await;
    master.register_all(&["a", "b", "c"]).await;
    let before = master.assigned_ring().await;
    let master = master.restart(&[]).await;
    let after = master.ring().await;
    assert_eq!((&after.partitions, &after.nodes), (&before.partitions, &before.nodes));
    assert!(after.epoch >= before.epoch);
    assert_eq!(after.cluster_id, before.cluster_id);
    assert_eq!(master.get("/health/ready").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn another_number_of_partitions_is_refused_at_the_start() {
    let directory = spawn_master(&["--partitions=16"]).await.stop().await;
    let config = config(directory.path(), &["--partitions=17"]);
    let error = run(config, listeners().0, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, RunError::Open(OpenError::PartitionCount { stored: 16 })), "{error:?}");
}

#[tokio::test]
async fn times_of_silence_out_of_order_are_refused_at_the_start() {
    let directory = tempfile::TempDir::new().unwrap();
    let config = config(directory.path(), &["--suspect-after=9s"]);
    let error = run(config, listeners().0, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, RunError::Settings(_)), "{error:?}");
}

#[tokio::test]
async fn partitions_of_a_node_that_lost_its_data_begin_anew() {
    let master = spawn_master(&[]).await;
    master.register_all(&["a", "b", "c"]).await;
    let before = master.assigned_ring().await;
    assert_eq!(master.register(&RegisterNode { incarnation: 2, ..node("c") }).await.status(), StatusCode::OK);
    let lost = |p: &Partition| p.primary.as_deref() == Some("c");
    let after = master
        .ring_when(|ring| {
            before.partitions.iter().zip(&ring.partitions).all(|(b, a)| a.epoch == b.epoch + u64::from(lost(b)))
        })
        .await;
    for (before, after) in before.partitions.iter().zip(&after.partitions).filter(|(before, _)| !lost(before)) {
        assert_eq!(before, after);
    }
    assert!(after.partitions.iter().all(|p| p.in_sync.len() == 1 && p.in_sync.first() == p.primary.as_ref()));
    // It is taken for what it is now, not once more for what it lost.
    let next = master.ring_after(after.epoch, 1).await;
    assert_eq!(next.status(), StatusCode::NOT_MODIFIED);
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
