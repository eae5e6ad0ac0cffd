//! A request that waits for readiness, `IOCB_CMD_POLL`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::{Context, Event};
use crate::vfs::File;
use crate::wait::{PollEvents, Wake};

/// One such request. Its file stays open until somebody looks at the context again: were the last reference dropped by whoever announces
/// readiness, that would happen with the file's queue locked.
pub struct PollRequest {
    context: Weak<Context>,
    file: Arc<File>,
    wanted: PollEvents,
    event: Event,
    ended: AtomicBool,
    /// Number on the file's queue; 0 for none.
    registered: AtomicU64,
}

impl PollRequest {
    /// Starts to wait, and ends at once if the file is ready.
    pub fn register(context: &Arc<Context>, file: Arc<File>, wanted: PollEvents, event: Event) -> Arc<Self> {
        let (ended, registered) = (AtomicBool::new(false), AtomicU64::new(0));
        let poll = Arc::new(Self { context: Arc::downgrade(context), file, wanted, event, ended, registered });
        if let Some(queue) = poll.file.ops.queue() {
            poll.file.ops.watch(true);
            poll.registered.store(queue.register(wanted, poll.clone()), Ordering::SeqCst);
        }
        let ready = poll.file.ops.poll(&poll.file) & wanted;
        if !ready.is_empty() {
            poll.finish(ready);
        }
        poll
    }

    /// Whether it is the request at this address, and waits.
    pub fn is_of(&self, request: u64) -> bool {
        self.event.request == request && !self.has_ended()
    }

    /// Whether its event is there.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Ends it; false if it has ended before.
    pub fn finish(&self, ready: PollEvents) -> bool {
        if self.ended.swap(true, Ordering::SeqCst) {
            return false;
        }
        if let Some(context) = self.context.upgrade() {
            context.end(Event { result: i64::from(ready.bits()), ..self.event }, None);
        }
        true
    }

    /// Lets go of the file's queue.
    pub fn unregister(&self) {
        let id = self.registered.swap(0, Ordering::SeqCst);
        if let (1.., Some(queue)) = (id, self.file.ops.queue()) {
            queue.unregister(id);
            self.file.ops.watch(false);
        }
    }
}

impl Wake for PollRequest {
    fn wake(&self, events: PollEvents) {
        let ready = events & self.wanted;
        if !ready.is_empty() {
            self.finish(ready);
        }
    }
}
