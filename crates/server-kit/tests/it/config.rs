use std::{ffi::OsString, fs, time::Duration};

use cairn_server_kit::config::{
    Common, ConfigError, LogFormat, Task, load, load_shared, parse_bytes, parse_duration_setting, settings_table,
};
use clap::{CommandFactory, Parser};
use tempfile::TempDir;

/// A test server.
#[derive(Parser, Debug)]
#[command(name = "test", version)]
struct Settings {
    /// Entries in memory | at most
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1000))]
    lru_size: u32,
    /// Where the masters are
    #[arg(long, alias = "router_addr", value_delimiter = ',')]
    master_urls: Vec<String>,
    /// Sync every write
    #[arg(long)]
    fsync: bool,
    #[command(flatten)]
    common: Common,
}

struct Layers {
    dir: TempDir,
    env: Vec<(&'static str, String)>,
}

impl Layers {
    fn new(file: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("cairn.toml");
        fs::write(&path, file).unwrap();
        Self { env: vec![("CONFIG", path.to_str().unwrap().to_owned())], dir }
    }

    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    fn load(&self, flags: &[&str]) -> Result<Settings, ConfigError> {
        let env = |name: &str| self.env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        load(["test"].iter().chain(flags).map(OsString::from).collect(), &env)
    }

    fn refused(&self, flags: &[&str]) -> String {
        self.load(flags).unwrap_err().to_string()
    }
}

/// Another server in the same process.
#[derive(Parser, Debug)]
struct OtherSettings {
    #[arg(long, default_value_t = 8)]
    vnodes: u32,
}

#[test]
fn servers_of_one_process_share_a_file_and_have_defaults_of_their_own() {
    let layers = Layers::new("lru_size = 1\nvnodes = 2");
    assert!(layers.refused(&[]).contains("unknown setting `vnodes`"));
    let env = |name: &str| layers.env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    let load = |flags: &[&str]| {
        let args = ["test"].iter().chain(flags).map(OsString::from).collect();
        load_shared::<Settings>(args, &env, &[OtherSettings::command()], &[("lru_size", "9"), ("log_level", "warn")])
    };
    let settings = load(&[]).unwrap();
    assert_eq!((settings.lru_size, settings.common.log_level.as_str()), (1, "warn"));
    assert_eq!(load(&["--log-level=debug"]).unwrap().common.log_level, "debug");
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    assert_eq!(Layers::new("").load(&[]).unwrap().lru_size, 500);
    let layers = Layers::new("lru_size = 1");
    assert_eq!(layers.load(&[]).unwrap().lru_size, 1);
    let layers = layers.env("LRU_SIZE", "2");
    assert_eq!(layers.load(&[]).unwrap().lru_size, 2);
    assert_eq!(layers.load(&["--lru-size", "3"]).unwrap().lru_size, 3);
    assert_eq!(layers.load(&["--lru-size=3", "--lru-size=4"]).unwrap().lru_size, 4, "the last flag wins");
    assert_eq!(Layers::new("lru_size = 1").env("LRU_SIZE", "").load(&[]).unwrap().lru_size, 1, "empty is absent");
}

#[test]
fn a_higher_layer_replaces_a_list_and_does_not_extend_it() {
    let layers = Layers::new(r#"master_urls = ["a", "b"]"#);
    assert_eq!(layers.load(&[]).unwrap().master_urls, ["a", "b"]);
    assert_eq!(layers.load(&["--master-urls", "c,d"]).unwrap().master_urls, ["c", "d"]);
}

#[test]
fn an_alias_names_the_flag_the_variable_and_the_key() {
    assert_eq!(Layers::new("router_addr = 'a'").load(&[]).unwrap().master_urls, ["a"]);
    assert_eq!(Layers::new("").env("ROUTER_ADDR", "a").load(&[]).unwrap().master_urls, ["a"]);
    let both = Layers::new("").env("ROUTER_ADDR", "a").env("MASTER_URLS", "b");
    assert_eq!(both.load(&[]).unwrap().master_urls, ["b"], "the proper name wins");
    assert_eq!(both.load(&["--router_addr=c"]).unwrap().master_urls, ["c"]);
}

#[test]
fn booleans_take_a_value_in_every_layer() {
    assert!(!Layers::new("").load(&[]).unwrap().fsync);
    let layers = Layers::new("fsync = true");
    assert!(layers.load(&[]).unwrap().fsync);
    assert!(!layers.load(&["--fsync", "false"]).unwrap().fsync);
    assert!(Layers::new("").env("FSYNC", "true").load(&[]).unwrap().fsync);
    assert!(layers.refused(&["--fsync"]).contains("value is required"));
}

#[test]
fn a_value_out_of_bounds_is_refused_with_its_origin_and_with_what_is_right() {
    let flag = Layers::new("").refused(&["--lru-size", "0"]);
    let env = Layers::new("").env("LRU_SIZE", "0").refused(&[]);
    let file = Layers::new("lru_size = 0").refused(&[]);
    for message in [&flag, &env, &file] {
        assert!(message.contains("--lru-size") && message.contains("1..=1000"), "{message}");
    }
    assert!(flag.starts_with("error"), "{flag}");
    assert!(env.starts_with("LRU_SIZE: "), "{env}");
    assert!(file.starts_with("`lru_size` in ") && file.contains("cairn.toml"), "{file}");
    let fixed = Layers::new("lru_size = 0").load(&["--lru-size", "5"]);
    assert_eq!(fixed.unwrap().lru_size, 5, "what a higher layer replaces is not looked at");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    let near = Layers::new("lru_sise = 1").refused(&[]);
    assert!(near.contains("unknown setting `lru_sise`; did you mean `lru_size`?"), "{near}");
    let far = Layers::new("zzz = 1").refused(&[]);
    assert!(far.contains("unknown setting `zzz`; the settings are lru_size, master_urls"), "{far}");
    assert!(Layers::new("config = 'x'").refused(&[]).contains("unknown setting `config`"));
}

#[test]
fn a_file_that_cannot_be_understood_is_refused_by_name() {
    assert!(Layers::new("lru_size = ").refused(&[]).contains("cairn.toml: "));
    assert!(Layers::new("[lru_size]").refused(&[]).contains("`lru_size` is a table"));
    let layers = Layers::new("");
    let missing = layers.dir.path().join("missing.toml");
    let refused = layers.refused(&["--config", missing.to_str().unwrap()]);
    assert!(refused.contains("missing.toml: "), "{refused}");
}

#[test]
fn help_names_the_variables_even_when_the_file_is_broken() {
    let help = Layers::new("lru_size = ").refused(&["--help"]);
    assert!(help.contains("[env: LRU_SIZE]") && help.contains("[env: CONFIG]"), "{help}");
    assert!(Layers::new("").refused(&["--version"]).contains("test "));
}

#[test]
fn the_common_settings_have_defaults_and_bounds() {
    let Common {
        task,
        metrics_port,
        log_level,
        log_format,
        otel_endpoint,
        otel_sample_ratio,
        slow_operation,
        rate_limit,
        body_memory,
        workers,
        shutdown_timeout,
    } = Layers::new("").load(&[]).unwrap().common;
    assert_eq!((task, metrics_port), (Task::Serve, None));
    assert_eq!((otel_endpoint, otel_sample_ratio, slow_operation), (None, 1.0, Duration::from_secs(1)));
    assert_eq!((log_level.as_str(), log_format), ("info", LogFormat::Text));
    assert_eq!((rate_limit, workers, shutdown_timeout), (0, 0, Duration::from_secs(8)));
    assert_eq!(body_memory, 128 << 20);
    for (flag, right) in [
        ("--shutdown-timeout=0", "1 to 60 seconds"),
        ("--shutdown-timeout=61s", "1 to 60 seconds"),
        ("--workers=257", "0..=256"),
        ("--body-memory=1MiB", "16777216"),
        ("--log-format=xml", "text, json"),
        ("--log-level=a=b=c", "invalid"),
        ("--metrics-port=70000", "65535"),
        ("--otel-endpoint=127.0.0.1:4318", "http URL"),
        ("--otel-endpoint=https://collector", "http URL"),
        ("--otel-sample-ratio=1.1", "0 to 1"),
        ("--otel-sample-ratio=NaN", "0 to 1"),
        ("--slow-operation=2h", "3600s"),
    ] {
        let refused = Layers::new("").refused(&[flag]);
        assert!(refused.contains(right), "{refused}");
    }
}

#[test]
fn a_health_check_has_the_settings_of_the_server_that_it_asks() {
    let layers = Layers::new("lru_size = 1").env("WORKERS", "2");
    for flags in [["healthcheck", "--rate-limit=3"], ["--rate-limit=3", "healthcheck"]] {
        let settings = layers.load(&flags).unwrap();
        assert_eq!((settings.lru_size, settings.common.task), (1, Task::Healthcheck));
        assert_eq!((settings.common.workers, settings.common.rate_limit), (2, 3));
    }
    let refused = layers.refused(&["sleep"]);
    assert!(refused.contains("sleep") && refused.contains("serve, healthcheck"), "{refused}");
    assert!(Layers::new("task = 'healthcheck'").refused(&[]).contains("unknown setting `task`"), "it is no setting");
}

#[test]
fn durations_and_sizes_read_with_their_units() {
    let milliseconds = |text| parse_duration_setting(text).map(|duration| duration.as_millis());
    for (text, expected) in [("30", 30_000), ("250ms", 250), ("10s", 10_000), ("2 m", 120_000), ("1h", 3_600_000)] {
        assert_eq!(milliseconds(text), Ok(expected), "{text}");
    }
    for (text, expected) in [("1048576", 1 << 20), ("64KiB", 64 << 10), ("1MiB", 1 << 20), ("2GiB", 2 << 30)] {
        assert_eq!(parse_bytes(text), Ok(expected), "{text}");
    }
    assert_eq!(parse_bytes("500MB"), Ok(500_000_000));
    for text in ["", "-1", "1.5s", "s", "1d", "99999999999999999999", "18446744073709551615h"] {
        assert!(parse_duration_setting(text).unwrap_err().contains("250ms"), "{text}");
    }
    for text in ["", "-1", "1.5MiB", "KiB", "1XB", "18446744073709551615KiB"] {
        assert!(parse_bytes(text).unwrap_err().contains("64MiB"), "{text}");
    }
}

#[test]
fn the_settings_table_has_a_row_for_each_setting() {
    let table = settings_table(Settings::command());
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows[0], "| setting | default | meaning |");
    assert_eq!(rows[2], "| `lru_size` | `500` | Entries in memory \\| at most |");
    assert_eq!(rows[3], "| `master_urls` |  | Where the masters are (also `router_addr`) |");
    assert_eq!(rows[4], "| `fsync` | `false` | Sync every write |");
    assert_eq!(rows.len(), 2 + 3 + 10);
}
