//! Which socket options may reach the host.

use cloudpilot_abi::{Errno, raw_net};

use crate::net::options::{LEVEL_IP, LEVEL_IPV6, LEVEL_TCP, LEVEL_UDP, SOL_SOCKET, int};
use crate::net::{Base, Kind};

/// Who answers for an option.
#[derive(Debug, PartialEq, Eq)]
pub enum Where {
    /// The host, by this name.
    Host(i32),
    /// Our own record of it.
    Here,
}

/// Longest value: a request to join a group.
const VALUE_MAX: usize = 20;

/// Options of the host socket itself, for both directions.
const SOCKET: &[u32] = &[
    raw_net::SO_REUSEADDR,
    raw_net::SO_REUSEPORT,
    raw_net::SO_KEEPALIVE,
    raw_net::SO_BROADCAST,
    raw_net::SO_OOBINLINE,
    raw_net::SO_SNDBUF,
    raw_net::SO_RCVBUF,
    raw_net::SO_RCVLOWAT,
    raw_net::SO_TIMESTAMP,
    raw_net::SO_TIMESTAMPNS,
    raw_net::SO_DONTROUTE,
    raw_net::SO_RXQ_OVFL,
    raw_net::SO_NO_CHECK,
    raw_net::SO_LINGER,
];

/// Options that can only be asked for.
const SOCKET_GET: &[u32] =
    &[raw_net::SO_ERROR, raw_net::SO_TYPE, raw_net::SO_ACCEPTCONN, raw_net::SO_DOMAIN, raw_net::SO_PROTOCOL, raw_net::SO_SNDLOWAT];

/// Type of service, time to live, packet information, path MTU, errors, groups.
const IP: &[i32] = &[1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 24, 32, 33, 34, 35, 36, 39, 40, 49];
/// The same for IPv6.
const IPV6: &[i32] = &[16, 17, 18, 19, 20, 21, 23, 25, 26, 29, 33, 49, 51, 60, 62, 66, 67, 70, 72, 78];
/// Everything about timing and buffering; nothing that replaces the protocol (`TCP_ULP`, `TCP_REPAIR`, `TCP_MD5SIG`).
const TCP: &[i32] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 18, 23, 25, 30];
/// `TCP_INFO`.
const TCP_INFO: i32 = 11;
/// `IP_MTU`, `IPV6_MTU`.
const MTU: [(i32, i32); 2] = [(LEVEL_IP, 14), (LEVEL_IPV6, 24)];

fn known(level: i32, name: i32) -> bool {
    match level {
        SOL_SOCKET => SOCKET.contains(&(name as u32)),
        LEVEL_IP => IP.contains(&name),
        LEVEL_IPV6 => IPV6.contains(&name),
        LEVEL_TCP => TCP.contains(&name),
        _ => false,
    }
}

/// What the host answers for what it does not know.
fn unknown(level: i32) -> Errno {
    if matches!(level, SOL_SOCKET | LEVEL_IP | LEVEL_IPV6 | LEVEL_TCP | LEVEL_UDP) { Errno::ENOPROTOOPT } else { Errno::EOPNOTSUPP }
}

fn kept_here(name: i32) -> bool {
    let here = [
        raw_net::SO_RCVTIMEO,
        raw_net::SO_SNDTIMEO,
        raw_net::SO_RCVTIMEO_NEW,
        raw_net::SO_SNDTIMEO_NEW,
        raw_net::SO_PRIORITY,
        raw_net::SO_PASSCRED,
    ];
    here.contains(&(name as u32))
}

/// Whether an option may be set, and where.
pub fn settable(base: &Base, level: i32, name: i32, value: &[u8]) -> Result<Where, Errno> {
    if level == SOL_SOCKET {
        match name as u32 {
            // Host sockets never block, so waiting is ours to limit.
            _ if kept_here(name) => return Ok(Where::Here),
            raw_net::SO_SNDBUFFORCE => return Ok(Where::Host(raw_net::SO_SNDBUF as i32)),
            raw_net::SO_RCVBUFFORCE => return Ok(Where::Host(raw_net::SO_RCVBUF as i32)),
            raw_net::SO_MARK | raw_net::SO_BINDTODEVICE => return Err(Errno::EPERM),
            // Lingering would make the kernel's own close wait; only the abrupt end is the host's to know.
            raw_net::SO_LINGER if base.kind != Kind::Stream => return Ok(Where::Here),
            raw_net::SO_LINGER => {
                let (on, seconds) = (int(level, value)?, int(level, value.get(4..).unwrap_or_default())?);
                if on != 0 && seconds != 0 {
                    return Ok(Where::Here);
                }
            }
            _ => {}
        }
    }
    if value.len() <= VALUE_MAX && known(level, name) { Ok(Where::Host(name)) } else { Err(unknown(level)) }
}

/// Whether an option may be asked for, and where.
pub fn gettable(level: i32, name: i32) -> Result<Where, Errno> {
    if level == SOL_SOCKET && (kept_here(name) || matches!(name as u32, raw_net::SO_PEERCRED | raw_net::SO_BINDTODEVICE | raw_net::SO_MARK))
    {
        return Ok(Where::Here);
    }
    let only_asked = (level, name) == (LEVEL_TCP, TCP_INFO)
        || MTU.contains(&(level, name))
        || level == SOL_SOCKET && SOCKET_GET.contains(&(name as u32));
    if only_asked || known(level, name) { Ok(Where::Host(name)) } else { Err(unknown(level)) }
}
