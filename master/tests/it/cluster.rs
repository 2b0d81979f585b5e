//! The partition map: formation, moves, restarts, what primaries ask for.

use cairn_api_spec::cluster::{ChangePartition, Partition, PartitionChange, Replication, Ring, Strategy};
use cairn_master::{OpenError, RunError, run};
use reqwest::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::support::{asked, code, config, entries_with, has_copies, is_moving, listeners, primaries, spawn_master};

#[tokio::test]
async fn nodes_that_start_together_share_the_partitions_without_a_move() {
    let master = spawn_master(&["--settle=1s"]).await;
    assert_eq!(code(master.get("/health/ready").await).await, (503, "no_nodes".to_owned()));
    master.register_all(&["a", "b", "c"]).await;
    let ring = master.assigned_ring().await;
    assert_eq!((ring.partition_count, ring.partitions.len(), ring.nodes.len()), (256, 256, 3));
    let assigned = primaries(&ring);
    assert!(assigned.values().all(|count| (81..=90).contains(count)), "{assigned:?}");
    let replicated = master.replicated(2).await;
    assert_eq!(primaries(&replicated), assigned);
    assert!(replicated.partitions.iter().all(|entry| entry.generation == 1 && entry.sessions.len() == 2));
    for id in ["a", "b", "c"] {
        assert!((162..=180).contains(&entries_with(&replicated, id).len()));
        let node = master.node(id).await;
        assert_eq!((node.partitions as usize, node.session), (assigned[id], 1));
        assert_eq!((node.partitions + node.replicas) as usize, entries_with(&replicated, id).len());
    }
    assert_eq!(master.get("/health/ready").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_newcomer_learns_its_share_a_few_partitions_at_a_time() {
    let master = spawn_master(&["--max-moves=8"]).await;
    master.register_all(&["a", "b", "c"]).await;
    let before = master.replicated(2).await;
    master.register_all(&["d"]).await;
    let has_share = |ring: &Ring| primaries(ring).get("d").is_some_and(|count| *count >= 60);
    let most = master.play(|ring| has_share(ring) && has_copies(ring, 2)).await;
    assert!((1..=8).contains(&most), "{most} were moving at once");
    let after = master.ring().await;
    let new = |(before, after): (&Partition, &Partition)| {
        after.in_sync.iter().filter(|id| !before.in_sync.contains(id)).inspect(|id| assert_eq!(*id, "d")).count()
    };
    let moved: usize = before.partitions.iter().zip(&after.partitions).map(new).sum();
    assert!((120..=512 * 115 / 400).contains(&moved), "{moved} moved");
}

#[tokio::test]
async fn a_partition_goes_to_another_node_by_learner_hand_over_and_release() {
    let master = spawn_master(&["--partitions=2", "--replication-factor=1"]).await;
    master.register_all(&["a"]).await;
    master.assigned_ring().await;
    master.register_all(&["b"]).await;
    let ring = master.ring_when(|ring| ring.partitions.iter().any(is_moving)).await;
    let learned = ring.partitions.into_iter().find(is_moving).unwrap();
    assert_eq!((&learned.in_sync[..], &learned.learners[..]), (&["a".to_owned()][..], &["b".to_owned()][..]));
    master.ask(&learned, PartitionChange::CaughtUp, "b").await;
    let entry = |ring: &Ring| ring.partitions[learned.id as usize].clone();
    let named = entry(&master.ring_when(|ring| entry(ring).successor.is_some()).await);
    assert_eq!((named.successor.as_deref(), &named.in_sync), (Some("b"), &vec!["a".to_owned(), "b".to_owned()]));
    let handed: Partition = master.ask(&named, PartitionChange::HandOver, "b").await.json().await.unwrap();
    assert_eq!((handed.primary.as_deref(), handed.in_sync.len(), handed.successor), (Some("b"), 2, None));
    let released = entry(&master.ring_when(|ring| entry(ring).in_sync == ["b"]).await);
    assert_eq!((released.generation, released.epoch), (1, 6));
    assert_eq!(released.sessions.into_iter().collect::<Vec<_>>(), [("b".to_owned(), 1)]);
}

#[tokio::test]
async fn only_the_primary_of_the_present_entry_may_change_it() {
    let master = spawn_master(&["--partitions=4"]).await;
    master.register_all(&["a", "b"]).await;
    let ring = master.ring_when(|ring| ring.partitions.iter().any(is_moving)).await;
    let entry = ring.partitions.iter().find(|entry| is_moving(entry)).unwrap();
    let learner = &entry.learners[0];
    let right = asked(entry, PartitionChange::CaughtUp, learner);
    for wrong in [
        ChangePartition { epoch: right.epoch - 1, ..right.clone() },
        ChangePartition { session: 2, ..right.clone() },
        ChangePartition { node_id: learner.clone(), ..right.clone() },
        ChangePartition { subject: right.node_id.clone(), ..right.clone() },
        ChangePartition { change: PartitionChange::HandOver, ..right.clone() },
    ] {
        let answer = code(master.ask_for(entry.id, &wrong).await).await;
        assert_eq!(answer, (412, "precondition_failed".to_owned()), "{wrong:?}");
    }
    for _ in 0..2 {
        let next: Partition = master.ask_for(entry.id, &right).await.json().await.unwrap();
        assert_eq!((next.epoch, next.in_sync.len(), next.learners.len()), (right.epoch + 1, 2, 0));
    }
    assert_eq!(code(master.ask_for(4, &right).await).await, (400, "invalid_parameter".to_owned()));
}

#[tokio::test]
async fn changes_that_are_asked_for_at_the_same_time_are_made_each_once() {
    let master = spawn_master(&["--max-moves=256"]).await;
    master.register_all(&["a", "b"]).await;
    let all_learn = |ring: &Ring| ring.partitions.iter().all(|entry| !entry.learners.is_empty());
    let ring = master.ring_when(all_learn).await;
    // Twice at a time: the second is the same request again, and gets the same answer.
    let ask = |entry| master.ask(entry, PartitionChange::CaughtUp, &entry.learners[0]);
    let answers = futures_util::future::join_all(ring.partitions.iter().chain(&ring.partitions).map(ask)).await;
    for (entry, answer) in ring.partitions.iter().chain(&ring.partitions).zip(answers) {
        assert_eq!(answer.status(), StatusCode::OK);
        let next: Partition = answer.json().await.unwrap();
        assert_eq!((next.epoch, next.in_sync.len()), (entry.epoch + 1, 2));
    }
    let after = master.ring().await;
    assert!(after.epoch - ring.epoch < 256, "{} transactions for 256 changes", after.epoch - ring.epoch);
}

#[tokio::test]
async fn a_primary_that_cannot_store_steps_down() {
    let master = spawn_master(&["--partitions=1"]).await;
    master.register_all(&["a", "b"]).await;
    let entry = master.replicated(2).await.partitions.remove(0);
    let replica = entry.in_sync[1].clone();
    for _ in 0..2 {
        let answer = master.ask(&entry, PartitionChange::StepDown, &replica).await;
        let next: Partition = answer.json().await.unwrap();
        assert_eq!((next.primary.as_ref(), &next.in_sync), (Some(&replica), &vec![replica.clone()]));
    }
}

#[tokio::test]
async fn a_learner_that_falls_silent_is_given_up_so_that_writes_go_on() {
    let master = spawn_master(&["--suspect-after=600ms", "--gone-after=20s"]).await;
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
    let before = master.replicated(2).await;
    let master = master.restart(&[]).await;
    let after = master.ring().await;
    assert_eq!((&after.partitions, &after.nodes), (&before.partitions, &before.nodes));
    assert!(after.epoch >= before.epoch);
    assert_eq!(after.cluster_id, before.cluster_id);
    assert_eq!(master.get("/health/ready").await.status(), StatusCode::OK);
    assert_eq!(master.ring_after(after.epoch, 1).await.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn the_way_of_replication_is_published_with_the_map_and_a_change_of_it_is_news() {
    let master = spawn_master(&["--partitions=1"]).await;
    let before = master.ring().await;
    let primary_replica =
        Replication { factor: 2, min_in_sync: 1, strategy: Strategy::PrimaryReplica, write_quorum: 2 };
    assert_eq!(before.replication, primary_replica);
    let settings = ["--partitions=1", "--replication-factor=5", "--min-in-sync=3", "--replication-strategy=quorum"];
    let master = master.restart(&settings).await;
    let after: Ring = master.ring_after(before.epoch, 0).await.json().await.unwrap();
    let quorum = Replication { factor: 5, min_in_sync: 3, strategy: Strategy::Quorum, write_quorum: 3 };
    assert_eq!(after.replication, quorum);
}

#[tokio::test]
async fn with_a_lower_factor_superfluous_copies_are_released() {
    let master = spawn_master(&["--replication-factor=3"]).await;
    master.register_all(&["a", "b", "c"]).await;
    let before = master.replicated(3).await;
    let master = master.restart(&[]).await;
    let after = master.replicated(2).await;
    let kept = |(before, after): (&Partition, &Partition)| after.in_sync.iter().all(|id| before.in_sync.contains(id));
    assert!(before.partitions.iter().zip(&after.partitions).all(kept));
    assert!(primaries(&after).values().all(|count| (81..=90).contains(count)), "{:?}", primaries(&after));
}

#[tokio::test]
async fn another_number_of_partitions_is_refused_at_the_start() {
    let directory = spawn_master(&["--partitions=16"]).await.stop().await;
    let config = config(directory.path(), &["--partitions=17"]);
    let error = run(config, listeners().0, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, RunError::Open(OpenError::PartitionCount { stored: 16 })), "{error:?}");
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused_at_the_start() {
    for settings in [
        ["--suspect-after=9s", "--gone-after=9s"],
        ["--heartbeat-interval=5s", "--suspect-after=5s"],
        ["--gone-after=30s", "--replace-after=29s"],
        ["--replication-factor=2", "--min-in-sync=3"],
        ["--replication-factor=2", "--write-quorum=3"],
    ] {
        let directory = tempfile::TempDir::new().unwrap();
        let config = config(directory.path(), &settings);
        let error = run(config, listeners().0, CancellationToken::new()).await.unwrap_err();
        assert!(matches!(error, RunError::Settings(_)), "{error:?}");
    }
}
