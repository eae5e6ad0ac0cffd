//! TCP within the sandbox: a connection is two [`Channel`]s. What the calls do with it is in [`socket`], options are in [`options`].

pub mod info;
mod options;
mod socket;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use cloudpilot_abi::{Errno, raw_net};
use parking_lot::Mutex;

use super::address::{self, Given};
use super::ports::{Claim, Lease};
use super::{Inet, TCP, options as inet_options};
use crate::io::Source;
use crate::net::channel::Channel;
use crate::net::message::Credentials;
use info::TcpState;

use crate::net::{Base, Kind};
use crate::task::Task;
use crate::wait::PollEvents;

/// Most connections that wait to be accepted, Linux's `somaxconn`.
const MAX_BACKLOG: usize = 4096;
/// Bytes that may wait on their way out of a connection whose program did not choose.
const UNCHOSEN_SEND: u32 = 262_144;
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
    /// `shutdown(2)` ended reading before there was a connection.
    reads_ended: bool,
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
                reads_ended: false,
            }),
            this: this.clone(),
        })
    }

    fn decode(&self, bytes: &[u8]) -> Result<Given, Errno> {
        address::decode(self.base.domain, bytes)
    }

    /// `bind(2)`; a task is asked for the privilege of low ports.
    pub fn bind_to(&self, task: Option<&Arc<Task>>, to: SocketAddr) -> Result<(), Errno> {
        super::check_bind(&self.inet, &self.base, task, to.ip(), to.port())?;
        let mut state = self.state.lock();
        if state.lease.is_some() {
            return Err(Errno::EINVAL);
        }
        self.lease(&mut state, task, to)?;
        state.bound = true;
        Ok(())
    }

    fn lease(&self, state: &mut State, task: Option<&Arc<Task>>, to: SocketAddr) -> Result<(), Errno> {
        let lease = self.inet.tcp.bind(super::claim(&self.base, task, to.ip()), to.port(), self.this.clone())?;
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
        state.reads_ended = false;
        // An error left by an attempt that nobody waited for belongs to that attempt.
        if std::mem::take(&mut state.failed) {
            return Err(self.base.endpoint.take_error().unwrap_or(Errno::ECONNABORTED));
        }
        let to = address::target(to);
        super::check_route(&self.inet, &self.base, to.ip())?;
        let source = if state.local.ip().is_unspecified() { self.inet.local.source_for(to.ip()) } else { state.local.ip() };
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
        let capacity = |from: &Self, to: &Self| {
            let (from, to) = (from.base.options.lock(), to.base.options.lock());
            let send = if from.send_chosen { from.send_buffer } else { UNCHOSEN_SEND };
            (send / 2 + to.receive_buffer / 2) as usize
        };
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

impl Drop for TcpSocket {
    fn drop(&mut self) {
        // Only sockets that never became files are connected still.
        self.end(true);
    }
}
