//! Raw sockets, which see and make packets of a protocol (`raw(7)`), and ICMP sockets that only send echo requests (`icmp(7)`).
//!
//! Packets exist only here: what a raw socket sends reaches the raw sockets of that protocol and the answering of echoes; the datagrams of UDP
//! sockets are shown to raw sockets as packets; connections of TCP have none.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use cloudpilot_abi::raw_net::{IPV6_CHECKSUM, IPV6_HDRINCL};
use cloudpilot_abi::{Errno, raw_net};
use parking_lot::Mutex;

use super::address::{self, Given};
use super::ancillary::{self, Route, Wishes};
use super::groups::Membership;
use super::icmp::{self, ICMP, ICMPV6};
use super::options::{self as inet_options, Standing};
use super::{Inet, groups};
use crate::io::{Destination, Source};
use crate::net::inbox::{Datagram, Inbox};
use crate::net::message::{Credentials, Incoming, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, Outgoing};
use crate::net::options::{self, LEVEL_IP, LEVEL_IPV6};
use crate::net::{Base, Kind, Shutdown, Socket, interface};
use crate::task::Task;
use crate::wait::PollEvents;

/// `IPPROTO_RAW`: for sending packets with their headers only.
const RAW: u32 = 255;
/// `SOL_RAW` and `SOL_ICMPV6`, whose first option is the filter.
const LEVEL_RAW: i32 = 255;
const LEVEL_ICMPV6: i32 = 58;
const FILTER: i32 = 1;
/// Where the checksum of an ICMPv6 message is.
const ICMPV6_CHECKSUM: i32 = 2;
/// `IP_HDRINCL`.
pub const IP_HDRINCL: i32 = 3;
/// Longest packet.
const LONGEST: usize = 65_535;

/// All raw and echo sockets.
#[derive(Default)]
pub struct RawSockets {
    sockets: Mutex<Vec<Weak<RawSocket>>>,
    /// How many there are, for those who would otherwise make packets that nobody sees.
    count: AtomicUsize,
}

struct State {
    local: IpAddr,
    remote: Option<SocketAddr>,
    /// An echo socket's number; 0 until it has one.
    number: u16,
    /// Kinds of ICMP messages not to be received.
    filter: [u32; 8],
    reads_ended: bool,
    writes_ended: bool,
    membership: Membership,
}

/// A raw or echo socket.
pub struct RawSocket {
    base: Base,
    inet: Arc<Inet>,
    state: Mutex<State>,
    inbox: Inbox<Route>,
    this: Weak<Self>,
}

impl RawSockets {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn live(&self) -> Vec<Arc<RawSocket>> {
        self.sockets.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Shows a packet to those who want to see it.
    pub fn show(&self, route: &Route, protocol: u32, message: &[u8]) {
        for socket in self.live().iter().filter(|socket| socket.base.kind == Kind::Raw) {
            socket.see(route, protocol, message);
        }
    }

    /// A packet arrives: raw sockets see it, echo requests are answered, answers go to who asked.
    fn arrive(&self, route: &Route, protocol: u32, message: &[u8]) {
        self.show(route, protocol, message);
        let v4 = route.to.is_ipv4();
        if protocol != if v4 { ICMP } else { ICMPV6 } {
            return;
        }
        if let Some((back, reply)) = icmp::answer(route, message) {
            self.arrive(&back, protocol, &reply);
        } else if icmp::is_reply(v4, message) {
            let asked = |socket: &&Arc<RawSocket>| {
                socket.base.kind == Kind::Datagram && socket.is_v4() == v4 && icmp::number(message) == Some(socket.state.lock().number)
            };
            if let Some(socket) = self.live().iter().find(asked) {
                socket.put(route, message);
            }
        }
    }
}

impl RawSocket {
    /// A socket for packets of `protocol`, or with [`Kind::Datagram`] for echo requests.
    pub fn new(inet: &Arc<Inet>, domain: u32, kind: Kind, protocol: u32) -> Arc<Self> {
        let (any, membership) = (address::any(domain).ip(), Membership::default());
        let state = State { local: any, remote: None, number: 0, filter: [0; 8], reads_ended: false, writes_ended: false, membership };
        let socket = Arc::new_cyclic(|this| Self {
            base: Base::new(domain, kind, protocol),
            inet: Arc::clone(inet),
            state: Mutex::new(state),
            inbox: Inbox::default(),
            this: this.clone(),
        });
        inet.packets.sockets.lock().push(Arc::downgrade(&socket));
        inet.packets.count.fetch_add(1, Ordering::Relaxed);
        socket
    }

    fn is_v4(&self) -> bool {
        self.base.domain == raw_net::AF_INET
    }

    /// Takes a packet if it is one that this socket was made, bound and connected for.
    fn see(&self, route: &Route, protocol: u32, message: &[u8]) {
        let wanted = {
            let state = self.state.lock();
            let kind = usize::from(message.first().copied().unwrap_or(0));
            let is_icmp = matches!(protocol, ICMP | ICMPV6);
            let filtered = is_icmp && state.filter[kind / 32] & 1 << (kind % 32) != 0;
            self.is_v4() == route.to.is_ipv4()
                && self.base.protocol == protocol
                && (state.local.is_unspecified() || state.local == route.to.ip())
                && state.remote.is_none_or(|remote| remote.ip() == route.from.ip())
                && !filtered
        };
        if !wanted {
            return;
        }
        if self.is_v4() {
            self.put(route, &[&icmp::ip_header(route, protocol, message.len())[..], message].concat());
        } else {
            self.put(route, message);
        }
    }

    fn put(&self, route: &Route, bytes: &[u8]) {
        let capacity = self.base.options.lock().receive_buffer as usize;
        let make = |bytes| Datagram { bytes, about: *route, sender: Credentials::default(), time: crate::time::realtime(), rights: None };
        // Packets that find no room are lost.
        if self.inbox.put(&mut Source::own(bytes), capacity, &self.base.endpoint, make).is_ok() {
            self.base.endpoint.readable();
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Given, Errno> {
        address::decode(self.base.domain, bytes)
    }

    fn destination(&self, message: &Outgoing<'_>, state: &State) -> Result<SocketAddr, Errno> {
        let to = match message.address {
            None => state.remote.ok_or(Errno::EDESTADDRREQ)?,
            Some(bytes) => match self.decode(bytes)? {
                Given::Address(to) => to,
                Given::Unspecified if self.is_v4() => address::decode_v4(bytes)?,
                Given::Unspecified => state.remote.ok_or(Errno::EDESTADDRREQ)?,
            },
        };
        let to = address::target(to);
        if groups::is_broadcast(to.ip()) && !self.base.options.lock().has(raw_net::SO_BROADCAST) {
            return Err(Errno::EACCES);
        }
        super::check_route(&self.inet, &self.base, to.ip())?;
        Ok(SocketAddr::new(to.ip(), 0))
    }

    /// An echo socket's number, chosen now if it has none.
    fn ensure_number(&self) -> u16 {
        let own = self.state.lock().number;
        if own != 0 {
            return own;
        }
        let used: Vec<u16> = self.inet.packets.live().iter().map(|socket| socket.state.lock().number).collect();
        let first = (crate::time::monotonic_ns() % u64::from(u16::MAX)) as u16;
        let number = (0..u16::MAX).map(|step| first.wrapping_add(step)).find(|number| *number != 0 && !used.contains(number)).unwrap_or(1);
        self.state.lock().number = number;
        number
    }

    /// An echo request of this socket's: only such are sent, with its own number.
    fn echo(&self, message: &mut [u8], route: &Route) -> Result<(), Errno> {
        if message.len() < icmp::HEADER || !icmp::is_request(self.is_v4(), message) || message[1] != 0 {
            return Err(Errno::EINVAL);
        }
        message[4..6].copy_from_slice(&self.ensure_number().to_be_bytes());
        icmp::fill_checksum(message, 2, route, self.base.protocol);
        Ok(())
    }

    fn standing(&self) -> Standing {
        let state = self.state.lock();
        let number = if self.base.kind == Kind::Raw { self.base.protocol as u16 } else { state.number };
        Standing { number, peer: state.remote }
    }

    /// Whether it is a raw socket for a protocol whose messages it may choose from.
    fn filters(&self, protocol: u32) -> bool {
        self.base.protocol == protocol && self.base.kind == Kind::Raw
    }

    /// Whether it is a raw socket for another protocol than the level's, asked for the filter.
    fn lacks_filter(&self, level: i32, name: i32) -> bool {
        let own = if self.is_v4() { name == FILTER && level == LEVEL_RAW } else { level == LEVEL_ICMPV6 };
        let protocol = if self.is_v4() { ICMP } else { ICMPV6 };
        self.base.kind == Kind::Raw && own && self.base.protocol != protocol
    }

    fn filter(&self) -> Vec<u8> {
        self.state.lock().filter.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// Whether an option is one that only raw v6 sockets have: where the checksum is, and whether programs write headers.
    fn is_own(&self, name: i32) -> bool {
        !self.is_v4() && self.base.kind == Kind::Raw && matches!(name as u32, IPV6_CHECKSUM | IPV6_HDRINCL)
    }

    fn set_checksum(&self, level: i32, name: i32, number: i32) -> Result<(), Errno> {
        let number = match name as u32 {
            IPV6_HDRINCL => i32::from(number != 0),
            // Messages of ICMP have theirs where it has always been; no other begins at an odd place.
            _ if self.base.protocol == ICMPV6 && level == LEVEL_IPV6 => return Err(Errno::EINVAL),
            _ if number > 0 && number & 1 == 1 => return Err(Errno::EINVAL),
            _ => number.max(-1),
        };
        self.base.options.lock().set_number(LEVEL_RAW, name, number);
        Ok(())
    }

    fn has_headers(&self) -> bool {
        self.is_v4() && self.base.kind == Kind::Raw && self.base.options.lock().is_set(LEVEL_IP, IP_HDRINCL)
    }

    /// Sends what begins with a v4 header that the program wrote.
    fn send_packet(&self, bytes: &[u8], to: SocketAddr) -> Result<(), Errno> {
        let header = bytes.get(..icmp::IP_HEADER).ok_or(Errno::EINVAL)?;
        let length = usize::from(header[0] & 0xf) * 4;
        if length < icmp::IP_HEADER || length > bytes.len() {
            return Err(Errno::EINVAL);
        }
        let ip = |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let from = if ip(12).is_unspecified() { self.inet.local.source_for(to.ip()) } else { ip(12) };
        let route = Route { from: SocketAddr::new(from, 0), to: SocketAddr::new(ip(16), 0), hops: header[8], class: header[1] };
        self.inet.packets.arrive(&route, u32::from(header[9]), &bytes[length..]);
        Ok(())
    }
}

impl Socket for RawSocket {
    fn base(&self) -> &Base {
        &self.base
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, _task: &Arc<Task>, address: &[u8]) -> Result<(), Errno> {
        let Given::Address(to) = self.decode(address)? else { return Err(Errno::EAFNOSUPPORT) };
        super::check_bind(&self.inet, &self.base, None, to.ip(), 0)?;
        if self.base.kind == Kind::Datagram {
            let taken = |other: &Arc<Self>| !std::ptr::eq(&raw const **other, self) && other.state.lock().number == to.port();
            if to.port() != 0 && self.inet.packets.live().iter().any(taken) {
                return Err(Errno::EADDRINUSE);
            }
            if self.state.lock().number != 0 {
                return Err(Errno::EINVAL);
            }
            self.state.lock().number = to.port();
            self.ensure_number();
        }
        self.state.lock().local = to.ip();
        Ok(())
    }

    fn connect(&self, _task: &Arc<Task>, address: &[u8], _nonblocking: bool) -> Result<(), Errno> {
        match self.decode(address)? {
            Given::Unspecified => self.state.lock().remote = None,
            Given::Address(to) => {
                let to = address::target(to);
                super::check_route(&self.inet, &self.base, to.ip())?;
                if self.base.kind == Kind::Datagram {
                    self.ensure_number();
                }
                let mut state = self.state.lock();
                state.remote = Some(to);
                if state.local.is_unspecified() {
                    state.local = self.inet.local.source_for(to.ip());
                }
            }
        }
        Ok(())
    }

    fn send(&self, source: &mut Source<'_>, message: &mut Outgoing<'_>) -> Result<usize, Errno> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let length = source.remaining();
        let header = if self.is_v4() && !self.has_headers() { icmp::IP_HEADER } else { 0 };
        if length + header > LONGEST {
            return Err(Errno::EMSGSIZE);
        }
        if self.has_headers() && length < icmp::IP_HEADER {
            return Err(Errno::EINVAL);
        }
        let wishes = Wishes::decode(&self.inet.local, self.base.domain, self.is_v4(), &message.controls)?;
        let (from, to) = {
            let state = self.state.lock();
            let to = self.destination(message, &state)?;
            if state.writes_ended {
                return Err(Errno::EPIPE);
            }
            let local = Some(state.local).filter(|local| !local.is_unspecified() && !local.is_multicast());
            (wishes.source.or(local).unwrap_or_else(|| self.inet.local.source_for(to.ip())), to)
        };
        let mut bytes = source.take_vec(length)?;
        if self.has_headers() {
            return self.send_packet(&bytes, to).map(|()| length);
        }
        let (hops, class) = wishes.marks(&self.base.options.lock(), to.ip());
        let route = Route { from: SocketAddr::new(from, 0), to, hops, class };
        if self.base.kind == Kind::Datagram {
            self.echo(&mut bytes, &route)?;
        } else if self.base.protocol == ICMPV6 {
            icmp::fill_checksum(&mut bytes, 2, &route, ICMPV6);
        }
        self.inet.packets.arrive(&route, self.base.protocol, &bytes);
        Ok(length)
    }

    fn receive(&self, destination: &mut Destination<'_>, flags: u32) -> Result<Incoming, Errno> {
        if flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if flags & MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
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
        let state = self.state.lock();
        // Where others have a port, raw sockets show their protocol.
        let port = if self.base.kind == Kind::Raw { self.base.protocol as u16 } else { state.number };
        Ok(address::encode(self.base.domain, SocketAddr::new(state.local, port)))
    }

    fn peer_address(&self) -> Result<Vec<u8>, Errno> {
        let remote = self.state.lock().remote.ok_or(Errno::ENOTCONN)?;
        Ok(address::encode(self.base.domain, remote))
    }

    fn set_option(&self, task: &Arc<Task>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let own = if self.is_v4() { LEVEL_IP } else { LEVEL_IPV6 };
        if level == own
            && let Some(result) = self.state.lock().membership.set_option(&self.inet.groups, self.base.domain, level, name, value)
        {
            return result;
        }
        match level {
            LEVEL_RAW if self.filters(ICMP) && name == FILTER => {
                // Fewer bytes change the first ones.
                let mut bytes = self.state.lock().filter[0].to_ne_bytes();
                bytes.iter_mut().zip(value).for_each(|(own, given)| *own = *given);
                self.state.lock().filter = [u32::from_ne_bytes(bytes), 0, 0, 0, 0, 0, 0, 0];
                Ok(())
            }
            LEVEL_ICMPV6 if self.filters(ICMPV6) && name == FILTER => {
                let mut bytes = self.filter();
                bytes.iter_mut().zip(value).for_each(|(own, given)| *own = *given);
                let words = bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
                self.state.lock().filter.iter_mut().zip(words).for_each(|(own, given)| *own = given);
                Ok(())
            }
            LEVEL_RAW | LEVEL_ICMPV6 if self.lacks_filter(level, name) => Err(Errno::EOPNOTSUPP),
            LEVEL_RAW if self.is_v4() => Err(Errno::ENOPROTOOPT),
            LEVEL_RAW | LEVEL_IPV6 if self.is_own(name) => self.set_checksum(level, name, options::int(level, value)?),
            LEVEL_RAW => options::int(level, value).and(Err(Errno::ENOPROTOOPT)),
            _ => inet_options::set(&self.base, task, self.standing(), level, name, value)
                .unwrap_or_else(|| options::set(&self.base, task, level, name, value)),
        }
    }

    fn option(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>, Errno> {
        let own = if self.is_v4() { LEVEL_IP } else { LEVEL_IPV6 };
        if level == own
            && let Some(value) = self.state.lock().membership.option(level, name)
        {
            return Ok(value);
        }
        match level {
            LEVEL_RAW if self.filters(ICMP) && name == FILTER => Ok(self.filter()[..4].to_vec()),
            LEVEL_ICMPV6 if self.filters(ICMPV6) && name == FILTER => Ok(self.filter()),
            LEVEL_RAW | LEVEL_IPV6 if self.is_own(name) => {
                let default = match name as u32 {
                    IPV6_HDRINCL => 0,
                    _ if self.base.protocol == ICMPV6 => ICMPV6_CHECKSUM,
                    _ => -1,
                };
                Ok(self.base.options.lock().number(LEVEL_RAW, name).unwrap_or(default).to_ne_bytes().to_vec())
            }
            LEVEL_RAW | LEVEL_ICMPV6 if self.lacks_filter(level, name) => Err(Errno::EOPNOTSUPP),
            LEVEL_RAW => Err(Errno::ENOPROTOOPT),
            _ => inet_options::get(&self.base, self.standing(), level, name, length)
                .unwrap_or_else(|| options::get(&self.base, level, name, length)),
        }
    }

    fn poll(&self) -> PollEvents {
        let state = self.state.lock();
        let mut events = PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND;
        if state.reads_ended || !self.inbox.is_empty() {
            events |= PollEvents::IN | PollEvents::RDNORM;
        }
        if state.reads_ended {
            events |= PollEvents::RDHUP;
        }
        if state.reads_ended && state.writes_ended {
            events |= PollEvents::HUP;
        }
        events
    }

    fn ioctl(&self, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        interface::datagram_ioctl(task, request, argument, || self.inbox.next_length())
    }

    fn close(&self) {
        let mut sockets = self.inet.packets.sockets.lock();
        let before = sockets.len();
        sockets.retain(|socket| !socket.ptr_eq(&self.this));
        self.inet.packets.count.fetch_sub(before - sockets.len(), Ordering::Relaxed);
        drop(sockets);
        self.state.lock().membership.clear(&self.inet.groups);
        self.inbox.close();
    }
}

/// A raw socket for [`RAW`] only sends: packets come with their headers.
pub fn sends_headers(protocol: u32) -> bool {
    protocol == RAW
}
