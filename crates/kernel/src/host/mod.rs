//! The host's side: error numbers, and readiness of host descriptors.

use cloudpilot_abi::Errno;

/// The host's error number as ours; they are the same numbers.
pub fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error() as u16)
}
