//! Waiting: queues on which objects announce readiness, and the parker on which a task's kernel thread sleeps.
//!
//! Objects never block. They answer `EAGAIN` and announce changes on a [`WaitQueue`]; whoever wants to wait registers, tries again,
//! and parks. Lock order: an object's own lock, then its queue's, then (from [`Wake::wake`]) an epoll's ready list, then that epoll's queue.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bitflags::bitflags;
use parking_lot::Mutex;
use rustix::thread::futex;

bitflags! {
    /// Readiness, with the values of `poll(2)` and `epoll(7)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct PollEvents: u32 {
        /// Something to read.
        const IN = 0x001;
        /// Urgent data.
        const PRI = 0x002;
        /// Room to write.
        const OUT = 0x004;
        /// An error is pending.
        const ERR = 0x008;
        /// Both ends closed.
        const HUP = 0x010;
        /// Descriptor is not open.
        const NVAL = 0x020;
        /// Same as `IN`.
        const RDNORM = 0x040;
        /// Priority band.
        const RDBAND = 0x080;
        /// Same as `OUT`.
        const WRNORM = 0x100;
        /// Priority band.
        const WRBAND = 0x200;
        /// The peer closed its writing end.
        const RDHUP = 0x2000;
    }
}

impl PollEvents {
    /// What a reader waits for.
    pub const READ: Self = Self::IN.union(Self::RDNORM).union(Self::HUP).union(Self::ERR).union(Self::RDHUP);
    /// What a writer waits for.
    pub const WRITE: Self = Self::OUT.union(Self::WRNORM).union(Self::HUP).union(Self::ERR);
}

/// Somebody who wants to hear of readiness. Called with the queue locked: it must neither block nor touch that queue.
pub trait Wake: Send + Sync {
    /// `events` became true on the queue.
    fn wake(&self, events: PollEvents);
}

struct Waiter {
    id: u64,
    mask: PollEvents,
    exclusive: bool,
    wake: Arc<dyn Wake>,
}

/// Who waits for an object.
#[derive(Default)]
pub struct WaitQueue {
    waiters: Mutex<Vec<Waiter>>,
    /// `waiters.len()`, so that announcing to nobody costs one load.
    count: AtomicUsize,
}

static NEXT_WAITER: AtomicU64 = AtomicU64::new(1);

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self { waiters: Mutex::new(Vec::new()), count: AtomicUsize::new(0) }
    }

    /// Adds a waiter for `mask`; the number removes it again.
    pub fn register(&self, mask: PollEvents, wake: Arc<dyn Wake>) -> u64 {
        self.add(mask, wake, false)
    }

    /// Adds a waiter of whom [`notify`](Self::notify) wakes one at a time (`EPOLLEXCLUSIVE`, `accept`).
    pub fn register_exclusive(&self, mask: PollEvents, wake: Arc<dyn Wake>) -> u64 {
        self.add(mask, wake, true)
    }

    fn add(&self, mask: PollEvents, wake: Arc<dyn Wake>, exclusive: bool) -> u64 {
        let id = NEXT_WAITER.fetch_add(1, Ordering::Relaxed);
        let mut waiters = self.waiters.lock();
        waiters.push(Waiter { id, mask, exclusive, wake });
        self.count.store(waiters.len(), Ordering::SeqCst);
        id
    }

    /// Removes a waiter; unknown numbers are ignored.
    pub fn unregister(&self, id: u64) {
        let mut waiters = self.waiters.lock();
        if let Some(index) = waiters.iter().position(|waiter| waiter.id == id) {
            waiters.remove(index);
        }
        self.count.store(waiters.len(), Ordering::SeqCst);
    }

    /// Announces `events`: wakes every waiter that asked for one of them, of exclusive waiters only the first.
    pub fn notify(&self, events: PollEvents) {
        // Pairs with `add`: a waiter registers, then tests the object; we change the object, then look for waiters.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let waiters = self.waiters.lock();
        let mut exclusive_done = false;
        for waiter in waiters.iter().filter(|waiter| waiter.mask.intersects(events)) {
            if waiter.exclusive && std::mem::replace(&mut exclusive_done, true) {
                continue;
            }
            waiter.wake.wake(events);
        }
    }
}

/// Where one thread sleeps until unparked; an unpark before the park is not lost.
#[derive(Default)]
pub struct Parker {
    token: AtomicU32,
    sleeping: AtomicBool,
}

impl Parker {
    /// Sleeps until [`unpark`](Self::unpark) or the deadline (nanoseconds of the host's monotonic clock). Wakes may be spurious.
    pub fn park(&self, deadline: Option<u64>) {
        while self.token.swap(0, Ordering::Acquire) == 0 {
            let timeout = match deadline {
                None => None,
                Some(deadline) => {
                    let now = crate::time::monotonic_ns();
                    if now >= deadline {
                        return;
                    }
                    let left = Duration::from_nanos(deadline - now);
                    Some(futex::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) })
                }
            };
            // Any outcome (woken, timed out, interrupted, value changed) leads to another look at the token.
            // Pairs with `unpark`: it says that there is something, then looks for a sleeper; the host looks at the token once more.
            self.sleeping.store(true, Ordering::SeqCst);
            let _ = futex::wait(&self.token, futex::Flags::PRIVATE, 0, timeout.as_ref());
            self.sleeping.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the thread sleeps right now, for `/proc/<pid>/stat`.
    pub fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }

    /// Says that a thread sleeps here that does not exist (the first process).
    pub fn set_sleeping(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
    }

    /// Forgets an unpark that came before.
    pub fn reset(&self) {
        self.token.store(0, Ordering::Release);
    }

    /// Ends the current or the next park.
    pub fn unpark(&self) {
        if self.announce() {
            let _ = futex::wake(&self.token, futex::Flags::PRIVATE, 1);
        }
    }

    /// The same for a thread that serves a system call: the host's call to wake a sleeper is made once its own guest thread is on its way again, or before
    /// it sleeps itself.
    fn unpark_soon(&self) {
        if !self.announce() {
            return;
        }
        WOKEN.set(true);
        let before = DEFERRED.replace(std::ptr::from_ref(&self.token).addr());
        wake_at(before);
    }

    /// Leaves the token; whether somebody sleeps who must be woken.
    fn announce(&self) -> bool {
        self.token.swap(1, Ordering::SeqCst) == 0 && self.sleeping.load(Ordering::SeqCst)
    }
}

impl Wake for Parker {
    fn wake(&self, _events: PollEvents) {
        if SERVES.get() { self.unpark_soon() } else { self.unpark() }
    }
}

thread_local! {
    /// Address of the token of a sleeper that this thread is to wake; 0 if there is none.
    static DEFERRED: Cell<usize> = const { Cell::new(0) };
    /// Whether this thread has woken a sleeper since [`has_woken`] was asked last.
    static WOKEN: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread serves system calls, and so comes by [`wake_deferred`] soon.
    static SERVES: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread serves system calls from now on: it calls [`wake_deferred`] before it waits for anything and after each call.
pub fn serve_calls() {
    SERVES.set(true);
}

/// Whether this thread has woken a sleeper since this was asked last.
pub fn has_woken() -> bool {
    WOKEN.take()
}

/// Wakes whom this thread has announced something to.
pub fn wake_deferred() {
    wake_at(DEFERRED.take());
}

fn wake_at(address: usize) {
    if address == 0 {
        return;
    }
    // The parker may have gone with its task by now. The host looks at the address alone, so that at worst somebody else wakes for nothing.
    // SAFETY: a wake reads and writes no memory of this process.
    unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
}

/// Why a wait ended without its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// A signal is pending, or the task must exit; mostly answered with `ERESTARTSYS`.
    Interrupted,
    /// The deadline passed.
    TimedOut,
}
