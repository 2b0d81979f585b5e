//! `cairn-master healthcheck`, as an orchestrator runs it.

use std::process::{Command, Output};

use crate::support::spawn_master;

async fn healthcheck(address: String) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn-master"));
    command.arg("healthcheck").env("LISTEN_ADDR", address);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_health_check_exits_with_0_while_the_master_serves_and_with_1_and_a_reason_afterwards() {
    let master = spawn_master(&[]).await;
    let address = master.url.trim_start_matches("http://").to_owned();
    assert!(healthcheck(address.clone()).await.status.success());

    master.stop().await;
    let checked = healthcheck(address.clone()).await;
    let reason = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(1), "{reason}");
    assert!(reason.contains(&format!("http://{address}/health/live")), "{reason}");
}
