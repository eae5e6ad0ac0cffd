//! Socket options: what is set, and those that mean the same for every socket of ours. [`table`] lists the numbers, [`socket`] has what of
//! `SOL_SOCKET` is none; protocols add theirs ([`inet::options`](super::inet::options)).

mod socket;
pub mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use cloudpilot_abi::types::{Timespec, Timeval};
use cloudpilot_abi::{Errno, raw, raw_net};

use super::message::Control;
use super::{Base, Kind};
use crate::task::Task;
use table::Entry;

/// `SOL_SOCKET`.
pub const SOL_SOCKET: i32 = raw_net::SOL_SOCKET as i32;
/// `IPPROTO_IP`.
pub const LEVEL_IP: i32 = 0;
/// `IPPROTO_TCP`.
pub const LEVEL_TCP: i32 = 6;
/// `IPPROTO_UDP`.
pub const LEVEL_UDP: i32 = 17;
/// `IPPROTO_UDPLITE`.
pub const LEVEL_UDP_LITE: i32 = 136;
/// `IPPROTO_IPV6`.
pub const LEVEL_IPV6: i32 = 41;

/// Linux's `wmem_default` and `rmem_default`, and the most that may be asked for.
pub const BUFFER: u32 = 212_992;
/// What TCP sockets receive into and send from at first.
const TCP_RECEIVE: u32 = 131_072;
const TCP_SEND: u32 = 16_384;

/// `IP_PKTINFO`.
pub const IP_PKTINFO: i32 = 8;
/// `IP_TTL`.
pub const IP_TTL: i32 = 2;
/// `IP_TOS`.
pub const IP_TOS: i32 = 1;
/// `IP_RECVTTL`.
pub const IP_RECVTTL: i32 = 12;
/// `IP_RECVTOS`.
pub const IP_RECVTOS: i32 = 13;
/// `IP_RECVORIGDSTADDR`, also the kind of what it asks for.
pub const IP_RECVORIGDSTADDR: i32 = 20;
/// `IPV6_RECVORIGDSTADDR`, also the kind of what it asks for.
pub const IPV6_RECVORIGDSTADDR: i32 = 74;
/// `IPV6_V6ONLY`.
pub const IPV6_V6ONLY: i32 = 26;
/// `IPV6_RECVPKTINFO`.
pub const IPV6_RECVPKTINFO: i32 = 49;
/// `IPV6_RECVHOPLIMIT`.
pub const IPV6_RECVHOPLIMIT: i32 = 51;
/// `IPV6_RECVTCLASS`.
pub const IPV6_RECVTCLASS: i32 = 66;

/// What `setsockopt(2)` set: plain data.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes that may wait on their way out (as reported: twice what was asked for).
    pub send_buffer: u32,
    /// Bytes that may wait on their way in.
    pub receive_buffer: u32,
    /// Whether the program chose the size of the first.
    pub send_chosen: bool,
    /// `SO_RCVTIMEO`, nanoseconds.
    pub receive_timeout: Option<u64>,
    /// `SO_SNDTIMEO`, nanoseconds.
    pub send_timeout: Option<u64>,
    /// `SO_LINGER`, seconds; none is off.
    pub linger: Option<i32>,
    /// Number of the interface that `SO_BINDTODEVICE` named; 0 is none.
    pub device: u32,
    /// Which of the four options that ask for times of messages was set last, and is on.
    stamps: Option<u32>,
    /// All other numbers, by level and name, as far as they differ from the default.
    numbers: BTreeMap<(i32, i32), i32>,
    /// All that is no number.
    values: BTreeMap<(i32, i32), Vec<u8>>,
}

impl Options {
    /// Defaults.
    pub fn new(domain: u32, kind: Kind) -> Self {
        let internet = matches!(domain, raw_net::AF_INET | raw_net::AF_INET6);
        let tcp = kind == Kind::Stream && internet;
        let mut numbers = BTreeMap::new();
        if kind == Kind::Raw && internet {
            // Raw sockets never keep others from an address.
            numbers.insert((SOL_SOCKET, raw_net::SO_REUSEADDR as i32), 1);
        }
        Self {
            send_buffer: if tcp { TCP_SEND } else { BUFFER },
            receive_buffer: if tcp { TCP_RECEIVE } else { BUFFER },
            send_chosen: false,
            receive_timeout: None,
            send_timeout: None,
            linger: None,
            device: 0,
            stamps: None,
            numbers,
            values: BTreeMap::new(),
        }
    }

    /// A number that was set; none while it has its default.
    pub fn number(&self, level: i32, name: i32) -> Option<i32> {
        self.numbers.get(&(level, name)).copied()
    }

    /// Whether a flag is set that is off by default.
    pub fn is_set(&self, level: i32, name: i32) -> bool {
        self.number(level, name).unwrap_or(0) != 0
    }

    /// The same for `SOL_SOCKET`.
    pub fn has(&self, name: u32) -> bool {
        self.is_set(SOL_SOCKET, name as i32)
    }

    /// When a message came, as control data for those who asked for it.
    pub fn timestamps(&self, time: Timespec) -> Vec<Control> {
        let Some(kind) = self.stamps else { return Vec::new() };
        let bytes = if matches!(kind, raw_net::SO_TIMESTAMPNS_OLD | raw_net::SO_TIMESTAMPNS_NEW) {
            bytemuck::bytes_of(&time).to_vec()
        } else {
            bytemuck::bytes_of(&Timeval { tv_sec: time.tv_sec, tv_usec: time.tv_nsec / 1000 }).to_vec()
        };
        vec![Control { level: SOL_SOCKET, kind: kind as i32, bytes }]
    }

    /// Sets a number without asking whether it makes sense.
    pub fn set_number(&mut self, level: i32, name: i32, value: i32) {
        self.numbers.insert((level, name), value);
    }

    /// A value that is no number; empty until it is set.
    pub fn value(&self, level: i32, name: i32) -> &[u8] {
        self.values.get(&(level, name)).map_or(&[], Vec::as_slice)
    }

    /// Sets such a value; an empty one takes it back.
    pub fn set_value(&mut self, level: i32, name: i32, value: &[u8]) {
        if value.is_empty() {
            self.values.remove(&(level, name));
        } else {
            self.values.insert((level, name), value.to_vec());
        }
    }
}

/// Whether the task may do what only administrators of the socket's network may.
pub fn is_administrator(base: &Base, task: &Task) -> bool {
    base.permits(task, raw::CAP_NET_ADMIN)
}

/// Whether the task may make packets as it likes.
pub fn may_forge(base: &Base, task: &Task) -> bool {
    base.permits(task, raw::CAP_NET_RAW)
}

/// Whether it is a socket of the internet's.
pub fn is_internet(base: &Base) -> bool {
    matches!(base.domain, raw_net::AF_INET | raw_net::AF_INET6)
}

/// The level whose options a socket has under this one; none if it does not know the level.
fn known_level(base: &Base, level: i32) -> Option<i32> {
    let v6 = base.domain == raw_net::AF_INET6;
    let datagrams =
        is_internet(base) && base.kind == Kind::Datagram && !matches!(base.protocol, super::inet::icmp::ICMP | super::inet::icmp::ICMPV6);
    match level {
        SOL_SOCKET => Some(level),
        LEVEL_IP if base.domain == raw_net::AF_INET || v6 && base.kind != Kind::Raw => Some(level),
        LEVEL_IPV6 if v6 => Some(level),
        LEVEL_TCP if is_internet(base) && base.kind == Kind::Stream => Some(level),
        LEVEL_UDP | LEVEL_UDP_LITE if datagrams => Some(LEVEL_UDP),
        _ => None,
    }
}

/// What a socket answers for levels that are not its own; connections say something else to those who set.
fn unknown_level(base: &Base, asks: bool) -> Errno {
    match base.domain {
        raw_net::AF_UNIX => Errno::EOPNOTSUPP,
        raw_net::AF_INET if asks => Errno::EOPNOTSUPP,
        _ => Errno::ENOPROTOOPT,
    }
}

/// The `int` that an option's value starts with; single bytes do for `IPPROTO_IP`, as in Linux.
pub fn int(level: i32, value: &[u8]) -> Result<i32, Errno> {
    match value.first_chunk() {
        Some(bytes) => Ok(i32::from_ne_bytes(*bytes)),
        None if level == LEVEL_IP && !value.is_empty() => Ok(i32::from(value[0])),
        None => Err(Errno::EINVAL),
    }
}

/// `setsockopt(2)`.
///
/// # Errors
///
/// Those of the manual page: `EINVAL`, `ENOPROTOOPT`, `EOPNOTSUPP`, `EPERM`, and what single options say.
pub fn set(base: &Base, task: &Arc<Task>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    let known = known_level(base, level).ok_or_else(|| unknown_level(base, false))?;
    if known == SOL_SOCKET
        && let Some(result) = socket::set(base, task, name as u32, value)
    {
        return result;
    }
    if matches!(known, LEVEL_TCP | LEVEL_UDP) {
        // These read the number before they look for the option.
        int(known, value)?;
    }
    let entry = table::find(known, name).ok_or(Errno::ENOPROTOOPT)?;
    if let Some(errno) = entry.refusal(base.kind) {
        return Err(errno);
    }
    let number = entry.decode(value)?;
    base.options.lock().set_number(known, name, number);
    Ok(())
}

/// What an option is now, of those in the table.
pub fn current(base: &Base, entry: &Entry) -> i32 {
    base.options.lock().number(entry.level, entry.name).unwrap_or(entry.default)
}

/// `getsockopt(2)`; `length` is what the caller has room for.
///
/// # Errors
///
/// Those of the manual page: `EINVAL`, `ENOPROTOOPT`, `EOPNOTSUPP`.
pub fn get(base: &Base, level: i32, name: i32, length: usize) -> Result<Vec<u8>, Errno> {
    let known = known_level(base, level).ok_or_else(|| unknown_level(base, true))?;
    if known == SOL_SOCKET
        && let Some(result) = socket::get(base, name as u32, length)
    {
        return result;
    }
    let entry = table::find(known, name).ok_or(Errno::ENOPROTOOPT)?;
    if let Some(errno) = entry.secret(base.kind) {
        return Err(errno);
    }
    Ok(encode(known, current(base, entry), length))
}

/// A number as it is told: for `IPPROTO_IP` one that fits into a byte is a byte to those who have less room than it needs.
pub fn encode(level: i32, number: i32, length: usize) -> Vec<u8> {
    match u8::try_from(number) {
        Ok(byte) if level == LEVEL_IP && (1..4).contains(&length) => vec![byte],
        _ => number.to_ne_bytes().to_vec(),
    }
}
