//! Tasks (threads), processes, groups and sessions.
//!
//! Lock order: the process table, then a process's `family`, then its `signals`, then a task's own locks (`signals`, `credentials`, `files`, …). A
//! task's `cpu` is taken by its own kernel thread around everything that touches the guest thread; others only try.

pub mod activity;
pub mod clone;
pub mod credentials;
pub mod exec;
pub mod exit;
pub mod init;
pub mod limits;
pub mod memory_killer;
pub mod process;
pub mod run;
pub mod scheduling;
pub mod session;
pub mod spawn;
pub mod table;
pub mod usage;
pub mod user_memory;
pub mod wait;
pub mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use cloudpilot_platform::systrap::load;
use cloudpilot_platform::{GuestThread, Interrupter, Registers};
use parking_lot::Mutex;

pub use credentials::Credentials;
pub use process::Process;

use crate::Kernel;
use crate::config::ExitStatus;
use crate::mm::Mm;
use crate::namespace;
use crate::signal::TaskSignals;
use crate::syscall::user_dispatch::UserDispatch;
use crate::vfs::{FdTable, Path};
use crate::wait::{Parker, PollEvents, WaitError, WaitQueue, Wake};

/// Between two looks at whether another thread has left the guest.
const BARRIER_PAUSE: std::time::Duration = std::time::Duration::from_micros(20);

/// The processor state of a task: touched by its own kernel thread alone.
pub struct Cpu {
    /// General registers as of the last stop.
    pub registers: Registers,
    /// Vector, address and error code of the last exception, for signal frames.
    pub trap: (u64, u64, u64),
    /// Host's monotonic clock at the last stop; 0 before the first.
    pub stopped_ns: u64,
    /// The guest thread behind it.
    pub guest: Box<dyn GuestThread>,
}

/// Root, working directory and umask; shared between tasks made with `CLONE_FS`.
pub struct FsContext {
    /// Root, working directory, umask.
    pub state: Mutex<FsState>,
}

/// What an [`FsContext`] holds.
#[derive(Clone)]
pub struct FsState {
    /// `chroot(2)`.
    pub root: Path,
    /// `chdir(2)`.
    pub cwd: Path,
    /// `umask(2)`.
    pub umask: u32,
}

bitflags::bitflags! {
    /// Reasons for a task to leave the guest and to end a wait.
    #[derive(Clone, Copy, Debug)]
    pub struct Work: u32 {
        /// A signal may be deliverable: recheck.
        const SIGNAL = 1;
        /// The task must exit (its group exits, or another thread execs).
        const EXIT = 2;
        /// The group stops, or a tracer wants the task to.
        const STOP = 4;
    }
}

/// A thread of the guest.
pub struct Task {
    /// Thread number; a thread that execs takes over its leader's.
    tid: AtomicI32,
    /// The process (thread group).
    pub process: Arc<Process>,
    /// The machine.
    pub kernel: Arc<Kernel>,
    /// Registers and guest thread.
    pub cpu: Mutex<Cpu>,
    /// Makes the guest thread stop; usable by any thread. Replaced by exec.
    pub interrupter: Mutex<Arc<dyn Interrupter>>,
    /// Whether the guest runs, for [`kick`](Self::kick).
    in_guest: AtomicBool,
    /// [`Work`] bits.
    work: AtomicU32,
    /// Where this task's kernel thread sleeps.
    pub parker: Arc<Parker>,
    /// Whether it sleeps there so that only its end wakes it, for `/proc/<pid>/stat`.
    sleeps_deeply: AtomicBool,
    /// Mask, pending signals, alternate stack.
    pub signals: Mutex<TaskSignals>,
    /// Who it is.
    pub credentials: Mutex<Arc<Credentials>>,
    /// What it takes for the machine's names, mounts, network.
    pub namespaces: Mutex<namespace::Set>,
    /// Root, working directory, umask.
    pub fs: Mutex<Arc<FsContext>>,
    /// Descriptors.
    pub files: Mutex<Arc<FdTable>>,
    /// Address space; none once the task exits.
    pub mm: Mutex<Option<Arc<Mm>>>,
    /// `comm`, at most 15 bytes.
    pub name: Mutex<Vec<u8>>,
    /// `set_tid_address(2)`: cleared and woken at exit.
    pub clear_child_tid: AtomicU64,
    /// `set_robust_list(2)`.
    pub robust_list: AtomicU64,
    /// Whom to wake once this task no longer uses the memory of its parent, `vfork(2)`.
    pub vfork: Mutex<Option<Arc<clone::VforkParent>>>,
    /// `PR_SET_PDEATHSIG`.
    pub parent_death_signal: AtomicI32,
    /// Shared by all tasks that come from one program that the outside started: how many hold it is how many there are.
    pub command: Arc<()>,
    /// Nanoseconds spent in the guest, and in the kernel on its behalf.
    pub user_ns: AtomicU64,
    /// Since when the guest runs, on the monotonic clock; 0 while it does not.
    pub guest_since: AtomicU64,
    /// See [`user_ns`](Self::user_ns).
    pub system_ns: AtomicU64,
    /// What it read, wrote, sent and received.
    pub counters: activity::Counters,
    /// Nanoseconds slept in the kernel since the last stop.
    pub slept_ns: AtomicU64,
    /// Policy, priority, affinity, personality; inherited by clone.
    pub scheduling: Mutex<scheduling::Scheduling>,
    /// Who traces it, and how.
    pub ptrace: crate::ptrace::Ptrace,
    /// Whether anybody does.
    pub is_traced: AtomicBool,
    /// Filters that the program put on its own system calls.
    pub seccomp: crate::seccomp::Seccomp,
    /// Whether [`seccomp`](Self::seccomp) has a say.
    pub is_filtered: AtomicBool,
    /// Calls that it serves itself.
    pub user_dispatch: Mutex<UserDispatch>,
    /// Whether there are any.
    pub is_dispatched: AtomicBool,
    /// How it ends, if it does so by itself.
    pub ending: Mutex<Option<ExitStatus>>,
    /// What a call to be restarted by `restart_syscall(2)` waits for.
    pub restart: Mutex<Option<Restart>>,
}

/// What a new task is made of; the rest starts out empty.
pub struct Parts {
    /// Thread number.
    pub tid: i32,
    /// Its process.
    pub process: Arc<Process>,
    /// The machine.
    pub kernel: Arc<Kernel>,
    /// Registers to start with.
    pub registers: Registers,
    /// The guest thread.
    pub guest: Box<dyn GuestThread>,
    /// Address space.
    pub mm: Option<Arc<Mm>>,
    /// Who it is.
    pub credentials: Arc<Credentials>,
    /// What it takes for the machine's names, mounts, network.
    pub namespaces: namespace::Set,
    /// Root, working directory, umask.
    pub fs: Arc<FsContext>,
    /// Descriptors.
    pub files: Arc<FdTable>,
    /// Mask and alternate stack.
    pub signals: TaskSignals,
    /// `comm`.
    pub name: Vec<u8>,
    /// Policy, priority, affinity.
    pub scheduling: scheduling::Scheduling,
    /// See [`Task::command`].
    pub command: Arc<()>,
}

/// A sleep to be taken up again after a stop, `restart_syscall(2)`.
pub type Restart = Box<dyn FnOnce(&Arc<Task>) -> crate::syscall::SysResult + Send>;

impl Task {
    /// A task that is not entered anywhere yet.
    pub fn new(parts: Parts) -> Arc<Self> {
        let interrupter = parts.guest.interrupter();
        Arc::new(Self {
            tid: AtomicI32::new(parts.tid),
            process: parts.process,
            kernel: parts.kernel,
            cpu: Mutex::new(Cpu { registers: parts.registers, trap: (0, 0, 0), stopped_ns: 0, guest: parts.guest }),
            interrupter: Mutex::new(interrupter),
            in_guest: AtomicBool::new(false),
            work: AtomicU32::new(0),
            parker: Arc::default(),
            sleeps_deeply: AtomicBool::new(false),
            signals: Mutex::new(parts.signals),
            credentials: Mutex::new(parts.credentials),
            namespaces: Mutex::new(parts.namespaces),
            fs: Mutex::new(parts.fs),
            files: Mutex::new(parts.files),
            mm: Mutex::new(parts.mm),
            name: Mutex::new(parts.name),
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            vfork: Mutex::new(None),
            parent_death_signal: AtomicI32::new(0),
            command: parts.command,
            user_ns: AtomicU64::new(0),
            guest_since: AtomicU64::new(0),
            system_ns: AtomicU64::new(0),
            counters: Default::default(),
            slept_ns: AtomicU64::new(0),
            scheduling: Mutex::new(parts.scheduling),
            ptrace: Default::default(),
            is_traced: AtomicBool::new(false),
            seccomp: Default::default(),
            is_filtered: AtomicBool::new(false),
            user_dispatch: Mutex::default(),
            is_dispatched: AtomicBool::new(false),
            ending: Mutex::new(None),
            restart: Mutex::new(None),
        })
    }

    /// Thread number.
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }

    /// Takes over another number (exec by a thread that is not the leader).
    pub fn set_tid(&self, tid: i32) {
        self.tid.store(tid, Ordering::Relaxed);
    }

    /// The address space; only tasks that exit have none.
    pub fn mm(&self) -> Result<Arc<Mm>, cloudpilot_abi::Errno> {
        self.mm.lock().clone().ok_or(cloudpilot_abi::Errno::ESRCH)
    }

    /// Credentials as of now.
    pub fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials.lock())
    }

    /// Namespaces as of now.
    pub fn namespaces(&self) -> namespace::Set {
        self.namespaces.lock().clone()
    }

    /// Descriptor table as of now.
    pub fn files(&self) -> Arc<FdTable> {
        Arc::clone(&self.files.lock())
    }

    /// Root, working directory and umask as of now.
    pub fn fs(&self) -> FsState {
        let fs = Arc::clone(&self.fs.lock());
        fs.state.lock().clone()
    }

    /// Work that waits.
    pub fn work(&self) -> Work {
        Work::from_bits_truncate(self.work.load(Ordering::SeqCst))
    }

    /// Adds work and makes the task look at it, wherever it is.
    pub fn add_work(&self, work: Work) {
        self.work.fetch_or(work.bits(), Ordering::SeqCst);
        self.kick();
    }

    /// Adds work that is there only to be seen.
    pub fn mark_work(&self, work: Work) {
        self.work.fetch_or(work.bits(), Ordering::SeqCst);
    }

    /// Takes work off the list.
    pub fn clear_work(&self, work: Work) {
        self.work.fetch_and(!work.bits(), Ordering::SeqCst);
    }

    /// Whether the guest thread runs, or is about to.
    pub fn is_in_guest(&self) -> bool {
        self.in_guest.load(Ordering::SeqCst)
    }

    /// Ends a wait, or brings the guest thread back into the kernel.
    pub fn kick(&self) {
        self.parker.unpark();
        if self.in_guest.load(Ordering::SeqCst) {
            self.interrupter.lock().interrupt();
        }
    }

    /// Makes the guest thread leave the guest, if it is there, and waits until it has: whatever it did before is then visible.
    pub fn pass_barrier(&self) {
        let stay = self.guest_since.load(Ordering::SeqCst);
        if stay == 0 {
            return;
        }
        self.interrupter.lock().interrupt();
        // Whoever is to end leaves the guest for good: that is as good as a barrier.
        while self.guest_since.load(Ordering::SeqCst) == stay && !self.work().contains(Work::EXIT) {
            crate::pause(BARRIER_PAUSE);
        }
    }

    /// Whether a wait must end now: a deliverable signal, or the end of the task.
    pub fn interrupted(&self) -> bool {
        let work = self.work();
        work.contains(Work::EXIT) || work.intersects(Work::SIGNAL | Work::STOP) && crate::signal::has_deliverable(self)
    }

    /// Waits until `attempt` answers, registered on `queues` for `mask`. `deadline` is nanoseconds of the host's monotonic clock.
    pub fn block_on<T>(
        &self,
        queues: &[&WaitQueue],
        mask: PollEvents,
        deadline: Option<u64>,
        attempt: impl FnMut() -> Option<T>,
    ) -> Result<T, WaitError> {
        // Nearly all waits are for one object: its number stands on the stack, so that a blocked read allocates nothing.
        if let [queue] = queues {
            return self.block_on_each(&[(*queue, mask)], deadline, attempt);
        }
        let queues: Vec<(&WaitQueue, PollEvents)> = queues.iter().map(|queue| (*queue, mask)).collect();
        self.block_on_each(&queues, deadline, attempt)
    }

    /// Like [`block_on`](Self::block_on), with a mask for each queue.
    pub fn block_on_each<T>(
        &self,
        queues: &[(&WaitQueue, PollEvents)],
        deadline: Option<u64>,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Result<T, WaitError> {
        let parker: Arc<dyn Wake> = self.parker.clone();
        let mut one = [0];
        let mut many = Vec::new();
        let numbers = if queues.len() <= 1 {
            &mut one[..queues.len()]
        } else {
            many.resize(queues.len(), 0);
            &mut many[..]
        };
        for (number, (queue, mask)) in numbers.iter_mut().zip(queues) {
            *number = queue.register(*mask, Arc::clone(&parker));
        }
        let result = loop {
            self.parker.reset();
            if let Some(value) = attempt() {
                break Ok(value);
            }
            if self.interrupted() {
                break Err(WaitError::Interrupted);
            }
            if deadline.is_some_and(|deadline| crate::time::monotonic_ns() >= deadline) {
                break Err(WaitError::TimedOut);
            }
            self.park(deadline);
        };
        for (number, (queue, _)) in numbers.iter().zip(queues) {
            queue.unregister(*number);
        }
        result
    }

    /// Sleeps until [`kick`](Self::kick) or the deadline; spurious wakes happen. Cores are then free for others to spin on.
    pub fn park(&self, deadline: Option<u64>) {
        let before = crate::time::monotonic_ns();
        // Whoever holds the lock works for this task elsewhere, and soon lets it go on.
        if let Some(mut cpu) = self.cpu.try_lock() {
            cpu.guest.rest(crate::wait::has_woken());
        }
        load::leave();
        crate::wait::wake_deferred();
        self.parker.park(deadline);
        load::enter();
        // What was slept counts for nobody.
        self.slept_ns.fetch_add(crate::time::monotonic_ns().saturating_sub(before), Ordering::Relaxed);
    }

    /// Waits until `attempt` answers; only the end of the task ends the wait before that, and then there is no answer.
    pub fn block_killable<T>(&self, queue: &WaitQueue, mask: PollEvents, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        self.sleeps_deeply.store(true, Ordering::Relaxed);
        let number = queue.register(mask, self.parker.clone());
        let result = loop {
            self.parker.reset();
            if let Some(value) = attempt() {
                break Some(value);
            }
            if self.work().contains(Work::EXIT) {
                break None;
            }
            self.park(None);
        };
        queue.unregister(number);
        self.sleeps_deeply.store(false, Ordering::Relaxed);
        result
    }

    /// Whether the task sleeps, and lets nothing but its end wake it.
    pub fn sleeps_deeply(&self) -> bool {
        self.sleeps_deeply.load(Ordering::Relaxed) && self.parker.is_sleeping()
    }

    /// Sleeps until the deadline or a signal.
    pub fn sleep_until(&self, deadline: Option<u64>) -> WaitError {
        match self.block_on::<std::convert::Infallible>(&[], PollEvents::empty(), deadline, || None) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }
}
