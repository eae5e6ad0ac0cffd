//! `eventfd(2)`: a counter with readiness.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cloudpilot_abi::{Errno, raw};

use crate::io::{Destination, Source};
use crate::vfs::anonymous;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::FileType;
use crate::wait::{PollEvents, WaitQueue};

/// The counter never holds the largest number.
const LARGEST: u64 = u64::MAX - 1;

/// An event counter.
pub struct EventFd {
    count: AtomicU64,
    /// By which `fdinfo` tells counters apart.
    number: u64,
    /// `EFD_SEMAPHORE`: a read takes 1 rather than all.
    semaphore: bool,
    queue: WaitQueue,
}

/// A new eventfd; `flags` may hold `O_NONBLOCK`.
pub fn open(initial: u32, semaphore: bool, flags: u32) -> Arc<File> {
    let ops = EventFd { count: AtomicU64::new(u64::from(initial)), number: anonymous::next_number(), semaphore, queue: WaitQueue::new() };
    anonymous::open("anon_inode:[eventfd]", FileType::Anonymous, Arc::new(ops), raw::O_RDWR | flags & raw::O_NONBLOCK)
}

impl EventFd {
    /// Counts `by` more, as the kernel itself does: it stops at the largest number.
    pub fn add(&self, by: u64) {
        let sum = |count: u64| Some(count.saturating_add(by).min(LARGEST));
        let _ = self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, sum);
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
    }
}

impl FileOps for EventFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        if destination.remaining() < size_of::<u64>() {
            return Err(Errno::EINVAL);
        }
        let take = |count: u64| match count {
            0 => None,
            _ if self.semaphore => Some(count - 1),
            _ => Some(0),
        };
        let before = self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).map_err(|_| Errno::EAGAIN)?;
        self.queue.notify(PollEvents::OUT);
        let value = if self.semaphore { 1 } else { before };
        destination.put(&value.to_ne_bytes())
    }

    fn write(&self, _file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        // Linux takes the pieces of a vector one by one.
        if source.first_piece() < size_of::<u64>() {
            return Err(Errno::EINVAL);
        }
        // A copy of the source: should this write have to wait, the same bytes are fetched again.
        let mut bytes = [0; size_of::<u64>()];
        let length = source.peek(&mut bytes)?;
        if length < bytes.len() {
            return Err(Errno::EFAULT);
        }
        let add = u64::from_ne_bytes(bytes);
        if add == u64::MAX {
            return Err(Errno::EINVAL);
        }
        let sum = |count: u64| count.checked_add(add).filter(|sum| *sum <= LARGEST);
        self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, sum).map_err(|_| Errno::EAGAIN)?;
        // What lies behind the first eight bytes is ignored.
        source.limit(0);
        self.queue.notify(PollEvents::IN);
        Ok(length)
    }

    fn poll(&self, _file: &File) -> PollEvents {
        let count = self.count.load(Ordering::SeqCst);
        let mut events = PollEvents::empty();
        if count > 0 {
            events |= PollEvents::IN;
        }
        if count < LARGEST {
            events |= PollEvents::OUT;
        }
        events
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn describe(&self, _file: &File) -> String {
        let (count, semaphore) = (self.count.load(Ordering::Relaxed), u32::from(self.semaphore));
        format!("eventfd-count: {count:16x}\neventfd-id: {}\neventfd-semaphore: {semaphore}\n", self.number)
    }
}
