//! Tracing: tasks that stop for another process, `ptrace(2)`.
//!
//! A tracee stops in its own kernel thread and sleeps there until its tracer lets it go on; meanwhile the tracer reads and changes its
//! registers, which nobody else touches then. Lock order: a tracer's tracees, then a process's `family`, then a
//! task's `ptrace`.

mod ends;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

pub use self::ends::{End, Tracees, holder, leader_replaced, task_ends, thread_ends, tracer_ends};
use crate::config::ExitStatus;
use crate::signal;
use crate::syscall::SysResult;
use crate::task::{Process, Task, exit};
use crate::wait::{PollEvents, WaitQueue};

/// `PTRACE_O_TRACESYSGOOD`.
pub const O_SYSGOOD: u32 = 1;
/// `PTRACE_O_TRACEFORK` and the others, each the bit of its event's number.
pub const O_EXEC: u32 = 1 << EVENT_EXEC;
/// `PTRACE_O_EXITKILL`.
pub const O_EXITKILL: u32 = 1 << 20;
/// `PTRACE_O_SUSPEND_SECCOMP`: filters have no say meanwhile.
pub const O_SUSPEND_SECCOMP: u32 = 1 << 21;
/// `PTRACE_EVENT_*`.
pub const EVENT_FORK: u32 = 1;
/// See [`EVENT_FORK`].
pub const EVENT_VFORK: u32 = 2;
/// See [`EVENT_FORK`].
pub const EVENT_CLONE: u32 = 3;
/// See [`EVENT_FORK`].
pub const EVENT_EXEC: u32 = 4;
/// See [`EVENT_FORK`].
pub const EVENT_VFORK_DONE: u32 = 5;
/// See [`EVENT_FORK`].
pub const EVENT_EXIT: u32 = 6;
/// See [`EVENT_FORK`].
pub const EVENT_SECCOMP: u32 = 7;
/// `PTRACE_EVENT_STOP`: a stop that no signal's delivery is.
const EVENT_STOP: i32 = 128;
/// `PTRACE_EVENTMSG_SYSCALL_ENTRY` and `PTRACE_EVENTMSG_SYSCALL_EXIT`.
const MESSAGE_ENTRY: u64 = 1;
const MESSAGE_EXIT: u64 = 2;
/// The trap flag.
const TRAP_FLAG: u64 = 0x100;
/// What `orig_rax` shows outside of system calls.
const NO_CALL: u64 = u64::MAX;

/// How a tracee goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// Until something happens.
    #[default]
    Continue,
    /// Until the next system call begins or ends.
    Call,
    /// For one instruction.
    Step,
    /// Until the next system call begins, which is then left to the tracer.
    Emulate,
    /// The same, but for one instruction at most.
    EmulateStep,
}

impl Resume {
    fn steps(self) -> bool {
        matches!(self, Self::Step | Self::EmulateStep)
    }

    fn emulates(self) -> bool {
        matches!(self, Self::Emulate | Self::EmulateStep)
    }
}

/// What a stop at a system call is about, for those who asked to be told such stops from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Elsewhere.
    #[default]
    Elsewhere,
    /// It begins.
    Entry,
    /// It has ended.
    Exit,
    /// A filter leaves it to the tracer, with this word.
    Filter(u32),
}

/// A stop.
#[derive(Clone, Copy)]
pub struct Stop {
    /// Signal, and event in the second byte, as `wait4(2)` shows them.
    pub code: i32,
    /// The signal, for stops before its delivery and at events.
    pub info: Option<Siginfo>,
    /// Whether the tracer was told by `wait4(2)`.
    pub is_reported: bool,
    /// Where it is.
    pub place: Place,
    /// It stopped because it was asked to or with its group, not for an event or a signal.
    pub is_plain: bool,
}

/// Tracing state of a task.
#[derive(Default)]
pub struct State {
    /// Who traces it.
    pub tracer: Option<Weak<Process>>,
    /// The thread of that which does; nobody in particular once it is gone.
    pub by: Weak<Task>,
    /// `PTRACE_O_*`.
    pub options: u32,
    /// The present stop.
    pub stop: Option<Stop>,
    /// Attached by `PTRACE_SEIZE`: stops are told apart, and the tracer can ask for one.
    pub seized: bool,
    /// It has told its tracer that its group is stopped; what it does then is the tracer's business.
    pub joined_stop: bool,
    /// The tracer wants it to stop.
    pub interrupted: bool,
    /// Its tracer lets it stay stopped with its group, and waits for that to end.
    pub listens: bool,
    /// How it goes on.
    pub resume: Resume,
    /// Signal that the tracer lets through, or 0.
    pub signal: i32,
    /// What `PTRACE_SETSIGINFO` made of the signal.
    pub changed: Option<Siginfo>,
    /// Debug registers, which nothing comes of while no breakpoint is switched on in them.
    pub debug: [u64; 8],
    /// `PTRACE_GETEVENTMSG`.
    pub message: u64,
    /// Number of the system call, or all ones.
    pub call: u64,
}

/// A task as its tracer sees it.
#[derive(Default)]
pub struct Ptrace {
    /// What both sides know.
    pub state: Mutex<State>,
    queue: WaitQueue,
}

impl Ptrace {
    /// Who traces the task.
    pub fn tracer(&self) -> Option<Arc<Process>> {
        self.state.lock().tracer.as_ref().and_then(Weak::upgrade)
    }

    /// Whether this thread traces the task.
    pub fn is_traced_by(&self, thread: &Arc<Task>) -> bool {
        let state = self.state.lock();
        let mine = state.tracer.as_ref().and_then(Weak::upgrade).is_some_and(|tracer| Arc::ptr_eq(&tracer, &thread.process));
        mine && state.by.upgrade().is_none_or(|by| Arc::ptr_eq(&by, thread))
    }

    /// Whether the task is stopped for its tracer.
    pub fn is_stopped(&self) -> bool {
        let state = self.state.lock();
        state.stop.is_some() || state.listens
    }

    /// Lets the task go on.
    fn resume(&self, how: Resume, number: i32) {
        {
            let mut state = self.state.lock();
            state.resume = how;
            state.signal = number;
            state.stop = None;
            state.message = 0;
            state.listens = false;
        }
        self.queue.notify(PollEvents::IN);
    }
}

/// Lets a stopped tracee go on, with a signal or 0.
pub fn resume(tracee: &Task, how: Resume, number: i32) {
    tracee.ptrace.resume(how, number);
    tracee.parker.unpark();
}

/// Makes a process, and one thread of it, the tracer of a task. `EPERM` where there is one.
pub fn attach(tracer: &Arc<Process>, by: Weak<Task>, tracee: &Arc<Task>, options: u32, seized: bool) -> Result<(), Errno> {
    {
        let mut state = tracee.ptrace.state.lock();
        if state.tracer.as_ref().and_then(Weak::upgrade).is_some() {
            return Err(Errno::EPERM);
        }
        *state = State { tracer: Some(Arc::downgrade(tracer)), by, options, seized, call: NO_CALL, ..State::default() };
    }
    tracee.is_traced.store(true, Ordering::SeqCst);
    if !tracer.tracees.lock().enter(tracee) {
        detach(tracee, 0);
        return Err(Errno::EPERM);
    }
    if tracee.process.family.lock().stopped {
        // It sleeps with its group: from now on it stops for its tracer.
        tracee.add_work(crate::task::Work::STOP);
    }
    Ok(())
}

/// Asks a tracee to stop, `PTRACE_INTERRUPT`; one that is stopped does so again once it goes on.
pub fn interrupt(tracee: &Arc<Task>) {
    let listened = {
        let mut state = tracee.ptrace.state.lock();
        state.interrupted = true;
        std::mem::take(&mut state.listens)
    };
    if listened {
        tracee.ptrace.queue.notify(PollEvents::IN);
        tracee.parker.unpark();
    }
    tracee.add_work(crate::task::Work::SIGNAL);
}

/// Leaves a tracee stopped with its group, and waits for the end of that, `PTRACE_LISTEN`.
pub fn listen(tracee: &Arc<Task>) -> Result<(), Errno> {
    let mut state = tracee.ptrace.state.lock();
    if !state.seized || !state.stop.is_some_and(|stop| stop.is_plain) {
        return Err(Errno::EIO);
    }
    state.stop = None;
    // What came up since the stop began, such as SIGCONT, is told by another one at once.
    let again = state.interrupted;
    state.listens = !again;
    drop(state);
    if again {
        tracee.ptrace.queue.notify(PollEvents::IN);
        tracee.parker.unpark();
    }
    Ok(())
}

/// Waits until a tracee whose process was stopped when its tracer came has stopped for that.
pub fn settle(tracer: &Task, tracee: &Arc<Task>) {
    let is_settled = || {
        let may_run = tracee.work().contains(crate::task::Work::EXIT) || !tracee.process.family.lock().stopped;
        (may_run || tracee.ptrace.is_stopped()).then_some(())
    };
    tracer.block_killable(&tracer.process.changes, PollEvents::IN, is_settled);
}

/// `SIGCONT` was sent: who seized the task hears of it, before it comes to the signal.
pub fn continued(task: &Arc<Task>) {
    if let Some(tracer) = task.ptrace.tracer() {
        tracer.changes.notify(PollEvents::IN);
    }
    if task.ptrace.state.lock().seized {
        interrupt(task);
    }
}

/// Whether the tracer wants the task to stop.
pub fn is_interrupted(task: &Task) -> bool {
    task.is_traced.load(Ordering::Relaxed) && task.ptrace.state.lock().interrupted
}

/// Stops if the tracer asked for it; tells whether it has.
pub fn at_interrupt(task: &Arc<Task>) -> bool {
    if !std::mem::take(&mut task.ptrace.state.lock().interrupted) {
        return false;
    }
    let number = {
        let family = task.process.family.lock();
        if family.stopped { i32::from(family.stop_signal) } else { raw::SIGTRAP as i32 }
    };
    if number != raw::SIGTRAP as i32 {
        task.ptrace.state.lock().joined_stop = true;
    }
    plain_stop(task, number);
    true
}

/// Lets a task go for good, with a signal or 0.
pub fn detach(tracee: &Arc<Task>, number: i32) {
    let tracer = tracee.ptrace.tracer();
    if let Some(tracer) = tracer {
        tracer.tracees.lock().tasks.retain(|other| other.upgrade().is_some_and(|other| !Arc::ptr_eq(&other, tracee)));
    }
    tracee.is_traced.store(false, Ordering::SeqCst);
    tracee.ptrace.state.lock().tracer = None;
    resume(tracee, Resume::Continue, number);
}

/// A task that is about to end stops once more, if its tracer wants to see that.
pub fn before_end(task: &Arc<Task>) {
    if is_ending(&task.process) {
        // Nobody waits for the word of a tracer that is about to end itself: two that trace each other would never end.
        let tracees: Vec<_> = task.process.tracees.lock().tasks.iter().filter_map(Weak::upgrade).collect();
        tracees.iter().for_each(|tracee| tracee.parker.unpark());
    }
    if !wants(task, EVENT_EXIT) {
        return;
    }
    let message = match exit::status_of(task) {
        ExitStatus::Exited(code) => u64::from(code) << 8,
        ExitStatus::Signaled(number) => u64::from(number),
    };
    let code = raw::SIGTRAP as i32 | (EVENT_EXIT as i32) << 8;
    if tell(task, code, Some(notice(task, code)), Place::Elsewhere, message) {
        // Its end is decided; only the tracer's word or end lets it go, or a SIGKILL that is the first.
        let is_left_alone = || task.ptrace.tracer().is_none_or(|tracer| is_ending(&tracer));
        while task.ptrace.state.lock().stop.is_some() && !is_left_alone() {
            task.park(None);
        }
    }
}

fn is_ending(process: &Process) -> bool {
    process.family.lock().exiting.is_some()
}

/// What a tracer is told of stops that no signal is the reason for.
fn notice(task: &Task, code: i32) -> Siginfo {
    let mut info = signal::info_from_task(task, code & 0x7f, code);
    info.fields[0] = info.fields[0] & !0xffff_ffff | u64::from(task.shows(task.tid()) as u32);
    info
}

/// The task stops for its tracer until that lets it go on; answers the signal that it lets through, or 0.
fn stop(task: &Arc<Task>, code: i32, info: Option<Siginfo>, place: Place, message: u64) -> i32 {
    if !tell(task, code, info, place, message) {
        return 0;
    }
    wait_for_word(task)
}

/// Sleeps until the tracer lets the task go on; answers the signal that it lets through, or 0.
fn wait_for_word(task: &Arc<Task>) -> i32 {
    task.block_killable(&task.ptrace.queue, PollEvents::IN, || {
        let state = task.ptrace.state.lock();
        (state.stop.is_none() && !state.listens).then_some(())
    });
    let mut state = task.ptrace.state.lock();
    state.stop = None;
    state.listens = false;
    std::mem::take(&mut state.signal)
}

/// Enters a stop and tells the tracer; false if there is none.
fn tell(task: &Arc<Task>, code: i32, info: Option<Siginfo>, place: Place, message: u64) -> bool {
    let Some(tracer) = task.ptrace.tracer() else { return false };
    {
        let mut state = task.ptrace.state.lock();
        state.stop = Some(Stop { code, info, is_reported: false, place, is_plain: code >> 8 == EVENT_STOP });
        state.message = message;
        state.signal = 0;
        state.changed = None;
    }
    let quiet = tracer.signals.lock().action(raw::SIGCHLD as i32).flags & u64::from(raw::SA_NOCLDSTOP) != 0;
    if !quiet {
        let mut told = exit::child_info(&task.process, &tracer, raw::SIGCHLD as i32, raw::CLD_TRAPPED as i32, code & 0x7f);
        told.fields[0] = told.fields[0] & !0xffff_ffff | u64::from(tracer.numbers.show(task.tid()) as u32);
        signal::send_to_process(&tracer, &told);
    }
    tracer.changes.notify(PollEvents::IN);
    true
}

/// Stops before a signal is delivered; answers what to deliver instead, if anything.
pub fn before_signal(task: &Arc<Task>, info: Siginfo) -> Option<Siginfo> {
    let let_through = stop(task, info.si_signo, Some(info), Place::Elsewhere, 0);
    let changed = task.ptrace.state.lock().changed.take();
    match changed {
        _ if let_through == 0 => None,
        Some(changed) if changed.si_signo == let_through => Some(changed),
        _ if info.si_signo == let_through => Some(info),
        _ => {
            let mut new = signal::info_from_task(task, let_through, raw::SI_USER as i32);
            if let Some(tracer) = task.ptrace.tracer() {
                new.fields[0] = u64::from(task.shows(tracer.pid) as u32);
            }
            Some(new)
        }
    }
}

/// Whether the task knows of its group's stop already, and goes on nevertheless.
pub fn has_joined_stop(task: &Task) -> bool {
    task.is_traced.load(Ordering::Relaxed) && task.ptrace.state.lock().joined_stop
}

/// The group stops anew: each of its tracees tells its tracer.
pub fn group_stops(task: &Task) {
    task.ptrace.state.lock().joined_stop = false;
}

/// Stops where an untraced task would stop with its group; false if it has already done so.
pub fn join_stop(task: &Arc<Task>, number: i32) -> bool {
    let seized = {
        let mut state = task.ptrace.state.lock();
        if std::mem::replace(&mut state.joined_stop, true) {
            return false;
        }
        // This is as good as the stop that was asked for.
        state.interrupted &= !state.seized;
        state.seized
    };
    if seized {
        plain_stop(task, number);
    } else {
        stop(task, number, None, Place::Elsewhere, 0);
    }
    true
}

/// A seized task stops because it was asked to or with its group; answers the signal that the tracer lets through, or 0.
fn plain_stop(task: &Arc<Task>, number: i32) -> i32 {
    let code = number | EVENT_STOP << 8;
    if !tell(task, code, Some(notice(task, code)), Place::Elsewhere, 0) {
        return 0;
    }
    wait_for_word(task)
}

/// Stops at an event about a task, if the tracer asked for those of its kind.
pub fn at_event(task: &Arc<Task>, event: u32, about: i32) {
    if !wants(task, event) {
        return;
    }
    let message = task.ptrace.tracer().map_or(0, |tracer| tracer.numbers.show(about));
    let code = raw::SIGTRAP as i32 | (event as i32) << 8;
    // What the tracer gives here is no signal to be sent.
    stop(task, code, Some(notice(task, code)), Place::Elsewhere, message as u64);
}

/// Whether the tracer lets no filter have a say.
pub fn suspends_filters(task: &Task) -> bool {
    task.is_traced.load(Ordering::Relaxed) && task.ptrace.state.lock().options & O_SUSPEND_SECCOMP != 0
}

/// Whether the tracer asked for events of this kind.
pub fn wants(task: &Task, event: u32) -> bool {
    task.is_traced.load(Ordering::Relaxed) && task.ptrace.state.lock().options & 1 << event != 0
}

/// Stops where a system call begins or ends; what the tracer gives is sent as a signal.
fn call_stop(task: &Arc<Task>, place: Place, message: u64) {
    let is_good = task.ptrace.state.lock().options & O_SYSGOOD != 0;
    let (code, place) = if is_good { (raw::SIGTRAP as i32 | 0x80, place) } else { (raw::SIGTRAP as i32, Place::Elsewhere) };
    let mut info = notice(task, code);
    info.si_signo = raw::SIGTRAP as i32;
    let given = stop(task, code, Some(info), place, message);
    if given != 0 {
        signal::send_to_task(task, &signal::info_from_kernel(given));
    }
}

/// A system call of a traced task: stops before and after it if the tracer wants that. `serve` gets the number, which the tracer may change.
pub fn around_call(task: &Arc<Task>, number: u32, serve: impl FnOnce(u32) -> SysResult) -> SysResult {
    let (wanted, emulates) = {
        let mut state = task.ptrace.state.lock();
        state.call = u64::from(number);
        let emulates = state.resume.emulates();
        (emulates || state.resume == Resume::Call, emulates)
    };
    if !wanted {
        return serve(number);
    }
    task.cpu.lock().registers.rax = Errno::ENOSYS.to_return();
    call_stop(task, Place::Entry, MESSAGE_ENTRY);
    let call = task.ptrace.state.lock().call as u32;
    // Of the numbers that there are no calls for one calls it off.
    if call != u32::MAX && !emulates {
        return serve(call);
    }
    result_in_registers(task)
}

/// A filter leaves a call to the tracer. Answers the number that it is to have now, or what stands for its result where the tracer called it off.
pub fn at_filter(task: &Arc<Task>, number: u32, data: u32) -> Result<u32, SysResult> {
    task.cpu.lock().registers.rax = Errno::ENOSYS.to_return();
    let code = raw::SIGTRAP as i32 | (EVENT_SECCOMP as i32) << 8;
    task.ptrace.state.lock().call = u64::from(number);
    stop(task, code, Some(notice(task, code)), Place::Filter(data), u64::from(data));
    let call = task.ptrace.state.lock().call as i32;
    u32::try_from(call).map_err(|_| result_in_registers(task))
}

/// What stands for the result of a call that the tracer called off.
fn result_in_registers(task: &Task) -> SysResult {
    let value = task.cpu.lock().registers.rax as i64;
    if (-4095..0).contains(&value) { Err(Errno(value.unsigned_abs() as u16)) } else { Ok(value as usize) }
}

/// After a system call, with its result in the registers.
pub fn after_call(task: &Arc<Task>) {
    let how = task.ptrace.state.lock().resume;
    if how.steps() {
        let mut info = signal::info_from_kernel(raw::SIGTRAP as i32);
        info.si_code = raw::TRAP_TRACE as i32;
        info.fields[0] = task.cpu.lock().registers.rip;
        signal::force(task, &info);
    } else if how == Resume::Call {
        call_stop(task, Place::Exit, MESSAGE_EXIT);
    }
}

/// Before the guest runs: sets the trap flag for a single step.
pub fn enter(task: &Task, flags: &mut u64) {
    if task.ptrace.state.lock().resume.steps() {
        *flags |= TRAP_FLAG;
    }
}

/// After it ran: takes the flag back. `in_call` tells a stop at a system call.
pub fn leave(task: &Task, flags: &mut u64, in_call: bool) {
    let mut state = task.ptrace.state.lock();
    if state.resume.steps() {
        *flags &= !TRAP_FLAG;
    }
    if !in_call {
        state.call = NO_CALL;
    }
}

/// A task made by a traced one is traced, too; it starts with a stop.
pub fn inherit(task: &Arc<Task>, child: &Arc<Task>) {
    let Some(tracer) = task.ptrace.tracer().filter(|tracer| !tracer.is_init()) else { return };
    let (options, seized, by) = {
        let state = task.ptrace.state.lock();
        (state.options, state.seized, Weak::clone(&state.by))
    };
    if attach(&tracer, by, child, options, seized).is_err() {
        return;
    }
    if seized {
        child.ptrace.state.lock().interrupted = true;
        child.mark_work(crate::task::Work::SIGNAL);
    } else {
        // Nobody sent it.
        child.signals.lock().pending.push(Siginfo { si_code: raw::SI_USER as i32, ..signal::info_from_kernel(raw::SIGSTOP as i32) });
        child.mark_work(crate::task::Work::SIGNAL);
    }
}
