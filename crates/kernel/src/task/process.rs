//! Processes: what the threads of one group share.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Task;
use super::limits::ResourceLimits;
use crate::config::ExitStatus;
use crate::namespace::pid::PidNamespace;
use crate::namespace::user::UserNamespace;
use crate::signal::ProcessSignals;
use crate::wait::WaitQueue;

/// A process (thread group).
pub struct Process {
    /// Process number, in the first namespace of them.
    pub pid: i32,
    /// By which numbers it and its threads know others, and are known.
    pub numbers: Arc<PidNamespace>,
    /// Signals without a handler do nothing to it, `SIGKILL` and `SIGSTOP` only from outside its namespace, whose first process it is.
    pub unkillable: AtomicBool,
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
    pub oom_score_adjustment: AtomicI32,
    /// What `/proc/<pid>/exe` leads to.
    pub executable: Mutex<Option<crate::vfs::Path>>,
    /// Real user of the thread that acted last, for those who ask after its end.
    pub uid: AtomicU32,
    /// `PR_SET_DUMPABLE`.
    pub dumpable: AtomicU32,
    /// Held while a new program's rights are decided and taken, and while somebody attaches: a tracer comes before or after, never between.
    pub exec_guard: Mutex<()>,
    /// `PR_SET_THP_DISABLE` and `PR_SET_MEMORY_MERGE`: remembered; fork and exec keep them.
    pub memory_habits: AtomicU32,
    /// `PR_SET_CHILD_SUBREAPER`.
    pub reaps_descendants: AtomicBool,
    /// Its end was waited for: its number is free again.
    pub reaped: AtomicBool,
    /// Tasks that it traces.
    pub tracees: Mutex<crate::ptrace::Tracees>,
    /// What it registered for with `membarrier(2)`.
    pub barriers: AtomicU32,
    /// Set once it was killed: ends it by force after a while.
    pub enforcement: Mutex<Option<crate::time::service::TimerHandle>>,
    /// Interval and POSIX timers.
    pub timers: Mutex<crate::time::timers::Timers>,
}

/// Number of the first process, which is the kernel's own: it takes over orphans.
pub const INIT: i32 = 1;

/// A change of state that `wait4(2)` reports besides the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Stopped by this signal.
    Stopped(u8),
    /// Continued.
    Continued,
}

impl Family {
    /// How the process ends, as far as that can be said.
    pub fn final_status(&self) -> ExitStatus {
        self.exiting.or(self.last_status).unwrap_or(ExitStatus::Exited(0))
    }
}

impl Process {
    /// A process without tasks or relations.
    pub fn new(pid: i32, numbers: &Arc<PidNamespace>, limits: ResourceLimits) -> Self {
        Self {
            pid,
            unkillable: AtomicBool::new(numbers.init() == Some(pid)),
            numbers: Arc::clone(numbers),
            family: Mutex::new(Family { group: pid, session: pid, ..Family::default() }),
            signals: Mutex::default(),
            limits: Mutex::new(limits),
            changes: WaitQueue::new(),
            usage: Mutex::default(),
            terminal: Mutex::new(None),
            signal_arrivals: WaitQueue::new(),
            oom_score_adjustment: AtomicI32::new(0),
            executable: Mutex::new(None),
            uid: AtomicU32::new(0),
            dumpable: AtomicU32::new(1),
            exec_guard: Mutex::new(()),
            memory_habits: AtomicU32::new(0),
            reaps_descendants: AtomicBool::new(false),
            reaped: AtomicBool::new(false),
            tracees: Mutex::default(),
            barriers: AtomicU32::new(0),
            enforcement: Mutex::new(None),
            timers: Mutex::default(),
        }
    }

    /// The user namespace of its first thread; none once all are gone.
    pub fn users(&self) -> Option<Arc<UserNamespace>> {
        let task = self.family.lock().tasks.first().cloned();
        task.map(|task| Arc::clone(&task.credentials().user))
    }

    /// Whether it is the kernel's own first process.
    pub fn is_init(&self) -> bool {
        self.pid == INIT
    }

    /// Whether somebody has waited for its end.
    pub fn is_reaped(&self) -> bool {
        self.reaped.load(Ordering::Relaxed)
    }

    /// Whether its last thread has gone.
    pub fn has_exited(&self) -> bool {
        self.family.lock().exit.is_some()
    }
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
    /// Thread of the parent that made it, if that still lives.
    pub maker: Weak<Task>,
    /// Who traced its first thread when that ended.
    pub leader_tracer: Weak<Process>,
    /// It has ended, but its tracer comes before its parent.
    pub held: bool,
    /// Status once the last thread has gone; the process is a zombie until waited for.
    pub exit: Option<ExitStatus>,
    /// `exit_group(2)` is under way with this status.
    pub exiting: Option<ExitStatus>,
    /// How the last thread ended that did so by itself.
    pub last_status: Option<ExitStatus>,
    /// A thread execs and waits for the others to go.
    pub execing: bool,
    /// Its threads sleep until `SIGCONT`.
    pub stopped: bool,
    /// The signal that made them.
    pub stop_signal: u8,
    /// What `wait4(2)` has not been told yet.
    pub report: Option<Report>,
    /// Signal sent to the parent at exit, normally `SIGCHLD`.
    pub exit_signal: i32,
    /// Exec happened since fork (`setpgid(2)` by the parent then fails with `EACCES`).
    pub has_execed: bool,
}
