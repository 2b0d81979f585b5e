use actix_web::App;
use cairn_data_api::configure;
use serde_json::Value;
use utoipa_actix_web::AppExt;

use crate::server::start;

fn document() -> Value {
    let (_, document) = App::new().into_utoipa_app().configure(configure).split_for_parts();
    serde_json::to_value(document).unwrap()
}

/// Path, method and operation.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let path = path.clone();
        let methods = item.as_object().unwrap().clone();
        methods.into_iter().map(move |(method, operation)| (path.clone(), method, operation))
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn every_operation_is_named_and_explained() {
    let mut ids = Vec::new();
    for (path, method, operation) in operations(&document()) {
        let paths = ["/keys", "/keys/{key}", "/batch", "/counters/{key}", "/explain/{key}", "/events"];
        assert!(paths.contains(&&*path), "{path}");
        ids.push(operation["operationId"].as_str().unwrap().to_owned());
        assert_eq!(operation["tags"], serde_json::json!(["keys"]), "{method} {path}");
        for field in ["summary", "description"] {
            assert!(!operation[field].as_str().unwrap().is_empty(), "{method} {path}: {field}");
        }
        for parameter in operation["parameters"].as_array().unwrap() {
            assert!(!parameter["description"].as_str().unwrap().is_empty(), "{parameter}");
            assert_eq!(parameter["required"], parameter["in"] == "path", "{parameter}");
        }
    }
    ids.sort_unstable();
    let expected = [
        "delete_key",
        "execute_batch",
        "explain_key",
        "follow_events",
        "get_key",
        "head_key",
        "increment_counter",
        "list_keys",
        "post_key",
        "put_key",
    ];
    assert_eq!(ids, expected);
}

#[test]
fn every_error_has_the_one_schema_and_every_response_a_description() {
    for (path, method, operation) in operations(&document()) {
        let responses = operation["responses"].as_object().unwrap();
        for status in ["400", "408", "421", "429", "500", "503"] {
            assert!(responses.contains_key(status), "{method} {path}: {status}");
        }
        for (status, response) in responses {
            assert!(!response["description"].as_str().unwrap().is_empty(), "{method} {path}: {status}");
            if status.starts_with(['4', '5']) {
                let content = response["content"].as_object().unwrap();
                assert_eq!(content.keys().collect::<Vec<_>>(), ["application/problem+json"]);
                let schema = &content["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{method} {path}: {status}");
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
}

#[test]
fn values_are_plain_bytes_and_each_operation_has_one_success_type() {
    let document = document();
    let of = |path: &str, method: &str| document["paths"][path][method].clone();
    let binary = |content: &Value| {
        assert_eq!(content.as_object().unwrap().keys().collect::<Vec<_>>(), ["application/octet-stream"]);
        let schema = &content["application/octet-stream"]["schema"];
        assert_eq!((schema["type"].as_str(), schema["format"].as_str()), (Some("string"), Some("binary")), "{schema}");
    };
    let (get, put, post) = (of("/keys/{key}", "get"), of("/keys/{key}", "put"), of("/keys", "post"));
    binary(&get["responses"]["200"]["content"]);
    binary(&put["requestBody"]["content"]);
    for (operation, status) in [(&get, "304"), (&put, "201"), (&put, "204")] {
        assert!(operation["responses"][status].get("content").is_none(), "{status}");
    }
    let metadata = |status: &str| &post["responses"][status]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(metadata("200"), "#/components/schemas/EntryMetadata");
    assert_eq!(metadata("200"), metadata("201"));
}

#[test]
fn every_write_takes_an_idempotency_key_and_no_optional_parameter_is_prefilled() {
    for (path, method, operation) in operations(&document()) {
        let parameters = operation["parameters"].as_array().unwrap();
        let takes_key = parameters.iter().any(|p| p["name"] == "Idempotency-Key");
        assert_eq!(takes_key, ["put", "post", "delete"].contains(&&*method), "{method} {path}");
        for parameter in parameters.iter().filter(|p| p["required"] == false) {
            assert!(parameter.get("example").is_none(), "{method} {path}: {parameter}");
        }
    }
}

#[tokio::test]
async fn the_documented_query_parameters_are_the_ones_that_are_taken() {
    let server = start().await;
    for (path, method, operation) in operations(&document()) {
        if method == "head" {
            continue;
        }
        let parameters = operation["parameters"].as_array().unwrap().iter();
        let mut documented: Vec<_> =
            parameters.filter(|p| p["in"] == "query").map(|p| p["name"].as_str().unwrap().to_owned()).collect();
        let target = format!("{}?unknown", path.replace("{key}", "a"));
        let detail = server.send(&method.to_uppercase(), &target, &[], b"").await.error(400, "invalid_parameter");
        let listed = detail.split_once(": ").map(|(_, names)| names.split(", ").map(str::to_owned));
        let mut taken: Vec<_> = listed.into_iter().flatten().collect();
        documented.sort_unstable();
        taken.sort_unstable();
        assert_eq!(documented, taken, "{method} {path}");
    }
}
