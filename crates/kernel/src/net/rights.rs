//! Files that travel in messages (`SCM_RIGHTS`): how many there are, and those that nobody can receive any more.
//!
//! A socket in its own queue, or two in each other's, keep themselves alive without any descriptor. Whenever a socket is closed while files
//! travel, [`InFlight::socket_closed`] looks for them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use cloudpilot_abi::Errno;
use parking_lot::Mutex;

use super::SocketFile;
use crate::vfs::file::File;

/// Most files in one message, Linux's `SCM_MAX_FD`.
pub const MAX_IN_MESSAGE: usize = 253;
/// Most files that travel at once: they count for no process's `RLIMIT_NOFILE`, so they need a limit of their own.
const MAX_IN_FLIGHT: usize = 16 << 10;

/// A look costs as much as there are files that travel: one is worth it after this part of their number of closed sockets.
const LOOK_SHARE: usize = 16;

/// Files by address, with how often each is in a message.
#[derive(Default)]
struct Table {
    files: HashMap<usize, (Weak<File>, usize)>,
    total: usize,
}

/// The files that travel.
#[derive(Default)]
pub struct InFlight {
    table: Mutex<Table>,
    collecting: AtomicBool,
    /// Sockets closed since the last look.
    closed: AtomicUsize,
}

/// Files in one message; dropped with it.
pub struct Rights {
    files: Vec<Arc<File>>,
    in_flight: Arc<InFlight>,
}

fn key(file: &Arc<File>) -> usize {
    Arc::as_ptr(file) as usize
}

impl Rights {
    /// Puts files on their way.
    pub fn new(in_flight: &Arc<InFlight>, files: Vec<Arc<File>>) -> Result<Self, Errno> {
        if files.len() > MAX_IN_MESSAGE {
            return Err(Errno::EINVAL);
        }
        let mut table = in_flight.table.lock();
        if table.total + files.len() > MAX_IN_FLIGHT {
            return Err(Errno::ETOOMANYREFS);
        }
        for file in &files {
            table.files.entry(key(file)).or_insert_with(|| (Arc::downgrade(file), 0)).1 += 1;
        }
        table.total += files.len();
        drop(table);
        Ok(Self { files, in_flight: Arc::clone(in_flight) })
    }

    /// The files, which stay on their way (`MSG_PEEK`, collection).
    pub fn files(&self) -> &[Arc<File>] {
        &self.files
    }

    /// They arrived.
    pub fn take(mut self) -> Vec<Arc<File>> {
        self.in_flight.arrived(&self.files);
        std::mem::take(&mut self.files)
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        if !self.files.is_empty() {
            self.in_flight.arrived(&self.files);
            drop_later(std::mem::take(&mut self.files));
        }
    }
}

/// Drops files one after the other, never inside each other's drop: a chain of sockets in sockets' queues would exhaust the stack.
fn drop_later(files: Vec<Arc<File>>) {
    thread_local! {
        static DEAD: RefCell<Vec<Arc<File>>> = const { RefCell::new(Vec::new()) };
        static DROPPING: Cell<bool> = const { Cell::new(false) };
    }
    DEAD.with_borrow_mut(|dead| dead.extend(files));
    if DROPPING.replace(true) {
        return;
    }
    while let Some(file) = DEAD.with_borrow_mut(Vec::pop) {
        drop(file);
    }
    DROPPING.set(false);
}

/// A socket that only messages hold, with the sockets of the same sort in its queue.
struct Candidate {
    file: Weak<File>,
    in_flight: usize,
    holds: Vec<usize>,
    live: bool,
}

impl InFlight {
    fn arrived(&self, files: &[Arc<File>]) {
        let mut table = self.table.lock();
        table.total -= files.len();
        for file in files {
            if let Some(entry) = table.files.get_mut(&key(file)) {
                entry.1 -= 1;
                if entry.1 == 0 {
                    table.files.remove(&key(file));
                }
            }
        }
    }

    /// How many files travel.
    pub fn count(&self) -> usize {
        self.table.lock().total
    }

    /// Looks for files that nobody can receive any more, if it is time.
    pub fn socket_closed(&self) {
        let count = self.count();
        if count > 0 && self.closed.fetch_add(1, Ordering::Relaxed) >= count / LOOK_SHARE {
            self.closed.store(0, Ordering::Relaxed);
            self.collect();
        }
    }

    /// Drops messages that only sockets hold which nobody can reach.
    pub fn collect(&self) {
        if self.collecting.swap(true, Ordering::Acquire) {
            return;
        }
        let garbage = self.find_garbage();
        let rights: Vec<Rights> =
            garbage.iter().filter_map(|file| Some(file.ops_as::<SocketFile>()?.socket.discard_held())).flatten().collect();
        drop(garbage);
        drop(rights);
        self.collecting.store(false, Ordering::Release);
    }

    /// A file is a candidate if every reference to it is from a message. Of the candidates those live that are in a message in a queue
    /// of something that is none, and what is in the queues of live ones. Counts may change meanwhile, but those of the unreachable do not.
    fn find_garbage(&self) -> Vec<Arc<File>> {
        let mut candidates: HashMap<usize, Candidate> = {
            let table = self.table.lock();
            let only_messages = table.files.iter().filter(|(_, (file, count))| file.strong_count() == *count);
            only_messages
                .map(|(key, (file, count))| (*key, Candidate { file: file.clone(), in_flight: *count, holds: Vec::new(), live: false }))
                .collect()
        };
        let keys: Vec<usize> = candidates.keys().copied().collect();
        for at in &keys {
            let Some(file) = candidates[at].file.upgrade() else { continue };
            let mut holds = Vec::new();
            if let Some(ops) = file.ops_as::<SocketFile>() {
                ops.socket.visit_held(&mut |held| holds.push(key(held)));
            }
            holds.retain(|held| candidates.contains_key(held));
            if let Some(candidate) = candidates.get_mut(at) {
                candidate.holds = holds;
            }
            drop_later(vec![file]);
        }
        let mut outside: HashMap<usize, usize> = candidates.iter().map(|(key, candidate)| (*key, candidate.in_flight)).collect();
        for held in candidates.values().flat_map(|candidate| &candidate.holds) {
            if let Some(count) = outside.get_mut(held) {
                *count = count.saturating_sub(1);
            }
        }
        let mut reached: Vec<usize> = outside.into_iter().filter(|(_, count)| *count > 0).map(|(key, _)| key).collect();
        while let Some(at) = reached.pop() {
            if let Some(candidate) = candidates.get_mut(&at)
                && !std::mem::replace(&mut candidate.live, true)
            {
                reached.extend(&candidate.holds);
            }
        }
        candidates.retain(|_, candidate| !candidate.live);
        if candidates.values().any(|candidate| candidate.file.strong_count() != candidate.in_flight) {
            // Somebody was quicker than the look at the counts: the next close looks again.
            return Vec::new();
        }
        candidates.values().filter_map(|candidate| candidate.file.upgrade()).collect()
    }
}
