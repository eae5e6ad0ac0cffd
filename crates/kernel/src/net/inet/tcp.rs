//! TCP within the sandbox: a connection is two [`Channel`]s.

use std::any::Any;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use cloudpilot_abi::{Errno, raw_ioctl, raw_net};
use parking_lot::Mutex;

use super::address::{self, Given};
use super::ports::{Claim, Lease};
use super::tcp_info::{self, TcpState};
use super::{Inet, TCP};
use crate::io::{Destination, Source};
use crate::net::channel::Channel;
use crate::net::message::{Credentials, Incoming, MSG_ERRQUEUE, MSG_FASTOPEN, MSG_OOB, MSG_PEEK, MSG_TRUNC, Outgoing};
use crate::net::options::{self, LEVEL_TCP, SOL_SOCKET};
use crate::net::{Accepted, Base, Kind, Shutdown, Socket, interface};
use crate::task::Task;
use crate::wait::PollEvents;

/// Most connections that wait to be accepted, Linux's `somaxconn`.
const MAX_BACKLOG: usize = 4096;
const TCP_INFO: i32 = 11;
const TCP_CONGESTION: i32 = 13;
const TCP_LINGER2: i32 = 8;
const TCP_DEFER_ACCEPT: i32 = 9;
/// How congestion could be controlled, were there any; the first is the default.
const CONGESTION: [&str; 2] = ["cubic", "reno"];
/// `TCP_CA_NAME_MAX`.
const CONGESTION_NAME: usize = 16;
/// Seconds, Linux's `TCP_FIN_TIMEOUT_MAX`.
const LONGEST_LINGER2: i32 = 120;

/// Seconds that pass with whole attempts, each twice as long as the one before it, until `seconds` have passed.
fn attempts_for(seconds: i32) -> i32 {
    /// `TCP_RTO_MAX` in seconds.
    const LONGEST: i32 = 120;
    if seconds <= 0 {
        return 0;
    }
    let (mut passed, mut next) = (1, 1);
    while passed < seconds {
        next = (next * 2).min(LONGEST);
        passed += next;
    }
    passed
}
/// Readable.
const IN: PollEvents = PollEvents::IN.union(PollEvents::RDNORM);
/// Writable.
const OUT: PollEvents = PollEvents::OUT.union(PollEvents::WRNORM);

type PortLease = Lease<Weak<TcpSocket>>;

struct Listener {
    backlog: usize,
    ready: VecDeque<Arc<TcpSocket>>,
    /// Sockets that connect as soon as there is room.
    waiting: VecDeque<Weak<TcpSocket>>,
}

struct Connection {
    incoming: Arc<Channel>,
    outgoing: Arc<Channel>,
    /// The next `connect(2)` succeeds rather than complains: the connection came about while nobody waited.
    unannounced: bool,
    /// Something was sent to a peer that was gone.
    refused: bool,
}

impl Connection {
    /// Nothing more can go either way.
    fn is_over(&self) -> bool {
        let incoming = self.incoming.status(false);
        incoming.reset || self.refused || incoming.writer_done && self.outgoing.status(false).writer_done
    }
}

enum Phase {
    Idle,
    Listening(Listener),
    Connecting,
    Connected(Connection),
}

struct State {
    phase: Phase,
    lease: Option<PortLease>,
    local: SocketAddr,
    remote: Option<SocketAddr>,
    /// `bind(2)` chose the port.
    bound: bool,
    /// An attempt to connect failed that nobody waited for.
    failed: bool,
    closed: bool,
}

/// A TCP socket.
pub struct TcpSocket {
    base: Base,
    inet: Arc<Inet>,
    state: Mutex<State>,
    this: Weak<Self>,
}

/// What `/proc/net/tcp` shows of a socket.
pub struct Figures {
    /// Own address.
    pub local: SocketAddr,
    /// Peer's address.
    pub remote: SocketAddr,
    /// State.
    pub state: TcpState,
    /// Bytes that the peer has not read.
    pub sending: usize,
    /// Bytes that were not read.
    pub receiving: usize,
    /// Whether it is a v6 socket.
    pub v6: bool,
}

impl TcpSocket {
    /// An unconnected socket.
    pub fn new(inet: &Arc<Inet>, domain: u32) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            base: Base::new(domain, Kind::Stream, TCP),
            inet: Arc::clone(inet),
            state: Mutex::new(State {
                phase: Phase::Idle,
                lease: None,
                local: address::any(domain),
                remote: None,
                bound: false,
                failed: false,
                closed: false,
            }),
            this: this.clone(),
        })
    }

    fn decode(&self, bytes: &[u8]) -> Result<Given, Errno> {
        address::decode(self.base.domain, bytes)
    }

    /// `bind(2)`; a task is asked for the privilege of low ports.
    pub fn bind_to(&self, task: Option<&Arc<Task>>, to: SocketAddr) -> Result<(), Errno> {
        super::check_bind(&self.base, task, to.ip(), to.port())?;
        let mut state = self.state.lock();
        if state.lease.is_some() {
            return Err(Errno::EINVAL);
        }
        self.lease(&mut state, task, to)?;
        state.bound = true;
        Ok(())
    }

    fn lease(&self, state: &mut State, task: Option<&Arc<Task>>, to: SocketAddr) -> Result<(), Errno> {
        let uid = task.map_or(0, |task| task.credentials().euid);
        let lease = self.inet.tcp.bind(super::claim(&self.base, to.ip(), uid), to.port(), self.this.clone())?;
        state.local = SocketAddr::new(to.ip(), lease.port);
        state.lease = Some(lease);
        Ok(())
    }

    /// `listen(2)`.
    pub fn listen_with(&self, task: Option<&Arc<Task>>, backlog: i32) -> Result<(), Errno> {
        let backlog = usize::try_from(backlog).unwrap_or(MAX_BACKLOG).min(MAX_BACKLOG) + 1;
        let mut state = self.state.lock();
        match &mut state.phase {
            Phase::Listening(listener) => {
                listener.backlog = backlog;
                return Ok(());
            }
            Phase::Idle => {}
            Phase::Connecting | Phase::Connected(_) => return Err(Errno::EINVAL),
        }
        if state.lease.is_none() {
            let any = address::any(self.base.domain);
            self.lease(&mut state, task, any)?;
        }
        state.lease.as_ref().ok_or(Errno::EINVAL)?.listen()?;
        state.phase = Phase::Listening(Listener { backlog, ready: VecDeque::new(), waiting: VecDeque::new() });
        Ok(())
    }

    /// `connect(2)` without the task's address space.
    pub fn connect_to(&self, task: Option<&Arc<Task>>, to: SocketAddr, nonblocking: bool) -> Result<(), Errno> {
        let connecting = self.inet.connecting.lock();
        let mut state = self.state.lock();
        match &mut state.phase {
            Phase::Connected(connection) => {
                let unannounced = std::mem::take(&mut connection.unannounced);
                return if unannounced { Ok(()) } else { Err(Errno::EISCONN) };
            }
            Phase::Listening(_) => return Err(Errno::EISCONN),
            Phase::Connecting => return Err(if nonblocking { Errno::EALREADY } else { Errno::EINPROGRESS }),
            Phase::Idle => {}
        }
        // An error left by an attempt that nobody waited for belongs to that attempt.
        if std::mem::take(&mut state.failed) {
            return Err(self.base.endpoint.take_error().unwrap_or(Errno::ECONNABORTED));
        }
        let to = address::target(to);
        super::check_route(&self.base, to.ip())?;
        let source = if state.local.ip().is_unspecified() { address::source_for(to.ip()) } else { state.local.ip() };
        if state.lease.is_none() {
            self.lease(&mut state, task, SocketAddr::new(source, 0)).map_err(|_| Errno::EADDRNOTAVAIL)?;
        }
        state.local.set_ip(source);
        if let Some(lease) = &state.lease {
            lease.set_remote(source, Some(to));
        }
        if state.local == to {
            self.join_itself(&mut state, to);
            return Ok(());
        }
        let turn = self.inet.turn.fetch_add(1, Ordering::Relaxed);
        let listener = self.inet.tcp.listener(to, turn).and_then(|listener| listener.upgrade());
        let outcome = listener.as_ref().map_or(Outcome::Refused, |listener| listener.admit(self, &mut state, to, nonblocking));
        match outcome {
            Outcome::Connected => {}
            Outcome::Wait => {
                state.phase = Phase::Connecting;
                state.remote = Some(to);
                return Err(Errno::EINPROGRESS);
            }
            Outcome::Refused => {
                self.forget_connection(&mut state);
                state.failed = nonblocking;
                drop((state, connecting));
                if nonblocking {
                    self.base.endpoint.set_error(Errno::ECONNREFUSED);
                    return Err(Errno::EINPROGRESS);
                }
                return Err(Errno::ECONNREFUSED);
            }
        }
        drop((state, connecting));
        if let Some(listener) = listener {
            listener.base.endpoint.readable();
        }
        self.base.endpoint.writable();
        if nonblocking { Err(Errno::EINPROGRESS) } else { Ok(()) }
    }

    /// A socket that connects to where it is bound is its own peer.
    fn join_itself(&self, state: &mut State, to: SocketAddr) {
        let capacity = self.base.options.lock().receive_buffer as usize;
        let channel = Channel::new(&self.base.endpoint, &self.base.endpoint, false, capacity);
        state.phase =
            Phase::Connected(Connection { incoming: Arc::clone(&channel), outgoing: channel, unannounced: false, refused: false });
        state.remote = Some(to);
    }

    /// Back to how it was before `connect(2)`: a port that nobody chose is given up.
    fn forget_connection(&self, state: &mut State) {
        state.phase = Phase::Idle;
        state.remote = None;
        if !state.bound {
            state.lease = None;
            state.local = address::any(self.base.domain);
        } else if let Some(lease) = &state.lease {
            lease.set_remote(state.local.ip(), None);
        }
    }

    /// Makes a connection of this listener's with `client`, whose state is locked.
    fn admit(&self, client: &Self, own: &mut State, to: SocketAddr, unannounced: bool) -> Outcome {
        let mut state = self.state.lock();
        let claim = state.lease.as_ref().and_then(Lease::claim);
        let Phase::Listening(listener) = &mut state.phase else { return Outcome::Refused };
        if listener.ready.len() >= listener.backlog {
            if listener.waiting.len() >= MAX_BACKLOG {
                listener.waiting.retain(|waiting| waiting.strong_count() > 0);
            }
            if listener.waiting.len() >= MAX_BACKLOG {
                return Outcome::Refused;
            }
            listener.waiting.push_back(client.this.clone());
            return Outcome::Wait;
        }
        let accepted = Self::new(&self.inet, self.base.domain);
        accepted.base.options.lock().clone_from(&self.base.options.lock());
        let capacity =
            |from: &Self, to: &Self| (from.base.options.lock().send_buffer / 2 + to.base.options.lock().receive_buffer / 2) as usize;
        let there = Channel::new(&accepted.base.endpoint, &client.base.endpoint, false, capacity(client, &accepted));
        let back = Channel::new(&client.base.endpoint, &accepted.base.endpoint, false, capacity(&accepted, client));
        there.set_inline(accepted.base.options.lock().has(raw_net::SO_OOBINLINE));
        back.set_inline(client.base.options.lock().has(raw_net::SO_OOBINLINE));
        {
            let mut state = accepted.state.lock();
            state.local = to;
            state.remote = Some(own.local);
            if let Some(claim) = claim {
                let claim = Claim { ip: to.ip(), ..claim };
                state.lease = Some(self.inet.tcp.join(claim, to.port(), own.local, accepted.this.clone()));
            }
            let (incoming, outgoing) = (Arc::clone(&there), Arc::clone(&back));
            state.phase = Phase::Connected(Connection { incoming, outgoing, unannounced: false, refused: false });
        }
        own.phase = Phase::Connected(Connection { incoming: back, outgoing: there, unannounced, refused: false });
        own.remote = Some(to);
        listener.ready.push_back(accepted);
        Outcome::Connected
    }

    /// Connects those who wait, as far as there is room now.
    fn admit_waiting(&self) {
        loop {
            let connecting = self.inet.connecting.lock();
            let next = match &mut self.state.lock().phase {
                Phase::Listening(listener) if listener.ready.len() < listener.backlog => listener.waiting.pop_front(),
                _ => None,
            };
            let Some(next) = next else { return };
            let Some(client) = next.upgrade() else { continue };
            let mut state = client.state.lock();
            let (Phase::Connecting, Some(to)) = (&state.phase, state.remote) else { continue };
            let outcome = self.admit(&client, &mut state, to, true);
            drop((state, connecting));
            if matches!(outcome, Outcome::Connected) {
                self.base.endpoint.readable();
                client.base.endpoint.writable();
            }
        }
    }

    fn channels(&self) -> Option<(Arc<Channel>, Arc<Channel>)> {
        match &self.state.lock().phase {
            Phase::Connected(connection) => Some((Arc::clone(&connection.incoming), Arc::clone(&connection.outgoing))),
            _ => None,
        }
    }

    /// Ends whatever it does; the descriptor may live on.
    fn end(&self, reset: bool) {
        let phase = {
            let mut state = self.state.lock();
            let phase = std::mem::replace(&mut state.phase, Phase::Idle);
            if let (Phase::Listening(_), Some(lease)) = (&phase, &state.lease) {
                lease.stop_listening();
            }
            self.forget_connection(&mut state);
            phase
        };
        match phase {
            Phase::Idle | Phase::Connecting => {}
            Phase::Listening(listener) => {
                listener.ready.iter().for_each(|socket| socket.end(true));
                listener.waiting.iter().filter_map(Weak::upgrade).for_each(|client| client.give_up());
            }
            Phase::Connected(connection) => {
                if connection.incoming.abandon() || reset {
                    connection.outgoing.reset_reader(Errno::ECONNRESET);
                }
                connection.outgoing.finish();
            }
        }
        self.base.endpoint.hung_up();
    }

    /// The listener that it waited for is gone.
    fn give_up(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Connecting) {
            self.forget_connection(&mut state);
            state.failed = true;
            drop(state);
            self.base.endpoint.set_error(Errno::ECONNREFUSED);
        }
    }

    fn tcp_state(&self) -> TcpState {
        let state = self.state.lock();
        match &state.phase {
            Phase::Idle => TcpState::Close,
            Phase::Listening(_) => TcpState::Listen,
            Phase::Connecting => TcpState::SynSent,
            Phase::Connected(connection) if connection.incoming.status(false).reset => TcpState::Close,
            Phase::Connected(connection) => {
                match (connection.incoming.status(false).writer_done, connection.outgoing.status(false).writer_done) {
                    (false, false) => TcpState::Established,
                    (true, false) => TcpState::CloseWait,
                    (false, true) => TcpState::FinWait2,
                    (true, true) => TcpState::Close,
                }
            }
        }
    }

    /// What `/proc/net/tcp` shows; none for sockets that it does not list.
    pub fn figures(&self) -> Option<Figures> {
        let tcp = self.tcp_state();
        let channels = self.channels();
        let state = self.state.lock();
        if state.closed || tcp == TcpState::Close {
            return None;
        }
        let (receiving, sending) = match (&channels, &state.phase) {
            (Some((incoming, outgoing)), _) => (incoming.status(false).bytes, outgoing.status(false).bytes),
            (None, Phase::Listening(listener)) => (listener.ready.len(), 0),
            (None, _) => (0, 0),
        };
        let remote = state.remote.unwrap_or_else(|| address::any(self.base.domain));
        Some(Figures { local: state.local, remote, state: tcp, sending, receiving, v6: self.base.domain == raw_net::AF_INET6 })
    }

    /// Options of TCP's own that the table does not know; none if it is not one of these.
    fn set_tcp_option(&self, level: i32, name: i32, value: &[u8]) -> Option<Result<(), Errno>> {
        if level != LEVEL_TCP {
            return None;
        }
        let number = || options::int(level, value);
        let remember = |value| self.base.options.lock().set_number(level, name, value);
        Some(match name {
            TCP_CONGESTION => {
                let wanted = value.split(|byte| *byte == 0).next().unwrap_or_default();
                match CONGESTION.iter().position(|known| known.as_bytes() == wanted) {
                    Some(index) => {
                        remember(index as i32);
                        Ok(())
                    }
                    None => Err(Errno::ENOENT),
                }
            }
            // Linux counts in attempts, each twice as long as the one before.
            TCP_DEFER_ACCEPT => number().map(|seconds| remember(attempts_for(seconds))),
            TCP_LINGER2 => number().map(|seconds| remember(if seconds < 0 { -1 } else { seconds.min(LONGEST_LINGER2) })),
            _ => return None,
        })
    }

    fn send_checked(&self, source: &mut Source<'_>, urgent: bool) -> Result<usize, Errno> {
        let outgoing = {
            let mut state = self.state.lock();
            match &mut state.phase {
                Phase::Connecting => return Err(Errno::EAGAIN),
                Phase::Connected(connection) => {
                    let status = connection.outgoing.status(false);
                    let gone = status.reader_done && !status.writer_done && !connection.incoming.status(false).reset;
                    if gone && !std::mem::replace(&mut connection.refused, true) {
                        // A peer that is gone cannot say so before it was sent something: the first bytes are lost, the next are an error.
                        let lost = source.remaining();
                        source.limit(0);
                        drop(state);
                        self.base.endpoint.set_error(Errno::EPIPE);
                        return Ok(lost);
                    }
                    Arc::clone(&connection.outgoing)
                }
                Phase::Idle | Phase::Listening(_) => return Err(Errno::EPIPE),
            }
        };
        if let Some(errno) = self.base.endpoint.take_error() {
            return Err(errno);
        }
        if urgent {
            return outgoing.write_urgent(source, Credentials::default(), &mut None);
        }
        outgoing.write(source, Credentials::default(), &mut None)
    }
}

enum Outcome {
    Connected,
    Wait,
    Refused,
}

impl Socket for TcpSocket {
    fn base(&self) -> &Base {
        &self.base
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, task: &Arc<Task>, address: &[u8]) -> Result<(), Errno> {
        match self.decode(address)? {
            Given::Address(to) => self.bind_to(Some(task), to),
            Given::Unspecified => self.bind_to(Some(task), address::any_of_old(self.base.domain, address)?),
        }
    }

    fn connect(&self, task: &Arc<Task>, address: &[u8], nonblocking: bool) -> Result<(), Errno> {
        match self.decode(address)? {
            Given::Address(to) => self.connect_to(Some(task), to, nonblocking),
            Given::Unspecified => {
                self.end(true);
                Ok(())
            }
        }
    }

    fn finish_connect(&self) -> Result<(), Errno> {
        match &mut self.state.lock().phase {
            Phase::Connecting => return Err(Errno::EAGAIN),
            Phase::Connected(connection) => {
                connection.unannounced = false;
                return Ok(());
            }
            Phase::Idle | Phase::Listening(_) => {}
        }
        Err(self.base.endpoint.take_error().unwrap_or(Errno::ECONNABORTED))
    }

    fn listen(&self, task: &Arc<Task>, backlog: i32) -> Result<(), Errno> {
        self.listen_with(Some(task), backlog)?;
        self.admit_waiting();
        Ok(())
    }

    fn accept(&self) -> Result<Accepted, Errno> {
        let (accepted, waiting) = {
            let mut state = self.state.lock();
            let Phase::Listening(listener) = &mut state.phase else { return Err(Errno::EINVAL) };
            (listener.ready.pop_front().ok_or(Errno::EAGAIN)?, !listener.waiting.is_empty())
        };
        if waiting {
            self.admit_waiting();
        }
        let remote = accepted.state.lock().remote.unwrap_or_else(|| address::any(self.base.domain));
        let peer = address::encode(self.base.domain, remote);
        Ok(Accepted { socket: accepted, peer })
    }

    fn send(&self, source: &mut Source<'_>, message: &mut Outgoing<'_>) -> Result<usize, Errno> {
        if message.flags & MSG_FASTOPEN != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        self.send_checked(source, message.flags & MSG_OOB != 0)
    }

    fn receive(&self, destination: &mut Destination<'_>, flags: u32) -> Result<Incoming, Errno> {
        if flags & MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        let incoming = match &self.state.lock().phase {
            Phase::Connected(connection) => Arc::clone(&connection.incoming),
            Phase::Connecting => return Err(Errno::EAGAIN),
            Phase::Idle | Phase::Listening(_) => {
                return Err(self.base.endpoint.take_error().unwrap_or(Errno::ENOTCONN));
            }
        };
        if flags & MSG_OOB != 0 {
            let count = incoming.read_urgent(destination, flags & MSG_PEEK != 0)?;
            return Ok(Incoming { flags: MSG_OOB, ..Incoming::bytes(count) });
        }
        if flags & MSG_TRUNC != 0 && flags & MSG_PEEK == 0 {
            let count = incoming.skip(destination.remaining())?;
            return Ok(Incoming::bytes(count));
        }
        incoming.read(destination, flags & MSG_PEEK != 0, false).map(|taken| Incoming::bytes(taken.count))
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        match &self.state.lock().phase {
            Phase::Idle => return Err(Errno::ENOTCONN),
            Phase::Connected(connection) if connection.is_over() => return Err(Errno::ENOTCONN),
            Phase::Connected(connection) => {
                if how.read {
                    connection.incoming.end_early();
                }
                if how.write {
                    connection.outgoing.finish();
                }
                return Ok(());
            }
            Phase::Listening(_) if !how.read => return Ok(()),
            Phase::Listening(_) | Phase::Connecting => {}
        }
        self.end(false);
        Ok(())
    }

    fn local_address(&self) -> Result<Vec<u8>, Errno> {
        Ok(address::encode(self.base.domain, self.state.lock().local))
    }

    fn peer_address(&self) -> Result<Vec<u8>, Errno> {
        let state = self.state.lock();
        match (&state.phase, state.remote) {
            (Phase::Connected(connection), Some(remote)) if !connection.is_over() => Ok(address::encode(self.base.domain, remote)),
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn set_option(&self, task: &Arc<Task>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let bound = self.state.lock().lease.is_some();
        if let Some(result) = super::set_special(&self.base, bound, level, name, value) {
            return result;
        }
        if let Some(result) = self.set_tcp_option(level, name, value) {
            return result;
        }
        options::set(&self.base, task, level, name, value)?;
        if (level, name as u32) == (SOL_SOCKET, raw_net::SO_REUSEADDR)
            && let Some(lease) = &self.state.lock().lease
        {
            lease.set_reuse(self.base.options.lock().has(raw_net::SO_REUSEADDR));
        }
        if (level, name as u32) == (SOL_SOCKET, raw_net::SO_OOBINLINE)
            && let Some((incoming, _)) = self.channels()
        {
            incoming.set_inline(self.base.options.lock().has(raw_net::SO_OOBINLINE));
        }
        if level == SOL_SOCKET
            && matches!(name as u32, raw_net::SO_SNDBUF | raw_net::SO_SNDBUFFORCE | raw_net::SO_RCVBUF | raw_net::SO_RCVBUFFORCE)
            && let Some((incoming, outgoing)) = self.channels()
        {
            let (send, receive) = {
                let options = self.base.options.lock();
                (options.send_buffer as usize, options.receive_buffer as usize)
            };
            if matches!(name as u32, raw_net::SO_SNDBUF | raw_net::SO_SNDBUFFORCE) {
                outgoing.set_capacity(send);
            } else {
                incoming.set_capacity(receive);
            }
        }
        Ok(())
    }

    fn option(&self, level: i32, name: i32, _length: usize) -> Result<Vec<u8>, Errno> {
        let connected = self.channels().is_some();
        if let Some(result) = super::special(&self.base, connected, level, name) {
            return result;
        }
        match (level, name) {
            (LEVEL_TCP, TCP_INFO) => {
                let state = self.tcp_state();
                let (waiting, backlog) = match &self.state.lock().phase {
                    Phase::Listening(listener) => (listener.ready.len() as u32, listener.backlog as u32 - 1),
                    _ => (0, 0),
                };
                Ok(tcp_info::encode(state, waiting, backlog))
            }
            (LEVEL_TCP, TCP_CONGESTION) => {
                let chosen = self.base.options.lock().number(level, name).unwrap_or(0) as usize;
                let mut bytes = CONGESTION[chosen].as_bytes().to_vec();
                bytes.resize(CONGESTION_NAME, 0);
                Ok(bytes)
            }
            (SOL_SOCKET, name) if name as u32 == raw_net::SO_ACCEPTCONN => {
                let listens = matches!(self.state.lock().phase, Phase::Listening(_));
                Ok(i32::from(listens).to_ne_bytes().to_vec())
            }
            _ => options::get(&self.base, level, name),
        }
    }

    fn poll(&self) -> PollEvents {
        let error = if self.base.endpoint.has_error() { PollEvents::ERR } else { PollEvents::empty() };
        let state = self.state.lock();
        let refused;
        let (incoming, outgoing) = match &state.phase {
            // A failed attempt ends reading too.
            Phase::Idle if state.failed => return OUT | IN | PollEvents::HUP | PollEvents::RDHUP | error,
            Phase::Idle => return OUT | PollEvents::HUP,
            Phase::Connecting => return error,
            Phase::Listening(listener) => return if listener.ready.is_empty() { error } else { IN | error },
            Phase::Connected(connection) => {
                refused = connection.refused;
                (connection.incoming.status(false), connection.outgoing.status(true))
            }
        };
        let reads_end = incoming.writer_done || incoming.end_early;
        let mut events = error;
        if incoming.urgent {
            events |= PollEvents::PRI;
        }
        let enough = self.base.options.lock().number(SOL_SOCKET, raw_net::SO_RCVLOWAT as i32).unwrap_or(1);
        if incoming.readable && incoming.bytes >= enough as usize || reads_end || incoming.reset {
            events |= IN;
        }
        if reads_end {
            events |= PollEvents::RDHUP;
        }
        if incoming.reset || refused || reads_end && outgoing.writer_done {
            events |= PollEvents::HUP;
        }
        if outgoing.room || outgoing.writer_done || outgoing.reader_done {
            events |= OUT;
        }
        events
    }

    fn ioctl(&self, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        if matches!(self.state.lock().phase, Phase::Listening(_)) && matches!(request, raw_ioctl::FIONREAD | raw_ioctl::TIOCOUTQ) {
            return Err(Errno::EINVAL);
        }
        let length = match (request, self.channels()) {
            (raw_ioctl::SIOCATMARK, channels) => usize::from(channels.is_some_and(|(incoming, _)| incoming.at_mark())),
            (raw_ioctl::FIONREAD, Some((incoming, _))) => incoming.length(),
            (raw_ioctl::TIOCOUTQ, Some((_, outgoing))) => outgoing.status(false).bytes,
            (raw_ioctl::FIONREAD | raw_ioctl::TIOCOUTQ, None) => 0,
            _ => return interface::ioctl(task, request, argument),
        };
        task.write(argument, &(length as i32)).map(|()| 0)
    }

    fn close(&self) {
        let reset = self.base.options.lock().linger == Some(0);
        self.end(reset);
        let mut state = self.state.lock();
        state.closed = true;
        state.lease = None;
    }
}

impl Drop for TcpSocket {
    fn drop(&mut self) {
        // Only sockets that never became files are connected still.
        self.end(true);
    }
}
