use crate::server::{head, start};

#[tokio::test]
async fn keys_arrive_as_they_were_sent_and_never_collide() {
    let server = start().await;
    let pairs = [
        ("a/b/c", "a/b/c"),
        ("a//b", "a//b"),
        ("/", "/"),
        ("//", "//"),
        (".", "."),
        ("..", ".."),
        ("./a", "./a"),
        ("../a", "../a"),
        ("%2e%2e%2fx", "../x"),
        ("a%252Fb", "a%2Fb"),
        ("a%25b", "a%b"),
        ("a+b", "a+b"),
        ("a%20b", "a b"),
        ("a%2Bc", "a+c"),
        ("a%3Fb", "a?b"),
        ("a%23b", "a#b"),
        ("a;b=c", "a;b=c"),
        ("%E2%82%AC", "€"),
        ("%EF%BF%BD", "\u{fffd}"),
        ("%7E", "~"),
        ("{key}", "{key}"),
    ];
    for (raw, key) in pairs {
        assert_eq!(server.put(&format!("/keys/{raw}"), key).await.status, 201, "{raw}");
    }
    for (raw, key) in pairs {
        assert_eq!(server.get(&format!("/keys/{raw}")).await.text(), key, "{raw}");
    }
    let mut keys: Vec<_> = pairs.iter().map(|(_, key)| *key).collect();
    keys.sort_unstable();
    let listed = server.get("/keys").await.json();
    let listed: Vec<_> =
        listed["keys"].as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap()).collect();
    assert_eq!(listed, keys);
    assert_eq!(server.get("/keys/a%2Fb/c").await.text(), "a/b/c", "a slash may be written either way");
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let server = start().await;
    let long = "a".repeat(1_025);
    for raw in ["", "%", "%4", "a%zzb", "%ff", "%c3%28", "%00", "a%0d%0ab", "%0a", "%7f", &long] {
        server.get(&format!("/keys/{raw}")).await.error(400, "invalid_key");
        server.put(&format!("/keys/{raw}"), "1").await.error(400, "invalid_key");
    }
    assert_eq!(server.put(&format!("/keys/{}", &long[1..]), "1").await.status, 201);
    server.get("/%6beys/a").await.error(404, "route_not_found");
}

#[tokio::test]
async fn buckets_keep_equal_keys_apart() {
    let server = start().await;
    server.put("/keys/a", "1").await;
    server.put("/keys/a?bucket=sessions", "2").await;
    assert_eq!(server.get("/keys/a?bucket=default").await.text(), "1");
    assert_eq!(server.get("/keys/a?bucket=%73essions").await.text(), "2");
    server.get("/keys/a?bucket=Upper").await.error(400, "invalid_bucket");
    server.get("/keys/a?bucket=").await.error(400, "invalid_bucket");
}

#[tokio::test]
async fn parameters_that_do_not_belong_to_the_operation_are_named_with_those_that_do() {
    let server = start().await;
    for (method, target, named, allowed) in [
        ("GET", "/keys/a?ttl=1", "ttl", "bucket, consistency"),
        ("HEAD", "/keys/a?x", "x", "bucket, consistency"),
        ("PUT", "/keys/a?tttl=1", "tttl", "bucket, ttl, durability"),
        ("PUT", "/keys/a?ttl=1&ttl=1", "ttl", "bucket, ttl, durability"),
        ("PUT", "/keys/a?consistency=eventual", "consistency", "bucket, ttl, durability"),
        ("DELETE", "/keys/a?ttl=1", "ttl", "bucket, durability"),
        ("POST", "/keys?ttl=1", "ttl", "bucket, durability"),
        ("GET", "/keys?durability=disk", "durability", "bucket, prefix, limit, cursor"),
    ] {
        let reply = server.send(method, target, &[], b"").await;
        assert_eq!(reply.status, 400, "{method} {target}");
        if method != "HEAD" {
            let detail = reply.error(400, "invalid_parameter");
            assert!(detail.contains(named) && detail.contains(allowed), "{detail}");
        }
    }
}

#[tokio::test]
async fn queries_are_decoded_strictly() {
    let server = start().await;
    for query in ["bucket=%", "bucket=%4", "bucket=%zz", "prefix=%ff", "%zz=1"] {
        server.get(&format!("/keys?{query}")).await.error(400, "invalid_parameter");
    }
    let nothing = head("GET", "/keys?", &[]);
    assert_eq!(server.raw(format!("{nothing}\r\n").as_bytes()).await.status, 200);
}
