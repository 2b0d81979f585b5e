//! Registration, heartbeats, silence, removal.

use cairn_api_spec::cluster::{Heartbeat, HeartbeatReply, NodeList, NodeState, RegisterNode};
use reqwest::StatusCode;

use crate::support::{code, entries_with, heartbeat, node, primaries, restarted, spawn_master};

#[tokio::test]
async fn a_new_node_is_created_and_the_same_again_is_known() {
    let master = spawn_master(&[]).await;
    let created = master.register(&node("a")).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    assert_eq!(created.headers()["location"], "/nodes/a");
    assert_eq!(master.register(&node("a")).await.status(), StatusCode::OK);
    assert_eq!(master.register(&RegisterNode { incarnation: 2, ..node("a") }).await.status(), StatusCode::OK);
    assert_eq!(master.node("a").await.incarnation, 2);
    let list: NodeList = master.get("/nodes").await.json().await.unwrap();
    assert_eq!(list.nodes.len(), 1);
}

#[tokio::test]
async fn an_id_that_beats_from_elsewhere_is_a_conflict() {
    let master = spawn_master(&[]).await;
    master.register_all(&["a"]).await;
    for elsewhere in [
        RegisterNode { address: "http://b.test:8081".to_owned(), ..node("a") },
        RegisterNode { peer_address: "b.test:9081".to_owned(), ..node("a") },
    ] {
        assert_eq!(code(master.register(&elsewhere).await).await, (409, "node_conflict".to_owned()));
    }
    assert_eq!(master.node("a").await.address, node("a").address);
}

#[tokio::test]
async fn a_node_that_said_it_would_stop_may_come_from_elsewhere_at_once_and_an_older_process_may_not() {
    let master = spawn_master(&[]).await;
    master.register_all(&["a"]).await;
    let elsewhere = RegisterNode { address: "http://a.test:8082".to_owned(), ..restarted("a") };
    // While it beats, this may as well be a copy of its data.
    assert_eq!(code(master.register(&elsewhere).await).await, (409, "node_conflict".to_owned()));
    master.beat("a", &Heartbeat { leaving: true, ..heartbeat() }).await;
    assert_eq!(master.register(&elsewhere).await.status(), StatusCode::OK);
    let ring = master.ring_when(|ring| ring.nodes.iter().any(|node| node.session == 2)).await;
    assert_eq!(ring.nodes[0].address, elsewhere.address);
    for old in [node("a"), RegisterNode { session: 1, ..elsewhere.clone() }] {
        assert_eq!(code(master.register(&old).await).await, (409, "node_conflict".to_owned()));
    }
    assert_eq!(master.node("a").await.session, 2);
}

#[tokio::test]
async fn a_silent_node_may_come_back_from_elsewhere() {
    let master = spawn_master(&["--suspect-after=200ms", "--gone-after=400ms"]).await;
    master.register_all(&["a"]).await;
    master.node_when("a", NodeState::Gone).await;
    let moved = RegisterNode { address: "http://b.test:8081".to_owned(), ..node("a") };
    assert_eq!(master.register(&moved).await.status(), StatusCode::OK);
    let ring = master.ring_when(|ring| ring.nodes[0].address == moved.address).await;
    assert_eq!(ring.nodes.len(), 1);
}

#[tokio::test]
async fn a_registration_that_no_node_would_send_is_refused() {
    let master = spawn_master(&[]).await;
    let own = master.url.clone();
    let address = |text: &str| RegisterNode { address: text.to_owned(), ..node("a") };
    let peer = |text: &str| RegisterNode { peer_address: text.to_owned(), ..node("a") };
    let id = |text: &str| RegisterNode { node_id: text.to_owned(), ..node("a") };
    let weight = |weight| RegisterNode { weight, ..node("a") };
    let own_port = own.replace("http://", "");
    let refused = [
        id(""),
        id("a/b"),
        id("ä"),
        id(&"a".repeat(64)),
        weight(0.0),
        weight(100.1),
        RegisterNode { zone: Some(String::new()), ..node("a") },
        address("ftp://a.test:1"),
        address("a.test:8081"),
        address("http://user@a.test:8081"),
        address("http://a.test:8081/path"),
        address("http://a.test:8081?q"),
        address("http://a.test:0"),
        address("http://169.254.169.254"),
        address("http://0xA9FEA9FE:80"),
        address("http://[::ffff:169.254.169.254]:80"),
        address("http://[fe80::1]:80"),
        address("http://[fd00:ec2::254]:80"),
        address("http://224.0.0.1:80"),
        address("http://0.0.0.0:80"),
        address("http://metadata.google.internal./"),
        address(&own),
        address(&own.replace("127.0.0.1", "localhost")),
        peer("a.test"),
        peer("a.test:0"),
        peer("a.test:99999"),
        peer("a.test:80/x:1"),
        peer("169.254.1.1:80"),
        peer("[ff02::1]:80"),
        peer(&own_port),
    ];
    for registration in refused {
        let answer = code(master.register(&registration).await).await;
        assert_eq!(answer, (400, "invalid_body".to_owned()), "{registration:?}");
    }
    for registration in [address("https://10.0.0.1:8081"), peer("[::1]:9081")] {
        assert!(master.register(&registration).await.status().is_success(), "{registration:?}");
        assert_eq!(master.remove("a", "?force=true").await, StatusCode::ACCEPTED);
    }
}

#[tokio::test]
async fn a_node_that_is_unknown_or_lost_its_data_is_told_to_register() {
    let master = spawn_master(&[]).await;
    let heartbeat = heartbeat();
    assert_eq!(code(master.beat("a", &heartbeat).await).await, (404, "node_not_found".to_owned()));
    master.register_all(&["a"]).await;
    assert_eq!(master.beat("a", &heartbeat).await.status(), StatusCode::OK);
    assert!(master.node("a").await.last_heartbeat.is_some());
    let other = Heartbeat { incarnation: 2, ..heartbeat };
    assert_eq!(code(master.beat("a", &other).await).await, (404, "node_not_found".to_owned()));
}

#[tokio::test]
async fn a_process_that_a_later_one_has_followed_is_told_to_leave() {
    let master = spawn_master(&[]).await;
    master.register(&restarted("a")).await;
    let leave = async |session| {
        let reply = master.beat("a", &Heartbeat { session, ..heartbeat() }).await;
        reply.json::<HeartbeatReply>().await.unwrap().leave
    };
    assert_eq!((leave(1).await, leave(2).await), (true, false));
}

#[tokio::test]
async fn silence_makes_a_node_suspect_then_gone_and_a_heartbeat_brings_it_back() {
    let master = spawn_master(&["--suspect-after=300ms", "--gone-after=2s"]).await;
    master.register_all(&["a"]).await;
    let beating = master.keep_beating("a");
    master.node_when("a", NodeState::Active).await;
    drop(beating);
    master.node_when("a", NodeState::Suspect).await;
    master.node_when("a", NodeState::Gone).await;
    let _beating = master.keep_beating("a");
    master.node_when("a", NodeState::Active).await;
}

#[tokio::test]
async fn a_forced_removal_reassigns_at_once() {
    let master = spawn_master(&["--replication-factor=1"]).await;
    master.register_all(&["a", "b", "c"]).await;
    let before = master.assigned_ring().await;
    assert_eq!(master.remove("c", "?force=true").await, StatusCode::ACCEPTED);
    let after = master.ring_when(|ring| ring.nodes.len() == 2 && !primaries(ring).contains_key("c")).await;
    for (before, after) in before.partitions.iter().zip(&after.partitions) {
        let moved = before.primary.as_deref() == Some("c");
        assert_eq!(after.epoch, before.epoch + u64::from(moved));
        assert_eq!(after.in_sync.first(), after.primary.as_ref());
    }
    assert_eq!(master.remove("c", "").await, StatusCode::NOT_FOUND);
    assert_eq!(master.remove("a", "?force=perhaps").await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_removed_node_drains_before_it_leaves() {
    let master = spawn_master(&[]).await;
    master.register_all(&["a", "b", "c"]).await;
    master.replicated(2).await;
    assert_eq!(master.remove("c", "").await, StatusCode::ACCEPTED);
    assert_eq!(master.remove("c", "").await, StatusCode::ACCEPTED);
    assert_eq!(master.node("c").await.state, NodeState::Draining);
    master.play(|ring| entries_with(ring, "c").is_empty()).await;
    let ring = master.ring_when(|ring| ring.nodes.len() == 2).await;
    assert!(ring.partitions.iter().all(|entry| entry.in_sync.len() == 2 && entry.generation == 1));
    assert_eq!(master.get("/nodes/c").await.status(), StatusCode::NOT_FOUND);
}
