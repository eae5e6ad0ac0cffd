//! What travels with a datagram beside its bytes: addresses, hop limit, class of traffic; asked for by options and control data, `ip(7)`, `ipv6(7)`.

use std::net::{IpAddr, SocketAddr};

use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, raw_net};

use super::address;
use super::local::Local;
use crate::net::interface;
use crate::net::message::Control;
use crate::net::options::{
    IP_PKTINFO, IP_RECVORIGDSTADDR, IP_RECVTOS, IP_RECVTTL, IP_TOS, IP_TTL, IPV6_RECVHOPLIMIT, IPV6_RECVORIGDSTADDR, IPV6_RECVPKTINFO,
    IPV6_RECVTCLASS, LEVEL_IP, LEVEL_IPV6, Options,
};

const IPV6_PKTINFO: i32 = 50;
const IPV6_HOPLIMIT: i32 = 52;
const IPV6_TCLASS: i32 = 67;
/// `IPV6_2292PKTINFO`, `IPV6_2292HOPLIMIT`: how older programs say it.
const IPV6_OLD_PKTINFO: i32 = 2;
const IPV6_OLD_HOPLIMIT: i32 = 8;
const IPV6_DONTFRAG: i32 = 62;
const IPV6_UNICAST_HOPS: i32 = 16;
const IPV6_MULTICAST_HOPS: i32 = 18;
const IP_MULTICAST_TTL: i32 = 33;
/// `IP_RETOPTS`: options of the header, which no packet here has.
const IP_RETOPTS: i32 = 7;
/// What a packet may travel unless somebody says otherwise, and a packet to a group.
const HOPS: u8 = 64;
const GROUP_HOPS: u8 = 1;

/// Where a datagram came from, where it was sent to, and how.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Sender.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// Hops left.
    pub hops: u8,
    /// Class of traffic.
    pub class: u8,
}

/// What the control data of a message asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Address to send from.
    pub source: Option<IpAddr>,
    /// Hops.
    pub hops: Option<u8>,
    /// Class of traffic.
    pub class: Option<u8>,
}

fn number(bytes: &[u8]) -> Result<i32, Errno> {
    <[u8; 4]>::try_from(bytes).map(i32::from_ne_bytes).map_err(|_| Errno::EINVAL)
}

/// A number from 0 to 255; -1 leaves the default.
fn octet_or_default(bytes: &[u8]) -> Result<Option<u8>, Errno> {
    match number(bytes)? {
        -1 => Ok(None),
        number => u8::try_from(number).map(Some).map_err(|_| Errno::EINVAL),
    }
}

/// The address of a `struct in_pktinfo` or `in6_pktinfo`; none leaves it to us. The interface must be one that there is.
fn source(own: &Local, index: &[u8], ip: IpAddr) -> Result<Option<IpAddr>, Errno> {
    let index = number(index)? as u32;
    if index > interface::LOOPBACK_INDEX {
        return Err(Errno::ENODEV);
    }
    if ip.is_unspecified() {
        return Ok(None);
    }
    let known = own.has(ip);
    match ip {
        _ if known => Ok(Some(ip)),
        IpAddr::V4(_) => Err(Errno::ENETUNREACH),
        IpAddr::V6(_) => Err(Errno::EINVAL),
    }
}

impl Wishes {
    /// Decodes control data for a socket of `domain` and a destination that is v4 or not.
    pub fn decode(own: &Local, domain: u32, v4: bool, controls: &[Control]) -> Result<Self, Errno> {
        let mut wishes = Self::default();
        for control in controls {
            let bytes = control.bytes.as_slice();
            match control.level {
                LEVEL_IP if v4 => wishes.note_v4(own, control.kind, bytes)?,
                LEVEL_IPV6 if domain == raw_net::AF_INET6 && !v4 => wishes.note_v6(own, control.kind, bytes)?,
                // What is meant for other protocols is none of ours.
                _ => {}
            }
        }
        Ok(wishes)
    }

    fn note_v4(&mut self, own: &Local, kind: i32, bytes: &[u8]) -> Result<(), Errno> {
        match kind {
            IP_TTL => match number(bytes)? {
                hops @ 1..=255 => self.hops = Some(hops as u8),
                _ => return Err(Errno::EINVAL),
            },
            IP_TOS if bytes.len() == 1 => self.class = Some(bytes[0]),
            IP_TOS => self.class = Some(u8::try_from(number(bytes)?).map_err(|_| Errno::EINVAL)?),
            IP_PKTINFO => {
                let bytes: &[u8; 12] = bytes.try_into().map_err(|_| Errno::EINVAL)?;
                let ip = std::net::Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
                self.source = source(own, &bytes[..4], IpAddr::V4(ip))?;
            }
            IP_RETOPTS => {}
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    fn note_v6(&mut self, own: &Local, kind: i32, bytes: &[u8]) -> Result<(), Errno> {
        match kind {
            IPV6_HOPLIMIT | IPV6_OLD_HOPLIMIT => self.hops = octet_or_default(bytes)?,
            IPV6_TCLASS => self.class = octet_or_default(bytes)?,
            IPV6_PKTINFO | IPV6_OLD_PKTINFO => {
                let ip: [u8; 16] = bytes.get(..16).and_then(|ip| ip.try_into().ok()).ok_or(Errno::EINVAL)?;
                self.source = source(own, &bytes[16..], IpAddr::V6(ip.into()))?;
            }
            IPV6_DONTFRAG => drop(number(bytes)?),
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// Hops and class of a datagram to `to`: as wished, else as the socket's options say.
    pub fn marks(&self, options: &Options, to: IpAddr) -> (u8, u8) {
        let (hops_option, class_option) = match (to, to.is_multicast()) {
            (IpAddr::V4(_), false) => ((LEVEL_IP, IP_TTL), (LEVEL_IP, IP_TOS)),
            (IpAddr::V4(_), true) => ((LEVEL_IP, IP_MULTICAST_TTL), (LEVEL_IP, IP_TOS)),
            (IpAddr::V6(_), false) => ((LEVEL_IPV6, IPV6_UNICAST_HOPS), (LEVEL_IPV6, IPV6_TCLASS)),
            (IpAddr::V6(_), true) => ((LEVEL_IPV6, IPV6_MULTICAST_HOPS), (LEVEL_IPV6, IPV6_TCLASS)),
        };
        let set = |(level, name)| options.number(level, name).and_then(|value| u8::try_from(value).ok());
        let hops = self.hops.or_else(|| set(hops_option)).unwrap_or(if to.is_multicast() { GROUP_HOPS } else { HOPS });
        (hops, self.class.or_else(|| set(class_option)).unwrap_or(0))
    }
}

/// Control data about a datagram, for a receiver with these options.
pub fn about(options: &Options, domain: u32, route: &Route, time: Timespec) -> Vec<Control> {
    let mut controls = options.timestamps(time);
    let mut put = |level, kind, bytes: &[u8]| controls.push(Control { level, kind, bytes: bytes.to_vec() });
    let index = interface::LOOPBACK_INDEX.to_ne_bytes();
    let v6 = match route.to.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    if domain == raw_net::AF_INET6 && options.is_set(LEVEL_IPV6, IPV6_RECVPKTINFO) {
        put(LEVEL_IPV6, IPV6_PKTINFO, &[&v6.octets()[..], &index].concat());
    }
    match route.to.ip() {
        IpAddr::V4(ip) => {
            if options.is_set(LEVEL_IP, IP_PKTINFO) {
                // Where answers should come from: for a group that is the interface's own address.
                let IpAddr::V4(own) = (if ip.is_loopback() { route.to.ip() } else { address::source_for(route.to.ip()) }) else {
                    return controls;
                };
                put(LEVEL_IP, IP_PKTINFO, &[&index[..], &own.octets(), &ip.octets()].concat());
            }
            if options.is_set(LEVEL_IP, IP_RECVTTL) {
                put(LEVEL_IP, IP_TTL, &i32::from(route.hops).to_ne_bytes());
            }
            if options.is_set(LEVEL_IP, IP_RECVTOS) {
                put(LEVEL_IP, IP_TOS, &[route.class]);
            }
            if options.is_set(LEVEL_IP, IP_RECVORIGDSTADDR) {
                put(LEVEL_IP, IP_RECVORIGDSTADDR, &address::encode(raw_net::AF_INET, route.to));
            }
        }
        IpAddr::V6(_) => {
            if options.is_set(LEVEL_IPV6, IPV6_RECVHOPLIMIT) {
                put(LEVEL_IPV6, IPV6_HOPLIMIT, &i32::from(route.hops).to_ne_bytes());
            }
            if options.is_set(LEVEL_IPV6, IPV6_RECVTCLASS) {
                put(LEVEL_IPV6, IPV6_TCLASS, &i32::from(route.class).to_ne_bytes());
            }
            if options.is_set(LEVEL_IPV6, IPV6_RECVORIGDSTADDR) {
                put(LEVEL_IPV6, IPV6_RECVORIGDSTADDR, &address::encode(raw_net::AF_INET6, route.to));
            }
        }
    }
    controls
}
