//! The checked-in documents are the ones that are served. `EXPECTORATE=overwrite` (`make openapi`) writes them anew.

use serde_json::Value;
use utoipa::openapi::OpenApi;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi");

fn documents() -> [(&'static str, OpenApi); 2] {
    [("master", cairn_master::openapi()), ("node", cairn_node::openapi())]
}

#[test]
fn the_checked_in_openapi_documents_are_the_served_ones() {
    for (server, document) in documents() {
        let text = document.to_pretty_json().unwrap() + "\n";
        expectorate::assert_contents(format!("{DIRECTORY}/{server}.json"), &text);
    }
}

#[test]
fn the_openapi_copies_for_the_client_generator_say_the_same() {
    for (server, document) in documents() {
        expectorate::assert_contents(format!("{DIRECTORY}/{server}-3.0.json"), &lower(&document.to_json().unwrap()));
    }
}

#[test]
fn every_operation_says_what_it_is_and_every_answer_what_it_means() {
    for (_, document) in documents() {
        let document = serde_json::to_value(document).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                check_operation(&format!("{method} {path}"), operation);
            }
        }
    }
}

fn check_operation(name: &str, operation: &Value) {
    assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name} has no summary");
    assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{name} needs one tag");
    assert!(operation["operationId"].as_str().is_some_and(|id| id.contains('_')), "{name} has no verb_noun");
    for (status, response) in operation["responses"].as_object().unwrap() {
        assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {status}");
        let is_problem = response["content"]["application/problem+json"].is_object();
        assert_eq!(is_problem, status.starts_with(['4', '5']), "{name} {status}");
    }
}

/// OpenAPI 3.0.3, which is what the generator reads; it takes errors for JSON only by the plain media type.
fn lower(document: &str) -> String {
    let yaml = openapi31to30::convert(document).unwrap();
    let lowered: Value = serde_yaml::from_str(&yaml).unwrap();
    let lowered = serde_json::to_string_pretty(&lowered).unwrap() + "\n";
    lowered.replace("\"application/problem+json\"", "\"application/json\"")
}
