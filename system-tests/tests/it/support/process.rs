//! One server process: its settings, its log, its end.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use super::{PATIENCE, eventually};

/// Lines of a log that are shown when a test fails.
const SHOWN_LINES: usize = 60;

/// A server that runs, ran, or is about to run.
pub(crate) struct Server {
    pub(crate) name: String,
    binary: PathBuf,
    directory: PathBuf,
    environment: BTreeMap<String, String>,
    /// The network namespace that it runs in, if not in that of the tests.
    namespace: Option<String>,
    child: Option<Child>,
    starts: usize,
}

/// How a process ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) took: Duration,
}

impl Server {
    /// A server that is not started yet. It sees `environment` and nothing else of ours.
    pub(crate) fn new(name: &str, binary: &str, directory: &Path, environment: &[(&str, String)]) -> Self {
        fs::create_dir_all(directory).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Self {
            name: name.to_owned(),
            binary: binaries().join(binary),
            directory: directory.to_owned(),
            environment,
            namespace: None,
            child: None,
            starts: 0,
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: &impl ToString) {
        self.environment.insert(name.to_owned(), value.to_string());
    }

    pub(crate) fn set_namespace(&mut self, namespace: &str) {
        self.namespace = Some(namespace.to_owned());
    }

    /// Runs another program from the next start on.
    pub(crate) fn set_binary(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    /// Sets the wall clock of the process, from its next start on, ahead or behind (`+1h`, `-90s`); clocks that measure
    /// time stay true. `false`, said on stderr, where there is no libfaketime.
    pub(crate) fn set_clock(&mut self, offset: &str) -> bool {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
        if !Path::new(&library).exists() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{library} is not there; install faketime");
            eprintln!("SKIPPED: {library} is not there; install Debian's faketime to run this test");
            return false;
        }
        self.set("LD_PRELOAD", &library);
        self.set("FAKETIME", &offset);
        self.set("FAKETIME_DONT_FAKE_MONOTONIC", &1);
        true
    }

    /// Starts the process without waiting for anything.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.starts += 1;
        // `ip netns exec` becomes the server, so that its process is the server's.
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        let child = command
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.log_path()).unwrap())
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{}: {error}", self.binary.display())));
    }

    /// Starts the process and waits until it says where it listens.
    pub(crate) async fn start(&mut self) -> SocketAddr {
        self.spawn();
        self.address().await
    }

    /// Waits until the process says where it listens.
    pub(crate) async fn address(&mut self) -> SocketAddr {
        let said = self.log_line(" listens ").await;
        let address = said.rsplit(" address=").next().and_then(|rest| rest.split_whitespace().next());
        address.unwrap_or_default().parse().unwrap_or_else(|error| panic!("{said:?}: {error}"))
    }

    /// Waits for a line with `text` in the log since the last start.
    pub(crate) async fn log_line(&mut self, text: &str) -> String {
        let what = format!("{} logs {text:?}", self.name);
        eventually(&what, PATIENCE, async || {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            match self.child.as_mut().map(Child::try_wait) {
                Some(Ok(Some(status))) => panic!("{} ended with {status}:\n{log}", self.name),
                _ => Err(log.lines().last().unwrap_or_default().to_owned()),
            }
        })
        .await
    }

    /// What the process wrote since its last start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// What the process wrote since its first start.
    pub(crate) fn whole_log(&self) -> String {
        let log = |start| fs::read_to_string(self.directory.join(format!("stderr.{start}.log"))).unwrap_or_default();
        (1..=self.starts).map(|start| format!("--- start {start}\n{}", log(start))).collect()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join(format!("stderr.{}.log", self.starts))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Ends the process as a power failure would, as far as a process is concerned: SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks the process to stop, and waits until it has: SIGTERM.
    pub(crate) async fn terminate(&mut self) -> Ended {
        self.signal("TERM");
        self.ended().await
    }

    /// Halts the process as a paused virtual machine is: SIGSTOP.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on: SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid();
        // A shell has `kill` built in, so no program need be installed, and no unsafe call is needed here.
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {pid}")).status().unwrap();
        assert!(sent.success(), "{pid} could not be sent SIG{signal}");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map(Child::id).unwrap()
    }

    /// How many files and sockets the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// How much memory the process has, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Waits for the end of a process that ends by itself, or was told to.
    pub(crate) async fn ended(&mut self) -> Ended {
        let (began, what) = (Instant::now(), format!("{} ends", self.name));
        let status = eventually(&what, PATIENCE, async || match self.child.as_mut().unwrap().try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await;
        self.child = None;
        Ended { status, took: began.elapsed() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            for start in 1..=self.starts {
                let path = self.directory.join(format!("stderr.{start}.log"));
                let log = fs::read_to_string(path).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- {}, start {start}, {} lines", self.name, lines.len());
                for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                    eprintln!("{line}");
                }
            }
        }
    }
}

/// The directory of the servers' binaries: the one that `CAIRN_BIN_DIR` names, else the one that cargo builds them into
/// now, with the profile of this test.
fn binaries() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| match std::env::var_os("CAIRN_BIN_DIR") {
        Some(directory) => directory.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    let built = escargot::CargoBuild::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .current_release()
        .args(["--package", "cairn-master", "--package", "cairn-node"])
        .bins()
        .exec()
        .unwrap();
    let mut directory = None;
    for message in built {
        let message = message.unwrap_or_else(|error| panic!("the servers cannot be built: {error}"));
        if let Ok(escargot::format::Message::CompilerArtifact(artifact)) = message.decode()
            && let Some(executable) = artifact.executable
        {
            directory = executable.parent().map(Path::to_owned);
        }
    }
    directory.unwrap()
}

/// A node that answers writes before its replicas have them, and reads without a lease; built when it is first asked
/// for.
pub(crate) fn planted_node() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = escargot::CargoBuild::new()
            .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .bin("planted-node")
            .features("planted-node")
            .env("CAIRN_PLANTED_BUG", "1")
            .current_release()
            .run();
        built.unwrap_or_else(|error| panic!("the node with the bug cannot be built: {error}")).path().to_owned()
    })
}
