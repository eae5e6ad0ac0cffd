//! Datagrams between unix sockets (`SOCK_DGRAM`).

use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};

use cloudpilot_abi::{Errno, raw_net};
use parking_lot::Mutex;

use super::address::Address;
use super::names::{Bound, Names, Naming};
use super::{FAMILY, IN, OUT};
use crate::io::{Destination, Source};
use crate::net::inbox::{Datagram, Inbox};
use crate::net::message::{Identity, Incoming, MSG_DONTWAIT, MSG_OOB, MSG_PEEK, MSG_TRUNC, Outgoing};
use crate::net::options;
use crate::net::rights::Rights;
use crate::net::{Base, Kind, Shutdown, Socket, interface};
use crate::task::Task;
use crate::vfs::file::File;
use crate::wait::PollEvents;

#[derive(Default)]
struct State {
    peer: Option<Weak<DatagramSocket>>,
    reads_ended: bool,
    writes_ended: bool,
    closed: bool,
}

/// A datagram socket.
pub struct DatagramSocket {
    base: Base,
    naming: Naming,
    state: Mutex<State>,
    inbox: Inbox<Address>,
    /// Who made the pair that it is part of.
    partner: OnceLock<Identity>,
    this: Weak<Self>,
}

/// Connects two fresh sockets with each other.
pub fn join(one: &Arc<DatagramSocket>, other: &Arc<DatagramSocket>, maker: &Identity) {
    // Fresh sockets have no partner yet.
    let _ = one.partner.set(maker.clone());
    let _ = other.partner.set(maker.clone());
    one.state.lock().peer = Some(Arc::downgrade(other));
    other.state.lock().peer = Some(Arc::downgrade(one));
}

impl DatagramSocket {
    /// A socket without a name or peer.
    pub fn new(names: &Arc<Names>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            base: Base::new(FAMILY, Kind::Datagram, 0),
            naming: Naming::new(names),
            state: Mutex::default(),
            inbox: Inbox::default(),
            partner: OnceLock::new(),
            this: this.clone(),
        })
    }

    /// The name it was bound to.
    pub fn address(&self) -> Address {
        self.naming.name.address()
    }

    /// Binds; paths need the task.
    pub fn bind_to(&self, task: Option<&Arc<Task>>, address: Address) -> Result<(), Errno> {
        self.naming.bind(task, address, Bound::Datagram(self.this.clone()))
    }

    /// `connect(2)`: from now on messages come from and go to one socket.
    pub fn connect_as(&self, task: Option<&Arc<Task>>, address: &Address) -> Result<(), Errno> {
        let peer = self.find(task, address)?;
        if self.base.options.lock().has(raw_net::SO_PASSCRED) {
            self.naming.bind_if_unnamed(Bound::Datagram(self.this.clone()))?;
        }
        self.set_peer(Some(Arc::downgrade(&peer)));
        self.base.endpoint.writable();
        Ok(())
    }

    /// Changes the peer. One that was connected with this socket learns that it no longer is; what it sent is lost.
    fn set_peer(&self, peer: Option<Weak<Self>>) {
        let old = std::mem::replace(&mut self.state.lock().peer, peer.clone());
        let Some(old) = old else { return };
        if peer.is_some_and(|peer| peer.ptr_eq(&old)) {
            return;
        }
        self.inbox.clear();
        if let Some(old) = old.upgrade()
            && old.peer().is_some_and(|back| std::ptr::eq(back.as_ptr(), self))
        {
            old.base.endpoint.set_error(Errno::ECONNRESET);
        }
    }

    /// The socket at an address, if it takes messages from this one.
    fn find(&self, task: Option<&Arc<Task>>, address: &Address) -> Result<Arc<Self>, Errno> {
        let Bound::Datagram(socket) = self.naming.names().find(task, address, Kind::Datagram)? else { return Err(Errno::EPROTOTYPE) };
        let socket = socket.upgrade().ok_or(Errno::ECONNREFUSED)?;
        if socket.takes_from(self) { Ok(socket) } else { Err(Errno::EPERM) }
    }

    fn takes_from(&self, sender: &Self) -> bool {
        self.state.lock().peer.as_ref().is_none_or(|peer| std::ptr::eq(peer.as_ptr(), sender))
    }

    fn capacity(&self) -> usize {
        self.base.options.lock().receive_buffer as usize
    }

    fn peer(&self) -> Option<Weak<Self>> {
        self.state.lock().peer.clone()
    }
}

impl Socket for DatagramSocket {
    fn base(&self) -> &Base {
        &self.base
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, task: &Arc<Task>, address: &[u8]) -> Result<(), Errno> {
        self.bind_to(Some(task), Address::decode(address)?)
    }

    fn connect(&self, task: &Arc<Task>, address: &[u8], _nonblocking: bool) -> Result<(), Errno> {
        if address.get(..2) == Some(&(raw_net::AF_UNSPEC as u16).to_ne_bytes()) {
            self.set_peer(None);
            return Ok(());
        }
        self.connect_as(Some(task), &Address::decode(address)?)
    }

    fn send(&self, source: &mut Source<'_>, message: &mut Outgoing<'_>) -> Result<usize, Errno> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if let Some(errno) = self.base.endpoint.take_error() {
            return Err(errno);
        }
        if self.state.lock().writes_ended {
            return Err(Errno::EPIPE);
        }
        if source.remaining() > self.base.options.lock().send_buffer as usize {
            return Err(Errno::EMSGSIZE);
        }
        let receiver = match message.address {
            Some(address) => self.find(message.task, &Address::decode(address)?)?,
            None => {
                let peer = self.peer().ok_or(Errno::ENOTCONN)?;
                let Some(peer) = peer.upgrade().filter(|peer| !peer.state.lock().closed) else {
                    self.state.lock().peer = None;
                    return Err(Errno::ECONNREFUSED);
                };
                peer
            }
        };
        if !receiver.takes_from(self) {
            return Err(Errno::EPERM);
        }
        if receiver.state.lock().reads_ended {
            return Err(Errno::EPIPE);
        }
        if self.base.options.lock().has(raw_net::SO_PASSCRED) {
            self.naming.bind_if_unnamed(Bound::Datagram(self.this.clone()))?;
        }
        let (about, sender, rights) = (self.address(), message.sender, &mut message.rights);
        let make = |bytes| Datagram { bytes, about, sender, time: crate::time::realtime(), rights: rights.take() };
        let count = receiver.inbox.put(source, receiver.capacity(), &self.base.endpoint, make)?;
        receiver.base.endpoint.readable();
        Ok(count)
    }

    fn receive(&self, destination: &mut Destination<'_>, flags: u32) -> Result<Incoming, Errno> {
        if flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let received = match self.inbox.take(destination, self.base.peeks_after(flags)) {
            Err(Errno::EAGAIN) => {
                return match self.base.endpoint.take_error() {
                    Some(errno) => Err(errno),
                    None if flags & MSG_DONTWAIT == 0 && self.state.lock().reads_ended => Ok(Incoming::default()),
                    None => Err(Errno::EAGAIN),
                };
            }
            received => received?,
        };
        self.base.moves_peek(flags, if flags & MSG_PEEK == 0 { received.length } else { received.count });
        let options = self.base.options.lock();
        Ok(Incoming {
            count: received.count,
            length: received.length,
            address: (received.about != Address::Unnamed).then(|| received.about.encode()),
            files: received.files,
            credentials: options.has(raw_net::SO_PASSCRED).then_some(received.sender),
            process: options.has(raw_net::SO_PASSPIDFD).then_some(received.sender.pid),
            controls: options.timestamps(received.time),
            flags: if received.length > received.count { MSG_TRUNC } else { 0 },
        })
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        {
            let mut state = self.state.lock();
            if state.peer.is_none() {
                return Err(Errno::ENOTCONN);
            }
            state.reads_ended |= how.read;
            state.writes_ended |= how.write;
        }
        self.base.endpoint.hung_up();
        Ok(())
    }

    fn local_address(&self) -> Result<Vec<u8>, Errno> {
        Ok(self.address().encode())
    }

    fn peer_address(&self) -> Result<Vec<u8>, Errno> {
        let peer = self.peer().ok_or(Errno::ENOTCONN)?;
        peer.upgrade().map(|peer| peer.address().encode()).ok_or(Errno::ENOTCONN)
    }

    fn option(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>, Errno> {
        match self.partner.get().and_then(|partner| partner.option(level, name)) {
            Some(result) => result,
            None => options::get(&self.base, level, name, length),
        }
    }

    fn poll(&self) -> PollEvents {
        let mut events = PollEvents::empty();
        if self.base.endpoint.has_error() {
            events |= PollEvents::ERR;
        }
        let (peer, reads_ended, writes_ended) = {
            let state = self.state.lock();
            (state.peer.clone(), state.reads_ended, state.writes_ended)
        };
        if !self.inbox.is_empty() || reads_ended {
            events |= IN;
        }
        if reads_ended {
            events |= PollEvents::RDHUP;
        }
        if reads_ended && writes_ended {
            events |= PollEvents::HUP;
        }
        let peer = peer.as_ref().and_then(Weak::upgrade);
        if peer.is_none_or(|peer| peer.inbox.room_for(&self.base.endpoint, peer.capacity())) {
            events |= OUT;
        }
        events
    }

    fn ioctl(&self, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        interface::datagram_ioctl(task, request, argument, || self.inbox.next_length())
    }

    fn close(&self) {
        self.naming.release();
        let peer = {
            let mut state = self.state.lock();
            state.closed = true;
            state.peer.take()
        };
        self.inbox.close();
        if let Some(peer) = peer.as_ref().and_then(Weak::upgrade) {
            peer.base.endpoint.hung_up();
        }
    }

    fn visit_held(&self, visit: &mut dyn FnMut(&Arc<File>)) {
        self.inbox.visit_held(visit);
    }

    fn discard_held(&self) -> Vec<Rights> {
        self.inbox.discard_held()
    }
}
