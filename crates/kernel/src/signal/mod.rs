//! Signals: sending, masks, delivery, handlers, job control.
//!
//! Lock order: a process's `signals`, then a task's `signals`.

use cloudpilot_abi::types::{Sigaction, Siginfo, StackT};

use crate::task::Task;

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
pub fn send_to_group(_kernel: &crate::Kernel, _group: i32, _info: &Siginfo) -> Result<(), cloudpilot_abi::Errno> {
    Err(cloudpilot_abi::Errno::ESRCH)
}

/// Whether a signal waits that the task's mask lets through (or that no mask can hold back).
pub fn has_deliverable(_task: &Task) -> bool {
    true
}
