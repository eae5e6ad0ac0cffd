//! `RTM_NEWADDR` and `RTM_DELADDR`: addresses that the loopback interface gets and loses, `rtnetlink(7)`.

use std::net::IpAddr;

use cloudpilot_abi::{Errno, raw_net};

use super::{NetlinkSocket, Request, attributes};
use crate::net::interface::LOOPBACK_INDEX;

/// Size of `struct ifaddrmsg`.
const HEAD: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const NLM_F_REPLACE: u16 = 0x100;

/// What a request names.
struct Named {
    ip: IpAddr,
    prefix: u8,
    /// Whether the prefix counts: it is given with `IFA_ADDRESS` only.
    exact: bool,
}

fn ip_of(family: u32, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        raw_net::AF_INET => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

fn decode(body: &[u8]) -> Result<Named, Errno> {
    let head: &[u8; HEAD] = body.first_chunk().ok_or(Errno::EINVAL)?;
    let (family, prefix) = (u32::from(head[0]), head[1]);
    let longest = match family {
        raw_net::AF_INET => 32,
        raw_net::AF_INET6 => 128,
        _ => return Err(Errno::EOPNOTSUPP),
    };
    let mut local = None;
    let mut whole = None;
    for (kind, value) in attributes(&body[HEAD..]) {
        match kind {
            IFA_LOCAL => local = ip_of(family, value),
            IFA_ADDRESS => whole = ip_of(family, value),
            _ => {}
        }
    }
    // Of v4 the local one is meant, of v6 either.
    let ip = if family == raw_net::AF_INET { local } else { local.or(whole) };
    if prefix > longest {
        return Err(Errno::EINVAL);
    }
    let ip = ip.ok_or(Errno::EINVAL)?;
    match u32::from_ne_bytes([head[4], head[5], head[6], head[7]]) {
        LOOPBACK_INDEX => Ok(Named { ip, prefix, exact: whole.is_some() }),
        _ => Err(Errno::ENODEV),
    }
}

impl NetlinkSocket {
    /// `RTM_NEWADDR`.
    pub(super) fn add_address(&self, request: Request, body: &[u8]) -> Result<(), Errno> {
        let named = decode(body)?;
        self.inet.local.add(named.ip, named.prefix, request.flags & NLM_F_REPLACE != 0)
    }

    /// `RTM_DELADDR`.
    pub(super) fn remove_address(&self, body: &[u8]) -> Result<(), Errno> {
        let named = decode(body)?;
        self.inet.local.remove(named.ip, named.exact.then_some(named.prefix))
    }
}
