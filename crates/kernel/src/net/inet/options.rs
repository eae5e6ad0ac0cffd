//! Options of the internet's sockets that are more than a number in the table, or depend on what the socket is doing: `ip(7)`, `ipv6(7)`.

use std::net::SocketAddr;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw_net};

use crate::net::options::{self, LEVEL_IP, LEVEL_IPV6, encode, is_administrator, may_forge};
use crate::net::{Base, Kind, interface};
use crate::task::Task;

/// What a socket is doing, as far as options depend on it.
#[derive(Clone, Copy, Default)]
pub struct Standing {
    /// Its port, or a raw socket's protocol; 0 is none.
    pub number: u16,
    /// Whom it is connected to.
    pub peer: Option<SocketAddr>,
}

/// Most bytes of options in a v4 header.
const HEADER_OPTIONS: usize = 40;
/// Sizes of `struct ipv6_mreq`, `struct in6_pktinfo`, `struct ip6_mtuinfo`, and of what asks for a filter of sources.
const REQUEST_V6: usize = 20;
const PACKET_INFO_V6: usize = 20;
const PATH_MTU: usize = 32;
const SOURCES_V4: usize = 16;
const SOURCES_ANY: usize = 144;
/// The least path MTU of IPv6.
const LEAST_MTU: i32 = 1280;
/// The loopback interface's MTU; v4 packets cannot be as long.
const MTU_V4: i32 = 65_535;
const MTU_V6: i32 = 65_536;
/// What a packet may travel unless somebody says otherwise.
const HOPS: i32 = 64;
/// The bits of the type of service that belong to congestion control, not to programs.
const CONGESTION: i32 = 3;

/// Checks options of a v4 header and cuts them at their end, as they are sent: padded with "end of options" to whole words.
fn header_options(value: &[u8]) -> Result<Vec<u8>, Errno> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    if value.len() > HEADER_OPTIONS {
        return Err(Errno::EINVAL);
    }
    let mut bytes = value.to_vec();
    bytes.resize(value.len().next_multiple_of(4), END);
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            END => {
                bytes[at..].fill(END);
                break;
            }
            NOTHING => at += 1,
            _ => match bytes.get(at + 1).map(|length| usize::from(*length)) {
                Some(length) if length >= 2 && at + length <= bytes.len() => at += length,
                _ => return Err(Errno::EINVAL),
            },
        }
    }
    Ok(bytes)
}

/// An extension header of v6: none takes it back; it says itself how many units of eight bytes follow the first.
fn extension(base: &Base, task: &Task, name: u32, value: &[u8]) -> Result<usize, Errno> {
    if value.is_empty() {
        return Ok(0);
    }
    if !may_forge(base, task) {
        return Err(Errno::EPERM);
    }
    let length = (usize::from(*value.get(1).ok_or(Errno::EINVAL)?) + 1) * 8;
    if !value.len().is_multiple_of(8) || value.len() > 8 * 255 || length > value.len() {
        return Err(Errno::EINVAL);
    }
    // Routes are given by hand to mobile hosts only (kind 2), with one address.
    let is_route = value.len() >= 24 && value[1] == 2 && value[2] == 2 && value[3] == 1;
    if name == raw_net::IPV6_RTHDR && !is_route {
        return Err(Errno::EINVAL);
    }
    Ok(length)
}

/// `IPV6_ADDR_PREFERENCES`: of each pair one may be preferred.
fn preferences(wanted: i32, old: i32) -> Result<i32, Errno> {
    const TEMPORARY: i32 = raw_net::IPV6_PREFER_SRC_TMP as i32;
    const PUBLIC: i32 = raw_net::IPV6_PREFER_SRC_PUBLIC as i32;
    const EITHER: i32 = raw_net::IPV6_PREFER_SRC_PUBTMP_DEFAULT as i32;
    const CARE_OF: i32 = raw_net::IPV6_PREFER_SRC_COA as i32;
    const HOME: i32 = raw_net::IPV6_PREFER_SRC_HOME as i32;
    const GENERATED: i32 = (raw_net::IPV6_PREFER_SRC_CGA | raw_net::IPV6_PREFER_SRC_NONCGA) as i32;
    let one = |pair: i32, default: i32| {
        match wanted & pair {
            0 => Ok(old & pair),
            one if one.count_ones() == 1 => Ok(one),
            _ => Err(Errno::EINVAL),
        }
        .map(|one| if one == 0 { default } else { one })
    };
    if wanted & GENERATED == GENERATED {
        return Err(Errno::EINVAL);
    }
    Ok(one(TEMPORARY | PUBLIC | EITHER, EITHER)? | one(CARE_OF | HOME, HOME)?)
}

/// `IP_UNICAST_IF`, `IPV6_UNICAST_IF`: an interface's number, as it goes over the network.
fn unicast_interface(value: &[u8]) -> Result<i32, Errno> {
    let bytes: [u8; 4] = value.try_into().map_err(|_| Errno::EINVAL)?;
    let known = [0, interface::LOOPBACK_INDEX].contains(&u32::from_be_bytes(bytes));
    if known { Ok(i32::from_ne_bytes(bytes)) } else { Err(Errno::EADDRNOTAVAIL) }
}

/// `IP_LOCAL_PORT_RANGE`: the lowest and the highest port, each 0 for the system's own.
fn port_range(value: &[u8]) -> Result<i32, Errno> {
    let bytes: [u8; 4] = value.try_into().map_err(|_| Errno::EINVAL)?;
    let (low, high) = (u16::from_ne_bytes([bytes[0], bytes[1]]), u16::from_ne_bytes([bytes[2], bytes[3]]));
    if low != 0 && high != 0 && low > high { Err(Errno::EINVAL) } else { Ok(i32::from_ne_bytes(bytes)) }
}

fn set_v4(base: &Base, task: &Arc<Task>, name: u32, value: &[u8]) -> Option<Result<(), Errno>> {
    let keep = |number: i32| base.options.lock().set_number(LEVEL_IP, name as i32, number);
    let number = || options::int(LEVEL_IP, value);
    let stream = base.kind == Kind::Stream;
    Some(match name {
        raw_net::IP_OPTIONS => header_options(value).map(|bytes| base.options.lock().set_value(LEVEL_IP, name as i32, &bytes)),
        raw_net::IP_TOS if stream => {
            // What is no value at all is zero.
            keep(number().unwrap_or(0) & 0xff & !CONGESTION);
            Ok(())
        }
        raw_net::IP_TTL if number() == Ok(0) => Err(Errno::EINVAL),
        raw_net::IP_MULTICAST_TTL if !stream && number() == Ok(-1) => {
            keep(1);
            Ok(())
        }
        raw_net::IP_ROUTER_ALERT if base.kind == Kind::Raw => {
            let on = number().unwrap_or(0) != 0;
            match (on, base.options.lock().is_set(LEVEL_IP, name as i32)) {
                (true, true) => Err(Errno::EADDRINUSE),
                (false, false) => Err(Errno::ENOBUFS),
                _ => return None,
            }
        }
        raw_net::IP_TRANSPARENT if number().is_ok_and(|on| on != 0) && !is_administrator(base, task) && !may_forge(base, task) => {
            Err(Errno::EPERM)
        }
        // Security policies: there are none to be chosen from, and single ones are not made.
        raw_net::IP_IPSEC_POLICY | raw_net::IP_XFRM_POLICY => policy(base, task, name == raw_net::IP_XFRM_POLICY, value),
        raw_net::IP_UNICAST_IF => unicast_interface(value).map(keep),
        raw_net::IP_LOCAL_PORT_RANGE => port_range(value).map(keep),
        raw_net::IP_MULTICAST_IF if stream => Err(Errno::EINVAL),
        raw_net::IP_ADD_MEMBERSHIP | raw_net::IP_DROP_MEMBERSHIP if stream => Err(Errno::EPROTO),
        raw_net::IP_UNBLOCK_SOURCE..=raw_net::MCAST_MSFILTER => Err(Errno::EINVAL),
        _ => return None,
    })
}

fn policy(base: &Base, task: &Task, named: bool, value: &[u8]) -> Result<(), Errno> {
    Err(match (is_administrator(base, task), value.is_empty(), named) {
        (false, ..) => Errno::EPERM,
        (true, true, _) => Errno::EMSGSIZE,
        (true, false, true) => Errno::EINVAL,
        (true, false, false) => Errno::EOPNOTSUPP,
    })
}

fn set_v6(base: &Base, task: &Arc<Task>, standing: Standing, name: u32, value: &[u8]) -> Option<Result<(), Errno>> {
    let keep = |number: i32| base.options.lock().set_number(LEVEL_IPV6, name as i32, number);
    let number = || options::int(LEVEL_IPV6, value);
    let stream = base.kind == Kind::Stream;
    Some(match name {
        raw_net::IPV6_ADDRFORM => number().and_then(|domain| change_domain(base, standing, domain)),
        // What `IPV6_2292PKTOPTIONS` sets is for datagrams alone; single ones are not taken apart.
        raw_net::IPV6_2292PKTOPTIONS if value.len() >= 16 => Err(Errno::EINVAL),
        raw_net::IPV6_2292PKTOPTIONS => Ok(()),
        raw_net::IPV6_MULTICAST_HOPS if !stream && number() == Ok(-1) => {
            keep(1);
            Ok(())
        }
        raw_net::IPV6_MULTICAST_IF if stream => Err(Errno::ENOPROTOOPT),
        raw_net::IPV6_ADD_MEMBERSHIP | raw_net::IPV6_DROP_MEMBERSHIP if stream && value.len() >= REQUEST_V6 => Err(Errno::EPROTO),
        raw_net::IPV6_ADD_MEMBERSHIP | raw_net::IPV6_DROP_MEMBERSHIP if value.len() < REQUEST_V6 => Err(Errno::EINVAL),
        raw_net::IPV6_MTU => match number() {
            Ok(mtu) if mtu != 0 && mtu < LEAST_MTU => Err(Errno::EINVAL),
            Ok(_) => Ok(()),
            Err(errno) => Err(errno),
        },
        raw_net::IPV6_V6ONLY if standing.number != 0 || base.kind == Kind::Raw => Err(Errno::EINVAL),
        raw_net::IPV6_JOIN_ANYCAST | raw_net::IPV6_LEAVE_ANYCAST if value.len() < REQUEST_V6 => Err(Errno::EINVAL),
        raw_net::IPV6_JOIN_ANYCAST | raw_net::IPV6_LEAVE_ANYCAST => Err(Errno::ENODEV),
        raw_net::IPV6_FLOWLABEL_MGR => Err(Errno::EINVAL),
        raw_net::IPV6_IPSEC_POLICY | raw_net::IPV6_XFRM_POLICY => policy(base, task, name == raw_net::IPV6_XFRM_POLICY, value),
        raw_net::MCAST_JOIN_GROUP..=raw_net::MCAST_MSFILTER => Err(Errno::EINVAL),
        raw_net::IPV6_PKTINFO if value.len() < PACKET_INFO_V6 => Err(Errno::EINVAL),
        raw_net::IPV6_PKTINFO => {
            base.options.lock().set_value(LEVEL_IPV6, name as i32, &value[..PACKET_INFO_V6]);
            Ok(())
        }
        raw_net::IPV6_HOPOPTS | raw_net::IPV6_RTHDRDSTOPTS | raw_net::IPV6_RTHDR | raw_net::IPV6_DSTOPTS => {
            extension(base, task, name, value).map(|length| base.options.lock().set_value(LEVEL_IPV6, name as i32, &value[..length]))
        }
        raw_net::IPV6_TCLASS => match number() {
            Ok(class @ -1..=255) => {
                keep(if stream { class.max(0) & !CONGESTION } else { class.max(0) });
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        },
        raw_net::IPV6_ADDR_PREFERENCES => {
            let old = base.options.lock().number(LEVEL_IPV6, name as i32).unwrap_or(0);
            number().and_then(|wanted| preferences(wanted, old)).map(keep)
        }
        raw_net::IPV6_TRANSPARENT if number().is_ok_and(|on| on != 0) && !is_administrator(base, task) && !may_forge(base, task) => {
            Err(Errno::EPERM)
        }
        raw_net::IPV6_UNICAST_IF => unicast_interface(value).map(keep),
        _ => return None,
    })
}

/// `IPV6_ADDRFORM`: makes a v4 socket of one that speaks to a v4 peer. Ours keep their family, which shows in addresses only.
fn change_domain(base: &Base, standing: Standing, domain: i32) -> Result<(), Errno> {
    if domain != raw_net::AF_INET as i32 {
        return Err(Errno::EINVAL);
    }
    if base.kind == Kind::Raw {
        return Err(Errno::ENOPROTOOPT);
    }
    match standing.peer {
        None => Err(Errno::ENOTCONN),
        Some(_) => Err(Errno::EADDRNOTAVAIL),
    }
}

/// `setsockopt(2)` at the levels of the two protocols. None: a number of the table's, or nothing that is known.
pub fn set(base: &Base, task: &Arc<Task>, standing: Standing, level: i32, name: i32, value: &[u8]) -> Option<Result<(), Errno>> {
    match level {
        LEVEL_IP if base.domain == raw_net::AF_INET || base.kind != Kind::Raw => set_v4(base, task, name as u32, value),
        LEVEL_IPV6 if base.domain == raw_net::AF_INET6 => set_v6(base, task, standing, name as u32, value),
        _ => None,
    }
}

/// `getsockopt(2)` of the same; `length` is what the caller has room for.
pub fn get(base: &Base, standing: Standing, level: i32, name: i32, length: usize) -> Option<Result<Vec<u8>, Errno>> {
    match level {
        LEVEL_IP if base.domain == raw_net::AF_INET || base.kind != Kind::Raw => get_v4(base, standing, name as u32, length),
        LEVEL_IPV6 if base.domain == raw_net::AF_INET6 => get_v6(base, standing, name as u32, length),
        _ => None,
    }
}

fn get_v4(base: &Base, standing: Standing, name: u32, length: usize) -> Option<Result<Vec<u8>, Errno>> {
    let own = base.options.lock();
    let set = |default: i32| own.number(LEVEL_IP, name as i32).unwrap_or(default);
    let number = |number: i32| Ok(encode(LEVEL_IP, number, length));
    Some(match name {
        raw_net::IP_TTL => number(if set(-1) < 0 { HOPS } else { set(-1) }),
        raw_net::IP_OPTIONS => Ok(own.value(LEVEL_IP, name as i32).to_vec()),
        raw_net::IP_PKTOPTIONS if base.kind == Kind::Stream => Ok(Vec::new()),
        raw_net::IP_MTU if standing.peer.is_some() => number(MTU_V4),
        raw_net::IP_MTU => Err(Errno::ENOTCONN),
        raw_net::IP_MULTICAST_IF => Ok(vec![0; 4]),
        raw_net::IP_MSFILTER if length < SOURCES_V4 => Err(Errno::EINVAL),
        raw_net::IP_MSFILTER => Err(Errno::ENODEV),
        raw_net::MCAST_MSFILTER => Err(Errno::EINVAL),
        // Sockets of v6 hear only the groups that they joined themselves, unless they say otherwise.
        raw_net::IP_MULTICAST_ALL if base.domain == raw_net::AF_INET6 => number(set(0)),
        raw_net::IP_UNICAST_IF | raw_net::IP_LOCAL_PORT_RANGE => number(set(0)),
        raw_net::IP_PROTOCOL => number(i32::from(standing.number)),
        _ => return None,
    })
}

fn get_v6(base: &Base, standing: Standing, name: u32, length: usize) -> Option<Result<Vec<u8>, Errno>> {
    /// No preference of either pair.
    const NONE: i32 = (raw_net::IPV6_PREFER_SRC_PUBTMP_DEFAULT | raw_net::IPV6_PREFER_SRC_HOME) as i32;
    let own = base.options.lock();
    let set = |default: i32| own.number(LEVEL_IPV6, name as i32).unwrap_or(default);
    let number = |number: i32| Ok(number.to_ne_bytes().to_vec());
    Some(match name {
        raw_net::IPV6_ADDRFORM if base.kind == Kind::Raw => Err(Errno::ENOPROTOOPT),
        raw_net::IPV6_ADDRFORM if standing.peer.is_none() => Err(Errno::ENOTCONN),
        raw_net::IPV6_ADDRFORM => number(base.domain as i32),
        raw_net::IPV6_2292PKTOPTIONS if base.kind == Kind::Stream => Ok(Vec::new()),
        raw_net::IPV6_UNICAST_HOPS => number(if set(-1) < 0 { HOPS } else { set(-1) }),
        raw_net::IPV6_MULTICAST_IF => number(set(0)),
        raw_net::IPV6_MTU if standing.peer.is_some() => number(MTU_V6),
        raw_net::IPV6_MTU => Err(Errno::ENOTCONN),
        raw_net::IPV6_FLOWLABEL_MGR => Err(Errno::EINVAL),
        raw_net::MCAST_MSFILTER if length < SOURCES_ANY => Err(Errno::EINVAL),
        raw_net::MCAST_MSFILTER => Err(Errno::EADDRNOTAVAIL),
        raw_net::IPV6_HOPOPTS | raw_net::IPV6_RTHDRDSTOPTS | raw_net::IPV6_RTHDR | raw_net::IPV6_DSTOPTS => {
            Ok(own.value(LEVEL_IPV6, name as i32).to_vec())
        }
        raw_net::IPV6_PATHMTU if length < PATH_MTU => Err(Errno::EINVAL),
        raw_net::IPV6_PATHMTU => match standing.peer {
            None => Err(Errno::ENOTCONN),
            Some(_) => Ok([vec![0; PATH_MTU - 4], MTU_V6.to_ne_bytes().to_vec()].concat()),
        },
        raw_net::IPV6_ADDR_PREFERENCES => number(set(NONE)),
        raw_net::IPV6_UNICAST_IF => number(set(0)),
        _ => return None,
    })
}
