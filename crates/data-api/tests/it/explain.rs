use serde_json::json;

use crate::server::start;

#[tokio::test]
async fn a_key_that_is_there_and_one_that_is_not_are_explained_without_reading_them() {
    let server = start().await;
    server.put("/keys/a%2Fb?bucket=b", "value").await;
    let there = server.get("/explain/a/b?bucket=b").await;
    assert_eq!(there.status, 200);
    let body = there.json();
    assert_eq!((&body["key"], &body["bucket"], &body["state"]), (&json!("a/b"), &json!("b"), &json!("live")));
    assert_eq!((&body["size"], &body["tier"]), (&json!(5), &json!("memory")));
    let absent = server.get("/explain/a/b").await.json();
    assert_eq!((&absent["state"], absent.get("size")), (&json!("never_written"), None));
    assert_eq!(server.metric("cairn_operations_total{operation=\"explain_key\",result=\"hit\"}"), 2.0);
    assert_eq!(server.metric("cairn_operations_total{operation=\"get_key\",result=\"hit\"}"), 0.0);
}

#[tokio::test]
async fn only_a_name_is_explained() {
    let server = start().await;
    server.get("/explain/").await.error(400, "invalid_key");
    server.get("/explain/%zz").await.error(400, "invalid_key");
    server.get("/explain/k?bucket=B").await.error(400, "invalid_bucket");
    server.get("/explain/k?consistency=eventual").await.error(400, "invalid_parameter");
}
