//! All tasks and processes by number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::Errno;
use parking_lot::Mutex;

use super::session::place;
use super::{Process, Task};
use crate::wait::PollEvents;

/// Numbers in use.
#[derive(Default)]
pub struct TaskTable {
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    tasks: BTreeMap<i32, Arc<Task>>,
    processes: BTreeMap<i32, Arc<Process>>,
    /// Given out to tasks that are still in the making.
    reserved: BTreeSet<i32>,
    cursor: Cursor,
}

impl Tables {
    fn is_taken(&self, number: i32) -> bool {
        self.tasks.contains_key(&number) || self.processes.contains_key(&number) || self.reserved.contains(&number)
    }
}

/// Where numbers start again after the largest, as on Linux.
const PID_RESERVED: i32 = 300;
/// Numbers for each processor that the largest cannot be set below.
const LEAST_FOR_PROCESSOR: u32 = 8;
/// Largest number plus one, and the largest that it can be set to.
pub const PID_MAX: i32 = 4_194_304;

/// Which number comes next.
pub struct Cursor {
    /// The last that was given out, `/proc/sys/kernel/ns_last_pid`.
    pub last: i32,
    /// Largest number plus one, `/proc/sys/kernel/pid_max`.
    pub end: i32,
}

impl Default for Cursor {
    fn default() -> Self {
        Self { last: 0, end: PID_MAX }
    }
}

impl Cursor {
    /// The next number that is free; `EAGAIN` if all are taken.
    pub fn advance(&mut self, is_taken: impl Fn(i32) -> bool) -> Result<i32, Errno> {
        let mut number = self.last;
        for _ in 0..self.end {
            number = if number + 1 >= self.end { PID_RESERVED } else { number + 1 };
            if !is_taken(number) {
                self.last = number;
                return Ok(number);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Sets where numbers end, on a machine with so many processors.
    pub fn set_end(&mut self, end: i32, processors: u32) -> Result<(), Errno> {
        let least = (PID_RESERVED + 1).max((LEAST_FOR_PROCESSOR * processors) as i32);
        if !(least..=PID_MAX).contains(&end) {
            return Err(Errno::EINVAL);
        }
        self.end = end;
        Ok(())
    }
}

impl TaskTable {
    /// A live task.
    pub fn find(&self, tid: i32) -> Option<Arc<Task>> {
        self.tables.lock().tasks.get(&tid).cloned()
    }

    /// A process, zombies included.
    pub fn process(&self, pid: i32) -> Option<Arc<Process>> {
        self.tables.lock().processes.get(&pid).cloned()
    }

    /// All live tasks.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.tables.lock().tasks.values().cloned().collect()
    }

    /// All processes, zombies included.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.tables.lock().processes.values().cloned().collect()
    }

    /// Live tasks, or processes where those are more: zombies take room as well.
    pub fn count(&self) -> usize {
        let tables = self.tables.lock();
        tables.tasks.len().max(tables.processes.len())
    }

    /// Live tasks of a real user.
    pub fn count_of_user(&self, uid: u32) -> usize {
        self.tasks().iter().filter(|task| task.credentials().ruid == uid).count()
    }

    /// Whether a task or process has a number, or is about to.
    pub fn is_taken(&self, number: i32) -> bool {
        self.tables.lock().is_taken(number)
    }

    /// Takes a chosen number for a task in the making; `EEXIST` if it is in use.
    pub fn reserve(&self, number: i32) -> Result<(), Errno> {
        let mut tables = self.tables.lock();
        if tables.is_taken(number) {
            return Err(Errno::EEXIST);
        }
        tables.reserved.insert(number);
        Ok(())
    }

    /// Frees the number of a task that came to nothing before it was entered.
    pub fn give_back(&self, number: i32) {
        self.tables.lock().reserved.remove(&number);
    }

    /// Looks at which number comes next, or changes it.
    pub fn with_cursor<T>(&self, look: impl FnOnce(&mut Cursor) -> T) -> T {
        look(&mut self.tables.lock().cursor)
    }

    /// A number that no task or process uses, reserved for a task in the making; `EAGAIN` if there is none.
    pub fn allocate(&self) -> Result<i32, Errno> {
        let tables = &mut *self.tables.lock();
        let (tasks, processes, reserved) = (&tables.tasks, &tables.processes, &tables.reserved);
        let is_taken = |number| tasks.contains_key(&number) || processes.contains_key(&number) || reserved.contains(&number);
        let number = tables.cursor.advance(is_taken)?;
        tables.reserved.insert(number);
        Ok(number)
    }

    /// Enters a process.
    pub fn insert_process(&self, process: Arc<Process>) {
        self.tables.lock().processes.insert(process.pid, process);
    }

    /// Enters a task.
    pub fn insert_task(&self, task: Arc<Task>) {
        let mut tables = self.tables.lock();
        tables.reserved.remove(&task.tid());
        tables.tasks.insert(task.tid(), task);
    }

    /// Takes a task out.
    pub fn remove_task(&self, tid: i32) {
        let task = self.tables.lock().tasks.remove(&tid);
        if let Some(task) = task {
            self.release(&task.process, tid);
        }
    }

    /// Takes a process out, once it was waited for.
    pub fn remove_process(&self, pid: i32) {
        let process = self.tables.lock().processes.remove(&pid);
        if let Some(process) = process {
            process.reaped.store(true, Ordering::Relaxed);
            process.changes.notify(PollEvents::HUP);
            let (group, session) = place(&process);
            for number in [pid, group, session] {
                self.release(&process, number);
            }
            process.numbers.process_leaves();
        }
    }

    /// Frees a number in the namespaces below the first, unless a task, process, group or session still has it.
    pub fn release(&self, user: &Process, number: i32) {
        if user.numbers.is_first() || self.is_taken(number) {
            return;
        }
        let is_used = |process: &Arc<Process>| {
            let (group, session) = place(process);
            group == number || session == number
        };
        if !self.processes().iter().any(is_used) {
            user.numbers.forget(number);
        }
    }
}
