//! Streams and packets over a connection (`SOCK_STREAM`, `SOCK_SEQPACKET`).

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use cloudpilot_abi::{Errno, raw_ioctl, raw_net};
use parking_lot::Mutex;

use super::address::Address;
use super::names::{Bound, Name, Names, Naming};
use super::{FAMILY, IN, OUT};
use crate::io::{Destination, Source};
use crate::net::channel::Channel;
use crate::net::message::{Identity, Incoming, MSG_OOB, MSG_PEEK, MSG_TRUNC, Outgoing};
use crate::net::options::{self, SOL_SOCKET};
use crate::net::rights::Rights;
use crate::net::{Accepted, Base, Endpoint, Kind, Shutdown, Socket, interface};
use crate::task::Task;
use crate::vfs::file::File;
use crate::wait::PollEvents;

/// Most connections that wait to be accepted, Linux's `somaxconn`.
pub const MAX_BACKLOG: usize = 4096;

/// Connections that wait to be accepted, and who waits to become one.
struct Listener {
    backlog: usize,
    owner: Identity,
    ready: VecDeque<Arc<StreamSocket>>,
    waiting: Vec<Weak<Endpoint>>,
    /// `shutdown(SHUT_RD)`.
    stopped: bool,
}

impl Listener {
    /// Notes who wants to hear of room. Of too many, the rest tries in vain until the next connection is accepted.
    fn remember(&mut self, connecting: &Arc<Endpoint>) {
        let connecting = Arc::downgrade(connecting);
        if self.waiting.len() >= MAX_BACKLOG {
            self.waiting.retain(|waiting| waiting.strong_count() > 0);
        }
        if self.waiting.len() < MAX_BACKLOG && !self.waiting.iter().any(|waiting| waiting.ptr_eq(&connecting)) {
            self.waiting.push(connecting);
        }
    }
}

/// A connected socket's half.
struct Connection {
    incoming: Arc<Channel>,
    outgoing: Arc<Channel>,
    peer_name: Name,
    peer: Identity,
}

enum State {
    Idle,
    Listening(Listener),
    Connected(Connection),
    Closed,
}

/// A stream or packet socket.
pub struct StreamSocket {
    base: Base,
    naming: Naming,
    state: Mutex<State>,
    this: Weak<Self>,
}

/// Connects two fresh sockets; the credentials are those of the first's and the second's maker.
pub fn join(one: &StreamSocket, other: &StreamSocket, first: &Identity, second: &Identity) {
    let (state, other_state) = connected(one, other, first, second);
    *one.state.lock() = state;
    *other.state.lock() = other_state;
}

fn connected(one: &StreamSocket, other: &StreamSocket, first: &Identity, second: &Identity) -> (State, State) {
    let packets = one.base.kind == Kind::SeqPacket;
    let capacity = |socket: &StreamSocket| socket.base.options.lock().send_buffer as usize;
    let there = Channel::new(&other.base.endpoint, &one.base.endpoint, packets, capacity(one));
    let back = Channel::new(&one.base.endpoint, &other.base.endpoint, packets, capacity(other));
    let connection = |incoming: &Arc<Channel>, outgoing: &Arc<Channel>, peer: &StreamSocket, identity: &Identity| {
        let (incoming, outgoing) = (Arc::clone(incoming), Arc::clone(outgoing));
        State::Connected(Connection { incoming, outgoing, peer_name: peer.naming.name.clone(), peer: identity.clone() })
    };
    (connection(&back, &there, other, second), connection(&there, &back, one, first))
}

impl StreamSocket {
    /// An unconnected socket.
    pub fn new(names: &Arc<Names>, kind: Kind) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            base: Base::new(FAMILY, kind, 0),
            naming: Naming::new(names),
            state: Mutex::new(State::Idle),
            this: this.clone(),
        })
    }

    /// The name it was bound to.
    pub fn address(&self) -> Address {
        self.naming.name.address()
    }

    fn bound(&self) -> Bound {
        Bound::Stream(self.base.kind, self.this.clone())
    }

    /// Whether it waits for connections.
    pub fn listens(&self) -> bool {
        matches!(*self.state.lock(), State::Listening(_))
    }

    /// Binds without a task: everything but paths.
    pub fn bind_to(&self, task: Option<&Arc<Task>>, address: Address) -> Result<(), Errno> {
        self.naming.bind(task, address, self.bound())
    }

    /// `listen(2)`.
    pub fn listen_as(&self, backlog: i32, owner: Identity) -> Result<(), Errno> {
        if self.address() == Address::Unnamed {
            return Err(Errno::EINVAL);
        }
        // Linux lets one more wait than the backlog says; negative ones are as large as can be.
        let backlog = usize::try_from(backlog).unwrap_or(MAX_BACKLOG).min(MAX_BACKLOG) + 1;
        let mut state = self.state.lock();
        match &mut *state {
            State::Idle => {
                *state = State::Listening(Listener { backlog, owner, ready: VecDeque::new(), waiting: Vec::new(), stopped: false })
            }
            State::Listening(listener) => {
                listener.backlog = backlog;
                listener.waiting.drain(..).filter_map(|waiting| waiting.upgrade()).for_each(|waiting| waiting.writable());
            }
            State::Connected(_) | State::Closed => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// `connect(2)`.
    pub fn connect_as(&self, task: Option<&Arc<Task>>, address: &Address, owner: Identity) -> Result<(), Errno> {
        if self.base.options.lock().has(raw_net::SO_PASSCRED) {
            self.naming.bind_if_unnamed(self.bound())?;
        }
        let listener = match self.naming.names().find(task, address, self.base.kind)? {
            Bound::Stream(_, socket) => socket.upgrade().ok_or(Errno::ECONNREFUSED)?,
            Bound::Datagram(_) => return Err(Errno::EPROTOTYPE),
        };
        if listener.base.kind != self.base.kind {
            return Err(Errno::EPROTOTYPE);
        }
        // Its own state comes after the other's, so that who is connected hears first that there is nobody.
        if !listener.listens() {
            return Err(Errno::ECONNREFUSED);
        }
        if std::ptr::eq(&raw const *listener, self) {
            return Err(Errno::EINVAL);
        }
        // Two states are locked below; two sockets that connect to each other must not wait for each other.
        let connecting = self.naming.names().connecting.lock();
        let mut own = self.state.lock();
        match *own {
            State::Idle => {}
            State::Connected(_) => return Err(Errno::EISCONN),
            State::Listening(_) | State::Closed => return Err(Errno::EINVAL),
        }
        let mut state = listener.state.lock();
        let State::Listening(queue) = &mut *state else { return Err(Errno::ECONNREFUSED) };
        if queue.stopped {
            return Err(Errno::ECONNREFUSED);
        }
        if queue.ready.len() >= queue.backlog {
            queue.remember(&self.base.endpoint);
            return Err(Errno::EAGAIN);
        }
        let accepted = Arc::new_cyclic(|this| Self {
            base: Base::new(FAMILY, self.base.kind, 0),
            naming: Naming::sharing(&listener.naming),
            state: Mutex::new(State::Idle),
            this: this.clone(),
        });
        accepted.base.options.lock().clone_from(&listener.base.options.lock());
        let (mut client, server) = connected(self, &accepted, &owner, &queue.owner);
        if let State::Connected(connection) = &mut client {
            connection.peer_name = listener.naming.name.clone();
        }
        *own = client;
        *accepted.state.lock() = server;
        queue.ready.push_back(accepted);
        drop((state, own, connecting));
        listener.base.endpoint.readable();
        self.base.endpoint.writable();
        Ok(())
    }

    fn channels(&self) -> Option<(Arc<Channel>, Arc<Channel>)> {
        match &*self.state.lock() {
            State::Connected(connection) => Some((Arc::clone(&connection.incoming), Arc::clone(&connection.outgoing))),
            _ => None,
        }
    }
}

impl Socket for StreamSocket {
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
        self.connect_as(Some(task), &Address::decode(address)?, Identity::of_task(task))
    }

    fn listen(&self, task: &Arc<Task>, backlog: i32) -> Result<(), Errno> {
        self.listen_as(backlog, Identity::of_task(task))
    }

    fn accept(&self) -> Result<Accepted, Errno> {
        let mut state = self.state.lock();
        let State::Listening(listener) = &mut *state else { return Err(Errno::EINVAL) };
        let Some(accepted) = listener.ready.pop_front() else {
            return Err(if listener.stopped { Errno::EINVAL } else { Errno::EAGAIN });
        };
        let waiting = std::mem::take(&mut listener.waiting);
        drop(state);
        waiting.iter().filter_map(Weak::upgrade).for_each(|waiting| waiting.writable());
        let peer = accepted.peer_address()?;
        Ok(Accepted { socket: accepted, peer })
    }

    fn send(&self, source: &mut Source<'_>, message: &mut Outgoing<'_>) -> Result<usize, Errno> {
        let urgent = message.flags & MSG_OOB != 0;
        if urgent && (self.base.kind != Kind::Stream || source.remaining() == 0) {
            return Err(Errno::EOPNOTSUPP);
        }
        let addressed = message.address.is_some() && self.base.kind == Kind::Stream;
        let Some((_, outgoing)) = self.channels() else {
            return Err(if addressed { Errno::EOPNOTSUPP } else { Errno::ENOTCONN });
        };
        if addressed {
            return Err(Errno::EISCONN);
        }
        if self.base.kind == Kind::SeqPacket
            && let Some(errno) = self.base.endpoint.take_error()
        {
            return Err(errno);
        }
        if urgent {
            return outgoing.write_urgent(source, message.sender, &mut message.rights);
        }
        outgoing.write(source, message.sender, &mut message.rights)
    }

    fn receive(&self, destination: &mut Destination<'_>, flags: u32) -> Result<Incoming, Errno> {
        let packets = self.base.kind == Kind::SeqPacket;
        if flags & MSG_OOB != 0 && packets {
            return Err(Errno::EOPNOTSUPP);
        }
        let Some((incoming, _)) = self.channels() else {
            return Err(if packets { Errno::ENOTCONN } else { Errno::EINVAL });
        };
        if flags & MSG_OOB != 0 {
            let count = incoming.read_urgent(destination, flags & MSG_PEEK != 0)?;
            return Ok(Incoming { flags: MSG_OOB, ..Incoming::bytes(count) });
        }
        let (wants_credentials, wants_process) = {
            let options = self.base.options.lock();
            (options.has(raw_net::SO_PASSCRED), options.has(raw_net::SO_PASSPIDFD))
        };
        let taken = incoming.read(destination, self.base.peeks_after(flags), wants_credentials || wants_process)?;
        self.base.moves_peek(flags, if flags & MSG_PEEK == 0 { taken.length } else { taken.count });
        let mut message = Incoming::bytes(taken.count);
        message.length = taken.length;
        message.files = taken.files;
        message.credentials = taken.sender.filter(|_| wants_credentials);
        message.process = taken.sender.filter(|_| wants_process).map(|sender| sender.pid);
        if packets && taken.sender.is_some() {
            message.flags = if taken.length > taken.count { MSG_TRUNC } else { 0 };
        }
        Ok(message)
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        if let State::Listening(listener) = &mut *self.state.lock() {
            listener.stopped |= how.read;
            self.base.endpoint.hung_up();
            return Ok(());
        }
        // Linux lets a socket that is not connected be shut down, to no effect.
        let Some((incoming, outgoing)) = self.channels() else { return Ok(()) };
        if how.read {
            incoming.refuse();
        }
        if how.write {
            outgoing.finish();
        }
        Ok(())
    }

    fn local_address(&self) -> Result<Vec<u8>, Errno> {
        Ok(self.address().encode())
    }

    fn peer_address(&self) -> Result<Vec<u8>, Errno> {
        match &*self.state.lock() {
            State::Connected(connection) => Ok(connection.peer_name.address().encode()),
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn set_option(&self, task: &Arc<Task>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        options::set(&self.base, task, level, name, value)?;
        if (level, name as u32) == (SOL_SOCKET, raw_net::SO_OOBINLINE)
            && let Some((incoming, _)) = self.channels()
        {
            incoming.set_inline(self.base.options.lock().has(raw_net::SO_OOBINLINE));
        }
        if level == SOL_SOCKET
            && matches!(name as u32, raw_net::SO_SNDBUF | raw_net::SO_SNDBUFFORCE)
            && let Some((_, outgoing)) = self.channels()
        {
            outgoing.set_capacity(self.base.options.lock().send_buffer as usize);
        }
        Ok(())
    }

    fn option(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>, Errno> {
        if level == SOL_SOCKET {
            let state = self.state.lock();
            match (name as u32, &*state) {
                (raw_net::SO_ACCEPTCONN, state) => return Ok(i32::from(matches!(state, State::Listening(_))).to_ne_bytes().to_vec()),
                (_, State::Connected(Connection { peer: identity, .. }) | State::Listening(Listener { owner: identity, .. })) => {
                    if let Some(result) = identity.option(level, name) {
                        return result;
                    }
                }
                _ => {}
            }
        }
        options::get(&self.base, level, name, length)
    }

    fn poll(&self) -> PollEvents {
        let error = if self.base.endpoint.has_error() { PollEvents::ERR } else { PollEvents::empty() };
        let (incoming, outgoing) = match &*self.state.lock() {
            State::Idle => return OUT | PollEvents::HUP | error,
            State::Closed => return PollEvents::HUP | error,
            State::Listening(listener) => {
                let ended = if listener.stopped { IN | PollEvents::RDHUP } else { PollEvents::empty() };
                return if listener.ready.is_empty() { ended } else { IN };
            }
            State::Connected(connection) => (Arc::clone(&connection.incoming), Arc::clone(&connection.outgoing)),
        };
        let (incoming, outgoing) = (incoming.status(false), outgoing.status(true));
        let reads_end = incoming.writer_done || incoming.reader_done;
        let writes_end = outgoing.writer_done || outgoing.reader_done;
        let mut events = error;
        if incoming.urgent {
            events |= PollEvents::PRI;
        }
        if incoming.readable || reads_end {
            events |= IN;
        }
        if reads_end {
            events |= PollEvents::RDHUP;
        }
        if reads_end && writes_end {
            events |= PollEvents::HUP;
        }
        if outgoing.room || writes_end {
            events |= OUT;
        }
        events
    }

    fn ioctl(&self, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        let length = match (request, self.channels()) {
            (raw_ioctl::SIOCATMARK, channels) if self.base.kind == Kind::Stream => {
                usize::from(channels.is_some_and(|(incoming, _)| incoming.at_mark()))
            }
            (raw_ioctl::FIONREAD, Some((incoming, _))) => incoming.length(),
            (raw_ioctl::TIOCOUTQ, Some((_, outgoing))) => outgoing.status(false).bytes,
            (raw_ioctl::FIONREAD | raw_ioctl::TIOCOUTQ, None) => return Err(Errno::EINVAL),
            _ => return interface::ioctl(task, request, argument),
        };
        task.write(argument, &(length as i32)).map(|()| 0)
    }

    fn close(&self) {
        self.naming.release();
        let state = std::mem::replace(&mut *self.state.lock(), State::Closed);
        match state {
            State::Idle | State::Closed => {}
            State::Listening(listener) => {
                // Those who connected but were never accepted find that out.
                listener.ready.iter().for_each(|socket| socket.hang_up(true));
                listener.waiting.iter().filter_map(Weak::upgrade).for_each(|waiting| waiting.writable());
            }
            State::Connected(connection) => end(&connection, false, &self.base.endpoint),
        }
    }

    fn visit_held(&self, visit: &mut dyn FnMut(&Arc<File>)) {
        let waiting: Vec<Arc<Self>> = match &*self.state.lock() {
            State::Connected(connection) => return connection.incoming.visit_held(visit),
            State::Listening(listener) => listener.ready.iter().cloned().collect(),
            State::Idle | State::Closed => return,
        };
        waiting.iter().for_each(|socket| socket.visit_held(visit));
    }

    fn discard_held(&self) -> Vec<Rights> {
        let waiting: Vec<Arc<Self>> = match &*self.state.lock() {
            State::Connected(connection) => return connection.incoming.discard_held(),
            State::Listening(listener) => listener.ready.iter().cloned().collect(),
            State::Idle | State::Closed => return Vec::new(),
        };
        waiting.iter().flat_map(|socket| socket.discard_held()).collect()
    }
}

/// One end of a connection is gone: the other reads what is left, then the end; if what it sent was not read, an error first.
fn end(connection: &Connection, reset: bool, own: &Endpoint) {
    if connection.incoming.abandon() || reset {
        connection.outgoing.reset_reader(Errno::ECONNRESET);
    }
    connection.outgoing.finish();
    own.hung_up();
}

impl StreamSocket {
    fn hang_up(&self, reset: bool) {
        let state = std::mem::replace(&mut *self.state.lock(), State::Closed);
        if let State::Connected(connection) = state {
            end(&connection, reset, &self.base.endpoint);
        }
    }
}

impl Drop for StreamSocket {
    fn drop(&mut self) {
        // Only sockets that never became files are not closed yet.
        self.hang_up(true);
    }
}
