//! Replacing a task's program, `execve(2)`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::types::StackT;
use cloudpilot_abi::{Errno, raw};
use cloudpilot_platform::{Registers, SpawnError};

use super::credentials::ALL_CAPABILITIES;
use super::{Credentials, Task, exit};
use crate::config::ExitStatus;
use crate::loader::{self, Program};
use crate::mm::Mm;
use crate::ptrace;
use crate::syscall::user_dispatch;

/// Bytes of `comm`, without its end.
const NAME_LENGTH: usize = 15;
/// Flags of a program at its start: interrupts on, and the reserved one.
const FIRST_FLAGS: u64 = 0x202;

/// Replaces the program. Past the point of no return a failure ends the process.
pub fn exec(task: &Arc<Task>, program: &Program) -> Result<(), Errno> {
    exit::end_other_threads(task)?;
    take_over_leader(task);
    let result = replace(task, program);
    if result.is_err() {
        exit::begin_group_exit(&task.process, ExitStatus::Signaled(raw::SIGKILL as u8));
    }
    result
}

/// The thread that execs goes on under its process's number.
fn take_over_leader(task: &Arc<Task>) {
    let pid = task.process.pid;
    if task.tid() != pid {
        ptrace::leader_replaced(&task.process);
        task.kernel.tasks.remove_task(task.tid());
        task.set_tid(pid);
        task.kernel.tasks.insert_task(Arc::clone(task));
    }
}

fn replace(task: &Arc<Task>, program: &Program) -> Result<(), Errno> {
    let _guard = task.process.exec_guard.lock();
    let (credentials, secure) = new_credentials(task, program);
    let mm = new_memory(task)?;
    let (space, stack) = {
        let limits = task.process.limits.lock();
        (limits.soft(raw::RLIMIT_AS), limits.soft(raw::RLIMIT_STACK))
    };
    {
        let mut cpu = task.cpu.lock();
        let start = loader::load(program, &mm, &mut *cpu.guest, &credentials, secure, (space, stack))?;
        let guest = &mut cpu.guest;
        guest.reset_floating_point();
        guest.set_fs_base(0).and_then(|()| guest.set_gs_base(0)).map_err(|_| Errno::ESRCH)?;
        cpu.registers = Registers { rip: start.entry, rsp: start.stack, eflags: FIRST_FLAGS, ..Registers::default() };
    }
    mm.set_program(&program.access);
    *task.mm.lock() = Some(mm);
    exit::release_vfork_parent(task);
    *task.credentials.lock() = credentials;
    forget_program(task, program, secure);
    Ok(())
}

/// An empty address space with this task's guest thread in it. Others may go on living in the old one (`vfork(2)`).
fn new_memory(task: &Arc<Task>) -> Result<Arc<Mm>, Errno> {
    let old = task.mm()?;
    let mut cpu = task.cpu.lock();
    if old.is_shared() {
        let guest = cpu.guest.fork_empty().map_err(|error| match error {
            SpawnError::Gone => Errno::ESRCH,
            SpawnError::Refused(errno) => Errno(errno as u16),
        })?;
        *task.interrupter.lock() = guest.interrupter();
        let previous = std::mem::replace(&mut cpu.guest, guest);
        let last = old.leave();
        previous.finish(last);
    } else {
        cpu.guest.clear().map_err(|_| Errno::ESRCH)?;
    }
    // From here on the program's mappings are made in one go, on the way to its first instruction.
    cpu.guest.set_alone();
    Ok(Mm::new(&task.kernel.memory, task.kernel.platform.address_limits()))
}

/// Credentials after exec (`credentials(7)`, `capabilities(7)`), and whether the program runs with more rights than its starter.
fn new_credentials(task: &Task, program: &Program) -> (Arc<Credentials>, bool) {
    let mut new = Credentials::clone(&task.credentials());
    let (old_euid, old_egid) = (new.euid, new.egid);
    let nosuid = program.file.path.as_ref().is_some_and(|path| path.mount.flags() & raw::MS_NOSUID != 0);
    if !nosuid
        && !new.no_new_privs
        && !is_held(task)
        && let Ok(attributes) = program.file.inode.attributes()
    {
        if attributes.permissions & raw::S_ISUID != 0 && new.user.user_inside(attributes.uid).is_some() {
            new.euid = attributes.uid;
        }
        let runs_as_group = attributes.permissions & (raw::S_ISGID | raw::S_IXGRP) == raw::S_ISGID | raw::S_IXGRP;
        if runs_as_group && new.user.group_inside(attributes.gid).is_some() {
            new.egid = attributes.gid;
        }
    }
    (new.suid, new.fsuid, new.sgid, new.fsgid) = (new.euid, new.euid, new.egid, new.egid);
    let (is_root, was_root) = (new.user.is_root(new.euid), new.user.is_root(new.ruid));
    if is_root || was_root {
        new.permitted = new.bounding & ALL_CAPABILITIES | new.inheritable;
        new.effective = if is_root { new.permitted } else { new.ambient };
    } else {
        new.permitted = new.ambient;
        new.effective = new.ambient;
    }
    // `SECBIT_KEEP_CAPS` does not outlive exec.
    new.securebits &= !(1 << 4);
    let secure = new.euid != old_euid || new.egid != old_egid || new.euid != new.ruid || new.egid != new.rgid;
    (Arc::new(new), secure)
}

/// Whether a tracer holds on to the task that could not trace a program with more rights, and would have one in its hands (`execve(2)`).
fn is_held(task: &Task) -> bool {
    let may_trace_all = |task: &Arc<Task>| task.credentials().has(raw::CAP_SYS_PTRACE);
    task.ptrace.tracer().is_some_and(|tracer| !tracer.family.lock().tasks.first().is_some_and(may_trace_all))
}

/// What of the old program does not outlive it. Programs with more rights than their starter keep their memory to themselves.
fn forget_program(task: &Arc<Task>, program: &Program, secure: bool) {
    let process = &task.process;
    process.signals.lock().reset_handlers();
    task.signals.lock().alternate_stack = StackT::default();
    process.timers.lock().clear_posix();
    task.clear_child_tid.store(0, Ordering::Relaxed);
    task.robust_list.store(0, Ordering::Relaxed);
    *task.restart.lock() = None;
    user_dispatch::forget(task);
    let mut name = program.command.clone();
    name.truncate(NAME_LENGTH);
    *task.name.lock() = name;
    process.executable.lock().clone_from(&program.file.path);
    process.dumpable.store(u32::from(!secure), Ordering::Relaxed);
    process.family.lock().has_execed = true;
    let shared = task.files();
    // Two: the task's own and this one.
    let files = if Arc::strong_count(&shared) > 2 {
        let own = shared.duplicate();
        *task.files.lock() = Arc::clone(&own);
        own
    } else {
        shared
    };
    for file in files.take_where(0, usize::MAX, |close_on_exec| close_on_exec) {
        files.closed(&file, task);
    }
}
