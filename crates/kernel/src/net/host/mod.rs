//! Sockets of the internet's families on the host's own stack, for sandboxes that may use it: the kernel process makes them and forwards calls.
//!
//! Nothing of the guest reaches the host unseen: families and types are ours to choose, addresses have a family of the internet, options
//! come from a list, and all host sockets are non-blocking. The guest waits on our queues, as for everything else.

mod calls;
mod options;

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw_ioctl, raw_net};
use parking_lot::Mutex;

use super::message::{Incoming, MSG_ERRQUEUE, MSG_FASTOPEN, MSG_OOB, MSG_PEEK, MSG_TRUNC, Outgoing};
use super::options::{get, set};
use super::{Accepted, Base, Kind, Shutdown, Socket, inet, interface};
use crate::host::HostDescriptor;
use crate::io::{Destination, Source};
use crate::task::Task;
use crate::vfs::file::Traffic;
use crate::wait::{PollEvents, WaitQueue};

/// Most bytes that one send moves: what lies in a mapped host file is copied first.
const LARGEST_STEP: usize = 1 << 20;
/// Longest datagram.
const LONGEST: usize = 65_535;
/// Most pieces of memory in one host call, the host's `UIO_MAXIOV`.
const MAX_PIECES: usize = 1024;

/// What a guest may ask of a send: urgent data, no routing, end of record, more to come, confirmation.
const SEND_FLAGS: u32 = MSG_OOB | 0x4 | 0x80 | 0x8000 | 0x800;
/// What it may ask of a receive.
const RECEIVE_FLAGS: u32 = MSG_OOB | MSG_PEEK | MSG_TRUNC | MSG_ERRQUEUE;

/// A host socket.
pub struct HostSocket {
    base: Base,
    descriptor: Arc<HostDescriptor>,
    /// Where a connection that is under way leads.
    connecting: Mutex<Vec<u8>>,
}

/// Makes a socket for `socket(2)`.
pub fn socket(domain: u32, kind: u32, protocol: u32) -> Result<Arc<dyn Socket>, Errno> {
    let (kind, protocol) = inet::choose(domain, kind, protocol)?;
    let fd = calls::socket(domain, kind as u32, protocol)?;
    Ok(HostSocket::new(Base::new(domain, kind, protocol), fd))
}

/// The addresses that the host would send from, at most one of each family. Found by connecting datagram sockets, which sends nothing.
pub fn own_addresses() -> Vec<IpAddr> {
    // Addresses set aside for documentation: routed like any other, and nobody's.
    let far = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
    far.into_iter().filter_map(|ip| source_towards(SocketAddr::new(ip, 9))).collect()
}

fn source_towards(to: SocketAddr) -> Option<IpAddr> {
    let domain = if to.is_ipv4() { raw_net::AF_INET } else { raw_net::AF_INET6 };
    let fd = calls::socket(domain, Kind::Datagram as u32, 0).ok()?;
    calls::connect(&fd, &inet::address::encode(domain, to)).ok()?;
    let name = calls::name(&fd, false).ok()?;
    match inet::address::decode(domain, &name).ok()? {
        inet::address::Given::Address(address) if !address.ip().is_unspecified() => Some(address.ip()),
        _ => None,
    }
}

impl HostSocket {
    fn new(base: Base, fd: OwnedFd) -> Arc<Self> {
        Arc::new(Self { base, descriptor: HostDescriptor::new(fd), connecting: Mutex::default() })
    }

    /// An address as it may go to the host: of one of the internet's families, or the request to end an association.
    fn check_address(&self, address: &[u8]) -> Result<(), Errno> {
        match inet::address::family(address)? {
            raw_net::AF_UNSPEC | raw_net::AF_INET | raw_net::AF_INET6 => Ok(()),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }
}

impl Socket for HostSocket {
    fn traffic(&self) -> Traffic {
        Traffic::Network
    }

    fn base(&self) -> &Base {
        &self.base
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, _task: &Arc<Task>, address: &[u8]) -> Result<(), Errno> {
        self.check_address(address)?;
        calls::bind(self.descriptor.fd(), address)
    }

    fn connect(&self, _task: &Arc<Task>, address: &[u8], nonblocking: bool) -> Result<(), Errno> {
        self.check_address(address)?;
        match calls::connect(self.descriptor.fd(), address) {
            Err(Errno::EINPROGRESS) => {
                *self.connecting.lock() = address.to_vec();
                Err(Errno::EINPROGRESS)
            }
            // A call that a signal interrupted goes on to wait.
            Err(Errno::EALREADY) if !nonblocking => Err(Errno::EINPROGRESS),
            result => result,
        }
    }

    fn finish_connect(&self) -> Result<(), Errno> {
        if !self.descriptor.poll().intersects(PollEvents::OUT | PollEvents::ERR | PollEvents::HUP) {
            return Err(Errno::EAGAIN);
        }
        // The second call tells the outcome, and the host learns that somebody waited for it.
        match calls::connect(self.descriptor.fd(), &self.connecting.lock()) {
            Err(Errno::EALREADY | Errno::EINPROGRESS) => Err(Errno::EAGAIN),
            Err(Errno::EISCONN) => Ok(()),
            result => result,
        }
    }

    fn listen(&self, _task: &Arc<Task>, backlog: i32) -> Result<(), Errno> {
        calls::listen(self.descriptor.fd(), backlog)
    }

    fn accept(&self) -> Result<Accepted, Errno> {
        let (fd, peer) = calls::accept(self.descriptor.fd())?;
        let base = Base::new(self.base.domain, self.base.kind, self.base.protocol);
        base.options.lock().clone_from(&self.base.options.lock());
        Ok(Accepted { socket: Self::new(base, fd), peer })
    }

    fn send(&self, source: &mut Source<'_>, message: &mut Outgoing<'_>) -> Result<usize, Errno> {
        if message.flags & MSG_FASTOPEN != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if let Some(address) = message.address {
            self.check_address(address)?;
        }
        let (fd, flags) = (self.descriptor.fd(), message.flags & SEND_FLAGS);
        let length = source.remaining();
        if self.base.kind == Kind::Stream && length > 0 {
            return source.with_slices(length.min(LARGEST_STEP), |slices| {
                calls::send(fd, &slices[..slices.len().min(MAX_PIECES)], message.address, flags)
            });
        }
        if length > LONGEST {
            return Err(Errno::EMSGSIZE);
        }
        let mut bytes = vec![0; length];
        if source.peek(&mut bytes)? < length {
            return Err(Errno::EFAULT);
        }
        let count = calls::send(fd, &[std::io::IoSlice::new(&bytes)], message.address, flags)?;
        source.limit(0);
        Ok(count)
    }

    fn receive(&self, destination: &mut Destination<'_>, flags: u32) -> Result<Incoming, Errno> {
        let (fd, flags) = (self.descriptor.fd(), flags & RECEIVE_FLAGS);
        let room = destination.remaining();
        if self.base.kind == Kind::Stream && flags & MSG_ERRQUEUE == 0 && room > 0 {
            let mut discarded = None;
            let count = destination.with_slices(room, |slices| {
                let pieces = slices.len().min(MAX_PIECES);
                let count = calls::receive(fd, &mut slices[..pieces], flags)?.count;
                if flags & MSG_TRUNC != 0 {
                    discarded = Some(count);
                    return Ok(0);
                }
                Ok(count)
            })?;
            return Ok(Incoming::bytes(discarded.unwrap_or(count)));
        }
        let mut bytes = vec![0; room.min(LONGEST)];
        let received = calls::receive(fd, &mut [std::io::IoSliceMut::new(&mut bytes)], flags | MSG_TRUNC)?;
        let count = destination.put(&bytes[..received.count.min(bytes.len())])?;
        let cut = if received.count > count { MSG_TRUNC } else { 0 };
        Ok(Incoming {
            count,
            length: received.count,
            address: received.address,
            controls: received.controls,
            flags: cut | received.flags & MSG_ERRQUEUE,
            ..Incoming::default()
        })
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        calls::shutdown(self.descriptor.fd(), how)
    }

    fn local_address(&self) -> Result<Vec<u8>, Errno> {
        calls::name(self.descriptor.fd(), false)
    }

    fn peer_address(&self) -> Result<Vec<u8>, Errno> {
        calls::name(self.descriptor.fd(), true)
    }

    fn set_option(&self, task: &Arc<Task>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        match options::settable(&self.base, level, name, value)? {
            options::Where::Host(name) => calls::set_option(self.descriptor.fd(), level, name, value),
            options::Where::Here => set(&self.base, task, level, name, value),
        }
    }

    fn option(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>, Errno> {
        match options::gettable(level, name)? {
            options::Where::Host(name) => calls::option(self.descriptor.fd(), level, name, length),
            options::Where::Here => get(&self.base, level, name, length),
        }
    }

    fn poll(&self) -> PollEvents {
        self.descriptor.poll()
    }

    fn queue(&self) -> &WaitQueue {
        self.descriptor.queue()
    }

    fn watch(&self, on: bool) {
        self.descriptor.watch(on);
    }

    fn ioctl(&self, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        let length = match request {
            raw_ioctl::FIONREAD | raw_ioctl::TIOCOUTQ => calls::queued(self.descriptor.fd(), request)?,
            _ => return interface::ioctl(task, request, argument),
        };
        task.write(argument, &length).map(|()| 0)
    }

    fn close(&self) {
        // The host's socket goes with this object.
    }
}
