//! UDP within the sandbox: a datagram goes straight into its receiver's [`Inbox`].

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use cloudpilot_abi::{Errno, raw_net};
use parking_lot::Mutex;

use super::address::{self, Given};
use super::ports::Lease;
use super::{Inet, UDP};
use crate::io::{Destination, Source};
use crate::net::inbox::{Datagram, Inbox, Received};
use crate::net::message::{Control, Incoming, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, Outgoing};
use crate::net::options::{
    self, IP_PKTINFO, IP_RECVTOS, IP_RECVTTL, IP_TOS, IP_TTL, IPV6_RECVHOPLIMIT, IPV6_RECVPKTINFO, IPV6_RECVTCLASS, LEVEL_IP, LEVEL_IPV6,
};
use crate::net::{Base, Kind, Shutdown, Socket, interface};
use crate::task::Task;
use crate::wait::PollEvents;

/// Longest contents of a datagram: 64 KiB without the headers.
const LONGEST: usize = 65_507;
const IPV6_PKTINFO: i32 = 50;
const IPV6_HOPLIMIT: i32 = 52;
const IPV6_TCLASS: i32 = 67;

/// Where a datagram came from and where it was sent to.
#[derive(Clone, Copy, Debug)]
struct Route {
    from: SocketAddr,
    to: SocketAddr,
}

struct State {
    lease: Option<Lease<Weak<UdpSocket>>>,
    local: SocketAddr,
    /// The address that `bind(2)` chose, to come back to.
    bound: IpAddr,
    remote: Option<SocketAddr>,
    reads_ended: bool,
    writes_ended: bool,
}

/// A UDP socket.
pub struct UdpSocket {
    base: Base,
    inet: Arc<Inet>,
    state: Mutex<State>,
    inbox: Inbox<Route>,
    this: Weak<Self>,
}

impl UdpSocket {
    /// A socket without a port.
    pub fn new(inet: &Arc<Inet>, domain: u32) -> Arc<Self> {
        let any = address::any(domain);
        let state = State { lease: None, local: any, bound: any.ip(), remote: None, reads_ended: false, writes_ended: false };
        Arc::new_cyclic(|this| Self {
            base: Base::new(domain, Kind::Datagram, UDP),
            inet: Arc::clone(inet),
            state: Mutex::new(state),
            inbox: Inbox::default(),
            this: this.clone(),
        })
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
        let lease = self.inet.udp.bind(super::claim(&self.base, to.ip(), uid), to.port(), self.this.clone())?;
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
        super::check_route(&self.base, to.ip())?;
        Ok(to)
    }

    fn controls(&self, received: &Received<Route>) -> Vec<Control> {
        let options = self.base.options.lock();
        let mut controls = options.timestamps(received.time);
        let mut put = |level, kind, bytes: &[u8]| controls.push(Control { level, kind, bytes: bytes.to_vec() });
        let v6 = match received.about.to.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        if options.is_set(LEVEL_IP, IP_PKTINFO)
            && let IpAddr::V4(ip) = received.about.to.ip()
        {
            put(LEVEL_IP, IP_PKTINFO, &[&interface::LOOPBACK_INDEX.to_ne_bytes()[..], &ip.octets(), &ip.octets()].concat());
        }
        if options.is_set(LEVEL_IP, IP_RECVTTL) {
            put(LEVEL_IP, IP_TTL, &64i32.to_ne_bytes());
        }
        if options.is_set(LEVEL_IP, IP_RECVTOS) {
            put(LEVEL_IP, IP_TOS, &[0]);
        }
        if options.is_set(LEVEL_IPV6, IPV6_RECVPKTINFO) {
            put(LEVEL_IPV6, IPV6_PKTINFO, &[&v6.octets()[..], &interface::LOOPBACK_INDEX.to_ne_bytes()].concat());
        }
        if options.is_set(LEVEL_IPV6, IPV6_RECVHOPLIMIT) {
            put(LEVEL_IPV6, IPV6_HOPLIMIT, &64i32.to_ne_bytes());
        }
        if options.is_set(LEVEL_IPV6, IPV6_RECVTCLASS) {
            put(LEVEL_IPV6, IPV6_TCLASS, &0i32.to_ne_bytes());
        }
        controls
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
            Given::Unspecified => Err(Errno::EAFNOSUPPORT),
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
        let (from, to, connected) = {
            let mut state = self.state.lock();
            if state.writes_ended {
                return Err(Errno::EPIPE);
            }
            let to = self.destination(message.address, state.remote)?;
            if let Some(errno) = self.base.endpoint.take_error() {
                return Err(errno);
            }
            self.ensure_port(&mut state, message.task)?;
            let ip = if state.local.ip().is_unspecified() || state.local.ip().is_multicast() {
                address::source_for(to.ip())
            } else {
                state.local.ip()
            };
            (SocketAddr::new(ip, state.local.port()), to, state.remote == Some(to))
        };
        let Some(receiver) = self.inet.udp.receiver(to, from).and_then(|receiver| receiver.upgrade()) else {
            // What Linux learns from "port unreachable", and tells connected sockets only.
            if connected {
                self.base.endpoint.set_error(Errno::ECONNREFUSED);
            }
            source.limit(0);
            return Ok(length);
        };
        let make =
            |bytes| Datagram { bytes, about: Route { from, to }, sender: message.sender, time: crate::time::realtime(), rights: None };
        match receiver.inbox.put(source, receiver.capacity(), &self.base.endpoint, make) {
            Ok(_) => receiver.base.endpoint.readable(),
            // Nobody promised that it arrives.
            Err(Errno::EAGAIN | Errno::ECONNREFUSED) => source.limit(0),
            Err(errno) => return Err(errno),
        }
        Ok(length)
    }

    fn receive(&self, destination: &mut Destination<'_>, flags: u32) -> Result<Incoming, Errno> {
        if flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if flags & MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        if let Some(errno) = self.base.endpoint.take_error() {
            return Err(errno);
        }
        let received = match self.inbox.take(destination, flags & MSG_PEEK != 0) {
            Err(Errno::EAGAIN) if self.state.lock().reads_ended => return Ok(Incoming::default()),
            received => received?,
        };
        Ok(Incoming {
            count: received.count,
            length: received.length,
            address: Some(address::encode(self.base.domain, received.about.from)),
            controls: self.controls(&received),
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
        let bound = self.state.lock().lease.is_some();
        match super::set_special(&self.base, bound, level, name, value) {
            Some(result) => result,
            None => options::set(&self.base, task, level, name, value),
        }
    }

    fn option(&self, level: i32, name: i32, _length: usize) -> Result<Vec<u8>, Errno> {
        let connected = self.state.lock().remote.is_some();
        super::special(&self.base, connected, level, name).unwrap_or_else(|| options::get(&self.base, level, name))
    }

    fn poll(&self) -> PollEvents {
        let (reads_ended, writes_ended) = {
            let state = self.state.lock();
            (state.reads_ended, state.writes_ended)
        };
        let mut events = PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND;
        if self.base.endpoint.has_error() {
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
        let lease = self.state.lock().lease.take();
        drop(lease);
        self.inbox.close();
    }
}
