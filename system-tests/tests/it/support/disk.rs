//! Disks that are small, and disks that do not keep what they are given.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

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

/// As long as this lives, a process is told that its disk failed whenever it wants to be sure of a write.
pub(crate) struct SyncErrors(Child);

impl SyncErrors {
    /// `None`, said on stderr, where there is no strace.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
        strace.args(["-e", "inject=fsync,fdatasync:error=EIO", "-p", &pid.to_string()]);
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

impl Drop for SyncErrors {
    fn drop(&mut self) {
        // The kernel lets the process go when its tracer ends.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
