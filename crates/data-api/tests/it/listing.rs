use serde_json::json;

use crate::server::{Server, start};

async fn pages(server: &Server, query: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.get(&format!("/keys?{query}{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        let keys = page["keys"].as_array().unwrap().iter();
        pages.push(keys.map(|entry| entry["key"].as_str().unwrap().to_owned()).collect());
        let Some(next) = page["next_cursor"].as_str() else { return pages };
        cursor = format!("&cursor={next}");
    }
}

#[tokio::test]
async fn pages_follow_one_another_and_are_complete() {
    let server = start().await;
    let mut keys: Vec<_> = (0..25).map(|i| format!("user:{i}")).collect();
    keys.extend(["user".into(), "user:".into(), "user:1/a".into(), "user;".into(), "ключ".into(), "z".into()]);
    for key in &keys {
        server.post("/keys", &json!({"key": key, "value": 1})).await;
    }
    server.put("/keys/user:elsewhere?bucket=default0", "1").await;
    server.put("/keys/user:elsewhere?bucket=defaul", "1").await;
    keys.sort_unstable();
    for limit in [1, 2, 5, 7, 31, 1_000] {
        let pages = pages(&server, &format!("limit={limit}")).await;
        assert!(pages.iter().all(|page| page.len() <= limit));
        assert_eq!(pages.len(), keys.len().div_ceil(limit), "no empty page at the end");
        assert_eq!(pages.concat(), keys, "limit {limit}");
    }
    keys.retain(|key| key.starts_with("user:"));
    assert_eq!(pages(&server, "limit=4&prefix=user%3A").await.concat(), keys);
    assert_eq!(pages(&server, "bucket=default0").await.concat(), ["user:elsewhere"]);
    assert_eq!(pages(&server, "prefix=nothing").await, [[""; 0]]);
}

#[tokio::test]
async fn a_key_that_comes_or_goes_between_pages_disturbs_no_other() {
    let server = start().await;
    for key in ["a", "b", "c", "d"] {
        server.put(&format!("/keys/{key}"), "1").await;
    }
    let first = server.get("/keys?limit=2").await.json();
    server.send("DELETE", "/keys/b", &[], b"").await;
    server.put("/keys/aa", "1").await;
    let rest = server.get(&format!("/keys?cursor={}", first["next_cursor"].as_str().unwrap())).await.json();
    let rest: Vec<_> = rest["keys"].as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap()).collect();
    assert_eq!(rest, ["c", "d"]);
}

#[tokio::test]
async fn an_entry_says_its_size_version_and_expiry() {
    let server = start().await;
    let version = server.put("/keys/a", "12345").await.version();
    server.put("/keys/b?ttl=1h", "1").await;
    let page = server.get("/keys").await.json();
    assert_eq!(page["keys"][0], json!({"key": "a", "size": 5, "version": version.to_string()}));
    assert!(page["keys"][1]["expires_at"].as_str().unwrap().ends_with('Z'));
    assert!(page.get("next_cursor").is_none());
}

#[tokio::test]
async fn limits_cursors_and_prefixes_are_checked() {
    let server = start().await;
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "limit=",
        "cursor=",
        "cursor=!",
        "cursor=_w",
        "cursor=AA",
        "prefix=%00",
        "prefix=b&cursor=YQ",
    ] {
        server.get(&format!("/keys?{query}")).await.error(400, "invalid_parameter");
    }
    assert_eq!(server.get("/keys?prefix=a&cursor=YQ").await.status, 200);
    assert_eq!(server.get("/keys?prefix=a+b").await.json(), json!({"keys": []}));
}
