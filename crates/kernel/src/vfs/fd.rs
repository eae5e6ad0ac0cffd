//! The descriptor table of a process.

use std::sync::Arc;

use cloudpilot_abi::Errno;
use parking_lot::RwLock;

use super::file::File;

/// A slot of the table.
#[derive(Clone)]
struct Slot {
    file: Arc<File>,
    close_on_exec: bool,
}

/// Descriptors by number, shared between tasks made with `CLONE_FILES`.
#[derive(Default)]
pub struct FdTable {
    slots: RwLock<Vec<Option<Slot>>>,
}

impl FdTable {
    /// An empty table.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A copy, as `fork(2)` makes one.
    pub fn duplicate(&self) -> Arc<Self> {
        Arc::new(Self { slots: RwLock::new(self.slots.read().clone()) })
    }

    /// The description behind a descriptor.
    pub fn get(&self, fd: i32) -> Result<Arc<File>, Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let slots = self.slots.read();
        slots.get(index).and_then(Option::as_ref).map(|slot| Arc::clone(&slot.file)).ok_or(Errno::EBADF)
    }

    /// The description and its close-on-exec flag.
    pub fn get_with_flag(&self, fd: i32) -> Result<(Arc<File>, bool), Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let slots = self.slots.read();
        slots.get(index).and_then(Option::as_ref).map(|slot| (Arc::clone(&slot.file), slot.close_on_exec)).ok_or(Errno::EBADF)
    }

    /// Puts a file at the lowest free number that is at least `lowest`; `limit` is `RLIMIT_NOFILE`.
    pub fn insert(&self, file: Arc<File>, close_on_exec: bool, lowest: usize, limit: u64) -> Result<i32, Errno> {
        let mut slots = self.slots.write();
        let free = (lowest..slots.len()).find(|&index| slots[index].is_none()).unwrap_or(slots.len().max(lowest));
        if free as u64 >= limit {
            return Err(Errno::EMFILE);
        }
        if free >= slots.len() {
            slots.resize_with(free + 1, || None);
        }
        slots[free] = Some(Slot { file, close_on_exec });
        Ok(free as i32)
    }

    /// Puts a file at a number (`dup2`), answering what stood there. The caller checks the number against the limit.
    pub fn replace(&self, fd: i32, file: Arc<File>, close_on_exec: bool) -> Result<Option<Arc<File>>, Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.write();
        if index >= slots.len() {
            slots.resize_with(index + 1, || None);
        }
        Ok(slots[index].replace(Slot { file, close_on_exec }).map(|slot| slot.file))
    }

    /// Takes a descriptor out. The caller flushes the file.
    pub fn remove(&self, fd: i32) -> Result<Arc<File>, Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.write();
        slots.get_mut(index).and_then(Option::take).map(|slot| slot.file).ok_or(Errno::EBADF)
    }

    /// Sets the close-on-exec flag.
    pub fn set_close_on_exec(&self, fd: i32, on: bool) -> Result<(), Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.write();
        let slot = slots.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EBADF)?;
        slot.close_on_exec = on;
        Ok(())
    }

    /// Takes out all descriptors in `first..=last` that pass `select` (given the close-on-exec flag); for exec, exit, `close_range`.
    pub fn take_where(&self, first: usize, last: usize, select: impl Fn(bool) -> bool) -> Vec<Arc<File>> {
        let mut slots = self.slots.write();
        let end = slots.len().min(last.saturating_add(1));
        let mut taken = Vec::new();
        for slot in slots.iter_mut().take(end).skip(first) {
            if slot.as_ref().is_some_and(|slot| select(slot.close_on_exec)) {
                taken.extend(slot.take().map(|slot| slot.file));
            }
        }
        taken
    }

    /// Open descriptors, ascending.
    pub fn numbers(&self) -> Vec<i32> {
        let slots = self.slots.read();
        slots.iter().enumerate().filter(|(_, slot)| slot.is_some()).map(|(index, _)| index as i32).collect()
    }
}
