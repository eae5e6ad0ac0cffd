//! Ends of threads and processes, `exit(2)`, and what the family learns of them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};

use super::{Process, Task, Work, session, usage};
use crate::config::ExitStatus;
use crate::futex;
use crate::mm::Mm;
use crate::namespace;
use crate::ptrace;
use crate::signal::{self, IGNORE};
use crate::time::monotonic_ns;
use crate::time::service::{Expire, schedule};
use crate::wait::PollEvents;

/// Ends all threads of a process with this status, unless its end is under way already.
pub fn begin_group_exit(process: &Process, status: ExitStatus) {
    let tasks = {
        let mut family = process.family.lock();
        family.exiting.get_or_insert(status);
        family.stopped = false;
        family.tasks.clone()
    };
    for task in tasks {
        task.add_work(Work::EXIT);
    }
}

/// Time that threads of a killed process have to leave the guest by themselves.
const PATIENCE_NS: u64 = 500_000_000;

/// Ends a process as `SIGKILL` does. A thread that does not leave the guest when interrupted (its program tampered with the stub) is ended with its
/// whole address space.
pub fn kill(process: &Process) {
    let killed = ExitStatus::Signaled(raw::SIGKILL as u8);
    let ended_otherwise = process.family.lock().exiting.is_some_and(|status| status != killed);
    begin_group_exit(process, killed);
    if ended_otherwise {
        // Who stopped for a tracer before an end of its own learns of this in no other way. A second SIGKILL does nothing, as on Linux.
        end_stops(process);
    }
    let tasks = process.family.lock().tasks.clone();
    if let Some(task) = tasks.iter().find(|task| task.is_in_guest()) {
        let enforcement = schedule(monotonic_ns() + PATIENCE_NS, Arc::new(Enforcement(Arc::downgrade(&task.process))));
        *process.enforcement.lock() = Some(enforcement);
    }
}

/// Lets the threads of a process that ends go on that are stopped for a tracer.
pub fn end_stops(process: &Process) {
    let tasks = process.family.lock().tasks.clone();
    for task in tasks.iter().filter(|task| task.ptrace.is_stopped()) {
        ptrace::resume(task, ptrace::Resume::Continue, 0);
    }
}

/// What is left of a killed process after a while.
struct Enforcement(Weak<Process>);

impl Expire for Enforcement {
    fn expire(&self) {
        let tasks = self.0.upgrade().map(|process| process.family.lock().tasks.clone());
        // Those that left it may stay with a tracer, who reads their registers.
        tasks.iter().flatten().filter(|task| task.is_in_guest()).for_each(|task| task.interrupter.lock().kill());
    }
}

/// Ends the calling thread; the last of a process ends the process. `status` is what `exit(2)` was given: it counts for the last thread only.
pub fn begin_thread_exit(task: &Task, status: u8) {
    end_thread(task, ExitStatus::Exited(status));
}

/// Ends one thread in this way; the last of a process ends the process.
pub fn end_thread(task: &Task, status: ExitStatus) {
    *task.ending.lock() = Some(status);
    {
        let mut family = task.process.family.lock();
        if family.tasks.len() == 1 {
            family.exiting.get_or_insert(status);
        }
        // The status of a process whose threads all end by themselves is that of the last one.
        family.last_status = Some(status);
    }
    task.add_work(Work::EXIT);
}

/// How a task that is to end does so: by itself, with its process, or because another thread execs.
pub fn status_of(task: &Task) -> ExitStatus {
    let own = *task.ending.lock();
    own.or_else(|| task.process.family.lock().exiting).unwrap_or(ExitStatus::Exited(0))
}

/// Tells the parent of a change of state with `SIGCHLD` (`code` is one of `CLD_*`), and those who wait.
pub fn tell_parent(process: &Process, code: i32, status: i32) {
    let Some(parent) = process.family.lock().parent.upgrade() else { return };
    let quiet = parent.signals.lock().action(raw::SIGCHLD as i32).flags & u64::from(raw::SA_NOCLDSTOP) != 0;
    if !quiet {
        signal::send_to_process(&parent, &child_info(process, &parent, raw::SIGCHLD as i32, code, status));
    }
    parent.changes.notify(PollEvents::IN);
}

/// `siginfo_t` of a child's change of state, as `viewer` knows process and user.
pub fn child_info(process: &Process, viewer: &Process, signal: i32, code: i32, status: i32) -> Siginfo {
    let mut info = signal::info_from_kernel(signal);
    info.si_code = code;
    let uid = process.uid.load(Ordering::Relaxed);
    let uid = viewer.users().map_or(uid, |users| users.show_user(uid));
    let times = usage::times(process, None);
    info.fields[0] = u64::from(viewer.numbers.show(process.pid) as u32) | u64::from(uid) << 32;
    info.fields[1] = u64::from(status as u32);
    // Clock ticks of 10 ms.
    info.fields[2] = times.user_ns / 10_000_000;
    info.fields[3] = times.system_ns / 10_000_000;
    info
}

/// What a finished process's parent is told: `CLD_*` and the value that goes with it.
pub fn code_and_status(status: ExitStatus) -> (i32, i32) {
    match status {
        ExitStatus::Exited(code) => (raw::CLD_EXITED as i32, i32::from(code)),
        ExitStatus::Signaled(signal) => (raw::CLD_KILLED as i32, i32::from(signal)),
    }
}

/// The end of a task, by its own kernel thread.
pub fn finish(task: &Arc<Task>) {
    futex::release_owned(task);
    clear_tid(task);
    usage::thread_exits(task);
    leave_files(task);
    task.seccomp.forget();
    let memory = leave_memory(task);
    let process = &task.process;
    let kernel = &task.kernel;
    kernel.tasks.remove_task(task.tid());
    let last = {
        let mut family = process.family.lock();
        family.tasks.retain(|other| !Arc::ptr_eq(other, task));
        family.tasks.is_empty()
    };
    if task.is_traced.load(Ordering::Relaxed) {
        ptrace::task_ends(task, status_of(task), last);
    }
    if !last {
        ptrace::thread_ends(task);
    }
    // A thread that execs waits for the others to go.
    process.changes.notify(PollEvents::PRI);
    if last {
        // Tracees that stop before their end would wait for this one, which waits for the end of all in its namespace.
        ptrace::tracer_ends(task);
        namespace::pid::end(task);
        finish_process(task);
    }
    drop(memory);
}

/// `set_tid_address(2)`: the address is cleared and woken when others share the memory and may join the thread.
fn clear_tid(task: &Arc<Task>) {
    let address = task.clear_child_tid.swap(0, Ordering::Relaxed);
    if address != 0 && task.mm().is_ok_and(|mm| mm.is_shared()) && task.write(address, &0_u32).is_ok() {
        let _ = futex::wake(task, address, 1, futex::ANY, true);
        let _ = futex::wake(task, address, 1, futex::ANY, false);
    }
}

fn leave_files(task: &Arc<Task>) {
    let files = std::mem::take(&mut *task.files.lock());
    if Arc::strong_count(&files) == 1 {
        for file in files.take_where(0, usize::MAX, |_| true) {
            files.closed(&file, task);
        }
    }
}

/// Address spaces up to this size are given back only after the parent was told of the end: that takes the host tens of microseconds a piece,
/// which the parent need not wait for. Larger ones go first, or the parent's next child might not find room.
const LATE_RELEASE: u64 = 16 << 20;

/// Leaves the address space; the guest thread ends. Answers what is still to be given back.
fn leave_memory(task: &Arc<Task>) -> Option<Arc<Mm>> {
    let mm = task.mm.lock().take();
    let guest = std::mem::replace(&mut task.cpu.lock().guest, Box::new(super::init::NoGuest));
    let last = mm.as_ref().is_none_or(|mm| mm.leave());
    guest.finish(last);
    release_vfork_parent(task);
    mm.filter(|mm| mm.resident_bytes() <= LATE_RELEASE)
}

/// Lets the parent of a `vfork(2)` go on.
pub fn release_vfork_parent(task: &Task) {
    let parent = task.vfork.lock().take();
    if let Some(parent) = parent {
        parent.release();
    }
}

/// The last thread has gone.
fn finish_process(task: &Arc<Task>) {
    let process = &task.process;
    let kernel = &task.kernel;
    process.timers.lock().clear();
    *process.enforcement.lock() = None;
    let space = Arc::clone(&task.namespaces().ipc);
    crate::ipc::semaphores::process_exits(&space.ipc, process.pid);
    crate::ipc::shared_memory::process_exits(kernel, &space.ipc);
    if kernel.exits.is_expected(process.pid)
        && let Some(terminal) = process.terminal.lock().clone()
    {
        terminal.wait_until_shown();
    }
    crate::tty::disassociate(kernel, process);
    let (status, children, parent, exit_signal, group) = {
        let mut family = process.family.lock();
        let status = family.final_status();
        family.exiting = Some(status);
        let children = std::mem::take(&mut family.children);
        (status, children, family.parent.upgrade(), family.exit_signal, family.group)
    };
    adopt(task, children);
    let parents_group = parent.as_ref().map(|parent| session::place(parent).0);
    let is_traced = process.family.lock().leader_tracer.strong_count() > 0;
    let is_disowned = is_disowned(parent.as_ref(), exit_signal, is_traced);
    {
        let mut family = process.family.lock();
        family.exit = Some(status);
        // Until it is known that nobody holds it.
        family.held = is_traced;
    }
    kernel.exits.ended(process.pid, status);
    process.changes.notify(PollEvents::HUP | PollEvents::IN);
    if !is_traced || ptrace::holder(process, parent.as_ref(), status).is_none() {
        process.family.lock().held = false;
        tell_of_end(task, process, status, is_disowned);
    }
    if parents_group != Some(group) {
        session::wake_if_orphaned(kernel, group);
    }
}

/// Whether nobody is to wait for a process: its parent wants to hear of no child, or is the kernel itself. Tracees are waited for in any case.
fn is_disowned(parent: Option<&Arc<Process>>, exit_signal: i32, is_traced: bool) -> bool {
    parent.is_none_or(|parent| {
        let action = parent.signals.lock().action(raw::SIGCHLD as i32);
        let wants_none = action.handler == IGNORE || action.flags & u64::from(raw::SA_NOCLDWAIT) != 0;
        parent.is_init() || exit_signal == raw::SIGCHLD as i32 && wants_none && !is_traced
    })
}

/// Tells the parent of a process that it has ended.
fn tell_of_end(task: &Task, process: &Arc<Process>, status: ExitStatus, is_disowned: bool) {
    let (parent, exit_signal) = {
        let family = process.family.lock();
        (family.parent.upgrade(), family.exit_signal)
    };
    let Some(parent) = parent else { return };
    let (code, value) = code_and_status(status);
    if exit_signal != 0 {
        signal::send_to_process(&parent, &child_info(process, &parent, exit_signal, code, value));
    }
    if is_disowned {
        bury(task, &parent, process);
    }
    parent.changes.notify(PollEvents::IN);
}

/// The tracer of a process that has ended is done with it: now it is for its parent. `task` is anybody.
pub fn release(task: &Task, process: &Arc<Process>) {
    let (status, parent, exit_signal) = {
        let mut family = process.family.lock();
        family.held = false;
        (family.exit, family.parent.upgrade(), family.exit_signal)
    };
    if let Some(status) = status {
        tell_of_end(task, process, status, is_disowned(parent.as_ref(), exit_signal, false));
    }
}

/// Hands orphans to the nearest ancestor in the same PID namespace that asked for them, else to the first process of the namespace.
fn adopt(task: &Arc<Task>, children: Vec<Arc<Process>>) {
    let kernel = &task.kernel;
    let Some(init) = kernel.tasks.process(super::process::INIT) else { return };
    let space = &task.process.numbers;
    let first = space.init().and_then(|first| kernel.tasks.process(first)).filter(|first| !Arc::ptr_eq(first, &task.process));
    let mut heir = task.process.family.lock().parent.upgrade();
    while let Some(candidate) = &heir {
        if !Arc::ptr_eq(&candidate.numbers, space) {
            heir = None;
            break;
        }
        if candidate.is_init() || candidate.reaps_descendants.load(Ordering::Relaxed) && !candidate.has_exited() {
            break;
        }
        let above = candidate.family.lock().parent.upgrade();
        heir = above;
    }
    let heir = heir.or(first).unwrap_or(init);
    for child in children {
        let (dead, death_signals, group) = {
            let mut family = child.family.lock();
            family.parent = Arc::downgrade(&heir);
            family.maker = Weak::new();
            family.exit_signal = raw::SIGCHLD as i32;
            (family.exit.is_some() && !family.held, family.tasks.clone(), family.group)
        };
        for orphan in death_signals {
            let signal = orphan.parent_death_signal.load(Ordering::Relaxed);
            if signal != 0 {
                signal::send_to_task(&orphan, &signal::info_from_kernel(signal));
            }
        }
        if dead && heir.is_init() {
            kernel.tasks.remove_process(child.pid);
            continue;
        }
        heir.family.lock().children.push(child);
        heir.changes.notify(PollEvents::IN);
        session::wake_if_orphaned(kernel, group);
    }
}

/// Takes a dead child away from its parent, whom its use is charged to; false if somebody else did already.
pub fn bury(task: &Task, parent: &Process, child: &Arc<Process>) -> bool {
    let found = {
        let mut family = parent.family.lock();
        let before = family.children.len();
        family.children.retain(|other| !Arc::ptr_eq(other, child));
        family.children.len() < before
    };
    if found {
        usage::child_waited_for(parent, child);
        task.kernel.tasks.remove_process(child.pid);
    }
    found
}

/// Ends all other threads of the process and waits until they are gone (exec). `EAGAIN` if this thread is to go itself.
pub fn end_other_threads(task: &Arc<Task>) -> Result<(), Errno> {
    let process = &task.process;
    let others = {
        let mut family = process.family.lock();
        if family.exiting.is_some() || family.execing {
            return Err(Errno::EAGAIN);
        }
        family.execing = true;
        family.tasks.clone()
    };
    for other in others.iter().filter(|other| !Arc::ptr_eq(other, task)) {
        other.add_work(Work::EXIT);
    }
    drop(others);
    let alone = task.block_killable(&process.changes, PollEvents::PRI, || (process.family.lock().tasks.len() == 1).then_some(()));
    process.family.lock().execing = false;
    alone.ok_or(Errno::EAGAIN)
}
