//! How datagrams leave: where to, held back (`MSG_MORE`, `UDP_CORK`) or cut in pieces (`UDP_SEGMENT`), and to whom they are handed, `udp(7)`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Weak;

use cloudpilot_abi::{Errno, raw_net};

use super::{LONGEST, PACKET_HEADER, UdpSocket};
use crate::io::Source;
use crate::net::inbox::Datagram;
use crate::net::inet::address::{self, Given};
use crate::net::inet::ancillary::{Route, Wishes};
use crate::net::inet::reports::{IP_RECVERR, IPV6_RECVERR};
use crate::net::inet::{check_route, groups};
use crate::net::message::{Credentials, MSG_MORE, MSG_OOB, Outgoing};
use crate::net::options::{LEVEL_IP, LEVEL_IPV6, LEVEL_UDP};
use crate::net::{Base, budget};

/// `UDP_CORK`: until it is taken back, all that is sent is one datagram.
pub(super) const CORK: i32 = 1;
/// `UDP_SEGMENT`: how long the pieces are that a message is cut into; also control data of one message.
const SEGMENT: i32 = 103;
/// Most pieces of one message, `UDP_MAX_SEGMENTS`.
const MOST_SEGMENTS: usize = 128;

/// A datagram that is not whole yet.
pub(super) struct Held {
    bytes: Vec<u8>,
    route: Route,
    sender: Credentials,
    connected: bool,
}

impl Held {
    /// Adds a message's bytes, which count among those that wait in sockets. `ENOBUFS` if there are too many of them: nobody would wake a
    /// sender that waits.
    fn extend(&mut self, source: &mut Source<'_>) -> Result<(), Errno> {
        let length = source.remaining();
        if budget::grant(length, self.bytes.is_empty()) < length {
            return Err(Errno::ENOBUFS);
        }
        self.bytes.extend(whole(source)?);
        budget::charge(length);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        budget::release(self.bytes.len());
    }
}

impl UdpSocket {
    /// Who speaks to everybody must have said that this is meant.
    pub(super) fn check_broadcast(&self, ip: IpAddr) -> Result<(), Errno> {
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
        check_route(&self.inet, &self.base, to.ip())?;
        Ok(to)
    }

    /// How a message travels, and whether the socket is connected to where it goes.
    fn route(&self, message: &Outgoing<'_>) -> Result<(Route, bool), Errno> {
        let mut state = self.state.lock();
        if state.writes_ended {
            return Err(Errno::EPIPE);
        }
        let to = self.destination(message.address, state.remote)?;
        let wishes = Wishes::decode(&self.inet.local, self.base.domain, to.is_ipv4(), &message.controls)?;
        if let Some(errno) = self.base.endpoint.take_error() {
            return Err(errno);
        }
        self.ensure_port(&mut state, message.task)?;
        let local = Some(state.local.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && !groups::is_broadcast(*ip));
        let chosen = if to.ip().is_multicast() { state.membership.source(to.ip()) } else { None };
        let ip = wishes.source.or(local).or(chosen).unwrap_or_else(|| self.inet.local.source_for(to.ip()));
        let (hops, class) = wishes.marks(&self.base.options.lock(), to.ip());
        let from = SocketAddr::new(ip, state.local.port());
        Ok((Route { from, to, hops, class }, state.remote == Some(to)))
    }

    /// `sendmsg(2)`.
    pub(super) fn send_message(&self, source: &mut Source<'_>, message: &mut Outgoing<'_>) -> Result<usize, Errno> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let length = source.remaining();
        if length > LONGEST {
            return Err(Errno::EMSGSIZE);
        }
        let (corked, segment) = {
            let options = self.base.options.lock();
            (options.is_set(LEVEL_UDP, CORK), options.number(LEVEL_UDP, SEGMENT).unwrap_or(0))
        };
        let goes_on = corked || message.flags & MSG_MORE != 0;
        // The lock is not held meanwhile: what goes on is put back.
        let held = self.held.lock().take();
        if let Some(held) = held {
            return self.continue_held(held, source, goes_on);
        }
        let (route, connected) = self.route(message)?;
        let segment = wanted_segment(message)?.unwrap_or(segment as usize);
        let pieces = if segment == 0 { 1 } else { length.div_ceil(segment) };
        if pieces > MOST_SEGMENTS {
            return Err(Errno::EINVAL);
        }
        if !goes_on && pieces <= 1 && !groups::is_many(route.to) && self.inet.packets.is_empty() {
            self.deliver(source, &route, message.sender, connected)?;
            return Ok(length);
        }
        if goes_on {
            let mut held = Held { bytes: Vec::new(), route, sender: message.sender, connected };
            held.extend(source)?;
            *self.held.lock() = Some(held);
            return Ok(length);
        }
        let bytes = whole(source)?;
        if bytes.is_empty() {
            self.send_bytes(&bytes, &route, message.sender, connected)?;
        }
        for piece in bytes.chunks(if segment == 0 { LONGEST } else { segment }) {
            self.send_bytes(piece, &route, message.sender, connected)?;
        }
        Ok(length)
    }

    /// Adds to what is held back; it goes where its first part was sent.
    fn continue_held(&self, mut held: Held, source: &mut Source<'_>, goes_on: bool) -> Result<usize, Errno> {
        let length = source.remaining();
        if held.bytes.len() + length > LONGEST {
            // What does not fit takes all of it along.
            return Err(Errno::EMSGSIZE);
        }
        held.extend(source)?;
        if goes_on {
            *self.held.lock() = Some(held);
        } else {
            self.send_bytes(&held.bytes, &held.route, held.sender, held.connected)?;
        }
        Ok(length)
    }

    /// Sends what is held back, now that nothing more is to come.
    pub(super) fn release_held(&self) -> Result<(), Errno> {
        let held = self.held.lock().take();
        held.map_or(Ok(()), |held| self.send_bytes(&held.bytes, &held.route, held.sender, held.connected))
    }

    fn send_bytes(&self, bytes: &[u8], route: &Route, sender: Credentials, connected: bool) -> Result<(), Errno> {
        if !self.inet.packets.is_empty() {
            self.show(bytes, route);
        }
        self.deliver(&mut Source::own(bytes), route, sender, connected)
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
}

/// All of a message's bytes.
fn whole(source: &mut Source<'_>) -> Result<Vec<u8>, Errno> {
    let length = source.remaining();
    let bytes = source.take_vec(length)?;
    if bytes.len() < length { Err(Errno::EFAULT) } else { Ok(bytes) }
}

/// `UDP_SEGMENT` as control data.
fn wanted_segment(message: &Outgoing<'_>) -> Result<Option<usize>, Errno> {
    let mut wanted = None;
    for control in message.controls.iter().filter(|control| control.level == LEVEL_UDP) {
        let bytes = <[u8; 2]>::try_from(control.bytes.as_slice()).map_err(|_| Errno::EINVAL)?;
        if control.kind != SEGMENT {
            return Err(Errno::EINVAL);
        }
        wanted = Some(usize::from(u16::from_ne_bytes(bytes)));
    }
    Ok(wanted)
}
