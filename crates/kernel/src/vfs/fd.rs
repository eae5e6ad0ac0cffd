//! The descriptor table of a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cloudpilot_abi::{Errno, raw};
use parking_lot::RwLock;

use super::file::File;
use super::locks::LockOwner;
use crate::task::Task;

/// A slot of the table.
#[derive(Clone)]
struct Slot {
    file: Arc<File>,
    close_on_exec: bool,
}

#[derive(Clone, Default)]
struct Slots {
    slots: Vec<Option<Slot>>,
    /// No slot below this one is free.
    first_free: usize,
}

/// Descriptors by number, shared between tasks made with `CLONE_FILES`.
pub struct FdTable {
    /// Who owns POSIX record locks taken through this table.
    owner: LockOwner,
    table: RwLock<Slots>,
}

/// Numbers for [`LockOwner::Table`].
static NEXT_OWNER: AtomicU64 = AtomicU64::new(1);

fn index(fd: i32) -> Result<usize, Errno> {
    usize::try_from(fd).map_err(|_| Errno::EBADF)
}

impl Default for FdTable {
    fn default() -> Self {
        Self::with(Slots::default())
    }
}

impl FdTable {
    fn with(slots: Slots) -> Self {
        Self { owner: LockOwner::Table(NEXT_OWNER.fetch_add(1, Ordering::Relaxed)), table: RwLock::new(slots) }
    }

    /// An empty table.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A copy, as `fork(2)` makes one. Record locks stay with the original.
    pub fn duplicate(&self) -> Arc<Self> {
        Arc::new(Self::with(self.table.read().clone()))
    }

    /// Who owns POSIX record locks taken through this table.
    pub fn owner(&self) -> LockOwner {
        self.owner
    }

    /// The description behind a descriptor.
    pub fn get(&self, fd: i32) -> Result<Arc<File>, Errno> {
        self.get_with_flag(fd).map(|(file, _)| file)
    }

    /// The description and its close-on-exec flag.
    pub fn get_with_flag(&self, fd: i32) -> Result<(Arc<File>, bool), Errno> {
        let index = index(fd)?;
        let table = self.table.read();
        table.slots.get(index).and_then(Option::as_ref).map(|slot| (Arc::clone(&slot.file), slot.close_on_exec)).ok_or(Errno::EBADF)
    }

    /// Puts a file at the lowest free number that is at least `lowest`; `limit` is `RLIMIT_NOFILE`.
    pub fn insert(&self, file: Arc<File>, close_on_exec: bool, lowest: usize, limit: u64) -> Result<i32, Errno> {
        let mut table = self.table.write();
        let start = lowest.max(table.first_free);
        let end = table.slots.len();
        let free = (start..end).find(|&index| table.slots[index].is_none()).unwrap_or(end.max(start));
        if free as u64 >= limit {
            return Err(Errno::EMFILE);
        }
        if free >= end {
            table.slots.resize_with(free + 1, || None);
        }
        if lowest <= table.first_free {
            table.first_free = free + 1;
        }
        table.slots[free] = Some(Slot { file, close_on_exec });
        Ok(free as i32)
    }

    /// Puts a file at a number (`dup2`), answering what stood there. The caller checks the number against the limit.
    pub fn replace(&self, fd: i32, file: Arc<File>, close_on_exec: bool) -> Result<Option<Arc<File>>, Errno> {
        let index = index(fd)?;
        let mut table = self.table.write();
        if index >= table.slots.len() {
            table.slots.resize_with(index + 1, || None);
        }
        Ok(table.slots[index].replace(Slot { file, close_on_exec }).map(|slot| slot.file))
    }

    /// Takes a descriptor out. The caller hands the file to [`closed`](Self::closed).
    pub fn remove(&self, fd: i32) -> Result<Arc<File>, Errno> {
        let index = index(fd)?;
        let mut table = self.table.write();
        let slot = table.slots.get_mut(index).and_then(Option::take).ok_or(Errno::EBADF)?;
        table.first_free = table.first_free.min(index);
        Ok(slot.file)
    }

    /// Sets the close-on-exec flag.
    pub fn set_close_on_exec(&self, fd: i32, on: bool) -> Result<(), Errno> {
        let index = index(fd)?;
        let mut table = self.table.write();
        let slot = table.slots.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EBADF)?;
        slot.close_on_exec = on;
        Ok(())
    }

    /// Sets the close-on-exec flag of all descriptors in `first..=last`.
    pub fn set_close_on_exec_range(&self, first: usize, last: usize) {
        let mut table = self.table.write();
        let end = table.slots.len().min(last.saturating_add(1));
        for slot in table.slots.iter_mut().take(end).skip(first).flatten() {
            slot.close_on_exec = true;
        }
    }

    /// Takes out all descriptors in `first..=last` that pass `select` (given the close-on-exec flag); for exec, exit, `close_range`. The caller hands
    /// each file to [`closed`](Self::closed).
    pub fn take_where(&self, first: usize, last: usize, select: impl Fn(bool) -> bool) -> Vec<Arc<File>> {
        let mut table = self.table.write();
        let end = table.slots.len().min(last.saturating_add(1));
        let mut taken = Vec::new();
        for slot in table.slots.iter_mut().take(end).skip(first) {
            if slot.as_ref().is_some_and(|slot| select(slot.close_on_exec)) {
                taken.extend(slot.take().map(|slot| slot.file));
            }
        }
        table.first_free = table.first_free.min(first);
        taken
    }

    /// What follows once a descriptor of this table was taken out: record locks on the file end, and the file hears of it.
    pub fn closed(&self, file: &Arc<File>, task: &Arc<Task>) {
        file.inode.common().locks.release(self.owner);
        file.directory_notice.end(file);
        file.ops.flush(file, task);
    }

    /// Open descriptors, ascending.
    pub fn numbers(&self) -> Vec<i32> {
        let table = self.table.read();
        table.slots.iter().enumerate().filter(|(_, slot)| slot.is_some()).map(|(index, _)| index as i32).collect()
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        let slots = std::mem::take(&mut self.table.get_mut().slots);
        for slot in slots.into_iter().flatten() {
            slot.file.inode.common().locks.release(self.owner);
        }
    }
}

impl Task {
    /// The description behind a descriptor, for calls that do something with the file itself: `O_PATH` descriptors are `EBADF` to them.
    pub fn file(&self, fd: i32) -> Result<Arc<File>, Errno> {
        let file = self.files.lock().get(fd)?;
        if file.flags() & raw::O_PATH != 0 { Err(Errno::EBADF) } else { Ok(file) }
    }

    /// Enters a new description at the lowest free number, below the limit of open files.
    pub fn install(&self, file: Arc<File>, close_on_exec: bool) -> Result<i32, Errno> {
        let limit = self.process.limits.lock().soft(raw::RLIMIT_NOFILE);
        self.files().insert(file, close_on_exec, 0, limit)
    }
}
