//! The commands, as the real binary.

use serde_json::{Value, json};

use crate::support::{TestCluster, cairn, failure, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_in_and_out_and_exit_codes_say_how_it_was() {
    let test = TestCluster::start().await;
    let run = async |args: &[&str], stdin: &str| test.cairn(args, stdin).await;
    assert_eq!(run(&["put", "a b/..", "value"], "").await.status.code(), Some(0));
    assert_eq!(text(&run(&["get", "a b/.."], "").await.stdout), "value");
    assert_eq!(run(&["put", "stdin", "-"], "from\nstdin").await.status.code(), Some(0));
    assert_eq!(text(&run(&["get", "stdin"], "").await.stdout), "from\nstdin");
    let file = test.directory.path().join("file");
    std::fs::write(&file, [0, 159, 146, 150]).unwrap();
    assert_eq!(run(&["put", "file", "--file", file.to_str().unwrap()], "").await.status.code(), Some(0));
    assert_eq!(run(&["get", "file"], "").await.stdout, [0, 159, 146, 150]);

    let listed = run(&["list"], "").await;
    assert_eq!(text(&listed.stdout), "a b/..\nfile\nstdin\n");
    assert_eq!(text(&run(&["list", "--limit", "1", "--prefix", "f"], "").await.stdout), "file\n");
    assert!(text(&run(&["list", "--long"], "").await.stdout).contains("version"));

    let absent = run(&["get", "absent"], "").await;
    assert_eq!(absent.status.code(), Some(1));
    assert_eq!(text(&absent.stderr), "cairn: key_not_found: no value is stored under this key\n");
    assert_eq!(run(&["delete", "absent"], "").await.status.code(), Some(1));
    let taken = run(&["put", "file", "x", "--if-none-match", "*"], "").await;
    assert_eq!(taken.status.code(), Some(1));
    assert!(text(&taken.stderr).starts_with("cairn: precondition_failed: "), "{}", text(&taken.stderr));
    assert_eq!(run(&["put", "file", "x", "--if-match", "*", "--ttl", "1h"], "").await.status.code(), Some(0));
    assert_eq!(run(&["delete", "file", "--if-match", "1"], "").await.status.code(), Some(1));
    assert_eq!(run(&["delete", "file"], "").await.status.code(), Some(0));
    for wrong in [&["get"] as &[&str], &["put", "k"], &["put", "k", "v", "--ttl", "0"], &["frobnicate"]] {
        assert_eq!(run(wrong, "").await.status.code(), Some(2), "{wrong:?}");
    }
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_is_added_to_and_a_key_explained() {
    let test = TestCluster::start().await;
    let run = async |args: &[&str]| test.cairn(args, "").await;
    for (args, sum) in
        [(&["incr", "n"] as &[&str], "1\n"), (&["incr", "n", "41"], "42\n"), (&["incr", "n", "-2"], "40\n")]
    {
        assert_eq!(text(&run(args).await.stdout), sum, "{args:?}");
    }
    assert_eq!(text(&run(&["incr", "..", "--ttl", "1h"]).await.stdout), "1\n");
    run(&["put", "text", "one"]).await;
    let refused = run(&["incr", "text"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).starts_with("cairn: not_an_integer: "), "{}", text(&refused.stderr));
    assert_eq!(run(&["incr", "n", "x"]).await.status.code(), Some(2));

    for key in ["n", ".."] {
        let explained = run(&["explain", key]).await;
        let told = text(&explained.stdout);
        let field = |name: &str| {
            let line = told.lines().find(|line| line.split_whitespace().next() == Some(name));
            line.unwrap_or_else(|| panic!("no {name} in {told}")).split_whitespace().last().unwrap().to_owned()
        };
        assert_eq!((field("key").as_str(), field("state").as_str(), field("tier").as_str()), (key, "live", "memory"));
        assert!(field("primary").starts_with("node-"), "{told}");
    }
    assert!(text(&run(&["explain", "absent"]).await.stdout).contains("never written"));
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_import_has_every_row_long_values_among_them_and_says_which_lines_failed() {
    let test = TestCluster::start().await;
    let mut input: String = (0..3_000).map(|i| format!("{{\"key\":\"k{i}\",\"value\":\"value {i}\"}}\n")).collect();
    let long = "x".repeat(3 << 19);
    input += &format!("{{\"key\":\"long\",\"value\":\"{long}\"}}\n{{\"key\":\"\",\"value\":\"1\"}}\nno json\n");
    input += "{\"key\":\"last\",\"value_base64\":\"/w==\"}\n";
    let imported = test.cairn(&["import"], &input).await;
    assert_eq!(imported.status.code(), Some(1));
    let told = text(&imported.stderr);
    assert!(told.contains("line 3002: invalid_key") && told.contains("line 3003: "), "{told}");
    assert!(told.contains("imported 3002 keys") && told.contains("2 failed"), "{told}");
    for i in (0..3_000).step_by(97) {
        assert_eq!(test.cache.get(&format!("k{i}")).await.unwrap().unwrap().bytes, format!("value {i}"));
    }
    assert_eq!(test.cache.get("long").await.unwrap().unwrap().bytes.len(), long.len());
    assert_eq!(test.cache.get("last").await.unwrap().unwrap().bytes[..], [255]);
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_lines_with_the_same_key_the_last_one_counts() {
    let test = TestCluster::start().await;
    let long = "x".repeat(3 << 19);
    let line = |key: &str, value: &str| format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}\n");
    let mut input = line("short, then long", "short") + &line("short, then long", &long);
    for round in 0..40 {
        input.extend((0..100).map(|key| line(&format!("k{key}"), &round.to_string())));
    }
    let imported = test.cairn(&["import"], &input).await;
    assert_eq!(imported.status.code(), Some(0), "{}", text(&imported.stderr));
    assert_eq!(test.cache.get("short, then long").await.unwrap().unwrap().bytes.len(), long.len());
    for key in 0..100 {
        assert_eq!(test.cache.get(&format!("k{key}")).await.unwrap().unwrap().bytes, "39", "k{key}");
    }
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_ring_are_shown_as_tables() {
    let test = TestCluster::start().await;
    let nodes = test.cairn(&["nodes"], "").await;
    let ring = test.cairn(&["ring"], "").await;
    for id in ["node-1", "node-2", "node-3"] {
        let line = text(&nodes.stdout).lines().find(|line| line.contains(id)).unwrap();
        assert!(line.contains("active"), "{line}");
        assert!(text(&ring.stdout).contains(id));
    }
    for column in ["session", "primary of", "replica of"] {
        assert!(text(&nodes.stdout).contains(column), "{}", text(&nodes.stdout));
    }
    for part in ["32 partitions by xxh3-64, 0 without a primary", "2 copies by primary_replica", "taking over"] {
        assert!(text(&ring.stdout).contains(part), "{}", text(&ring.stdout));
    }
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_partition_is_shown_with_who_holds_it() {
    let test = TestCluster::start().await;
    let map = test.cache.ring().await.unwrap();
    let shown = test.cairn(&["ring", "--partitions"], "").await;
    let (_, partitions) = text(&shown.stdout).split_once("successor").unwrap();
    for partition in &map.partitions {
        let (id, primary) = (partition.id.to_string(), partition.primary.as_deref().unwrap());
        let row = |line: &&str| line.split_whitespace().next() == Some(&id);
        assert!(partitions.lines().find(row).unwrap().contains(primary), "{partitions}");
    }
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_are_shown_paused_and_limited() {
    let test = TestCluster::start().await;
    let rebalance = async |args: &[&str]| {
        let output = test.cairn(&[&["rebalance"], args].concat(), "").await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).lines().last().unwrap().to_owned()
    };
    let summary = rebalance(&[]).await;
    assert!(summary.starts_with("running: ") && summary.contains("(no limit)"), "{summary}");
    let summary = rebalance(&["--pause", "--max-moves", "5", "--bytes-per-second", "3MiB"]).await;
    assert!(summary.starts_with("paused: ") && summary.contains("of at most 5 moving"), "{summary}");
    assert!(summary.contains("(at most 3.00 MiB/s for each node)"), "{summary}");
    assert!(rebalance(&["--resume"]).await.starts_with("running: "));
    let kept = test.cache.rebalance().await.unwrap();
    assert_eq!((kept.paused, kept.max_moves, kept.bytes_per_second), (false, 5, 3 << 20));

    let refused = test.cairn(&["rebalance", "--max-moves", "0"], "").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).starts_with("cairn: invalid_parameter: "), "{}", text(&refused.stderr));
    for wrong in [&["--pause", "--resume"][..], &["--bytes-per-second", "fast"], &["--max-moves", "-1"]] {
        let output = test.cairn(&[&["rebalance"], wrong].concat(), "").await;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_can_be_imported_again() {
    let test = TestCluster::start().await;
    let rows = [
        json!({"key": "text", "value": "two\nlines, \"quoted\""}),
        json!({"key": "empty", "value": ""}),
        json!({"key": "binary", "value_base64": "AJ+Slg==", "content_type": "image/png"}),
        json!({"key": "short-lived", "value": "x", "ttl": "1h"}),
        json!({"key": "🗝 a/../b", "value": "x", "ttl": 3600}),
        json!({"key": "json", "value": {"a": [1, 2]}}),
    ];
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    for format in [&["--csv"] as &[&str], &[]] {
        let imported = test.cairn(&["--bucket", "from", "import"], &lines).await;
        assert_eq!(imported.status.code(), Some(0), "{}", text(&imported.stderr));
        assert!(text(&imported.stderr).starts_with("imported 6 keys"), "{}", text(&imported.stderr));

        let exported = test.cairn(&[&["--bucket", "from", "export"], format].concat(), "").await;
        assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
        let again = test.cairn(&[&["--bucket", "to", "import"], format].concat(), text(&exported.stdout)).await;
        assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
        let (from, to) = (test.cache.bucket("from").unwrap(), test.cache.bucket("to").unwrap());
        for row in &rows {
            let key = row["key"].as_str().unwrap();
            let (from, to) = (from.get(key).await.unwrap().unwrap(), to.get(key).await.unwrap().unwrap());
            assert_eq!((from.bytes, from.content_type), (to.bytes, to.content_type), "{key}");
            assert_eq!(from.expires.is_some(), to.expires.is_some(), "{key}");
            to_be_removed(&test, key).await;
        }
    }
    test.stop().await;
}

async fn to_be_removed(test: &TestCluster, key: &str) {
    for bucket in ["from", "to"] {
        assert!(test.cache.bucket(bucket).unwrap().delete(key).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn export_says_what_import_reads() {
    let test = TestCluster::start().await;
    test.cache.put("a", "1").content_type("text/plain").await.unwrap();
    test.cache.put("b", vec![255_u8]).await.unwrap();
    let exported = test.cairn(&["export"], "").await;
    let rows: Vec<Value> = text(&exported.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows[0], json!({"key": "a", "value": "1", "content_type": "text/plain"}));
    assert_eq!(rows[1], json!({"key": "b", "value_base64": "/w=="}));
    let exported = test.cairn(&["export", "--csv", "--prefix", "b"], "").await;
    assert_eq!(text(&exported.stdout), "key,value,value_base64,ttl,content_type\nb,,/w==,,\n");
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_fail_are_reported_by_number_and_the_others_go_on() {
    let test = TestCluster::start().await;
    let lines = [
        r#"{"key":"good","value":"1"}"#,
        r#"{"key":"","value":"1"}"#,
        "",
        "no json",
        r#"{"key":"k"}"#,
        r#"{"key":"k","value":"1","ttl":"never"}"#,
        r#"{"key":"k","value_base64":"?"}"#,
        r#"{"key":"last","value":"1"}"#,
    ];
    let output = test.cairn(&["import"], &lines.join("\n")).await;
    let report = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{report}");
    for (line, what) in [(2, "invalid_key"), (4, "expected"), (5, "value"), (6, "invalid_ttl"), (7, "value_base64")] {
        let told = report
            .lines()
            .find(|told| told.starts_with(&format!("line {line}: ")))
            .unwrap_or_else(|| panic!("{report}"));
        assert!(told.contains(what), "{told}");
    }
    assert!(report.contains("imported 2 keys") && report.contains("5 failed"), "{report}");
    assert!(test.cache.get("good").await.unwrap().is_some() && test.cache.get("last").await.unwrap().is_some());

    let csv = "id;x,name\n1,one\n2\n\"3\",\"th\nree\"\n,none\n";
    let output = test.cairn(&["import", "--csv", "--key-column", "id;x", "--value-column", "name"], csv).await;
    let report = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains("line 3: ") && report.contains("line 6: invalid_key"), "{report}");
    assert_eq!(test.cache.get("3").await.unwrap().unwrap().bytes, "th\nree");

    let output = test.cairn(&["import", "--csv"], "a,b\n1,2\n").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no column \"key\""), "{}", text(&output.stderr));
    test.stop().await;
}

#[test]
fn a_cluster_that_is_not_there_is_one_line_and_exit_code_1() {
    let mut command = cairn();
    command.args(["get", "k", "--url", "http://127.0.0.1:9"]);
    let (code, message) = failure(command);
    assert_eq!(code, Some(1));
    assert!(message.starts_with("cairn: unreachable: ") && message.lines().count() == 1, "{message}");
}
