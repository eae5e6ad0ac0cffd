//! Asynchronous input and output as it was before rings, `io_submit(2)`: contexts that belong to an address space.
//!
//! Reads and writes are done while they are submitted, which is what Linux does as well unless they are direct ones to a disk; only polls wait.
//!
//! Lock order: a file's queue (held while it announces), then a context's state. With that state locked no file is touched.

mod poll;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, PAGE_SIZE};
use parking_lot::Mutex;

use crate::fs::eventfd::EventFd;
use crate::vfs::File;
use crate::wait::{PollEvents, WaitQueue};

use poll::PollRequest;

/// `struct io_event`: how a request ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Event {
    /// What the request carried for the caller.
    pub data: u64,
    /// Address of the request.
    pub request: u64,
    /// Bytes, or a negative error number.
    pub result: i64,
    /// Always 0.
    pub second_result: i64,
}

/// Linux refuses more requests than have twice as many events as fit into 256 MiB.
pub const MAX_REQUESTS: u32 = 0x1000_0000 / size_of::<Event>() as u32 / 2;
/// Bytes in front of the events in Linux's ring, which decide how many more than asked for fit into its pages.
const RING_HEADER: u64 = 32;
/// Events that a context holds at least, twice over: what Linux has for four processors.
const LEAST_EVENTS: u64 = 16;

/// Requests that all contexts were made for, `/proc/sys/fs/aio-nr`.
static PROMISED: AtomicU64 = AtomicU64::new(0);

/// Requests that all contexts were made for, `/proc/sys/fs/aio-nr`.
pub fn promised() -> u64 {
    PROMISED.load(Ordering::Relaxed)
}

#[derive(Default)]
struct State {
    /// Ended and not fetched yet.
    events: VecDeque<Event>,
    /// Requests that have not ended.
    under_way: u64,
    polls: Vec<Arc<PollRequest>>,
}

/// One context.
pub struct Context {
    promised: u64,
    capacity: u64,
    state: Mutex<State>,
    /// Announces ends, and the end of the context itself.
    pub queue: WaitQueue,
    destroyed: AtomicBool,
}

impl Context {
    /// A context for `requests` at a time; `EAGAIN` if all contexts together would have more than `limit`.
    fn new(requests: u32, limit: u64) -> Result<Arc<Self>, Errno> {
        let promised = u64::from(requests);
        let judge = |sum: u64| sum.checked_add(promised).filter(|sum| *sum <= limit);
        PROMISED.fetch_update(Ordering::SeqCst, Ordering::SeqCst, judge).map_err(|_| Errno::EAGAIN)?;
        let size = size_of::<Event>() as u64;
        let bytes = (promised.max(LEAST_EVENTS) * 2 + 2) * size + RING_HEADER;
        let capacity = (bytes.next_multiple_of(PAGE_SIZE) - RING_HEADER) / size - 1;
        Ok(Arc::new(Self { promised, capacity, state: Mutex::default(), queue: WaitQueue::new(), destroyed: AtomicBool::new(false) }))
    }

    /// Most requests that one call may submit.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Whether somebody destroyed it.
    pub fn is_destroyed(&self) -> bool {
        self.destroyed.load(Ordering::SeqCst)
    }

    /// Takes a place for a request; `EAGAIN` if all are taken by requests under way and by events that nobody fetched.
    pub fn begin(&self) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.under_way + state.events.len() as u64 >= self.capacity {
            return Err(Errno::EAGAIN);
        }
        state.under_way += 1;
        Ok(())
    }

    /// Gives a place back whose request was refused.
    pub fn refuse(&self) {
        self.state.lock().under_way -= 1;
    }

    /// A request has ended.
    pub fn end(&self, event: Event, notified: Option<&File>) {
        let mut state = self.state.lock();
        state.under_way -= 1;
        state.events.push_back(event);
        drop(state);
        self.queue.notify(PollEvents::IN);
        if let Some(counter) = notified.and_then(|file| file.ops_as::<EventFd>()) {
            counter.add(1);
        }
    }

    /// Takes up to `most` events, whose places stay taken until they are [handed out](Self::handed_out) or put back.
    pub fn take(&self, most: usize) -> Vec<Event> {
        let mut state = self.state.lock();
        let count = most.min(state.events.len());
        state.under_way += count as u64;
        let taken = state.events.drain(..count).collect();
        let over = state.take_ended_polls();
        drop(state);
        over.iter().for_each(|poll| poll.unregister());
        taken
    }

    /// Frees the places of events that were taken.
    pub fn handed_out(&self, count: usize) {
        self.state.lock().under_way -= count as u64;
    }

    /// Puts back what could not be handed out.
    pub fn put_back(&self, events: &[Event]) {
        let mut state = self.state.lock();
        state.under_way -= events.len() as u64;
        events.iter().rev().for_each(|event| state.events.push_front(*event));
        drop(state);
        self.queue.notify(PollEvents::IN);
    }

    /// Lets a request wait for the readiness of a file; its place was taken by [`begin`](Self::begin).
    pub fn poll(self: &Arc<Self>, file: Arc<File>, wanted: PollEvents, event: Event) {
        let poll = PollRequest::register(self, file, wanted, event);
        let mut state = self.state.lock();
        state.polls.push(poll);
        // Who destroyed it meanwhile may have looked already.
        let over = if self.is_destroyed() { std::mem::take(&mut state.polls) } else { state.take_ended_polls() };
        drop(state);
        over.iter().for_each(|poll| poll.unregister());
    }

    /// Cancels the waiting request at an address (`io_cancel(2)`): its event tells of no readiness. False if there is none.
    pub fn cancel(&self, request: u64) -> bool {
        let found = self.state.lock().polls.iter().find(|poll| poll.is_of(request)).cloned();
        found.is_some_and(|poll| poll.finish(PollEvents::empty()))
    }

    /// Ends it: what waits for it hears, what waits in it is forgotten.
    fn destroy(&self) {
        if self.destroyed.swap(true, Ordering::SeqCst) {
            return;
        }
        PROMISED.fetch_sub(self.promised, Ordering::SeqCst);
        let polls = std::mem::take(&mut self.state.lock().polls);
        polls.iter().for_each(|poll| poll.unregister());
        self.queue.notify(PollEvents::IN | PollEvents::HUP);
    }
}

impl State {
    /// Polls that have ended and only have to let go of their files.
    fn take_ended_polls(&mut self) -> Vec<Arc<PollRequest>> {
        let (over, waiting) = std::mem::take(&mut self.polls).into_iter().partition(|poll| poll.has_ended());
        self.polls = waiting;
        over
    }
}

/// The contexts of an address space by their number, which is the address of a page that programs may look at.
#[derive(Default)]
pub struct Contexts(Mutex<BTreeMap<u64, Arc<Context>>>);

impl Contexts {
    /// Makes one; `number` maps the page.
    ///
    /// # Errors
    ///
    /// `EAGAIN` for more requests than `limit` allows, and those of `number`.
    pub fn make(&self, requests: u32, limit: u64, number: impl FnOnce() -> Result<u64, Errno>) -> Result<u64, Errno> {
        let context = Context::new(requests, limit)?;
        match number() {
            Ok(number) => {
                // The page of an older one may have been unmapped and be this one's now.
                let older = self.0.lock().insert(number, context);
                if let Some(older) = older {
                    older.destroy();
                }
                Ok(number)
            }
            Err(errno) => {
                context.destroy();
                Err(errno)
            }
        }
    }

    /// The context with a number; `EINVAL` if there is none.
    pub fn find(&self, number: u64) -> Result<Arc<Context>, Errno> {
        self.0.lock().get(&number).cloned().ok_or(Errno::EINVAL)
    }

    /// Destroys one; `EINVAL` if there is none.
    pub fn destroy(&self, number: u64) -> Result<(), Errno> {
        let context = self.0.lock().remove(&number).ok_or(Errno::EINVAL)?;
        context.destroy();
        Ok(())
    }
}

impl Drop for Contexts {
    fn drop(&mut self) {
        self.0.get_mut().values().for_each(|context| context.destroy());
    }
}
