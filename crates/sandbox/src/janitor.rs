//! The janitor: a copy of the supervisor that only waits for it to die, and if that happens before it could clean up, does so in its place. Like
//! the sandbox it costs nothing while it waits.

use std::os::fd::{AsFd, OwnedFd};

use cloudpilot_jail::privileges;
use cloudpilot_kernel::host::thrift;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::failure::Failure;
use crate::state::Remnants;

/// A janitor, as its supervisor sees it.
#[derive(Debug)]
pub struct Janitor {
    pid: Pid,
    /// Closed by the host when the supervisor dies.
    _alive: OwnedFd,
}

impl Janitor {
    /// Makes one for the kernel process behind `kernel`.
    pub fn hire(kernel: &OwnedFd, remnants: &Remnants) -> Result<Self, Failure> {
        let (watch, alive) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| Failure::host("Cannot make a pipe", error))?;
        // SAFETY: the supervisor has this one thread.
        match unsafe { libc::fork() } {
            0 => {
                drop(alive);
                work(&watch, kernel, remnants)
            }
            pid => match Pid::from_raw(pid) {
                Some(pid) if pid.as_raw_nonzero().get() > 0 => Ok(Self { pid, _alive: alive }),
                _ => Err(Failure::host("Cannot make the janitor process", std::io::Error::last_os_error())),
            },
        }
    }

    /// Lets it go, without waiting for that: nothing is left that it would have to do.
    pub fn release(&self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }

    /// Ends it: the supervisor has cleaned up.
    pub fn dismiss(self) {
        self.release();
        let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

fn work(watch: &OwnedFd, kernel: &OwnedFd, remnants: &Remnants) -> ! {
    // Whoever reads the program's output must not wait for us to close it.
    let _ = privileges::close_all_except(&[watch.as_fd(), kernel.as_fd()]);
    let _ = rustix::process::setsid();
    thrift::give_back();
    wait_for(watch);
    let _ = rustix::process::pidfd_send_signal(kernel, Signal::KILL);
    wait_for(kernel);
    let status = i32::from(remnants.remove().is_err());
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

fn wait_for(descriptor: &OwnedFd) {
    while poll(&mut [PollFd::new(descriptor, PollFlags::IN)], None) == Err(rustix::io::Errno::INTR) {}
}
