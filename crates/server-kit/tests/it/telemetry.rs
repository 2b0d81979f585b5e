use std::collections::HashSet;

use cairn_server_kit::{
    config::LogFormat,
    telemetry::{init, random_trace_id},
};

#[test]
fn logging_may_be_set_up_twice_but_not_wrongly() {
    init("debug", LogFormat::Json).unwrap();
    init("info,a::b=trace", LogFormat::Text).unwrap();
    assert!(init("a=b=c", LogFormat::Text).unwrap_err().to_string().starts_with("log_level: "));
}

#[test]
fn random_trace_ids_differ_and_are_32_hex_digits() {
    let ids: HashSet<String> = (0..100).map(|_| random_trace_id().to_string()).collect();
    assert_eq!(ids.len(), 100);
    assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
}
