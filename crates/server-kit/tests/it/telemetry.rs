use std::collections::HashSet;

use cairn_server_kit::{
    config::LogFormat,
    telemetry::{TraceId, init},
};

#[test]
fn logging_may_be_set_up_twice_but_not_wrongly() {
    init("debug", LogFormat::Json).unwrap();
    init("info,a::b=trace", LogFormat::Text).unwrap();
    assert!(init("a=b=c", LogFormat::Text).unwrap_err().to_string().starts_with("log_level: "));
}

#[test]
fn a_trace_id_is_read_from_a_valid_traceparent_only() {
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let read = |header: &str| TraceId::from_traceparent(header).map(|id| id.to_string());
    assert_eq!(read(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(), Some(id));
    assert_eq!(read(&format!("01-{id}-00f067aa0ba902b7-01-later")).as_deref(), Some(id));
    for wrong in [
        "".to_owned(),
        format!("00-{id}"),
        format!("ff-{id}-00f067aa0ba902b7-01"),
        format!("00-{id}-00f067aa0ba902b7-01-extra"),
        format!("00-{id}-0000000000000000-01"),
        format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
        format!("00-{}-00f067aa0ba902b7-01", id.to_uppercase()),
        format!("00-+{}-00f067aa0ba902b7-01", &id[1..]),
    ] {
        assert_eq!(read(&wrong), None, "{wrong}");
    }
}

#[test]
fn random_trace_ids_differ_and_are_32_hex_digits() {
    let ids: HashSet<String> = (0..100).map(|_| TraceId::random().to_string()).collect();
    assert_eq!(ids.len(), 100);
    assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
}
