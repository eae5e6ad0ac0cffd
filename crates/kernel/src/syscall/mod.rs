//! System calls: one table by number, one file a family. The families only decode arguments and call the objects.

mod aio;
pub mod at;
mod barrier;
pub mod blocking;
mod clock;
mod credentials;
mod descriptor;
pub mod dispatch;
mod epoll;
mod event_files;
mod futex;
mod ioctl;
mod ipc;
mod limits;
pub mod memory;
mod message;
pub mod mount;
mod mount_files;
pub mod names;
mod nodes;
pub mod open;
mod peers;
pub mod poll;
mod prctl;
mod process;
mod ptrace;
mod record_locks;
pub mod reference;
mod refused;
mod schedule;
mod seccomp;
mod signal;
mod socket;
mod splice;
pub mod stat;
mod storage;
mod strace;
mod system;
pub mod table;
mod transfer;
pub mod unsupported;
pub mod user_dispatch;
pub mod xattr;

use std::sync::Arc;

use cloudpilot_abi::Errno;
use cloudpilot_platform::Registers;

use crate::task::Task;

/// What a handler answers: the value for `rax`, or an error number.
pub type SysResult = Result<usize, Errno>;

/// The six arguments, as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Args(pub [u64; 6]);

impl Args {
    /// As the registers have them.
    pub fn of(registers: &Registers) -> Self {
        Self([registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9])
    }

    /// An argument whole.
    pub fn raw(&self, index: usize) -> u64 {
        self.0[index]
    }

    /// As a C `int`: the upper half is ignored, as Linux does.
    pub fn int(&self, index: usize) -> i32 {
        self.0[index] as i32
    }

    /// As a C `unsigned int`.
    pub fn uint(&self, index: usize) -> u32 {
        self.0[index] as u32
    }

    /// As a `size_t`.
    pub fn size(&self, index: usize) -> usize {
        self.0[index] as usize
    }

    /// As a C `long`.
    pub fn long(&self, index: usize) -> i64 {
        self.0[index] as i64
    }
}

/// A handler.
pub type Handler = fn(&Arc<Task>, &Args) -> SysResult;

/// How much of a call is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// As on Linux.
    Full,
    /// With the limits that the note names.
    Partial,
    /// Answers `EPERM`, as a container without the privilege gets it; the note says why.
    Refused,
    /// Answers `ENOSYS`; the note says why.
    Unsupported,
}

/// How `--strace` prints an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// Descriptor, or `AT_FDCWD`.
    Fd,
    /// C string in the guest.
    Path,
    /// Buffer in, whose length is the next argument (`write`).
    In,
    /// Buffer out (`read`).
    Out,
    /// Address.
    Ptr,
    /// Signed number.
    Int,
    /// Unsigned number or size.
    Size,
    /// Flags, in hexadecimal.
    Flags,
    /// Octal mode.
    Mode,
    /// Signal number.
    Signal,
}

/// One line of the table.
#[derive(Clone, Copy)]
pub struct Call {
    /// Number.
    pub number: u32,
    /// Handler.
    pub handler: Handler,
    /// How much is there.
    pub support: Support,
    /// What is missing, or why; empty for full calls.
    pub note: &'static str,
    /// For `--strace`.
    pub args: &'static [Arg],
}

impl Call {
    /// A call served as Linux does.
    pub const fn full(number: u32, handler: Handler, args: &'static [Arg]) -> Self {
        Self { number, handler, support: Support::Full, note: "", args }
    }

    /// A call served with limits.
    pub const fn partial(number: u32, handler: Handler, args: &'static [Arg], note: &'static str) -> Self {
        Self { number, handler, support: Support::Partial, note, args }
    }
}
