//! The table: every number of the architecture, from the families and from the list of the unsupported.

use std::sync::OnceLock;

use super::{Args, Call, Support, SysResult};
use crate::task::Task;
use cloudpilot_abi::Errno;
use std::sync::Arc;

/// Every family's calls. A new family is one line here.
const FAMILIES: &[&[Call]] = &[
    super::system::CALLS,
    super::schedule::CALLS,
    super::refused::CALLS,
    super::transfer::CALLS,
    super::aio::CALLS,
    super::descriptor::CALLS,
    super::ioctl::CALLS,
    super::record_locks::CALLS,
    super::poll::CALLS,
    super::epoll::CALLS,
    super::event_files::CALLS,
    super::open::CALLS,
    super::names::CALLS,
    super::stat::CALLS,
    super::xattr::CALLS,
    super::mount::CALLS,
    super::mount_files::CALLS,
    super::memory::CALLS,
    super::nodes::CALLS,
    super::storage::CALLS,
    super::splice::CALLS,
    super::socket::CALLS,
    super::peers::CALLS,
    super::process::CALLS,
    super::ptrace::CALLS,
    super::signal::CALLS,
    super::futex::CALLS,
    super::seccomp::CALLS,
    super::ipc::CALLS,
    super::barrier::CALLS,
    super::clock::CALLS,
    super::credentials::CALLS,
    super::limits::CALLS,
];

fn unsupported(_task: &Arc<Task>, _args: &Args) -> SysResult {
    Err(Errno::ENOSYS)
}

/// The table by number.
pub fn table() -> &'static [Call] {
    static TABLE: OnceLock<Vec<Call>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table: Vec<Call> = (0..cloudpilot_abi::syscall::COUNT as u32)
            .map(|number| Call { number, handler: unsupported, support: Support::Unsupported, note: reason(number), args: &[] })
            .collect();
        for call in FAMILIES.iter().copied().flatten() {
            table[call.number as usize] = *call;
        }
        table
    })
}

fn reason(number: u32) -> &'static str {
    super::unsupported::UNSUPPORTED.iter().find(|entry| entry.0 == number).map_or("", |entry| entry.1)
}
