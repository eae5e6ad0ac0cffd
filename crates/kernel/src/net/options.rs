//! Socket options that mean the same for every socket of ours, and those that are only remembered.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloudpilot_abi::types::{Timespec, Timeval};
use cloudpilot_abi::{Errno, raw, raw_net};

use super::message::{Control, Credentials};
use super::{Base, Kind};
use crate::task::Task;

/// `SOL_SOCKET`.
pub const SOL_SOCKET: i32 = raw_net::SOL_SOCKET as i32;
/// `IPPROTO_IP`.
pub const LEVEL_IP: i32 = 0;
/// `IPPROTO_TCP`.
pub const LEVEL_TCP: i32 = 6;
/// `IPPROTO_UDP`.
pub const LEVEL_UDP: i32 = 17;
/// `IPPROTO_UDPLITE`.
const LEVEL_UDP_LITE: i32 = 136;
/// `IPPROTO_IPV6`.
pub const LEVEL_IPV6: i32 = 41;

/// Linux's `wmem_default` and `rmem_default`, and the most that may be asked for.
pub const BUFFER: u32 = 212_992;
/// What TCP sockets receive into and send from at first.
const TCP_RECEIVE: u32 = 131_072;
const TCP_SEND: u32 = 262_144;
const SMALLEST_SEND: u32 = 4608;
const SMALLEST_RECEIVE: u32 = 2304;
/// Name of the interface.
const LOOPBACK: &[u8] = b"lo";
/// Longest wait of `SO_RCVTIMEO`; longer ones are for ever, as in Linux.
const LONGEST_TIMEOUT: u64 = i64::MAX as u64 / 2;

/// What `setsockopt(2)` set: plain data.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes that may wait on their way out (as reported: twice what was asked for).
    pub send_buffer: u32,
    /// Bytes that may wait on their way in.
    pub receive_buffer: u32,
    /// `SO_RCVTIMEO`, nanoseconds.
    pub receive_timeout: Option<u64>,
    /// `SO_SNDTIMEO`, nanoseconds.
    pub send_timeout: Option<u64>,
    /// `SO_LINGER`, seconds; none is off.
    pub linger: Option<i32>,
    /// `SO_BINDTODEVICE` named the one interface that there is.
    pub on_loopback: bool,
    /// All others, by level and name, as far as they differ from the default.
    numbers: BTreeMap<(i32, i32), i32>,
}

/// An option that is a number: level, name, default, least and greatest value.
type Number = (i32, i32, i32, i32, i32);

const fn flag(name: u32) -> Number {
    (SOL_SOCKET, name as i32, 0, 0, 1)
}

/// Options that programs set for real networks: checksums of frames, filters that stay, errors that wake, sizes that stay, paths, marks.
const SO_NOFCS: u32 = 43;
const SO_LOCK_FILTER: u32 = 44;
const SO_SELECT_ERR_QUEUE: u32 = 45;
const SO_BUF_LOCK: u32 = 72;
const SO_TXREHASH: u32 = 74;
const SO_RCVMARK: u32 = 75;
/// `SO_BSDCOMPAT`: taken, and without effect for decades.
const SO_BSDCOMPAT: u32 = 14;
/// `SO_BPF_EXTENSIONS`: what Linux answers.
const SO_BPF_EXTENSIONS: u32 = 48;
const BPF_EXTENSIONS: i32 = 64;

/// Options of every socket.
const COMMON: &[Number] = &[
    flag(raw_net::SO_REUSEADDR),
    flag(raw_net::SO_REUSEPORT),
    flag(raw_net::SO_KEEPALIVE),
    flag(raw_net::SO_BROADCAST),
    flag(raw_net::SO_OOBINLINE),
    flag(raw_net::SO_PASSCRED),
    flag(raw_net::SO_TIMESTAMP),
    flag(raw_net::SO_TIMESTAMPNS),
    flag(raw_net::SO_DONTROUTE),
    flag(raw_net::SO_DEBUG),
    flag(raw_net::SO_NO_CHECK),
    flag(raw_net::SO_RXQ_OVFL),
    flag(raw_net::SO_PASSSEC),
    flag(SO_NOFCS),
    flag(SO_LOCK_FILTER),
    flag(SO_SELECT_ERR_QUEUE),
    (SOL_SOCKET, SO_BUF_LOCK as i32, 0, 0, 3),
    (SOL_SOCKET, SO_TXREHASH as i32, 1, 0, 1),
    flag(SO_RCVMARK),
    (SOL_SOCKET, raw_net::SO_PRIORITY as i32, 0, 0, 6),
    (SOL_SOCKET, raw_net::SO_MARK as i32, 0, i32::MIN, i32::MAX),
    (SOL_SOCKET, raw_net::SO_RCVLOWAT as i32, 1, 0, i32::MAX),
    (SOL_SOCKET, raw_net::SO_BUSY_POLL as i32, 0, 0, i32::MAX),
    (SOL_SOCKET, raw_net::SO_MAX_PACING_RATE as i32, -1, i32::MIN, i32::MAX),
    (SOL_SOCKET, raw_net::SO_INCOMING_CPU as i32, -1, -1, i32::MAX),
];

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

/// Options of the internet's sockets, with their defaults; most only change packets, of which there are none.
const INTERNET: &[Number] = &[
    (LEVEL_IP, IP_TOS, 0, 0, 255),
    (LEVEL_IP, IP_TTL, 64, -1, 255),
    (LEVEL_IP, 6, 0, 0, 1),
    (LEVEL_IP, 7, 0, 0, 1),
    (LEVEL_IP, IP_PKTINFO, 0, 0, 1),
    (LEVEL_IP, 10, 1, 0, 5),
    (LEVEL_IP, 11, 0, 0, 1),
    (LEVEL_IP, IP_RECVTTL, 0, 0, 1),
    (LEVEL_IP, IP_RECVTOS, 0, 0, 1),
    (LEVEL_IP, 15, 0, 0, 1),
    (LEVEL_IP, 18, 0, 0, 1),
    (LEVEL_IP, 19, 0, 0, 1),
    (LEVEL_IP, IP_RECVORIGDSTADDR, 0, 0, 1),
    (LEVEL_IP, 21, 0, 0, 255),
    (LEVEL_IP, 22, 0, 0, 1),
    (LEVEL_IP, 23, 0, 0, 1),
    (LEVEL_IP, 24, 0, 0, 1),
    (LEVEL_IP, 25, 0, 0, 1),
    (LEVEL_IP, 26, 0, 0, 1),
    (LEVEL_IP, 33, 1, -1, 255),
    (LEVEL_IP, 34, 1, 0, 1),
    (LEVEL_IP, 49, 1, 0, 1),
    (LEVEL_IPV6, IPV6_V6ONLY, 0, 0, 1),
    (LEVEL_IPV6, 16, 64, -1, 255),
    (LEVEL_IPV6, 17, 0, 0, 1),
    (LEVEL_IPV6, 18, 1, -1, 255),
    (LEVEL_IPV6, 19, 1, 0, 1),
    (LEVEL_IPV6, 23, 1, 0, 5),
    (LEVEL_IPV6, 25, 0, 0, 1),
    (LEVEL_IPV6, 29, 1, 0, 1),
    (LEVEL_IPV6, 33, 0, 0, 1),
    (LEVEL_IPV6, IPV6_RECVPKTINFO, 0, 0, 1),
    (LEVEL_IPV6, IPV6_RECVHOPLIMIT, 0, 0, 1),
    (LEVEL_IPV6, 60, 0, 0, 1),
    (LEVEL_IPV6, 62, 0, 0, 1),
    (LEVEL_IPV6, IPV6_RECVTCLASS, 0, 0, 1),
    (LEVEL_IPV6, 67, 0, -1, 255),
    (LEVEL_IPV6, 70, 1, 0, 1),
    (LEVEL_IPV6, 72, 2, 0, i32::MAX),
    (LEVEL_IPV6, IPV6_RECVORIGDSTADDR, 0, 0, 1),
    (LEVEL_IPV6, 78, 0, 0, 1),
];

/// Options of TCP sockets.
const TCP: &[Number] = &[
    (LEVEL_TCP, 1, 0, 0, 1),
    (LEVEL_TCP, 2, 65_483, 88, 65_495),
    (LEVEL_TCP, 3, 0, 0, 1),
    (LEVEL_TCP, 4, 7200, 1, 32_767),
    (LEVEL_TCP, 5, 75, 1, 32_767),
    (LEVEL_TCP, 6, 9, 1, 127),
    (LEVEL_TCP, 7, 6, 1, 127),
    (LEVEL_TCP, 8, 60, -1, 120),
    (LEVEL_TCP, 9, 0, 0, i32::MAX),
    (LEVEL_TCP, 10, 0, 0, i32::MAX),
    (LEVEL_TCP, 12, 1, 0, 1),
    (LEVEL_TCP, 16, 0, 0, 1),
    (LEVEL_TCP, 17, 0, 0, 1),
    (LEVEL_TCP, 18, 0, 0, i32::MAX),
    (LEVEL_TCP, 23, 0, 0, i32::MAX),
    (LEVEL_TCP, 25, 0, i32::MIN, i32::MAX),
    (LEVEL_TCP, 30, 0, 0, 1),
];

/// Options of UDP-Lite sockets: how much of a datagram is checked.
const UDP_LITE: &[Number] = &[(LEVEL_UDP_LITE, 10, 0, 0, i32::MAX), (LEVEL_UDP_LITE, 11, 0, 0, i32::MAX)];

/// Options of UDP sockets.
const UDP: &[Number] = &[(LEVEL_UDP, 1, 0, 0, 1)];

impl Options {
    /// Defaults.
    pub fn new(domain: u32, kind: Kind) -> Self {
        let tcp = kind == Kind::Stream && matches!(domain, raw_net::AF_INET | raw_net::AF_INET6);
        Self {
            send_buffer: if tcp { TCP_SEND } else { BUFFER },
            receive_buffer: if tcp { TCP_RECEIVE } else { BUFFER },
            receive_timeout: None,
            send_timeout: None,
            linger: None,
            on_loopback: false,
            numbers: BTreeMap::new(),
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
        let (kind, bytes) = if self.has(raw_net::SO_TIMESTAMPNS) {
            (raw_net::SO_TIMESTAMPNS, bytemuck::bytes_of(&time).to_vec())
        } else if self.has(raw_net::SO_TIMESTAMP) {
            let time = Timeval { tv_sec: time.tv_sec, tv_usec: time.tv_nsec / 1000 };
            (raw_net::SO_TIMESTAMP, bytemuck::bytes_of(&time).to_vec())
        } else {
            return Vec::new();
        };
        vec![Control { level: SOL_SOCKET, kind: kind as i32, bytes }]
    }

    /// Sets a number without asking whether it makes sense.
    pub fn set_number(&mut self, level: i32, name: i32, value: i32) {
        self.numbers.insert((level, name), value);
    }
}

fn find(base: &Base, level: i32, name: i32) -> Result<&'static Number, Errno> {
    let internet = matches!(base.domain, raw_net::AF_INET | raw_net::AF_INET6);
    let table = match level {
        SOL_SOCKET => COMMON,
        LEVEL_IP if internet => INTERNET,
        LEVEL_IPV6 if base.domain == raw_net::AF_INET6 => INTERNET,
        LEVEL_TCP if internet && base.kind == Kind::Stream => TCP,
        LEVEL_UDP_LITE if internet && base.protocol == LEVEL_UDP_LITE as u32 => UDP_LITE,
        LEVEL_UDP if internet && base.kind == Kind::Datagram => UDP,
        _ if internet || base.domain == raw_net::AF_UNIX => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::ENOPROTOOPT),
    };
    table.iter().find(|number| (number.0, number.1) == (level, name)).ok_or(Errno::ENOPROTOOPT)
}

/// The `int` that an option's value starts with; single bytes do for `IPPROTO_IP`, as in Linux.
pub fn int(level: i32, value: &[u8]) -> Result<i32, Errno> {
    match value.first_chunk() {
        Some(bytes) => Ok(i32::from_ne_bytes(*bytes)),
        None if level == LEVEL_IP && !value.is_empty() => Ok(i32::from(value[0])),
        None => Err(Errno::EINVAL),
    }
}

fn timeout(value: &[u8]) -> Result<Option<u64>, Errno> {
    let bytes = value.get(..size_of::<Timeval>()).ok_or(Errno::EINVAL)?;
    let time: Timeval = bytemuck::pod_read_unaligned(bytes);
    if !(0..1_000_000).contains(&time.tv_usec) {
        return Err(Errno::EDOM);
    }
    if time.tv_sec < 0 {
        return Ok(None);
    }
    let nanoseconds = (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_usec as u64 * 1000);
    Ok(Some(nanoseconds).filter(|nanoseconds| (1..LONGEST_TIMEOUT).contains(nanoseconds)))
}

fn timeval(nanoseconds: Option<u64>) -> Vec<u8> {
    let nanoseconds = nanoseconds.unwrap_or(0);
    let time = Timeval { tv_sec: (nanoseconds / 1_000_000_000) as i64, tv_usec: (nanoseconds / 1000 % 1_000_000) as i64 };
    bytemuck::bytes_of(&time).to_vec()
}

/// `setsockopt(2)`.
pub fn set(base: &Base, task: &Arc<Task>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    if level == SOL_SOCKET {
        match name as u32 {
            raw_net::SO_SNDBUF | raw_net::SO_SNDBUFFORCE => {
                base.options.lock().send_buffer = buffer_size(value, SMALLEST_SEND)?;
                return Ok(());
            }
            raw_net::SO_RCVBUF | raw_net::SO_RCVBUFFORCE => {
                base.options.lock().receive_buffer = buffer_size(value, SMALLEST_RECEIVE)?;
                return Ok(());
            }
            raw_net::SO_RCVTIMEO | raw_net::SO_RCVTIMEO_NEW => {
                base.options.lock().receive_timeout = timeout(value)?;
                return Ok(());
            }
            raw_net::SO_SNDTIMEO | raw_net::SO_SNDTIMEO_NEW => {
                base.options.lock().send_timeout = timeout(value)?;
                return Ok(());
            }
            raw_net::SO_LINGER => {
                let on = int(level, value)? != 0;
                let seconds = int(level, value.get(4..).unwrap_or_default())?;
                base.options.lock().linger = on.then_some(seconds);
                return Ok(());
            }
            raw_net::SO_BINDTODEVICE => {
                let device = value.split(|byte| *byte == 0).next().unwrap_or_default();
                if !device.is_empty() && device != LOOPBACK {
                    return Err(Errno::ENODEV);
                }
                base.options.lock().on_loopback = !device.is_empty();
                return Ok(());
            }
            raw_net::SO_DETACH_FILTER => return Err(Errno::ENOENT),
            raw_net::SO_PRIORITY if task.credentials().has_in(&task.namespaces().net.owner, raw::CAP_NET_ADMIN) => {
                let priority = int(level, value)?;
                base.options.lock().set_number(level, name, priority);
                return Ok(());
            }
            SO_BSDCOMPAT => return int(level, value).map(drop),
            raw_net::SO_MARK if !task.credentials().has_in(&task.namespaces().net.owner, raw::CAP_NET_ADMIN) => return Err(Errno::EPERM),
            _ => {}
        }
    }
    let internet = matches!(base.domain, raw_net::AF_INET | raw_net::AF_INET6);
    let &(_, _, _, least, greatest) = find(base, level, name).map_err(|errno| match errno {
        // So connections answer to levels that are not theirs, though only to those who set something.
        Errno::EOPNOTSUPP if internet && base.kind == Kind::Stream => Errno::ENOPROTOOPT,
        other => other,
    })?;
    let mut number = int(level, value)?;
    if (least, greatest) == (0, 1) {
        number = i32::from(number != 0);
    } else if !(least..=greatest).contains(&number) {
        return Err(Errno::EINVAL);
    }
    base.options.lock().set_number(level, name, number);
    Ok(())
}

fn buffer_size(value: &[u8], smallest: u32) -> Result<u32, Errno> {
    // Linux doubles what is asked for, for its own bookkeeping, and programs rely on reading the double back.
    let wanted = (int(SOL_SOCKET, value)?.max(0) as u32).min(BUFFER);
    Ok((wanted * 2).max(smallest))
}

/// `getsockopt(2)`.
pub fn get(base: &Base, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
    let number = |number: i32| Ok(number.to_ne_bytes().to_vec());
    if level == SOL_SOCKET {
        let options = base.options.lock();
        match name as u32 {
            raw_net::SO_TYPE => return number(base.kind as i32),
            raw_net::SO_DOMAIN => return number(base.domain as i32),
            raw_net::SO_PROTOCOL => return number(base.protocol as i32),
            raw_net::SO_ERROR => return number(base.endpoint.take_error().map_or(0, |errno| i32::from(errno.0))),
            raw_net::SO_SNDBUF => return number(options.send_buffer as i32),
            raw_net::SO_RCVBUF => return number(options.receive_buffer as i32),
            raw_net::SO_RCVTIMEO | raw_net::SO_RCVTIMEO_NEW => return Ok(timeval(options.receive_timeout)),
            raw_net::SO_SNDTIMEO | raw_net::SO_SNDTIMEO_NEW => return Ok(timeval(options.send_timeout)),
            raw_net::SO_LINGER => {
                let value = [i32::from(options.linger.is_some()), options.linger.unwrap_or(0)];
                return Ok(bytemuck::bytes_of(&value).to_vec());
            }
            raw_net::SO_PEERCRED => {
                let nobody = Credentials { pid: 0, uid: u32::MAX, gid: u32::MAX };
                return Ok(bytemuck::bytes_of(&nobody).to_vec());
            }
            raw_net::SO_SNDLOWAT => return number(1),
            SO_BSDCOMPAT => return number(0),
            SO_BPF_EXTENSIONS => return number(BPF_EXTENSIONS),
            raw_net::SO_ACCEPTCONN => return number(0),
            raw_net::SO_BINDTODEVICE if options.on_loopback => return Ok([LOOPBACK, b"\0"].concat()),
            raw_net::SO_BINDTODEVICE => return Ok(Vec::new()),
            raw_net::SO_INCOMING_NAPI_ID => return number(0),
            _ => {}
        }
    }
    let &(_, _, default, ..) = find(base, level, name)?;
    number(base.options.lock().number(level, name).unwrap_or(default))
}
