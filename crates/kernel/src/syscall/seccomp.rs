//! `seccomp(2)` and the same by `prctl(2)`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::Arg::{Flags, Int, Ptr};
use super::{Args, Call, SysResult};
use crate::seccomp::program::{self, Instruction, Program};
use crate::seccomp::{self, Addition, listener};
use crate::task::Task;

/// This family.
pub const CALLS: &[Call] = &[Call::full(raw::__NR_seccomp, seccomp, &[Int, Flags, Ptr])];

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const GET_NOTIF_SIZES: u32 = 3;
const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;
const FLAG_NEW_LISTENER: u32 = 8;
const FLAG_TSYNC_ESRCH: u32 = 16;
const FLAG_WAIT_KILLABLE_RECV: u32 = 32;
const FLAGS: u32 = FLAG_TSYNC | FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_NEW_LISTENER | FLAG_TSYNC_ESRCH | FLAG_WAIT_KILLABLE_RECV;

fn seccomp(task: &Arc<Task>, args: &Args) -> SysResult {
    let (flags, address) = (args.uint(1), args.raw(2));
    match args.uint(0) {
        SET_MODE_STRICT if flags == 0 && address == 0 => set_strict(task),
        SET_MODE_FILTER => set_filter(task, flags, address),
        GET_ACTION_AVAIL if flags == 0 => {
            let action: u32 = task.read(address)?;
            let known = [
                seccomp::KILL_PROCESS,
                seccomp::KILL_THREAD,
                seccomp::TRAP,
                seccomp::ERRNO,
                seccomp::USER_NOTIF,
                seccomp::TRACE,
                seccomp::LOG,
                seccomp::ALLOW,
            ];
            if known.contains(&action) { Ok(0) } else { Err(Errno::EOPNOTSUPP) }
        }
        GET_NOTIF_SIZES if flags == 0 => {
            task.write(address, &listener::SIZES)?;
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
    let has = |flag: u32| flags & flag != 0;
    // A result could be a descriptor as well as the number of a thread.
    let ambiguous = has(FLAG_TSYNC) && has(FLAG_NEW_LISTENER) && !has(FLAG_TSYNC_ESRCH);
    if flags & !FLAGS != 0 || ambiguous || has(FLAG_WAIT_KILLABLE_RECV) && !has(FLAG_NEW_LISTENER) {
        return Err(Errno::EINVAL);
    }
    // `struct sock_fprog`: a length, padding, an address.
    let [length, instructions]: [u64; 2] = task.read(address)?;
    let length = (length & 0xffff) as usize;
    if length == 0 || length > program::LONGEST {
        return Err(Errno::EINVAL);
    }
    let credentials = task.credentials();
    if !credentials.no_new_privs && !credentials.has_here(raw::CAP_SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    let instructions: Vec<Instruction> = task.read_slice(instructions, length)?;
    let program = Program::new(instructions)?;
    let mut how = Addition { everywhere: has(FLAG_TSYNC), logs: has(FLAG_LOG), notifier: None };
    let mut added = 0;
    if has(FLAG_NEW_LISTENER) {
        let mut first = [0; 8];
        crate::system::random_bytes(&mut first);
        let (notifier, file) = listener::open(has(FLAG_WAIT_KILLABLE_RECV), u64::from_ne_bytes(first));
        added = task.install(file, true)?;
        how.notifier = Some(notifier);
    }
    let result = match seccomp::add(task, program, how) {
        Ok(None) => return Ok(added as usize),
        Ok(Some(_)) if has(FLAG_TSYNC_ESRCH) => Err(Errno::ESRCH),
        Ok(Some(tid)) => Ok(task.shows(tid) as usize),
        Err(errno) => Err(errno),
    };
    if has(FLAG_NEW_LISTENER) {
        // Nobody was told of it.
        let files = task.files();
        if let Ok(file) = files.remove(added) {
            files.closed(&file, task);
        }
    }
    result
}
