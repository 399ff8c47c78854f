//! Other programs that do the same work, measured beside Dawn: `mcpmesh` between two of its daemons, and two proxies that
//! serve a program's standard I/O over Streamable HTTP.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

/// Where the programs lie; one that is not there is not measured, which is said.
#[derive(Debug)]
pub(crate) struct Programs {
    mcpmesh: Option<PathBuf>,
    proxy_cargo: Option<PathBuf>,
    proxy_pypi: Option<PathBuf>,
}

impl Programs {
    /// Looks into the folder where `scripts/peers` puts them.
    pub(crate) fn find(folder: Option<&Path>) -> Self {
        let find = |path: &str| {
            let found = folder.map(|folder| folder.join(path)).filter(|path| path.exists());
            if found.is_none() {
                println!("not measured beside Dawn, as it is not installed: {path}");
            }
            found
        };
        Self {
            mcpmesh: find("bin/mcpmesh"),
            proxy_cargo: find("bin/mcp-proxy"),
            proxy_pypi: find("venv/bin/mcp-proxy"),
        }
    }
}

/// What two ends hold, MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) client: f64,
    pub(crate) agent: f64,
}

/// Two daemons of mcpmesh, the first of which serves the agent.
#[derive(Debug)]
pub(crate) struct Mcpmesh {
    program: PathBuf,
    profiles: [tempfile::TempDir; 2],
}

impl Mcpmesh {
    /// Starts both and pairs them; its limit on requests, 600 a minute unless told otherwise, is raised out of the way.
    pub(crate) async fn start(programs: &Programs, agent: &str) -> Option<Self> {
        let program = programs.mcpmesh.clone()?;
        let profile = || {
            let folder = tempfile::Builder::new()
                .prefix("mcpmesh-bench-")
                .tempdir()
                .expect("a folder");
            std::fs::create_dir(folder.path().join("config")).expect("a folder");
            let config = "[limits]\nrate_limit_per_min = 4000000000\nmax_sessions = 1000\n[network]\nrelay_mode = \"disabled\"\n";
            std::fs::write(folder.path().join("config/config.toml"), config).expect("written");
            folder
        };
        let mesh = Self {
            program,
            profiles: [profile(), profile()],
        };
        let _served = mesh.run(0, &["serve", "echo", "--", agent, "--raw-echo"]).await;
        let invite = mesh.run(0, &["--json", "invite", "echo"]).await;
        let line = invite["invite_line"].as_str().expect("an invite").to_owned();
        let _paired = mesh.run(1, &["--json", "pair", &line, "--as", "lab"]).await;
        Some(mesh)
    }

    fn command(&self, at: usize, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--profile").arg(self.profiles[at].path()).args(args);
        command
    }

    async fn run(&self, at: usize, args: &[&str]) -> Value {
        let asked = self.command(at, args).stdin(Stdio::null()).output();
        let output = tokio::time::timeout(Duration::from_secs(60), asked).await;
        let output = output.expect("it answers in time").expect("it starts");
        assert!(
            output.status.success(),
            "mcpmesh {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// The command that an MCP client starts.
    pub(crate) fn connect(&self) -> Command {
        self.command(1, &["connect", "lab/echo"])
    }

    /// Lets its daemons run, or holds them while something else is measured.
    pub(crate) fn run_daemons(&self, run: bool) {
        self.daemons().into_iter().flatten().for_each(|pid| hold(pid, run));
    }

    /// Resident memory of its daemons, MiB: that which calls, and that which has the agent.
    pub(crate) fn resident(&self) -> Pair {
        let [agent, client] = self.daemons().map(|pid| pid.map_or(f64::NAN, crate::network::resident));
        Pair { client, agent }
    }

    /// The daemons, which its commands started: each has its profile in its environment.
    fn daemons(&self) -> [Option<u32>; 2] {
        self.profiles
            .each_ref()
            .map(|profile| Self::daemon(&profile.path().to_string_lossy()))
    }

    fn daemon(profile: &str) -> Option<u32> {
        let running = std::fs::read_dir("/proc").expect("/proc").flatten();
        let mut pids = running.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_ours = |pid: &u32| {
            let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let (line, environment) = (read("cmdline"), read("environ"));
            let (line, environment) = (String::from_utf8_lossy(&line), String::from_utf8_lossy(&environment));
            line.contains("internal\0daemon") && environment.contains(profile)
        };
        pids.find(is_ours)
    }
}

impl Drop for Mcpmesh {
    fn drop(&mut self) {
        for pid in self.daemons().into_iter().flatten() {
            hold(pid, true);
            // One that has ended by itself is as good.
            let _ = std::process::Command::new("kill").arg(pid.to_string()).status();
        }
    }
}

/// A proxy that serves a program over Streamable HTTP.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    /// How it calls the tool `echo`.
    pub(crate) tool: &'static str,
    process: Child,
    _folder: Option<tempfile::TempDir>,
}

impl Proxy {
    /// Starts both proxies, as far as they are there.
    pub(crate) async fn start_all(programs: &Programs, agent: &str) -> Vec<Self> {
        let mut proxies = Vec::new();
        if let Some(program) = &programs.proxy_pypi {
            let port = free_port();
            let args = ["--host", "127.0.0.1", "--port", &port, "--", agent, "--raw-echo"];
            let name = "mcp-proxy (PyPI)";
            proxies.extend(Self::start(name, program, &args, &port, "mcp", "echo", None).await);
        }
        if let Some(program) = &programs.proxy_cargo {
            let port = free_port();
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("proxy.toml");
            let config = format!(
                "[proxy]\nname = \"bench\"\nseparator = \"/\"\n[proxy.listen]\nhost = \"127.0.0.1\"\nport = {port}\n\
                 [[backends]]\nname = \"echo\"\ntransport = \"stdio\"\ncommand = {agent:?}\nargs = [\"--raw-echo\"]\n"
            );
            std::fs::write(&file, config).expect("written");
            let args = ["--config", file.to_str().expect("a path")];
            let name = "mcp-proxy (crates.io)";
            proxies.extend(Self::start(name, program, &args, &port, "", "echo/echo", Some(folder)).await);
        }
        proxies
    }

    async fn start(
        name: &'static str,
        program: &Path,
        args: &[&str],
        port: &str,
        path: &str,
        tool: &'static str,
        folder: Option<tempfile::TempDir>,
    ) -> Option<Self> {
        let mut process = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(format!("127.0.0.1:{port}"))
                .await
                .is_ok()
            {
                let url = format!("http://127.0.0.1:{port}/{path}");
                return Some(Self {
                    name,
                    url,
                    tool,
                    process,
                    _folder: folder,
                });
            }
            if let Ok(Some(status)) = process.try_wait() {
                println!("not measured beside Dawn, as it ended ({status}): {name}");
                return None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("not measured beside Dawn, as it does not listen: {name}");
        None
    }

    /// Lets it run, or holds it while something else is measured.
    pub(crate) fn run(&self, run: bool) {
        self.process.id().into_iter().for_each(|pid| hold(pid, run));
    }

    /// Resident memory, MiB.
    pub(crate) fn resident(&self) -> f64 {
        self.process.id().map_or(f64::NAN, crate::network::resident)
    }
}

fn hold(pid: u32, run: bool) {
    let signal = if run { "-CONT" } else { "-STOP" };
    let told = std::process::Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(told.is_ok_and(|status| status.success()), "{pid} takes no {signal}");
}

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port().to_string()
}
