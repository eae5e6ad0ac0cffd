//! Leases: a promise to a program that nobody opens or truncates its file without its being told first, `fcntl(2)` under `F_SETLEASE`.
//!
//! Lock order: an inode's list of leases, then nothing. Holders are told, and waited for, with the list unlocked.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use super::file::File;
use super::inode::{FileType, Inode};
use crate::Kernel;
use crate::task::Task;
use crate::time::monotonic_ns;
use crate::wait::{PollEvents, WaitError, WaitQueue};

/// `F_SETLEASE` takes and `F_GETLEASE` answers these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Broken by who writes.
    Read,
    /// Broken by whoever opens the file.
    Write,
}

/// Seconds that a holder has when nobody wrote `/proc/sys/fs/lease-break-time`.
const BREAK_SECONDS: u64 = 45;
/// A time that never comes: the setting is 0.
const NEVER: u64 = u64::MAX;

/// One open file's lease.
struct Lease {
    /// Address of the file, which is all that is left of it while it goes away.
    holder: usize,
    /// Descriptor that it was asked for through, which the signal names.
    fd: i32,
    file: Weak<File>,
    kind: Kind,
    /// When it becomes a read lease, if it was broken by a reader.
    downgraded_at: Option<u64>,
    /// When it ends, if it was broken by a writer.
    ended_at: Option<u64>,
}

impl Lease {
    fn is_broken_by(&self, writes: bool) -> bool {
        writes || self.kind == Kind::Write
    }

    /// What it is to become.
    fn target(&self) -> Option<Kind> {
        match (self.ended_at, self.downgraded_at) {
            (Some(_), _) => None,
            (None, Some(_)) => Some(Kind::Read),
            (None, None) => Some(self.kind),
        }
    }

    /// Does to it what time has done; false if it is over.
    fn outlives(&mut self, now: u64) -> bool {
        if self.downgraded_at.is_some_and(|at| at <= now) {
            self.kind = Kind::Read;
            self.downgraded_at = None;
        }
        self.ended_at.is_none_or(|at| at > now)
    }
}

#[derive(Default)]
struct State {
    leases: Mutex<Vec<Lease>>,
    queue: WaitQueue,
}

/// All leases on one inode; nothing is allocated until the first.
#[derive(Default)]
pub struct FileLeases {
    state: OnceLock<Box<State>>,
}

/// A setting of `/proc/sys`.
fn setting(kernel: &Kernel, path: &str, default: u64) -> u64 {
    let sysctls = kernel.system.sysctls.lock();
    let text = sysctls.get(path).and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A lease that ends takes the file's owner and signal with it.
fn forget_owner(file: &File) {
    file.owner.store(0, Ordering::Relaxed);
    file.owner_signal.store(0, Ordering::Relaxed);
    file.owner_changed();
}

fn holder(file: &File) -> usize {
    std::ptr::from_ref(file) as usize
}

impl State {
    /// Ends what was not given back in time.
    fn expire(&self) {
        let now = monotonic_ns();
        let mut over = Vec::new();
        let mut changed = false;
        self.leases.lock().retain_mut(|lease| {
            let before = lease.target().zip(Some(lease.kind));
            let stays = lease.outlives(now);
            changed |= !stays || before != lease.target().zip(Some(lease.kind));
            if !stays {
                over.push(lease.file.upgrade());
            }
            stays
        });
        over.iter().flatten().for_each(|file| forget_owner(file));
        if changed {
            self.queue.notify(PollEvents::IN);
        }
    }

    /// When the next lease ends or changes by itself.
    fn next_change(&self) -> Option<u64> {
        let leases = self.leases.lock();
        leases.iter().flat_map(|lease| [lease.downgraded_at, lease.ended_at]).flatten().filter(|at| *at != NEVER).min()
    }

    fn is_in_the_way(&self, writes: bool) -> bool {
        self.leases.lock().iter().any(|lease| lease.is_broken_by(writes))
    }

    /// Marks what stands in the way of an opener, and tells the holders that were not told yet.
    fn start_breaking(&self, kernel: &Kernel, writes: bool) {
        let until = match setting(kernel, "fs/lease-break-time", BREAK_SECONDS) {
            0 => NEVER,
            seconds => monotonic_ns().saturating_add(seconds.saturating_mul(1_000_000_000)),
        };
        let mut told = Vec::new();
        for lease in self.leases.lock().iter_mut().filter(|lease| lease.is_broken_by(writes)) {
            if lease.ended_at.is_some() || !writes && lease.downgraded_at.is_some() {
                continue;
            }
            *(if writes { &mut lease.ended_at } else { &mut lease.downgraded_at }) = Some(until);
            told.extend(lease.file.upgrade().map(|file| (file, lease.fd)));
        }
        told.iter().for_each(|(file, fd)| file.tell_of_message(kernel, *fd));
    }
}

impl FileLeases {
    /// What the file holds, or is to hold once it did as it was told; none for no lease.
    pub fn held(&self, file: &File) -> Option<Kind> {
        let state = self.state.get()?;
        state.expire();
        state.leases.lock().iter().find(|lease| lease.holder == holder(file)).and_then(Lease::target)
    }

    /// Takes or changes a lease for a file that was named by `fd`.
    ///
    /// # Errors
    ///
    /// `EACCES` for somebody else's file; `EINVAL` for what is no regular file; `EAGAIN` while others have the file open in a way that the lease
    /// rules out, or hold leases that do.
    pub fn take(&self, task: &Task, file: &Arc<File>, fd: i32, kind: Kind) -> Result<(), Errno> {
        check_holder(task, file)?;
        if setting(&task.kernel, "fs/leases-enable", 1) == 0 {
            return Err(Errno::EINVAL);
        }
        let state = self.state.get_or_init(Box::default);
        state.expire();
        let mut leases = state.leases.lock();
        let uses = file.inode.common();
        let (own_writers, own_readers) = if file.writable() { (1, 0) } else { (0, 1) };
        let free = match kind {
            Kind::Read => !uses.writers.is_written(),
            Kind::Write => uses.writers.count() == own_writers && uses.readers.load(Ordering::SeqCst) == own_readers,
        };
        let others = |lease: &Lease| lease.holder != holder(file) && (kind == Kind::Write || lease.ended_at.is_some());
        if !free || leases.iter().any(others) {
            return Err(Errno::EAGAIN);
        }
        if let Some(lease) = leases.iter_mut().find(|lease| lease.holder == holder(file)) {
            lease.kind = kind;
            if kind == Kind::Read {
                lease.downgraded_at = None;
            }
            drop(leases);
            state.queue.notify(PollEvents::IN);
            return Ok(());
        }
        leases.push(Lease { holder: holder(file), fd, file: Arc::downgrade(file), kind, downgraded_at: None, ended_at: None });
        drop(leases);
        if file.owner.load(Ordering::Relaxed) == 0 {
            file.set_owner(task, task.process.own_pid())?;
        }
        Ok(())
    }

    /// Gives a lease back (`F_UNLCK`); `EAGAIN` if there is none.
    pub fn give_back(&self, task: &Task, file: &Arc<File>) -> Result<(), Errno> {
        check_holder(task, file)?;
        if !self.release(file) {
            return Err(Errno::EAGAIN);
        }
        forget_owner(file);
        Ok(())
    }

    /// Ends the lease of a file, if there is one; tells whether there was.
    pub fn release(&self, file: &File) -> bool {
        let Some(state) = self.state.get() else { return false };
        let mut leases = state.leases.lock();
        let before = leases.len();
        leases.retain(|lease| lease.holder != holder(file));
        let found = leases.len() < before;
        drop(leases);
        if found {
            state.queue.notify(PollEvents::IN);
        }
        found
    }
}

/// Who may hold a lease on what.
fn check_holder(task: &Task, file: &File) -> Result<(), Errno> {
    let credentials = task.credentials();
    if file.inode.attributes()?.uid != credentials.fsuid && !credentials.has(raw::CAP_LEASE) {
        return Err(Errno::EACCES);
    }
    if file.inode.file_type() == FileType::Regular { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Called before a file is opened or truncated, by who counts as its reader or writer already: breaks the leases that this rules out and waits
/// until they are gone.
///
/// # Errors
///
/// `EWOULDBLOCK` if it would have to wait and `nonblocking`; `ERESTARTSYS` for a signal.
pub fn break_leases(task: &Task, inode: &Arc<dyn Inode>, writes: bool, nonblocking: bool) -> Result<(), Errno> {
    let Some(state) = inode.common().leases.state.get() else { return Ok(()) };
    // What the starter asks for does not wait for those inside.
    if task.process.is_init() {
        return Ok(());
    }
    loop {
        state.expire();
        if !state.is_in_the_way(writes) {
            return Ok(());
        }
        state.start_breaking(&task.kernel, writes);
        if nonblocking {
            return Err(Errno::EWOULDBLOCK);
        }
        let waited = task.block_on(&[&state.queue], PollEvents::READ, state.next_change(), || (!state.is_in_the_way(writes)).then_some(()));
        if let Err(WaitError::Interrupted) = waited {
            return Err(Errno::ERESTARTSYS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(kind: Kind) -> Lease {
        Lease { holder: 1, fd: 0, file: Weak::new(), kind, downgraded_at: None, ended_at: None }
    }

    #[test]
    fn broken_leases_change_in_time() {
        let mut broken = lease(Kind::Write);
        assert!(broken.is_broken_by(false) && !lease(Kind::Read).is_broken_by(false) && lease(Kind::Read).is_broken_by(true));
        broken.downgraded_at = Some(10);
        assert_eq!(broken.target(), Some(Kind::Read));
        assert!(broken.outlives(9) && broken.kind == Kind::Write);
        assert!(broken.outlives(10) && broken.kind == Kind::Read);
        broken.ended_at = Some(20);
        assert_eq!(broken.target(), None);
        assert!(broken.outlives(19) && !broken.outlives(20));
    }
}
