//! Nodes as processes, for measuring.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// One running node.
#[derive(Debug)]
pub(crate) struct Node {
    dawn: PathBuf,
    home: tempfile::TempDir,
    space: Option<String>,
    process: Child,
    pub(crate) api: String,
    pub(crate) token: String,
    /// From the start of the process to its word that it is ready.
    pub(crate) ready_in: Duration,
}

impl Node {
    /// Makes or joins a network and starts.
    pub(crate) async fn start(dawn: &Path, name: &str, ticket: Option<&str>, listen: &str) -> Self {
        Self::start_in(dawn, name, ticket, listen, None, "").await
    }

    /// The same with a configuration, and with everything of it in a network namespace.
    pub(crate) async fn start_in(
        dawn: &Path,
        name: &str,
        ticket: Option<&str>,
        listen: &str,
        space: Option<&str>,
        config: &str,
    ) -> Self {
        let home = tempfile::Builder::new()
            .prefix("dawn-bench-")
            .tempdir()
            .expect("a temporary folder");
        match ticket {
            Some(ticket) => run(dawn, home.path(), space, &["join", ticket, "--name", name]).await,
            None => run(dawn, home.path(), space, &["init", "--name", name]).await,
        };
        if !config.is_empty() {
            std::fs::write(home.path().join("config.toml"), config).expect("written");
        }
        let begun = Instant::now();
        let mut process = program(dawn, space)
            .arg("--home")
            .arg(home.path())
            .args(["--json", "up", "--api", "127.0.0.1:0", "--no-mdns", "--listen", listen])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("dawn starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let line = lines.next_line().await.expect("readable").expect("a ready line");
        let ready_in = begun.elapsed();
        let ready: Value = serde_json::from_str(&line).expect("JSON");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let token = std::fs::read_to_string(home.path().join("api-token"))
            .expect("a token")
            .trim()
            .to_owned();
        let api = ready["api"].as_str().expect("an address").to_owned();
        Self {
            dawn: dawn.to_owned(),
            home,
            space: space.map(str::to_owned),
            process,
            api,
            token,
            ready_in,
        }
    }

    /// Runs a command on this node's home.
    pub(crate) async fn run(&self, args: &[&str]) -> Value {
        run(&self.dawn, self.home.path(), self.space.as_deref(), args).await
    }

    /// A command on this node's home, not yet started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = program(&self.dawn, self.space.as_deref());
        command.arg("--home").arg(self.home.path()).args(args);
        command
    }

    /// Changes the configuration and has the node read it again.
    pub(crate) async fn configure(&self, change: impl FnOnce(&mut String)) {
        let path = self.home.path().join("config.toml");
        let mut config = std::fs::read_to_string(&path).unwrap_or_default();
        change(&mut config);
        std::fs::write(&path, config).expect("written");
        let _changed = self.run(&["reload"]).await;
    }

    /// A ticket to this node's network.
    pub(crate) async fn ticket(&self) -> String {
        self.run(&["invite"]).await["ticket"]
            .as_str()
            .expect("a ticket")
            .to_owned()
    }

    /// Waits until an agent is listed as ready here.
    pub(crate) async fn sees(&self, address: &str) {
        for _ in 0..600 {
            let agents = self.run(&["agent", "list"]).await;
            let ready = |agent: &Value| agent["address"] == address && agent["state"] == "ready";
            if agents["agents"]
                .as_array()
                .is_some_and(|agents| agents.iter().any(ready))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{address} did not become ready");
    }

    /// Waits until another node is connected directly, or is not.
    pub(crate) async fn is_direct(&self, name: &str, wanted: bool) {
        for _ in 0..600 {
            let peers = self.run(&["peers"]).await;
            let is_it = |peer: &Value| peer["name"] == name && peer["route"] == "direct";
            if peers["peers"].as_array().is_some_and(|peers| peers.iter().any(is_it)) == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name}: directly connected is still not {wanted}");
    }

    /// Resident memory, MiB.
    pub(crate) fn resident(&self) -> f64 {
        resident(self.process.id().expect("running"))
    }
}

/// Resident memory of a process, MiB.
pub(crate) fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<f64>()
            .ok()
    });
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// `dawn`, in a network namespace if there is one.
fn program(dawn: &Path, space: Option<&str>) -> Command {
    match space {
        Some(space) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", space]).arg(dawn);
            command
        }
        None => Command::new(dawn),
    }
}

async fn run(dawn: &Path, home: &Path, space: Option<&str>, args: &[&str]) -> Value {
    let output = program(dawn, space)
        .arg("--home")
        .arg(home)
        .arg("--json")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("dawn runs");
    assert!(
        output.status.success(),
        "{args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}
