//! Processes: what the threads of one group share.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Task;
use super::limits::ResourceLimits;
use crate::config::ExitStatus;
use crate::signal::ProcessSignals;
use crate::wait::WaitQueue;

/// A process (thread group).
pub struct Process {
    /// Process number.
    pub pid: i32,
    /// Threads, parent, children, group, session.
    pub family: Mutex<Family>,
    /// Handlers and signals pending for the process as a whole.
    pub signals: Mutex<ProcessSignals>,
    /// `getrlimit(2)`.
    pub limits: Mutex<ResourceLimits>,
    /// Announces children's changes of state to `wait4(2)`, with `PollEvents::IN`; also own exit (pidfds), with `PollEvents::HUP`.
    pub changes: WaitQueue,
    /// What its dead threads and waited-for children used.
    pub usage: Mutex<super::usage::ProcessUsage>,
    /// The controlling terminal: fork copies it, `setsid(2)` clears it, the exit of a session's leader calls [`crate::tty::disassociate`].
    pub terminal: Mutex<Option<Arc<crate::tty::Tty>>>,
    /// Announces with `PollEvents::IN` each signal that becomes pending for the process or one of its threads, blocked or not (signalfds).
    pub signal_arrivals: WaitQueue,
    /// `/proc/<pid>/oom_score_adj`, -1000 to 1000; fork copies it.
    pub oom_score_adjustment: std::sync::atomic::AtomicI32,
    /// What `/proc/<pid>/exe` leads to.
    pub executable: Mutex<Option<crate::vfs::Path>>,
}

/// A process's relations.
#[derive(Default)]
pub struct Family {
    /// Live threads, the leader first.
    pub tasks: Vec<Arc<Task>>,
    /// Parent; none for init.
    pub parent: Weak<Process>,
    /// Children that live or wait to be waited for.
    pub children: Vec<Arc<Process>>,
    /// Process group.
    pub group: i32,
    /// Session.
    pub session: i32,
    /// Status once the last thread has gone; the process is a zombie until waited for.
    pub exit: Option<ExitStatus>,
    /// `exit_group(2)` is under way with this status.
    pub exiting: Option<ExitStatus>,
    /// Signal sent to the parent at exit, normally `SIGCHLD`.
    pub exit_signal: i32,
    /// Exec happened since fork (`setpgid(2)` by the parent then fails with `EACCES`).
    pub has_execed: bool,
}
