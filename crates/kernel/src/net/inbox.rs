//! A queue of datagrams, each with where it came from.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use cloudpilot_abi::Errno;
use cloudpilot_abi::types::Timespec;
use parking_lot::Mutex;

use super::message::Credentials;
use super::rights::Rights;
use super::{Endpoint, budget};
use crate::io::{Destination, Source};
use crate::vfs::file::File;

/// What a datagram counts for beside its bytes, so that empty ones are limited too.
const WEIGHT: usize = 256;
/// Senders remembered for being told of room; of more, some try in vain until the next datagram is taken.
const MAX_STARVED: usize = 1024;

/// A message with its origin.
pub struct Datagram<A> {
    /// Contents.
    pub bytes: Vec<u8>,
    /// Addresses.
    pub about: A,
    /// Who sent it.
    pub sender: Credentials,
    /// When.
    pub time: Timespec,
    /// Files that came along.
    pub rights: Option<Rights>,
}

struct State<A> {
    queue: VecDeque<Datagram<A>>,
    weight: usize,
    starved: Vec<Weak<Endpoint>>,
    closed: bool,
}

/// Datagrams that wait.
pub struct Inbox<A> {
    state: Mutex<State<A>>,
}

/// A datagram that was received.
pub struct Received<A> {
    /// Bytes stored.
    pub count: usize,
    /// Length of the message.
    pub length: usize,
    /// Addresses.
    pub about: A,
    /// Who sent it.
    pub sender: Credentials,
    /// When.
    pub time: Timespec,
    /// Files that came along.
    pub files: Vec<Arc<File>>,
}

impl<A> Default for Inbox<A> {
    fn default() -> Self {
        Self { state: Mutex::new(State { queue: VecDeque::new(), weight: 0, starved: Vec::new(), closed: false }) }
    }
}

impl<A> State<A> {
    fn has_room(&self, length: usize, capacity: usize) -> bool {
        let fits = self.queue.is_empty() || self.weight + length + WEIGHT <= capacity;
        fits && budget::grant(length, self.queue.is_empty()) == length
    }

    fn remember(&mut self, sender: &Arc<Endpoint>) {
        let sender = Arc::downgrade(sender);
        if self.starved.len() < MAX_STARVED && !self.starved.iter().any(|known| known.ptr_eq(&sender)) {
            self.starved.push(sender);
        }
    }
}

impl<A: Clone> Inbox<A> {
    /// Puts a datagram in. Without room the bytes stay in `source`, and `sender` is told of room later: `EAGAIN`. `ECONNREFUSED` once
    /// [`close`](Self::close)d.
    pub fn put(
        &self,
        source: &mut Source<'_>,
        capacity: usize,
        sender: &Arc<Endpoint>,
        make: impl FnOnce(Vec<u8>) -> Datagram<A>,
    ) -> Result<usize, Errno> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Errno::ECONNREFUSED);
        }
        let length = source.remaining();
        if !state.has_room(length, capacity) {
            state.remember(sender);
            return Err(Errno::EAGAIN);
        }
        let bytes = source.take_vec(length)?;
        if bytes.len() < length {
            return Err(Errno::EFAULT);
        }
        budget::charge(length);
        state.weight += length + WEIGHT;
        state.queue.push_back(make(bytes));
        Ok(length)
    }

    /// Takes the first datagram, or with `peek` shows what comes after so many bytes, as far as its datagram goes.
    pub fn take(&self, destination: &mut Destination<'_>, peek: Option<usize>) -> Result<Received<A>, Errno> {
        let mut state = self.state.lock();
        let mut skip = peek.unwrap_or(0);
        let mut datagrams = state.queue.iter_mut();
        let datagram = loop {
            let datagram = datagrams.next().ok_or(Errno::EAGAIN)?;
            if skip == 0 || skip < datagram.bytes.len() {
                break datagram;
            }
            skip -= datagram.bytes.len();
        };
        let count = destination.put(&datagram.bytes[skip..])?;
        let length = datagram.bytes.len() - skip;
        let files = match (peek, &datagram.rights) {
            (Some(_), Some(rights)) => rights.files().to_vec(),
            (Some(_), None) => Vec::new(),
            (None, _) => datagram.rights.take().map_or_else(Vec::new, Rights::take),
        };
        let received = Received { count, length, about: datagram.about.clone(), sender: datagram.sender, time: datagram.time, files };
        if peek.is_some() {
            return Ok(received);
        }
        state.queue.pop_front();
        state.weight -= length + WEIGHT;
        budget::release(length);
        let starved = std::mem::take(&mut state.starved);
        drop(state);
        starved.iter().filter_map(Weak::upgrade).for_each(|sender| sender.writable());
        Ok(received)
    }

    /// Whether a sender finds room; if not, it is told once there is.
    pub fn room_for(&self, sender: &Arc<Endpoint>, capacity: usize) -> bool {
        let mut state = self.state.lock();
        let room = state.closed || state.has_room(0, capacity);
        if !room {
            state.remember(sender);
        }
        room
    }

    /// Whether a datagram waits.
    pub fn is_empty(&self) -> bool {
        self.state.lock().queue.is_empty()
    }

    /// Length of the first datagram (`FIONREAD`).
    pub fn next_length(&self) -> usize {
        self.state.lock().queue.front().map_or(0, |datagram| datagram.bytes.len())
    }

    /// Takes no more, drops what is there.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.clear();
    }

    /// Drops what is there.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        let left = std::mem::take(&mut state.queue);
        let starved = std::mem::take(&mut state.starved);
        state.weight = 0;
        drop(state);
        left.iter().for_each(|datagram| budget::release(datagram.bytes.len()));
        starved.iter().filter_map(Weak::upgrade).for_each(|sender| sender.writable());
    }

    /// Shows the files that wait.
    pub fn visit_held(&self, visit: &mut dyn FnMut(&Arc<File>)) {
        let state = self.state.lock();
        state.queue.iter().filter_map(|datagram| datagram.rights.as_ref()).flat_map(Rights::files).for_each(visit);
    }

    /// Takes the files out of the messages.
    pub fn discard_held(&self) -> Vec<Rights> {
        self.state.lock().queue.iter_mut().filter_map(|datagram| datagram.rights.take()).collect()
    }
}

impl<A> Drop for Inbox<A> {
    fn drop(&mut self) {
        self.state.get_mut().queue.iter().for_each(|datagram| budget::release(datagram.bytes.len()));
    }
}
