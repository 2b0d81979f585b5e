//! Clusters on free ports in temporary directories, in this process or as the binary.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use cairn::dev::{DevCluster, Options};
use cairn_client::Cache;
use tempfile::TempDir;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn options(data_dir: &Path) -> Options {
    Options { nodes: 3, listen: ([127, 0, 0, 1], 0).into(), data_dir: data_dir.to_owned(), object_store: true }
}

/// Few threads and quick beats, and nothing of the environment that the tests run in.
fn env(name: &str) -> Option<String> {
    let settings = [("WORKERS", "1"), ("HEARTBEAT_INTERVAL", "200ms"), ("SETTLE", "100ms"), ("PARTITIONS", "32")];
    settings.iter().find(|(setting, _)| *setting == name).map(|(_, value)| (*value).to_owned())
}

pub(crate) struct TestCluster {
    pub(crate) cluster: DevCluster,
    pub(crate) cache: Cache,
    pub(crate) directory: TempDir,
}

impl TestCluster {
    pub(crate) async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap()).await
    }

    pub(crate) async fn start_in(directory: TempDir) -> Self {
        let mut cluster = DevCluster::start(&options(directory.path()), &env).await.unwrap();
        cluster.ready(PATIENCE).await.unwrap();
        let cache = Cache::connect(&cluster.master_url()).await.unwrap();
        Self { cluster, cache, directory }
    }

    /// Ends it in order, and gives its data.
    pub(crate) async fn stop(self) -> TempDir {
        drop(self.cache);
        self.cluster.stop().await.unwrap();
        self.directory
    }

    /// Runs a command of the binary against this cluster.
    pub(crate) async fn cairn(&self, args: &[&str], stdin: &str) -> Output {
        let (url, stdin) = (self.cluster.master_url(), stdin.to_owned());
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        tokio::task::spawn_blocking(move || {
            let mut child = cairn().args(["--url", &url]).args(args).stdin(Stdio::piped()).spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            let writing = std::thread::spawn(move || input.write_all(stdin.as_bytes()));
            let output = child.wait_with_output().unwrap();
            // A command that does not read its input closes the pipe.
            let _ = writing.join().unwrap();
            output
        })
        .await
        .unwrap()
    }
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The binary with captured output, and with the same settings as [`TestCluster`].
pub(crate) fn cairn() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    for name in ["WORKERS", "HEARTBEAT_INTERVAL", "SETTLE", "PARTITIONS"] {
        command.env(name, env(name).unwrap());
    }
    command
}

/// `cairn dev` as a process of its own.
pub(crate) struct Process {
    child: Child,
    pub(crate) master: String,
    pub(crate) greeting: String,
}

impl Process {
    /// Ready when it has said how to use it.
    pub(crate) fn start(data_dir: &Path) -> Self {
        let mut command = cairn();
        command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut greeting = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            greeting += &line.unwrap();
            greeting.push('\n');
            if greeting.contains("Ctrl-C") {
                break;
            }
        }
        let open = greeting.lines().find_map(|line| line.trim().strip_prefix("open")).unwrap();
        let master = open.trim().strip_suffix("/swagger-ui/").unwrap().to_owned();
        Self { child, master, greeting }
    }

    /// Sends a signal, and gives the exit code and the time until it came.
    pub(crate) fn end(mut self, signal: &str) -> (Option<i32>, Duration) {
        let began = Instant::now();
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), began.elapsed());
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command that must fail says.
pub(crate) fn failure(mut command: Command) -> (Option<i32>, String) {
    let mut child = command.spawn().unwrap();
    let mut message = String::new();
    child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    (child.wait().unwrap().code(), message)
}
