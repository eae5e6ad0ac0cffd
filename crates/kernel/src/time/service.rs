//! The timer service: one thread that calls back at given times. It is started with the first timer of the sandbox and sleeps until the
//! next one is due; a sandbox without timers has no such thread.
//!
//! Lock order: the service's lock is never held while a timer calls back.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::wait::Parker;

/// Something that happens at a time. Called on the service's thread: it must not block.
pub trait Expire: Send + Sync {
    /// The time has come.
    fn expire(&self);
}

/// Deadline and number: the number tells timers of one deadline apart.
type Key = (u64, u64);

struct Queue {
    timers: BTreeMap<Key, Arc<dyn Expire>>,
    next_number: u64,
}

struct Service {
    queue: Mutex<Queue>,
    parker: Parker,
}

/// Stack of the thread: callbacks only wake and send signals.
const STACK_BYTES: usize = 256 << 10;

fn service() -> &'static Service {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    static THREAD: OnceLock<()> = OnceLock::new();
    let service =
        SERVICE.get_or_init(|| Service { queue: Mutex::new(Queue { timers: BTreeMap::new(), next_number: 1 }), parker: Parker::default() });
    THREAD.get_or_init(|| {
        // A host that refuses a thread refuses guests' threads too; timers then never fire, which is the least of it.
        let _ = std::thread::Builder::new().name("timers".into()).stack_size(STACK_BYTES).spawn(|| service.run());
    });
    service
}

/// A timer that waits; dropping it cancels it.
pub struct TimerHandle {
    key: Key,
}

impl Drop for TimerHandle {
    fn drop(&mut self) {
        let cancelled = service().queue.lock().timers.remove(&self.key);
        // Its own drop may do anything: not under the lock.
        drop(cancelled);
    }
}

/// Calls `expire` once at `deadline` (nanoseconds of the host's monotonic clock), unless the handle is dropped before.
pub fn schedule(deadline: u64, expire: Arc<dyn Expire>) -> TimerHandle {
    let service = service();
    let mut queue = service.queue.lock();
    let key = (deadline, queue.next_number);
    queue.next_number += 1;
    queue.timers.insert(key, expire);
    let is_first = queue.timers.first_key_value().is_some_and(|(first, _)| *first == key);
    drop(queue);
    if is_first {
        service.parker.unpark();
    }
    TimerHandle { key }
}

impl Service {
    fn run(&self) {
        loop {
            self.parker.park(self.fire_due());
        }
    }

    /// Calls back all timers that are due; answers when the next one is.
    fn fire_due(&self) -> Option<u64> {
        loop {
            let mut queue = self.queue.lock();
            let (&key, _) = queue.timers.first_key_value()?;
            if key.0 > crate::time::monotonic_ns() {
                return Some(key.0);
            }
            let timer = queue.timers.remove(&key);
            drop(queue);
            if let Some(timer) = timer {
                timer.expire();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct Count(AtomicU32, Parker);

    impl Expire for Count {
        fn expire(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.unpark();
        }
    }

    #[test]
    fn fires_in_time_unless_cancelled() {
        let (kept, cancelled) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let start = crate::time::monotonic_ns();
        drop(schedule(start + 1_000_000, cancelled.clone()));
        let _handle = schedule(start + 5_000_000, kept.clone());
        kept.1.park(Some(start + 2_000_000_000));
        assert_eq!(kept.0.load(Ordering::SeqCst), 1);
        assert_eq!(cancelled.0.load(Ordering::SeqCst), 0);
        assert!(crate::time::monotonic_ns() >= start + 5_000_000);
    }
}
