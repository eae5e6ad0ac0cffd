//! The host's side: error numbers, and readiness of host descriptors.
//!
//! Lock order: a host descriptor's watch state, then the poller's table. Neither is held while a queue is notified.

pub mod descriptor;
mod poller;
pub mod thrift;
pub mod transfer;

pub use descriptor::HostDescriptor;

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use cloudpilot_abi::Errno;
use rustix::process::Resource;

/// The host's error number as ours; they are the same numbers.
pub fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error() as u16)
}

/// Descriptors that the guest's files and sockets leave free, however many it opens: for directories of the lower layer on the way to a program,
/// for clients of the control socket and what they hand over. Half of all where the host gives fewer than twice as many.
const RESERVED: i32 = 384;

/// One past the highest number that the guest's files may have.
static LIMIT: OnceLock<i32> = OnceLock::new();

/// Makes ready for later what the host is not asked for any more then: notes how many descriptors this process may have, and makes the poller's epoll.
pub fn prepare() {
    poller::prepare();
    LIMIT.get_or_init(|| {
        let limit = rustix::process::getrlimit(Resource::Nofile).current.map_or(i32::MAX, |limit| limit.min(i32::MAX as u64) as i32);
        limit - RESERVED.min(limit / 2)
    });
}

/// A descriptor that was just opened for the guest, or `ENFILE` if none but the reserved are left. The host gives the lowest free number, so that
/// the number tells how many there are.
pub fn within_limit(descriptor: OwnedFd) -> Result<OwnedFd, Errno> {
    let limit = LIMIT.get().copied().unwrap_or(i32::MAX);
    if descriptor.as_raw_fd() < limit { Ok(descriptor) } else { Err(Errno::ENFILE) }
}
