//! Filters that programs put on their own system calls, `seccomp(2)`: classic BPF over the call's number and arguments.
//!
//! They run before the call's handler. They protect the guest from itself; the sandbox does not rely on them. Lock order: a process's `family`, then
//! a task's mode; a listener's calls, then the descriptors of the task that made one.

pub mod listener;
pub mod program;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use self::listener::Notifier;
use self::program::{Data, Instruction, Program};
use crate::config::ExitStatus;
use crate::syscall::{Args, SysResult};
use crate::task::{Task, exit};
use crate::{ptrace, signal};

/// Most instructions of all filters of a task, `MAX_INSNS_PER_PATH`.
const LONGEST_CHAIN: usize = 32_768;
/// Instructions that each filter before the newest counts beside its own.
const PENALTY: usize = 4;
/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xc000_003e;

/// Actions, `SECCOMP_RET_*`; lower ones, as signed numbers, win.
pub const KILL_PROCESS: u32 = 0x8000_0000;
/// See [`KILL_PROCESS`].
pub const KILL_THREAD: u32 = 0;
/// See [`KILL_PROCESS`].
pub const TRAP: u32 = 0x0003_0000;
/// See [`KILL_PROCESS`].
pub const ERRNO: u32 = 0x0005_0000;
/// See [`KILL_PROCESS`].
pub const USER_NOTIF: u32 = 0x7fc0_0000;
/// See [`KILL_PROCESS`].
pub const TRACE: u32 = 0x7ff0_0000;
/// See [`KILL_PROCESS`].
pub const LOG: u32 = 0x7ffc_0000;
/// See [`KILL_PROCESS`].
pub const ALLOW: u32 = 0x7fff_0000;
/// The part of an answer that says what to do.
const ACTION: u32 = 0xffff_0000;
/// The part that goes with it.
const DATA: u32 = 0xffff;

/// What binds a task.
#[derive(Clone, Default)]
pub enum Mode {
    /// Nothing.
    #[default]
    Disabled,
    /// `read`, `write`, `exit` and `sigreturn` only.
    Strict,
    /// The newest filter, which knows the older ones.
    Filter(Arc<Filter>),
}

/// A task's state.
#[derive(Default)]
pub struct Seccomp(Mutex<Mode>);

/// A filter and those before it; all are asked. It lives for as long as a task is bound by it.
pub struct Filter {
    program: Program,
    before: Option<Arc<Filter>>,
    /// Instructions of the whole chain, as Linux counts them.
    cost: usize,
    /// Filters in the chain.
    depth: usize,
    /// `SECCOMP_FILTER_FLAG_LOG`.
    logs: bool,
    /// Who answers in its stead.
    notifier: Option<Arc<Notifier>>,
}

/// How a filter is to be added.
#[derive(Default)]
pub struct Addition {
    /// To all threads of the process, `SECCOMP_FILTER_FLAG_TSYNC`.
    pub everywhere: bool,
    /// `SECCOMP_FILTER_FLAG_LOG`.
    pub logs: bool,
    /// Who answers in its stead, `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
    pub notifier: Option<Arc<Notifier>>,
}

/// How a call goes on.
pub enum Verdict {
    /// As it is.
    Serve,
    /// A tracer looked at it, and may have changed its arguments and its number, which this is.
    ServeOther(u32),
    /// Not at all: this stands for its result.
    Answer(SysResult),
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Some(notifier) = &self.notifier {
            notifier.filter_gone();
        }
        // One after the other: a long chain must not end in a deep recursion.
        let mut before = self.before.take();
        while let Some(filter) = before {
            before = Arc::try_unwrap(filter).ok().and_then(|mut filter| filter.before.take());
        }
    }
}

impl Seccomp {
    /// Nothing binds a task that has ended; whoever listens to filters of its own hears of that.
    pub fn forget(&self) {
        let mode = std::mem::take(&mut *self.0.lock());
        drop(mode);
    }

    /// Whether anything binds the task.
    pub fn is_disabled(&self) -> bool {
        matches!(*self.0.lock(), Mode::Disabled)
    }

    /// `PR_GET_SECCOMP`, and how many filters there are.
    pub fn summary(&self) -> (u32, usize) {
        match &*self.0.lock() {
            Mode::Disabled => (0, 0),
            Mode::Strict => (1, 0),
            Mode::Filter(filter) => (2, filter.depth),
        }
    }

    /// Enters strict mode.
    pub fn set_strict(&self) -> Result<(), Errno> {
        let mut mode = self.0.lock();
        if matches!(*mode, Mode::Filter(_)) {
            return Err(Errno::EINVAL);
        }
        *mode = Mode::Strict;
        Ok(())
    }

    /// The program of a filter and whether it logs, counted from the oldest. `EINVAL` without filters, `ENOENT` past the newest.
    pub fn nth(&self, index: u64) -> Result<(Vec<Instruction>, bool), Errno> {
        let newest = self.filter().ok_or(Errno::EINVAL)?;
        let above = (newest.depth as u64).checked_sub(1).and_then(|last| last.checked_sub(index)).ok_or(Errno::ENOENT)?;
        let filter = chain(Some(&newest)).nth(above as usize).ok_or(Errno::ENOENT)?;
        Ok((filter.program.instructions().to_vec(), filter.logs))
    }

    fn filter(&self) -> Option<Arc<Filter>> {
        match &*self.0.lock() {
            Mode::Filter(filter) => Some(Arc::clone(filter)),
            _ => None,
        }
    }

    fn is_strict(&self) -> bool {
        matches!(*self.0.lock(), Mode::Strict)
    }
}

/// Adds a filter to the caller's, or to those of all threads of its process; answers the thread whose filters differ, if one keeps that from being
/// done.
/// `EINVAL` for a program that Linux refuses and in strict mode, `EBUSY` where somebody listens already, `ENOMEM` past the limit of all filters.
pub fn add(task: &Arc<Task>, program: Program, how: Addition) -> Result<Option<i32>, Errno> {
    // The family stays locked: no thread joins it meanwhile with the old filters, and no other changes them.
    let family = task.process.family.lock();
    if task.seccomp.is_strict() {
        return Err(Errno::EINVAL);
    }
    let before = task.seccomp.filter();
    if how.notifier.is_some() && chain(before.as_ref()).any(Filter::has_listener) {
        return Err(Errno::EBUSY);
    }
    let cost = program.cost() + before.as_ref().map_or(0, |before| before.cost + PENALTY);
    if cost > LONGEST_CHAIN {
        return Err(Errno::ENOMEM);
    }
    let others: Vec<&Arc<Task>> =
        if how.everywhere { family.tasks.iter().filter(|other| !Arc::ptr_eq(other, task)).collect() } else { Vec::new() };
    for other in &others {
        if other.seccomp.is_strict() || !is_ancestor(other.seccomp.filter().as_ref(), before.as_ref()) {
            return Ok(Some(other.tid()));
        }
    }
    let depth = 1 + before.as_ref().map_or(0, |before| before.depth);
    let filter = Arc::new(Filter { program, before, cost, depth, logs: how.logs, notifier: how.notifier });
    let no_new_privs = task.credentials().no_new_privs;
    for other in others {
        bind(other, &filter);
        if no_new_privs {
            let mut credentials = other.credentials.lock();
            Arc::make_mut(&mut credentials).no_new_privs = true;
        }
    }
    bind(task, &filter);
    Ok(None)
}

/// A new task is bound by what binds its maker. The family of its process is locked.
pub fn inherit(child: &Task, maker: &Task) {
    let mode = maker.seccomp.0.lock().clone();
    *child.seccomp.0.lock() = mode;
    child.is_filtered.store(maker.is_filtered.load(Ordering::SeqCst), Ordering::SeqCst);
}

fn bind(task: &Task, filter: &Arc<Filter>) {
    *task.seccomp.0.lock() = Mode::Filter(Arc::clone(filter));
    task.is_filtered.store(true, Ordering::SeqCst);
}

/// A filter and those before it.
fn chain(newest: Option<&Arc<Filter>>) -> impl Iterator<Item = &Filter> {
    std::iter::successors(newest.map(Arc::as_ref), |filter| filter.before.as_deref())
}

/// Whether a chain of filters is a part of another.
fn is_ancestor(older: Option<&Arc<Filter>>, newer: Option<&Arc<Filter>>) -> bool {
    older.is_none_or(|older| chain(newer).any(|filter| std::ptr::eq(filter, Arc::as_ptr(older))))
}

impl Filter {
    fn has_listener(&self) -> bool {
        self.notifier.as_ref().is_some_and(|notifier| notifier.is_open())
    }
}

/// Asks what binds the task about a call.
pub fn judge(task: &Arc<Task>, number: u32, args: &Args) -> Verdict {
    ask(task, number, args, false)
}

/// The same; `was_traced` once a tracer has seen the call, and is not to see it again.
fn ask(task: &Arc<Task>, number: u32, args: &Args, was_traced: bool) -> Verdict {
    if ptrace::suspends_filters(task) {
        return Verdict::Serve;
    }
    let mode = task.seccomp.0.lock().clone();
    let newest = match mode {
        Mode::Disabled => return Verdict::Serve,
        Mode::Strict => {
            let allowed = matches!(number, raw::__NR_read | raw::__NR_write | raw::__NR_exit | raw::__NR_rt_sigreturn);
            return if allowed { Verdict::Serve } else { Verdict::Answer(kill_thread(task, raw::SIGKILL)) };
        }
        Mode::Filter(filter) => filter,
    };
    let address = task.cpu.lock().registers.rip;
    let data = describe(number, address, args);
    let mut answer = ALLOW;
    let mut notifier = None;
    for filter in chain(Some(&newest)) {
        let new = filter.program.evaluate(&data);
        if ((new & ACTION) as i32) < (answer & ACTION) as i32 {
            answer = new;
            notifier = filter.notifier.as_ref();
        }
    }
    let result = match answer & ACTION {
        ALLOW | LOG => return Verdict::Serve,
        ERRNO => match answer & DATA {
            0 => Ok(0),
            errno => Err(Errno(errno.min(4095) as u16)),
        },
        TRAP => trap(task, number, address, answer & DATA),
        TRACE if was_traced => return Verdict::Serve,
        TRACE => return ask_tracer(task, number, answer & DATA),
        USER_NOTIF => match notifier.map(|notifier| notifier.ask(task, data)) {
            Some(listener::Answer::Continue) => return Verdict::Serve,
            Some(listener::Answer::Result(result)) => result,
            None => Err(Errno::ENOSYS),
        },
        KILL_THREAD => kill_thread(task, raw::SIGSYS),
        _ => {
            exit::begin_group_exit(&task.process, ExitStatus::Signaled(raw::SIGSYS as u8));
            Ok(number as usize)
        }
    };
    Verdict::Answer(result)
}

/// What filters look at, `struct seccomp_data`.
fn describe(number: u32, address: u64, args: &Args) -> Data {
    let mut data = [0; 16];
    data[0] = number;
    data[1] = ARCHITECTURE;
    let words = std::iter::once(address).chain(args.0);
    for (place, word) in data[2..].chunks_exact_mut(2).zip(words) {
        place.copy_from_slice(&[word as u32, (word >> 32) as u32]);
    }
    data
}

/// Leaves a call to the tracer, if there is one that wants it. What that makes of it has to pass the filters once more.
fn ask_tracer(task: &Arc<Task>, number: u32, data: u32) -> Verdict {
    if !ptrace::wants(task, ptrace::EVENT_SECCOMP) {
        return Verdict::Answer(Err(Errno::ENOSYS));
    }
    match ptrace::at_filter(task, number, data) {
        Ok(number) => {
            let args = Args::of(&task.cpu.lock().registers);
            match ask(task, number, &args, true) {
                Verdict::Serve => Verdict::ServeOther(number),
                verdict => verdict,
            }
        }
        Err(result) => Verdict::Answer(result),
    }
}

/// Ends the thread; if it is the only one, the process as by this signal.
fn kill_thread(task: &Arc<Task>, number: u32) -> SysResult {
    let alone = task.process.family.lock().tasks.len() == 1;
    if alone {
        exit::begin_group_exit(&task.process, ExitStatus::Signaled(number as u8));
    } else {
        exit::end_thread(task, ExitStatus::Signaled(number as u8));
    }
    Ok(0)
}

/// Raises `SIGSYS`; the registers stay as they were before the call.
fn trap(task: &Arc<Task>, number: u32, address: u64, data: u32) -> SysResult {
    let mut info: Siginfo = signal::info_from_kernel(raw::SIGSYS as i32);
    info.si_errno = data as i32;
    info.si_code = raw::SYS_SECCOMP as i32;
    info.fields[0] = address;
    info.fields[1] = u64::from(number) | u64::from(ARCHITECTURE) << 32;
    signal::force(task, &info);
    Ok(number as usize)
}
