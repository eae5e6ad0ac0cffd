//! One interest of an epoll: which file, which events, and what is told about it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use super::{Epoll, Key};
use crate::vfs::file::File;
use crate::wait::{PollEvents, WaitQueue, Wake};

/// What `EPOLLEXCLUSIVE` may be combined with.
const EXCLUSIVE_WITH: u32 =
    raw::EPOLLIN | raw::EPOLLOUT | raw::EPOLLERR | raw::EPOLLHUP | raw::EPOLLWAKEUP | raw::EPOLLET | raw::EPOLLEXCLUSIVE;

/// What the caller asked for.
#[derive(Clone, Copy)]
pub struct Settings {
    events: PollEvents,
    /// Told with each event.
    pub data: u64,
    /// `EPOLLET`.
    pub edge: bool,
    /// `EPOLLONESHOT`.
    pub one_shot: bool,
    /// `EPOLLEXCLUSIVE`.
    pub exclusive: bool,
    /// A one-shot interest has fired.
    disarmed: bool,
}

impl Settings {
    /// From the `events` word of `epoll_ctl(2)`.
    pub fn new(events: u32, data: u64) -> Result<Self, Errno> {
        let exclusive = events & raw::EPOLLEXCLUSIVE != 0;
        if exclusive && events & !EXCLUSIVE_WITH != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            events: PollEvents::from_bits_truncate(events),
            data,
            edge: events & raw::EPOLLET != 0,
            one_shot: events & raw::EPOLLONESHOT != 0,
            exclusive,
            disarmed: false,
        })
    }

    /// Events that are reported: errors and hang-ups always, nothing once disarmed.
    pub fn wanted(&self) -> PollEvents {
        if self.disarmed { PollEvents::empty() } else { self.events | PollEvents::ERR | PollEvents::HUP }
    }

    /// As `/proc/<pid>/fdinfo` shows them.
    pub fn bits(&self) -> u32 {
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        self.wanted().bits()
            | flag(self.edge, raw::EPOLLET)
            | flag(self.one_shot, raw::EPOLLONESHOT)
            | flag(self.exclusive, raw::EPOLLEXCLUSIVE)
    }
}

/// One interest.
pub struct Item {
    /// Itself, for the ready list.
    this: Weak<Self>,
    epoll: Weak<Epoll>,
    key: Key,
    file: Weak<File>,
    settings: Mutex<Settings>,
    /// Number on the file's queue; 0 for none.
    registered: Mutex<u64>,
    /// Stands on the ready list; changed with that list locked.
    queued: AtomicBool,
}

impl Item {
    pub fn new(epoll: &Arc<Epoll>, key: Key, file: &Arc<File>, settings: Settings) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            epoll: Arc::downgrade(epoll),
            key,
            file: Arc::downgrade(file),
            settings: Mutex::new(settings),
            registered: Mutex::new(0),
            queued: AtomicBool::new(false),
        })
    }

    /// The file, unless its last descriptor is gone. Dropping it may be the last drop: no lock may be held then.
    pub fn file(&self) -> Option<Arc<File>> {
        self.file.upgrade()
    }

    pub fn settings(&self) -> Settings {
        *self.settings.lock()
    }

    pub fn set(&self, settings: Settings) {
        *self.settings.lock() = settings;
    }

    /// A one-shot interest fired.
    pub fn disarm(&self) {
        self.settings.lock().disarmed = true;
    }

    /// True if it was not queued before.
    pub fn mark_queued(&self) -> bool {
        !self.queued.swap(true, Ordering::SeqCst)
    }

    pub fn clear_queued(&self) {
        self.queued.store(false, Ordering::SeqCst);
    }

    /// Starts to hear from the file.
    pub fn register(self: &Arc<Self>, queue: &WaitQueue) {
        let settings = self.settings();
        let mask = settings.wanted();
        let id = if settings.exclusive { queue.register_exclusive(mask, self.clone()) } else { queue.register(mask, self.clone()) };
        *self.registered.lock() = id;
    }

    /// Stops it.
    pub fn unregister(&self, queue: &WaitQueue) {
        let id = std::mem::take(&mut *self.registered.lock());
        queue.unregister(id);
    }

    /// Cuts the tie to the file for good.
    pub fn detach(&self, file: &File) {
        self.disarm();
        if let Some(queue) = file.ops.queue() {
            self.unregister(queue);
        }
        file.ops.watch(false);
    }
}

impl Wake for Item {
    fn wake(&self, events: PollEvents) {
        if !events.intersects(self.settings().wanted()) {
            return;
        }
        if let (Some(epoll), Some(item)) = (self.epoll.upgrade(), self.this.upgrade()) {
            epoll.enqueue(&item);
        }
    }
}

/// Which epolls watch a file.
#[derive(Default)]
pub struct EpollLinks {
    items: Mutex<Vec<Weak<Item>>>,
}

impl EpollLinks {
    pub fn add(&self, item: &Arc<Item>) {
        self.items.lock().push(Arc::downgrade(item));
    }

    pub fn remove(&self, item: &Arc<Item>) {
        self.items.lock().retain(|link| !std::ptr::eq(link.as_ptr(), Arc::as_ptr(item)));
    }

    /// The last descriptor is gone: all epolls forget the file.
    pub fn file_gone(&self, file: &File) {
        for item in std::mem::take(&mut *self.items.lock()).iter().filter_map(Weak::upgrade) {
            item.detach(file);
            if let Some(epoll) = item.epoll.upgrade() {
                epoll.items.lock().remove(&item.key);
            }
        }
    }
}
