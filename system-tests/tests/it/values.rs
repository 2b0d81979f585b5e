//! Values and keys at the edges of what is allowed, and how refusals look.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use cairn_api_spec::{ErrorCode, name::encode_key};
use reqwest::Method;

use crate::support::{Cluster, Setup, key_url, send_raw, sends_problem};

const LARGEST: usize = 16 << 20;

/// Bytes of all kinds, that no two lengths share.
fn binary(length: usize) -> Bytes {
    (0..length).map(|i| ((i * 31) ^ (i >> 8) ^ length) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_0_1_and_16_mib_come_back_with_their_content_type_whichever_way_they_went() {
    let cluster = Cluster::start(Setup { object_store: true, ..Setup::default() }).await;
    for length in [0, 1, (1 << 20) - 1, (1 << 20) + 1, LARGEST] {
        let (key, value) = (format!("{length} bytes"), binary(length));
        let owner = cluster.node_url(cluster.owner(&key).await).to_owned();
        for entry in [cluster.url(), owner.as_str()] {
            let (url, headers) = (key_url(entry, &key), [("content-type", "image/x-cairn; a=\"b\"")]);
            let written = cluster.client.send(Method::PUT, &url, &headers, value.clone()).await.unwrap();
            assert!(written.is_stored(), "{length} at {entry}: {written:?}");
            for server in [cluster.url(), owner.as_str()] {
                let read = cluster.client.get_key(server, &key).await;
                assert_eq!((read.status, read.body == value), (200, true), "{length} at {server}");
                assert_eq!(read.header("content-type"), Some(headers[0].1), "{length} at {server}");
                assert_eq!(read.version(), written.version(), "{length} at {server}");
                let head = cluster.client.send(Method::HEAD, &key_url(server, &key), &[], Bytes::new()).await.unwrap();
                assert_eq!(head.header("content-length"), Some(length.to_string().as_str()), "{length} at {server}");
            }
        }
    }
    cluster.uploaded().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_one_byte_too_long_is_refused_declared_or_chunked_and_nothing_is_stored() {
    let cluster = Cluster::start(Setup { nodes: 1, ..Setup::default() }).await;
    let value = binary(LARGEST + 1);
    for server in [cluster.url(), cluster.node_url(0)] {
        for chunked in [false, true] {
            let reply = send_raw(server, "PUT", "/keys/long", "", &value, chunked).await;
            sends_problem(&reply, ErrorCode::ValueTooLarge);
            assert_eq!(cluster.client.get_key(server, "long").await.status, 404);
            let fits = send_raw(server, "PUT", "/keys/fits", "", &value[1..], chunked).await;
            assert!(fits.is_stored(), "{fits:?}");
            assert!(cluster.client.get_key(server, "fits").await.body == value[1..]);
        }
    }
}

/// Keys that careless servers take for one another.
fn confusable_keys() -> Vec<String> {
    let plain = [
        " ",
        "  ",
        "a b",
        "a+b",
        "a%20b",
        "a/b",
        "a//b",
        "/a/b",
        "a/b/",
        "a%2Fb",
        "a%2fb",
        "a\\b",
        "/",
        "//",
        ".",
        "..",
        "...",
        "../..",
        "a/../b",
        "a/./b",
        "./a",
        "a/..",
        "%",
        "%%",
        "%25",
        "%2",
        "%2e%2e%2f",
        "..%2F",
        "\u{e9}",
        "e\u{301}",
        "\u{1F5FF}",
        "\u{1F468}\u{200D}\u{1F469}",
        "ключ",
        "A",
        "a",
        "a?b",
        "a#b",
        "a&b=c",
        "a;b",
        "a:b",
        "\"a\"",
        "'a'",
        "<a>",
        "{a}",
        "a|b",
        "a^b",
        "`a`",
        "~",
        "keys",
        "keys/a",
        "*",
        "\u{a0}",
        "\u{fffd}",
        "\u{feff}",
    ];
    let long = ["K".repeat(1_024), "K".repeat(1_023), format!("{}L", "K".repeat(1_023)), "\u{1F5FF}".repeat(256)];
    plain.into_iter().map(str::to_owned).chain(long).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_look_alike_never_collide_however_they_are_written() {
    let cluster = Cluster::start(Setup::default()).await;
    let keys = confusable_keys();
    let target = |key: &str| format!("/keys/{}", encode_key(key));
    for key in &keys {
        let written = send_raw(cluster.url(), "PUT", &target(key), "", key.as_bytes(), false).await;
        assert_eq!(written.status, 201, "{key:?}: {written:?}");
    }
    for key in &keys {
        // A slash may stand there as itself, and every byte may be escaped, in either case.
        let all: String = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let spellings = [target(key), target(key).replace("%2F", "/"), format!("/keys/{all}")];
        let owner = cluster.node_url(cluster.owner(key).await);
        for (server, spelling) in
            [cluster.url(), owner].iter().flat_map(|server| spellings.iter().map(move |s| (server, s)))
        {
            if spelling.len() > 3 * 1_024 {
                continue;
            }
            let read = send_raw(server, "GET", spelling, "", b"", false).await;
            assert_eq!((read.status, read.text().as_str()), (200, key.as_str()), "{spelling} at {server}");
        }
    }
    let listed = cluster.client.list(cluster.url(), 7).await;
    assert!(listed.is_sorted());
    assert_eq!(listed.iter().collect::<BTreeSet<_>>(), keys.iter().collect::<BTreeSet<_>>());
    assert_eq!(listed.len(), keys.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_value_under_a_key_that_looks_like_a_path_comes_back() {
    let cluster = Cluster::start(Setup::default()).await;
    let value = binary(3 << 20);
    for key in ["..", ".", "../..", "a/../b", "a b/%2F?#"] {
        let target = format!("/keys/{}", encode_key(key));
        for chunked in [false, true] {
            let written = send_raw(cluster.url(), "PUT", &target, "", &value, chunked).await;
            assert!(written.is_stored(), "{key:?}: {written:?}");
            let read = send_raw(cluster.url(), "GET", &target, "", b"", false).await;
            assert_eq!((read.status, read.body == value), (200, true), "{key:?}: {:?}", read.headers);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_request_is_told_as_a_problem_document_by_both_servers() {
    let cluster = Cluster::start(Setup { nodes: 1, ..Setup::default() }).await;
    let long = format!("/keys/{}", "k".repeat(1_025));
    let json = "content-type: application/json\r\n";
    let wrong = [
        ("GET", "/keys/%", "", "", ErrorCode::InvalidKey),
        ("GET", "/keys/%4", "", "", ErrorCode::InvalidKey),
        ("GET", "/keys/%zz", "", "", ErrorCode::InvalidKey),
        ("GET", "/keys/%ff", "", "", ErrorCode::InvalidKey),
        ("GET", "/keys/%c3%28", "", "", ErrorCode::InvalidKey),
        ("GET", "/keys/a%00b", "", "", ErrorCode::InvalidKey),
        ("PUT", "/keys/a%0d%0aset-cookie:b", "", "v", ErrorCode::InvalidKey),
        ("PUT", &long, "", "v", ErrorCode::InvalidKey),
        ("PUT", "/keys/", "", "v", ErrorCode::InvalidKey),
        ("GET", "/keys/a?bucket=A", "", "", ErrorCode::InvalidBucket),
        ("PUT", "/keys/a?ttl=0", "", "v", ErrorCode::InvalidTtl),
        ("PUT", "/keys/a?ttl=-1", "", "v", ErrorCode::InvalidTtl),
        ("PUT", "/keys/a", "cache-control: max-age=0\r\n", "v", ErrorCode::InvalidTtl),
        ("PUT", "/keys/a?tll=1", "", "v", ErrorCode::InvalidParameter),
        ("PUT", "/keys/a?durability=paper", "", "v", ErrorCode::InvalidParameter),
        ("PUT", "/keys/a?durability=object", "", "v", ErrorCode::InvalidParameter),
        ("PUT", "/keys/a", "if-match: 7\r\n", "v", ErrorCode::InvalidParameter),
        ("PUT", "/keys/a", "if-match: \"7\"\r\n", "v", ErrorCode::PreconditionFailed),
        ("PUT", "/keys/a", "content-encoding: gzip\r\n", "v", ErrorCode::UnsupportedMediaType),
        ("GET", "/keys?limit=0", "", "", ErrorCode::InvalidParameter),
        ("GET", "/keys?limit=1001", "", "", ErrorCode::InvalidParameter),
        ("GET", "/keys?cursor=!", "", "", ErrorCode::InvalidParameter),
        ("POST", "/keys", "", "{}", ErrorCode::UnsupportedMediaType),
        ("POST", "/keys", json, "{", ErrorCode::InvalidBody),
        ("POST", "/keys", json, "{\"key\":\"a\",\"value\":1,\"tll\":1}", ErrorCode::InvalidBody),
        ("GET", "/nowhere", "", "", ErrorCode::RouteNotFound),
        ("PATCH", "/keys/a", "", "", ErrorCode::MethodNotAllowed),
        ("DELETE", "/keys/a", "", "", ErrorCode::KeyNotFound),
        ("GET", "/keys/a", "", "", ErrorCode::KeyNotFound),
    ];
    let mut ids = HashMap::new();
    for server in [cluster.url(), cluster.node_url(0)] {
        for (method, target, headers, body, code) in wrong {
            let reply = send_raw(server, method, target, headers, body.as_bytes(), false).await;
            let problem = sends_problem(&reply, code);
            let seen = ids.insert(problem.trace_id, target);
            assert!(seen.is_none(), "{target} has the trace id of {seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_id_of_a_failure_stands_in_the_log_and_is_the_callers_own_when_it_sent_one() {
    let master = &[("LINK_DEADLINE", "200ms")];
    let mut cluster = Cluster::start(Setup { nodes: 1, master, ..Setup::default() }).await;
    cluster.nodes[0].kill();
    let problem = sends_problem(&cluster.client.get_key(cluster.url(), "key").await, ErrorCode::PartitionOffline);
    let line = cluster.master.log_line(&problem.trace_id).await;
    assert!(line.contains("partition_offline") && line.contains("/keys/key"), "{line}");

    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traceparent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [("traceparent", traceparent.as_str())];
    let url = key_url(cluster.url(), "key");
    let reply = cluster.client.send(Method::GET, &url, &headers, Bytes::new()).await.unwrap();
    assert_eq!(sends_problem(&reply, ErrorCode::PartitionOffline).trace_id, trace);
    cluster.master.log_line(trace).await;
}
