//! UDP within the sandbox: a datagram goes straight into its receiver's [`Inbox`].

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use cloudpilot_abi::{Errno, raw_net};
use parking_lot::Mutex;

use super::address::{self, Given};
use super::ancillary::{self, Route, Wishes};
use super::groups::{self, Membership};
use super::options::{self as inet_options, Standing};
use super::ports::{Lease, Ports};
use super::reports::{IP_RECVERR, IPV6_RECVERR, Reports};
use super::{Inet, UDP_LITE};
use crate::io::{Destination, Source};
use crate::net::inbox::{Datagram, Inbox};
use crate::net::message::{Credentials, Incoming, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, Outgoing};
use crate::net::options::{self, LEVEL_IP, LEVEL_IPV6, LEVEL_UDP, LEVEL_UDP_LITE};
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
    /// The address that `bind(2)` chose, to come back to.
    bound: IpAddr,
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
        let state = State { lease: None, local: any, bound: any.ip(), remote: None, reads_ended: false, writes_ended: false, membership };
        Arc::new_cyclic(|this| Self {
            base: Base::new(domain, Kind::Datagram, protocol),
            inet: Arc::clone(inet),
            state: Mutex::new(state),
            inbox: Inbox::default(),
            reports: Reports::default(),
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
        super::check_bind(&self.base, task, to.ip(), to.port())?;
        let mut state = self.state.lock();
        if state.lease.is_some() {
            return Err(Errno::EINVAL);
        }
        self.lease(&mut state, task, to)?;
        state.bound = to.ip();
        Ok(())
    }

    fn lease(&self, state: &mut State, task: Option<&Arc<Task>>, to: SocketAddr) -> Result<(), Errno> {
        let uid = task.map_or(0, |task| task.credentials().euid);
        let lease = self.ports().bind(super::claim(&self.base, to.ip(), uid), to.port(), self.this.clone())?;
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
        super::check_route(&self.base, to.ip())?;
        let mut state = self.state.lock();
        self.ensure_port(&mut state, task)?;
        if state.local.ip().is_unspecified() {
            state.local.set_ip(address::source_for(to.ip()));
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
        if let Some(lease) = &state.lease {
            lease.set_remote(bound, None);
        }
    }

    fn capacity(&self) -> usize {
        self.base.options.lock().receive_buffer as usize
    }

    /// Who speaks to everybody must have said that this is meant.
    fn check_broadcast(&self, ip: IpAddr) -> Result<(), Errno> {
        let allowed = !groups::is_broadcast(ip) || self.base.options.lock().has(raw_net::SO_BROADCAST);
        if allowed { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Where a message goes to.
    fn destination(&self, address: Option<&[u8]>, remote: Option<SocketAddr>) -> Result<SocketAddr, Errno> {
        let Some(address) = address else { return remote.ok_or(Errno::EDESTADDRREQ) };
        let v4 = address::family(address)? == raw_net::AF_INET;
        let to = match if v4 { Given::Address(address::decode_v4(address)?) } else { address::decode(self.base.domain, address)? } {
            Given::Address(to) => to,
            Given::Unspecified if self.base.domain == raw_net::AF_INET => address::decode_v4(address)?,
            Given::Unspecified => return remote.ok_or(Errno::EDESTADDRREQ),
        };
        if to.port() == 0 {
            return Err(Errno::EINVAL);
        }
        let to = address::target(to);
        self.check_broadcast(to.ip())?;
        super::check_route(&self.base, to.ip())?;
        Ok(to)
    }

    /// How a message travels, and whether the socket is connected to where it goes.
    fn route(&self, message: &Outgoing<'_>) -> Result<(Route, bool), Errno> {
        let mut state = self.state.lock();
        if state.writes_ended {
            return Err(Errno::EPIPE);
        }
        let to = self.destination(message.address, state.remote)?;
        let wishes = Wishes::decode(self.base.domain, to.is_ipv4(), &message.controls)?;
        if let Some(errno) = self.base.endpoint.take_error() {
            return Err(errno);
        }
        self.ensure_port(&mut state, message.task)?;
        let local = Some(state.local.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && !groups::is_broadcast(*ip));
        let chosen = if to.ip().is_multicast() { state.membership.source(to.ip()) } else { None };
        let ip = wishes.source.or(local).or(chosen).unwrap_or_else(|| address::source_for(to.ip()));
        let (hops, class) = wishes.marks(&self.base.options.lock(), to.ip());
        let from = SocketAddr::new(ip, state.local.port());
        Ok((Route { from, to, hops, class }, state.remote == Some(to)))
    }

    /// Puts a datagram into this socket's inbox, if there is room: nobody promised that it arrives.
    fn put(&self, source: &mut Source<'_>, route: &Route, sender: Credentials, from: &Base) -> Result<(), Errno> {
        let make = |bytes| Datagram { bytes, about: *route, sender, time: crate::time::realtime(), rights: None };
        match self.inbox.put(source, self.capacity(), &from.endpoint, make) {
            Ok(_) => self.base.endpoint.readable(),
            Err(Errno::EAGAIN | Errno::ECONNREFUSED) => source.limit(0),
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Whether something sent to a group reaches this socket.
    fn hears(&self, group: IpAddr) -> bool {
        /// `IP_MULTICAST_ALL` and `IPV6_MULTICAST_ALL`: on unless switched off.
        const IP_ALL: (i32, i32) = (LEVEL_IP, 49);
        const IPV6_ALL: (i32, i32) = (LEVEL_IPV6, 29);
        let (level, name) = if group.is_ipv4() { IP_ALL } else { IPV6_ALL };
        let all = self.base.options.lock().number(level, name) != Some(0);
        self.state.lock().membership.has(group) || all && self.inet.groups.has(group)
    }

    /// Sends to a group or to everybody.
    fn send_to_many(&self, bytes: &[u8], route: &Route, sender: Credentials) -> Result<(), Errno> {
        /// `IP_MULTICAST_LOOP` and `IPV6_MULTICAST_LOOP`: who switches it off is heard elsewhere only, and there is no elsewhere.
        const IP_LOOP: (i32, i32) = (LEVEL_IP, 34);
        const IPV6_LOOP: (i32, i32) = (LEVEL_IPV6, 19);
        let to_group = route.to.ip().is_multicast();
        let (level, name) = if route.to.is_ipv4() { IP_LOOP } else { IPV6_LOOP };
        if to_group && self.base.options.lock().number(level, name) == Some(0) {
            return Ok(());
        }
        for receiver in self.ports().receivers(route.to, route.from).iter().filter_map(Weak::upgrade) {
            if !to_group || receiver.hears(route.to.ip()) {
                receiver.put(&mut Source::own(bytes), route, sender, &self.base)?;
            }
        }
        Ok(())
    }

    /// Hands a datagram to who receives what is sent there.
    fn deliver(&self, source: &mut Source<'_>, route: &Route, sender: Credentials, connected: bool) -> Result<(), Errno> {
        if groups::is_many(route.to) {
            let bytes = source.take_vec(source.remaining())?;
            return self.send_to_many(&bytes, route, sender);
        }
        match self.ports().receiver(route.to, route.from).and_then(|receiver| receiver.upgrade()) {
            Some(receiver) => receiver.put(source, route, sender, &self.base),
            None => self.unreachable(source, route, connected),
        }
    }

    /// Nobody has the port: what Linux learns from "port unreachable", and tells those who are connected or asked for it.
    fn unreachable(&self, source: &mut Source<'_>, route: &Route, connected: bool) -> Result<(), Errno> {
        let wants = {
            let options = self.base.options.lock();
            options.is_set(LEVEL_IP, IP_RECVERR) && route.to.is_ipv4() || options.is_set(LEVEL_IPV6, IPV6_RECVERR)
        };
        if wants {
            self.reports.unreachable(source.take_vec(source.remaining())?, route.to);
        }
        if wants || connected {
            self.base.endpoint.set_error(Errno::ECONNREFUSED);
        }
        source.limit(0);
        Ok(())
    }

    /// Raw sockets see datagrams as packets.
    fn show(&self, bytes: &[u8], route: &Route) {
        let length = (bytes.len() + PACKET_HEADER) as u16;
        let mut packet = [route.from.port().to_be_bytes(), route.to.port().to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
        packet.extend(bytes);
        self.inet.packets.show(route, self.base.protocol, &packet);
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
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let length = source.remaining();
        if length > LONGEST {
            return Err(Errno::EMSGSIZE);
        }
        let (route, connected) = self.route(message)?;
        if groups::is_many(route.to) || !self.inet.packets.is_empty() {
            let bytes = source.take_vec(length)?;
            if bytes.len() < length {
                return Err(Errno::EFAULT);
            }
            self.show(&bytes, &route);
            self.deliver(&mut Source::own(&bytes), &route, message.sender, connected)?;
        } else {
            self.deliver(source, &route, message.sender, connected)?;
        }
        Ok(length)
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
        inet_options::set(&self.base, task, standing, level, name, value)
            .unwrap_or_else(|| options::set(&self.base, task, level, name, value))
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
