//! Sockets: the layer that system calls talk to, unix sockets, the internet's protocols inside the sandbox, netlink, and sockets of the host.
//!
//! Every socket is a [`Socket`] behind a [`SocketFile`]. Sockets never block: what would, answers `EAGAIN` and is announced on the socket's
//! queue. Bytes and datagrams go straight from the sender into the receiver's [`Channel`](channel::Channel) or [`Inbox`](inbox::Inbox); there are
//! no packets.
//!
//! Lock order: a socket's state (a connecting one before the listener), then the tables of names and ports, then a channel or inbox, then guest
//! memory, then a queue. Files that come out of a message are dropped with none of them held.

pub mod budget;
pub mod channel;
pub mod host;
pub mod inbox;
pub mod inet;
pub mod interface;
pub mod join;
pub mod message;
pub mod netlink;
pub mod options;
pub mod report;
pub mod rights;
pub mod routes;
pub mod unix;
pub mod urgent;

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use cloudpilot_abi::types::{Timespec, Timeval};
use cloudpilot_abi::{Errno, raw, raw_ioctl, raw_net};
use parking_lot::Mutex;

use crate::io::{Destination, Source};
use crate::namespace::user::UserNamespace;
use crate::task::Task;
use crate::task::activity::FlowCounter;
use crate::vfs::anonymous::AnonymousInode;
use crate::vfs::file::{File, FileOps, Traffic};
use crate::vfs::inode::{FileType, Inode, SetAttributes};
use crate::wait::{PollEvents, WaitQueue};
use message::{Credentials, Incoming, Outgoing};
use options::Options;

/// All that sockets share in one kernel.
#[derive(Default)]
pub struct Net {
    /// Names of unix sockets.
    pub unix: Arc<unix::Names>,
    /// TCP and UDP.
    pub inet: Arc<inet::Inet>,
    /// Numbers of netlink sockets.
    pub netlink: Arc<netlink::Numbers>,
    /// What went over connections between the outside and ports inside.
    pub joined: Arc<FlowCounter>,
    /// Ports on which the outside listens.
    pub outside: Mutex<HashMap<u16, Arc<inet::TcpSocket>>>,
    /// Files that travel in messages.
    pub in_flight: Arc<rights::InFlight>,
}

impl Net {
    /// A kernel without sockets.
    pub fn new() -> Self {
        Self::default()
    }
}

/// What a socket's messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A stream of bytes.
    Stream = 1,
    /// Messages without a connection.
    Datagram = 2,
    /// Anything, by hand; netlink's sockets say they are it.
    Raw = 3,
    /// Messages over a connection.
    SeqPacket = 5,
}

/// Which halves `shutdown(2)` closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// `SHUT_RD` or `SHUT_RDWR`.
    pub read: bool,
    /// `SHUT_WR` or `SHUT_RDWR`.
    pub write: bool,
}

/// What peers of a socket need of it: where to announce, and where to leave an error.
#[derive(Default)]
pub struct Endpoint {
    /// Announces readiness.
    pub queue: WaitQueue,
    error: AtomicU16,
}

impl Endpoint {
    /// Leaves an error for the next call, and announces it.
    pub fn set_error(&self, errno: Errno) {
        self.error.store(errno.0, Ordering::SeqCst);
        self.queue.notify(PollEvents::ERR | PollEvents::READ | PollEvents::WRITE);
    }

    /// Whether an error waits.
    pub fn has_error(&self) -> bool {
        self.error.load(Ordering::SeqCst) != 0
    }

    /// Takes the error that waits (`SO_ERROR`).
    pub fn take_error(&self) -> Option<Errno> {
        Some(self.error.swap(0, Ordering::SeqCst)).filter(|error| *error != 0).map(Errno)
    }

    /// Announces something to read.
    pub fn readable(&self) {
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
    }

    /// Announces room.
    pub fn writable(&self) {
        self.queue.notify(PollEvents::OUT | PollEvents::WRNORM);
    }

    /// Announces an urgent byte.
    pub fn urgent(&self) {
        self.queue.notify(PollEvents::PRI | PollEvents::IN | PollEvents::RDNORM);
    }

    /// Announces that one or both directions ended.
    pub fn hung_up(&self) {
        self.queue.notify(PollEvents::READ | PollEvents::WRITE);
    }
}

/// What every socket has.
pub struct Base {
    /// `AF_*`.
    pub domain: u32,
    /// What its messages are.
    pub kind: Kind,
    /// `IPPROTO_*`, `NETLINK_*`.
    pub protocol: u32,
    /// The part that peers hold.
    pub endpoint: Arc<Endpoint>,
    /// What `setsockopt(2)` set.
    pub options: Mutex<Options>,
    /// The user who made it.
    pub owner: AtomicU32,
    /// The user namespace that its network belongs to, wherever those who use it live; the system calls that make sockets set it.
    pub administration: OnceLock<Arc<UserNamespace>>,
    /// Number of the inode that the descriptor shows.
    pub inode: AtomicU64,
    /// When the message came that was received last (`SIOCGSTAMP`).
    pub stamp: Mutex<Option<Timespec>>,
}

impl Base {
    /// A socket's common part with default options.
    pub fn new(domain: u32, kind: Kind, protocol: u32) -> Self {
        Self {
            domain,
            kind,
            protocol,
            endpoint: Arc::default(),
            options: Mutex::new(Options::new(domain, kind)),
            owner: AtomicU32::new(0),
            administration: OnceLock::new(),
            inode: AtomicU64::new(0),
            stamp: Mutex::new(None),
        }
    }
}

impl Base {
    /// Whether a task has a capability over the network that the socket is in, which need not be the task's.
    pub fn permits(&self, task: &Task, capability: u32) -> bool {
        self.administration.get().is_some_and(|administration| task.credentials().has_in(administration, capability))
    }

    /// Where `MSG_PEEK` looks: after so many bytes (`SO_PEEK_OFF`); none takes what is there.
    pub fn peeks_after(&self, flags: u32) -> Option<usize> {
        let offset = self.options.lock().number(options::SOL_SOCKET, raw_net::SO_PEEK_OFF as i32).unwrap_or(-1);
        (flags & message::MSG_PEEK != 0).then_some(usize::try_from(offset).unwrap_or(0))
    }

    /// Moves that place on by what was looked at, or back by what was taken.
    pub fn moves_peek(&self, flags: u32, length: usize) {
        let mut options = self.options.lock();
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        if let Some(offset) = options.number(options::SOL_SOCKET, raw_net::SO_PEEK_OFF as i32).filter(|offset| *offset >= 0) {
            let moved = if flags & message::MSG_PEEK != 0 { offset.saturating_add(length) } else { (offset - length).max(0) };
            options.set_number(options::SOL_SOCKET, raw_net::SO_PEEK_OFF as i32, moved);
        }
    }
}

/// `SIOCGSTAMP`, `SIOCGSTAMPNS`.
const LAST_STAMP: u32 = 0x8906;
const LAST_STAMP_FINE: u32 = 0x8907;

/// A connection that was accepted.
pub struct Accepted {
    /// This end.
    pub socket: Arc<dyn Socket>,
    /// The other end's address, which a connection that is over already could not tell any more.
    pub peer: Vec<u8>,
}

/// A socket. Addresses are the bytes of a `sockaddr`, the family first.
pub trait Socket: Any + Send + Sync {
    /// The common part.
    fn base(&self) -> &Base;

    /// What its bytes count as.
    fn traffic(&self) -> Traffic {
        match self.base().domain {
            raw_net::AF_INET | raw_net::AF_INET6 => Traffic::Loopback,
            _ => Traffic::Memory,
        }
    }

    /// For those who need the concrete type (the other end of `connect`).
    fn as_any(&self) -> &dyn Any;

    /// `bind(2)`.
    fn bind(&self, task: &Arc<Task>, address: &[u8]) -> Result<(), Errno>;

    /// `connect(2)`. `EAGAIN` asks the caller to come again after an announcement of room; `EINPROGRESS` to wait for
    /// [`finish_connect`](Self::finish_connect).
    fn connect(&self, task: &Arc<Task>, address: &[u8], nonblocking: bool) -> Result<(), Errno>;

    /// How a connection under way ended; `EAGAIN` as long as it has not.
    fn finish_connect(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// `listen(2)`.
    fn listen(&self, _task: &Arc<Task>, _backlog: i32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Takes a connection that waits.
    fn accept(&self) -> Result<Accepted, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sends what fits of a stream, or one message.
    fn send(&self, source: &mut Source<'_>, message: &mut Outgoing<'_>) -> Result<usize, Errno>;

    /// Receives what is there of a stream, or one message. `flags` are `MSG_*`.
    fn receive(&self, destination: &mut Destination<'_>, flags: u32) -> Result<Incoming, Errno>;

    /// `shutdown(2)`.
    fn shutdown(&self, how: Shutdown) -> Result<(), Errno>;

    /// `getsockname(2)`.
    fn local_address(&self) -> Result<Vec<u8>, Errno>;

    /// `getpeername(2)`.
    fn peer_address(&self) -> Result<Vec<u8>, Errno>;

    /// `setsockopt(2)`.
    fn set_option(&self, task: &Arc<Task>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        options::set(self.base(), task, level, name, value)
    }

    /// `getsockopt(2)`; `length` is what the caller has room for.
    fn option(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>, Errno> {
        options::get(self.base(), level, name, length)
    }

    /// Present readiness.
    fn poll(&self) -> PollEvents;

    /// Where changes of readiness are announced.
    fn queue(&self) -> &WaitQueue {
        &self.base().endpoint.queue
    }

    /// Somebody starts or stops to wait; see [`FileOps::watch`].
    fn watch(&self, _on: bool) {}

    /// `ioctl(2)` of this kind of socket.
    fn ioctl(&self, _task: &Arc<Task>, _request: u32, _argument: u64) -> Result<usize, Errno> {
        Err(Errno::ENOTTY)
    }

    /// The last descriptor is gone.
    fn close(&self);

    /// Shows the files in messages that wait to be received through this socket.
    fn visit_held(&self, _visit: &mut dyn FnMut(&Arc<File>)) {}

    /// Takes the messages that hold files out: nobody can ever receive them.
    fn discard_held(&self) -> Vec<rights::Rights> {
        Vec::new()
    }
}

/// A socket as an open file.
pub struct SocketFile {
    /// The socket.
    pub socket: Arc<dyn Socket>,
    in_flight: Arc<rights::InFlight>,
}

/// Opens a description of a socket; `flags` may hold `O_NONBLOCK`.
pub fn open(net: &Net, socket: Arc<dyn Socket>, flags: u32) -> Arc<File> {
    open_owned(net, socket, flags, (0, 0))
}

/// The same for a user and group.
pub fn open_owned(net: &Net, socket: Arc<dyn Socket>, flags: u32, (uid, gid): (u32, u32)) -> Arc<File> {
    let base = socket.base();
    base.owner.store(uid, Ordering::Relaxed);
    let inode = AnonymousInode::new("socket", FileType::Socket);
    let changes = SetAttributes { permissions: Some(0o777), uid: Some(uid), gid: Some(gid), ..SetAttributes::default() };
    // Inodes in memory always know and take these.
    let _ = inode.set_attributes(&changes);
    if let Ok(attributes) = inode.attributes() {
        base.inode.store(attributes.inode, Ordering::Relaxed);
    }
    let ops = SocketFile { socket, in_flight: Arc::clone(&net.in_flight) };
    File::new(Arc::new(ops), inode, None, raw::O_RDWR | flags & raw::O_NONBLOCK)
}

/// The socket behind a file; `ENOTSOCK` if there is none.
pub fn of_file(file: &File) -> Result<&Arc<dyn Socket>, Errno> {
    file.ops_as::<SocketFile>().map(|ops| &ops.socket).ok_or(Errno::ENOTSOCK)
}

impl FileOps for SocketFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn traffic(&self) -> Traffic {
        self.socket.traffic()
    }

    fn read(&self, file: &File, destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        // Files in the message are closed, as nobody asked for them.
        let flags = if file.nonblocking() { message::MSG_DONTWAIT } else { 0 };
        self.socket.receive(destination, flags).map(|message| message.count)
    }

    fn write(&self, _file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        let sender = source.task().map(Credentials::of_task).unwrap_or_default();
        self.socket.send(source, &mut Outgoing::plain(sender))
    }

    fn poll(&self, _file: &File) -> PollEvents {
        self.socket.poll()
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(self.socket.queue())
    }

    fn watch(&self, on: bool) {
        self.socket.watch(on);
    }

    fn signals_broken_pipe(&self) -> bool {
        self.socket.base().kind == Kind::Stream
    }

    fn timeout(&self, writing: bool) -> Option<u64> {
        let options = self.socket.base().options.lock();
        if writing { options.send_timeout } else { options.receive_timeout }
    }

    fn ioctl(&self, file: &File, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        match request {
            raw_ioctl::FIOSETOWN | raw_ioctl::SIOCSPGRP => file.set_owner(task, task.read(argument)?).map(|()| 0),
            raw_ioctl::FIOGETOWN | raw_ioctl::SIOCGPGRP => {
                task.write(argument, &task.shows_owner(file.owner.load(Ordering::Relaxed))).map(|()| 0)
            }
            LAST_STAMP | LAST_STAMP_FINE if options::is_internet(self.socket.base()) => {
                let time = self.socket.base().stamp.lock().ok_or(Errno::ENOENT)?;
                if request == LAST_STAMP_FINE {
                    return task.write(argument, &time).map(|()| 0);
                }
                task.write(argument, &Timeval { tv_sec: time.tv_sec, tv_usec: time.tv_nsec / 1000 }).map(|()| 0)
            }
            _ => self.socket.ioctl(task, request, argument),
        }
    }

    fn release(&self, _file: &File) {
        self.socket.close();
        self.in_flight.socket_closed();
    }
}
