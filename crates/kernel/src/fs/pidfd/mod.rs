//! `pidfd_open(2)`: a process as a descriptor, readable once the process has ended.

use std::any::Any;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use crate::namespace::pid::PidNamespace;
use crate::task::Process;
use crate::vfs::anonymous;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::FileType;
use crate::wait::{PollEvents, WaitQueue};

/// A process behind a descriptor.
pub struct PidFd {
    process: Arc<Process>,
}

/// A new descriptor's file; `flags` may hold `O_NONBLOCK`.
pub fn open(process: &Arc<Process>, flags: u32) -> Arc<File> {
    let ops = PidFd { process: Arc::clone(process) };
    anonymous::open("anon_inode:[pidfd]", FileType::Anonymous, Arc::new(ops), raw::O_RDWR | flags & raw::O_NONBLOCK)
}

/// The process behind a file; `EBADF` if it is no pidfd.
pub fn process_of(file: &File) -> Result<Arc<Process>, Errno> {
    file.ops_as::<PidFd>().map(|ops| Arc::clone(&ops.process)).ok_or(Errno::EBADF)
}

/// What `fdinfo` of a procfs that names processes by these numbers says about a pidfd; nothing about other files.
pub fn describe(file: &File, numbers: &PidNamespace) -> String {
    let Ok(process) = process_of(file) else { return String::new() };
    if process.is_reaped() {
        return "Pid:\t-1\nNSpid:\t-1\n".to_owned();
    }
    if !process.numbers.is_within(numbers) {
        return "Pid:\t0\nNSpid:\t0\n".to_owned();
    }
    format!("Pid:\t{}\nNSpid:\t{}\n", numbers.show(process.pid), process.numbers.show_all(process.pid, numbers))
}

impl FileOps for PidFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn poll(&self, _file: &File) -> PollEvents {
        let mut events = PollEvents::empty();
        events.set(PollEvents::IN | PollEvents::RDNORM, self.process.has_exited());
        events.set(PollEvents::HUP, self.process.is_reaped());
        events
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.process.changes)
    }
}
