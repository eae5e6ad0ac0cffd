//! Calls about other processes by descriptor or number: their files, memory advice, comparisons.

use std::cmp::Ordering;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::Arg::{Fd, Flags, Int, Ptr, Size};
use super::{Args, Call, SysResult};
use crate::fs::{pidfd, proc};
use crate::task::{Process, Task};

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_pidfd_getfd, pidfd_getfd, &[Fd, Int, Flags]),
    Call::partial(raw::__NR_kcmp, kcmp, &[Int, Int, Int, Size, Size], "descriptors inside an epoll set cannot be compared"),
    Call::partial(
        raw::__NR_process_madvise,
        process_madvise,
        &[Fd, Ptr, Size, Int, Flags],
        "advice is checked and counted, and has no effect on other processes",
    ),
    Call::full(raw::__NR_process_mrelease, process_mrelease, &[Fd, Flags]),
];

fn live_task(process: &Process) -> Result<Arc<Task>, Errno> {
    process.family.lock().tasks.first().cloned().ok_or(Errno::ESRCH)
}

fn pidfd_getfd(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.uint(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let target = live_task(&*pidfd::process_of(&*task.file(args.int(0))?)?)?;
    if !proc::may_trace(task, &target) {
        return Err(Errno::EPERM);
    }
    let file = target.files().get(args.int(1))?;
    task.install(file, true).map(|fd| fd as usize)
}

/// `KCMP_*` of `kcmp(2)`.
const FILE: i32 = 0;
const MEMORY: i32 = 1;
const FILES: i32 = 2;
const FS: i32 = 3;
const HANDLERS: i32 = 4;
const IO: i32 = 5;
const SEMAPHORE_UNDO: i32 = 6;

fn kcmp(task: &Arc<Task>, args: &Args) -> SysResult {
    let find = |pid| task.find_task(pid).ok_or(Errno::ESRCH);
    let (one, other) = (find(args.int(0))?, find(args.int(1))?);
    if !proc::may_trace(task, &one) || !proc::may_trace(task, &other) {
        return Err(Errno::EPERM);
    }
    let address = |of: &Arc<Task>, descriptor: u64| -> Result<usize, Errno> {
        Ok(match args.int(2) {
            FILE => Arc::as_ptr(&of.files().get(i32::try_from(descriptor).map_err(|_| Errno::EBADF)?)?) as usize,
            MEMORY => Arc::as_ptr(&of.mm()?) as usize,
            FILES => Arc::as_ptr(&of.files()) as usize,
            FS => Arc::as_ptr(&of.fs.lock()) as usize,
            HANDLERS | IO | SEMAPHORE_UNDO => Arc::as_ptr(&of.process) as usize,
            _ => return Err(Errno::EINVAL),
        })
    };
    // Scrambled, as on Linux: the order is good for sorting, and tells nothing about where things are.
    let scramble = |value: usize| value.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ value.rotate_left(29);
    let (one, other) = (scramble(address(&one, args.raw(3))?), scramble(address(&other, args.raw(4))?));
    Ok(match one.cmp(&other) {
        Ordering::Equal => 0,
        Ordering::Less => 1,
        Ordering::Greater => 2,
    })
}

fn process_madvise(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.uint(4) != 0 {
        return Err(Errno::EINVAL);
    }
    let pieces = task.read_iovec(args.raw(1), args.size(2))?;
    let target = live_task(&*pidfd::process_of(&*task.file(args.int(0))?)?)?;
    if !matches!(args.uint(3), raw::MADV_COLD | raw::MADV_PAGEOUT | raw::MADV_WILLNEED | raw::MADV_COLLAPSE) {
        return Err(Errno::EINVAL);
    }
    if !proc::may_trace(task, &target) || !task.credentials().has(raw::CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let mm = target.mm()?;
    let mut total = 0;
    for piece in pieces {
        match mm.change_areas(piece.iov_base, piece.iov_len, |_| {}) {
            Ok(()) => total += piece.iov_len as usize,
            Err(errno) if total == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(total)
}

fn process_mrelease(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.uint(1) != 0 {
        return Err(Errno::EINVAL);
    }
    let process = pidfd::process_of(&*task.file(args.int(0))?)?;
    let family = process.family.lock();
    match (family.tasks.is_empty(), family.exiting.is_some()) {
        (true, _) => Err(Errno::ESRCH),
        // Its memory goes with its last thread, which is on its way out.
        (false, true) => Ok(0),
        (false, false) => Err(Errno::EINVAL),
    }
}
