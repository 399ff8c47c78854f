//! Networks that are really apart: network namespaces with cables between them, and what goes over the cables.
//!
//! It takes the rights to make namespaces (root, or `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`) and `ip` of iproute2. Everything
//! is inside the namespaces, and goes away with the [`Lab`].

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// Namespaces of one test.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    spaces: Vec<String>,
}

/// One end of a cable.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Whose namespace it is in.
    pub name: &'a str,
    /// The device's name there, 15 bytes at most.
    pub device: &'a str,
    /// Its address with the length of the network's prefix.
    pub address: &'a str,
}

/// Removes namespaces of tests that were killed and could not do it themselves.
fn sweep() {
    let spaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for space in spaces.filter_map(|space| space.file_name().into_string().ok()) {
        let maker = space.strip_prefix("dawn").and_then(|rest| rest.split_once('-'));
        let is_left = maker
            .and_then(|(pid, _)| pid.parse::<u32>().ok())
            .is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists());
        if is_left {
            // Another test may be sweeping, too.
            let _ = ip(&["netns", "del", &space]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .map_err(|error| format!("`ip` does not start: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

impl Lab {
    /// Namespaces with these names. Where they cannot be made here, says so loudly and gives nothing: the test is skipped.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    pub fn open(names: &[&str]) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        sweep();
        let mut lab = Self {
            prefix: format!("dawn{}-{number}", std::process::id()),
            spaces: Vec::new(),
        };
        for name in names {
            if let Err(error) = lab.add(name) {
                eprintln!("SKIPPED: no network namespaces can be made here ({error})");
                return None;
            }
        }
        Some(lab)
    }

    /// One more namespace.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn add(&mut self, name: &str) -> Result<(), String> {
        let space = self.space(name);
        ip(&["netns", "add", &space])?;
        self.spaces.push(space);
        self.ip(name, &["link", "set", "lo", "up"])
    }

    /// The namespace behind a name.
    #[must_use]
    pub fn space(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Runs `ip` in a namespace.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn ip(&self, name: &str, args: &[&str]) -> Result<(), String> {
        ip(&[&["-n", self.space(name).as_str()], args].concat())
    }

    /// Lays a cable between two namespaces.
    pub fn connect(&self, near: End<'_>, far: End<'_>) {
        let space = self.space(far.name);
        let cable = ["link", "add", near.device, "type", "veth"];
        let peer = ["peer", "name", far.device, "netns", &space];
        self.ip(near.name, &[&cable[..], &peer].concat()).expect("a cable");
        for end in [near, far] {
            self.ip(end.name, &["addr", "add", end.address, "dev", end.device])
                .expect("an address");
            self.ip(end.name, &["link", "set", end.device, "up"]).expect("a device");
        }
    }

    /// Waits until all cables carry: a device that has just come up may drop everything for a second.
    ///
    /// # Panics
    /// Where one does not, within a minute.
    pub fn settle(&self) {
        let is_settling = |space: &String| {
            let listed = Command::new("ip").args(["-n", space, "-br", "link"]).output();
            let listed = listed.map(|output| output.stdout).unwrap_or_default();
            let listed = String::from_utf8_lossy(&listed).into_owned();
            listed.lines().any(|line| {
                line.contains("LOWER_UP")
                    && line
                        .split_whitespace()
                        .nth(1)
                        .is_some_and(|state| state.ends_with("DOWN"))
            })
        };
        let begun = std::time::Instant::now();
        while self.spaces.iter().any(is_settling) {
            assert!(begun.elapsed() < crate::PATIENCE, "the cables of {} carry", self.prefix);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Runs something on a thread inside a namespace: sockets that it opens stay there.
    ///
    /// # Panics
    /// Where the namespace is gone.
    pub fn within<T: Send>(&self, name: &str, run: impl FnOnce() -> T + Send) -> T {
        let space = File::open(format!("/run/netns/{}", self.space(name))).expect("a namespace");
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                // Only this thread moves.
                setns(space, CloneFlags::CLONE_NEWNET).expect("into the namespace");
                run()
            });
            inside.join().expect("what runs inside ends well")
        })
    }

    /// Lets a namespace pass packets on, wherever they come from, over the devices that it gets from now on.
    pub fn forwards(&self, name: &str) {
        self.within(name, || {
            let settings = [
                ("ip_forward", "1"),
                ("conf/all/rp_filter", "0"),
                ("conf/default/rp_filter", "0"),
            ];
            for (setting, value) in settings {
                std::fs::write(format!("/proc/sys/net/ipv4/{setting}"), value).expect("a setting");
            }
        });
    }

    /// Sets rules of `nft` in a namespace.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn rules(&self, name: &str, rules: &str) -> Result<(), String> {
        let mut nft = self
            .command(name, "nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("`ip` does not start: {error}"))?;
        let mut input = nft.stdin.take().expect("piped");
        input.write_all(rules.as_bytes()).map_err(|error| error.to_string())?;
        drop(input);
        let ended = nft.wait_with_output().map_err(|error| error.to_string())?;
        if ended.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned())
        }
    }

    /// Lays cable `number` between two namespaces, with the addresses `10.98.NUMBER.1` and `10.98.NUMBER.2`.
    pub fn cable(&self, number: u8, a: &str, b: &str) {
        let device = format!("c{number}");
        let [near, far] = [1, 2].map(|end| format!("10.98.{number}.{end}/24"));
        let end = |name, address| End {
            name,
            device: &device,
            address,
        };
        self.connect(end(a, &near), end(b, &far));
    }

    /// A command inside a namespace.
    #[must_use]
    pub fn command(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(name), program]);
        command
    }

    /// Records every packet that a namespace's devices see from now on.
    #[must_use]
    pub fn capture(&self, name: &str) -> Capture {
        let space = File::open(format!("/run/netns/{}", self.space(name))).expect("a namespace");
        let (seen, stop): (Arc<Mutex<Vec<u8>>>, _) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (into, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let (ready, wait) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            // Only this thread moves.
            setns(space, CloneFlags::CLONE_NEWNET).expect("into the namespace");
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::empty(),
                SockProtocol::EthAll,
            )
            .expect("a raw socket");
            setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(100)).expect("a time-out");
            ready.send(()).expect("somebody waits");
            let mut packet = vec![0; 128 << 10];
            while !stopped.load(Ordering::Relaxed) {
                // A time-out is a chance to look whether it is over.
                if let Ok(length) = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                    let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.extend_from_slice(&packet[..length]);
                }
            }
        });
        wait.recv().expect("a capture that runs");
        Capture {
            seen,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for space in &self.spaces {
            // What is gone already is as good.
            let _ = ip(&["netns", "del", space]);
        }
    }
}

/// Runs something that waits, on a thread inside a namespace: sockets that it opens are there.
///
/// # Panics
/// Where the namespace is gone, or what runs inside ends badly.
pub async fn inside<T: Send + 'static>(space: &str, work: impl Future<Output = T> + Send + 'static) -> T {
    let space = File::open(format!("/run/netns/{space}")).expect("a namespace");
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Only this thread moves.
        setns(space, CloneFlags::CLONE_NEWNET).expect("into the namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        // Who asked may have gone.
        let _ = done.send(runtime.expect("a runtime").block_on(work));
    });
    outcome.await.expect("what runs inside ends well")
}

/// Packets that were seen.
#[derive(Debug)]
pub struct Capture {
    seen: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// How many bytes were seen.
    #[must_use]
    pub fn length(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether these bytes were seen, in one packet.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        holds(&self.seen.lock().unwrap_or_else(PoisonError::into_inner), bytes)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A capture that failed has said so itself.
            let _ = thread.join();
        }
    }
}

fn holds(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|part| part == wanted)
}

/// Whether a process has these bytes anywhere in memory that it writes to.
#[must_use]
pub fn in_memory(pid: u32, wanted: &[u8]) -> bool {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("its memory");
    let regions = maps.lines().filter_map(|line| {
        let mut parts = line.split_whitespace();
        let (from, to) = parts.next()?.split_once('-')?;
        let is_written = parts.next()?.starts_with("rw");
        let at = |text| u64::from_str_radix(text, 16).ok();
        is_written.then_some((at(from)?, at(to)?))
    });
    let mut piece = vec![0; 1 << 20];
    for (from, to) in regions {
        let mut at = from;
        while at < to {
            let length = piece.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
            // What went away in between holds nothing.
            let read = memory.read_at(&mut piece[..length], at).unwrap_or(0);
            if holds(&piece[..read], wanted) {
                return true;
            }
            // Pieces overlap, so that nothing is cut in two.
            at += (length.max(wanted.len() + 1) - wanted.len()) as u64;
            if length <= wanted.len() {
                break;
            }
        }
    }
    false
}
