//! `futex(2)` and its newer forms, robust lists.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, raw};

use super::Arg::{Flags, Int, Ptr, Size};
use super::{Args, Call, SysResult, clock};
use crate::futex::{self, ANY, Word};
use crate::task::Task;

/// This family.
pub const CALLS: &[Call] = &[
    Call::partial(
        raw::__NR_futex,
        futex,
        &[Ptr, Flags, Size, Ptr, Ptr, Size],
        "locks with priority inheritance go to waiters in the order of their coming; the host's scheduler does not hear of priorities",
    ),
    Call::full(raw::__NR_futex_wait, futex_wait, &[Ptr, Size, Size, Flags, Ptr, Int]),
    Call::full(raw::__NR_futex_wake, futex_wake, &[Ptr, Size, Int, Flags]),
    Call::full(raw::__NR_futex_requeue, futex_requeue, &[Ptr, Flags, Int, Int]),
    Call::full(raw::__NR_futex_waitv, futex_waitv, &[Ptr, Size, Flags, Ptr, Int]),
    Call::full(raw::__NR_set_robust_list, set_robust_list, &[Ptr, Size]),
    Call::full(raw::__NR_get_robust_list, get_robust_list, &[Int, Ptr, Ptr]),
];

/// `sizeof(struct robust_list_head)`.
const ROBUST_HEAD_SIZE: u64 = 24;
/// `FUTEX2_SIZE_U32`, the only size there is.
const FUTEX2_SIZE_U32: u32 = 2;
/// Most words of `futex_waitv(2)`, `FUTEX_WAITV_MAX`.
const WAITV_MAX: usize = 128;

fn futex(task: &Arc<Task>, args: &Args) -> SysResult {
    let (address, operation, value) = (args.raw(0), args.uint(1), args.uint(2));
    let shared = operation & raw::FUTEX_PRIVATE_FLAG == 0;
    let command = operation & !(raw::FUTEX_PRIVATE_FLAG | raw::FUTEX_CLOCK_REALTIME);
    let realtime = operation & raw::FUTEX_CLOCK_REALTIME != 0;
    if realtime && !matches!(command, raw::FUTEX_WAIT_BITSET | raw::FUTEX_WAIT_REQUEUE_PI | raw::FUTEX_LOCK_PI2) {
        return Err(Errno::ENOSYS);
    }
    match command {
        raw::FUTEX_WAIT | raw::FUTEX_WAIT_BITSET => {
            let deadline = match args.raw(3) {
                0 => None,
                at => {
                    let time: Timespec = task.read(at)?;
                    Some(match command {
                        raw::FUTEX_WAIT => clock::deadline_after(time)?,
                        _ => clock::deadline_at(if realtime { raw::CLOCK_REALTIME } else { raw::CLOCK_MONOTONIC } as i32, time)?,
                    })
                }
            };
            let bits = if command == raw::FUTEX_WAIT { ANY } else { args.uint(5) };
            let result = futex::wait(task, &[Word { address, value, bits, shared }], deadline).map(|_| 0);
            // A relative timeout must not start anew.
            match result {
                Err(Errno::ERESTARTSYS) if deadline.is_some() => {
                    *task.restart.lock() =
                        Some(Box::new(move |task| futex::wait(task, &[Word { address, value, bits, shared }], deadline).map(|_| 0)));
                    Err(Errno::ERESTART_RESTARTBLOCK)
                }
                result => result,
            }
        }
        raw::FUTEX_WAKE => futex::wake(task, address, value, ANY, shared),
        raw::FUTEX_WAKE_BITSET => futex::wake(task, address, value, args.uint(5), shared),
        raw::FUTEX_REQUEUE | raw::FUTEX_CMP_REQUEUE => {
            let expected = (command == raw::FUTEX_CMP_REQUEUE).then(|| args.uint(5));
            let (wakes, moves) = (args.int(2), args.int(3));
            if wakes < 0 || moves < 0 {
                return Err(Errno::EINVAL);
            }
            futex::requeue(task, (address, args.raw(4)), (wakes as u32, moves as u32), expected, (shared, shared))
        }
        raw::FUTEX_WAKE_OP => futex::wake_op(task, (address, args.raw(4)), (value, args.uint(3)), args.uint(5), shared),
        raw::FUTEX_LOCK_PI | raw::FUTEX_LOCK_PI2 | raw::FUTEX_TRYLOCK_PI => {
            let monotonic = command == raw::FUTEX_LOCK_PI2 && !realtime;
            let try_only = command == raw::FUTEX_TRYLOCK_PI;
            let deadline = if try_only { None } else { lock_deadline(task, args.raw(3), monotonic)? };
            futex::lock(task, address, shared, deadline, try_only)
        }
        raw::FUTEX_UNLOCK_PI => futex::unlock(task, address, shared),
        raw::FUTEX_WAIT_REQUEUE_PI => {
            let deadline = lock_deadline(task, args.raw(3), !realtime)?;
            futex::wait_requeue(task, &Word { address, value, bits: ANY, shared }, args.raw(4), deadline)
        }
        raw::FUTEX_CMP_REQUEUE_PI => {
            let (wakes, moves) = (args.int(2), args.int(3));
            if wakes != 1 || moves < 0 {
                return Err(Errno::EINVAL);
            }
            futex::requeue_to_lock(task, (address, args.raw(4)), 1 + moves as usize, args.uint(5), shared)
        }
        _ => Err(Errno::ENOSYS),
    }
}

/// The absolute timeout of the calls about priority-inheritance locks.
fn lock_deadline(task: &Task, address: u64, monotonic: bool) -> Result<Option<u64>, Errno> {
    let clock = if monotonic { raw::CLOCK_MONOTONIC } else { raw::CLOCK_REALTIME };
    if address == 0 { Ok(None) } else { clock::deadline_at(clock as i32, task.read(address)?).map(Some) }
}

/// Checks the flags of the newer calls; answers whether the word is shared.
fn futex2_shared(flags: u32) -> Result<bool, Errno> {
    if flags & !raw::FUTEX_PRIVATE_FLAG != FUTEX2_SIZE_U32 {
        return Err(Errno::EINVAL);
    }
    Ok(flags & raw::FUTEX_PRIVATE_FLAG == 0)
}

fn futex2_deadline(task: &Task, address: u64, clock: i32) -> Result<Option<u64>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    if clock != raw::CLOCK_MONOTONIC as i32 && clock != raw::CLOCK_REALTIME as i32 {
        return Err(Errno::EINVAL);
    }
    clock::deadline_at(clock, task.read(address)?).map(Some)
}

fn futex_wait(task: &Arc<Task>, args: &Args) -> SysResult {
    let shared = futex2_shared(args.uint(3))?;
    let deadline = futex2_deadline(task, args.raw(4), args.int(5))?;
    let (value, bits) = (u32::try_from(args.raw(1)), u32::try_from(args.raw(2)));
    let (Ok(value), Ok(bits)) = (value, bits) else { return Err(Errno::EINVAL) };
    futex::wait(task, &[Word { address: args.raw(0), value, bits, shared }], deadline).map(|_| 0)
}

fn futex_wake(task: &Arc<Task>, args: &Args) -> SysResult {
    let shared = futex2_shared(args.uint(3))?;
    let bits = u32::try_from(args.raw(1)).map_err(|_| Errno::EINVAL)?;
    futex::wake(task, args.raw(0), args.int(2).max(0) as u32, bits, shared)
}

/// `struct futex_waitv`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct WaitV {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

impl WaitV {
    fn word(&self) -> Result<Word, Errno> {
        let value = u32::try_from(self.value).map_err(|_| Errno::EINVAL)?;
        if self.reserved != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Word { address: self.address, value, bits: ANY, shared: futex2_shared(self.flags)? })
    }
}

fn futex_requeue(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.uint(1) != 0 || args.int(2) < 0 || args.int(3) < 0 {
        return Err(Errno::EINVAL);
    }
    let words: Vec<WaitV> = task.read_slice(args.raw(0), 2)?;
    let (from, to) = (words[0].word()?, words[1].word()?);
    let counts = (args.uint(2), args.uint(3));
    futex::requeue(task, (from.address, to.address), counts, Some(from.value), (from.shared, to.shared))
}

fn futex_waitv(task: &Arc<Task>, args: &Args) -> SysResult {
    let count = args.size(1);
    if args.uint(2) != 0 || !(1..=WAITV_MAX).contains(&count) {
        return Err(Errno::EINVAL);
    }
    let words: Vec<WaitV> = task.read_slice(args.raw(0), count)?;
    let words = words.iter().map(WaitV::word).collect::<Result<Vec<_>, _>>()?;
    let deadline = futex2_deadline(task, args.raw(3), args.int(4))?;
    futex::wait(task, &words, deadline)
}

fn set_robust_list(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.raw(1) != ROBUST_HEAD_SIZE {
        return Err(Errno::EINVAL);
    }
    task.robust_list.store(args.raw(0), Ordering::Relaxed);
    Ok(0)
}

fn get_robust_list(task: &Arc<Task>, args: &Args) -> SysResult {
    let target = match args.int(0) {
        0 => Arc::clone(task),
        tid => task.find_task(tid).ok_or(Errno::ESRCH)?,
    };
    if !crate::fs::proc::may_trace(task, &target) {
        return Err(Errno::EPERM);
    }
    task.write(args.raw(1), &target.robust_list.load(Ordering::Relaxed))?;
    task.write(args.raw(2), &ROBUST_HEAD_SIZE)?;
    Ok(0)
}
