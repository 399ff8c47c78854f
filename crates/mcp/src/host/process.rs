//! Child processes: started under the guard, told who calls, heard on standard error, ended with their links.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use data_encoding::BASE64URL_NOPAD;
#[cfg(target_os = "linux")]
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Agent, Guard, Inner, Source, lock};
use crate::fault::{Fault, FaultCode};
use crate::link::Link;
use crate::wire::{Caller, Counted};

/// Longest line of standard error that is logged, bytes.
const LOG_LINE: usize = 4096;

/// Room in a pipe, bytes: a message of 64 KiB and a little passes at once, instead of waking both its ends twice.
#[cfg(target_os = "linux")]
const PIPE: i32 = 256 << 10;

/// Gives a pipe that carries messages more room, where the system grants it; a pipe without works too. What is no pipe
/// stays as it is.
pub fn widen(pipe: &impl AsFd) {
    #[cfg(target_os = "linux")]
    if let Err(error) = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE)) {
        tracing::trace!(%error, "a pipe keeps its size");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
}

/// What is known of how a process's standard I/O came to its end.
#[derive(Debug, Default)]
struct Pipes {
    /// Its input was closed here, which is how it is told to end.
    is_closed: AtomicBool,
    /// They broke before that: it ended by itself.
    have_broken: AtomicBool,
}

impl Pipes {
    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    fn broke(&self) {
        if !self.is_closed.load(Ordering::Relaxed) {
            self.have_broken.store(true, Ordering::Relaxed);
        }
    }
}

/// A process's standard output; when it and its input are dropped, the process is ended.
struct Output {
    pipe: ChildStdout,
    pipes: Arc<Pipes>,
    _alive: Arc<DropGuard>,
}

/// A process's standard input.
struct Input {
    pipe: Option<ChildStdin>,
    pipes: Arc<Pipes>,
    _alive: Arc<DropGuard>,
}

impl Drop for Input {
    fn drop(&mut self) {
        self.pipes.close();
    }
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.pipe).poll_read(context, buffer);
        let is_over = match &read {
            Poll::Ready(Ok(())) => buffer.filled().len() == before && buffer.remaining() > 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if is_over {
            self.pipes.broke();
        }
        read
    }
}

impl AsyncWrite for Input {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        };
        let written = Pin::new(pipe).poll_write(context, bytes);
        if let Poll::Ready(Err(_)) = &written {
            self.pipes.broke();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.pipe {
            Some(pipe) => Pin::new(pipe).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Closing the pipe is what tells a server that nothing more comes.
    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.pipes.close();
        self.pipe = None;
        Poll::Ready(Ok(()))
    }
}

/// One of the processes that run for another node or for a person: one gets half of them, all together three quarters,
/// so that some are left for this node.
struct Share {
    agent: Arc<Agent>,
    caller: Counted,
}

impl Share {
    fn take(agent: &Arc<Agent>, caller: Counted, most: usize) -> Result<Self, Fault> {
        let mut others = lock(&agent.others);
        let (own, all) = (
            others.get(&caller).copied().unwrap_or_default(),
            others.values().sum::<usize>(),
        );
        if own >= most.div_ceil(2) || all >= (most * 3).div_ceil(4) {
            let words = format!(
                "agent {} runs {all} processes for others, {own} of them for this caller, and gives no more (limits.processes_per_agent is {most})",
                agent.address
            );
            return Err(Fault::new(FaultCode::Busy, words));
        }
        others.insert(caller.clone(), own + 1);
        Ok(Self {
            agent: Arc::clone(agent),
            caller,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut others = lock(&self.agent.others);
        if let Some(own) = others.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                others.remove(&self.caller);
            }
        }
    }
}

/// Whether the program of a command is there, as the agent's process would find it.
///
/// # Errors
/// It is not, or it may not be run, in words.
pub fn locate(command: &[String], env: &BTreeMap<String, String>, directory: Option<&Path>) -> Result<(), String> {
    let program = command.first().map_or("", String::as_str);
    let path = env.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
    let from = directory.map_or_else(|| PathBuf::from("."), Path::to_owned);
    if !from.is_dir() {
        return Err(format!("there is no folder {} to start it in", from.display()));
    }
    match which::which_in(program, path, from) {
        Ok(_) => Ok(()),
        Err(_) if program.contains('/') => Err(format!("there is no program {program:?}, or it may not be run")),
        Err(_) => Err(format!(
            "there is no program {program:?} in the PATH of the node; give its whole path, or a PATH with --env"
        )),
    }
}

/// Starts a process of an agent, for another node if `other` is one, and opens a link over its standard I/O.
pub(super) fn open(
    host: &Inner,
    agent: &Arc<Agent>,
    caller: Option<&Caller>,
    other: Option<Counted>,
) -> Result<Link, Fault> {
    let Source::Stdio {
        command,
        env,
        directory,
        ..
    } = &agent.spec.source
    else {
        return Err(agent.failed("it is no program"));
    };
    locate(command, env, directory.as_deref()).map_err(|why| agent.failed(why))?;
    let share = other
        .map(|other| Share::take(agent, other, host.limits.processes_per_agent))
        .transpose()?;
    let permit = Arc::clone(&agent.processes).try_acquire_owned().map_err(|_| {
        let words = format!(
            "agent {} has {} processes, which is the limit (limits.processes_per_agent)",
            agent.address, host.limits.processes_per_agent
        );
        Fault::new(FaultCode::Busy, words)
    })?;
    let mut words = match &host.guard {
        Guard::None => Vec::new(),
        Guard::Command(prefix) => prefix.clone(),
    };
    words.extend(command.iter().map(Into::into));
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| agent.failed("its command is empty"))?;
    let mut process = Command::new(program);
    process
        .args(arguments)
        .envs(env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    for name in [
        "DAWN_PASSPHRASE",
        "DAWN_CALLER_NODE",
        "DAWN_CALLER_NAME",
        "DAWN_CALLER_ROLES",
        "DAWN_CALLER_CERTIFICATE",
        "DAWN_CALLER_USER",
    ] {
        process.env_remove(name);
    }
    if let Some(directory) = directory {
        process.current_dir(directory);
    }
    if let Some(caller) = caller {
        process.env("DAWN_CALLER_NODE", caller.node.to_string());
        process.env("DAWN_CALLER_NAME", caller.name.as_str());
        process.env("DAWN_CALLER_ROLES", caller.roles.join(","));
        process.env("DAWN_CALLER_CERTIFICATE", BASE64URL_NOPAD.encode(&caller.chain));
        if let Some(user) = &caller.user {
            process.env("DAWN_CALLER_USER", user.to_string());
        }
    }
    let mut child = process.spawn().map_err(|error| {
        let named = command.first().map_or("", String::as_str);
        agent.failed(format!(
            "{named:?} cannot be started ({error}); check the command with `dawn agent list` on its node"
        ))
    })?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        return Err(agent.failed("its standard I/O is not there"));
    };
    widen(&stdin);
    widen(&stdout);
    let done = CancellationToken::new();
    let alive = Arc::new(done.clone().drop_guard());
    let pipes = Arc::<Pipes>::default();
    host.tasks.spawn(log(stderr, agent.name.to_string()));
    let (ended, heard, patience) = (Arc::clone(agent), Arc::clone(&pipes), host.limits.kill_after);
    host.tasks.spawn(async move {
        end(&mut child, &ended, &done, &heard, patience).await;
        drop((permit, share));
    });
    let read = Output {
        pipe: stdout,
        pipes: Arc::clone(&pipes),
        _alive: Arc::clone(&alive),
    };
    let write = Input {
        pipe: Some(stdin),
        pipes,
        _alive: alive,
    };
    Ok(Link::from_halves(
        Box::new(read),
        Box::new(write),
        host.limits.message_bytes,
    ))
}

/// Waits for the process; when nobody needs it any more, asks it to end and then makes it.
async fn end(child: &mut Child, agent: &Agent, done: &CancellationToken, pipes: &Pipes, patience: std::time::Duration) {
    let (name, stop) = (agent.name.as_str(), &agent.stop);
    let mut was_wanted = false;
    let status = tokio::select! {
        status = child.wait() => {
            was_wanted = !done.is_cancelled();
            status
        }
        () = done.cancelled() => {
            // Its input is closed, which is how a server is told to end.
            match tokio::time::timeout(patience, child.wait()).await {
                Ok(status) => status,
                Err(_) => terminate(child, patience).await,
            }
        }
        () = stop.cancelled() => terminate(child, patience).await,
    };
    // Where its pipes broke before anybody closed them, it was wanted, too: who reads them may have noticed first.
    let was_wanted = was_wanted || pipes.have_broken.load(Ordering::Relaxed);
    match status {
        Ok(status) if status.success() || !was_wanted || stop.is_cancelled() => {
            tracing::debug!(agent = name, %status, "a process ended");
        }
        Ok(status) => {
            agent.crashed();
            tracing::warn!(agent = name, %status, "a process ended by itself");
        }
        Err(error) => tracing::error!(agent = name, %error, "a process could not be waited for"),
    }
}

async fn terminate(child: &mut Child, patience: std::time::Duration) -> std::io::Result<std::process::ExitStatus> {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // The group: without a guard the command's own children are in it too. A group that is gone needs no signal.
        let _ = kill(Pid::from_raw(-pid), Signal::SIGTERM);
        // A guard needs its own time to end the command by force.
        if let Ok(status) = tokio::time::timeout(patience * 2, child.wait()).await {
            return status;
        }
        let _ = kill(Pid::from_raw(-pid), Signal::SIGKILL);
    }
    child.wait().await
}

/// Logs what a process says on standard error.
async fn log(stderr: ChildStderr, name: String) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).read_until_bounded(&mut line).await {
            Ok(0) => return,
            Ok(_) => tracing::info!(target: "agent", agent = %name, "{}", String::from_utf8_lossy(&line).trim_end()),
            Err(error) => return tracing::debug!(agent = %name, %error, "standard error broke off"),
        }
    }
}

/// Reads a line, or the first bytes of one that is too long.
trait ReadBounded {
    async fn read_until_bounded(self, line: &mut Vec<u8>) -> std::io::Result<usize>;
}

impl ReadBounded for &mut BufReader<ChildStderr> {
    async fn read_until_bounded(self, line: &mut Vec<u8>) -> std::io::Result<usize> {
        let mut total = 0;
        loop {
            let available = self.fill_buf().await?;
            if available.is_empty() {
                return Ok(total);
            }
            let end = memchr::memchr(b'\n', available);
            let used = end.map_or(available.len(), |at| at + 1);
            let room = LOG_LINE.saturating_sub(line.len()).min(used);
            line.extend_from_slice(&available[..room]);
            self.consume(used);
            total += used;
            if end.is_some() {
                return Ok(total);
            }
        }
    }
}
