//! System V semaphores, `semget(2)`.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloudpilot_abi::Errno;
use parking_lot::Mutex;

use super::{Ipc, NOWAIT, Object, Permissions};
use crate::task::Task;
use crate::wait::{PollEvents, WaitError, WaitQueue};

/// Largest value, `SEMVMX`.
pub const LARGEST: i32 = 32_767;
/// `SEM_UNDO`.
const UNDO: i16 = 0x1000;

/// One semaphore.
#[derive(Clone, Copy, Debug, Default)]
pub struct Semaphore {
    /// Value.
    pub value: i32,
    /// Process that changed it last.
    pub last: i32,
    /// How many wait for it to grow.
    pub growers: u32,
    /// How many wait for it to become zero.
    pub zeroers: u32,
}

/// `struct sembuf`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Operation {
    /// Which.
    pub number: u16,
    /// Added; 0 waits for zero.
    pub change: i16,
    /// `IPC_NOWAIT`, `SEM_UNDO`.
    pub flags: i16,
}

/// A set.
pub struct Set {
    /// What changes.
    pub state: Mutex<State>,
    queue: WaitQueue,
}

/// What changes of a set.
pub struct State {
    /// Who may use it.
    pub permissions: Permissions,
    /// The semaphores.
    pub semaphores: Vec<Semaphore>,
    /// Last operation, seconds.
    pub used: i64,
    /// Last change.
    pub changed: i64,
    removed: bool,
    /// What the end of a process adds, by process.
    undo: BTreeMap<i32, Vec<i32>>,
}

impl Object for Set {
    fn permissions(&self) -> Permissions {
        self.state.lock().permissions
    }
}

/// Why an operation did not happen.
enum Blocked {
    /// It waits for this one of its operations.
    On(Operation),
    /// It never can.
    Error(Errno),
}

impl Set {
    /// A new one.
    pub fn new(count: usize, permissions: Permissions) -> Self {
        let state = State {
            permissions,
            semaphores: vec![Semaphore::default(); count],
            used: 0,
            changed: crate::time::realtime().tv_sec,
            removed: false,
            undo: BTreeMap::new(),
        };
        Self { state: Mutex::new(state), queue: WaitQueue::new() }
    }

    /// Marks it as removed: whoever waits gets `EIDRM`.
    pub fn removed(&self) {
        self.state.lock().removed = true;
        self.announce();
    }

    /// Lets those who wait look again.
    pub fn announce(&self) {
        self.queue.notify(PollEvents::IN);
    }

    /// Does all operations at once, or none: waits unless told not to.
    pub fn operate(&self, task: &Task, operations: &[Operation], deadline: Option<u64>) -> Result<(), Errno> {
        let pid = task.process.pid;
        let mut waiting: Option<Operation> = None;
        let result = task.block_on(&[&self.queue], PollEvents::IN, deadline, || {
            let mut state = self.state.lock();
            state.count(waiting.take(), false);
            if state.removed {
                return Some(Err(Errno::EIDRM));
            }
            match state.attempt(operations, pid) {
                Ok(()) => Some(Ok(())),
                Err(Blocked::Error(errno)) => Some(Err(errno)),
                Err(Blocked::On(operation)) if u32::from(operation.flags as u16) & NOWAIT != 0 => Some(Err(Errno::EAGAIN)),
                Err(Blocked::On(operation)) => {
                    state.count(Some(operation), true);
                    waiting = Some(operation);
                    None
                }
            }
        });
        self.state.lock().count(waiting, false);
        match result {
            Ok(Ok(())) => {
                self.announce();
                Ok(())
            }
            Ok(Err(errno)) => Err(errno),
            Err(WaitError::TimedOut) => Err(Errno::EAGAIN),
            Err(WaitError::Interrupted) => Err(Errno::ERESTARTNOHAND),
        }
    }

    /// The end of a process takes back what it asked to be undone.
    fn undo(&self, pid: i32) {
        let mut state = self.state.lock();
        let Some(changes) = state.undo.remove(&pid) else { return };
        for (semaphore, change) in state.semaphores.iter_mut().zip(changes) {
            if change != 0 {
                semaphore.value = (semaphore.value + change).clamp(0, LARGEST);
                semaphore.last = pid;
            }
        }
        drop(state);
        self.announce();
    }
}

impl State {
    /// Enters or leaves the count of those who wait.
    fn count(&mut self, operation: Option<Operation>, enters: bool) {
        let Some(operation) = operation else { return };
        let Some(semaphore) = self.semaphores.get_mut(usize::from(operation.number)) else { return };
        let count = if operation.change == 0 { &mut semaphore.zeroers } else { &mut semaphore.growers };
        *count = if enters { *count + 1 } else { count.saturating_sub(1) };
    }

    fn attempt(&mut self, operations: &[Operation], pid: i32) -> Result<(), Blocked> {
        let mut values: Vec<i32> = self.semaphores.iter().map(|semaphore| semaphore.value).collect();
        let mut undo = self.undo.get(&pid).cloned().unwrap_or_else(|| vec![0; values.len()]);
        for operation in operations {
            let index = usize::from(operation.number);
            let change = i32::from(operation.change);
            let value = values[index];
            if change == 0 && value != 0 || value + change < 0 {
                return Err(Blocked::On(*operation));
            }
            if value + change > LARGEST {
                return Err(Blocked::Error(Errno::ERANGE));
            }
            values[index] = value + change;
            if operation.flags & UNDO != 0 {
                undo[index] -= change;
                if undo[index].abs() > LARGEST {
                    return Err(Blocked::Error(Errno::ERANGE));
                }
            }
        }
        for operation in operations {
            let semaphore = &mut self.semaphores[usize::from(operation.number)];
            semaphore.value = values[usize::from(operation.number)];
            semaphore.last = pid;
        }
        if undo.iter().any(|change| *change != 0) {
            self.undo.insert(pid, undo);
        } else {
            self.undo.remove(&pid);
        }
        self.used = crate::time::realtime().tv_sec;
        Ok(())
    }

    /// Sets a value (`SETVAL`): what was to be undone for it is forgotten.
    pub fn set(&mut self, index: usize, value: i32, pid: i32) {
        self.semaphores[index].value = value;
        self.semaphores[index].last = pid;
        self.undo.values_mut().for_each(|changes| changes[index] = 0);
        self.changed = crate::time::realtime().tv_sec;
    }
}

/// A process ends.
pub fn process_exits(ipc: &Ipc, pid: i32) {
    for (_, set) in ipc.semaphores.all() {
        Arc::as_ref(&set).undo(pid);
    }
}
