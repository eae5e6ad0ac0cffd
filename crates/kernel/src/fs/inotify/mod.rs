//! `inotify(7)`: events of watched inodes, read from a descriptor.
//!
//! Lock order: an inode's list of watches, then an instance's state, then its queue. The state is therefore not held while watches are added to
//! or removed from an inode.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use cloudpilot_abi::{Errno, raw, raw_ioctl};
use parking_lot::Mutex;

use crate::io::Destination;
use crate::task::Task;
use crate::vfs::Path;
use crate::vfs::anonymous;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{FileType, Inode};
use crate::vfs::watch::Watcher;
use crate::wait::{PollEvents, WaitQueue};

/// Events that wait to be read, `/proc/sys/fs/inotify/max_queued_events`; one more tells of the loss of others.
const MOST_EVENTS: usize = 16_384;
/// Watches of one instance, in the spirit of `max_user_watches`: each keeps an inode in memory.
const MOST_WATCHES: usize = 65_536;
/// Size of the fixed part of `struct inotify_event`; names are padded to multiples of it.
const HEADER: usize = 16;

#[derive(PartialEq, Eq)]
struct Event {
    watch: i32,
    mask: u32,
    cookie: u32,
    name: Option<Box<[u8]>>,
}

impl Event {
    fn padded_name(&self) -> usize {
        self.name.as_ref().map_or(0, |name| (name.len() + 1).next_multiple_of(HEADER))
    }

    fn size(&self) -> usize {
        HEADER + self.padded_name()
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        bytes.extend(self.watch.to_ne_bytes());
        bytes.extend(self.mask.to_ne_bytes());
        bytes.extend(self.cookie.to_ne_bytes());
        bytes.extend((self.padded_name() as u32).to_ne_bytes());
        if let Some(name) = &self.name {
            bytes.extend_from_slice(name);
        }
        bytes.resize(self.size(), 0);
        bytes
    }
}

/// One watch of an instance.
struct Watch {
    inode: Arc<dyn Inode>,
    /// Keeps the name, and so this very inode, in memory.
    _path: Option<Path>,
    /// Number in the inode's list.
    number: u64,
    mask: u32,
    ear: Arc<Ear>,
}

/// What an inode's list knows of a watch.
struct Ear {
    instance: Weak<Inotify>,
    watch: i32,
    one_shot: AtomicBool,
    /// The watch is over; its removal from the inode follows with the next call on the instance.
    over: AtomicBool,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    bytes: usize,
    watches: BTreeMap<i32, Watch>,
    /// The watch on each inode, by the inode's address, which stays for as long as the watch holds it.
    of_inode: HashMap<usize, i32>,
    last_number: i32,
    /// Watches that ended by themselves.
    over: Vec<i32>,
}

impl State {
    fn remove(&mut self, watch: i32) -> Option<Watch> {
        let removed = self.watches.remove(&watch)?;
        self.of_inode.remove(&address(&removed.inode));
        Some(removed)
    }
}

fn address(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<()>().addr()
}

/// An inotify instance.
pub struct Inotify {
    this: Weak<Self>,
    state: Mutex<State>,
    queue: WaitQueue,
}

/// A new instance; `flags` may hold `O_NONBLOCK`.
pub fn open(flags: u32) -> Arc<File> {
    let ops = Arc::new_cyclic(|this| Inotify { this: this.clone(), state: Mutex::default(), queue: WaitQueue::new() });
    anonymous::open("anon_inode:inotify", FileType::Anonymous, ops, raw::O_RDONLY | flags & raw::O_NONBLOCK)
}

impl Watcher for Ear {
    fn event(&self, mask: u32, cookie: u32, name: Option<&[u8]>) {
        if self.over.load(Ordering::SeqCst) {
            return;
        }
        let Some(instance) = self.instance.upgrade() else { return };
        instance.push(Event { watch: self.watch, mask, cookie, name: name.map(Into::into) });
        let last = self.one_shot.load(Ordering::Relaxed) || mask & (raw::IN_DELETE_SELF | raw::IN_UNMOUNT) != 0;
        if last && !self.over.swap(true, Ordering::SeqCst) {
            instance.push(Event { watch: self.watch, mask: raw::IN_IGNORED, cookie: 0, name: None });
            instance.state.lock().over.push(self.watch);
        }
    }
}

impl Inotify {
    fn push(&self, event: Event) {
        let mut state = self.state.lock();
        // The same event again says nothing new.
        if state.events.back() == Some(&event) {
            return;
        }
        let event = match state.events.len() {
            MOST_EVENTS.. => return,
            length if length == MOST_EVENTS - 1 => Event { watch: -1, mask: raw::IN_Q_OVERFLOW, cookie: 0, name: None },
            _ => event,
        };
        state.bytes += event.size();
        state.events.push_back(event);
        drop(state);
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
    }

    /// Takes watches that ended by themselves off their inodes.
    fn sweep(&self) {
        let ended: Vec<Watch> = {
            let mut state = self.state.lock();
            let over = std::mem::take(&mut state.over);
            over.into_iter().filter_map(|number| state.remove(number)).collect()
        };
        for watch in ended {
            watch.inode.common().watches.remove(watch.number);
        }
    }

    /// `inotify_add_watch(2)`: a new watch, or the change of the one on the same inode.
    pub fn add(&self, inode: &Arc<dyn Inode>, path: Option<Path>, mask: u32) -> Result<i32, Errno> {
        self.sweep();
        let events = mask & (raw::IN_ALL_EVENTS | raw::IN_EXCL_UNLINK);
        let one_shot = mask & raw::IN_ONESHOT != 0;
        let mut state = self.state.lock();
        let known = state.of_inode.get(&address(inode)).copied();
        if let Some((watch, found)) = known.and_then(|watch| Some((watch, state.watches.get_mut(&watch)?))) {
            if mask & raw::IN_MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            found.mask = if mask & raw::IN_MASK_ADD != 0 { found.mask | events } else { events };
            found.ear.one_shot.store(one_shot, Ordering::Relaxed);
            let (number, mask) = (found.number, found.mask);
            drop(state);
            inode.common().watches.change(number, mask);
            return Ok(watch);
        }
        if state.watches.len() >= MOST_WATCHES {
            return Err(Errno::ENOSPC);
        }
        state.last_number += 1;
        let watch = state.last_number;
        drop(state);
        let ear = Arc::new(Ear { instance: self.this.clone(), watch, one_shot: AtomicBool::new(one_shot), over: AtomicBool::new(false) });
        let number = inode.common().watches.add(events, ear.clone());
        let entry = Watch { inode: Arc::clone(inode), _path: path, number, mask: events, ear };
        let mut state = self.state.lock();
        state.of_inode.insert(address(inode), watch);
        state.watches.insert(watch, entry);
        Ok(watch)
    }

    /// `inotify_rm_watch(2)`.
    pub fn remove(&self, watch: i32) -> Result<(), Errno> {
        self.sweep();
        let removed = self.state.lock().remove(watch).ok_or(Errno::EINVAL)?;
        removed.ear.over.store(true, Ordering::SeqCst);
        removed.inode.common().watches.remove(removed.number);
        self.push(Event { watch, mask: raw::IN_IGNORED, cookie: 0, name: None });
        Ok(())
    }
}

impl FileOps for Inotify {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        self.sweep();
        let mut state = self.state.lock();
        let mut count = 0;
        while let Some(event) = state.events.front() {
            if destination.remaining() < event.size() {
                break;
            }
            let bytes = event.encode();
            match destination.put(&bytes) {
                Ok(stored) => count += stored,
                Err(_) if count > 0 => break,
                Err(errno) => return Err(errno),
            }
            state.bytes -= bytes.len();
            state.events.pop_front();
        }
        match count {
            0 if state.events.is_empty() => Err(Errno::EAGAIN),
            0 => Err(Errno::EINVAL),
            _ => Ok(count),
        }
    }

    fn poll(&self, _file: &File) -> PollEvents {
        if self.state.lock().events.is_empty() { PollEvents::empty() } else { PollEvents::IN | PollEvents::RDNORM }
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn ioctl(&self, _file: &File, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        match request {
            raw_ioctl::FIONREAD => {
                let bytes = self.state.lock().bytes;
                task.write(argument, &(bytes as i32)).map(|()| 0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn release(&self, _file: &File) {
        let watches = std::mem::take(&mut self.state.lock().watches);
        for watch in watches.into_values() {
            watch.ear.over.store(true, Ordering::SeqCst);
            watch.inode.common().watches.remove(watch.number);
        }
    }

    fn describe(&self, _file: &File) -> String {
        let state = self.state.lock();
        let line = |(number, watch): (&i32, &Watch)| {
            let (inode, device) = watch.inode.attributes().map_or((0, 0), |attributes| (attributes.inode, attributes.device));
            format!("inotify wd:{number:x} ino:{inode:x} sdev:{device:x} mask:{:x} ignored_mask:0 \n", watch.mask & raw::IN_ALL_EVENTS)
        };
        state.watches.iter().map(line).collect()
    }
}
