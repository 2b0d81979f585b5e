//! `cairn dev` as a process: how it starts, stops, and comes back.

use std::{net::TcpListener, time::Duration};

use cairn_client::Cache;
use tempfile::TempDir;

use crate::support::{PATIENCE, Process, TestCluster, cairn, failure};

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stops_it_in_time_and_the_data_are_there_again() {
    let directory = TempDir::new().unwrap();
    for (round, signal) in ["TERM", "INT"].into_iter().enumerate() {
        let process = Process::start(directory.path());
        // Its connections stay open while the process ends.
        let cache = Cache::connect(&process.master).await.unwrap();
        if round > 0 {
            assert_eq!(cache.get("kept").await.unwrap().unwrap().bytes, "0");
        }
        cache.put("kept", round.to_string()).await.unwrap();
        let (code, took) = process.end(signal);
        assert_eq!(code, Some(0));
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

#[test]
fn it_says_what_to_open_and_lines_that_work_when_pasted() {
    let directory = TempDir::new().unwrap();
    let process = Process::start(directory.path());
    let lines: Vec<&str> =
        process.greeting.lines().filter_map(|line| line.find("curl").map(|at| &line[at..])).collect();
    let statuses: Vec<String> = lines
        .iter()
        .map(|line| {
            let output = std::process::Command::new("sh").args(["-c", &format!("{line} -s")]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned()
        })
        .collect();
    assert_eq!(statuses, ["HTTP/1.1 201 Created", "HTTP/1.1 200 OK", "HTTP/1.1 204 No Content"]);
    assert!(process.greeting.contains(&format!("{}/swagger-ui/", process.master)));
    assert_eq!(process.greeting.matches("node-").count(), 3);
    let log = directory.path().join("cairn.log");
    assert!(process.greeting.contains(&log.display().to_string()), "{}", process.greeting);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("the master listens"), "{log}");
    assert!(log.lines().count() < 100, "no line for each partition:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_survive_a_restart_in_the_same_process() {
    let test = TestCluster::start().await;
    for i in 0..50 {
        test.cache.put(&format!("key {i}"), i.to_string()).await.unwrap();
    }
    let test = TestCluster::start_in(test.stop().await).await;
    for i in 0..50 {
        assert_eq!(test.cache.get(&format!("key {i}")).await.unwrap().unwrap().bytes, i.to_string());
    }
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_object_store_has_is_there_again_when_all_else_is_gone() {
    let test = TestCluster::start().await;
    test.cache.put("k", "x").durability(cairn_client::Durability::Object).await.unwrap();
    let directory = test.stop().await;
    for entry in std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
        if entry.file_name() != "s3" {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let test = TestCluster::start_in(directory).await;
    assert_eq!(test.cache.get("k").await.unwrap().unwrap().bytes, "x");
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_reach_the_object_store_of_this_process() {
    let test = TestCluster::start().await;
    test.cache.put("k", "x").durability(cairn_client::Durability::Object).await.unwrap();
    let stats = tokio::time::timeout(PATIENCE, async {
        loop {
            let stats = test.cache.stats().await.unwrap();
            if stats.total.uploads_pending == 0 && stats.total.entries == 1 {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    stats.await.unwrap();
    assert!(std::fs::read_dir(test.directory.path().join("s3/cairn/cairn")).unwrap().count() > 0);
    test.stop().await;
}

#[test]
fn a_port_in_use_is_told_by_its_address() {
    let directory = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut command = cairn();
    command.args(["dev", "--listen", &address.to_string(), "--data-dir"]).arg(directory.path());
    let (code, message) = failure(command);
    assert_eq!(code, Some(1));
    assert!(message.contains(&format!("cannot listen on {address}")), "{message}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was begun");
}

#[test]
fn a_setting_that_is_wrong_is_told_by_its_name() {
    let directory = TempDir::new().unwrap();
    let mut command = cairn();
    command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path()).env("LRU_SIZE", "none");
    let (code, message) = failure(command);
    assert_eq!(code, Some(1));
    assert!(message.contains("LRU_SIZE"), "{message}");
    let mut command = cairn();
    command.args(["dev", "--nodes", "33"]);
    assert_eq!(failure(command).0, Some(2));
}

#[test]
fn one_file_may_have_the_settings_of_master_and_nodes() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("settings.toml");
    std::fs::write(&file, "lru_size = 10\nvnodes = 8\nzzz = 1\n").unwrap();
    let mut command = cairn();
    command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path()).env("CONFIG", &file);
    let (code, message) = failure(command);
    assert_eq!(code, Some(1));
    assert!(message.contains("unknown setting `zzz`"), "{message}");
}
