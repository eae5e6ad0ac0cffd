//! `sockaddr_in` and `sockaddr_in6`, and which addresses there are: the loopback interface's.
//!
//! Inside, a v4-mapped v6 address is the v4 address; sockets of `AF_INET6` show it mapped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cloudpilot_abi::{Errno, raw_net};

const INET: u32 = raw_net::AF_INET;
const INET6: u32 = raw_net::AF_INET6;
const SIZE_INET: usize = 16;
/// Without the scope, which old programs do not know.
const SIZE_INET6_SHORT: usize = 24;

/// What an address said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// `AF_UNSPEC`: end the association.
    Unspecified,
    /// Address and port.
    Address(SocketAddr),
}

/// The family that a `sockaddr` names.
pub fn family(bytes: &[u8]) -> Result<u32, Errno> {
    bytes.first_chunk().map(|bytes| u32::from(u16::from_ne_bytes(*bytes))).ok_or(Errno::EINVAL)
}

/// Decodes what a socket of `domain` was given.
pub fn decode(domain: u32, bytes: &[u8]) -> Result<Given, Errno> {
    match (family(bytes)?, domain) {
        (raw_net::AF_UNSPEC, _) => Ok(Given::Unspecified),
        (_, INET6) if bytes.len() < SIZE_INET6_SHORT => Err(Errno::EINVAL),
        (INET, INET) => decode_v4(bytes).map(Given::Address),
        (INET6, INET6) => decode_v6(bytes).map(Given::Address),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// Decodes a `sockaddr_in`.
pub fn decode_v4(bytes: &[u8]) -> Result<SocketAddr, Errno> {
    let bytes: &[u8; SIZE_INET] = bytes.first_chunk().ok_or(Errno::EINVAL)?;
    let ip = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
    Ok(SocketAddr::new(IpAddr::V4(ip), u16::from_be_bytes([bytes[2], bytes[3]])))
}

/// What `bind(2)` of a v4 socket makes of an address without family: old programs name "any" so, and nothing else.
pub fn any_of_old(domain: u32, bytes: &[u8]) -> Result<SocketAddr, Errno> {
    let given = if domain == INET { decode_v4(bytes)? } else { return Err(Errno::EAFNOSUPPORT) };
    if given.ip().is_unspecified() { Ok(given) } else { Err(Errno::EAFNOSUPPORT) }
}

fn decode_v6(bytes: &[u8]) -> Result<SocketAddr, Errno> {
    let bytes: &[u8; SIZE_INET6_SHORT] = bytes.first_chunk().ok_or(Errno::EINVAL)?;
    let mut ip = [0; 16];
    ip.copy_from_slice(&bytes[8..]);
    Ok(SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes([bytes[2], bytes[3]])))
}

/// Encodes an address as a socket of `domain` shows it.
pub fn encode(domain: u32, address: SocketAddr) -> Vec<u8> {
    let mut bytes = (domain as u16).to_ne_bytes().to_vec();
    bytes.extend(address.port().to_be_bytes());
    match (domain, address.ip()) {
        (INET, IpAddr::V4(ip)) => {
            bytes.extend(ip.octets());
            bytes.extend([0; 8]);
        }
        (_, ip) => {
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            bytes.extend([0; 4]);
            bytes.extend(ip.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes
}

/// The address of a socket that has none.
pub fn any(domain: u32) -> SocketAddr {
    SocketAddr::new(if domain == INET { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }, 0)
}

/// Whether the loopback interface has an address.
pub fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback()
}

/// Where something sent to an address goes: "any" is this host.
pub fn target(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::new(source_for(address.ip()), address.port()) } else { address }
}

/// The address that something sent to `ip` comes from unless the sender chose one.
pub fn source_for(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}
