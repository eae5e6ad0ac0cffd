//! A host descriptor as something that guests can wait for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::poller;
use crate::wait::{PollEvents, WaitQueue};

#[derive(Default)]
struct Watch {
    /// Who waits: blocked calls and epolls.
    watchers: usize,
    /// The host's epoll has it.
    armed: bool,
}

/// A host descriptor with a queue on which its readiness is announced while somebody [`watch`](Self::watch)es.
pub struct HostDescriptor {
    fd: OwnedFd,
    this: Weak<Self>,
    key: u64,
    queue: WaitQueue,
    watch: Mutex<Watch>,
}

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

impl HostDescriptor {
    /// Takes over a descriptor.
    pub fn new(fd: OwnedFd) -> Arc<Self> {
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        Arc::new_cyclic(|this| Self { fd, this: this.clone(), key, queue: WaitQueue::new(), watch: Mutex::default() })
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where changes of readiness are announced.
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Somebody starts (true) or stops to wait; see [`FileOps::watch`](crate::vfs::FileOps::watch).
    pub fn watch(&self, on: bool) {
        let mut watch = self.watch.lock();
        if !on {
            // It stays armed: most who wait once wait again. The first needless event disarms it.
            watch.watchers = watch.watchers.saturating_sub(1);
            return;
        }
        watch.watchers += 1;
        if !watch.armed
            && let Some(poller) = poller::get()
        {
            watch.armed = poller.arm(self.fd(), self.key, self.this.clone());
        }
    }

    /// An event from the host.
    pub(super) fn announce(&self, events: PollEvents) {
        {
            let mut watch = self.watch.lock();
            if watch.watchers == 0 {
                // Nobody waits: without this, a busy descriptor would keep the poller's thread running.
                if std::mem::take(&mut watch.armed)
                    && let Some(poller) = poller::get()
                {
                    poller.disarm(self.fd(), self.key);
                }
                return;
            }
        }
        self.queue.notify(events);
    }

    /// Present readiness.
    pub fn poll(&self) -> PollEvents {
        let asked = PollFlags::IN | PollFlags::OUT | PollFlags::PRI | PollFlags::RDHUP | PollFlags::RDNORM | PollFlags::WRNORM;
        let mut entries = [PollFd::new(&self.fd, asked)];
        match rustix::event::poll(&mut entries, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => PollEvents::from_bits_truncate(u32::from(entries[0].revents().bits())),
            Err(_) => PollEvents::empty(),
        }
    }
}

impl Drop for HostDescriptor {
    fn drop(&mut self) {
        if self.watch.get_mut().armed
            && let Some(poller) = poller::get()
        {
            poller.disarm(self.fd(), self.key);
        }
    }
}
