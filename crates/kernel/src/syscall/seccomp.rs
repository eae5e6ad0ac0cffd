//! `seccomp(2)` and the same by `prctl(2)`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::Arg::{Flags, Int, Ptr};
use super::{Args, Call, SysResult};
use crate::seccomp::{self, Instruction};
use crate::task::Task;

/// This family.
pub const CALLS: &[Call] = &[Call::partial(
    raw::__NR_seccomp,
    seccomp,
    &[Int, Flags, Ptr],
    "nobody listens or traces: SECCOMP_FILTER_FLAG_NEW_LISTENER is EINVAL",
)];

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const GET_NOTIF_SIZES: u32 = 3;
const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;
const FLAG_TSYNC_ESRCH: u32 = 16;

fn seccomp(task: &Arc<Task>, args: &Args) -> SysResult {
    let (flags, address) = (args.uint(1), args.raw(2));
    match args.uint(0) {
        SET_MODE_STRICT if flags == 0 && address == 0 => set_strict(task),
        SET_MODE_FILTER => set_filter(task, flags, address),
        GET_ACTION_AVAIL if flags == 0 => {
            let action: u32 = task.read(address)?;
            let known =
                [seccomp::KILL_PROCESS, seccomp::KILL_THREAD, seccomp::TRAP, seccomp::ERRNO, seccomp::TRACE, seccomp::LOG, seccomp::ALLOW];
            if known.contains(&action) { Ok(0) } else { Err(Errno::EOPNOTSUPP) }
        }
        GET_NOTIF_SIZES if flags == 0 => {
            // Sizes of `struct seccomp_notif`, `seccomp_notif_resp` and `seccomp_data`.
            task.write(address, &[80_u16, 24, 64])?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `PR_SET_SECCOMP`.
pub fn set_mode(task: &Arc<Task>, mode: u64, address: u64) -> SysResult {
    match mode {
        1 => set_strict(task),
        2 => set_filter(task, 0, address),
        _ => Err(Errno::EINVAL),
    }
}

fn set_strict(task: &Arc<Task>) -> SysResult {
    task.seccomp.set_strict()?;
    task.is_filtered.store(true, std::sync::atomic::Ordering::SeqCst);
    Ok(0)
}

fn set_filter(task: &Arc<Task>, flags: u32, address: u64) -> SysResult {
    if flags & !(FLAG_TSYNC | FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_TSYNC_ESRCH) != 0 {
        return Err(Errno::EINVAL);
    }
    // `struct sock_fprog`: a length, padding, an address.
    let [length, program]: [u64; 2] = task.read(address)?;
    let length = (length & 0xffff) as usize;
    if length == 0 || length > seccomp::LONGEST {
        return Err(Errno::EINVAL);
    }
    let credentials = task.credentials();
    if !credentials.no_new_privs && !credentials.has_here(raw::CAP_SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    let program: Vec<Instruction> = task.read_slice(program, length)?;
    match seccomp::add(task, program, flags & FLAG_TSYNC != 0)? {
        None => Ok(0),
        Some(_) if flags & FLAG_TSYNC_ESRCH != 0 => Err(Errno::ESRCH),
        Some(tid) => Ok(tid as usize),
    }
}
