//! What tasks used: processor time, faults, switches; `getrusage(2)`, `times(2)`, `wait4(2)`.

use std::sync::atomic::Ordering;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::Timeval;

use super::{Process, Task};

/// Used up by those who are gone.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessUsage {
    /// Threads of the process that exited.
    pub dead_threads: Amount,
    /// Children that were waited for, with theirs.
    pub children: Amount,
    /// What threads that exited read, wrote, sent and received.
    pub dead_activity: super::activity::Activity,
}

/// An amount of use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    /// Nanoseconds in the guest.
    pub user_ns: u64,
    /// Nanoseconds in the kernel.
    pub system_ns: u64,
    /// Largest resident set, bytes.
    pub peak_bytes: u64,
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.user_ns += other.user_ns;
        self.system_ns += other.system_ns;
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
    }
}

/// What a process (or one thread) used until now.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Times {
    pub user_ns: u64,
    pub system_ns: u64,
    pub children_user_ns: u64,
    pub children_system_ns: u64,
    pub peak_bytes: u64,
    pub children_peak_bytes: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub children_minor_faults: u64,
    pub voluntary_switches: u64,
    pub forced_switches: u64,
}

/// `struct rusage`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[expect(missing_docs, reason = "the names are the manual page's")]
pub struct Rusage {
    pub ru_utime: Timeval,
    pub ru_stime: Timeval,
    pub ru_maxrss: i64,
    pub ru_ixrss: i64,
    pub ru_idrss: i64,
    pub ru_isrss: i64,
    pub ru_minflt: i64,
    pub ru_majflt: i64,
    pub ru_nswap: i64,
    pub ru_inblock: i64,
    pub ru_oublock: i64,
    pub ru_msgsnd: i64,
    pub ru_msgrcv: i64,
    pub ru_nsignals: i64,
    pub ru_nvcsw: i64,
    pub ru_nivcsw: i64,
}

fn timeval(ns: u64) -> Timeval {
    Timeval { tv_sec: (ns / 1_000_000_000) as i64, tv_usec: (ns % 1_000_000_000 / 1000) as i64 }
}

impl Times {
    /// Its own use.
    pub fn own(&self) -> Rusage {
        Rusage {
            ru_utime: timeval(self.user_ns),
            ru_stime: timeval(self.system_ns),
            ru_maxrss: (self.peak_bytes / 1024) as i64,
            ru_minflt: self.minor_faults as i64,
            ru_majflt: self.major_faults as i64,
            ru_nvcsw: self.voluntary_switches as i64,
            ru_nivcsw: self.forced_switches as i64,
            ..Rusage::default()
        }
    }

    /// Its waited-for children's use.
    pub fn children(&self) -> Rusage {
        Rusage {
            ru_utime: timeval(self.children_user_ns),
            ru_stime: timeval(self.children_system_ns),
            ru_maxrss: (self.children_peak_bytes / 1024) as i64,
            ru_minflt: self.children_minor_faults as i64,
            ..Rusage::default()
        }
    }
}

fn amount(task: &Task) -> Amount {
    let resident = task.mm.lock().clone().map_or(0, |mm| mm.resident_bytes());
    Amount { user_ns: task.guest_ns(), system_ns: task.system_ns.load(Ordering::Relaxed), peak_bytes: resident }
}

/// What a process used, or one thread of it. Takes `family`, then `usage`, one after the other.
pub fn times(process: &Process, thread: Option<&Task>) -> Times {
    let mut own = Amount::default();
    match thread {
        Some(thread) => own.add(amount(thread)),
        None => {
            let tasks = process.family.lock().tasks.clone();
            tasks.iter().for_each(|task| own.add(amount(task)));
        }
    }
    let usage = *process.usage.lock();
    if thread.is_none() {
        own.add(usage.dead_threads);
    }
    Times {
        user_ns: own.user_ns,
        system_ns: own.system_ns,
        peak_bytes: own.peak_bytes,
        children_user_ns: usage.children.user_ns,
        children_system_ns: usage.children.system_ns,
        children_peak_bytes: usage.children.peak_bytes,
        ..Times::default()
    }
}

/// A thread exits: its use goes to its process. Call before the address space goes.
pub fn thread_exits(task: &Task) {
    let amount = amount(task);
    task.kernel.system.add_dead_times(amount.user_ns, amount.system_ns);
    task.process.usage.lock().dead_threads.add(amount);
    super::activity::thread_exits(task);
}

/// A child was waited for: its use and its children's go to the parent.
pub fn child_waited_for(parent: &Process, child: &Process) {
    let usage = *child.usage.lock();
    let mut parents = parent.usage.lock();
    parents.children.add(usage.dead_threads);
    parents.children.add(usage.children);
}

impl Task {
    /// Time in the guest, the present stay included.
    pub fn guest_ns(&self) -> u64 {
        let stay = match self.guest_since.load(Ordering::Relaxed) {
            0 => 0,
            since => crate::time::monotonic_ns().saturating_sub(since),
        };
        self.user_ns.load(Ordering::Relaxed) + stay
    }

    /// Processor time, guest and kernel together.
    pub fn cpu_ns(&self) -> u64 {
        self.guest_ns() + self.system_ns.load(Ordering::Relaxed)
    }
}
