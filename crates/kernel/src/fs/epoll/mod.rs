//! epoll, `epoll(7)`: interest in many files, with the ready ones in a list that their queues fill.
//!
//! Lock order: nesting, an epoll's interest list, an item's settings; apart from these, since queues announce into it: a watched file's queue, the
//! ready list, the epoll's own queue (then the ready list of an epoll that watches this one). No lock is held while a watched file is polled.

mod item;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

pub use item::EpollLinks;
use item::{Item, Settings};

use crate::vfs::anonymous;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::FileType;
use crate::wait::{PollEvents, WaitQueue};

/// Deepest chain of epolls that watch one another, Linux's `EP_MAX_NESTS`.
const DEEPEST: usize = 4;

/// Serializes additions of epolls to epolls, so that two of them cannot close a circle together.
static NESTING: Mutex<()> = Mutex::new(());

/// What an interest is known by: descriptor number and description.
type Key = (i32, usize);

/// One epoll instance.
pub struct Epoll {
    items: Mutex<BTreeMap<Key, Arc<Item>>>,
    ready: Mutex<VecDeque<Arc<Item>>>,
    /// Announces `IN` when something became ready.
    queue: WaitQueue,
}

/// The operations of an epoll descriptor.
pub struct EpollOps {
    epoll: Arc<Epoll>,
}

fn key(fd: i32, file: &File) -> Key {
    (fd, std::ptr::from_ref(file) as usize)
}

/// A new epoll description.
pub fn open() -> Arc<File> {
    let epoll = Arc::new(Epoll { items: Mutex::default(), ready: Mutex::default(), queue: WaitQueue::new() });
    anonymous::open("anon_inode:[eventpoll]", FileType::Anonymous, Arc::new(EpollOps { epoll }), raw::O_RDWR)
}

/// The epoll behind a file; `EINVAL` if it is none.
pub fn of_file(file: &File) -> Result<&Arc<Epoll>, Errno> {
    file.ops_as::<EpollOps>().map(|ops| &ops.epoll).ok_or(Errno::EINVAL)
}

impl Epoll {
    /// `EPOLL_CTL_ADD`.
    pub fn add(self: &Arc<Self>, fd: i32, file: &Arc<File>, events: u32, data: u64) -> Result<(), Errno> {
        let Some(queue) = file.ops.queue() else { return Err(Errno::EPERM) };
        let settings = Settings::new(events, data)?;
        let nested = file.ops_as::<EpollOps>();
        if nested.is_some() && settings.exclusive {
            return Err(Errno::EINVAL);
        }
        let _nesting = nested.map(|_| NESTING.lock());
        if let Some(inner) = nested {
            inner.epoll.check_nesting(self, 1)?;
        }
        let key = key(fd, file);
        let item = Item::new(self, key, file, settings);
        {
            let mut items = self.items.lock();
            if items.contains_key(&key) {
                return Err(Errno::EEXIST);
            }
            items.insert(key, Arc::clone(&item));
        }
        file.epolls.add(&item);
        file.ops.watch(true);
        item.register(queue);
        self.look(&item, file);
        Ok(())
    }

    /// `EPOLL_CTL_MOD`.
    pub fn modify(&self, fd: i32, file: &Arc<File>, events: u32, data: u64) -> Result<(), Errno> {
        let settings = Settings::new(events, data)?;
        let item = self.items.lock().get(&key(fd, file)).cloned().ok_or(Errno::ENOENT)?;
        if settings.exclusive || item.settings().exclusive {
            return Err(Errno::EINVAL);
        }
        let Some(queue) = file.ops.queue() else { return Err(Errno::EPERM) };
        item.unregister(queue);
        item.set(settings);
        item.register(queue);
        self.look(&item, file);
        Ok(())
    }

    /// `EPOLL_CTL_DEL`.
    pub fn remove(&self, fd: i32, file: &File) -> Result<(), Errno> {
        let item = self.items.lock().remove(&key(fd, file)).ok_or(Errno::ENOENT)?;
        item.detach(file);
        file.epolls.remove(&item);
        Ok(())
    }

    /// Whether an item is ready already.
    fn look(&self, item: &Arc<Item>, file: &File) {
        if file.ops.poll(file).intersects(item.settings().wanted()) {
            self.enqueue(item);
        }
    }

    /// Puts an item on the ready list, once, and tells who waits.
    fn enqueue(&self, item: &Arc<Item>) {
        {
            let mut ready = self.ready.lock();
            if !item.mark_queued() {
                return;
            }
            ready.push_back(Arc::clone(item));
        }
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
    }

    /// `ELOOP` if `outer` can be reached from here, or the chain would be too deep.
    fn check_nesting(self: &Arc<Self>, outer: &Arc<Self>, depth: usize) -> Result<(), Errno> {
        if Arc::ptr_eq(self, outer) || depth > DEEPEST {
            return Err(Errno::ELOOP);
        }
        let inner: Vec<Arc<Item>> = self.items.lock().values().cloned().collect();
        for file in inner.iter().filter_map(|item| item.file()) {
            if let Some(nested) = file.ops_as::<EpollOps>() {
                nested.epoll.check_nesting(outer, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Up to `most` events: readiness and the caller's data. Empty when there are none.
    pub fn collect(&self, most: usize) -> Vec<(u32, u64)> {
        let mut found = Vec::new();
        let mut again = Vec::new();
        // Each item is looked at once a call, however often it becomes ready meanwhile.
        let mut left = self.ready.lock().len();
        while found.len() < most && left > 0 {
            left -= 1;
            let Some(item) = self.next_ready() else { break };
            let Some(file) = item.file() else { continue };
            let settings = item.settings();
            let events = file.ops.poll(&file) & settings.wanted();
            if events.is_empty() {
                continue;
            }
            found.push((events.bits(), settings.data));
            if settings.one_shot {
                item.disarm();
            } else if !settings.edge {
                again.push(item);
            }
        }
        if !again.is_empty() {
            let mut ready = self.ready.lock();
            for item in again {
                if item.mark_queued() {
                    ready.push_back(item);
                }
            }
            drop(ready);
            // Whoever looked meanwhile missed them.
            self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
        }
        found
    }

    /// Takes the first item off the ready list; a change from now on puts it there again.
    fn next_ready(&self) -> Option<Arc<Item>> {
        let mut ready = self.ready.lock();
        let item = ready.pop_front()?;
        item.clear_queued();
        Some(item)
    }

    /// Whether [`collect`](Self::collect) would find anything; what is not ready any more leaves the list.
    fn any_ready(&self) -> bool {
        let left = self.ready.lock().len();
        for _ in 0..left {
            let Some(item) = self.next_ready() else { return false };
            let Some(file) = item.file() else { continue };
            if file.ops.poll(&file).intersects(item.settings().wanted()) {
                let mut ready = self.ready.lock();
                if item.mark_queued() {
                    ready.push_front(item);
                }
                return true;
            }
        }
        false
    }

    /// Announces readiness.
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }
}

impl FileOps for EpollOps {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    fn poll(&self, _file: &File) -> PollEvents {
        if self.epoll.any_ready() { PollEvents::IN | PollEvents::RDNORM } else { PollEvents::empty() }
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.epoll.queue)
    }

    fn release(&self, _file: &File) {
        let items = std::mem::take(&mut *self.epoll.items.lock());
        self.epoll.ready.lock().clear();
        for item in items.into_values() {
            if let Some(file) = item.file() {
                item.detach(&file);
                file.epolls.remove(&item);
            }
        }
    }

    fn describe(&self, _file: &File) -> String {
        let items = self.epoll.items.lock();
        items
            .iter()
            .map(|((fd, _), item)| {
                let settings = item.settings();
                format!("tfd: {fd:8} events: {:8x} data: {:16x}\n", settings.bits(), settings.data)
            })
            .collect()
    }
}
