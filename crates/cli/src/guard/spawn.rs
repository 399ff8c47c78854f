//! How the guard starts its child, and lets go of what it shares with it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout};

/// Starts the command in a process group of its own, with no signal blocked, and on Linux killed should the guard be.
#[allow(
    unsafe_code,
    reason = "the standard library has no safe way to set the child's signal mask"
)]
pub(super) fn in_own_group(program: &OsStr, args: &[OsString]) -> io::Result<Pid> {
    let mut command = Command::new(program);
    command.args(args).process_group(0);
    // SAFETY: the closure runs in the child between fork and exec, where only functions that are safe after fork in a
    // process with threads may be called. It makes three system calls (prctl, getppid, pthread_sigmask) on values of
    // its own, allocates nothing, takes no lock, and turns an error number into an `io::Error` without allocating.
    unsafe {
        command.pre_exec(|| {
            #[cfg(target_os = "linux")]
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(|_| io::Error::other("the process id is out of range"))?;
    Ok(Pid::from_raw(pid))
}

/// Lets go of standard input, output and error: the child alone has them now, so that its end closes them.
pub(super) fn release_standard_streams() -> Result<(), Errno> {
    let nothing = File::options().read(true).write(true).open("/dev/null");
    let nothing = nothing.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)
}
