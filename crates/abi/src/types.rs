//! Structures of the x86-64 system-call interface. Field names are Linux's; all are plain old data without padding.

use bytemuck::{Pod, Zeroable};

/// `struct timespec`: seconds and nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
pub struct Timespec {
    /// Seconds.
    pub tv_sec: i64,
    /// Nanoseconds, `0..1_000_000_000`.
    pub tv_nsec: i64,
}

/// `struct timeval`: seconds and microseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Timeval {
    /// Seconds.
    pub tv_sec: i64,
    /// Microseconds, `0..1_000_000`.
    pub tv_usec: i64,
}

/// `struct iovec`: one piece of a scattered buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Iovec {
    /// Address in the guest.
    pub iov_base: u64,
    /// Length in bytes.
    pub iov_len: u64,
}

/// `struct stat` of x86-64, `stat(2)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[expect(missing_docs, reason = "the names are the manual page's")]
pub struct Stat {
    pub st_dev: u64,
    pub st_ino: u64,
    pub st_nlink: u64,
    pub st_mode: u32,
    pub st_uid: u32,
    pub st_gid: u32,
    pub pad0: u32,
    pub st_rdev: u64,
    pub st_size: i64,
    pub st_blksize: i64,
    pub st_blocks: i64,
    pub st_atim: Timespec,
    pub st_mtim: Timespec,
    pub st_ctim: Timespec,
    pub unused: [i64; 3],
}

/// The kernel's `struct sigaction` of x86-64, `rt_sigaction(2)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Sigaction {
    /// Address of the handler, or `SIG_DFL` (0), `SIG_IGN` (1).
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Address of the code that calls `rt_sigreturn`.
    pub restorer: u64,
    /// Signals blocked while the handler runs.
    pub mask: u64,
}

/// `siginfo_t`, 128 bytes, `sigaction(2)`; the union is read through the accessors of the kernel's signal module.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Siginfo {
    /// Signal number.
    pub si_signo: i32,
    /// Error number, mostly 0.
    pub si_errno: i32,
    /// `SI_*`, `CLD_*`, `SEGV_*`, …
    pub si_code: i32,
    /// Alignment of the union.
    pub pad: i32,
    /// The union `_sifields`, as words.
    pub fields: [u64; 14],
}

/// `stack_t`, `sigaltstack(2)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct StackT {
    /// Lowest address.
    pub ss_sp: u64,
    /// `SS_*`.
    pub ss_flags: i32,
    /// Padding.
    pub pad: i32,
    /// Bytes.
    pub ss_size: u64,
}
