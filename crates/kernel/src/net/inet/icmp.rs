//! ICMP, as much as a host's own loopback has of it: echo requests are answered. Packets to and from raw sockets.

use std::net::{IpAddr, Ipv4Addr};

use super::ancillary::Route;

/// `IPPROTO_ICMP`.
pub const ICMP: u32 = 1;
/// `IPPROTO_ICMPV6`.
pub const ICMPV6: u32 = 58;
/// Kinds of messages.
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Bytes of a header: kind, code, checksum, number, sequence.
pub const HEADER: usize = 8;
/// Bytes of a v4 packet's header without options.
pub const IP_HEADER: usize = 20;

/// The internet's checksum.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// What a v6 checksum counts beside the message.
fn pseudo_header(route: &Route, protocol: u32, length: usize) -> Vec<u8> {
    match (route.from.ip(), route.to.ip()) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            [&from.octets()[..], &to.octets(), &(length as u32).to_be_bytes(), &[0, 0, 0, protocol as u8]].concat()
        }
        _ => Vec::new(),
    }
}

/// Fills in the checksum of a message whose place for it is at `at`.
pub fn fill_checksum(message: &mut [u8], at: usize, route: &Route, protocol: u32) {
    if message.len() < at + 2 {
        return;
    }
    message[at..at + 2].fill(0);
    let sum = checksum(&[&pseudo_header(route, protocol, message.len()), message]);
    message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// A request to echo, by its kind.
pub fn is_request(v4: bool, message: &[u8]) -> bool {
    message.first() == Some(if v4 { &ECHO_REQUEST } else { &ECHO_REQUEST_V6 })
}

/// An answer to such a request.
pub fn is_reply(v4: bool, message: &[u8]) -> bool {
    message.first() == Some(if v4 { &ECHO_REPLY } else { &ECHO_REPLY_V6 })
}

/// The number that tells requests of one socket from those of others.
pub fn number(message: &[u8]) -> Option<u16> {
    message.get(4..6).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// The answer to a message that arrived; none if it gets none: only whole, undamaged requests are answered.
pub fn answer(route: &Route, message: &[u8]) -> Option<(Route, Vec<u8>)> {
    let v4 = route.to.is_ipv4();
    let protocol = if v4 { ICMP } else { ICMPV6 };
    let intact = checksum(&[&pseudo_header(route, protocol, message.len()), message]) == 0;
    if message.len() < HEADER || !is_request(v4, message) || !intact {
        return None;
    }
    let back = Route { from: route.to, to: route.from, ..*route };
    let mut reply = message.to_vec();
    reply[0] = if v4 { ECHO_REPLY } else { ECHO_REPLY_V6 };
    fill_checksum(&mut reply, 2, &back, protocol);
    Some((back, reply))
}

/// A v4 header as raw sockets read it.
pub fn ip_header(route: &Route, protocol: u32, length: usize) -> [u8; IP_HEADER] {
    let octets = |ip| match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let mut header = [0; IP_HEADER];
    header[0] = 0x45;
    header[1] = route.class;
    header[2..4].copy_from_slice(&((IP_HEADER + length) as u16).to_be_bytes());
    header[8] = route.hops;
    header[9] = protocol as u8;
    header[12..16].copy_from_slice(&octets(route.from.ip()).octets());
    header[16..].copy_from_slice(&octets(route.to.ip()).octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}
