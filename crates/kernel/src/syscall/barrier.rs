//! `membarrier(2)`: a barrier on other threads, by making each leave the guest once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::{Errno, raw};

use super::Arg::{Flags, Int};
use super::{Args, Call, SysResult};
use crate::task::Task;

/// This family.
pub const CALLS: &[Call] =
    &[Call::partial(raw::__NR_membarrier, membarrier, &[Int, Flags, Int], "no restarts of sequences of rseq(2), which is not there")];

/// `MEMBARRIER_CMD_*`.
const QUERY: u32 = 0;
const GLOBAL: u32 = 1;
const GLOBAL_EXPEDITED: u32 = 2;
const REGISTER_GLOBAL: u32 = 4;
const PRIVATE: u32 = 8;
const REGISTER_PRIVATE: u32 = 16;
const PRIVATE_CORE: u32 = 32;
const REGISTER_PRIVATE_CORE: u32 = 64;
const REGISTRATIONS: u32 = 512;
const KNOWN: u32 =
    GLOBAL | GLOBAL_EXPEDITED | REGISTER_GLOBAL | PRIVATE | REGISTER_PRIVATE | PRIVATE_CORE | REGISTER_PRIVATE_CORE | REGISTRATIONS;

fn membarrier(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.uint(1) != 0 {
        return Err(Errno::EINVAL);
    }
    let process = &task.process;
    let registered = process.barriers.load(Ordering::Relaxed);
    let everybody = || task.kernel.tasks.tasks();
    let threads = || process.family.lock().tasks.clone();
    let (needed, targets) = match args.uint(0) {
        QUERY => return Ok(KNOWN as usize),
        REGISTRATIONS => return Ok(registered as usize),
        command @ (REGISTER_GLOBAL | REGISTER_PRIVATE | REGISTER_PRIVATE_CORE) => {
            process.barriers.fetch_or(command, Ordering::Relaxed);
            return Ok(0);
        }
        GLOBAL => (0, everybody()),
        GLOBAL_EXPEDITED => {
            let has = |other: &Arc<Task>| other.process.barriers.load(Ordering::Relaxed) & REGISTER_GLOBAL != 0;
            (0, everybody().into_iter().filter(has).collect())
        }
        PRIVATE => (REGISTER_PRIVATE, threads()),
        PRIVATE_CORE => (REGISTER_PRIVATE_CORE, threads()),
        _ => return Err(Errno::EINVAL),
    };
    if registered & needed != needed {
        return Err(Errno::EPERM);
    }
    targets.iter().filter(|other| !Arc::ptr_eq(other, task)).for_each(|other| other.pass_barrier());
    Ok(0)
}
