//! Routes as `rtnetlink(7)` shows them: those that Linux makes by itself for the addresses of its interfaces, and the rules that lead to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cloudpilot_abi::{Errno, raw_net};

use super::interface::Interface;
use super::netlink::attribute;

const INET: u8 = raw_net::AF_INET as u8;
const INET6: u8 = raw_net::AF_INET6 as u8;
/// Tables of routes.
const TABLE_MAIN: u8 = 254;
const TABLE_DEFAULT: u8 = 253;
const TABLE_LOCAL: u8 = 255;
/// `RTPROT_KERNEL`.
const FROM_KERNEL: u8 = 2;
/// How far away: this host, or one on the same network.
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
/// What a route leads to.
const UNICAST: u8 = 1;
const LOCAL: u8 = 2;
const BROADCAST: u8 = 3;
/// Attributes of a route.
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RTA_PREF: u16 = 20;
/// `RTM_F_CLONED`: found for one destination.
const CLONED: u32 = 0x200;
/// What v6 routes cost unless somebody says otherwise.
const V6_PRIORITY: u32 = 256;
/// Attributes and the action of a rule.
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const ACTION_TABLE: u8 = 1;

struct Route {
    to: IpAddr,
    prefix: u8,
    table: u8,
    kind: u8,
    scope: u8,
    source: Option<Ipv4Addr>,
    interface: u32,
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

impl Route {
    /// `struct rtmsg` and its attributes.
    fn encode(&self, flags: u32) -> Vec<u8> {
        let family = if self.to.is_ipv4() { INET } else { INET6 };
        let mut body = vec![family, self.prefix, 0, 0, self.table, FROM_KERNEL, self.scope, self.kind];
        body.extend(flags.to_ne_bytes());
        attribute(&mut body, RTA_TABLE, &u32::from(self.table).to_ne_bytes());
        attribute(&mut body, RTA_DST, &octets(self.to));
        if self.to.is_ipv6() {
            let priority = if self.table == TABLE_LOCAL { 0 } else { V6_PRIORITY };
            attribute(&mut body, RTA_PRIORITY, &priority.to_ne_bytes());
            attribute(&mut body, RTA_PREF, &[0]);
        }
        if let Some(source) = self.source {
            attribute(&mut body, RTA_PREFSRC, &source.octets());
        }
        attribute(&mut body, RTA_OIF, &self.interface.to_ne_bytes());
        body
    }
}

/// The routes that an address brings along.
fn of_address(interface: &Interface, ip: IpAddr, prefix: u8) -> Vec<Route> {
    let index = interface.index;
    let IpAddr::V4(own) = ip else {
        let local = Route { to: ip, prefix: 128, table: TABLE_LOCAL, kind: LOCAL, scope: 0, source: None, interface: index };
        let main = Route { table: TABLE_MAIN, kind: UNICAST, prefix, ..local };
        return vec![main, Route { to: ip, prefix: 128, table: TABLE_LOCAL, kind: LOCAL, scope: 0, source: None, interface: index }];
    };
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    let network = Ipv4Addr::from_bits(own.to_bits() & mask);
    let route =
        |to, prefix, table, kind, scope| Route { to: IpAddr::V4(to), prefix, table, kind, scope, source: Some(own), interface: index };
    let mut routes = vec![route(own, 32, TABLE_LOCAL, LOCAL, SCOPE_HOST)];
    if own.is_loopback() {
        routes.insert(0, route(network, prefix, TABLE_LOCAL, LOCAL, SCOPE_HOST));
    } else {
        routes.insert(0, route(network, prefix, TABLE_MAIN, UNICAST, SCOPE_LINK));
    }
    if prefix < 31 {
        let all = Ipv4Addr::from_bits(own.to_bits() | !mask);
        routes.push(route(all, 32, TABLE_LOCAL, BROADCAST, SCOPE_LINK));
    }
    routes
}

/// All routes of a family, or of both.
pub fn all(interfaces: &[Interface], family: u32) -> Vec<Vec<u8>> {
    let addresses = interfaces.iter().flat_map(|interface| interface.addresses.iter().map(move |(ip, prefix)| (interface, *ip, *prefix)));
    let routes = addresses.flat_map(|(interface, ip, prefix)| of_address(interface, ip, prefix));
    let wanted = |route: &Route| match family {
        raw_net::AF_INET => route.to.is_ipv4(),
        raw_net::AF_INET6 => route.to.is_ipv6(),
        _ => true,
    };
    routes.filter(wanted).map(|route| route.encode(0)).collect()
}

/// The route to one destination, for a request with `struct rtmsg` and `RTA_DST`.
pub fn towards(interfaces: &[Interface], request: &[u8]) -> Result<Vec<u8>, Errno> {
    const HEAD: usize = 12;
    let family = *request.first().ok_or(Errno::EINVAL)?;
    let mut rest = request.get(HEAD..).ok_or(Errno::EINVAL)?;
    let mut to = None;
    while let Some((head, _)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = rest.get(4..length).ok_or(Errno::EINVAL)?;
        if u16::from_ne_bytes([head[2], head[3]]) == RTA_DST {
            to = match family {
                INET => <[u8; 4]>::try_from(value).ok().map(|bytes| IpAddr::V4(bytes.into())),
                INET6 => <[u8; 16]>::try_from(value).ok().map(|bytes| IpAddr::V6(bytes.into())),
                _ => None,
            };
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let to = to.unwrap_or(if family == INET { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) });
    let own = |interface: &&Interface| interface.addresses.iter().any(|(ip, _)| *ip == to);
    let outward = |interface: &&Interface| interface.addresses.iter().any(|(ip, _)| ip.is_ipv4() == to.is_ipv4() && !ip.is_loopback());
    let here = to.is_loopback() || to.is_unspecified() || interfaces.iter().any(|interface| own(&interface));
    let interface = if here { interfaces.first() } else { interfaces.iter().find(outward) };
    let interface = interface.ok_or(Errno::ENETUNREACH)?;
    let of_family = interface.addresses.iter().map(|(ip, _)| *ip).find(|ip| ip.is_ipv4() == to.is_ipv4());
    let source = match (to, of_family) {
        (IpAddr::V4(to), _) if here && !to.is_unspecified() => Some(to),
        (IpAddr::V4(_), Some(IpAddr::V4(own))) => Some(own),
        _ => None,
    };
    let (kind, table) = if here { (LOCAL, TABLE_LOCAL) } else { (UNICAST, TABLE_MAIN) };
    let prefix = if to.is_ipv4() { 32 } else { 128 };
    Ok(Route { to, prefix, table, kind, scope: 0, source, interface: interface.index }.encode(CLONED))
}

/// The rules of a family that lead through the tables.
pub fn rules(family: u32) -> Vec<Vec<u8>> {
    let tables: &[(u32, u8)] = match family {
        raw_net::AF_INET6 => &[(0, TABLE_LOCAL), (32_766, TABLE_MAIN)],
        _ => &[(0, TABLE_LOCAL), (32_766, TABLE_MAIN), (32_767, TABLE_DEFAULT)],
    };
    let own = if family == raw_net::AF_INET6 { INET6 } else { INET };
    let rule = |(priority, table): &(u32, u8)| {
        let mut body = vec![own, 0, 0, 0, *table, 0, 0, ACTION_TABLE, 0, 0, 0, 0];
        attribute(&mut body, FRA_TABLE, &u32::from(*table).to_ne_bytes());
        if *priority != 0 {
            attribute(&mut body, FRA_PRIORITY, &priority.to_ne_bytes());
        }
        body
    };
    tables.iter().map(rule).collect()
}
