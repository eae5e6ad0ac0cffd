//! `epoll_create`, `epoll_ctl`, `epoll_wait` and their variants.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, raw};

use super::{Arg, Args, Call, SysResult, blocking, poll};
use crate::fs::epoll;
use crate::signal::SignalSet;
use crate::task::Task;
use crate::wait::{PollEvents, WaitError};

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_epoll_create, epoll_create, &[Arg::Int]),
    Call::full(raw::__NR_epoll_create1, epoll_create1, &[Arg::Flags]),
    Call::full(raw::__NR_epoll_ctl, epoll_ctl, &[Arg::Fd, Arg::Int, Arg::Fd, Arg::Ptr]),
    Call::full(raw::__NR_epoll_wait, epoll_wait, &[Arg::Fd, Arg::Ptr, Arg::Int, Arg::Int]),
    Call::full(raw::__NR_epoll_pwait, epoll_pwait, &[Arg::Fd, Arg::Ptr, Arg::Int, Arg::Int, Arg::Ptr, Arg::Size]),
    Call::full(raw::__NR_epoll_pwait2, epoll_pwait2, &[Arg::Fd, Arg::Ptr, Arg::Int, Arg::Ptr, Arg::Ptr, Arg::Size]),
];

/// `struct epoll_event`, packed on x86-64.
#[repr(C, packed)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Event {
    events: u32,
    data: u64,
}

/// Most events of one call, `EP_MAX_EVENTS`.
const MOST_EVENTS: i32 = i32::MAX / size_of::<Event>() as i32;
/// Most events collected at once: one for each file that a process can have.
const AT_ONCE: usize = 1 << 20;

fn epoll_create(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.int(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    blocking::install(task, epoll::open(), 0)
}

fn epoll_create1(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.uint(0) & !raw::EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    blocking::install(task, epoll::open(), args.uint(0))
}

fn epoll_ctl(task: &Arc<Task>, args: &Args) -> SysResult {
    let operation = args.uint(1);
    let event: Event = if operation == raw::EPOLL_CTL_DEL { Event::zeroed() } else { task.read(args.raw(3))? };
    let file = task.file(args.int(0))?;
    let target = task.file(args.int(2))?;
    if target.ops.queue().is_none() {
        return Err(Errno::EPERM);
    }
    if Arc::ptr_eq(&file, &target) {
        return Err(Errno::EINVAL);
    }
    let epoll = epoll::of_file(&file)?;
    let fd = args.int(2);
    match operation {
        raw::EPOLL_CTL_ADD => epoll.add(fd, &target, event.events, event.data)?,
        raw::EPOLL_CTL_MOD => epoll.modify(fd, &target, event.events, event.data)?,
        raw::EPOLL_CTL_DEL => epoll.remove(fd, &target)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn epoll_wait(task: &Arc<Task>, args: &Args) -> SysResult {
    wait(task, args, poll::deadline_after_ms(args.int(3)), None)
}

fn epoll_pwait(task: &Arc<Task>, args: &Args) -> SysResult {
    let mask = poll::read_mask(task, args.raw(4), args.size(5))?;
    wait(task, args, poll::deadline_after_ms(args.int(3)), mask)
}

fn epoll_pwait2(task: &Arc<Task>, args: &Args) -> SysResult {
    let timeout: Option<Timespec> = if args.raw(3) == 0 { None } else { Some(task.read(args.raw(3))?) };
    let mask = poll::read_mask(task, args.raw(4), args.size(5))?;
    wait(task, args, timeout.map(poll::deadline_after).transpose()?, mask)
}

fn wait(task: &Arc<Task>, args: &Args, deadline: Option<u64>, mask: Option<SignalSet>) -> SysResult {
    let most = args.int(2);
    if most <= 0 || most > MOST_EVENTS {
        return Err(Errno::EINVAL);
    }
    let file = task.file(args.int(0))?;
    let epoll = epoll::of_file(&file)?;
    let most = (most as usize).min(AT_ONCE);
    let attempt = || {
        let found = epoll.collect(most);
        if found.is_empty() { None } else { Some(found) }
    };
    crate::signal::with_temporary_mask(task, mask, || {
        let found = match attempt() {
            Some(found) => found,
            None => match task.block_on(&[epoll.queue()], PollEvents::READ, deadline, attempt) {
                Ok(found) => found,
                Err(WaitError::TimedOut) => return Ok(0),
                Err(WaitError::Interrupted) => return Err(Errno::EINTR),
            },
        };
        let events: Vec<Event> = found.iter().map(|&(events, data)| Event { events, data }).collect();
        task.write_slice(args.raw(1), &events)?;
        Ok(events.len())
    })
}
