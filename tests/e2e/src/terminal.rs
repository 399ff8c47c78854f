//! A terminal with a person before it, for commands that ask.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Node, PATIENCE, dawn, eventually};

/// A `dawn` command that runs on a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
    /// Ends when nobody has the terminal open any more and everything that was written on it is in `shown`.
    reader: JoinHandle<()>,
    /// How much of what was shown is already accounted for, bytes without escape sequences.
    read: usize,
}

impl Terminal {
    /// Runs a `dawn` command on a node's home.
    #[must_use]
    pub fn run(node: &Node, args: &[&str]) -> Self {
        let size = Winsize {
            ws_row: 50,
            ws_col: 160,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).expect("a terminal");
        let side = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor"));
        let child = Command::new(dawn())
            .arg("--home")
            .arg(node.home())
            .args(args)
            .env_remove("DAWN_HOME")
            .env("TERM", "xterm")
            .stdin(side(&pty.slave))
            .stdout(side(&pty.slave))
            .stderr(side(&pty.slave))
            .spawn()
            .expect("dawn starts");
        drop(pty.slave);
        let keyboard = File::from(pty.master);
        let mut screen = keyboard.try_clone().expect("a descriptor");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&shown);
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            // A terminal that nobody writes to any more is an error to its reader.
            while let Ok(count) = screen.read(&mut chunk) {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.extend(&chunk[..count]);
            }
        });
        Self {
            keyboard,
            child,
            shown,
            reader,
            read: 0,
        }
    }

    /// Everything shown so far, without colours and movements of the cursor.
    fn text(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        anstream::adapter::strip_str(&String::from_utf8_lossy(&shown)).to_string()
    }

    /// Waits until `text` is shown, after what was waited for before.
    pub async fn sees(&mut self, text: &str) {
        let begun = Instant::now();
        loop {
            let shown = self.text();
            let fresh = shown.get(self.read..).unwrap_or_default();
            if let Some(at) = fresh.find(text) {
                self.read += at + text.len();
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{text:?} is not shown, but: {fresh}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Presses keys; `\r` is Enter, `\t` Tab, `\x03` Ctrl-C.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("typed");
    }

    /// Ctrl-C while no line is edited: what the terminal makes of it.
    pub fn interrupts(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, Signal::SIGINT).expect("signalled");
    }

    /// Waits until the command ends by itself; its exit code, and everything that was shown.
    pub async fn ends(mut self) -> (i32, String) {
        let mut code = None;
        eventually("the command ends", async || {
            code = self.child.try_wait().expect("waited for");
            code.is_some()
        })
        .await;
        // What it wrote last may not be read yet.
        eventually("all that was shown is read", async || self.reader.is_finished()).await;
        (code.and_then(|status| status.code()).unwrap_or(-1), self.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended is not there to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
