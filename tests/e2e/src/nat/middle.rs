//! What every packet through a namespace passes, in a program of our own: a translator, or a long way.
//!
//! A TUN device takes all packets that come from elsewhere (a rule sends them there), and what is written to it goes on by
//! the namespace's own routes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::lab::Lab;

const DEVICE: &str = "middle";

/// What is done with a packet: `None` drops it, else it goes on after that time.
pub type Treatment = Box<dyn FnMut(&mut [u8], Instant) -> Option<Duration> + Send>;

/// Something that runs in the middle of a namespace, until it is dropped.
#[derive(Debug)]
pub struct Middle {
    stop: Arc<AtomicBool>,
    passed: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// The first part of `struct ifreq`, with room for the rest (netdevice(7)).
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: libc::c_short,
    rest: [u8; 22],
}

nix::ioctl_write_ptr_bad!(
    /// `TUNSETIFF`: makes the descriptor that of a device.
    tun_set_interface,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    Request
);

/// Opens the TUN device of the namespace that this thread is in.
fn device() -> std::io::Result<File> {
    let tun = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let mut request = Request {
        name: [0; 16],
        flags: libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).expect("small flags"),
        rest: [0; 22],
    };
    request.name[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
    // SAFETY: the request is as long as the kernel's `struct ifreq` and lives longer than the call.
    #[allow(unsafe_code, reason = "nothing safe makes a TUN device")]
    unsafe {
        tun_set_interface(tun.as_raw_fd(), &raw const request)?;
    }
    Ok(tun)
}

impl Middle {
    /// Sends all that passes through a namespace through `treat`.
    ///
    /// # Errors
    /// Where no TUN device can be had here.
    pub fn run(lab: &Lab, name: &str, treat: Treatment) -> Result<Self, String> {
        let tun = lab
            .within(name, device)
            .map_err(|error| format!("no TUN device: {error}"))?;
        lab.ip(name, &["link", "set", DEVICE, "up", "txqueuelen", "10000"])?;
        lab.ip(name, &["route", "add", "default", "dev", DEVICE, "table", "100"])?;
        lab.ip(
            name,
            &["rule", "add", "priority", "10", "iif", DEVICE, "lookup", "main"],
        )?;
        lab.ip(name, &["rule", "add", "priority", "11", "iif", "lo", "lookup", "main"])?;
        lab.ip(name, &["rule", "add", "priority", "12", "lookup", "100"])?;
        let (stop, passed): (Arc<AtomicBool>, Arc<AtomicU64>) = (Arc::default(), Arc::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&passed));
        let thread = std::thread::spawn(move || work(tun, treat, &stopped, &counted));
        Ok(Self {
            stop,
            passed,
            thread: Some(thread),
        })
    }

    /// How many packets have passed.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

fn work(mut tun: File, mut treat: Treatment, stop: &AtomicBool, passed: &AtomicU64) {
    let mut waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
    let mut buffer = vec![0; 64 << 10];
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = waiting.peek().map(|Reverse((due, ..))| *due);
        let wait = due.map_or(100, |due| due.saturating_duration_since(Instant::now()).as_millis());
        let wait = PollTimeout::from(u8::try_from(wait).unwrap_or(100).min(100));
        // A signal is as good as a time-out.
        let _ready = poll(&mut [PollFd::new(tun.as_fd(), PollFlags::POLLIN)], wait);
        let now = Instant::now();
        // A turn has an end, so that what is due does not wait for it.
        for _ in 0..64 {
            let Ok(length) = tun.read(&mut buffer) else { break };
            let packet = &mut buffer[..length];
            if let Some(delay) = treat(packet, now) {
                number += 1;
                waiting.push(Reverse((now + delay, number, packet.to_vec())));
            }
        }
        while waiting.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            if let Some(Reverse((_, _, packet))) = waiting.pop() {
                // A route that is gone loses packets, as it does elsewhere.
                let _ = tun.write(&packet);
                passed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that failed has said so itself.
            let _ = thread.join();
        }
    }
}
