//! New threads and processes, `clone(2)`, `fork(2)`, `vfork(2)`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloudpilot_abi::{Errno, raw};
use cloudpilot_platform::{GuestThread, SpawnError};
use parking_lot::Mutex;

use super::{FsContext, Parts, Process, Task, workers};
use crate::Kernel;
use crate::fs::pidfd;
use crate::mm::Mm;
use crate::namespace::{self, pid::PidNamespace};
use crate::ptrace;
use crate::seccomp;
use crate::signal::TaskSignals;
use crate::vfs::FdTable;
use crate::wait::{PollEvents, WaitQueue};

/// Handlers go back to their default in the child; a bit that only `clone3(2)` can give.
pub const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
/// The child starts in another control group; also for `clone3(2)` alone.
pub const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// What a new task shares with its maker, and where it starts.
#[derive(Clone, Debug, Default)]
pub struct CloneArguments {
    /// `CLONE_*`.
    pub flags: u64,
    /// Where `CLONE_PIDFD` goes.
    pub pidfd: u64,
    /// Where `CLONE_CHILD_SETTID` and `CLONE_CHILD_CLEARTID` go.
    pub child_tid: u64,
    /// Where `CLONE_PARENT_SETTID` goes.
    pub parent_tid: u64,
    /// Signal at exit.
    pub exit_signal: u64,
    /// Stack pointer; 0 keeps the maker's.
    pub stack: u64,
    /// `CLONE_SETTLS`.
    pub tls: u64,
    /// The numbers to have in its PID namespace and those above, for those that the maker chooses.
    pub wanted: Vec<i32>,
}

impl CloneArguments {
    fn has(&self, flag: u32) -> bool {
        self.flags & u64::from(flag) != 0
    }

    /// What a tracer is told about; none if the maker forbids it.
    fn event(&self) -> Option<u32> {
        match self.exit_signal as u32 {
            _ if self.has(raw::CLONE_UNTRACED) => None,
            _ if self.has(raw::CLONE_VFORK) => Some(ptrace::EVENT_VFORK),
            raw::SIGCHLD => Some(ptrace::EVENT_FORK),
            _ => Some(ptrace::EVENT_CLONE),
        }
    }

    /// Kinds of new namespaces. In `clone(2)` the place of the one for time holds the exit signal.
    fn namespaces(&self) -> u32 {
        self.flags as u32 & namespace::ALL
    }

    fn check(&self) -> Result<(), Errno> {
        let shares_what_parts = self.has(raw::CLONE_FS) && self.flags & u64::from(raw::CLONE_NEWNS | raw::CLONE_NEWUSER) != 0;
        if shares_what_parts {
            return Err(Errno::EINVAL);
        }
        let contradiction = self.has(raw::CLONE_THREAD) && self.flags & u64::from(raw::CLONE_NEWUSER | raw::CLONE_NEWPID) != 0
            || self.has(raw::CLONE_SYSVSEM) && self.has(raw::CLONE_NEWIPC)
            || self.has(raw::CLONE_THREAD) && !self.has(raw::CLONE_SIGHAND)
            || self.has(raw::CLONE_SIGHAND) && !self.has(raw::CLONE_VM)
            || self.exit_signal > crate::signal::HIGHEST as u64
            || self.has(raw::CLONE_PIDFD) && self.has(raw::CLONE_PARENT_SETTID) && self.pidfd == self.parent_tid;
        if contradiction { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

/// The parent of a `vfork(2)`, asleep until its child execs or exits.
#[derive(Default)]
pub struct VforkParent {
    released: AtomicBool,
    queue: WaitQueue,
}

impl VforkParent {
    /// The child no longer uses the parent's memory.
    pub fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
        self.queue.notify(PollEvents::IN);
    }

    fn wait(&self, parent: &Task) {
        parent.block_killable(&self.queue, PollEvents::IN, || self.released.load(Ordering::SeqCst).then_some(()));
    }
}

/// Makes a task; answers the number that its maker knows it by.
pub fn clone(task: &Arc<Task>, arguments: &CloneArguments) -> Result<i32, Errno> {
    arguments.check()?;
    let kernel = &task.kernel;
    if !has_room(kernel, &task.command) || over_limit(task) {
        return Err(Errno::EAGAIN);
    }
    let present = Arc::clone(&task.namespaces().pid_for_children);
    // A thread is where its process is.
    if arguments.has(raw::CLONE_THREAD) && !Arc::ptr_eq(&present, &task.process.numbers) {
        return Err(Errno::EINVAL);
    }
    // Nobody would wait for a sibling of the first process.
    if arguments.has(raw::CLONE_PARENT) && task.process.is_first_inside() {
        return Err(Errno::EINVAL);
    }
    let fresh = match arguments.namespaces() {
        0 => None,
        kinds => Some(namespace::make(task, kinds)?),
    };
    let numbers = fresh.as_ref().map_or(present, |fresh| Arc::clone(&fresh.namespaces.pid_for_children));
    numbers.check_wanted(kernel, &task.credentials(), &arguments.wanted)?;
    let tid = numbers.allocate(kernel, &arguments.wanted)?;
    let (mm, mut guest) = new_guest(task, arguments.has(raw::CLONE_VM)).inspect_err(|_| numbers.give_back(kernel, tid))?;
    if arguments.has(raw::CLONE_SETTLS) && guest.set_fs_base(arguments.tls).is_err() {
        abandon(guest, &mm);
        numbers.give_back(kernel, tid);
        return Err(Errno::ESRCH);
    }
    let child = assemble(task, arguments, (tid, &numbers), Arc::clone(&mm), guest);
    if let Some(fresh) = fresh {
        *child.credentials.lock() = fresh.credentials;
        *child.namespaces.lock() = fresh.namespaces;
        if !arguments.has(raw::CLONE_FS) {
            *child.fs.lock() = Arc::new(FsContext { state: Mutex::new(fresh.places) });
        }
    }
    let result = publish(task, &child, arguments);
    if let Err(errno) = result {
        let guest = std::mem::replace(&mut child.cpu.lock().guest, Box::new(super::init::NoGuest));
        abandon(guest, &mm);
        numbers.give_back(kernel, tid);
        return Err(errno);
    }
    let vfork = arguments.has(raw::CLONE_VFORK).then(Arc::<VforkParent>::default);
    child.vfork.lock().clone_from(&vfork);
    enter(task, &child, arguments);
    let event = arguments.event();
    if arguments.has(raw::CLONE_PTRACE) || event.is_some_and(|event| ptrace::wants(task, event)) {
        ptrace::inherit(task, &child);
    }
    if workers::start(&child).is_err() {
        super::exit::finish(&child);
        if !arguments.has(raw::CLONE_THREAD) {
            super::exit::bury(task, &task.process, &child.process);
        }
        return Err(Errno::EAGAIN);
    }
    kernel.system.forks.fetch_add(1, Ordering::Relaxed);
    if let Some(event) = event {
        ptrace::at_event(task, event, tid);
    }
    if let Some(parent) = vfork {
        parent.wait(task);
        ptrace::at_event(task, ptrace::EVENT_VFORK_DONE, tid);
    }
    Ok(task.shows(tid))
}

/// Tasks beyond the limit, for programs that the outside starts while the guest uses all: it can look, and kill.
const OUTSIDE_RESERVE: usize = 64;
/// Tasks of one such program that may come from the reserve; what has more is the guest's own work.
const SMALL_COMMAND: usize = 8;

/// Whether there may be another task, made by a program that the outside started.
pub(super) fn has_room(kernel: &Kernel, command: &Arc<()>) -> bool {
    let (count, limit) = (kernel.tasks.count(), kernel.limits.processes as usize);
    count <= limit || (count <= limit + OUTSIDE_RESERVE && Arc::strong_count(command) <= SMALL_COMMAND)
}

/// `RLIMIT_NPROC` counts tasks of the user; root is exempt, as on Linux.
fn over_limit(task: &Task) -> bool {
    let credentials = task.credentials();
    if credentials.ruid == 0 || credentials.has(raw::CAP_SYS_RESOURCE) || credentials.has(raw::CAP_SYS_ADMIN) {
        return false;
    }
    let limit = task.process.limits.lock().soft(raw::RLIMIT_NPROC);
    limit < u64::from(task.kernel.limits.processes) && task.kernel.tasks.count_of_user(credentials.ruid) as u64 >= limit
}

fn new_guest(task: &Task, shares_memory: bool) -> Result<(Arc<Mm>, Box<dyn GuestThread>), Errno> {
    let mm = task.mm()?;
    let mut cpu = task.cpu.lock();
    if !shares_memory {
        return mm.fork(&mut *cpu.guest);
    }
    let guest = cpu.guest.spawn_thread().map_err(|error| match error {
        SpawnError::Gone => Errno::ESRCH,
        SpawnError::Refused(errno) => Errno(errno as u16),
    })?;
    mm.join();
    drop(cpu);
    Ok((mm, guest))
}

fn abandon(guest: Box<dyn GuestThread>, mm: &Mm) {
    guest.finish(mm.leave());
}

fn assemble(
    task: &Arc<Task>,
    arguments: &CloneArguments,
    (tid, numbers): (i32, &Arc<PidNamespace>),
    mm: Arc<Mm>,
    guest: Box<dyn GuestThread>,
) -> Arc<Task> {
    let process = if arguments.has(raw::CLONE_THREAD) { Arc::clone(&task.process) } else { new_process(task, arguments, tid, numbers) };
    let mut registers = task.cpu.lock().registers;
    registers.rax = 0;
    if arguments.stack != 0 {
        registers.rsp = arguments.stack;
    }
    let fs = Arc::clone(&task.fs.lock());
    let fs = if arguments.has(raw::CLONE_FS) { fs } else { Arc::new(FsContext { state: Mutex::new(fs.state.lock().clone()) }) };
    let files = task.files();
    let files = if arguments.has(raw::CLONE_FILES) { files } else { FdTable::duplicate(&files) };
    let signals = {
        let own = task.signals.lock();
        let keeps_stack = !arguments.has(raw::CLONE_VM) || arguments.has(raw::CLONE_VFORK);
        let alternate_stack = if keeps_stack { own.alternate_stack } else { Default::default() };
        TaskSignals { mask: own.mask, alternate_stack, ..TaskSignals::default() }
    };
    let child = Task::new(Parts {
        tid,
        process,
        kernel: Arc::clone(&task.kernel),
        registers,
        guest,
        mm: Some(mm),
        credentials: task.credentials(),
        namespaces: task.namespaces(),
        fs,
        files,
        signals,
        name: task.name.lock().clone(),
        scheduling: task.scheduling.lock().inherited(),
        command: Arc::clone(&task.command),
    });
    if arguments.has(raw::CLONE_CHILD_CLEARTID) {
        child.clear_child_tid.store(arguments.child_tid, Ordering::Relaxed);
    }
    child
}

fn new_process(task: &Task, arguments: &CloneArguments, pid: i32, numbers: &Arc<PidNamespace>) -> Arc<Process> {
    let maker = &task.process;
    let process = Process::new(pid, numbers, maker.limits.lock().clone());
    {
        let own = maker.family.lock();
        let mut family = process.family.lock();
        family.group = own.group;
        family.session = own.session;
        family.exit_signal = if arguments.has(raw::CLONE_PARENT) { own.exit_signal } else { arguments.exit_signal as i32 };
    }
    {
        let mut actions = maker.signals.lock().actions;
        if arguments.flags & CLONE_CLEAR_SIGHAND != 0 {
            actions.iter_mut().filter(|action| action.handler != crate::signal::IGNORE).for_each(|action| *action = Default::default());
        }
        process.signals.lock().actions = actions;
    }
    process.terminal.lock().clone_from(&maker.terminal.lock());
    process.executable.lock().clone_from(&maker.executable.lock());
    let copy =
        |from: &std::sync::atomic::AtomicU32, to: &std::sync::atomic::AtomicU32| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    copy(&maker.dumpable, &process.dumpable);
    copy(&maker.uid, &process.uid);
    copy(&maker.memory_habits, &process.memory_habits);
    process.oom_score_adjustment.store(maker.oom_score_adjustment.load(Ordering::Relaxed), Ordering::Relaxed);
    Arc::new(process)
}

/// Writes the numbers that the maker and the new task want to find in memory.
fn publish(task: &Arc<Task>, child: &Arc<Task>, arguments: &CloneArguments) -> Result<(), Errno> {
    let tid = child.tid();
    if arguments.has(raw::CLONE_PARENT_SETTID) {
        task.write(arguments.parent_tid, &task.shows(tid))?;
    }
    if arguments.has(raw::CLONE_CHILD_SETTID) {
        // A new process has its own copy of the page; a failed write is not reported, as on Linux.
        let _ = child.write(arguments.child_tid, &child.own_tid());
    }
    if arguments.has(raw::CLONE_PIDFD) {
        let fd = task.install(pidfd::open(&child.process, 0), true)?;
        task.write(arguments.pidfd, &fd)?;
    }
    Ok(())
}

/// Enters the child where others find it.
fn enter(task: &Arc<Task>, child: &Arc<Task>, arguments: &CloneArguments) {
    let tables = &task.kernel.tasks;
    {
        // A filter for all threads is either there already, or finds this one.
        let mut family = child.process.family.lock();
        seccomp::inherit(child, task);
        family.tasks.push(Arc::clone(child));
    }
    tables.insert_task(Arc::clone(child));
    if arguments.has(raw::CLONE_THREAD) {
        // Its process may have begun to end meanwhile, or another thread of it to exec.
        let family = child.process.family.lock();
        let ends = family.exiting.is_some() || family.execing;
        drop(family);
        if ends {
            child.add_work(super::Work::EXIT);
        }
        return;
    }
    let parent = if arguments.has(raw::CLONE_PARENT) { task.process.family.lock().parent.upgrade() } else { None };
    let parent = parent.unwrap_or_else(|| Arc::clone(&task.process));
    let maker = if arguments.has(raw::CLONE_PARENT) { task.process.family.lock().maker.clone() } else { Arc::downgrade(task) };
    {
        let mut family = child.process.family.lock();
        family.parent = Arc::downgrade(&parent);
        family.maker = maker;
    }
    tables.insert_process(Arc::clone(&child.process));
    parent.family.lock().children.push(Arc::clone(&child.process));
    if !child.process.numbers.process_enters() {
        super::exit::kill(&child.process);
    }
}
