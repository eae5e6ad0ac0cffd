//! Semaphores, `semget(2)` and its family.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::Errno;
use cloudpilot_abi::types::Timespec;

use super::super::clock;
use super::{Args, IPC_64, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, READ, SysResult, WRITE};
use crate::ipc::limits::{NEXT_SET, SEMAPHORES};
use crate::ipc::semaphores::{self, Operation};
use crate::ipc::{Object, RawPermissions};
use crate::task::Task;

/// Places in the setting of semaphores: most of a set (`SEMMSL`), of all (`SEMMNS`), operations at once (`SEMOPM`), sets (`SEMMNI`).
const OF_SET: usize = 0;
const OF_ALL: usize = 1;
const AT_ONCE: usize = 2;
const SETS: usize = 3;

pub fn semget(task: &Arc<Task>, args: &Args) -> SysResult {
    let space = Arc::clone(&task.namespaces().ipc);
    let limits = &space.ipc.limits;
    // Operations name a semaphore by 16 bits.
    let most = limits.number(SEMAPHORES, OF_SET).min(u64::from(u16::MAX));
    let count = usize::try_from(args.int(1)).ok().filter(|count| *count as u64 <= most).ok_or(Errno::EINVAL)?;
    let taken: usize = space.ipc.semaphores.all().iter().map(|(_, set)| set.state.lock().semaphores.len()).sum();
    let fits = |set: &semaphores::Set| if count > set.state.lock().semaphores.len() { Err(Errno::EINVAL) } else { Ok(()) };
    let make = |_, permissions| match count {
        0 => Err(Errno::EINVAL),
        _ if (taken + count) as u64 > limits.number(SEMAPHORES, OF_ALL) => Err(Errno::ENOSPC),
        _ => Ok(semaphores::Set::new(count, permissions)),
    };
    let rules = (limits.number(SEMAPHORES, SETS), || limits.take_next(NEXT_SET));
    space.ipc.semaphores.get((args.int(0), args.uint(2)), &task.credentials(), rules, fits, make).map(|id| id as usize)
}

pub fn semtimedop(task: &Arc<Task>, args: &Args) -> SysResult {
    let deadline = match args.raw(3) {
        0 => None,
        address => Some(clock::deadline_after(task.read::<Timespec>(address)?)?),
    };
    operate(task, args, deadline)
}

pub fn operate(task: &Arc<Task>, args: &Args, deadline: Option<u64>) -> SysResult {
    let count = args.uint(2) as usize;
    if count == 0 || args.int(0) < 0 {
        return Err(Errno::EINVAL);
    }
    let space = Arc::clone(&task.namespaces().ipc);
    if count as u64 > space.ipc.limits.number(SEMAPHORES, AT_ONCE) {
        return Err(Errno::E2BIG);
    }
    let operations: Vec<Operation> = task.read_slice(args.raw(1), count)?;
    let set = space.ipc.semaphores.find(args.int(0))?;
    let size = set.state.lock().semaphores.len();
    if operations.iter().any(|operation| usize::from(operation.number) >= size) {
        return Err(Errno::EFBIG);
    }
    let changes = operations.iter().any(|operation| operation.change != 0);
    set.permissions().check(&task.credentials(), if changes { WRITE } else { READ })?;
    set.operate(task, &operations, deadline).map(|()| 0)
}

/// `struct semid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SetState {
    permissions: RawPermissions,
    used: i64,
    unused: u64,
    changed: i64,
    unused_too: u64,
    count: u64,
    rest: [u64; 2],
}

pub fn semctl(task: &Arc<Task>, args: &Args) -> SysResult {
    const GETPID: u32 = 11;
    const GETVAL: u32 = 12;
    const GETALL: u32 = 13;
    const GETNCNT: u32 = 14;
    const GETZCNT: u32 = 15;
    const SETVAL: u32 = 16;
    const SETALL: u32 = 17;
    const SEM_STAT: u32 = 18;
    const SEM_INFO: u32 = 19;
    const SEM_STAT_ANY: u32 = 20;
    let (id, number, command, argument) = (args.int(0), args.int(1), args.uint(2) & !IPC_64, args.raw(3));
    let space = Arc::clone(&task.namespaces().ipc);
    let ipc = &space.ipc;
    let credentials = task.credentials();
    let write_state = |id: i32, set: &semaphores::Set, check: bool| {
        let state = set.state.lock();
        if check {
            state.permissions.check(&credentials, READ)?;
        }
        let answer = SetState {
            permissions: state.permissions.to_raw(id, &credentials),
            used: state.used,
            unused: 0,
            changed: state.changed,
            unused_too: 0,
            count: state.semaphores.len() as u64,
            rest: [0; 2],
        };
        drop(state);
        task.write(argument, &answer)
    };
    match command {
        IPC_INFO | SEM_INFO => {
            let all = ipc.semaphores.all();
            let total: usize = all.iter().map(|(_, set)| set.state.lock().semaphores.len()).sum();
            let (sets, total) = if command == SEM_INFO { (all.len() as i32, total as i32) } else { (20, semaphores::LARGEST) };
            let set = |index| ipc.limits.number(SEMAPHORES, index) as i32;
            let (all_of_them, at_once) = (set(OF_ALL), set(AT_ONCE));
            task.write(
                argument,
                &[all_of_them, set(SETS), all_of_them, all_of_them, set(OF_SET), at_once, 500, sets, semaphores::LARGEST, total],
            )?;
            return Ok(all.len().saturating_sub(1));
        }
        SEM_STAT | SEM_STAT_ANY => {
            let (id, set) = ipc.semaphores.at(id)?;
            write_state(id, &set, command == SEM_STAT)?;
            return Ok(id as usize);
        }
        _ => {}
    }
    let set = ipc.semaphores.find(id)?;
    let index =
        |state: &semaphores::State| usize::try_from(number).ok().filter(|index| *index < state.semaphores.len()).ok_or(Errno::EINVAL);
    match command {
        IPC_STAT => write_state(id, &set, true)?,
        IPC_RMID => {
            set.permissions().check_owner(&credentials)?;
            ipc.semaphores.remove(id);
            set.removed();
        }
        IPC_SET => {
            let given: SetState = task.read(argument)?;
            set.permissions().check_owner(&credentials)?;
            let mut state = set.state.lock();
            state.permissions.set(&given.permissions, &credentials)?;
            state.changed = crate::time::realtime().tv_sec;
        }
        GETVAL | GETPID | GETNCNT | GETZCNT => {
            let state = set.state.lock();
            let semaphore = state.semaphores[index(&state)?];
            state.permissions.check(&credentials, READ)?;
            return Ok(match command {
                GETVAL => semaphore.value as usize,
                GETPID => task.shows(semaphore.last) as usize,
                GETNCNT => semaphore.growers as usize,
                _ => semaphore.zeroers as usize,
            });
        }
        GETALL => {
            let state = set.state.lock();
            state.permissions.check(&credentials, READ)?;
            let values: Vec<u16> = state.semaphores.iter().map(|semaphore| semaphore.value as u16).collect();
            drop(state);
            task.write_slice(argument, &values)?;
        }
        SETVAL => {
            let value = argument as i32;
            if !(0..=semaphores::LARGEST).contains(&value) {
                return Err(Errno::ERANGE);
            }
            let mut state = set.state.lock();
            let index = index(&state)?;
            state.permissions.check(&credentials, WRITE)?;
            state.set(index, value, task.process.pid);
            drop(state);
            set.announce();
        }
        SETALL => {
            let count = {
                let state = set.state.lock();
                state.permissions.check(&credentials, WRITE)?;
                state.semaphores.len()
            };
            let values: Vec<u16> = task.read_slice(argument, count)?;
            if values.iter().any(|value| i32::from(*value) > semaphores::LARGEST) {
                return Err(Errno::ERANGE);
            }
            let mut state = set.state.lock();
            for (index, value) in values.into_iter().enumerate() {
                state.set(index, i32::from(value), task.process.pid);
            }
            drop(state);
            set.announce();
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}
