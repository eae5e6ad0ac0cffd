//! UDP within the sandbox: a datagram goes straight into its receiver's [`Inbox`]; how it gets there is in [`send`].

mod send;

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use cloudpilot_abi::{Errno, raw_net};
use parking_lot::Mutex;

use super::address::{self, Given};
use super::ancillary::{self, Route};
use super::groups::Membership;
use super::options::{self as inet_options, Standing};
use super::ports::{Lease, Ports};
use super::reports::Reports;
use super::{Inet, UDP_LITE};
use crate::io::{Destination, Source};
use crate::net::inbox::Inbox;
use crate::net::message::{Incoming, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_PEEK, MSG_TRUNC, Outgoing};
use crate::net::options::{self, LEVEL_IP, LEVEL_UDP, LEVEL_UDP_LITE};
use crate::net::{Base, Kind, Shutdown, Socket, interface};
use crate::task::Task;
use crate::wait::PollEvents;

/// Longest contents of a datagram: 64 KiB without the headers.
const LONGEST: usize = 65_507;
/// Bytes of a UDP header.
const PACKET_HEADER: usize = 8;
/// `UDPLITE_SEND_CSCOV`, `UDPLITE_RECV_CSCOV`: how much of a datagram is checked, at least its header.
const SEND_COVERAGE: i32 = 10;
const RECEIVE_COVERAGE: i32 = 11;

struct State {
    lease: Option<Lease<Weak<UdpSocket>>>,
    local: SocketAddr,
    /// The address that `bind(2)` chose, to come back to, and whether it chose the port.
    bound: IpAddr,
    port_bound: bool,
    remote: Option<SocketAddr>,
    reads_ended: bool,
    writes_ended: bool,
    membership: Membership,
}

/// A UDP socket.
pub struct UdpSocket {
    base: Base,
    inet: Arc<Inet>,
    state: Mutex<State>,
    inbox: Inbox<Route>,
    reports: Reports,
    /// The datagram that more is to be added to.
    held: Mutex<Option<send::Held>>,
    this: Weak<Self>,
}

fn standing(state: &State) -> Standing {
    Standing { number: state.lease.as_ref().map_or(0, |_| state.local.port()), peer: state.remote }
}

impl UdpSocket {
    /// A socket without a port.
    pub fn new(inet: &Arc<Inet>, domain: u32, protocol: u32) -> Arc<Self> {
        let any = address::any(domain);
        let membership = Membership::default();
        let state = State {
            lease: None,
            local: any,
            bound: any.ip(),
            port_bound: false,
            remote: None,
            reads_ended: false,
            writes_ended: false,
            membership,
        };
        Arc::new_cyclic(|this| Self {
            base: Base::new(domain, Kind::Datagram, protocol),
            inet: Arc::clone(inet),
            state: Mutex::new(state),
            inbox: Inbox::default(),
            reports: Reports::default(),
            held: Mutex::new(None),
            this: this.clone(),
        })
    }

    /// Options of UDP-Lite; none if it is something else.
    fn set_coverage(&self, level: i32, name: i32, value: &[u8]) -> Option<Result<(), Errno>> {
        let known = matches!(level, LEVEL_UDP | LEVEL_UDP_LITE) && matches!(name, SEND_COVERAGE | RECEIVE_COVERAGE);
        if !known || self.base.protocol != UDP_LITE {
            return None;
        }
        Some(options::int(level, value).map(|wanted| {
            let covered = match wanted {
                0 => 0,
                wanted => wanted.max(PACKET_HEADER as i32).min(i32::from(u16::MAX)),
            };
            self.base.options.lock().set_number(LEVEL_UDP_LITE, name, covered);
        }))
    }

    fn ports(&self) -> &Arc<Ports<Weak<Self>>> {
        if self.base.protocol == UDP_LITE { &self.inet.udp_lite } else { &self.inet.udp }
    }

    /// `bind(2)`.
    pub fn bind_to(&self, task: Option<&Arc<Task>>, to: SocketAddr) -> Result<(), Errno> {
        super::check_bind(&self.inet, &self.base, task, to.ip(), to.port())?;
        let mut state = self.state.lock();
        if state.lease.is_some() {
            return Err(Errno::EINVAL);
        }
        self.lease(&mut state, task, to)?;
        state.bound = to.ip();
        state.port_bound = to.port() != 0;
        Ok(())
    }

    fn lease(&self, state: &mut State, task: Option<&Arc<Task>>, to: SocketAddr) -> Result<(), Errno> {
        let lease = self.ports().bind(super::claim(&self.base, task, to.ip()), to.port(), self.this.clone())?;
        state.local = SocketAddr::new(to.ip(), lease.port);
        state.lease = Some(lease);
        Ok(())
    }

    /// A port of its own, if it has none yet.
    fn ensure_port(&self, state: &mut State, task: Option<&Arc<Task>>) -> Result<(), Errno> {
        match state.lease {
            Some(_) => Ok(()),
            None => self.lease(state, task, address::any(self.base.domain)).map_err(|_| Errno::EAGAIN),
        }
    }

    /// `connect(2)`: from now on datagrams come from and go to one address.
    pub fn connect_to(&self, task: Option<&Arc<Task>>, to: SocketAddr) -> Result<(), Errno> {
        let to = address::target(to);
        self.check_broadcast(to.ip())?;
        super::check_route(&self.inet, &self.base, to.ip())?;
        let mut state = self.state.lock();
        self.ensure_port(&mut state, task)?;
        if state.local.ip().is_unspecified() {
            state.local.set_ip(self.inet.local.source_for(to.ip()));
        }
        state.remote = Some(to);
        if let Some(lease) = &state.lease {
            lease.set_remote(state.local.ip(), Some(to));
        }
        Ok(())
    }

    fn disconnect(&self) {
        let mut state = self.state.lock();
        state.remote = None;
        let bound = state.bound;
        state.local.set_ip(bound);
        if !state.port_bound {
            // A port that nobody chose goes with the peer.
            state.local.set_port(0);
            state.lease = None;
        }
        if let Some(lease) = &state.lease {
            lease.set_remote(bound, None);
        }
    }

    fn capacity(&self) -> usize {
        self.base.options.lock().receive_buffer as usize
    }

    /// Own and peer's address, bytes that wait, and whether it is a v6 socket, for `/proc/net/udp`; none without a port.
    pub fn figures(&self) -> Option<(SocketAddr, SocketAddr, usize, bool)> {
        let state = self.state.lock();
        state.lease.as_ref()?;
        let remote = state.remote.unwrap_or_else(|| address::any(self.base.domain));
        Some((state.local, remote, self.inbox.next_length(), self.base.domain == raw_net::AF_INET6))
    }
}

impl Socket for UdpSocket {
    fn base(&self) -> &Base {
        &self.base
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, task: &Arc<Task>, address: &[u8]) -> Result<(), Errno> {
        match address::decode(self.base.domain, address)? {
            Given::Address(to) => self.bind_to(Some(task), to),
            Given::Unspecified => self.bind_to(Some(task), address::any_of_old(self.base.domain, address)?),
        }
    }

    fn connect(&self, task: &Arc<Task>, address: &[u8], _nonblocking: bool) -> Result<(), Errno> {
        if address::family(address)? == raw_net::AF_INET {
            return self.connect_to(Some(task), address::decode_v4(address)?);
        }
        match address::decode(self.base.domain, address)? {
            Given::Address(to) => self.connect_to(Some(task), to),
            Given::Unspecified => {
                self.disconnect();
                Ok(())
            }
        }
    }

    fn send(&self, source: &mut Source<'_>, message: &mut Outgoing<'_>) -> Result<usize, Errno> {
        self.send_message(source, message)
    }

    fn receive(&self, destination: &mut Destination<'_>, flags: u32) -> Result<Incoming, Errno> {
        if flags & MSG_ERRQUEUE != 0 {
            let report = self.reports.take(self.base.domain, destination)?;
            // The error was the report's.
            self.base.endpoint.take_error();
            if !self.reports.is_empty() {
                self.base.endpoint.set_error(Errno::ECONNREFUSED);
            }
            return Ok(report);
        }
        if let Some(errno) = self.base.endpoint.take_error() {
            return Err(errno);
        }
        let received = match self.inbox.take(destination, self.base.peeks_after(flags)) {
            Err(Errno::EAGAIN) if flags & MSG_DONTWAIT == 0 && self.state.lock().reads_ended => return Ok(Incoming::default()),
            received => received?,
        };
        *self.base.stamp.lock() = Some(received.time);
        self.base.moves_peek(flags, if flags & MSG_PEEK == 0 { received.length } else { received.count });
        Ok(Incoming {
            count: received.count,
            length: received.length,
            address: Some(address::encode(self.base.domain, received.about.from)),
            controls: ancillary::about(&self.base.options.lock(), self.base.domain, &received.about, received.time),
            flags: if received.length > received.count { MSG_TRUNC } else { 0 },
            ..Incoming::default()
        })
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        let connected = {
            let mut state = self.state.lock();
            state.reads_ended |= how.read;
            state.writes_ended |= how.write;
            state.remote.is_some()
        };
        self.base.endpoint.hung_up();
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn local_address(&self) -> Result<Vec<u8>, Errno> {
        Ok(address::encode(self.base.domain, self.state.lock().local))
    }

    fn peer_address(&self) -> Result<Vec<u8>, Errno> {
        let remote = self.state.lock().remote.ok_or(Errno::ENOTCONN)?;
        Ok(address::encode(self.base.domain, remote))
    }

    fn set_option(&self, task: &Arc<Task>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let standing = {
            let mut state = self.state.lock();
            if let Some(result) = state.membership.set_option(&self.inet.groups, self.base.domain, level, name, value) {
                return result;
            }
            standing(&state)
        };
        if let Some(result) = self.set_coverage(level, name, value) {
            return result;
        }
        let uncorks = matches!(level, LEVEL_UDP | LEVEL_UDP_LITE) && name == send::CORK && options::int(level, value) == Ok(0);
        inet_options::set(&self.base, task, standing, level, name, value)
            .unwrap_or_else(|| options::set(&self.base, task, level, name, value))?;
        if uncorks { self.release_held() } else { Ok(()) }
    }

    fn option(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>, Errno> {
        let (standing, group) = {
            let state = self.state.lock();
            (standing(&state), state.membership.option(level, name).filter(|_| level == LEVEL_IP || self.base.domain == raw_net::AF_INET6))
        };
        if let Some(value) = group {
            return Ok(value);
        }
        match (level, name) {
            (LEVEL_UDP | LEVEL_UDP_LITE, SEND_COVERAGE | RECEIVE_COVERAGE) => {
                let covered = self.base.options.lock().number(LEVEL_UDP_LITE, name).unwrap_or(0);
                Ok(covered.to_ne_bytes().to_vec())
            }
            _ => inet_options::get(&self.base, standing, level, name, length)
                .unwrap_or_else(|| options::get(&self.base, level, name, length)),
        }
    }

    fn poll(&self) -> PollEvents {
        let (reads_ended, writes_ended) = {
            let state = self.state.lock();
            (state.reads_ended, state.writes_ended)
        };
        let mut events = PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND;
        if self.base.endpoint.has_error() || !self.reports.is_empty() {
            events |= PollEvents::ERR;
        }
        if reads_ended || !self.inbox.is_empty() {
            events |= PollEvents::IN | PollEvents::RDNORM;
        }
        if reads_ended {
            events |= PollEvents::RDHUP;
        }
        if reads_ended && writes_ended {
            events |= PollEvents::HUP;
        }
        events
    }

    fn ioctl(&self, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        interface::datagram_ioctl(task, request, argument, || self.inbox.next_length())
    }

    fn close(&self) {
        let lease = {
            let mut state = self.state.lock();
            state.membership.clear(&self.inet.groups);
            state.lease.take()
        };
        drop(lease);
        self.inbox.close();
    }
}
