//! Disks that are small, and disks that do not keep what they are given.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

/// A directory with a bound on its bytes: a file system in memory.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it over a directory, with what that holds.
    pub(crate) fn around(directory: &Path, size: &str) -> Self {
        let aside = directory.with_extension("aside");
        fs::rename(directory, &aside).unwrap();
        fs::create_dir(directory).unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "cairn-test"]).arg(directory);
        assert!(mount.status().unwrap().success(), "{mount:?}");
        copy_directory(&aside, directory);
        Self(directory.to_owned())
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        for piece in [vec![0; 1 << 16], vec![0; 1 << 10], vec![0; 1]] {
            while ballast.write_all(&piece).is_ok() {}
        }
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Copies the files of a directory that has no others below it.
pub(crate) fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// As long as this lives, a process does not get from its disk what it asks for.
pub(crate) struct BrokenDisk(Child);

/// What a database asks of its disk to write, and to read.
const WRITES: &str = "pwrite64,fsync,fdatasync,ftruncate";
const SYNCS: &str = "fsync,fdatasync";
const READS: &str = "pread64";
/// Longer than any test.
const HANGING: &str = "delay_enter=300s";

impl BrokenDisk {
    /// Whenever the process wants to be sure of a write, it is told that the disk failed. Like all of these, `None`, said
    /// on stderr, where there is no strace.
    pub(crate) fn syncs_fail(pid: u32) -> Option<Self> {
        Self::inject(pid, SYNCS, "error=EIO")
    }

    /// No write succeeds.
    pub(crate) fn writes_fail(pid: u32) -> Option<Self> {
        Self::inject(pid, WRITES, "error=EIO")
    }

    /// No write ends.
    pub(crate) fn writes_hang(pid: u32) -> Option<Self> {
        Self::inject(pid, WRITES, HANGING)
    }

    /// No read ends.
    pub(crate) fn reads_hang(pid: u32) -> Option<Self> {
        Self::inject(pid, READS, HANGING)
    }

    fn inject(pid: u32, calls: &str, fault: &str) -> Option<Self> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={calls}:{fault}"), "-p", &pid.to_string()]);
        let started = strace.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                eprintln!("SKIPPED: strace: {error}");
                return None;
            }
        };
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "strace: {line}");
        Some(Self(child))
    }
}

impl Drop for BrokenDisk {
    fn drop(&mut self) {
        // The kernel lets the process go when its tracer ends.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Changes some bytes of a value where a stopped node's disk has it, as a bad sector or cable does.
pub(crate) async fn rot(directory: &Path, value: &[u8]) {
    let file = directory.join("data.sqlite");
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&file)).await.unwrap();
    // The log has checksums of its own, and would be left out as a whole.
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let places: Vec<usize> = places_of(&bytes, value).collect();
    assert!(!places.is_empty(), "the value is not in {}", file.display());
    for place in places {
        let middle = place + value.len() / 2;
        bytes[middle..middle + 4].iter_mut().for_each(|byte| *byte ^= 0x20);
    }
    fs::write(&file, bytes).unwrap();
}

/// Where `part` begins in `all`.
fn places_of<'a>(all: &'a [u8], part: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    all.windows(part.len()).enumerate().filter(move |(_, window)| *window == part).map(|(at, _)| at)
}
