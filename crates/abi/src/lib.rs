//! Linux's ABI as types and constants: what guest programs and our kernel exchange. Constants come from `linux-raw-sys`
//! (re-exported as [`raw`] and friends); structures that cross the guest boundary are plain old data, so that they can be
//! copied from and to guest memory byte for byte.

mod errno;
pub mod syscall;
pub mod types;

pub use errno::Errno;
pub use linux_raw_sys::{auxvec as raw_auxvec, errno as raw_errno, general as raw, ioctl as raw_ioctl, net as raw_net, prctl as raw_prctl};

/// Size of a page of memory.
pub const PAGE_SIZE: u64 = 4096;

/// `value` rounded down to a page boundary.
pub const fn page_down(value: u64) -> u64 {
    value & !(PAGE_SIZE - 1)
}

/// `value` rounded up to a page boundary; `None` on overflow.
pub const fn page_up(value: u64) -> Option<u64> {
    match value.checked_add(PAGE_SIZE - 1) {
        Some(sum) => Some(sum & !(PAGE_SIZE - 1)),
        None => None,
    }
}
