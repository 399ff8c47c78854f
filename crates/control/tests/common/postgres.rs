//! A real PostgreSQL server in a temporary folder, reached over a socket in it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    missing_debug_implementations,
    reason = "a test helper, which says what is skipped"
)]

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server; it ends with this value.
pub struct Postgres {
    folder: tempfile::TempDir,
    process: Child,
}

/// Who runs it where the test is run as root, which PostgreSQL refuses to be.
fn nobody() -> Option<nix::unistd::User> {
    nix::unistd::geteuid().is_root().then(|| {
        nix::unistd::User::from_name("nobody")
            .unwrap()
            .expect("a user `nobody`")
    })
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some(user) = nobody() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C");
    command
}

fn find(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        candidates.extend(versions.flatten().map(|version| version.path().join("bin").join(name)));
    }
    candidates.into_iter().find(|path| path.is_file())
}

impl Postgres {
    /// Starts one. Nothing, and a loud word, where PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        let (Some(initdb), Some(postgres)) = (find("initdb"), find("postgres")) else {
            eprintln!(
                "SKIPPED on PostgreSQL: neither PATH nor /usr/lib/postgresql has initdb and postgres (`scripts/tools postgres` installs them)"
            );
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        if let Some(user) = nobody() {
            nix::unistd::chown(folder.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        let data = folder.path().join("data");
        let made = command(&initdb)
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=dawn",
                "--encoding=UTF8",
                "--locale=C",
                "-D",
            ])
            .arg(&data)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let process = command(&postgres)
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "shared_buffers=32MB",
                "-c",
                "max_connections=40",
            ])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self { folder, process };
        let began = Instant::now();
        while !server.is_ready() {
            let log = || std::fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "PostgreSQL does not start: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    /// Its line in `postmaster.pid` says so.
    fn is_ready(&self) -> bool {
        let file = self.folder.path().join("data/postmaster.pid");
        std::fs::read_to_string(file).is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"))
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://dawn@localhost/{database}?host={}",
            self.folder.path().display()
        )
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let id = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGQUIT);
        let _ = self.process.wait();
    }
}
