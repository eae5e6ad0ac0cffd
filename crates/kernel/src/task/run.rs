//! A task's life between stops of its guest thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::raw;
use cloudpilot_abi::types::Siginfo;
use cloudpilot_platform::systrap::load;
use cloudpilot_platform::{Access, Stop};

use super::{Task, Work, exit, memory_killer};
use crate::config::ExitStatus;
use crate::mm::{FaultError, Within};
use crate::syscall::dispatch;
use crate::{ptrace, signal, wait};

/// Calls that need the state of a stop by a signal anyway, or never return to their site.
const NEEDS_ALL_STATE: [u32; 9] = [
    raw::__NR_rt_sigreturn,
    raw::__NR_clone,
    raw::__NR_clone3,
    raw::__NR_fork,
    raw::__NR_vfork,
    raw::__NR_execve,
    raw::__NR_execveat,
    raw::__NR_exit,
    raw::__NR_exit_group,
];

/// Exception vector of a page fault.
const TRAP_PAGE_FAULT: u64 = 14;
/// `SI_CODE` values of memory faults, `sigaction(2)`.
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRERR: i32 = 2;

/// Runs a task until it ends; the whole life of its kernel thread.
pub fn run(task: &Arc<Task>) {
    load::enter();
    wait::serve_calls();
    while !task.work().contains(Work::EXIT) {
        if !task.work().is_empty() {
            signal::deliver(task, None);
            continue;
        }
        if let Some(stop) = enter_guest(task) {
            handle(task, stop);
        }
    }
    ptrace::before_end(task);
    exit::finish(task);
    wait::wake_deferred();
    load::leave();
}

/// Lets the guest run; none if there is work to do first.
fn enter_guest(task: &Task) -> Option<Stop> {
    let mut cpu = task.cpu.lock();
    let cpu = &mut *cpu;
    if let Some(mm) = &*task.mm.lock() {
        mm.renew(&mut *cpu.guest);
        if !mm.is_shared() {
            cpu.guest.set_alone();
        }
    }
    task.in_guest.store(true, Ordering::SeqCst);
    // Whoever adds work now sees that the guest runs, and interrupts it; whoever did before is seen here.
    let stop = task.work().is_empty().then(|| {
        let entered = crate::time::monotonic_ns();
        // Since the last stop the kernel worked for this task, except while it slept.
        let slept = task.slept_ns.swap(0, Ordering::Relaxed);
        let worked = if cpu.stopped_ns == 0 { 0 } else { entered.saturating_sub(cpu.stopped_ns).saturating_sub(slept) };
        task.guest_since.store(entered, Ordering::SeqCst);
        let is_traced = task.is_traced.load(Ordering::Relaxed);
        if is_traced {
            ptrace::enter(task, &mut cpu.registers.eflags);
        }
        let stop = cpu.guest.run(&mut cpu.registers, &mut wait::wake_deferred);
        if is_traced {
            ptrace::leave(task, &mut cpu.registers.eflags, stop == Stop::SystemCall);
        }
        task.guest_since.store(0, Ordering::SeqCst);
        cpu.stopped_ns = crate::time::monotonic_ns();
        task.system_ns.fetch_add(worked, Ordering::Relaxed);
        task.user_ns.fetch_add(cpu.stopped_ns.saturating_sub(entered), Ordering::Relaxed);
        stop
    });
    task.in_guest.store(false, Ordering::SeqCst);
    stop
}

fn handle(task: &Arc<Task>, stop: Stop) {
    match stop {
        Stop::SystemCall => {
            note_call_site(task);
            dispatch::serve(task);
        }
        Stop::Exception { signal, code, address, trap } if signal == raw::SIGILL as i32 => match within_patch(task) {
            Some(Within::Call(_)) => dispatch::serve(task),
            Some(Within::Return(_)) => {}
            None => raise(task, signal, code, address, (trap, 0)),
        },
        Stop::Fault { address, access } => fault(task, address, access),
        Stop::Exception { signal, code, address, trap } => raise(task, signal, code, address, (trap, 0)),
        Stop::Interrupted => {}
        // The stub is dead, by the host's hand or its own: as if by SIGKILL.
        Stop::Gone => exit::begin_group_exit(&task.process, ExitStatus::Signaled(raw::SIGKILL as u8)),
    }
}

/// Lets a `syscall` instruction that often stops here be patched.
fn note_call_site(task: &Task) {
    // A tracer wants to see the program's own code.
    if !task.kernel.patches_calls || task.is_traced.load(Ordering::Relaxed) {
        return;
    }
    let mut cpu = task.cpu.lock();
    let cpu = &mut *cpu;
    let number = cpu.registers.rax as u32;
    if NEEDS_ALL_STATE.contains(&number) {
        return;
    }
    if let (Some(trampoline), Some(mm)) = (cpu.guest.trampoline(), &*task.mm.lock()) {
        mm.note_call_site(&mut *cpu.guest, cpu.registers.rip, number, trampoline);
    }
}

/// A thread stood within a site when that was patched: it goes on where it would have.
fn within_patch(task: &Task) -> Option<Within> {
    let mut cpu = task.cpu.lock();
    let within = task.mm.lock().as_ref()?.within_patch(cpu.registers.rip)?;
    let (Within::Call(next) | Within::Return(next)) = within;
    cpu.registers.rip = next;
    Some(within)
}

fn fault(task: &Arc<Task>, address: u64, access: Access) {
    let stack_limit = task.process.limits.lock().soft(raw::RLIMIT_STACK);
    let Ok(mm) = task.mm() else { return };
    let result = mm.fault(&mut *task.cpu.lock().guest, address, access, stack_limit);
    let error = match access {
        Access::Read => 4,
        Access::Write => 6,
        Access::Execute => 0x14,
    };
    let trap = (TRAP_PAGE_FAULT, error);
    match result {
        Ok(()) => {}
        Err(FaultError::NotMapped) => raise(task, raw::SIGSEGV as i32, SEGV_MAPERR, address, trap),
        Err(FaultError::Forbidden) => raise(task, raw::SIGSEGV as i32, SEGV_ACCERR, address, trap),
        Err(FaultError::PastEnd) => raise(task, raw::SIGBUS as i32, BUS_ADRERR, address, trap),
        Err(FaultError::OutOfMemory) => memory_killer::end_largest(&task.kernel),
        Err(FaultError::Gone) => exit::begin_group_exit(&task.process, ExitStatus::Signaled(raw::SIGKILL as u8)),
    }
}

fn raise(task: &Arc<Task>, number: i32, code: i32, address: u64, (trap, error): (u64, u64)) {
    task.cpu.lock().trap = (trap, address, error);
    let mut info: Siginfo = signal::info_from_kernel(number);
    info.si_code = code;
    info.fields[0] = address;
    signal::force(task, &info);
}
