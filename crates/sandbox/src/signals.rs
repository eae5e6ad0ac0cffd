//! Signals of the caller: blocked from the start, read from a descriptor, handed on.

use std::os::fd::{FromRawFd, OwnedFd};

use crate::failure::Failure;

/// Signals that are handed on to the program. Those that stop and continue act on us; the sandbox runs on meanwhile.
const HANDED_ON: [i32; 8] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGALRM, libc::SIGWINCH];

/// Where they arrive.
#[derive(Debug)]
pub struct Signals {
    descriptor: OwnedFd,
}

fn set(numbers: &[i32]) -> libc::sigset_t {
    // SAFETY: the set is initialized by `sigemptyset` before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &number in numbers {
            libc::sigaddset(&raw mut set, number);
        }
        set
    }
}

impl Signals {
    /// From now on they come here.
    pub fn collect() -> Result<Self, Failure> {
        let wanted = set(&HANDED_ON);
        // SAFETY: the set lives across both calls; the descriptor is new.
        let descriptor = unsafe {
            libc::sigprocmask(libc::SIG_BLOCK, &raw const wanted, std::ptr::null_mut());
            libc::signalfd(-1, &raw const wanted, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if descriptor < 0 {
            return Err(Failure::host("Cannot receive signals", std::io::Error::last_os_error()));
        }
        // SAFETY: just opened, owned by nobody else.
        Ok(Self { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) } })
    }

    /// For waiting until one is there.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// The next one that has arrived.
    pub fn next(&self) -> Option<i32> {
        /// `sizeof(struct signalfd_siginfo)`; it begins with the number.
        const SIZE: usize = 128;
        let mut information = [0; SIZE];
        let length = rustix::io::read(&self.descriptor, &mut information).ok()?;
        (length == SIZE).then(|| i32::from_ne_bytes([information[0], information[1], information[2], information[3]]))
    }
}

/// In the kernel process: signals are received as anywhere.
pub fn unblock() {
    let none = set(&[]);
    // SAFETY: the set lives across the call.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}
