//! `dawn guard`: runs one child and lets nothing of it outlive this process's parent.
//!
//! The node starts every agent under a guard. The guard puts its child into a process group of its own and becomes the
//! reaper of whatever the child leaves behind, so that also processes which left the group are found. It ends them all
//! when it is told to, when its parent is gone however that happened, or when the child ended by itself: first SIGTERM,
//! and after a grace SIGKILL. Its exit code is the child's (128 and the signal's number for a killed one).
//!
//! There is no asynchronous runtime here and nothing is kept but a few pages: there is a guard for every session with
//! an agent. On systems without a reaper and a death signal of the parent, the parent is looked at twice a second and
//! only the group is ended.

mod spawn;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Args;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};

/// The exit code of a command that could not be started, and of one that does not exist, as shells have them.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// The death of the parent's thread, told by the kernel. A signal of its own: it also comes when only the thread that
/// started this process ended, which is no reason to stop.
const PARENT: Signal = Signal::SIGUSR1;
/// How often SIGKILL is repeated until nothing is left: what is killed may have started another process meanwhile.
const KILL_AGAIN: Duration = Duration::from_millis(50);
/// How often the parent is looked at.
const LOOK: Duration = if cfg!(target_os = "linux") {
    Duration::from_secs(3600)
} else {
    Duration::from_millis(500)
};

/// What to run, and how patiently to end it.
#[derive(Debug, Args)]
pub(crate) struct GuardArgs {
    /// How long the processes may take to end after SIGTERM, milliseconds
    #[arg(long, value_name = "N", default_value_t = 2000)]
    kill_after_ms: u64,
    /// The process that must live; the one that started this by default
    #[arg(long, value_name = "PID")]
    parent: Option<i32>,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the command to its end, or ends it.
pub(crate) fn run(args: &GuardArgs) -> ExitCode {
    match supervise(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            crate::output::complain(&format!("dawn guard: {error}"));
            ExitCode::from(NOT_EXECUTABLE)
        }
    }
}

fn supervise(args: &GuardArgs) -> Result<u8, Errno> {
    let parent = args.parent.map_or_else(getppid, Pid::from_raw);
    let mut signals = SigSet::empty();
    let told = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        PARENT,
        Signal::SIGCHLD,
    ];
    for signal in told {
        signals.add(signal);
    }
    signals.thread_block()?;
    #[cfg(target_os = "linux")]
    {
        nix::sys::prctl::set_child_subreaper(true)?;
        nix::sys::prctl::set_pdeathsig(PARENT)?;
    }
    // The parent may have died before the kernel was asked to tell.
    if getppid() != parent {
        return Ok(code_of(Signal::SIGTERM));
    }
    let Some((program, rest)) = args.command.split_first() else {
        return Ok(NOT_FOUND);
    };
    let child = match spawn::in_own_group(program, rest) {
        Ok(child) => child,
        Err(error) => {
            crate::output::complain(&format!(
                "dawn guard: {} could not be started: {error}",
                program.display()
            ));
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            return Ok(if missing { NOT_FOUND } else { NOT_EXECUTABLE });
        }
    };
    spawn::release_standard_streams()?;
    let (sender, heard) = mpsc::channel();
    std::thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(move || {
            while let Ok(signal) = signals.wait() {
                if sender.send(signal).is_err() {
                    return;
                }
            }
        })
        .map_err(|_| Errno::EAGAIN)?;
    let supervised = Supervised {
        child,
        parent,
        grace: Duration::from_millis(args.kill_after_ms),
        code: None,
        kill_at: None,
    };
    Ok(supervised.until_nothing_is_left(&heard))
}

struct Supervised {
    child: Pid,
    parent: Pid,
    grace: Duration,
    /// The child's exit code, once it ended.
    code: Option<u8>,
    /// When patience ends, once the processes were asked to.
    kill_at: Option<Instant>,
}

impl Supervised {
    fn until_nothing_is_left(mut self, heard: &mpsc::Receiver<Signal>) -> u8 {
        loop {
            if self.reap() {
                return self.code.unwrap_or_else(|| code_of(Signal::SIGKILL));
            }
            if self.code.is_some() {
                self.stop();
            }
            let wait = self
                .kill_at
                .map_or(LOOK, |at| at.saturating_duration_since(Instant::now()));
            match heard.recv_timeout(wait) {
                Ok(Signal::SIGCHLD) => {}
                Ok(PARENT) => self.stop_without_parent(),
                Ok(_) => self.stop(),
                Err(RecvTimeoutError::Timeout) => self.waited(),
                // The thread that hears signals never ends before this one; without it only killing is left.
                Err(RecvTimeoutError::Disconnected) => {
                    self.signal(Signal::SIGKILL);
                    std::thread::sleep(KILL_AGAIN);
                }
            }
        }
    }

    /// Takes the exit codes of all that ended; whether nothing is left.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.child => {
                    self.code = Some(u8::try_from(code & 0xff).unwrap_or(u8::MAX));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.child => self.code = Some(code_of(signal)),
                Ok(WaitStatus::StillAlive) => return false,
                Ok(_) | Err(Errno::EINTR) => {}
                // No children: elsewhere than on Linux the child's own children are none of this process.
                Err(_) => return cfg!(target_os = "linux") || killpg(self.child, None).is_err(),
            }
        }
    }

    /// Asks everything to end, once.
    fn stop(&mut self) {
        if self.kill_at.is_none() {
            self.kill_at = Some(Instant::now() + self.grace);
            self.signal(Signal::SIGTERM);
        }
    }

    fn stop_without_parent(&mut self) {
        if getppid() != self.parent {
            self.stop();
        }
    }

    fn waited(&mut self) {
        match self.kill_at {
            Some(at) if Instant::now() >= at => {
                self.signal(Signal::SIGKILL);
                self.kill_at = Some(Instant::now() + KILL_AGAIN);
            }
            Some(_) => {}
            None => self.stop_without_parent(),
        }
    }

    fn signal(&self, signal: Signal) {
        // What ended meanwhile needs no signal.
        let _ = killpg(self.child, signal);
        for orphan in children() {
            let _ = kill(orphan, signal);
        }
    }
}

/// The direct children of this process: the child, and what it left behind and the kernel gave to us.
#[cfg(target_os = "linux")]
fn children() -> Vec<Pid> {
    let own = nix::unistd::getpid();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        parent_in(&stat) == Some(own.as_raw())
    })
    .map(Pid::from_raw)
    .collect()
}

#[cfg(not(target_os = "linux"))]
fn children() -> Vec<Pid> {
    Vec::new()
}

/// The parent's id in a line of `/proc/PID/stat`: the second field after the name, which stands in parentheses and may
/// hold anything.
#[cfg(target_os = "linux")]
fn parent_in(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The exit code that tells of a signal.
fn code_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_whatever_the_name_of_the_process() {
        assert_eq!(parent_in("42 (sh) S 7 42 42 0"), Some(7));
        assert_eq!(parent_in("42 (a) b (c)) R 8 1 1"), Some(8));
        assert_eq!(parent_in(""), None);
        assert_eq!(parent_in("42 (sh"), None);
    }
}
