//! Ends of tracees and of tracers: who learns of them, and what becomes of the others.

use std::sync::{Arc, Weak};

use cloudpilot_abi::raw;

use super::{O_EXITKILL, detach};
use crate::config::ExitStatus;
use crate::signal;
use crate::task::{Process, Task, exit};
use crate::wait::PollEvents;

/// The end of a tracee that its tracer has not asked for.
#[derive(Clone)]
pub struct End {
    /// Its number.
    pub tid: i32,
    /// How it ended.
    pub status: ExitStatus,
    /// The process that ended with it, whose parent is not told before the tracer has asked.
    pub held: Option<Arc<Process>>,
}

/// What a process traces.
#[derive(Default)]
pub struct Tracees {
    /// Live ones.
    pub tasks: Vec<Weak<Task>>,
    /// Processes whose first thread was traced and is gone, while others live on.
    pub leaderless: Vec<Arc<Process>>,
    /// Ends that were not asked for yet.
    pub ends: Vec<End>,
    /// The tracer itself has ended.
    closed: bool,
}

impl Tracees {
    /// Takes a tracee in; false if the tracer itself has ended, and would never let it go.
    pub(super) fn enter(&mut self, tracee: &Arc<Task>) -> bool {
        if !self.closed {
            self.tasks.push(Arc::downgrade(tracee));
        }
        !self.closed
    }

    /// Keeps the end of a thread. A tracer that asks for none has the oldest of `most` forgotten, but none of a process: those are zombies, which
    /// have a limit of their own.
    fn keep(&mut self, end: End, most: usize) {
        if self.ends.len() >= most
            && let Some(oldest) = self.ends.iter().position(|end| end.held.is_none())
        {
            self.ends.remove(oldest);
        }
        self.ends.push(end);
    }
}

/// A task ends. Of a thread its tracer learns at once; of the first one only with its process, by [`holder`]. `last` when that ends with it.
pub fn task_ends(task: &Arc<Task>, status: ExitStatus, last: bool) {
    let Some(tracer) = task.ptrace.tracer() else { return };
    let process = &task.process;
    let leads = task.tid() == process.pid;
    if leads {
        process.family.lock().leader_tracer = Arc::downgrade(&tracer);
    }
    {
        let mut tracees = tracer.tracees.lock();
        tracees.tasks.retain(|other| other.upgrade().is_some_and(|other| !Arc::ptr_eq(&other, task)));
        match (leads, last) {
            _ if tracees.closed => {}
            (false, _) => {
                let most = task.kernel.limits.processes as usize;
                tracees.keep(End { tid: task.tid(), status, held: None }, most);
            }
            (true, false) => tracees.leaderless.push(Arc::clone(process)),
            (true, true) => {}
        }
    }
    if !leads {
        tell(&tracer, process, task.tid(), status);
    }
}

/// Another thread that execs has become the first one: whoever traced that before it ended has nothing to wait for.
pub fn leader_replaced(process: &Arc<Process>) {
    let before = std::mem::take(&mut process.family.lock().leader_tracer).upgrade();
    if let Some(tracer) = before {
        tracer.tracees.lock().leaderless.retain(|other| !Arc::ptr_eq(other, process));
        tracer.changes.notify(PollEvents::IN);
    }
}

/// Who is to ask for the end of a process before its parent does: the tracer of its first thread, unless that is the parent itself. It is told.
pub fn holder(process: &Arc<Process>, parent: Option<&Arc<Process>>, status: ExitStatus) -> Option<Arc<Process>> {
    let tracer = std::mem::take(&mut process.family.lock().leader_tracer).upgrade()?;
    {
        let mut tracees = tracer.tracees.lock();
        tracees.leaderless.retain(|other| !Arc::ptr_eq(other, process));
        if tracees.closed || parent.is_some_and(|parent| Arc::ptr_eq(parent, &tracer)) {
            return None;
        }
        tracees.ends.push(End { tid: process.pid, status, held: Some(Arc::clone(process)) });
    }
    tell(&tracer, process, process.pid, status);
    Some(tracer)
}

/// `SIGCHLD` for the end of a tracee, and a word to those who wait.
fn tell(tracer: &Process, process: &Process, tid: i32, status: ExitStatus) {
    let (code, value) = exit::code_and_status(status);
    let mut info = exit::child_info(process, tracer, raw::SIGCHLD as i32, code, value);
    info.fields[0] = info.fields[0] & !0xffff_ffff | u64::from(tracer.numbers.show(tid) as u32);
    signal::send_to_process(tracer, &info);
    tracer.changes.notify(PollEvents::IN);
}

/// A thread ends, but not its process: what it traces goes on untraced, or ends, too.
pub fn thread_ends(task: &Arc<Task>) {
    let mine: Vec<Arc<Task>> = {
        let tracees = task.process.tracees.lock();
        let by_it = |tracee: &Arc<Task>| tracee.ptrace.state.lock().by.upgrade().is_some_and(|by| Arc::ptr_eq(&by, task));
        tracees.tasks.iter().filter_map(Weak::upgrade).filter(by_it).collect()
    };
    mine.iter().for_each(abandon);
}

/// A process ends, with this task: what it traces goes on untraced, or ends, too. Ends that it did not ask for are for the parents to ask.
pub fn tracer_ends(task: &Task) {
    let (tasks, ends) = {
        let mut tracees = task.process.tracees.lock();
        tracees.closed = true;
        tracees.leaderless.clear();
        (std::mem::take(&mut tracees.tasks), std::mem::take(&mut tracees.ends))
    };
    tasks.iter().filter_map(Weak::upgrade).for_each(|tracee| abandon(&tracee));
    for process in ends.into_iter().filter_map(|end| end.held) {
        exit::release(task, &process);
    }
}

/// Lets a tracee go whose tracer ends. It keeps the signal that it stopped for if nobody was told of that.
fn abandon(tracee: &Arc<Task>) {
    let (kills, number) = {
        let state = tracee.ptrace.state.lock();
        let unseen = state.stop.filter(|stop| !stop.is_reported).map_or(0, |stop| stop.code);
        (state.options & O_EXITKILL != 0, if signal::bit(unseen) != 0 { unseen } else { 0 })
    };
    if kills {
        signal::send_to_process(&tracee.process, &signal::info_from_kernel(raw::SIGKILL as i32));
    }
    detach(tracee, number);
}
