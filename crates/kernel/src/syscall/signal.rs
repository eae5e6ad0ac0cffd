//! Signals: sending, handlers, masks, waiting for them.

use std::sync::Arc;

use cloudpilot_abi::types::{Sigaction, Siginfo, StackT, Timespec};
use cloudpilot_abi::{Errno, raw};

use super::Arg::{Int, Ptr, Signal, Size};
use super::{Args, Call, SysResult, clock};
use crate::signal::{self, SignalSet, UNBLOCKABLE, bit};
use crate::task::{Process, Task, session};
use crate::wait::{PollEvents, WaitError};

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_kill, kill, &[Int, Signal]),
    Call::full(raw::__NR_tkill, tkill, &[Int, Signal]),
    Call::full(raw::__NR_tgkill, tgkill, &[Int, Int, Signal]),
    Call::full(raw::__NR_rt_sigqueueinfo, rt_sigqueueinfo, &[Int, Signal, Ptr]),
    Call::full(raw::__NR_rt_tgsigqueueinfo, rt_tgsigqueueinfo, &[Int, Int, Signal, Ptr]),
    Call::full(raw::__NR_rt_sigaction, rt_sigaction, &[Signal, Ptr, Ptr, Size]),
    Call::full(raw::__NR_rt_sigprocmask, rt_sigprocmask, &[Int, Ptr, Ptr, Size]),
    Call::full(raw::__NR_rt_sigpending, rt_sigpending, &[Ptr, Size]),
    Call::full(raw::__NR_rt_sigsuspend, rt_sigsuspend, &[Ptr, Size]),
    Call::full(raw::__NR_rt_sigtimedwait, rt_sigtimedwait, &[Ptr, Ptr, Ptr, Size]),
    Call::full(raw::__NR_rt_sigreturn, rt_sigreturn, &[]),
    Call::full(raw::__NR_sigaltstack, sigaltstack, &[Ptr, Ptr]),
    Call::full(raw::__NR_pause, pause, &[]),
    Call::full(raw::__NR_restart_syscall, restart_syscall, &[]),
];

/// Flags of `sigaction(2)` that are kept, `SA_RESTORER` and `SA_EXPOSE_TAGBITS` included.
const KNOWN_FLAGS: u64 = 0xdc00_0807;
/// `sizeof(sigset_t)` of the kernel.
const SET_SIZE: usize = 8;

fn check_size(size: usize) -> Result<(), Errno> {
    if size == SET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

fn check_signal(signal: i32) -> Result<(), Errno> {
    if (0..=signal::HIGHEST).contains(&signal) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// `kill(2)`: same user (real or effective against real or saved), `CAP_KILL`, or `SIGCONT` within the session.
fn may_signal(task: &Task, target: &Process, signal: i32) -> bool {
    let own = task.credentials();
    if target.pid == task.process.pid {
        return true;
    }
    let Some(leader) = target.family.lock().tasks.first().cloned() else { return true };
    let other = leader.credentials();
    own.has_in(&other.user, raw::CAP_KILL)
        || [own.euid, own.ruid].iter().any(|uid| *uid == other.suid || *uid == other.ruid)
        || signal as u32 == raw::SIGCONT && session::place(&task.process).1 == session::place(target).1
}

fn kill(task: &Arc<Task>, args: &Args) -> SysResult {
    let (pid, number) = (args.int(0), args.int(1));
    check_signal(number)?;
    let info = signal::info_from_task(task, number, raw::SI_USER as i32);
    if pid > 0 {
        let target = task.find_process(pid).or_else(|| task.find_task(pid).map(|task| Arc::clone(&task.process)));
        let target = target.ok_or(Errno::ESRCH)?;
        if !may_signal(task, &target, number) {
            return Err(Errno::EPERM);
        }
        if let Some(info) = signal::as_received(task, &target, &info) {
            signal::send_to_process(&target, &info);
        }
        return Ok(0);
    }
    if pid == i32::MIN {
        return Err(Errno::ESRCH);
    }
    let group = if pid == 0 { session::place(&task.process).0 } else { task.number(-pid) };
    let member = |process: &Process| match pid {
        // All that can be seen, but for the first.
        -1 => process.pid != task.process.pid && process.numbers.is_within(&task.process.numbers) && task.shows(process.pid) > 1,
        _ => session::place(process).0 == group,
    };
    let (mut found, mut sent) = (false, false);
    for process in task.kernel.tasks.processes() {
        if !member(&process) || process.is_init() {
            continue;
        }
        found = true;
        if may_signal(task, &process, number) {
            sent = true;
            if let Some(info) = signal::as_received(task, &process, &info) {
                signal::send_to_process(&process, &info);
            }
        }
    }
    match (found, sent) {
        (_, true) => Ok(0),
        (true, false) => Err(Errno::EPERM),
        (false, _) => Err(Errno::ESRCH),
    }
}

fn tkill(task: &Arc<Task>, args: &Args) -> SysResult {
    send_to_thread(task, None, args.int(0), args.int(1))
}

fn tgkill(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.int(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    send_to_thread(task, Some(args.int(0)), args.int(1), args.int(2))
}

fn find_thread(task: &Task, group: Option<i32>, tid: i32, number: i32) -> Result<Arc<Task>, Errno> {
    if tid <= 0 {
        return Err(Errno::EINVAL);
    }
    check_signal(number)?;
    let target = task.find_task(tid).ok_or(Errno::ESRCH)?;
    if group.is_some_and(|group| task.number(group) != target.process.pid) {
        return Err(Errno::ESRCH);
    }
    if !may_signal(task, &target.process, number) {
        return Err(Errno::EPERM);
    }
    Ok(target)
}

fn send_to_thread(task: &Arc<Task>, group: Option<i32>, tid: i32, number: i32) -> SysResult {
    let target = find_thread(task, group, tid, number)?;
    if let Some(info) = signal::as_received(task, &target.process, &signal::info_from_task(task, number, raw::SI_TKILL)) {
        signal::send_to_task(&target, &info);
    }
    Ok(0)
}

/// `siginfo_t` as a program gives it: only the kernel may say that it comes from the kernel or from `kill(2)`.
fn given_info(task: &Task, address: u64, number: i32, to_itself: bool) -> Result<Siginfo, Errno> {
    let mut info: Siginfo = task.read(address)?;
    info.si_signo = number;
    if (info.si_code >= 0 || info.si_code == raw::SI_TKILL) && !to_itself {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

/// Sends a signal to a process after the checks of `kill(2)`; with `siginfo_t` if an address is given.
fn send_checked(task: &Arc<Task>, target: &Arc<Process>, number: i32, info: u64) -> Result<(), Errno> {
    check_signal(number)?;
    let info = match info {
        0 => signal::info_from_task(task, number, raw::SI_USER as i32),
        address => given_info(task, address, number, Arc::ptr_eq(target, &task.process))?,
    };
    if !may_signal(task, target, number) {
        return Err(Errno::EPERM);
    }
    queue(task, target, &info)
}

/// Sends a signal to a process as that gets to see it.
fn queue(task: &Task, target: &Process, info: &Siginfo) -> Result<(), Errno> {
    signal::as_received(task, target, info).map_or(Ok(()), |info| signal::queue_to_process(target, &info))
}

/// What a pidfd's holder says with a signal: unlike elsewhere, the number in it must be the signal's.
fn pidfd_info(task: &Arc<Task>, number: i32, info: u64, to_itself: bool) -> Result<Siginfo, Errno> {
    check_signal(number)?;
    if info == 0 {
        return Ok(signal::info_from_task(task, number, raw::SI_USER as i32));
    }
    let said: Siginfo = task.read(info)?;
    if said.si_signo != number {
        return Err(Errno::EINVAL);
    }
    given_info(task, info, number, to_itself)
}

/// Sends a signal to the process that a pidfd is of.
pub fn send_by_handle(task: &Arc<Task>, target: &Arc<Process>, number: i32, info: u64) -> Result<(), Errno> {
    let info = pidfd_info(task, number, info, Arc::ptr_eq(target, &task.process))?;
    if !may_signal(task, target, number) {
        return Err(Errno::EPERM);
    }
    queue(task, target, &info)
}

/// Sends a signal to the thread that a pidfd is of.
pub fn send_to_leader(task: &Arc<Task>, target: &Arc<Process>, number: i32, info: u64) -> Result<(), Errno> {
    let info = pidfd_info(task, number, info, Arc::ptr_eq(target, &task.process))?;
    let thread = target.family.lock().tasks.first().cloned().ok_or(Errno::ESRCH)?;
    if !may_signal(task, target, number) {
        return Err(Errno::EPERM);
    }
    signal::as_received(task, target, &info).map_or(Ok(()), |info| signal::queue_to_task(&thread, &info))
}

/// Sends a signal to the group that a process leads.
pub fn send_to_led_group(task: &Arc<Task>, leader: &Arc<Process>, number: i32, info: u64) -> Result<(), Errno> {
    let info = pidfd_info(task, number, info, false)?;
    let members = task.kernel.tasks.processes();
    let mut members = members.iter().filter(|process| session::place(process).0 == leader.pid).peekable();
    if members.peek().is_none() {
        return Err(Errno::ESRCH);
    }
    let mut result = Err(Errno::EPERM);
    for process in members.filter(|process| may_signal(task, process, number)) {
        let _ = queue(task, process, &info);
        result = Ok(());
    }
    result
}

fn rt_sigqueueinfo(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.raw(2) == 0 {
        return Err(Errno::EFAULT);
    }
    // Lies are refused before it is known to whom.
    given_info(task, args.raw(2), args.int(1), task.number(args.int(0)) == task.process.pid)?;
    let target = task.find_process(args.int(0)).ok_or(Errno::ESRCH)?;
    send_checked(task, &target, args.int(1), args.raw(2)).map(|()| 0)
}

fn rt_tgsigqueueinfo(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.int(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    let target = find_thread(task, Some(args.int(0)), args.int(1), args.int(2))?;
    let info = given_info(task, args.raw(3), args.int(2), Arc::ptr_eq(&target.process, &task.process))?;
    let received = signal::as_received(task, &target.process, &info);
    received.map_or(Ok(()), |info| signal::queue_to_task(&target, &info)).map(|()| 0)
}

fn rt_sigaction(task: &Arc<Task>, args: &Args) -> SysResult {
    check_size(args.size(3))?;
    let number = args.int(0);
    if bit(number) == 0 {
        return Err(Errno::EINVAL);
    }
    let new: Option<Sigaction> = if args.raw(1) == 0 { None } else { Some(task.read(args.raw(1))?) };
    if new.is_some() && bit(number) & UNBLOCKABLE != 0 {
        return Err(Errno::EINVAL);
    }
    let old = {
        let tasks = task.process.family.lock().tasks.clone();
        let mut signals = task.process.signals.lock();
        let old = signals.action(number);
        if let Some(mut new) = new {
            new.mask &= !UNBLOCKABLE;
            // Programs find out by this which flags there are.
            new.flags &= KNOWN_FLAGS;
            signals.actions[(number - 1) as usize] = new;
            let ignores = new.handler == signal::IGNORE
                || new.handler == signal::DEFAULT && signal::default_action(number) == signal::DefaultAction::Ignore;
            if ignores {
                // Pending ones are gone, blocked or not.
                signals.pending.retain(|info| info.si_signo != number);
                for other in tasks {
                    other.signals.lock().pending.retain(|info| info.si_signo != number);
                }
            }
        }
        old
    };
    if args.raw(2) != 0 {
        task.write(args.raw(2), &old)?;
    }
    Ok(0)
}

fn rt_sigprocmask(task: &Arc<Task>, args: &Args) -> SysResult {
    check_size(args.size(3))?;
    let old = task.signals.lock().mask;
    if args.raw(1) != 0 {
        let set: SignalSet = task.read(args.raw(1))?;
        let mask = match args.uint(0) {
            raw::SIG_BLOCK => old | set,
            raw::SIG_UNBLOCK => old & !set,
            raw::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        signal::set_mask(task, mask);
    }
    if args.raw(2) != 0 {
        task.write(args.raw(2), &old)?;
    }
    Ok(0)
}

fn rt_sigpending(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.size(1) > SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let set = signal::pending(task) & task.signals.lock().mask;
    task.write_bytes(args.raw(0), &set.to_le_bytes()[..args.size(1)])?;
    Ok(0)
}

fn rt_sigsuspend(task: &Arc<Task>, args: &Args) -> SysResult {
    check_size(args.size(1))?;
    let set: SignalSet = task.read(args.raw(0))?;
    signal::with_temporary_mask(task, Some(set), || {
        task.sleep_until(None);
        Err(Errno::ERESTARTNOHAND)
    })
}

fn pause(task: &Arc<Task>, _args: &Args) -> SysResult {
    task.sleep_until(None);
    Err(Errno::ERESTARTNOHAND)
}

fn rt_sigtimedwait(task: &Arc<Task>, args: &Args) -> SysResult {
    check_size(args.size(3))?;
    let set: SignalSet = task.read::<SignalSet>(args.raw(0))? & !UNBLOCKABLE;
    let deadline = if args.raw(2) == 0 { None } else { Some(clock::deadline_after(task.read::<Timespec>(args.raw(2))?)?) };
    // A signal of the set is not to interrupt the wait for it.
    let old = {
        let mut own = task.signals.lock();
        own.awaited = set;
        let old = own.mask;
        own.mask = old | set;
        old
    };
    let watching = task.process.signal_arrivals.register(PollEvents::IN, task.parker.clone());
    let result = task.block_on(&[], PollEvents::empty(), deadline, || signal::take_pending(task, set));
    task.process.signal_arrivals.unregister(watching);
    task.signals.lock().awaited = 0;
    signal::set_mask(task, old);
    let info = match result {
        Ok(info) => info,
        Err(WaitError::TimedOut) => return Err(Errno::EAGAIN),
        Err(WaitError::Interrupted) => return Err(Errno::EINTR),
    };
    if args.raw(1) != 0 {
        task.write(args.raw(1), &info)?;
    }
    Ok(info.si_signo as usize)
}

fn rt_sigreturn(task: &Arc<Task>, _args: &Args) -> SysResult {
    signal::return_from_handler(task).inspect_err(|_| signal::force(task, &signal::info_from_kernel(raw::SIGSEGV as i32)))
}

fn sigaltstack(task: &Arc<Task>, args: &Args) -> SysResult {
    let pointer = task.cpu.lock().registers.rsp;
    let new: Option<StackT> = if args.raw(0) == 0 { None } else { Some(task.read(args.raw(0))?) };
    let old = signal::reported_stack(&task.signals.lock().alternate_stack, pointer);
    if let Some(new) = new {
        let mode = new.ss_flags as u32 & !raw::SS_AUTODISARM;
        if old.ss_flags as u32 & raw::SS_ONSTACK != 0 {
            return Err(Errno::EPERM);
        }
        if mode != raw::SS_DISABLE && mode != raw::SS_ONSTACK && mode != 0 {
            return Err(Errno::EINVAL);
        }
        let disabled = mode == raw::SS_DISABLE;
        if !disabled && new.ss_size < u64::from(raw::MINSIGSTKSZ) {
            return Err(Errno::ENOMEM);
        }
        let flags = new.ss_flags & !(raw::SS_ONSTACK as i32);
        task.signals.lock().alternate_stack = if disabled { StackT::default() } else { StackT { ss_flags: flags, ..new } };
    }
    if args.raw(1) != 0 {
        task.write(args.raw(1), &old)?;
    }
    Ok(0)
}

fn restart_syscall(task: &Arc<Task>, _args: &Args) -> SysResult {
    let restart = task.restart.lock().take();
    restart.map_or(Err(Errno::EINTR), |restart| restart(task))
}
