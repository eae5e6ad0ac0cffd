//! Waiting for children, `wait(2)`.

use std::sync::{Arc, Weak};

use bytemuck::Zeroable;
use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};

use super::process::Report;
use super::usage::{self, Rusage};
use super::{Process, Task, exit, session};
use crate::config::ExitStatus;
use crate::ptrace::End;
use crate::wait::{PollEvents, WaitError};

/// Whom to wait for.
#[derive(Clone)]
pub enum Target {
    /// Any child.
    Any,
    /// This one.
    Process(i32),
    /// Those of this group.
    Group(i32),
    /// The process behind a pidfd.
    Handle(Arc<Process>),
}

/// `WSTOPPED`, `WEXITED`, `WCONTINUED`, `WNOHANG`, `WNOWAIT`, and which children: `__WALL`, `__WCLONE`.
#[derive(Clone, Copy)]
pub struct Options(pub u32);

impl Options {
    fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
}

/// What a child did.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// Ended.
    Exited(ExitStatus),
    /// Was stopped or continued.
    Reported(Report),
    /// Stopped for the caller, its tracer: signal and event.
    Traced(i32),
}

/// A child's news.
pub struct News {
    /// Its number, in the first namespace of them.
    pub pid: i32,
    /// What it did.
    pub change: Change,
    /// Its use of resources.
    pub usage: Rusage,
    /// The same as `siginfo_t`.
    pub info: Siginfo,
}

impl Change {
    /// As `wait4(2)` encodes it.
    pub fn status(self) -> i32 {
        match self {
            Self::Exited(ExitStatus::Exited(code)) => i32::from(code) << 8,
            Self::Exited(ExitStatus::Signaled(signal)) => i32::from(signal),
            Self::Reported(Report::Stopped(signal)) => i32::from(signal) << 8 | 0x7f,
            Self::Reported(Report::Continued) => 0xffff,
            Self::Traced(code) => code << 8 | 0x7f,
        }
    }

    fn code_and_status(self) -> (i32, i32) {
        match self {
            Self::Exited(status) => exit::code_and_status(status),
            Self::Reported(Report::Stopped(signal)) => (raw::CLD_STOPPED as i32, i32::from(signal)),
            Self::Reported(Report::Continued) => (raw::CLD_CONTINUED as i32, raw::SIGCONT as i32),
            Self::Traced(code) => (raw::CLD_TRAPPED as i32, code),
        }
    }
}

/// Waits; none if nothing happened and `WNOHANG` was given. `ECHILD` without any child to wait for.
pub fn wait(task: &Arc<Task>, target: &Target, options: Options) -> Result<Option<News>, Errno> {
    let attempt = || match look(task, target, options) {
        Ok(None) => None,
        found => Some(found),
    };
    if options.has(raw::WNOHANG) {
        return attempt().unwrap_or(Ok(None));
    }
    match task.block_on(&[&task.process.changes], PollEvents::IN, None, attempt) {
        Ok(found) => found,
        Err(WaitError::Interrupted | WaitError::TimedOut) => Err(Errno::ERESTARTSYS),
    }
}

fn look(task: &Arc<Task>, target: &Target, options: Options) -> Result<Option<News>, Errno> {
    let children = task.process.family.lock().children.clone();
    let own_group = session::place(&task.process).0;
    let mut candidates = 0;
    // Children of a thread that is gone are everybody's.
    let is_mine = |child: &Process| !options.has(raw::__WNOTHREAD) || is_of(&child.family.lock().maker, task);
    for child in &children {
        if !is_mine(child) || !matches(child, target, own_group) || !right_kind(child, options) {
            continue;
        }
        candidates += 1;
        if let Some(change) = take_change(task, child, options) {
            return Ok(Some(news(task, child, change)));
        }
    }
    match look_at_tracees(task, target, options, own_group) {
        (_, Some(found)) => return Ok(Some(found)),
        (count, None) => candidates += count,
    }
    if candidates == 0 { Err(Errno::ECHILD) } else { Ok(None) }
}

/// Whether this is the thread, or there is no such thread any more.
fn is_of(thread: &Weak<Task>, task: &Arc<Task>) -> bool {
    thread.upgrade().is_none_or(|thread| Arc::ptr_eq(&thread, task))
}

/// Stops and ends of tasks that the caller traces; answers how many there are to wait for, too.
fn look_at_tracees(task: &Arc<Task>, target: &Target, options: Options, own_group: i32) -> (usize, Option<News>) {
    let mut tracees = task.process.tracees.lock();
    let fits = |tid: i32| match target {
        Target::Any => true,
        Target::Process(pid) => tid == *pid,
        Target::Group(_) => false,
        Target::Handle(process) => process.pid == tid,
    };
    let is_meant = |end: &End| fits(end.tid) || end.held.as_ref().is_some_and(|process| matches(process, target, own_group));
    if let Some(index) = tracees.ends.iter().position(is_meant)
        && options.has(raw::WEXITED)
    {
        let end = if options.has(raw::WNOWAIT) { tracees.ends[index].clone() } else { tracees.ends.remove(index) };
        drop(tracees);
        return (1, Some(end_of_tracee(task, &end, options)));
    }
    let tasks: Vec<Arc<Task>> = tracees.tasks.iter().filter_map(Weak::upgrade).collect();
    let leaderless = tracees.leaderless.iter().filter(|process| matches(process, target, own_group)).count();
    let pending = tracees.ends.iter().filter(|end| is_meant(end)).count() + leaderless;
    drop(tracees);
    let mut count = pending;
    for tracee in tasks {
        let in_group = matches!(target, Target::Group(_)) && matches(&tracee.process, target, own_group);
        let is_meant = (fits(tracee.tid()) || in_group) && (!options.has(raw::__WNOTHREAD) || tracee.ptrace.is_traced_by(task));
        if !is_meant {
            continue;
        }
        count += 1;
        let mut state = tracee.ptrace.state.lock();
        let Some(stop) = &mut state.stop else { continue };
        if stop.is_reported {
            continue;
        }
        if !options.has(raw::WNOWAIT) {
            stop.is_reported = true;
        }
        let code = stop.code;
        drop(state);
        let mut news = news(task, &tracee.process, Change::Traced(code));
        news.pid = tracee.tid();
        news.info.fields[0] = news.info.fields[0] & !0xffff_ffff | u64::from(task.shows(tracee.tid()) as u32);
        return (count, Some(news));
    }
    (count, None)
}

/// The end of a task that the caller traces. Once it is told, the parent of a process may ask.
fn end_of_tracee(task: &Task, end: &End, options: Options) -> News {
    let (code, status) = exit::code_and_status(end.status);
    let process = end.held.as_ref().unwrap_or(&task.process);
    let mut info = exit::child_info(process, &task.process, raw::SIGCHLD as i32, code, status);
    info.fields[0] = info.fields[0] & !0xffff_ffff | u64::from(task.shows(end.tid) as u32);
    let usage = end.held.as_ref().map_or_else(Rusage::default, |process| usage::times(process, None).own());
    if let Some(process) = end.held.as_ref().filter(|_| !options.has(raw::WNOWAIT)) {
        exit::release(task, process);
    }
    News { pid: end.tid, change: Change::Exited(end.status), usage, info }
}

fn matches(child: &Arc<Process>, target: &Target, own_group: i32) -> bool {
    match target {
        Target::Any => true,
        Target::Process(pid) => child.pid == *pid,
        Target::Group(group) => session::place(child).0 == if *group == 0 { own_group } else { *group },
        Target::Handle(process) => Arc::ptr_eq(child, process),
    }
}

/// `__WCLONE`: children that do not end with `SIGCHLD`; by default the others.
fn right_kind(child: &Process, options: Options) -> bool {
    let is_clone = child.family.lock().exit_signal != raw::SIGCHLD as i32;
    options.has(raw::__WALL) || is_clone == options.has(raw::__WCLONE)
}

fn take_change(task: &Task, child: &Arc<Process>, options: Options) -> Option<Change> {
    let mut family = child.family.lock();
    if family.held {
        return None;
    }
    if let Some(status) = family.exit {
        drop(family);
        let takes = options.has(raw::WEXITED) && (options.has(raw::WNOWAIT) || exit::bury(task, &task.process, child));
        return takes.then_some(Change::Exited(status));
    }
    let report = family.report?;
    // Who traces its own child hears of its stops as a tracer.
    let traces =
        || family.tasks.first().is_some_and(|leader| leader.ptrace.tracer().is_some_and(|tracer| Arc::ptr_eq(&tracer, &task.process)));
    if matches!(report, Report::Stopped(_)) && traces() {
        return None;
    }
    let wanted = match report {
        Report::Stopped(_) => raw::WSTOPPED,
        Report::Continued => raw::WCONTINUED,
    };
    if !options.has(wanted) {
        return None;
    }
    if !options.has(raw::WNOWAIT) {
        family.report = None;
    }
    Some(Change::Reported(report))
}

fn news(task: &Task, child: &Process, change: Change) -> News {
    let (code, status) = change.code_and_status();
    let info = exit::child_info(child, &task.process, raw::SIGCHLD as i32, code, status);
    News { pid: child.pid, change, usage: usage::times(child, None).own(), info }
}

/// What `waitid(2)` writes when nothing happened.
pub fn no_info() -> Siginfo {
    Siginfo::zeroed()
}
