//! Signals: sending, masks, delivery, handlers, job control.
//!
//! Lock order: a process's `signals`, then a task's `signals`.

use cloudpilot_abi::Errno;
use cloudpilot_abi::types::{Sigaction, Siginfo, StackT};

use crate::syscall::SysResult;
use crate::task::{Process, Task, Work};

/// Signals by number: bit `n - 1` for signal `n`.
pub type SignalSet = u64;

/// Signal state of one task.
#[derive(Default)]
pub struct TaskSignals {
    /// Blocked signals.
    pub mask: SignalSet,
    /// Mask to come back to after `sigsuspend`, `ppoll` and friends, once a handler was set up.
    pub saved_mask: Option<SignalSet>,
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

/// Sends a signal to every process of a group; `ESRCH` if there is none. No permission is asked: the kernel itself sends.
pub fn send_to_group(_kernel: &crate::Kernel, _group: i32, _info: &Siginfo) -> Result<(), Errno> {
    Err(Errno::ESRCH)
}

/// Sends a signal to one task. No permission is asked: the kernel itself sends.
pub fn send_to_task(_task: &Task, _info: &Siginfo) {}

/// Sends a signal to a process: whichever of its threads takes it. No permission is asked.
pub fn send_to_process(_process: &Process, _info: &Siginfo) {}

/// Whether one of `set` is pending for the task or its process, blocked or not (`signalfd(2)`).
pub fn is_pending(_task: &Task, _set: SignalSet) -> bool {
    false
}

/// Takes one pending signal of `set` away from the task or its process (`signalfd(2)`, `sigtimedwait(2)`).
pub fn take_pending(_task: &Task, _set: SignalSet) -> Option<Siginfo> {
    None
}

/// `SIGKILL` and `SIGSTOP`, which no mask holds back.
const UNBLOCKABLE: SignalSet = 1 << 8 | 1 << 18;

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

/// Whether a signal waits that the task's mask lets through (or that no mask can hold back).
pub fn has_deliverable(_task: &Task) -> bool {
    true
}
