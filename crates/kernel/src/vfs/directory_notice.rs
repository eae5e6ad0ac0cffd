//! Signals about what happens in a directory, `fcntl(2)` under `F_NOTIFY`.
//!
//! Lock order: a file's notice, then an inode's list of watches.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use super::async_notice::send_message;
use super::file::File;
use super::inode::FileType;
use super::watch::Watcher;
use crate::Kernel;
use crate::task::Task;

/// The `DN_*` of `fcntl(2)`, which the headers of the kernel's interface leave to the C library, with the events that they stand for.
const EVENTS: [(u32, u32); 6] = [
    (1, raw::IN_ACCESS),
    (2, raw::IN_MODIFY),
    (4, raw::IN_CREATE | raw::IN_MOVED_TO),
    (8, raw::IN_DELETE | raw::IN_MOVED_FROM),
    (16, raw::IN_MOVED_FROM | raw::IN_MOVED_TO),
    (32, raw::IN_ATTRIB),
];
/// `DN_MULTISHOT`: more than once.
const MULTISHOT: u32 = 0x8000_0000;

/// What hears of a directory's events for one open file. It holds no file: were it to drop the last reference to one, that would happen with
/// the list of watches locked.
struct Notice {
    kernel: Weak<Kernel>,
    fd: i32,
    owner: AtomicI32,
    setter: AtomicU64,
    signal: AtomicI32,
    wanted: AtomicU32,
    again: AtomicBool,
    over: AtomicBool,
}

impl Watcher for Notice {
    fn event(&self, mask: u32, _cookie: u32, _name: Option<&[u8]>) {
        if mask & self.wanted.load(Ordering::SeqCst) == 0 || self.over.load(Ordering::SeqCst) {
            return;
        }
        if !self.again.load(Ordering::SeqCst) && self.over.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(kernel) = self.kernel.upgrade() {
            let owner = (self.owner.load(Ordering::Relaxed), self.setter.load(Ordering::Relaxed));
            send_message(&kernel, owner, self.signal.load(Ordering::Relaxed), self.fd);
        }
    }
}

/// An open directory's notice with its number in the inode's list.
#[derive(Default)]
pub struct DirectoryNotice(Mutex<Option<(u64, Arc<Notice>)>>);

impl DirectoryNotice {
    /// Owner or signal of the file were changed.
    pub(super) fn owner_changed(&self, owner: (i32, u64), signal: i32) {
        if let Some((_, notice)) = &*self.0.lock() {
            notice.owner.store(owner.0, Ordering::Relaxed);
            notice.setter.store(owner.1, Ordering::Relaxed);
            notice.signal.store(signal, Ordering::Relaxed);
        }
    }

    /// Ends it.
    pub fn end(&self, file: &File) {
        if let Some((number, notice)) = self.0.lock().take() {
            notice.over.store(true, Ordering::SeqCst);
            file.inode.common().watches.remove(number);
        }
    }
}

impl File {
    /// `F_NOTIFY`: adds to what the owner hears, or ends it if nothing is named.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` for what is no directory.
    pub fn notify_of_entries(self: &Arc<Self>, task: &Task, fd: i32, wanted: u32) -> Result<(), Errno> {
        if wanted & !MULTISHOT == 0 {
            self.directory_notice.end(self);
            return Ok(());
        }
        if self.inode.file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let events = EVENTS.iter().filter(|(bit, _)| wanted & bit != 0).fold(0, |events, (_, event)| events | event);
        let again = wanted & MULTISHOT != 0;
        self.set_owner(task, task.process.own_pid())?;
        let mut known = self.directory_notice.0.lock();
        if let Some((number, notice)) = known.as_ref().filter(|(_, notice)| !notice.over.load(Ordering::SeqCst)) {
            let events = notice.wanted.fetch_or(events, Ordering::SeqCst) | events;
            notice.again.fetch_or(again, Ordering::SeqCst);
            self.inode.common().watches.change(*number, events);
            return Ok(());
        }
        if let Some((number, _)) = known.take() {
            self.inode.common().watches.remove(number);
        }
        let notice = Arc::new(Notice {
            kernel: Arc::downgrade(&task.kernel),
            fd,
            owner: AtomicI32::new(self.owner.load(Ordering::Relaxed)),
            setter: AtomicU64::new(self.owner_setter.load(Ordering::Relaxed)),
            signal: AtomicI32::new(self.owner_signal.load(Ordering::Relaxed)),
            wanted: AtomicU32::new(events),
            again: AtomicBool::new(again),
            over: AtomicBool::new(false),
        });
        let number = self.inode.common().watches.add(events, notice.clone());
        *known = Some((number, notice));
        Ok(())
    }
}
