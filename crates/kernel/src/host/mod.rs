//! The host's side: error numbers, and readiness of host descriptors.
//!
//! Lock order: a host descriptor's watch state, then the poller's table. Neither is held while a queue is notified.

pub mod descriptor;
mod poller;

pub use descriptor::HostDescriptor;

use cloudpilot_abi::Errno;

/// The host's error number as ours; they are the same numbers.
pub fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error() as u16)
}
