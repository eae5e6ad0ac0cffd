//! The watches of an inode, and how filesystem calls announce what they did: `inotify(7)`.
//!
//! Lock order: an inode's list of watches, then whatever the watcher locks to queue the event.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cloudpilot_abi::raw;
use parking_lot::Mutex;

use super::file::File;
use super::inode::{FileType, Inode};
use super::name::Name;

/// Somebody who hears of events on an inode. Called with the inode's list locked: it must neither block nor touch watches.
pub trait Watcher: Send + Sync {
    /// `mask` is one `IN_*` event, perhaps with `IN_ISDIR`; `name` is set for events on a directory's entry.
    fn event(&self, mask: u32, cookie: u32, name: Option<&[u8]>);
}

struct Watch {
    id: u64,
    mask: u32,
    watcher: Arc<dyn Watcher>,
}

/// Who watches one inode; nothing is allocated until the first.
#[derive(Default)]
pub struct InodeWatches {
    list: OnceLock<Box<Mutex<Vec<Watch>>>>,
}

/// Watches that exist anywhere, so that announcing costs one load while there are none.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);
static NEXT_WATCH: AtomicU64 = AtomicU64::new(1);
static NEXT_COOKIE: AtomicU32 = AtomicU32::new(1);

/// A number that ties `IN_MOVED_FROM` to its `IN_MOVED_TO`.
pub fn next_cookie() -> u32 {
    NEXT_COOKIE.fetch_add(1, Ordering::Relaxed)
}

impl InodeWatches {
    /// Adds a watch for the `IN_*` of `mask`.
    pub fn add(&self, mask: u32, watcher: Arc<dyn Watcher>) -> u64 {
        let id = NEXT_WATCH.fetch_add(1, Ordering::Relaxed);
        self.list.get_or_init(Box::default).lock().push(Watch { id, mask, watcher });
        ACTIVE.fetch_add(1, Ordering::SeqCst);
        id
    }

    /// Changes a watch's mask.
    pub fn change(&self, id: u64, mask: u32) {
        let Some(list) = self.list.get() else { return };
        if let Some(watch) = list.lock().iter_mut().find(|watch| watch.id == id) {
            watch.mask = mask;
        }
    }

    /// Removes a watch; unknown numbers are ignored.
    pub fn remove(&self, id: u64) {
        let Some(list) = self.list.get() else { return };
        let mut list = list.lock();
        if let Some(index) = list.iter().position(|watch| watch.id == id) {
            list.remove(index);
            ACTIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Announces an event to the watchers of this inode.
    pub fn notify(&self, mask: u32, cookie: u32, name: Option<&[u8]>) {
        self.notify_unless(mask, cookie, name, 0);
    }

    /// The same without those whose mask has one of the bits of `excluding`.
    fn notify_unless(&self, mask: u32, cookie: u32, name: Option<&[u8]>, excluding: u32) {
        if ACTIVE.load(Ordering::SeqCst) == 0 {
            return;
        }
        let Some(list) = self.list.get() else { return };
        for watch in list.lock().iter().filter(|watch| watch.mask & excluding == 0) {
            // `IN_IGNORED` and friends go to everybody.
            if mask & raw::IN_ALL_EVENTS == 0 || watch.mask & mask & raw::IN_ALL_EVENTS != 0 {
                watch.watcher.event(mask, cookie, name);
            }
        }
    }
}

impl Drop for InodeWatches {
    fn drop(&mut self) {
        if let Some(list) = self.list.get() {
            ACTIVE.fetch_sub(list.lock().len(), Ordering::SeqCst);
        }
    }
}

fn kind_bit(file_type: FileType) -> u32 {
    if file_type == FileType::Directory { raw::IN_ISDIR } else { 0 }
}

/// An entry of a directory came, went or moved: `IN_CREATE`, `IN_DELETE`, `IN_MOVED_FROM`, `IN_MOVED_TO`.
pub fn entry_event(directory: &dyn Inode, name: &[u8], kind: FileType, mask: u32, cookie: u32) {
    directory.common().watches.notify(mask | kind_bit(kind), cookie, Some(name));
}

/// Something happened to what a name leads to (`IN_ATTRIB`, `IN_OPEN`, `IN_MODIFY`, …): its own watchers hear of it, and its directory's with the name.
pub fn name_event(name: &Name, mask: u32) {
    if ACTIVE.load(Ordering::SeqCst) == 0 {
        return;
    }
    let mask = mask | kind_bit(name.inode.file_type());
    let place = name.place.read().clone();
    if let Some((parent, last)) = place {
        // What a directory does not list any more still tells it, unless it asked not to hear.
        let excluding = if name.is_deleted() { raw::IN_EXCL_UNLINK } else { 0 };
        parent.inode.common().watches.notify_unless(mask, 0, Some(&last), excluding);
    }
    name.inode.common().watches.notify(mask, 0, None);
}

/// An inode may have lost its last name: its watchers hear that it is gone, once nobody has it open.
pub fn name_removed(inode: &dyn Inode) {
    let common = inode.common();
    if !inode.attributes().is_ok_and(|attributes| attributes.links == 0) {
        return;
    }
    common.is_removed.store(true, Ordering::SeqCst);
    if common.opens.load(Ordering::SeqCst) == 0 {
        tell_removed(inode);
    }
}

fn tell_removed(inode: &dyn Inode) {
    if inode.common().is_removed.swap(false, Ordering::SeqCst) {
        inode.common().watches.notify(raw::IN_DELETE_SELF, 0, None);
    }
}

/// A file was opened.
pub fn file_opened(inode: &dyn Inode) {
    inode.common().opens.fetch_add(1, Ordering::SeqCst);
}

/// A file was closed for good.
pub fn file_closed(inode: &dyn Inode) {
    if inode.common().opens.fetch_sub(1, Ordering::SeqCst) == 1 {
        tell_removed(inode);
    }
}

/// Something was done through an open file.
pub fn file_event(file: &File, mask: u32) {
    if ACTIVE.load(Ordering::Relaxed) == 0 {
        return;
    }
    match &file.path {
        Some(path) => name_event(&path.name, mask),
        None => file.inode.common().watches.notify(mask, 0, None),
    }
}
