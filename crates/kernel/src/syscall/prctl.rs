//! Options of `prctl(2)` that are checked and remembered: they ask for things that the host decides about.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::{Errno, raw, raw_prctl};

use super::user_dispatch::{self, UserDispatch};
use super::{Args, SysResult};
use crate::task::Task;

/// `PR_SET_MEMORY_MERGE` and `PR_GET_MEMORY_MERGE`.
const PR_SET_MEMORY_MERGE: u32 = 67;
const PR_GET_MEMORY_MERGE: u32 = 68;
/// See [`user_dispatch`].
const PR_SET_SYSCALL_USER_DISPATCH: u32 = 59;
/// `PR_SET_IO_FLUSHER` and `PR_GET_IO_FLUSHER`.
const PR_SET_IO_FLUSHER: u32 = 57;
const PR_GET_IO_FLUSHER: u32 = 58;
/// `PR_GET_SPECULATION_CTRL`: what it may ask about.
const SPECULATION_KINDS: u64 = 3;
/// Bits of [`memory_habits`](crate::task::Process::memory_habits).
const NO_HUGE_PAGES: u32 = 1;
const MERGES_PAGES: u32 = 2;

/// `EINVAL` unless all arguments from this one on are zero.
fn unused(args: &Args, from: usize) -> Result<(), Errno> {
    if args.0[from..5].iter().all(|value| *value == 0) { Ok(()) } else { Err(Errno::EINVAL) }
}

fn privileged(task: &Task) -> Result<(), Errno> {
    if task.credentials().has(raw::CAP_SYS_RESOURCE) { Ok(()) } else { Err(Errno::EPERM) }
}

fn set_habit(task: &Task, habit: u32, on: bool) {
    let habits = &task.process.memory_habits;
    if on {
        habits.fetch_or(habit, Ordering::Relaxed);
    } else {
        habits.fetch_and(!habit, Ordering::Relaxed);
    }
}

fn has_habit(task: &Task, habit: u32) -> usize {
    usize::from(task.process.memory_habits.load(Ordering::Relaxed) & habit != 0)
}

/// The options of this sort; `EINVAL` for all others.
pub(super) fn remembered(task: &Arc<Task>, args: &Args) -> SysResult {
    let (option, value) = (args.uint(0), args.raw(1));
    match option {
        raw_prctl::PR_GET_TIMING => Ok(raw_prctl::PR_TIMING_STATISTICAL as usize),
        raw_prctl::PR_SET_TIMING if value == u64::from(raw_prctl::PR_TIMING_STATISTICAL) => Ok(0),
        raw_prctl::PR_GET_TIMERSLACK => Ok(task.scheduling.lock().timer_slack.0 as usize),
        raw_prctl::PR_SET_TIMERSLACK => {
            let slack = &mut task.scheduling.lock().timer_slack;
            slack.0 = if (value as i64) <= 0 { slack.1 } else { value };
            Ok(0)
        }
        raw_prctl::PR_SET_THP_DISABLE => {
            unused(args, 2)?;
            set_habit(task, NO_HUGE_PAGES, value != 0);
            Ok(0)
        }
        raw_prctl::PR_GET_THP_DISABLE => unused(args, 1).map(|()| has_habit(task, NO_HUGE_PAGES)),
        PR_SET_MEMORY_MERGE => {
            unused(args, 2)?;
            set_habit(task, MERGES_PAGES, value != 0);
            Ok(0)
        }
        PR_GET_MEMORY_MERGE => unused(args, 1).map(|()| has_habit(task, MERGES_PAGES)),
        // There are no counters to start or stop.
        raw_prctl::PR_TASK_PERF_EVENTS_DISABLE | raw_prctl::PR_TASK_PERF_EVENTS_ENABLE => Ok(0),
        raw_prctl::PR_MCE_KILL => memory_failure(task, args),
        raw_prctl::PR_MCE_KILL_GET => {
            unused(args, 1)?;
            Ok(task.scheduling.lock().memory_failure_policy as usize)
        }
        PR_SET_IO_FLUSHER => {
            privileged(task)?;
            unused(args, 2)?;
            task.scheduling.lock().flushes_io = match value {
                0 => false,
                1 => true,
                _ => return Err(Errno::EINVAL),
            };
            Ok(0)
        }
        PR_GET_IO_FLUSHER => {
            privileged(task)?;
            unused(args, 1)?;
            Ok(usize::from(task.scheduling.lock().flushes_io))
        }
        raw_prctl::PR_SET_MM => privileged(task).and(Err(Errno::EINVAL)),
        // The host has its own mitigations, which programs cannot switch.
        raw_prctl::PR_GET_SPECULATION_CTRL => {
            unused(args, 2)?;
            if value < SPECULATION_KINDS { Ok(raw_prctl::PR_SPEC_ENABLE as usize) } else { Err(Errno::ENODEV) }
        }
        raw_prctl::PR_SET_SPECULATION_CTRL => {
            unused(args, 3)?;
            Err(if value < SPECULATION_KINDS { Errno::ENXIO } else { Errno::ENODEV })
        }
        PR_SET_SYSCALL_USER_DISPATCH => {
            let wanted = UserDispatch { mode: value, offset: args.raw(2), length: args.raw(3), selector: args.raw(4) };
            user_dispatch::set(task, wanted).map(|()| 0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `PR_MCE_KILL`: how a task wants to hear of broken memory.
fn memory_failure(task: &Task, args: &Args) -> SysResult {
    unused(args, 3)?;
    let policy = match (args.uint(1), args.raw(2)) {
        (raw_prctl::PR_MCE_KILL_CLEAR, 0) => raw_prctl::PR_MCE_KILL_DEFAULT,
        (raw_prctl::PR_MCE_KILL_SET, policy) if policy <= u64::from(raw_prctl::PR_MCE_KILL_DEFAULT) => policy as u32,
        _ => return Err(Errno::EINVAL),
    };
    task.scheduling.lock().memory_failure_policy = policy;
    Ok(0)
}
