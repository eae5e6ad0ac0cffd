//! One thread that waits for host descriptors and announces their readiness on our queues. It is started with the first descriptor that
//! somebody waits for: a sandbox whose programs never wait for the host has no such thread.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{OnceLock, Weak};

use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno as HostErrno;

use super::descriptor::HostDescriptor;
use crate::wait::PollEvents;

/// Host events taken at once.
const BATCH: usize = 64;
/// Stack of the thread: it only looks numbers up and wakes.
const STACK_BYTES: usize = 128 << 10;

/// The poller: the host's epoll and who stands behind its numbers.
pub(super) struct Poller {
    epoll: OwnedFd,
    watched: Mutex<HashMap<u64, Weak<HostDescriptor>>>,
}

/// Makes the epoll; none if the host refuses.
pub(super) fn prepare() -> Option<&'static Poller> {
    static POLLER: OnceLock<Option<Poller>> = OnceLock::new();
    let make = || epoll::create(epoll::CreateFlags::CLOEXEC).ok().map(|epoll| Poller { epoll, watched: Mutex::default() });
    POLLER.get_or_init(make).as_ref()
}

/// The poller of this process, started if need be; none if the host refuses.
pub(super) fn get() -> Option<&'static Poller> {
    static THREAD: OnceLock<bool> = OnceLock::new();
    let poller = prepare()?;
    let start = || std::thread::Builder::new().name("host-poller".into()).stack_size(STACK_BYTES).spawn(|| poller.run()).is_ok();
    THREAD.get_or_init(start).then_some(poller)
}

impl Poller {
    /// Announces changes of `fd` from now on, once each (edges): present readiness is for the caller to look at afterwards. False when the
    /// host knows no readiness for it (regular files).
    pub(super) fn arm(&self, fd: BorrowedFd<'_>, key: u64, descriptor: Weak<HostDescriptor>) -> bool {
        self.watched.lock().insert(key, descriptor);
        let events =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::PRI | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let added = epoll::add(&self.epoll, fd, epoll::EventData::new_u64(key), events).is_ok();
        if !added {
            self.watched.lock().remove(&key);
        }
        added
    }

    /// Ends it. Needed before a descriptor is closed: others may hold the same description open, and events would go on.
    pub(super) fn disarm(&self, fd: BorrowedFd<'_>, key: u64) {
        let _ = epoll::delete(&self.epoll, fd);
        self.watched.lock().remove(&key);
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(HostErrno::INTR) => {}
                // The epoll is ours alone and open as long as the process: there is nothing left to wait for.
                Err(_) => return,
            }
            for event in &events {
                let descriptor = self.watched.lock().get(&event.data.u64()).and_then(Weak::upgrade);
                if let Some(descriptor) = descriptor {
                    descriptor.announce(convert(event.flags));
                }
            }
        }
    }
}

/// The host's events as ours, with the bands that `select(2)` asks for.
fn convert(flags: epoll::EventFlags) -> PollEvents {
    let mut events = PollEvents::from_bits_truncate(flags.bits());
    if events.contains(PollEvents::IN) {
        events |= PollEvents::RDNORM;
    }
    if events.contains(PollEvents::OUT) {
        events |= PollEvents::WRNORM;
    }
    events
}
