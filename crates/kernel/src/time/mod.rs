//! Clocks and timers.

pub mod service;
pub mod timers;

use cloudpilot_abi::types::Timespec;
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the host's monotonic clock; the unit of every deadline in the kernel.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Wall-clock time.
pub fn realtime() -> Timespec {
    let now = clock_gettime(ClockId::Realtime);
    Timespec { tv_sec: now.tv_sec, tv_nsec: now.tv_nsec as i64 }
}
