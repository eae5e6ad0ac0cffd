//! TCP and UDP inside the sandbox, over IPv4 and IPv6: one interface, the loopback, and bytes that go straight from socket to socket.

pub mod address;
pub mod ancillary;
pub mod groups;
pub mod icmp;
pub mod local;
pub mod options;
pub mod packets;
pub mod ports;
pub mod reports;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod udp;

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use cloudpilot_abi::{Errno, raw, raw_net};
use parking_lot::Mutex;

use super::options::{IPV6_V6ONLY, LEVEL_IPV6};
use super::{Base, Kind, Socket};
use crate::task::Task;
use icmp::{ICMP, ICMPV6};
use packets::RawSocket;
use ports::{Claim, EPHEMERAL, Ports};
pub use tcp::TcpSocket;
pub use udp::UdpSocket;

/// `IPPROTO_TCP`.
const TCP: u32 = 6;
/// `IPPROTO_UDP`.
const UDP: u32 = 17;
/// `IPPROTO_UDPLITE`.
const UDP_LITE: u32 = 136;
/// The highest number of a protocol, `IPPROTO_MPTCP`.
const HIGHEST_PROTOCOL: u32 = 262;
/// Ports below need a capability, unless `/proc/sys` says otherwise.
const FIRST_FREE_PORT: u16 = 1024;

/// The protocols' tables.
pub struct Inet {
    /// TCP's ports.
    pub tcp: Arc<Ports<Weak<TcpSocket>>>,
    /// UDP's ports.
    pub udp: Arc<Ports<Weak<UdpSocket>>>,
    /// Those of UDP-Lite, which differs by how much of a datagram is checked, and here by nothing.
    pub udp_lite: Arc<Ports<Weak<UdpSocket>>>,
    /// Raw sockets and those for echo requests.
    pub packets: packets::RawSockets,
    /// The loopback interface's addresses.
    pub local: local::Local,
    /// Who joined which group.
    pub groups: groups::Groups,
    /// Held by whoever connects one socket to another.
    connecting: Mutex<()>,
    /// Whose turn it is among listeners that share a port.
    turn: AtomicU64,
}

impl Default for Inet {
    fn default() -> Self {
        Self {
            tcp: Ports::new(false),
            udp: Ports::new(true),
            udp_lite: Ports::new(true),
            packets: packets::RawSockets::default(),
            local: local::Local::default(),
            groups: groups::Groups::default(),
            connecting: Mutex::new(()),
            turn: AtomicU64::new(0),
        }
    }
}

/// What `socket(2)`'s type and protocol ask for; the protocol is filled in.
pub fn choose(domain: u32, kind: u32, protocol: u32) -> Result<(Kind, u32), Errno> {
    match (kind, protocol) {
        (1, 0 | TCP) => Ok((Kind::Stream, TCP)),
        (2, 0 | UDP) => Ok((Kind::Datagram, UDP)),
        // As where no group may send echo requests (net.ipv4.ping_group_range).
        (2, ICMP) if domain == raw_net::AF_INET => Err(Errno::EACCES),
        (2, ICMPV6) if domain == raw_net::AF_INET6 => Err(Errno::EACCES),
        (3, _) => Err(Errno::EPERM),
        (1 | 2, _) => Err(Errno::EPROTONOSUPPORT),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// A socket for packets, for echo requests or for UDP-Lite, which only our own loopback has; none if something else is asked for.
fn packet_socket(task: &Task, domain: u32, kind: u32, protocol: u32) -> Option<Result<Arc<dyn Socket>, Errno>> {
    let space = Arc::clone(&task.namespaces().net);
    let inet = &space.net.inet;
    let kind = match (kind, protocol) {
        (2, ICMP) if domain == raw_net::AF_INET => Kind::Datagram,
        (2, ICMPV6) if domain == raw_net::AF_INET6 => Kind::Datagram,
        (2, UDP_LITE) => return Some(Ok(UdpSocket::new(inet, domain, UDP_LITE))),
        (3, 0) => return Some(Err(Errno::EPROTONOSUPPORT)),
        (3, _) if !task.credentials().has_in(&task.namespaces().net.owner, raw::CAP_NET_RAW) => return Some(Err(Errno::EPERM)),
        (3, _) => Kind::Raw,
        _ => return None,
    };
    if kind == Kind::Datagram && !may_ping(task) {
        return Some(Err(Errno::EACCES));
    }
    let socket = RawSocket::new(inet, domain, kind, protocol);
    if packets::sends_headers(protocol) {
        socket.base().options.lock().set_number(super::options::LEVEL_IP, packets::IP_HDRINCL, 1);
    }
    Some(Ok(socket))
}

/// Whether one of the task's groups may send echo requests, `net.ipv4.ping_group_range`; unless that was written, all may.
fn may_ping(task: &Task) -> bool {
    let range = {
        let sysctls = task.kernel.system.sysctls.lock();
        let Some(written) = sysctls.get("net/ipv4/ping_group_range") else { return true };
        let numbers = std::str::from_utf8(written).unwrap_or_default().split_whitespace();
        numbers.filter_map(|number| number.parse::<u32>().ok()).collect::<Vec<_>>()
    };
    let [least, greatest] = range[..] else { return false };
    let own = task.credentials();
    (least..=greatest).contains(&own.egid) || own.groups.iter().any(|group| (least..=greatest).contains(group))
}

/// Makes a socket for `socket(2)`.
pub fn socket(task: &Task, domain: u32, kind: u32, protocol: u32) -> Result<Arc<dyn Socket>, Errno> {
    let space = Arc::clone(&task.namespaces().net);
    let net = &space.net;
    if protocol > HIGHEST_PROTOCOL {
        return Err(Errno::EINVAL);
    }
    if let Some(result) = packet_socket(task, domain, kind, protocol) {
        return result;
    }
    match choose(domain, kind, protocol)? {
        (Kind::Stream, _) => Ok(TcpSocket::new(&net.inet, domain)),
        _ => Ok(UdpSocket::new(&net.inet, domain, UDP)),
    }
}

/// What a socket that binds to `ip` takes of a port.
fn claim(base: &Base, task: Option<&Arc<Task>>, ip: IpAddr) -> Claim {
    let uid = task.map_or(0, |task| task.credentials().euid);
    let range = port_range(base, task);
    let options = base.options.lock();
    Claim {
        ip,
        dual: base.domain == raw_net::AF_INET6 && !options.is_set(LEVEL_IPV6, IPV6_V6ONLY),
        reuse_address: options.has(raw_net::SO_REUSEADDR),
        reuse_port: options.has(raw_net::SO_REUSEPORT).then_some(uid),
        range,
    }
}

/// From which ports any is chosen: the system's (`ip_local_port_range`), narrowed by what the socket asked for (`IP_LOCAL_PORT_RANGE`).
fn port_range(base: &Base, task: Option<&Arc<Task>>) -> (u16, u16) {
    let written = task.and_then(|task| {
        let sysctls = task.kernel.system.sysctls.lock();
        let text = std::str::from_utf8(sysctls.get("net/ipv4/ip_local_port_range")?).ok()?.to_owned();
        let mut numbers = text.split_whitespace().filter_map(|number| number.parse::<u16>().ok());
        Some((numbers.next()?, numbers.next()?))
    });
    let (low, high) = written.filter(|(low, high)| *low > 0 && low <= high).unwrap_or((*EPHEMERAL.start(), *EPHEMERAL.end()));
    let own = base.options.lock().number(super::options::LEVEL_IP, raw_net::IP_LOCAL_PORT_RANGE as i32).unwrap_or(0) as u32;
    let within = |port: u32, otherwise: u16| u16::try_from(port).ok().filter(|port| (low..=high).contains(port)).unwrap_or(otherwise);
    (within(own & 0xffff, low), within(own >> 16, high))
}

/// `IP_FREEBIND`.
const IP_FREEBIND: i32 = 15;

fn first_free_port(task: &Task) -> u16 {
    let sysctls = task.kernel.system.sysctls.lock();
    let written = sysctls.get("net/ipv4/ip_unprivileged_port_start").and_then(|value| std::str::from_utf8(value).ok());
    written.and_then(|text| text.trim().parse().ok()).unwrap_or(FIRST_FREE_PORT)
}

/// Whether a task may bind a socket there.
fn check_bind(inet: &Inet, base: &Base, task: Option<&Arc<Task>>, ip: IpAddr, port: u16) -> Result<(), Errno> {
    if port != 0 && task.is_some_and(|task| port < first_free_port(task) && !base.permits(task, raw::CAP_NET_BIND_SERVICE)) {
        return Err(Errno::EACCES);
    }
    let options = base.options.lock();
    if ip.is_ipv4() && base.domain == raw_net::AF_INET6 && options.is_set(LEVEL_IPV6, IPV6_V6ONLY) {
        return Err(Errno::EINVAL);
    }
    // An address of a link needs to say which link.
    if matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) && options.device == 0 {
        return Err(Errno::EINVAL);
    }
    let many = (base.kind != Kind::Stream || ip.is_ipv4()) && ip.is_multicast() || groups::is_broadcast(ip);
    if ip.is_unspecified() || inet.local.has(ip) || many || options.is_set(super::options::LEVEL_IP, IP_FREEBIND) {
        Ok(())
    } else {
        Err(Errno::EADDRNOTAVAIL)
    }
}

/// Whether something sent to `ip` can arrive: there is nothing but the loopback interface.
fn check_route(inet: &Inet, base: &Base, ip: IpAddr) -> Result<(), Errno> {
    if ip.is_ipv4() && base.domain == raw_net::AF_INET6 && base.options.lock().is_set(LEVEL_IPV6, IPV6_V6ONLY) {
        return Err(Errno::ENETUNREACH);
    }
    let many = base.kind != Kind::Stream && (ip.is_multicast() || groups::is_broadcast(ip));
    if many || inet.local.has(ip) { Ok(()) } else { Err(Errno::ENETUNREACH) }
}
