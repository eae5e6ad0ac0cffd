//! Files that the kernel makes for events and memory: `eventfd`, `memfd_create`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::{Arg, Args, Call, SysResult, blocking};
use crate::fs::{eventfd, memfd};
use crate::task::Task;

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_eventfd, eventfd, &[Arg::Size]),
    Call::full(raw::__NR_eventfd2, eventfd2, &[Arg::Size, Arg::Flags]),
    Call::partial(raw::__NR_memfd_create, memfd_create, &[Arg::Path, Arg::Flags], "huge pages are refused"),
];

fn eventfd(task: &Arc<Task>, args: &Args) -> SysResult {
    blocking::install(task, eventfd::open(args.uint(0), false, 0), 0)
}

fn eventfd2(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(1);
    if flags & !(raw::EFD_SEMAPHORE | raw::EFD_CLOEXEC | raw::EFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    blocking::install(task, eventfd::open(args.uint(0), flags & raw::EFD_SEMAPHORE != 0, flags), flags)
}

/// Longest name of a memfd: a file name without `memfd:`.
const MEMFD_NAME_MAX: usize = 249;

fn memfd_create(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(1);
    let known = raw::MFD_CLOEXEC | raw::MFD_ALLOW_SEALING | raw::MFD_NOEXEC_SEAL | raw::MFD_EXEC;
    let contrary = raw::MFD_NOEXEC_SEAL | raw::MFD_EXEC;
    if flags & !known != 0 || flags & contrary == contrary {
        return Err(Errno::EINVAL);
    }
    let name = task.read_string(args.raw(0), MEMFD_NAME_MAX + 1, Errno::EINVAL)?;
    let close_on_exec = if flags & raw::MFD_CLOEXEC != 0 { raw::O_CLOEXEC } else { 0 };
    blocking::install(task, memfd::create(task, name, flags), close_on_exec)
}
