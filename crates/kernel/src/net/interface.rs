//! The interfaces that there are, and `ioctl(2)` about them, `netdevice(7)`: the loopback, and with the host's network one that stands for
//! all of the host's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw, raw_ioctl};

use super::host;
use super::inet::local::Local;
use crate::config::Network;
use crate::task::Task;

/// `lo`'s number.
pub const LOOPBACK_INDEX: u32 = 1;
/// `IFF_UP`, `IFF_LOOPBACK`, `IFF_RUNNING`, `IFF_LOWER_UP`.
const LOOPBACK_FLAGS: u32 = 0x1 | 0x8 | 0x40 | 0x1_0000;
/// `IFF_UP`, `IFF_BROADCAST`, `IFF_RUNNING`, `IFF_MULTICAST`, `IFF_LOWER_UP`.
const HOST_FLAGS: u32 = 0x1 | 0x2 | 0x40 | 0x1000 | 0x1_0000;
/// `ARPHRD_LOOPBACK`.
const LOOPBACK_TYPE: u16 = 772;
/// `ARPHRD_ETHER`.
const ETHERNET_TYPE: u16 = 1;

/// `IFNAMSIZ`.
const NAME_SIZE: usize = 16;
/// Size of `struct ifreq`.
const REQUEST_SIZE: usize = 40;

/// An interface.
pub struct Interface {
    /// Number.
    pub index: u32,
    /// Name.
    pub name: &'static [u8],
    /// `IFF_*`.
    pub flags: u32,
    /// Largest packet.
    pub mtu: u32,
    /// `ARPHRD_*`.
    pub hardware_type: u16,
    /// Addresses with the length of their network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// All interfaces. The host's own are not looked at: one stands for them, with the addresses that the host sends from.
pub fn all(network: Network) -> Vec<Interface> {
    let mut interfaces = vec![Interface {
        index: LOOPBACK_INDEX,
        name: b"lo",
        flags: LOOPBACK_FLAGS,
        mtu: 65_536,
        hardware_type: LOOPBACK_TYPE,
        addresses: vec![(IpAddr::V4(Ipv4Addr::LOCALHOST), 8), (IpAddr::V6(Ipv6Addr::LOCALHOST), 128)],
    }];
    if network == Network::Host {
        interfaces.push(Interface {
            index: LOOPBACK_INDEX + 1,
            name: b"eth0",
            flags: HOST_FLAGS,
            mtu: 1500,
            hardware_type: ETHERNET_TYPE,
            addresses: host::own_addresses().into_iter().map(|ip| (ip, if ip.is_ipv4() { 32 } else { 128 })).collect(),
        });
    }
    interfaces
}

/// The same with the addresses that the loopback interface has by now.
pub fn current(network: Network, local: &Local) -> Vec<Interface> {
    let mut interfaces = all(network);
    if let Some(loopback) = interfaces.iter_mut().find(|interface| interface.index == LOOPBACK_INDEX) {
        loopback.addresses = local.all();
    }
    interfaces
}

/// The name of an interface by its number, without asking which there are: only those that exist are ever chosen.
pub fn name_of(index: u32) -> Option<&'static [u8]> {
    match index {
        LOOPBACK_INDEX => Some(b"lo"),
        index if index == LOOPBACK_INDEX + 1 => Some(b"eth0"),
        _ => None,
    }
}

impl Interface {
    fn v4(&self) -> Result<(Ipv4Addr, u8), Errno> {
        let v4 = |(ip, prefix): &(IpAddr, u8)| match ip {
            IpAddr::V4(ip) => Some((*ip, *prefix)),
            IpAddr::V6(_) => None,
        };
        self.addresses.iter().find_map(v4).ok_or(Errno::EADDRNOTAVAIL)
    }

    fn mask(&self) -> Result<Ipv4Addr, Errno> {
        let (_, prefix) = self.v4()?;
        Ok(Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)))
    }
}

/// A `sockaddr_in`.
fn address(ip: Ipv4Addr) -> Vec<u8> {
    [&2u16.to_ne_bytes()[..], &[0; 2], &ip.octets(), &[0; 8]].concat()
}

fn name(request: &[u8]) -> &[u8] {
    request[..NAME_SIZE].split(|byte| *byte == 0).next().unwrap_or_default()
}

/// `ioctl(2)` on a socket of datagrams: `FIONREAD` is the length of the next one, and nothing ever waits to be sent.
pub fn datagram_ioctl(task: &Arc<Task>, request: u32, argument: u64, next_length: impl FnOnce() -> usize) -> Result<usize, Errno> {
    let length = match request {
        raw_ioctl::FIONREAD => next_length(),
        raw_ioctl::TIOCOUTQ => 0,
        _ => return ioctl(task, request, argument),
    };
    task.write(argument, &(length as i32)).map(|()| 0)
}

/// Requests about interfaces, for sockets of every family; `ENOTTY` for all others.
pub fn ioctl(task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
    // All of them, and only they, lie in this range.
    if !(raw_ioctl::SIOCGIFNAME..=raw_ioctl::SIOCSIFMAP).contains(&request) {
        return Err(Errno::ENOTTY);
    }
    let space = Arc::clone(&task.namespaces().net);
    let interfaces = current(space.network, &space.net.inet.local);
    if request == raw_ioctl::SIOCGIFCONF {
        return list(task, &interfaces, argument);
    }
    let mut bytes: [u8; REQUEST_SIZE] = task.read(argument)?;
    if request == raw_ioctl::SIOCGIFNAME {
        let index = u32::from_ne_bytes([bytes[NAME_SIZE], bytes[NAME_SIZE + 1], bytes[NAME_SIZE + 2], bytes[NAME_SIZE + 3]]);
        let found = interfaces.iter().find(|interface| interface.index == index).ok_or(Errno::ENODEV)?;
        bytes[..NAME_SIZE].fill(0);
        bytes[..found.name.len()].copy_from_slice(found.name);
        return task.write(argument, &bytes).map(|()| 0);
    }
    let interface = interfaces.iter().find(|interface| interface.name == name(&bytes)).ok_or(Errno::ENODEV)?;
    let answer = match request {
        raw_ioctl::SIOCGIFFLAGS => (interface.flags as u16).to_ne_bytes().to_vec(),
        raw_ioctl::SIOCGIFADDR => address(interface.v4()?.0),
        raw_ioctl::SIOCGIFNETMASK => address(interface.mask()?),
        raw_ioctl::SIOCGIFBRDADDR | raw_ioctl::SIOCGIFDSTADDR => address(Ipv4Addr::UNSPECIFIED),
        raw_ioctl::SIOCGIFMTU => interface.mtu.to_ne_bytes().to_vec(),
        raw_ioctl::SIOCGIFINDEX => interface.index.to_ne_bytes().to_vec(),
        raw_ioctl::SIOCGIFMETRIC => vec![0; 4],
        raw_ioctl::SIOCGIFTXQLEN => 1000u32.to_ne_bytes().to_vec(),
        raw_ioctl::SIOCGIFHWADDR => [&interface.hardware_type.to_ne_bytes()[..], &[0; 14]].concat(),
        raw_ioctl::SIOCGIFMAP => vec![0; 24],
        // Programs that bring an interface up find it up.
        raw_ioctl::SIOCSIFFLAGS
            if bytes[NAME_SIZE] & 1 == 1 && task.credentials().has_in(&task.namespaces().net.owner, raw::CAP_NET_ADMIN) =>
        {
            return Ok(0);
        }
        _ => return Err(Errno::EPERM),
    };
    bytes[NAME_SIZE..].fill(0);
    bytes[NAME_SIZE..NAME_SIZE + answer.len()].copy_from_slice(&answer);
    task.write(argument, &bytes).map(|()| 0)
}

/// `SIOCGIFCONF`: `struct ifconf` is a length and, after padding, a pointer. Only interfaces with a v4 address are listed.
fn list(task: &Task, interfaces: &[Interface], argument: u64) -> Result<usize, Errno> {
    let [length, buffer]: [u64; 2] = task.read(argument)?;
    let mut entries = Vec::new();
    for (interface, ip) in interfaces.iter().filter_map(|interface| Some((interface, interface.v4().ok()?.0))) {
        let start = entries.len();
        entries.extend(interface.name);
        entries.resize(start + NAME_SIZE, 0);
        entries.extend(address(ip));
        entries.resize(start + REQUEST_SIZE, 0);
    }
    if buffer != 0 {
        let room = (length as u32 as usize).min(entries.len());
        entries.truncate(room / REQUEST_SIZE * REQUEST_SIZE);
        task.write_bytes(buffer, &entries)?;
    }
    task.write(argument, &(entries.len() as i32)).map(|()| 0)
}
