//! Advisory locks of an inode: `flock(2)`, POSIX record locks and open-file-description locks, `fcntl(2)`.
//!
//! Lock order: an inode's lock list, then the list of who waits for whom. Neither is held while waiting.

use std::sync::OnceLock;

use cloudpilot_abi::Errno;
use parking_lot::Mutex;

use super::file::File;
use crate::wait::{PollEvents, WaitQueue};

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOwner {
    /// A descriptor table, hence a process (POSIX locks).
    Table(u64),
    /// An open file description (`flock`, `F_OFD_*`).
    Description(usize),
}

impl LockOwner {
    /// The owner that a description is.
    pub fn description(file: &File) -> Self {
        Self::Description(std::ptr::from_ref(file) as usize)
    }
}

/// A record lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLock {
    /// First byte.
    pub start: u64,
    /// Last byte; [`LOCK_END`] for "to the end, wherever it is".
    pub last: u64,
    /// Write lock rather than read lock.
    pub exclusive: bool,
    /// Holder.
    pub owner: LockOwner,
    /// What `F_GETLK` reports: a process number, or -1 for descriptions.
    pub pid: i32,
}

/// The last byte that can be locked.
pub const LOCK_END: u64 = i64::MAX as u64;

/// A lock of `flock(2)`.
#[derive(Clone, Copy, Debug)]
pub struct WholeLock {
    /// Holder, a description.
    pub owner: LockOwner,
    /// `LOCK_EX`.
    pub exclusive: bool,
    /// The process that took it.
    pub pid: i32,
}

#[derive(Default)]
struct Lists {
    whole: Vec<WholeLock>,
    /// Record locks by holder and start.
    records: Vec<RecordLock>,
}

#[derive(Default)]
struct State {
    lists: Mutex<Lists>,
    queue: WaitQueue,
}

/// All locks on one inode; nothing is allocated until the first.
#[derive(Default)]
pub struct FileLocks {
    state: OnceLock<Box<State>>,
}

/// Which descriptor table waits for which, across all inodes: for `EDEADLK`.
static WAITING: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

impl RecordLock {
    fn conflicts(&self, other: &Self) -> bool {
        self.owner != other.owner && (self.exclusive || other.exclusive) && self.start <= other.last && other.start <= self.last
    }
}

impl FileLocks {
    fn state(&self) -> &State {
        self.state.get_or_init(Box::default)
    }

    /// Announces that a lock went away.
    pub fn queue(&self) -> &WaitQueue {
        &self.state().queue
    }

    fn announce(&self) {
        self.state().queue.notify(PollEvents::IN);
    }

    /// `flock(2)`: takes or converts a lock, or answers `EAGAIN`; a failed conversion loses the lock that was held, as on Linux.
    pub fn lock_whole(&self, wanted: WholeLock) -> Result<(), Errno> {
        let mut lists = self.state().lists.lock();
        let held = lists.whole.iter().position(|lock| lock.owner == wanted.owner);
        if let Some(held) = held {
            if lists.whole[held].exclusive == wanted.exclusive {
                return Ok(());
            }
            lists.whole.swap_remove(held);
        }
        let free = !lists.whole.iter().any(|lock| wanted.exclusive || lock.exclusive);
        if free {
            lists.whole.push(wanted);
        }
        drop(lists);
        if held.is_some() {
            self.announce();
        }
        if free { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    /// `flock(LOCK_UN)`.
    pub fn unlock_whole(&self, owner: LockOwner) {
        let Some(state) = self.state.get() else { return };
        state.lists.lock().whole.retain(|lock| lock.owner != owner);
        self.announce();
    }

    /// All that are held: whole files, records.
    pub fn held(&self) -> (Vec<WholeLock>, Vec<RecordLock>) {
        let Some(state) = self.state.get() else { return (Vec::new(), Vec::new()) };
        let lists = state.lists.lock();
        (lists.whole.clone(), lists.records.clone())
    }

    /// A lock that stands in the way of `wanted` (`F_GETLK`).
    pub fn conflict(&self, wanted: &RecordLock) -> Option<RecordLock> {
        let state = self.state.get()?;
        let lists = state.lists.lock();
        lists.records.iter().find(|lock| lock.conflicts(wanted)).copied()
    }

    /// Takes a record lock, replacing the holder's locks on the same bytes, or answers `EAGAIN`.
    pub fn lock_record(&self, wanted: RecordLock) -> Result<(), Errno> {
        let mut lists = self.state().lists.lock();
        if lists.records.iter().any(|lock| lock.conflicts(&wanted)) {
            return Err(Errno::EAGAIN);
        }
        lists.cut(wanted.owner, wanted.start, wanted.last);
        lists.join(wanted);
        drop(lists);
        // A write lock may have become a read lock.
        self.announce();
        Ok(())
    }

    /// Releases the holder's record locks on `start..=last`.
    pub fn unlock_record(&self, owner: LockOwner, start: u64, last: u64) {
        let Some(state) = self.state.get() else { return };
        state.lists.lock().cut(owner, start, last);
        self.announce();
    }

    /// Releases everything that `owner` holds here.
    pub fn release(&self, owner: LockOwner) {
        let Some(state) = self.state.get() else { return };
        let mut lists = state.lists.lock();
        let before = lists.whole.len() + lists.records.len();
        lists.whole.retain(|lock| lock.owner != owner);
        lists.records.retain(|lock| lock.owner != owner);
        let changed = before != lists.whole.len() + lists.records.len();
        drop(lists);
        if changed {
            self.announce();
        }
    }

    /// Notes that the owner of `wanted` is about to wait, and for whom; `EDEADLK` if that one, directly or not, waits for it. Descriptions are
    /// left out, as on Linux: they belong to nobody in particular. [`stop_waiting`] takes the note back.
    pub fn note_waiting(&self, wanted: &RecordLock) -> Result<(), Errno> {
        let LockOwner::Table(waiter) = wanted.owner else { return Ok(()) };
        let Some(LockOwner::Table(holder)) = self.conflict(wanted).map(|lock| lock.owner) else { return Ok(()) };
        let mut waiting = WAITING.lock();
        let mut reached = vec![holder];
        let mut next = 0;
        while next < reached.len() {
            if reached[next] == waiter {
                return Err(Errno::EDEADLK);
            }
            for &(from, to) in waiting.iter() {
                if from == reached[next] && !reached.contains(&to) {
                    reached.push(to);
                }
            }
            next += 1;
        }
        waiting.push((waiter, holder));
        Ok(())
    }
}

/// Takes back what [`FileLocks::note_waiting`] noted.
pub fn stop_waiting(owner: LockOwner) {
    let LockOwner::Table(waiter) = owner else { return };
    let mut waiting = WAITING.lock();
    if let Some(index) = waiting.iter().position(|pair| pair.0 == waiter) {
        waiting.swap_remove(index);
    }
}

impl Lists {
    /// Takes `start..=last` out of the holder's locks; what reaches beyond stays.
    fn cut(&mut self, owner: LockOwner, start: u64, last: u64) {
        let mut kept = Vec::new();
        self.records.retain(|lock| {
            if lock.owner != owner || lock.last < start || lock.start > last {
                return true;
            }
            if lock.start < start {
                kept.push(RecordLock { last: start - 1, ..*lock });
            }
            if lock.last > last {
                kept.push(RecordLock { start: last + 1, ..*lock });
            }
            false
        });
        self.records.extend(kept);
    }

    /// Adds a lock, joined with neighbours of the same holder and kind.
    fn join(&mut self, mut lock: RecordLock) {
        self.records.retain(|other| {
            let joins = other.owner == lock.owner
                && other.exclusive == lock.exclusive
                && (other.last.checked_add(1) == Some(lock.start) || lock.last.checked_add(1) == Some(other.start));
            if joins {
                lock.start = lock.start.min(other.start);
                lock.last = lock.last.max(other.last);
            }
            !joins
        });
        self.records.push(lock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(owner: u64, start: u64, last: u64, exclusive: bool) -> RecordLock {
        RecordLock { start, last, exclusive, owner: LockOwner::Table(owner), pid: owner as i32 }
    }

    #[test]
    fn records_split_and_join() {
        let locks = FileLocks::default();
        locks.lock_record(lock(1, 0, 99, true)).expect("free");
        assert_eq!(locks.lock_record(lock(2, 50, 50, false)), Err(Errno::EAGAIN));
        locks.unlock_record(LockOwner::Table(1), 40, 59);
        locks.lock_record(lock(2, 50, 50, false)).expect("the gap is free");
        assert_eq!(locks.conflict(&lock(2, 0, LOCK_END, false)).map(|found| found.last), Some(39));
        locks.release(LockOwner::Table(2));
        locks.lock_record(lock(1, 40, 59, true)).expect("free again");
        assert_eq!(locks.state().lists.lock().records, vec![lock(1, 0, 99, true)]);
    }

    #[test]
    fn deadlocks_are_found() {
        let (first, second) = (FileLocks::default(), FileLocks::default());
        first.lock_record(lock(101, 0, 0, true)).expect("free");
        second.lock_record(lock(102, 0, 0, true)).expect("free");
        second.note_waiting(&lock(101, 0, 0, true)).expect("no circle yet");
        assert_eq!(first.note_waiting(&lock(102, 0, 0, true)), Err(Errno::EDEADLK));
        stop_waiting(LockOwner::Table(101));
        first.note_waiting(&lock(102, 0, 0, true)).expect("no circle any more");
        stop_waiting(LockOwner::Table(102));
    }
}
