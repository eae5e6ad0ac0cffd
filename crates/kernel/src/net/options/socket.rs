//! What of `SOL_SOCKET` is more than a number in the table, `socket(7)`.

use std::sync::Arc;

use cloudpilot_abi::types::Timeval;
use cloudpilot_abi::{Errno, raw_net};

use super::{BUFFER, LEVEL_UDP_LITE, SOL_SOCKET, int, is_administrator, is_internet, may_forge};
use crate::net::message::Credentials;
use crate::net::{Base, Kind, interface};
use crate::task::Task;

/// `IPPROTO_UDPLITE`.
const LITE: u32 = LEVEL_UDP_LITE as u32;
const SMALLEST_SEND: u32 = 4608;
const SMALLEST_RECEIVE: u32 = 2304;
/// The most that `SO_SNDBUFFORCE` and `SO_RCVBUFFORCE` give; what all sockets hold together is bounded besides.
const LARGEST_FORCED: u32 = 16 << 20;
/// Most bytes that a TCP socket may want to wait for: half of the largest receive buffer.
const TCP_MOST_AWAITED: i32 = 1 << 24;
/// Longest wait of `SO_RCVTIMEO`; longer ones are for ever, as in Linux.
const LONGEST_TIMEOUT: u64 = i64::MAX as u64 / 2;
/// The highest priority that needs no privilege.
const HIGHEST_PRIORITY: i32 = 6;
/// Room for the name of an interface (`IFNAMSIZ`).
const DEVICE_NAME: usize = 16;
/// `struct sock_fprog`.
const FILTER_SIZE: usize = 16;
/// `struct so_timestamping`, `struct sock_txtime`.
const PAIR: usize = 8;
/// `SOF_TIMESTAMPING_MASK`; what `SOF_TIMESTAMPING_OPT_ID_TCP` needs beside itself.
const STAMPING_MASK: i32 = (1 << 18) - 1;
const STAMPING_ID: i32 = 1 << 7;
const STAMPING_ID_TCP: i32 = 1 << 16;
/// `SK_MEMINFO_VARS` numbers, and which of them are the sizes of buffers.
const MEMORY_FIGURES: usize = 9;

fn timeout(value: &[u8]) -> Result<Option<u64>, Errno> {
    let bytes = value.get(..size_of::<Timeval>()).ok_or(Errno::EINVAL)?;
    let time: Timeval = bytemuck::pod_read_unaligned(bytes);
    if !(0..1_000_000).contains(&time.tv_usec) {
        return Err(Errno::EDOM);
    }
    if time.tv_sec < 0 {
        // Over already: such a socket never waits.
        return Ok(Some(0));
    }
    let nanoseconds = (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_usec as u64 * 1000);
    Ok(Some(nanoseconds).filter(|nanoseconds| (1..LONGEST_TIMEOUT).contains(nanoseconds)))
}

fn timeval(nanoseconds: Option<u64>) -> Vec<u8> {
    let nanoseconds = nanoseconds.unwrap_or(0);
    let time = Timeval { tv_sec: (nanoseconds / 1_000_000_000) as i64, tv_usec: (nanoseconds / 1000 % 1_000_000) as i64 };
    bytemuck::bytes_of(&time).to_vec()
}

/// Linux doubles what is asked for, for its own bookkeeping, and programs rely on reading the double back.
fn buffer_size(wanted: i32, smallest: u32) -> u32 {
    ((wanted as u32).min(BUFFER) * 2).max(smallest)
}

fn forced_size(wanted: i32, smallest: u32) -> u32 {
    ((wanted.max(0) as u32).min(LARGEST_FORCED) * 2).max(smallest)
}

/// Whether its peers are known: the only sockets whose credentials and files travel.
fn knows_senders(base: &Base) -> bool {
    matches!(base.domain, raw_net::AF_UNIX | raw_net::AF_NETLINK)
}

fn is_tcp(base: &Base) -> bool {
    is_internet(base) && base.kind == Kind::Stream
}

fn has_peek_offset(base: &Base) -> bool {
    base.domain == raw_net::AF_UNIX || is_internet(base) && base.kind != Kind::Raw
}

fn set_device(base: &Base, task: &Task, value: &[u8]) -> Result<(), Errno> {
    let mut options = base.options.lock();
    if options.device != 0 && !may_forge(base, task) {
        return Err(Errno::EPERM);
    }
    let name = value[..value.len().min(DEVICE_NAME - 1)].split(|byte| *byte == 0).next().unwrap_or_default();
    options.device = match name {
        [] => 0,
        _ => interface::all(task.namespaces().net.network).iter().find(|known| known.name == name).ok_or(Errno::ENODEV)?.index,
    };
    Ok(())
}

fn set_stamping(base: &Base, name: u32, number: i32) -> Result<(), Errno> {
    if number & !STAMPING_MASK != 0 || number & STAMPING_ID_TCP != 0 && number & STAMPING_ID == 0 {
        return Err(Errno::EINVAL);
    }
    base.options.lock().set_number(SOL_SOCKET, name as i32, number);
    Ok(())
}

/// `SO_MAX_PACING_RATE`: as wide as the caller says; the highest number is no limit in either width.
fn set_pacing(base: &Base, value: &[u8], number: i32) {
    let rate = match value.first_chunk::<8>() {
        Some(wide) => u64::from_ne_bytes(*wide),
        None if number == -1 => u64::MAX,
        None => u64::from(number as u32),
    };
    base.options.lock().set_value(SOL_SOCKET, raw_net::SO_MAX_PACING_RATE as i32, &rate.to_ne_bytes());
}

/// `setsockopt(2)`; none leaves it to the table.
pub(super) fn set(base: &Base, task: &Arc<Task>, name: u32, value: &[u8]) -> Option<Result<(), Errno>> {
    if name == raw_net::SO_BINDTODEVICE {
        return Some(set_device(base, task, value));
    }
    match int(SOL_SOCKET, value) {
        Ok(number) => set_number(base, task, name, value, number),
        Err(errno) => Some(Err(errno)),
    }
}

fn set_number(base: &Base, task: &Arc<Task>, name: u32, value: &[u8], number: i32) -> Option<Result<(), Errno>> {
    let permitted = |permitted: bool| if permitted { Ok(()) } else { Err(Errno::EPERM) };
    let mut options = base.options.lock();
    let refused = match name {
        raw_net::SO_SNDBUF => {
            (options.send_buffer, options.send_chosen) = (buffer_size(number, SMALLEST_SEND), true);
            Ok(())
        }
        raw_net::SO_RCVBUF => {
            options.receive_buffer = buffer_size(number, SMALLEST_RECEIVE);
            Ok(())
        }
        raw_net::SO_SNDBUFFORCE | raw_net::SO_RCVBUFFORCE if !is_administrator(base, task) => Err(Errno::EPERM),
        raw_net::SO_SNDBUFFORCE => {
            (options.send_buffer, options.send_chosen) = (forced_size(number, SMALLEST_SEND), true);
            Ok(())
        }
        raw_net::SO_RCVBUFFORCE => {
            options.receive_buffer = forced_size(number, SMALLEST_RECEIVE);
            Ok(())
        }
        raw_net::SO_RCVTIMEO | raw_net::SO_RCVTIMEO_NEW => timeout(value).map(|timeout| options.receive_timeout = timeout),
        raw_net::SO_SNDTIMEO | raw_net::SO_SNDTIMEO_NEW => timeout(value).map(|timeout| options.send_timeout = timeout),
        raw_net::SO_LINGER => match value.get(4..).and_then(|rest| rest.first_chunk()) {
            Some(seconds) => {
                options.linger = (number != 0).then_some(i32::from_ne_bytes(*seconds));
                Ok(())
            }
            None => Err(Errno::EINVAL),
        },
        raw_net::SO_TIMESTAMP_OLD | raw_net::SO_TIMESTAMP_NEW | raw_net::SO_TIMESTAMPNS_OLD | raw_net::SO_TIMESTAMPNS_NEW => {
            options.stamps = (number != 0).then_some(name);
            Ok(())
        }
        raw_net::SO_TIMESTAMPING_OLD | raw_net::SO_TIMESTAMPING_NEW => {
            drop(options);
            set_stamping(base, name, number)
        }
        raw_net::SO_MAX_PACING_RATE => {
            drop(options);
            set_pacing(base, value, number);
            Ok(())
        }
        raw_net::SO_RCVLOWAT => {
            let most = if is_tcp(base) { TCP_MOST_AWAITED } else { i32::MAX };
            let wanted = if number < 0 { i32::MAX } else { number.max(1) };
            options.set_number(SOL_SOCKET, name as i32, wanted.min(most));
            Ok(())
        }
        raw_net::SO_PRIORITY if !(0..=HIGHEST_PRIORITY).contains(&number) => match permitted(is_administrator(base, task)) {
            Ok(()) => return None,
            refused => refused,
        },
        raw_net::SO_MARK if !is_administrator(base, task) && !may_forge(base, task) => Err(Errno::EPERM),
        raw_net::SO_RCVMARK if !is_administrator(base, task) && !may_forge(base, task) => Err(Errno::EPERM),
        raw_net::SO_PREFER_BUSY_POLL if number != 0 && !is_administrator(base, task) => Err(Errno::EPERM),
        raw_net::SO_BUSY_POLL if number > 0 && !is_administrator(base, task) => Err(Errno::EPERM),
        raw_net::SO_BUSY_POLL_BUDGET if !(0..=i32::from(u16::MAX)).contains(&number) => Err(Errno::EINVAL),
        raw_net::SO_BUSY_POLL_BUDGET => permitted(is_administrator(base, task)),
        raw_net::SO_REUSEPORT if number != 0 && !is_internet(base) => Err(Errno::EOPNOTSUPP),
        raw_net::SO_PASSCRED | raw_net::SO_PASSSEC if !knows_senders(base) => Err(Errno::EOPNOTSUPP),
        raw_net::SO_PASSPIDFD | raw_net::SO_PASSRIGHTS if base.domain != raw_net::AF_UNIX => Err(Errno::EOPNOTSUPP),
        raw_net::SO_PEEK_OFF if !has_peek_offset(base) => Err(Errno::EOPNOTSUPP),
        raw_net::SO_LOCK_FILTER if number == 0 && options.has(name) => Err(Errno::EPERM),
        raw_net::SO_ZEROCOPY if !is_internet(base) || base.kind == Kind::Raw || base.protocol == LITE => Err(Errno::EOPNOTSUPP),
        raw_net::SO_TXREHASH if !is_tcp(base) => Err(Errno::EOPNOTSUPP),
        raw_net::SO_TXREHASH if number == -1 => {
            options.set_number(SOL_SOCKET, name as i32, 1);
            Ok(())
        }
        raw_net::SO_BINDTOIFINDEX if number >= 0 => {
            options.device = number as u32;
            Ok(())
        }
        raw_net::SO_TXTIME => {
            let flags = value.get(4..PAIR).map(|bytes| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
            match flags {
                Some(flags) if value.len() == PAIR && flags & !3 == 0 && (0..=1).contains(&number) => {
                    options.set_value(SOL_SOCKET, name as i32, value);
                    Ok(())
                }
                _ => Err(Errno::EINVAL),
            }
        }
        raw_net::SO_RESERVE_MEM if number < 0 => Err(Errno::EINVAL),
        raw_net::SO_RESERVE_MEM => Err(Errno::EOPNOTSUPP),
        // Advice about the route, of which there is one.
        raw_net::SO_CNX_ADVICE => Ok(()),
        raw_net::SO_DETACH_FILTER => Err(Errno::ENOENT),
        raw_net::SO_DETACH_REUSEPORT_BPF => Err(Errno::EINVAL),
        raw_net::SO_ATTACH_BPF | raw_net::SO_ATTACH_REUSEPORT_EBPF if value.len() != size_of::<i32>() => Err(Errno::EINVAL),
        raw_net::SO_ATTACH_BPF | raw_net::SO_ATTACH_REUSEPORT_EBPF => {
            drop(options);
            // No descriptor is a program of that kind.
            task.file(number).and(Err(Errno::EINVAL))
        }
        raw_net::SO_ATTACH_FILTER | raw_net::SO_ATTACH_REUSEPORT_CBPF if value.len() != FILTER_SIZE => Err(Errno::EINVAL),
        raw_net::SO_ATTACH_FILTER | raw_net::SO_ATTACH_REUSEPORT_CBPF => Err(Errno::EINVAL),
        _ => return None,
    };
    Some(refused)
}

/// Amounts of memory in the order of `SO_MEMINFO`.
fn memory(base: &Base) -> Vec<u8> {
    let options = base.options.lock();
    let mut figures = [0; MEMORY_FIGURES];
    figures[1] = options.receive_buffer;
    figures[3] = options.send_buffer;
    figures.iter().flat_map(|figure| figure.to_ne_bytes()).collect()
}

/// `getsockopt(2)`; none leaves it to the table.
pub(super) fn get(base: &Base, name: u32, length: usize) -> Option<Result<Vec<u8>, Errno>> {
    let number = |number: i32| Ok(number.to_ne_bytes().to_vec());
    let options = base.options.lock();
    Some(match name {
        raw_net::SO_TYPE => number(base.kind as i32),
        raw_net::SO_DOMAIN => number(base.domain as i32),
        // Numbers of netlink's and unix protocols are not told.
        raw_net::SO_PROTOCOL => number(if is_internet(base) || base.domain == raw_net::AF_NETLINK { base.protocol as i32 } else { 0 }),
        raw_net::SO_ERROR => number(base.endpoint.take_error().map_or(0, |errno| i32::from(errno.0))),
        raw_net::SO_SNDBUF => number(options.send_buffer as i32),
        raw_net::SO_RCVBUF => number(options.receive_buffer as i32),
        raw_net::SO_RCVTIMEO | raw_net::SO_RCVTIMEO_NEW => Ok(timeval(options.receive_timeout)),
        raw_net::SO_SNDTIMEO | raw_net::SO_SNDTIMEO_NEW => Ok(timeval(options.send_timeout)),
        raw_net::SO_LINGER => {
            let value = [i32::from(options.linger.is_some()), options.linger.unwrap_or(0)];
            Ok(bytemuck::bytes_of(&value).to_vec())
        }
        raw_net::SO_TIMESTAMP_OLD | raw_net::SO_TIMESTAMP_NEW | raw_net::SO_TIMESTAMPNS_OLD | raw_net::SO_TIMESTAMPNS_NEW => {
            number(i32::from(options.stamps == Some(name)))
        }
        raw_net::SO_TIMESTAMPING_OLD | raw_net::SO_TIMESTAMPING_NEW => {
            let flags = options.number(SOL_SOCKET, name as i32).unwrap_or(0);
            Ok([flags.to_ne_bytes(), [0; 4]].concat())
        }
        raw_net::SO_MAX_PACING_RATE => {
            let rate = options.value(SOL_SOCKET, name as i32);
            let rate = if rate.is_empty() { vec![0xff; 8] } else { rate.to_vec() };
            Ok(if length >= rate.len() { rate } else { rate[..4].to_vec() })
        }
        raw_net::SO_TXTIME => Ok(match options.value(SOL_SOCKET, name as i32) {
            [] => vec![0; PAIR],
            value => value.to_vec(),
        }),
        raw_net::SO_PEERCRED => {
            let nobody = Credentials { pid: 0, uid: u32::MAX, gid: u32::MAX };
            Ok(bytemuck::bytes_of(&nobody).to_vec())
        }
        raw_net::SO_PEERGROUPS | raw_net::SO_PEERPIDFD => Err(Errno::ENODATA),
        raw_net::SO_PEERSEC => Err(Errno::ENOPROTOOPT),
        // No filter: none of its instructions.
        raw_net::SO_GET_FILTER => Ok(Vec::new()),
        raw_net::SO_BINDTODEVICE if options.device == 0 => Ok(Vec::new()),
        raw_net::SO_BINDTODEVICE if length < DEVICE_NAME => Err(Errno::EINVAL),
        raw_net::SO_BINDTODEVICE => Ok([interface::name_of(options.device).unwrap_or_default(), b"\0"].concat()),
        raw_net::SO_BINDTOIFINDEX => number(options.device as i32),
        raw_net::SO_MEMINFO => {
            drop(options);
            Ok(memory(base))
        }
        raw_net::SO_COOKIE if length < size_of::<u64>() => Err(Errno::EINVAL),
        raw_net::SO_COOKIE => Ok(base.inode.load(std::sync::atomic::Ordering::Relaxed).to_ne_bytes().to_vec()),
        raw_net::SO_PASSCRED | raw_net::SO_PASSSEC if !knows_senders(base) => Err(Errno::EOPNOTSUPP),
        raw_net::SO_PASSPIDFD | raw_net::SO_PASSRIGHTS if base.domain != raw_net::AF_UNIX => Err(Errno::EOPNOTSUPP),
        raw_net::SO_PEEK_OFF if !has_peek_offset(base) => Err(Errno::EOPNOTSUPP),
        raw_net::SO_TXREHASH if !is_tcp(base) => Err(Errno::EOPNOTSUPP),
        _ => return None,
    })
}
