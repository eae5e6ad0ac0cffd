//! Sending: what becomes pending where, and who is woken for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytemuck::Zeroable;
use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};

use super::{DefaultAction, FIRST_REALTIME, IGNORE, ProcessSignals, STOPS, bit, default_action, set_of};
use crate::Kernel;
use crate::config::ExitStatus;
use crate::namespace::user::OVERFLOW;
use crate::ptrace;
use crate::task::process::Report;
use crate::task::{Process, Task, Work, exit};
use crate::wait::PollEvents;

/// What the kernel itself says with a signal.
pub fn info_from_kernel(signal: i32) -> Siginfo {
    let mut info = Siginfo::zeroed();
    info.si_signo = signal;
    info.si_code = raw::SI_KERNEL as i32;
    info
}

/// What `kill(2)` (`code` is `SI_USER`) and `tgkill(2)` (`SI_TKILL`) say: who sent it.
pub fn info_from_task(task: &Task, signal: i32, code: i32) -> Siginfo {
    let mut info = Siginfo::zeroed();
    info.si_signo = signal;
    info.si_code = code;
    let own = task.credentials();
    info.fields[0] = u64::from(task.process.own_pid() as u32) | u64::from(own.user.show_user(own.ruid)) << 32;
    info
}

/// What a process gets of a signal that a task sends it; none if it is the first of a PID namespace and shielded from those inside. Who sent it
/// shows only to whom can see the sender.
pub fn as_received(sender: &Task, target: &Process, info: &Siginfo) -> Option<Siginfo> {
    let is_inside = sender.process.numbers.is_within(&target.numbers);
    let is_shielded = is_inside && target.unkillable.load(Ordering::Relaxed) && bit(info.si_signo) & super::UNBLOCKABLE != 0;
    if is_shielded {
        return None;
    }
    let mut info = *info;
    if !is_inside {
        info.fields[0] &= !0xffff_ffff;
    }
    let own = Arc::clone(&sender.credentials().user);
    if let Some(users) = target.users().filter(|users| users.number != own.number) {
        let user = own.user((info.fields[0] >> 32) as u32);
        let shown = user.map_or(OVERFLOW, |user| users.show_user(user));
        info.fields[0] = info.fields[0] & 0xffff_ffff | u64::from(shown) << 32;
    }
    Some(info)
}

/// Sends a signal to every process of a group; `ESRCH` if there is none. No permission is asked: the kernel itself sends.
pub fn send_to_group(kernel: &Kernel, group: i32, info: &Siginfo) -> Result<(), Errno> {
    let mut found = false;
    for process in kernel.tasks.processes() {
        let member = {
            let family = process.family.lock();
            family.group == group && family.exit.is_none()
        };
        if member {
            found = true;
            send_to_process(&process, info);
        }
    }
    if found { Ok(()) } else { Err(Errno::ESRCH) }
}

/// Sends a signal to one task. No permission is asked: the kernel itself sends.
pub fn send_to_task(task: &Task, info: &Siginfo) {
    let _ = queue_to_task(task, info);
}

/// Sends a signal to a process: whichever of its threads takes it. No permission is asked.
pub fn send_to_process(process: &Process, info: &Siginfo) {
    let _ = queue_to_process(process, info);
}

/// Like [`send_to_task`], but tells when the queue is full: `EAGAIN`.
pub fn queue_to_task(task: &Task, info: &Siginfo) -> Result<(), Errno> {
    let process = &task.process;
    if !prepare(process, info.si_signo) {
        return Ok(());
    }
    {
        let limit = process.limits.lock().soft(raw::RLIMIT_SIGPENDING);
        let shared = process.signals.lock();
        let mut own = task.signals.lock();
        let held_back = (own.mask | own.awaited) & bit(info.si_signo) != 0;
        if !held_back && is_ignored(process, &shared, info.si_signo) && !task.is_traced.load(Ordering::Relaxed) {
            return Ok(());
        }
        enqueue(&mut own.pending, info, limit)?;
    }
    if info.si_signo as u32 == raw::SIGKILL {
        exit::kill(process);
    }
    if ends_at_once(task, info.si_signo) {
        exit::begin_group_exit(process, ExitStatus::Signaled(info.si_signo as u8));
    }
    task.add_work(Work::SIGNAL);
    process.signal_arrivals.notify(PollEvents::IN);
    Ok(())
}

/// Whether a signal that has just become pending ends its process whatever the task waits for. What dumps core is left to the delivery, and so is
/// what comes to a task that is stopped or traced.
fn ends_at_once(task: &Task, signal: i32) -> bool {
    let process = &task.process;
    if default_action(signal) != DefaultAction::Terminate || super::dumps_core(signal) || task.is_traced.load(Ordering::Relaxed) {
        return false;
    }
    if process.unkillable.load(Ordering::Relaxed) || process.family.lock().stopped {
        return false;
    }
    let shared = process.signals.lock();
    let own = task.signals.lock();
    shared.action(signal).handler == super::DEFAULT && (own.mask | own.awaited) & bit(signal) == 0
}

/// Like [`send_to_process`], but tells when the queue is full: `EAGAIN`.
pub fn queue_to_process(process: &Process, info: &Siginfo) -> Result<(), Errno> {
    let signal = info.si_signo;
    if !prepare(process, signal) {
        return Ok(());
    }
    let tasks = process.family.lock().tasks.clone();
    {
        let limit = process.limits.lock().soft(raw::RLIMIT_SIGPENDING);
        let mut shared = process.signals.lock();
        let held_back = tasks.iter().any(|task| {
            let own = task.signals.lock();
            (own.mask | own.awaited) & bit(signal) != 0
        });
        let is_traced = tasks.iter().any(|task| task.is_traced.load(Ordering::Relaxed));
        if !held_back && is_ignored(process, &shared, signal) && !is_traced {
            return Ok(());
        }
        enqueue(&mut shared.pending, info, limit)?;
    }
    if signal as u32 == raw::SIGKILL {
        exit::kill(process);
    }
    // The first thread that lets it through is to take it; threads that wait for it with sigtimedwait are told, too.
    let wants = |task: &&Arc<Task>| task.signals.lock().mask & bit(signal) == 0;
    if let Some(task) = tasks.iter().find(wants) {
        if ends_at_once(task, signal) {
            exit::begin_group_exit(process, ExitStatus::Signaled(signal as u8));
        }
        task.add_work(Work::SIGNAL);
    }
    for task in tasks.iter().filter(|task| task.signals.lock().awaited & bit(signal) != 0) {
        task.add_work(Work::SIGNAL);
    }
    process.signal_arrivals.notify(PollEvents::IN);
    Ok(())
}

fn is_ignored(process: &Process, signals: &ProcessSignals, signal: i32) -> bool {
    let handler = signals.action(signal).handler;
    let by_default =
        process.unkillable.load(Ordering::Relaxed) || matches!(default_action(signal), DefaultAction::Ignore | DefaultAction::Continue);
    signal as u32 != raw::SIGKILL && signal as u32 != raw::SIGSTOP && (handler == IGNORE || handler == super::DEFAULT && by_default)
}

fn enqueue(pending: &mut Vec<Siginfo>, info: &Siginfo, limit: u64) -> Result<(), Errno> {
    let signal = info.si_signo;
    if signal < FIRST_REALTIME {
        // A timer's signal that was not taken yet counts as overrun there.
        if set_of(pending) & bit(signal) == 0 {
            pending.push(*info);
        }
        return Ok(());
    }
    if pending.len() as u64 >= limit {
        // `kill(2)` gets through without its details, `sigqueue(3)` is refused.
        return if info.si_code < 0 && info.si_code != raw::SI_TKILL { Err(Errno::EAGAIN) } else { Ok(()) };
    }
    pending.push(*info);
    Ok(())
}

/// What sending does at once, whatever the mask: `SIGCONT` and stop signals cancel each other, and `SIGCONT` continues. False if nobody is
/// there to receive anything.
fn prepare(process: &Process, signal: i32) -> bool {
    // Init is the kernel's own.
    if bit(signal) == 0 || process.is_init() {
        return false;
    }
    let continues = signal as u32 == raw::SIGCONT;
    if continues || bit(signal) & STOPS != 0 {
        let cancelled = if continues { STOPS } else { bit(raw::SIGCONT as i32) };
        let tasks = process.family.lock().tasks.clone();
        process.signals.lock().pending.retain(|info| bit(info.si_signo) & cancelled == 0);
        for task in &tasks {
            task.signals.lock().pending.retain(|info| bit(info.si_signo) & cancelled == 0);
        }
    }
    if continues || signal as u32 == raw::SIGKILL {
        resume(process, continues);
    }
    if continues {
        let tasks = process.family.lock().tasks.clone();
        tasks.iter().filter(|task| task.is_traced.load(Ordering::Relaxed)).for_each(ptrace::continued);
    }
    process.family.lock().exit.is_none()
}

/// Ends a stop.
fn resume(process: &Process, report: bool) {
    let tasks = {
        let mut family = process.family.lock();
        if !family.stopped {
            return;
        }
        family.stopped = false;
        if report {
            family.report = Some(Report::Continued);
        }
        family.tasks.clone()
    };
    for task in tasks {
        task.clear_work(Work::STOP);
        task.kick();
    }
    if report {
        exit::tell_parent(process, raw::CLD_CONTINUED as i32, raw::SIGCONT as i32);
    }
}
