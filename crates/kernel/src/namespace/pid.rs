//! PID namespaces, `pid_namespaces(7)`: by which numbers processes and threads know each other.
//!
//! Everything in the kernel is kept in the numbers of the first namespace; those of the others exist only in a task's arguments and answers, and
//! in what its procfs shows. A process has a number in its own namespace and in each one above.
//!
//! Locks: a namespace's state is taken last, and never with another namespace's.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use super::user::{self, UserNamespace};
use crate::Kernel;
use crate::config::ExitStatus;
use crate::signal;
use crate::task::table::Cursor;
use crate::task::{Credentials, Process, Task, exit};
use crate::wait::{PollEvents, WaitQueue};

/// Number of the first namespace, as on Linux.
const FIRST: u64 = 4_026_531_836;
/// Most namespaces below the first within each other, `MAX_PID_NS_LEVEL`.
pub const DEEPEST: usize = 32;
/// A number that nobody has.
pub const NOBODY: i32 = -1;
/// Numbers of the dead that a namespace remembers: messages and IPC objects still name processes that are gone.
const REMEMBERED: usize = 4096;

/// A PID namespace.
pub struct PidNamespace {
    /// Its number, as `/proc/<pid>/ns/pid` shows it.
    pub number: u64,
    /// The one it was made in; none for the first.
    pub parent: Option<Arc<PidNamespace>>,
    /// Over whom its capabilities hold.
    pub owner: Arc<UserNamespace>,
    level: usize,
    state: Mutex<State>,
    /// Announces that a process has gone.
    departures: WaitQueue,
}

#[derive(Default)]
struct State {
    /// Number in here by number in the first namespace; also of some of the dead.
    inside: HashMap<i32, i32>,
    /// The other way round, without the dead.
    outside: BTreeMap<i32, i32>,
    /// The dead in `inside`, the oldest first.
    dead: VecDeque<i32>,
    cursor: Cursor,
    /// Its first process, by its number in the first namespace.
    init: Option<i32>,
    /// Its first process ends or has ended.
    has_ended: bool,
    /// The signal that its first process is to have ended by, after `reboot(2)`.
    boot_signal: Option<u8>,
    /// Processes, those of namespaces below included.
    processes: usize,
}

/// The namespace in which all numbers are the kernel's own.
pub fn first() -> &'static Arc<PidNamespace> {
    static INSTANCE: OnceLock<Arc<PidNamespace>> = OnceLock::new();
    INSTANCE.get_or_init(|| {
        let (owner, state, departures) = (Arc::clone(user::first()), Mutex::default(), WaitQueue::new());
        Arc::new(PidNamespace { number: FIRST, parent: None, owner, level: 0, state, departures })
    })
}

impl State {
    /// Gives a number to who has this one in the first namespace.
    fn enter(&mut self, kernel: i32, wanted: Option<i32>) -> Result<(), Errno> {
        if self.has_ended {
            return Err(Errno::ENOMEM);
        }
        let number = match wanted {
            Some(number) if self.outside.contains_key(&number) => return Err(Errno::EEXIST),
            Some(number) => number,
            None => self.cursor.advance(|number| self.outside.contains_key(&number))?,
        };
        if number == 1 {
            self.init = Some(kernel);
        }
        self.inside.insert(kernel, number);
        self.outside.insert(number, kernel);
        Ok(())
    }

    /// Frees a number, which is remembered for a while.
    fn leave(&mut self, kernel: i32) {
        let Some(number) = self.inside.get(&kernel) else { return };
        if self.outside.get(number) != Some(&kernel) {
            return;
        }
        self.outside.remove(number);
        self.dead.push_back(kernel);
        if self.dead.len() > REMEMBERED
            && let Some(oldest) = self.dead.pop_front()
            && self.inside.get(&oldest).is_some_and(|number| self.outside.get(number) != Some(&oldest))
        {
            self.inside.remove(&oldest);
        }
    }
}

impl PidNamespace {
    /// A new one below that of `maker`, owned by `owner`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the owner does not lie within the owner of the one above, or the maker's children go elsewhere already; `ENOSPC` below the
    /// deepest.
    pub fn new(maker: &Process, for_children: &Arc<Self>, owner: &Arc<UserNamespace>) -> Result<Arc<Self>, Errno> {
        let parent = &maker.numbers;
        if !Arc::ptr_eq(parent, for_children) || !owner.is_within(&parent.owner) {
            return Err(Errno::EINVAL);
        }
        if parent.level >= DEEPEST {
            return Err(Errno::ENOSPC);
        }
        let (parent, level) = (Some(Arc::clone(parent)), parent.level + 1);
        let (number, owner, departures) = (super::new_number(), Arc::clone(owner), WaitQueue::new());
        Ok(Arc::new(Self { number, parent, owner, level, state: Mutex::default(), departures }))
    }

    /// Whether all numbers are the kernel's own.
    pub fn is_first(&self) -> bool {
        self.parent.is_none()
    }

    /// This one and those above, the first last.
    fn lineage(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |space| space.parent.as_deref())
    }

    /// Those of the lineage that have tables of their own.
    fn nested(&self) -> impl Iterator<Item = &Self> {
        self.lineage().filter(|space| !space.is_first())
    }

    /// Whether this is `other` or lies within it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.lineage().any(|space| space.number == other.number)
    }

    /// What somebody is called here, by the kernel's number; 0 for who is not in here.
    pub fn show(&self, kernel: i32) -> i32 {
        if self.is_first() { kernel } else { self.state.lock().inside.get(&kernel).copied().unwrap_or(0) }
    }

    /// The kernel's number of who is called so here; [`NOBODY`] if none is.
    pub fn number(&self, inside: i32) -> i32 {
        if self.is_first() { inside } else { self.state.lock().outside.get(&inside).copied().unwrap_or(NOBODY) }
    }

    /// What somebody of this namespace is called in `viewer`, and in each one from there down to this, separated by tabs, as `/proc/<pid>/status`
    /// has it.
    pub fn show_all(&self, kernel: i32, viewer: &Self) -> String {
        let mut numbers: Vec<String> =
            self.lineage().take_while(|space| space.level >= viewer.level).map(|space| space.show(kernel).to_string()).collect();
        numbers.reverse();
        numbers.join("\t")
    }

    /// The number of its first process; none before there is one, and in the first namespace.
    pub fn init(&self) -> Option<i32> {
        self.state.lock().init
    }

    /// Looks at which number comes next, or changes it.
    pub fn with_cursor<T>(&self, kernel: &Kernel, look: impl FnOnce(&mut Cursor) -> T) -> T {
        if self.is_first() { kernel.tasks.with_cursor(look) } else { look(&mut self.state.lock().cursor) }
    }

    /// Whether a maker with these credentials may choose these numbers for a new process here and above, `set_tid` of `clone3(2)`.
    pub fn check_wanted(&self, kernel: &Kernel, maker: &Credentials, wanted: &[i32]) -> Result<(), Errno> {
        if wanted.len() > self.level + 1 {
            return Err(Errno::EINVAL);
        }
        for (space, number) in self.lineage().zip(wanted) {
            let lacks_init = !space.is_first() && space.init().is_none();
            if !(1..space.with_cursor(kernel, |cursor| cursor.end)).contains(number) || *number != 1 && lacks_init {
                return Err(Errno::EINVAL);
            }
            if !maker.has_in(&space.owner, raw::CAP_SYS_ADMIN) && !maker.has_in(&space.owner, raw::CAP_CHECKPOINT_RESTORE) {
                return Err(Errno::EPERM);
            }
        }
        Ok(())
    }

    /// Numbers for a new task, the innermost of `wanted` first: the one that the kernel knows it by.
    ///
    /// # Errors
    ///
    /// `EEXIST` for a number that is in use, `ENOMEM` once the first process has ended, `EAGAIN` without a number that is free.
    pub fn allocate(&self, kernel: &Kernel, wanted: &[i32]) -> Result<i32, Errno> {
        let own = match wanted.get(self.level) {
            Some(number) => {
                kernel.tasks.reserve(*number)?;
                *number
            }
            None => kernel.tasks.allocate()?,
        };
        for (index, space) in self.nested().enumerate() {
            let entered = space.state.lock().enter(own, wanted.get(index).copied());
            if let Err(errno) = entered {
                self.lineage().take(index).for_each(|entered| entered.state.lock().leave(own));
                kernel.tasks.give_back(own);
                return Err(errno);
            }
        }
        Ok(own)
    }

    /// Frees the numbers of a task that came to nothing.
    pub fn give_back(&self, kernel: &Kernel, number: i32) {
        self.forget(number);
        kernel.tasks.give_back(number);
    }

    /// Frees the numbers of somebody who is gone.
    pub fn forget(&self, kernel: i32) {
        self.nested().for_each(|space| space.state.lock().leave(kernel));
    }

    /// A process has begun; false if it is too late, since a namespace that it is in has ended.
    pub fn process_enters(&self) -> bool {
        let mut in_time = true;
        for space in self.nested() {
            let mut state = space.state.lock();
            state.processes += 1;
            in_time &= !state.has_ended;
        }
        in_time
    }

    /// A process has ended and was waited for.
    pub fn process_leaves(&self) {
        for space in self.nested() {
            let mut state = space.state.lock();
            state.processes = state.processes.saturating_sub(1);
            drop(state);
            space.departures.notify(PollEvents::IN);
        }
    }
}

impl Process {
    /// What it is called in its own namespace.
    pub fn own_pid(&self) -> i32 {
        self.numbers.show(self.pid)
    }

    /// Whether it is the first process of a namespace below the first.
    pub fn is_first_inside(&self) -> bool {
        self.numbers.init() == Some(self.pid)
    }
}

impl Task {
    /// What it is called in its own namespace.
    pub fn own_tid(&self) -> i32 {
        self.shows(self.tid())
    }

    /// What this task calls somebody whom the kernel knows by a number; 0 for whom it cannot see.
    pub fn shows(&self, kernel: i32) -> i32 {
        self.process.numbers.show(kernel)
    }

    /// Like [`shows`](Self::shows), for what is a group if it is negative.
    pub fn shows_owner(&self, kernel: i32) -> i32 {
        if kernel < 0 { -self.shows(-kernel) } else { self.shows(kernel) }
    }

    /// The kernel's number of whom this task calls so; [`NOBODY`] if there is none.
    pub fn number(&self, inside: i32) -> i32 {
        self.process.numbers.number(inside)
    }

    /// A live task by the number that this one knows it by.
    pub fn find_task(&self, inside: i32) -> Option<Arc<Task>> {
        self.kernel.tasks.find(self.number(inside))
    }

    /// A process, zombies included, by the number that this task knows it by.
    pub fn find_process(&self, inside: i32) -> Option<Arc<Process>> {
        self.kernel.tasks.process(self.number(inside))
    }
}

/// `reboot(2)` inside a namespace: its first process ends as if by this signal, by which whoever waits for it knows what was asked for.
pub fn reboot(task: &Task, signal: u8) {
    let space = &task.process.numbers;
    space.state.lock().boot_signal = Some(signal);
    if let Some(first) = space.init().and_then(|first| task.kernel.tasks.process(first)) {
        signal::send_to_process(&first, &signal::info_from_kernel(raw::SIGKILL as i32));
    }
}

/// The end of a process whose last thread is gone: if it is the first of a namespace, all others in there are killed, and waited for.
pub fn end(task: &Arc<Task>) {
    let process = &task.process;
    let space = &process.numbers;
    if !process.is_first_inside() {
        return;
    }
    let boot_signal = {
        let mut state = space.state.lock();
        state.has_ended = true;
        state.boot_signal
    };
    if let Some(signal) = boot_signal {
        process.family.lock().exiting = Some(ExitStatus::Signaled(signal));
    }
    for other in task.kernel.tasks.processes() {
        if !Arc::ptr_eq(&other, process) && other.numbers.is_within(space) {
            signal::send_to_process(&other, &signal::info_from_kernel(raw::SIGKILL as i32));
        }
    }
    let own = process.changes.register(PollEvents::IN, task.parker.clone());
    let departures = space.departures.register(PollEvents::IN, task.parker.clone());
    loop {
        task.parker.reset();
        let children = process.family.lock().children.clone();
        for child in children.iter().filter(|child| child.has_exited()) {
            exit::bury(task, process, child);
        }
        if space.state.lock().processes <= 1 {
            break;
        }
        task.park(None);
    }
    process.changes.unregister(own);
    space.departures.unregister(departures);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_and_remembered() {
        let mut state = State::default();
        assert_eq!((state.enter(70, None), state.enter(71, None), state.init), (Ok(()), Ok(()), Some(70)));
        assert_eq!((state.enter(72, Some(2)), state.enter(72, Some(9))), (Err(Errno::EEXIST), Ok(())));
        state.leave(71);
        assert_eq!((state.inside.get(&71), state.outside.get(&2)), (Some(&2), None));
        assert_eq!((state.enter(73, None), state.inside.get(&73)), (Ok(()), Some(&3)));
        state.has_ended = true;
        assert_eq!(state.enter(74, None), Err(Errno::ENOMEM));
    }

    #[test]
    fn only_some_of_the_dead_are_remembered() {
        let mut state = State::default();
        for kernel in 0..=REMEMBERED as i32 {
            assert_eq!(state.enter(kernel, None), Ok(()));
            state.leave(kernel);
        }
        assert_eq!((state.inside.get(&0), state.inside.len(), state.dead.len()), (None, REMEMBERED, REMEMBERED));
    }
}
