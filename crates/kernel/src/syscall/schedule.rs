//! Scheduling: policies, priorities, affinity. The host schedules; what the guest sets is checked, remembered and reported.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, raw};

use super::Arg::{Flags, Int, Ptr, Size};
use super::{Args, Call, SysResult};
use crate::task::{Credentials, Task};

const REMEMBERED: &str = "remembered and reported; the host's scheduler does not hear of it";

pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_sched_yield, sched_yield, &[]),
    Call::full(raw::__NR_sched_getaffinity, sched_getaffinity, &[Int, Size, Ptr]),
    Call::partial(raw::__NR_sched_setaffinity, sched_setaffinity, &[Int, Size, Ptr], REMEMBERED),
    Call::full(raw::__NR_sched_getscheduler, sched_getscheduler, &[Int]),
    Call::partial(raw::__NR_sched_setscheduler, sched_setscheduler, &[Int, Int, Ptr], REMEMBERED),
    Call::full(raw::__NR_sched_getparam, sched_getparam, &[Int, Ptr]),
    Call::partial(raw::__NR_sched_setparam, sched_setparam, &[Int, Ptr], REMEMBERED),
    Call::full(raw::__NR_sched_getattr, sched_getattr, &[Int, Ptr, Size, Flags]),
    Call::partial(raw::__NR_sched_setattr, sched_setattr, &[Int, Ptr, Flags], REMEMBERED),
    Call::full(raw::__NR_sched_get_priority_max, sched_get_priority_max, &[Int]),
    Call::full(raw::__NR_sched_get_priority_min, sched_get_priority_min, &[Int]),
    Call::full(raw::__NR_sched_rr_get_interval, sched_rr_get_interval, &[Int, Ptr]),
    Call::full(raw::__NR_getpriority, getpriority, &[Int, Int]),
    Call::partial(raw::__NR_setpriority, setpriority, &[Int, Int, Int], REMEMBERED),
    Call::full(raw::__NR_ioprio_get, ioprio_get, &[Int, Int]),
    Call::partial(raw::__NR_ioprio_set, ioprio_set, &[Int, Int, Int], REMEMBERED),
];

/// `CAP_SYS_NICE`.
const CAP_SYS_NICE: u32 = 23;
/// `CAP_SYS_ADMIN`.
const CAP_SYS_ADMIN: u32 = 21;

/// The task a call names: 0 is the caller.
fn find(task: &Arc<Task>, tid: i32) -> Result<Arc<Task>, Errno> {
    match tid {
        0 => Ok(Arc::clone(task)),
        ..0 => Err(Errno::EINVAL),
        _ => task.find_task(tid).ok_or(Errno::ESRCH),
    }
}

/// Whether the caller may change the scheduling of `other`.
fn may_change(caller: &Credentials, other: &Credentials) -> bool {
    caller.euid == other.euid || caller.euid == other.ruid || caller.has(CAP_SYS_NICE)
}

fn sched_yield(_task: &Arc<Task>, _args: &Args) -> SysResult {
    std::thread::yield_now();
    Ok(0)
}

fn sched_getaffinity(task: &Arc<Task>, args: &Args) -> SysResult {
    let length = args.uint(1) as usize;
    let online = task.kernel.online_cpus();
    if length * 8 < task.kernel.cpu_count() as usize || !length.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let other = find(task, args.int(0)).map_err(|_| Errno::ESRCH)?;
    let mask = other.scheduling.lock().cpus(online);
    task.write(args.raw(2), &mask)?;
    Ok(size_of_val(&mask))
}

fn sched_setaffinity(task: &Arc<Task>, args: &Args) -> SysResult {
    let length = (args.uint(1) as usize).min(8);
    let mut mask = [0; 8];
    task.read_bytes(args.raw(2), &mut mask[..length])?;
    let mask = u64::from_le_bytes(mask);
    let other = find(task, args.int(0)).map_err(|_| Errno::ESRCH)?;
    if !may_change(&task.credentials(), &other.credentials()) {
        return Err(Errno::EPERM);
    }
    if mask & task.kernel.online_cpus() == 0 {
        return Err(Errno::EINVAL);
    }
    other.scheduling.lock().affinity = Some(mask);
    Ok(0)
}

fn sched_getscheduler(task: &Arc<Task>, args: &Args) -> SysResult {
    let other = find(task, args.int(0))?;
    let scheduling = *other.scheduling.lock();
    let reset = if scheduling.reset_on_fork { raw::SCHED_RESET_ON_FORK } else { 0 };
    Ok((scheduling.policy | reset) as usize)
}

fn is_realtime(policy: u32) -> bool {
    matches!(policy, raw::SCHED_FIFO | raw::SCHED_RR)
}

/// Sets policy, real-time priority and, if given, niceness, with the checks of `sched_setscheduler(2)`.
fn change(task: &Arc<Task>, other: &Arc<Task>, policy: u32, priority: u32, nice: Option<i32>, reset_on_fork: bool) -> Result<(), Errno> {
    let known = matches!(policy, raw::SCHED_NORMAL | raw::SCHED_FIFO | raw::SCHED_RR | raw::SCHED_BATCH | raw::SCHED_IDLE);
    if !known || is_realtime(policy) != (priority != 0) || priority > 99 {
        return Err(Errno::EINVAL);
    }
    let caller = task.credentials();
    let (priority_limit, nice_limit) = {
        let limits = other.process.limits.lock();
        (limits.soft(raw::RLIMIT_RTPRIO), limits.soft(raw::RLIMIT_NICE))
    };
    let theirs = other.credentials();
    let mut scheduling = other.scheduling.lock();
    if !caller.has(CAP_SYS_NICE) {
        let raises = is_realtime(policy) && u64::from(priority) > priority_limit.max(u64::from(scheduling.priority));
        let unresets = scheduling.reset_on_fork && !reset_on_fork;
        let lowers = nice.is_some_and(|nice| nice < scheduling.nice && (20 - nice) as u64 > nice_limit);
        if !may_change(&caller, &theirs) || raises || unresets || lowers {
            return Err(Errno::EPERM);
        }
    }
    scheduling.policy = policy;
    scheduling.priority = priority;
    scheduling.reset_on_fork = reset_on_fork;
    if let Some(nice) = nice {
        scheduling.nice = nice.clamp(-20, 19);
    }
    Ok(())
}

fn read_priority(task: &Task, address: u64) -> Result<u32, Errno> {
    if address == 0 {
        return Err(Errno::EINVAL);
    }
    let priority: i32 = task.read(address)?;
    u32::try_from(priority).map_err(|_| Errno::EINVAL)
}

fn sched_setscheduler(task: &Arc<Task>, args: &Args) -> SysResult {
    let policy = args.uint(1);
    if args.int(1) < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = read_priority(task, args.raw(2))?;
    let other = find(task, args.int(0))?;
    change(task, &other, policy & !raw::SCHED_RESET_ON_FORK, priority, None, policy & raw::SCHED_RESET_ON_FORK != 0)?;
    Ok(0)
}

fn sched_getparam(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.raw(1) == 0 {
        return Err(Errno::EINVAL);
    }
    let other = find(task, args.int(0))?;
    let priority = other.scheduling.lock().priority;
    task.write(args.raw(1), &priority)?;
    Ok(0)
}

fn sched_setparam(task: &Arc<Task>, args: &Args) -> SysResult {
    let priority = read_priority(task, args.raw(1))?;
    let other = find(task, args.int(0))?;
    let present = *other.scheduling.lock();
    change(task, &other, present.policy, priority, None, present.reset_on_fork)?;
    Ok(0)
}

/// `struct sched_attr` in its second version, `SCHED_ATTR_SIZE_VER1`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    utilization_min: u32,
    utilization_max: u32,
}

/// Size of the first version.
const SCHED_ATTR_SIZE_FIRST: usize = 48;
const SCHED_FLAG_RESET_ON_FORK: u64 = 1;
const SCHED_FLAG_KEEP_POLICY: u64 = 8;
const SCHED_FLAG_KEEP_PARAMS: u64 = 16;
const SCHED_FLAGS: u64 = 0x7f;

fn sched_getattr(task: &Arc<Task>, args: &Args) -> SysResult {
    let size = args.uint(2) as usize;
    if args.raw(1) == 0 || size < SCHED_ATTR_SIZE_FIRST || size > cloudpilot_abi::PAGE_SIZE as usize || args.uint(3) != 0 {
        return Err(Errno::EINVAL);
    }
    let other = find(task, args.int(0))?;
    let scheduling = *other.scheduling.lock();
    let mut attr = SchedAttr::zeroed();
    attr.policy = scheduling.policy;
    attr.flags = if scheduling.reset_on_fork { SCHED_FLAG_RESET_ON_FORK } else { 0 };
    attr.priority = scheduling.priority;
    attr.nice = if is_realtime(scheduling.policy) { 0 } else { scheduling.nice };
    attr.utilization_max = 1024;
    let length = size.min(size_of::<SchedAttr>());
    attr.size = length as u32;
    task.write_bytes(args.raw(1), &bytemuck::bytes_of(&attr)[..length])?;
    Ok(0)
}

fn sched_setattr(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.raw(1) == 0 || args.uint(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let size = match task.read::<u32>(args.raw(1))? as usize {
        0 => SCHED_ATTR_SIZE_FIRST,
        size => size,
    };
    if size < SCHED_ATTR_SIZE_FIRST || size > cloudpilot_abi::PAGE_SIZE as usize {
        task.write(args.raw(1), &(size_of::<SchedAttr>() as u32))?;
        return Err(Errno::E2BIG);
    }
    let mut attr = SchedAttr::zeroed();
    let length = size.min(size_of::<SchedAttr>());
    task.read_bytes(args.raw(1), &mut bytemuck::bytes_of_mut(&mut attr)[..length])?;
    if attr.flags & !SCHED_FLAGS != 0 || attr.policy as i32 <= -1 {
        return Err(Errno::EINVAL);
    }
    let other = find(task, args.int(0))?;
    let present = *other.scheduling.lock();
    let policy = if attr.flags & SCHED_FLAG_KEEP_POLICY != 0 { present.policy } else { attr.policy };
    let (priority, nice) = match attr.flags & SCHED_FLAG_KEEP_PARAMS {
        0 => (attr.priority, Some(attr.nice.clamp(-20, 19))),
        _ => (present.priority, None),
    };
    change(task, &other, policy, priority, nice, attr.flags & SCHED_FLAG_RESET_ON_FORK != 0)?;
    Ok(0)
}

/// `SCHED_DEADLINE` and `SCHED_EXT` exist by name; nothing here runs under them.
fn priorities(policy: i32, realtime: usize) -> SysResult {
    match u32::try_from(policy).map_err(|_| Errno::EINVAL)? {
        raw::SCHED_FIFO | raw::SCHED_RR => Ok(realtime),
        raw::SCHED_NORMAL | raw::SCHED_BATCH | raw::SCHED_IDLE | raw::SCHED_DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

fn sched_get_priority_max(_task: &Arc<Task>, args: &Args) -> SysResult {
    priorities(args.int(0), 99)
}

fn sched_get_priority_min(_task: &Arc<Task>, args: &Args) -> SysResult {
    priorities(args.int(0), 1)
}

fn sched_rr_get_interval(task: &Arc<Task>, args: &Args) -> SysResult {
    let other = find(task, args.int(0))?;
    let slice = match other.scheduling.lock().policy {
        raw::SCHED_FIFO => 0,
        raw::SCHED_RR => 100_000_000,
        _ => 4_000_000,
    };
    task.write(args.raw(1), &Timespec { tv_sec: 0, tv_nsec: slice })?;
    Ok(0)
}

/// What `getpriority`'s and `ioprio_get`'s "who" means: leaders of a process, all of a group, or all of a user. `kind` counts from 0.
fn select(task: &Arc<Task>, kind: i32, who: i32) -> Result<Vec<Arc<Task>>, Errno> {
    let found: Vec<Arc<Task>> = match kind {
        0 => (if who == 0 { Some(Arc::clone(task)) } else { task.find_task(who) }).into_iter().collect(),
        1 => {
            let group = if who == 0 { task.process.family.lock().group } else { task.number(who) };
            let processes = task.kernel.tasks.processes();
            let members = processes.iter().filter(|process| process.family.lock().group == group);
            members.flat_map(|process| process.family.lock().tasks.clone()).collect()
        }
        2 => {
            let uid = if who == 0 { task.credentials().ruid } else { task.credentials().user.user(who as u32).ok_or(Errno::ESRCH)? };
            let numbers = &task.process.numbers;
            let is_meant = |other: &Arc<Task>| other.process.numbers.is_within(numbers) && other.credentials().ruid == uid;
            task.kernel.tasks.tasks().into_iter().filter(is_meant).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if found.is_empty() { Err(Errno::ESRCH) } else { Ok(found) }
}

fn getpriority(task: &Arc<Task>, args: &Args) -> SysResult {
    let found = select(task, args.int(0), args.int(1))?;
    // The raw call answers 40 to 1 for -20 to 19, so that no value looks like an error.
    let best = found.iter().map(|other| other.scheduling.lock().nice).min().unwrap_or(0);
    Ok((20 - best) as usize)
}

fn setpriority(task: &Arc<Task>, args: &Args) -> SysResult {
    let nice = args.int(2).clamp(-20, 19);
    let caller = task.credentials();
    let mut result = Err(Errno::ESRCH);
    for other in select(task, args.int(0), args.int(1))? {
        let theirs = other.credentials();
        let limit = other.process.limits.lock().soft(raw::RLIMIT_NICE);
        let mut scheduling = other.scheduling.lock();
        if !may_change(&caller, &theirs) {
            result = Err(Errno::EPERM);
        } else if nice < scheduling.nice && (20 - nice) as u64 > limit && !caller.has(CAP_SYS_NICE) {
            result = Err(Errno::EACCES);
        } else {
            scheduling.nice = nice;
            result = result.or_else(|errno| if errno == Errno::ESRCH { Ok(0) } else { Err(errno) });
        }
    }
    result
}

const IOPRIO_CLASS_SHIFT: u32 = 13;
const IOPRIO_CLASS_RT: u32 = 1;
const IOPRIO_CLASS_BE: u32 = 2;
const IOPRIO_CLASS_IDLE: u32 = 3;

fn ioprio_get(task: &Arc<Task>, args: &Args) -> SysResult {
    let found = select(task, args.int(0) - 1, args.int(1))?;
    // Of several, the best: a lower class and level, where class 0 counts as best-effort.
    let value = |other: &Arc<Task>| other.scheduling.lock().io_priority;
    let rank = |value: &u32| if *value >> IOPRIO_CLASS_SHIFT == 0 { IOPRIO_CLASS_BE << IOPRIO_CLASS_SHIFT | 4 } else { *value };
    Ok(found.iter().map(value).min_by_key(rank).unwrap_or(0) as usize)
}

fn ioprio_set(task: &Arc<Task>, args: &Args) -> SysResult {
    let value = args.uint(2);
    let (class, level) = (value >> IOPRIO_CLASS_SHIFT, value & 7);
    let caller = task.credentials();
    match class {
        0 if level == 0 => {}
        IOPRIO_CLASS_RT if !caller.has(CAP_SYS_ADMIN) && !caller.has(CAP_SYS_NICE) => return Err(Errno::EPERM),
        IOPRIO_CLASS_RT | IOPRIO_CLASS_BE | IOPRIO_CLASS_IDLE => {}
        _ => return Err(Errno::EINVAL),
    }
    for other in select(task, args.int(0) - 1, args.int(1))? {
        if !may_change(&caller, &other.credentials()) {
            return Err(Errno::EPERM);
        }
        other.scheduling.lock().io_priority = value;
    }
    Ok(0)
}
