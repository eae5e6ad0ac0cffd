//! Groups (multicast): who joined which, on the one interface that there is. What is sent to a group reaches those who joined it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cloudpilot_abi::{Errno, raw_net};
use parking_lot::Mutex;

use super::address::{self, Given};
use crate::net::interface;
use crate::net::options::{LEVEL_IP, LEVEL_IPV6};

const IP_MULTICAST_IF: i32 = 32;
const IP_ADD_MEMBERSHIP: i32 = 35;
const IP_DROP_MEMBERSHIP: i32 = 36;
const IPV6_MULTICAST_IF: i32 = 17;
const IPV6_ADD_MEMBERSHIP: i32 = 20;
const IPV6_DROP_MEMBERSHIP: i32 = 21;
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_LEAVE_GROUP: i32 = 45;
/// Most groups of one socket, Linux's `igmp_max_memberships`.
const MOST: usize = 20;

/// How many sockets joined each group.
#[derive(Default)]
pub struct Groups {
    joined: Mutex<HashMap<IpAddr, usize>>,
}

impl Groups {
    /// Whether anybody joined it.
    pub fn has(&self, group: IpAddr) -> bool {
        self.joined.lock().contains_key(&group)
    }

    fn add(&self, group: IpAddr) {
        *self.joined.lock().entry(group).or_default() += 1;
    }

    fn remove(&self, group: IpAddr) {
        let mut joined = self.joined.lock();
        if let Some(count) = joined.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                joined.remove(&group);
            }
        }
    }
}

/// What one socket joined, and from where it sends to groups.
#[derive(Default)]
pub struct Membership {
    joined: Vec<IpAddr>,
    /// `IP_MULTICAST_IF` as an address.
    interface: Option<Ipv4Addr>,
    /// `IPV6_MULTICAST_IF`; 0 leaves it to us.
    index: u32,
}

/// What an option asks for.
enum Request {
    Join(IpAddr),
    Leave(IpAddr),
    /// Send from here.
    From(Option<Ipv4Addr>),
    /// Send through this interface.
    Through(u32),
}

fn word(value: &[u8], at: usize) -> Option<[u8; 4]> {
    value.get(at..at + 4)?.try_into().ok()
}

fn check_index(index: [u8; 4], otherwise: Errno) -> Result<(), Errno> {
    if u32::from_ne_bytes(index) <= interface::LOOPBACK_INDEX { Ok(()) } else { Err(otherwise) }
}

fn check_own(ip: Ipv4Addr, otherwise: Errno) -> Result<(), Errno> {
    if ip.is_unspecified() || address::is_local(IpAddr::V4(ip)) { Ok(()) } else { Err(otherwise) }
}

/// `struct ip_mreq`, or with an index `struct ip_mreqn`: the group. What is left is not looked at before it is found.
fn decode_v4(value: &[u8], leaves: bool) -> Result<IpAddr, Errno> {
    let (Some(group), Some(own)) = (word(value, 0), word(value, 4)) else { return Err(Errno::EINVAL) };
    let group = Ipv4Addr::from(group);
    if leaves && !group.is_multicast() {
        return Ok(IpAddr::V4(group));
    }
    if !group.is_multicast() {
        return Err(Errno::EINVAL);
    }
    match word(value, 8) {
        Some(index) if index != [0; 4] => check_index(index, Errno::ENODEV)?,
        _ => check_own(own.into(), Errno::ENODEV)?,
    }
    Ok(IpAddr::V4(group))
}

/// `struct ipv6_mreq`.
fn decode_v6(value: &[u8]) -> Result<IpAddr, Errno> {
    let group: [u8; 16] = value.get(..16).and_then(|group| group.try_into().ok()).ok_or(Errno::EINVAL)?;
    let index = word(value, 16).ok_or(Errno::EINVAL)?;
    let group = Ipv6Addr::from(group);
    if !group.is_multicast() {
        return Err(Errno::EINVAL);
    }
    check_index(index, Errno::ENODEV)?;
    Ok(IpAddr::V6(group))
}

/// `struct group_req`.
fn decode_any(level: i32, value: &[u8]) -> Result<IpAddr, Errno> {
    /// Where the address is, and how long it all is.
    const ADDRESS: usize = 8;
    const SIZE: usize = 136;
    if value.len() < SIZE {
        return Err(Errno::EINVAL);
    }
    let domain = if level == LEVEL_IP { raw_net::AF_INET } else { raw_net::AF_INET6 };
    let Given::Address(group) = address::decode(domain, &value[ADDRESS..]).map_err(|_| Errno::EINVAL)? else { return Err(Errno::EINVAL) };
    if !group.ip().is_multicast() {
        return Err(Errno::EINVAL);
    }
    check_index(word(value, 0).ok_or(Errno::EINVAL)?, Errno::ENODEV)?;
    Ok(group.ip())
}

/// `IP_MULTICAST_IF` in its three forms.
fn decode_interface(value: &[u8]) -> Result<Request, Errno> {
    let (index, ip) = match (word(value, 8), word(value, 4), word(value, 0)) {
        (Some(index), Some(own), _) => (index, own),
        (None, Some(own), _) | (None, None, Some(own)) => ([0; 4], own),
        _ => return Err(Errno::EINVAL),
    };
    let ip = Ipv4Addr::from(ip);
    check_index(index, Errno::EADDRNOTAVAIL)?;
    if index == [0; 4] {
        check_own(ip, Errno::EADDRNOTAVAIL)?;
    }
    Ok(Request::From(Some(ip).filter(|ip| !ip.is_unspecified())))
}

fn decode(domain: u32, level: i32, name: i32, value: &[u8]) -> Option<Result<Request, Errno>> {
    Some(match (level, name) {
        (LEVEL_IP, IP_ADD_MEMBERSHIP) => decode_v4(value, false).map(Request::Join),
        (LEVEL_IP, IP_DROP_MEMBERSHIP) => decode_v4(value, true).map(Request::Leave),
        (LEVEL_IP, IP_MULTICAST_IF) => decode_interface(value),
        (LEVEL_IPV6, _) if domain != raw_net::AF_INET6 => return None,
        (LEVEL_IPV6, IPV6_ADD_MEMBERSHIP) => decode_v6(value).map(Request::Join),
        (LEVEL_IPV6, IPV6_DROP_MEMBERSHIP) => decode_v6(value).map(Request::Leave),
        (LEVEL_IPV6, IPV6_MULTICAST_IF) => {
            let index = word(value, 0).ok_or(Errno::EINVAL);
            index.and_then(|index| check_index(index, Errno::ENODEV).map(|()| Request::Through(u32::from_ne_bytes(index))))
        }
        (LEVEL_IP | LEVEL_IPV6, MCAST_JOIN_GROUP) => decode_any(level, value).map(Request::Join),
        (LEVEL_IP | LEVEL_IPV6, MCAST_LEAVE_GROUP) => decode_any(level, value).map(Request::Leave),
        _ => return None,
    })
}

impl Membership {
    /// `setsockopt(2)` about groups; none if it is about something else.
    pub fn set_option(&mut self, groups: &Groups, domain: u32, level: i32, name: i32, value: &[u8]) -> Option<Result<(), Errno>> {
        let request = match decode(domain, level, name, value)? {
            Ok(request) => request,
            Err(errno) => return Some(Err(errno)),
        };
        Some(self.change(groups, &request))
    }

    fn change(&mut self, groups: &Groups, request: &Request) -> Result<(), Errno> {
        match request {
            Request::Join(group) if self.joined.contains(group) => return Err(Errno::EADDRINUSE),
            Request::Join(_) if self.joined.len() >= MOST => return Err(Errno::ENOBUFS),
            Request::Join(group) => {
                groups.add(*group);
                self.joined.push(*group);
            }
            Request::Leave(group) => {
                let at = self.joined.iter().position(|joined| joined == group).ok_or(Errno::EADDRNOTAVAIL)?;
                self.joined.remove(at);
                groups.remove(*group);
            }
            Request::From(ip) => self.interface = *ip,
            Request::Through(index) => self.index = *index,
        }
        Ok(())
    }

    /// Leaves all.
    pub fn clear(&mut self, groups: &Groups) {
        self.joined.drain(..).for_each(|group| groups.remove(group));
    }

    /// Whether it joined a group.
    pub fn has(&self, group: IpAddr) -> bool {
        self.joined.contains(&group)
    }

    /// What `IP_MULTICAST_IF` and `IPV6_MULTICAST_IF` show; none for other options.
    pub fn option(&self, level: i32, name: i32) -> Option<Vec<u8>> {
        match (level, name) {
            (LEVEL_IP, IP_MULTICAST_IF) => Some(self.interface.unwrap_or(Ipv4Addr::UNSPECIFIED).octets().to_vec()),
            (LEVEL_IPV6, IPV6_MULTICAST_IF) => Some(self.index.to_ne_bytes().to_vec()),
            _ => None,
        }
    }

    /// The address that something sent to a group comes from, if that was chosen.
    pub fn source(&self, group: IpAddr) -> Option<IpAddr> {
        self.interface.filter(|_| group.is_ipv4()).map(IpAddr::V4)
    }
}

/// Whether something sent there goes to many: to a group, or to everybody on the network.
pub fn is_many(to: SocketAddr) -> bool {
    to.ip().is_multicast() || is_broadcast(to.ip())
}

/// Whether an address stands for everybody on the loopback network.
pub fn is_broadcast(ip: IpAddr) -> bool {
    /// The loopback network's own.
    const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
    ip == IpAddr::V4(Ipv4Addr::BROADCAST) || ip == IpAddr::V4(LOOPBACK)
}
