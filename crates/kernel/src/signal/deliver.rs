//! Delivery: what a task does about its pending signals before it goes back to the guest.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::types::{Sigaction, Siginfo};
use cloudpilot_abi::{Errno, raw};

use super::{DEFAULT, DefaultAction, IGNORE, bit, default_action, frame, take_lowest};
use crate::config::ExitStatus;
use crate::ptrace;
use crate::task::process::Report;
use crate::task::{Task, Work, exit, session};

/// A system call that a signal ended, by error number and number of the call.
pub type Interrupted = (Errno, u32);

/// Bytes of the `syscall` instruction, by which a restarted call goes back.
const SYSCALL_LENGTH: u64 = 2;

/// Delivers what is pending: stops, ends the process, sets up handlers; then settles how an interrupted call goes on.
pub fn deliver(task: &Arc<Task>, mut call: Option<Interrupted>) {
    loop {
        task.clear_work(Work::SIGNAL | Work::STOP);
        if task.work().contains(Work::EXIT) {
            return;
        }
        if is_traced(task) && ptrace::at_interrupt(task) {
            continue;
        }
        if wait_while_stopped(task) {
            continue;
        }
        let Some((mut info, mut action)) = next(task) else {
            if ptrace::is_interrupted(task) {
                continue;
            }
            break;
        };
        if is_traced(task) && info.si_signo != raw::SIGKILL as i32 {
            match ptrace::before_signal(task, info) {
                Some(given) => info = given,
                None => continue,
            }
            action = task.process.signals.lock().action(info.si_signo);
        }
        let signal = info.si_signo;
        match action.handler {
            IGNORE => {}
            DEFAULT => match default_action(signal) {
                DefaultAction::Ignore | DefaultAction::Continue => {}
                // The first process of a PID namespace, `pid_namespaces(7)`.
                _ if task.process.unkillable.load(Ordering::Relaxed) && bit(signal) & super::UNBLOCKABLE == 0 => {}
                DefaultAction::Stop => stop(task, signal),
                DefaultAction::Terminate => {
                    exit::begin_group_exit(&task.process, ExitStatus::Signaled(signal as u8));
                    return;
                }
            },
            _ => {
                if let Some(call) = call.take() {
                    settle(task, call, Some(&action));
                }
                enter_handler(task, &info, &action);
            }
        }
    }
    if let Some(call) = call {
        settle(task, call, None);
    }
    let mut signals = task.signals.lock();
    if let Some(mask) = signals.saved_mask.take() {
        signals.mask = mask;
        drop(signals);
        task.add_work(Work::SIGNAL);
    }
}

fn is_traced(task: &Task) -> bool {
    task.is_traced.load(Ordering::Relaxed)
}

/// The next signal that is not blocked, with its action. Faults of the task itself come before signals of others.
fn next(task: &Task) -> Option<(Siginfo, Sigaction)> {
    let mut process = task.process.signals.lock();
    let mut own = task.signals.lock();
    // A tracer hears of SIGCONT before the signal comes.
    if ptrace::is_interrupted(task) {
        return None;
    }
    let open = !own.mask;
    let synchronous = [raw::SIGSEGV, raw::SIGBUS, raw::SIGILL, raw::SIGTRAP, raw::SIGFPE, raw::SIGSYS];
    let faults = synchronous.iter().fold(0, |set, signal| set | bit(*signal as i32));
    let info = take_lowest(&mut own.pending, open & faults)
        .or_else(|| take_lowest(&mut own.pending, open))
        .or_else(|| take_lowest(&mut process.pending, open))?;
    let action = process.action(info.si_signo);
    if action.flags & u64::from(raw::SA_RESETHAND) != 0 && action.handler > IGNORE {
        process.actions[(info.si_signo - 1) as usize].handler = DEFAULT;
    }
    Some((info, action))
}

/// Decides between another attempt and `EINTR`, `signal(7)`.
fn settle(task: &Task, (errno, number): Interrupted, handled: Option<&Sigaction>) {
    let restarts = match (errno, handled) {
        (Errno::ERESTARTNOINTR, _) | (Errno::ERESTARTSYS | Errno::ERESTARTNOHAND | Errno::ERESTART_RESTARTBLOCK, None) => true,
        (Errno::ERESTARTSYS, Some(action)) => action.flags & u64::from(raw::SA_RESTART) != 0,
        _ => false,
    };
    let mut cpu = task.cpu.lock();
    let registers = &mut cpu.registers;
    if restarts {
        registers.rip = registers.rip.wrapping_sub(SYSCALL_LENGTH);
        registers.rax = u64::from(if errno == Errno::ERESTART_RESTARTBLOCK { raw::__NR_restart_syscall } else { number });
    } else {
        registers.rax = Errno::EINTR.to_return();
    }
}

fn enter_handler(task: &Arc<Task>, info: &Siginfo, action: &Sigaction) {
    let (mask, restored) = {
        let mut signals = task.signals.lock();
        let mask = signals.mask;
        (mask, signals.saved_mask.take().unwrap_or(mask))
    };
    if frame::push(task, info, action, restored).is_err() {
        // No stack for the handler. Where it is that of SIGSEGV itself, another attempt would fail as well, and so on for ever.
        if info.si_signo == raw::SIGSEGV as i32 {
            task.process.signals.lock().actions[(info.si_signo - 1) as usize].handler = DEFAULT;
        }
        force(task, &super::info_from_kernel(raw::SIGSEGV as i32));
        return;
    }
    let own = if action.flags & u64::from(raw::SA_NODEFER) == 0 { bit(info.si_signo) } else { 0 };
    task.signals.lock().mask = (mask | action.mask | own) & !super::UNBLOCKABLE;
}

/// A signal that the task caused itself and cannot escape: if it is blocked or ignored, or its handler just failed, it ends the process.
pub fn force(task: &Arc<Task>, info: &Siginfo) {
    {
        let mut process = task.process.signals.lock();
        let mut own = task.signals.lock();
        let index = (info.si_signo - 1) as usize;
        let fails_again = own.pending.iter().any(|other| other.si_signo == info.si_signo);
        if own.mask & bit(info.si_signo) != 0 || process.actions[index].handler == IGNORE || fails_again {
            process.actions[index].handler = DEFAULT;
            own.mask &= !bit(info.si_signo);
        }
        // Nothing shields a process from its own faults.
        if process.actions[index].handler == DEFAULT && !is_traced(task) {
            task.process.unkillable.store(false, Ordering::Relaxed);
        }
        own.pending.push(*info);
    }
    task.add_work(Work::SIGNAL);
}

/// Stops the whole process. Stop signals of terminals do nothing to groups that nobody could continue.
fn stop(task: &Arc<Task>, signal: i32) {
    let process = &task.process;
    let group = process.family.lock().group;
    if signal as u32 != raw::SIGSTOP && session::is_orphaned(&task.kernel, group) {
        return;
    }
    let tasks = {
        let mut family = process.family.lock();
        if family.exiting.is_some() {
            return;
        }
        // A tracer may have let threads go on.
        if !std::mem::replace(&mut family.stopped, true) {
            family.stop_signal = signal as u8;
            family.report = Some(Report::Stopped(signal as u8));
        }
        family.tasks.clone()
    };
    for other in &tasks {
        ptrace::group_stops(other);
        other.add_work(Work::STOP);
    }
    let parent = process.family.lock().parent.upgrade();
    let tracer = tasks.first().and_then(|leader| leader.ptrace.tracer());
    // Who traces its own child hears of its stops as a tracer.
    let tells_itself = parent.zip(tracer).is_some_and(|(parent, tracer)| Arc::ptr_eq(&parent, &tracer));
    if !tells_itself {
        exit::tell_parent(process, raw::CLD_STOPPED as i32, signal);
    }
}

/// Sleeps for as long as the process is stopped, or tells its tracer so; tells whether it was.
fn wait_while_stopped(task: &Arc<Task>) -> bool {
    let stopped = || {
        let family = task.process.family.lock();
        (family.stopped && !task.work().contains(Work::EXIT)).then_some(i32::from(family.stop_signal))
    };
    let Some(number) = stopped() else { return false };
    if is_traced(task) {
        return ptrace::join_stop(task, number);
    }
    // `/proc/<pid>/stat` shows `T` for it.
    task.mark_work(Work::STOP);
    while stopped().is_some() && !is_traced(task) {
        task.park(None);
    }
    task.clear_work(Work::STOP);
    true
}
