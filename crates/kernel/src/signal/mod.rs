//! Signals: sending, masks, delivery, handlers, job control, `signal(7)`.
//!
//! Lock order: a process's `family`, then its `signals`, then a task's `signals`.

mod deliver;
mod frame;
mod send;

use cloudpilot_abi::types::{Sigaction, Siginfo, StackT};
use cloudpilot_abi::{Errno, raw};

use crate::syscall::SysResult;
use crate::task::{Task, Work};

pub use deliver::{deliver, force};
pub use frame::{reported_stack, return_from_handler};
pub use send::{
    as_received, info_from_kernel, info_from_task, queue_to_process, queue_to_task, send_to_group, send_to_process, send_to_task,
};

/// Signals by number: bit `n - 1` for signal `n`.
pub type SignalSet = u64;

/// Highest signal number.
pub const HIGHEST: i32 = 64;
/// First real-time signal; those are queued one by one, the others once.
pub const FIRST_REALTIME: i32 = 32;
/// `SIG_DFL`.
pub const DEFAULT: u64 = 0;
/// `SIG_IGN`.
pub const IGNORE: u64 = 1;
/// `SIGKILL` and `SIGSTOP`, which no mask holds back.
pub const UNBLOCKABLE: SignalSet = bit(raw::SIGKILL as i32) | bit(raw::SIGSTOP as i32);
/// Signals that stop a process.
const STOPS: SignalSet = bit(raw::SIGSTOP as i32) | bit(raw::SIGTSTP as i32) | bit(raw::SIGTTIN as i32) | bit(raw::SIGTTOU as i32);

/// The bit of a signal in a set; none for numbers that are no signals.
pub const fn bit(signal: i32) -> SignalSet {
    if signal >= 1 && signal <= HIGHEST { 1 << (signal - 1) } else { 0 }
}

/// Signal state of one task.
#[derive(Default)]
pub struct TaskSignals {
    /// Blocked signals.
    pub mask: SignalSet,
    /// Mask to come back to after `sigsuspend`, `ppoll` and friends, once a handler was set up.
    pub saved_mask: Option<SignalSet>,
    /// Signals that `sigtimedwait` waits for although they are blocked.
    pub awaited: SignalSet,
    /// Pending for this task alone.
    pub pending: Vec<Siginfo>,
    /// `sigaltstack(2)`.
    pub alternate_stack: StackT,
}

/// Signal state of a process.
pub struct ProcessSignals {
    /// What to do about each signal; index `n - 1`.
    pub actions: [Sigaction; 64],
    /// Pending for the process as a whole.
    pub pending: Vec<Siginfo>,
}

impl Default for ProcessSignals {
    fn default() -> Self {
        Self { actions: [Sigaction::default(); 64], pending: Vec::new() }
    }
}

impl ProcessSignals {
    /// What to do about a signal.
    pub fn action(&self, signal: i32) -> Sigaction {
        usize::try_from(signal - 1).ok().and_then(|index| self.actions.get(index)).copied().unwrap_or_default()
    }

    /// What exec leaves: handlers go back to the default, ignored signals stay so.
    pub fn reset_handlers(&mut self) {
        for action in &mut self.actions {
            *action = Sigaction { handler: if action.handler == IGNORE { IGNORE } else { DEFAULT }, ..Sigaction::default() };
        }
    }
}

/// What a signal does where no handler is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// Ends the process.
    Terminate,
    /// Nothing.
    Ignore,
    /// Stops the process.
    Stop,
    /// Continues it, which sending already did.
    Continue,
}

/// The default action of a signal, `signal(7)`.
pub fn default_action(signal: i32) -> DefaultAction {
    match signal as u32 {
        raw::SIGCHLD | raw::SIGURG | raw::SIGWINCH => DefaultAction::Ignore,
        raw::SIGCONT => DefaultAction::Continue,
        raw::SIGSTOP | raw::SIGTSTP | raw::SIGTTIN | raw::SIGTTOU => DefaultAction::Stop,
        _ => DefaultAction::Terminate,
    }
}

/// Whether the default action of a signal would leave an image of the process behind, `core(5)`.
pub fn dumps_core(signal: i32) -> bool {
    let dumping = [
        raw::SIGQUIT,
        raw::SIGILL,
        raw::SIGTRAP,
        raw::SIGABRT,
        raw::SIGFPE,
        raw::SIGSEGV,
        raw::SIGBUS,
        raw::SIGSYS,
        raw::SIGXCPU,
        raw::SIGXFSZ,
    ];
    dumping.contains(&(signal as u32))
}

/// Signals of a queue as a set.
pub fn set_of(pending: &[Siginfo]) -> SignalSet {
    pending.iter().fold(0, |set, info| set | bit(info.si_signo))
}

/// All signals pending for the task or its process.
pub fn pending(task: &Task) -> SignalSet {
    let process = set_of(&task.process.signals.lock().pending);
    process | set_of(&task.signals.lock().pending)
}

/// Whether one of `set` is pending for the task or its process, blocked or not (`signalfd(2)`).
pub fn is_pending(task: &Task, set: SignalSet) -> bool {
    pending(task) & set != 0
}

/// Takes one pending signal of `set` away from the task or its process: its own first, lowest number first (`signalfd(2)`, `sigtimedwait(2)`).
pub fn take_pending(task: &Task, set: SignalSet) -> Option<Siginfo> {
    let mut process = task.process.signals.lock();
    let mut own = task.signals.lock();
    take_lowest(&mut own.pending, set).or_else(|| take_lowest(&mut process.pending, set))
}

fn take_lowest(pending: &mut Vec<Siginfo>, set: SignalSet) -> Option<Siginfo> {
    let candidates = pending.iter().enumerate().filter(|(_, info)| bit(info.si_signo) & set != 0);
    let (index, _) = candidates.min_by_key(|(index, info)| (info.si_signo, *index))?;
    Some(pending.remove(index))
}

/// Runs `call` with another mask (`ppoll(2)`, `pselect(2)`, `epoll_pwait(2)`). When a signal ended it, the mask stays until a handler was set up
/// for that signal; the frame then holds the old mask.
pub fn with_temporary_mask(task: &Task, mask: Option<SignalSet>, call: impl FnOnce() -> SysResult) -> SysResult {
    let Some(mask) = mask else { return call() };
    let old = std::mem::replace(&mut task.signals.lock().mask, mask & !UNBLOCKABLE);
    task.add_work(Work::SIGNAL);
    let result = call();
    let mut signals = task.signals.lock();
    match result {
        Err(Errno::EINTR | Errno::ERESTARTNOHAND | Errno::ERESTARTSYS) => signals.saved_mask = Some(old),
        _ => {
            signals.mask = old;
            drop(signals);
            task.add_work(Work::SIGNAL);
        }
    }
    result
}

/// Changes the mask of the calling task.
pub fn set_mask(task: &Task, mask: SignalSet) {
    task.signals.lock().mask = mask & !UNBLOCKABLE;
    // What the new mask lets through is delivered before the task runs on.
    task.add_work(Work::SIGNAL);
}

/// Whether a signal waits that the task's mask lets through (or that no mask can hold back), or its process is stopped.
pub fn has_deliverable(task: &Task) -> bool {
    let is_stopped = task.process.family.lock().stopped && !crate::ptrace::has_joined_stop(task);
    if is_stopped || crate::ptrace::is_interrupted(task) {
        return true;
    }
    let process = set_of(&task.process.signals.lock().pending);
    let own = task.signals.lock();
    (process | set_of(&own.pending)) & !own.mask != 0
}
