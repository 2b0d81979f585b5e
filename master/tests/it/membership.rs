//! Registration, heartbeats, silence, removal.

use std::net::{IpAddr, ToSocketAddrs as _, UdpSocket};

use cairn_api_spec::{
    cluster::{Heartbeat, HeartbeatReply, NodeList, NodeState, RegisterNode},
    error::Problem,
};
use cairn_master::{
    resolver::Resolved,
    validation::{check_registration, check_target},
};
use reqwest::StatusCode;

use crate::support::{code, entries_with, heartbeat, node, primaries, restarted, spawn_master};

#[tokio::test]
async fn a_new_node_is_created_and_the_same_again_is_known() {
    let master = spawn_master(&[]).await;
    let created = master.register(&node("a")).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    assert_eq!(created.headers()["location"], "/nodes/a");
    assert_eq!(master.register(&node("a")).await.status(), StatusCode::OK);
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
async fn two_processes_with_one_id_and_one_address_do_not_take_turns() {
    let master = spawn_master(&["--partitions=4", "--replication-factor=1"]).await;
    master.register_all(&["a"]).await;
    let before = master.assigned_ring().await;
    let other = RegisterNode { incarnation: 2, ..node("a") };
    for _ in 0..2 {
        // Told to register, which it may not while the first one is there.
        let beat = master.beat("a", &Heartbeat { incarnation: 2, leaving: true, ..heartbeat() }).await;
        assert_eq!(code(beat).await, (404, "node_not_found".to_owned()));
        let problem: Problem = master.register(&other).await.json().await.unwrap();
        assert_eq!((problem.status, problem.code.as_str()), (409, "node_conflict"));
        for hint in ["http://a.test:8081", "an id and an address of its own", "60s later"] {
            assert!(problem.detail.contains(hint), "{}", problem.detail);
        }
        assert_eq!(master.beat("a", &heartbeat()).await.status(), StatusCode::OK);
    }
    assert_eq!(master.node("a").await.incarnation, 1);
    assert_eq!(master.ring().await.partitions, before.partitions);
    // The first one stops.
    master.beat("a", &Heartbeat { leaving: true, ..heartbeat() }).await;
    assert_eq!(master.register(&other).await.status(), StatusCode::OK);
    assert_eq!(master.node("a").await.incarnation, 2);
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

/// The address of an interface other than the loopback, if this machine has one.
fn lan_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: it only chooses the interface.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[tokio::test]
async fn the_masters_own_address_is_refused_by_any_name() {
    let master = spawn_master(&[]).await;
    let port = master.url.rsplit_once(':').unwrap().1;
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    // A container has its own name in /etc/hosts; elsewhere it may stand for nothing, and then reaches nobody.
    let known = (hostname.as_str(), 0).to_socket_addrs().is_ok().then_some(hostname);
    let lan = lan_address().map(|ip| ip.to_string());
    let names = ["127.0.0.1", "127.0.0.2", "127.1", "localhost", "LOCALHOST.", "[::1]", "[::ffff:127.0.0.1]"];
    for name in names.map(str::to_owned).into_iter().chain(known).chain(lan) {
        for registration in [
            RegisterNode { address: format!("http://{name}:{port}"), ..node("a") },
            RegisterNode { peer_address: format!("{name}:{port}"), ..node("a") },
        ] {
            let problem: Problem = master.register(&registration).await.json().await.unwrap();
            assert_eq!((problem.status, problem.code.as_str()), (400, "invalid_body"), "{registration:?}");
            assert!(problem.detail.contains("the master's own address"), "{}", problem.detail);
        }
    }
    // Another port, or a name that stands for nothing, is somebody else's.
    for address in ["http://127.0.0.1:1".to_owned(), format!("http://nobody.invalid:{port}")] {
        let registration = RegisterNode { address, ..node("b") };
        assert!(master.register(&registration).await.status().is_success(), "{registration:?}");
        assert_eq!(master.remove("b", "?force=true").await, StatusCode::ACCEPTED);
    }
}

#[test]
fn only_this_machine_at_the_masters_port_is_the_master() {
    let targets = check_registration(&RegisterNode {
        address: "http://Cache.example.:8080".to_owned(),
        peer_address: "cache.example:9081".to_owned(),
        ..node("a")
    });
    let [address, peer_address] = targets.unwrap();
    assert_eq!((address.field, address.host.as_str(), address.port), ("address", "cache.example", 8080));
    let resolved = |ip: &str, is_local| Resolved { ip: ip.parse().unwrap(), is_local };
    let (here, elsewhere) = (resolved("192.0.2.7", true), resolved("192.0.2.8", false));
    for (addresses, is_refused) in [
        (vec![], false),
        (vec![elsewhere], false),
        (vec![here], true),
        (vec![elsewhere, here], true),
        (vec![resolved("::ffff:127.0.0.9", false)], true),
    ] {
        assert_eq!(check_target(&address, &addresses, 8080).is_err(), is_refused, "{addresses:?}");
        assert!(check_target(&peer_address, &addresses, 8080).is_ok(), "{addresses:?}");
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
