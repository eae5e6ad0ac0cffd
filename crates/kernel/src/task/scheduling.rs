//! What `sched(7)` says about a task, and since when it runs. The host schedules guest threads; these values are remembered and reported.

use crate::mm::policy::Policy;
use cloudpilot_abi::{raw, raw_prctl};

/// By how much timers of ordinary tasks may be late, Linux's default.
const TIMER_SLACK_NS: u64 = 50_000;

/// Scheduling attributes, personality and start of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_RESET_ON_FORK`.
    pub reset_on_fork: bool,
    /// -20 to 19.
    pub nice: i32,
    /// 1 to 99 for `SCHED_FIFO` and `SCHED_RR`, else 0.
    pub priority: u32,
    /// CPUs it may run on, one bit each; none until set.
    pub affinity: Option<u64>,
    /// `ioprio_set(2)`.
    pub io_priority: u32,
    /// `personality(2)`.
    pub personality: u32,
    /// `PR_SET_TIMERSLACK`, and what it goes back to: nanoseconds.
    pub timer_slack: (u64, u64),
    /// `set_mempolicy(2)`.
    pub memory_policy: Option<Policy>,
    /// `PR_MCE_KILL`.
    pub memory_failure_policy: u32,
    /// `PR_SET_IO_FLUSHER`.
    pub flushes_io: bool,
    /// When it was made, on the host's monotonic clock.
    pub started_ns: u64,
}

impl Default for Scheduling {
    fn default() -> Self {
        Self {
            policy: raw::SCHED_NORMAL,
            reset_on_fork: false,
            nice: 0,
            priority: 0,
            affinity: None,
            io_priority: 0,
            personality: 0,
            timer_slack: (TIMER_SLACK_NS, TIMER_SLACK_NS),
            memory_policy: None,
            memory_failure_policy: raw_prctl::PR_MCE_KILL_DEFAULT,
            flushes_io: false,
            started_ns: crate::time::monotonic_ns(),
        }
    }
}

impl Scheduling {
    /// What a child gets.
    #[must_use]
    pub fn inherited(&self) -> Self {
        let mut child = *self;
        child.started_ns = crate::time::monotonic_ns();
        child.timer_slack.1 = self.timer_slack.0;
        if self.reset_on_fork {
            let realtime = matches!(self.policy, raw::SCHED_FIFO | raw::SCHED_RR);
            child.policy = if realtime { raw::SCHED_NORMAL } else { self.policy };
            child.priority = 0;
            child.nice = if realtime { 0 } else { self.nice.max(0) };
            child.reset_on_fork = false;
        }
        child
    }

    /// CPUs of `online` that it may run on.
    pub fn cpus(&self, online: u64) -> u64 {
        match self.affinity.unwrap_or(online) & online {
            0 => online,
            some => some,
        }
    }
}
