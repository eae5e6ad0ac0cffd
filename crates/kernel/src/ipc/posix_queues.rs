//! POSIX message queues, `mq_overview(7)`.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use super::limits::{self, Limits};
use crate::io::Destination;
use crate::net::netlink::NetlinkSocket;
use crate::signal;
use crate::task::{Credentials, Process, Task};
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{Attributes, FileType, FilesystemFigures, Inode, InodeCommon, SetAttributes};
use crate::vfs::permission;
use crate::wait::{PollEvents, WaitQueue};

/// The most of each with `CAP_SYS_RESOURCE`.
const HARD: (usize, usize) = (65_536, 16 << 20);
/// `MQUEUE_MAGIC`.
const MAGIC: i64 = 0x1980_0202;

/// Queues by name.
#[derive(Default)]
pub struct Names(Mutex<BTreeMap<Vec<u8>, Arc<Queue>>>);

/// A queue.
pub struct Queue {
    common: InodeCommon,
    number: u64,
    /// Most messages.
    pub capacity: usize,
    /// Most bytes of one.
    pub largest: usize,
    state: Mutex<State>,
    /// Announces messages and room.
    pub queue: WaitQueue,
}

struct State {
    /// By falling priority, oldest first.
    messages: Vec<(u32, Vec<u8>)>,
    receivers: usize,
    notify: Option<Notify>,
    permissions: u32,
    owner: (u32, u32),
    changed: Timespec,
    linked: bool,
}

/// Whom the first message of an empty queue is told.
struct Notify {
    process: Weak<Process>,
    pid: i32,
    means: Means,
}

/// How somebody is told of a message, `struct sigevent`.
pub enum Means {
    /// Not at all: the place is taken.
    Silence,
    /// By a signal with a value.
    Signal(i32, u64),
    /// By bytes of theirs in a netlink socket, whose reader starts a thread: what the C library makes of `SIGEV_THREAD`.
    Socket(Arc<NetlinkSocket>, Cookie),
}

/// What comes out of the socket; the last byte says why.
pub type Cookie = [u8; 32];

/// `NOTIFY_WOKENUP`: a message came.
const WOKEN_UP: u8 = 1;
/// `NOTIFY_REMOVED`: none will be told any more.
const REMOVED: u8 = 2;

impl Notify {
    fn message_came(self, sender: &Task) {
        match self.means {
            Means::Silence => {}
            Means::Signal(number, value) => {
                if let Some(process) = self.process.upgrade() {
                    let mut info = signal::info_from_task(sender, number, raw::SI_MESGQ);
                    info.fields[0] = info.fields[0] & !0xffff_ffff | u64::from(process.numbers.show(sender.process.pid) as u32);
                    info.fields[1] = value;
                    if let Some(info) = signal::as_received(sender, &process, &info) {
                        signal::send_to_process(&process, &info);
                    }
                }
            }
            Means::Socket(socket, cookie) => put_cookie(&socket, cookie, WOKEN_UP),
        }
    }

    fn takes_back(self) {
        if let Means::Socket(socket, cookie) = self.means {
            put_cookie(&socket, cookie, REMOVED);
        }
    }
}

fn put_cookie(socket: &NetlinkSocket, mut cookie: Cookie, why: u8) {
    cookie[31] = why;
    socket.deliver(&cookie);
}

/// What a queue counts for under `RLIMIT_MSGQUEUE`: its messages, and what Linux keeps about each and about each priority.
fn weight(capacity: usize, largest: usize) -> u64 {
    const MESSAGE: usize = 48;
    const PRIORITY: usize = 48;
    /// `MQ_PRIO_MAX`.
    const PRIORITIES: usize = 32_768;
    capacity.saturating_mul(largest + MESSAGE).saturating_add(capacity.min(PRIORITIES) * PRIORITY) as u64
}

impl Names {
    /// Opens or makes a queue; `limits` are the attributes of a new one.
    pub fn open(
        &self,
        task: &Task,
        set: &Limits,
        name: Vec<u8>,
        (flags, mode): (u32, u32),
        wanted_limits: Option<(usize, usize)>,
    ) -> Result<Arc<File>, Errno> {
        let credentials = task.credentials();
        let mut names = self.0.lock();
        let queue = match names.get(&name) {
            Some(_) if flags & (raw::O_CREAT | raw::O_EXCL) == raw::O_CREAT | raw::O_EXCL => return Err(Errno::EEXIST),
            Some(queue) => {
                let wanted = match flags & raw::O_ACCMODE {
                    raw::O_RDONLY => permission::READ,
                    raw::O_WRONLY => permission::WRITE,
                    raw::O_RDWR => permission::READ | permission::WRITE,
                    _ => return Err(Errno::EINVAL),
                };
                permission::check_attributes(&queue.attributes()?, &credentials, wanted)?;
                Arc::clone(queue)
            }
            None if flags & raw::O_CREAT == 0 => return Err(Errno::ENOENT),
            None => {
                let number = |path: &str| set.number(path, 0) as usize;
                let most = (number(limits::POSIX_MOST_COUNT), number(limits::POSIX_MOST_SIZE));
                // Nobody gets more by not asking.
                let default = (number(limits::POSIX_DEFAULT_COUNT).min(most.0), number(limits::POSIX_DEFAULT_SIZE).min(most.1));
                let (capacity, largest) = wanted_limits.unwrap_or(default);
                let bound = if credentials.has(raw::CAP_SYS_RESOURCE) { HARD } else { most };
                if capacity == 0 || largest == 0 || capacity > bound.0 || largest > bound.1 {
                    return Err(Errno::EINVAL);
                }
                let theirs = |queue: &&Arc<Queue>| queue.state.lock().owner.0 == credentials.euid;
                let taken: u64 = names.values().filter(theirs).map(|queue| weight(queue.capacity, queue.largest)).sum();
                if taken + weight(capacity, largest) > task.process.limits.lock().soft(raw::RLIMIT_MSGQUEUE) {
                    return Err(Errno::EMFILE);
                }
                if names.len() >= number(limits::POSIX_QUEUES) && !credentials.has(raw::CAP_SYS_RESOURCE) {
                    return Err(Errno::ENOSPC);
                }
                let permissions = mode & 0o777 & !task.fs().umask;
                let queue = Arc::new(Queue::new(capacity, largest, permissions, &credentials));
                names.insert(name, Arc::clone(&queue));
                queue
            }
        };
        drop(names);
        let ops = Arc::new(Handle(Arc::clone(&queue)));
        Ok(File::new(ops, queue, None, flags & (raw::O_ACCMODE | raw::O_NONBLOCK)))
    }

    /// Takes a name away.
    pub fn unlink(&self, credentials: &Credentials, name: &[u8]) -> Result<(), Errno> {
        let mut names = self.0.lock();
        let queue = names.get(name).ok_or(Errno::ENOENT)?;
        // The directory of queues is everybody's and sticky.
        if !permission::is_owner(&queue.attributes()?, credentials) {
            return Err(Errno::EPERM);
        }
        queue.state.lock().linked = false;
        names.remove(name);
        Ok(())
    }
}

/// The queue behind a descriptor's file.
pub fn of_file(file: &File) -> Result<&Arc<Queue>, Errno> {
    file.ops_as::<Handle>().map(|handle| &handle.0).ok_or(Errno::EBADF)
}

impl Queue {
    fn new(capacity: usize, largest: usize, permissions: u32, credentials: &Credentials) -> Self {
        let state = State {
            messages: Vec::new(),
            receivers: 0,
            notify: None,
            permissions,
            owner: (credentials.fsuid, credentials.fsgid),
            changed: crate::time::realtime(),
            linked: true,
        };
        let number = crate::vfs::anonymous::next_number();
        Self { common: InodeCommon::default(), number, capacity, largest, state: Mutex::new(state), queue: WaitQueue::new() }
    }

    /// Messages in it.
    pub fn length(&self) -> usize {
        self.state.lock().messages.len()
    }

    /// Puts a message in if there is room.
    pub fn send(&self, task: &Task, priority: u32, text: &[u8]) -> Option<()> {
        let told = {
            let mut state = self.state.lock();
            if state.messages.len() >= self.capacity {
                return None;
            }
            let place = state.messages.iter().position(|(other, _)| *other < priority).unwrap_or(state.messages.len());
            state.messages.insert(place, (priority, text.to_vec()));
            if state.messages.len() == 1 && state.receivers == 0 { state.notify.take() } else { None }
        };
        if let Some(notify) = told {
            notify.message_came(task);
        }
        self.queue.notify(PollEvents::IN);
        Some(())
    }

    /// Takes the first message of the highest priority.
    pub fn receive(&self) -> Option<(u32, Vec<u8>)> {
        let mut state = self.state.lock();
        let message = if state.messages.is_empty() { None } else { Some(state.messages.remove(0)) };
        drop(state);
        if message.is_some() {
            self.queue.notify(PollEvents::OUT);
        }
        message
    }

    /// Counts those who wait for a message: they come before whoever is to be told.
    pub fn count_receiver(&self, enters: bool) {
        let mut state = self.state.lock();
        state.receivers = if enters { state.receivers + 1 } else { state.receivers - 1 };
    }

    /// Registers the process to be told of the next message, or takes that back.
    pub fn notify(&self, process: &Arc<Process>, means: Option<Means>) -> Result<(), Errno> {
        let taken_back = {
            let mut state = self.state.lock();
            let taken = state.notify.as_ref().is_some_and(|notify| notify.process.upgrade().is_some_and(|process| !process.has_exited()));
            match means {
                Some(_) if taken => return Err(Errno::EBUSY),
                Some(means) => {
                    state.notify = Some(Notify { process: Arc::downgrade(process), pid: process.pid, means });
                    None
                }
                None => state.notify.take_if(|notify| notify.pid == process.pid),
            }
        };
        if let Some(notify) = taken_back {
            notify.takes_back();
        }
        Ok(())
    }
}

/// An open queue.
struct Handle(Arc<Queue>);

impl FileOps for Handle {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, offset: u64) -> Result<usize, Errno> {
        let text = {
            let state = self.0.state.lock();
            let bytes: usize = state.messages.iter().map(|(_, text)| text.len()).sum();
            let pid = state.notify.as_ref().map_or(0, |notify| destination.task().map_or(notify.pid, |reader| reader.shows(notify.pid)));
            let (kind, signal) = match state.notify.as_ref().map(|notify| &notify.means) {
                None => (0, 0),
                Some(Means::Signal(number, _)) => (raw::SIGEV_SIGNAL, *number),
                Some(Means::Silence) => (raw::SIGEV_NONE, 0),
                Some(Means::Socket(..)) => (raw::SIGEV_THREAD, 0),
            };
            format!("QSIZE:{bytes:<10} NOTIFY:{kind:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n")
        };
        let rest = text.as_bytes().get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or(&[]);
        destination.put(rest)
    }

    fn seekable(&self) -> bool {
        true
    }

    fn poll(&self, _file: &File) -> PollEvents {
        let length = self.0.length();
        let mut events = PollEvents::empty();
        events.set(PollEvents::IN | PollEvents::RDNORM, length > 0);
        events.set(PollEvents::OUT | PollEvents::WRNORM, length < self.0.capacity);
        events
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn flush(&self, _file: &File, task: &Arc<Task>) {
        // Closing ends the registration.
        let _ = self.0.notify(&task.process, None);
    }
}

impl Inode for Queue {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &InodeCommon {
        &self.common
    }

    fn attributes(&self) -> Result<Attributes, Errno> {
        let state = self.state.lock();
        Ok(Attributes {
            device: 0x13,
            inode: self.number,
            file_type: FileType::Regular,
            permissions: state.permissions,
            links: u64::from(state.linked),
            uid: state.owner.0,
            gid: state.owner.1,
            device_type: 0,
            size: 80,
            block_size: 4096,
            blocks: 0,
            accessed: state.changed,
            modified: state.changed,
            changed: state.changed,
            created: None,
        })
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn link_text(&self) -> Option<Vec<u8>> {
        Some(b"/mqueue".to_vec())
    }

    fn set_attributes(&self, changes: &SetAttributes) -> Result<(), Errno> {
        let mut state = self.state.lock();
        state.permissions = changes.permissions.unwrap_or(state.permissions);
        state.owner = (changes.uid.unwrap_or(state.owner.0), changes.gid.unwrap_or(state.owner.1));
        Ok(())
    }

    fn open(self: Arc<Self>, _flags: u32, _task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(Handle(self)))
    }

    fn statfs(&self) -> Result<FilesystemFigures, Errno> {
        Ok(FilesystemFigures { magic: MAGIC, block_size: 4096, name_length: 255, ..FilesystemFigures::default() })
    }
}
