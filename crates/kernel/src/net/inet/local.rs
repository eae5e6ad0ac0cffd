//! The addresses of the loopback interface, which programs may add to and take from (`ip address add dev lo`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cloudpilot_abi::Errno;
use parking_lot::RwLock;

use super::address;

/// Most addresses: each is looked at for what is sent, and a program could add them without end.
const MOST: usize = 256;

/// Addresses with the length of their network's prefix.
pub struct Local {
    addresses: RwLock<Vec<(IpAddr, u8)>>,
}

impl Default for Local {
    fn default() -> Self {
        let addresses = vec![(IpAddr::V4(Ipv4Addr::LOCALHOST), 8), (IpAddr::V6(Ipv6Addr::LOCALHOST), 128)];
        Self { addresses: RwLock::new(addresses) }
    }
}

/// Whether an address is in another's network.
fn is_within(ip: Ipv4Addr, own: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    (ip.to_bits() ^ own.to_bits()) & mask == 0
}

impl Local {
    /// All of them.
    pub fn all(&self) -> Vec<(IpAddr, u8)> {
        self.addresses.read().clone()
    }

    /// The address by which what is sent to `ip` arrives: on this interface whole v4 networks are this host.
    fn covering(&self, ip: IpAddr) -> Option<IpAddr> {
        let addresses = self.addresses.read();
        let exact = addresses.iter().find(|(own, _)| *own == ip);
        let network = || {
            addresses.iter().find(|(own, prefix)| match (ip, own) {
                (IpAddr::V4(ip), IpAddr::V4(own)) => is_within(ip, *own, *prefix),
                _ => false,
            })
        };
        exact.or_else(network).map(|(own, _)| *own)
    }

    /// Whether what is sent to `ip` arrives here.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.covering(ip).is_some()
    }

    /// The address that something sent to `ip` comes from unless the sender chose one.
    pub fn source_for(&self, ip: IpAddr) -> IpAddr {
        self.covering(ip).unwrap_or_else(|| address::source_for(ip))
    }

    /// Adds an address; `replace` takes one that is there already.
    ///
    /// # Errors
    ///
    /// `EEXIST`; `ENOBUFS` for too many.
    pub fn add(&self, ip: IpAddr, prefix: u8, replace: bool) -> Result<(), Errno> {
        let mut addresses = self.addresses.write();
        let known = addresses.contains(&(ip, prefix));
        // The interface has had its first address from the start, where on Linux programs give it that when they bring it up.
        if known && (replace || (ip, prefix) == (IpAddr::V4(Ipv4Addr::LOCALHOST), 8)) {
            return Ok(());
        }
        if known {
            return Err(Errno::EEXIST);
        }
        if addresses.len() >= MOST {
            return Err(Errno::ENOBUFS);
        }
        addresses.push((ip, prefix));
        Ok(())
    }

    /// Takes an address away, of any prefix if none is given.
    ///
    /// # Errors
    ///
    /// `EADDRNOTAVAIL` if it is not there.
    pub fn remove(&self, ip: IpAddr, prefix: Option<u8>) -> Result<(), Errno> {
        let mut addresses = self.addresses.write();
        let wanted = |(own, length): &(IpAddr, u8)| *own == ip && prefix.is_none_or(|prefix| prefix == *length);
        let at = addresses.iter().position(wanted).ok_or(Errno::EADDRNOTAVAIL)?;
        addresses.remove(at);
        Ok(())
    }
}
