//! All tasks and processes by number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
    next: i32,
}

/// Where numbers start again after the largest, as on Linux.
pub const PID_RESERVED: i32 = 300;
/// Largest number plus one, `/proc/sys/kernel/pid_max`.
pub const PID_MAX: i32 = 4_194_304;

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

    /// Live tasks.
    pub fn count(&self) -> usize {
        self.tables.lock().tasks.len()
    }

    /// Live tasks of a real user.
    pub fn count_of_user(&self, uid: u32) -> usize {
        self.tasks().iter().filter(|task| task.credentials().ruid == uid).count()
    }

    /// Whether a task or process has a number.
    pub fn is_taken(&self, number: i32) -> bool {
        let tables = self.tables.lock();
        tables.tasks.contains_key(&number) || tables.processes.contains_key(&number)
    }

    /// The last number that was given out.
    pub fn last(&self) -> i32 {
        self.tables.lock().next
    }

    /// Sets the number after which the next one is looked for.
    pub fn set_last(&self, number: i32) {
        self.tables.lock().next = number;
    }

    /// A number that no task, process, group or session uses.
    pub fn allocate(&self) -> i32 {
        let mut tables = self.tables.lock();
        loop {
            tables.next = if tables.next + 1 >= PID_MAX { PID_RESERVED } else { tables.next + 1 };
            let number = tables.next;
            if !tables.tasks.contains_key(&number) && !tables.processes.contains_key(&number) {
                return number;
            }
        }
    }

    /// Enters a process.
    pub fn insert_process(&self, process: Arc<Process>) {
        self.tables.lock().processes.insert(process.pid, process);
    }

    /// Enters a task.
    pub fn insert_task(&self, task: Arc<Task>) {
        self.tables.lock().tasks.insert(task.tid(), task);
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
