//! Sockets: making, naming and connecting them, options. Messages are in [`message`](super::message).

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw, raw_net};

use super::{Arg, Args, Call, SysResult, blocking, message};
use crate::config::Network;
use crate::net::message::{Credentials, Identity};
use crate::net::options::{self, SOL_SOCKET};
use crate::net::{self, Kind, Shutdown, Socket};
use crate::task::Task;
use crate::vfs::file::File;
use crate::wait::PollEvents;

use Arg::{Fd, Flags, In, Int, Out, Ptr, Size};

/// This family.
pub const CALLS: &[Call] = &[
    Call::partial(
        raw::__NR_socket,
        socket,
        &[Int, Flags, Int],
        "AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK, no AF_PACKET; raw sockets on the sandbox's own loopback see datagrams and ICMP",
    ),
    Call::full(raw::__NR_socketpair, socketpair, &[Int, Flags, Int, Ptr]),
    Call::full(raw::__NR_bind, bind, &[Fd, Ptr, Size]),
    Call::full(raw::__NR_listen, listen, &[Fd, Int]),
    Call::full(raw::__NR_accept, |task, args| accept(task, args, 0), &[Fd, Ptr, Ptr]),
    Call::full(raw::__NR_accept4, |task, args| accept(task, args, args.uint(3)), &[Fd, Ptr, Ptr, Flags]),
    Call::full(raw::__NR_connect, connect, &[Fd, Ptr, Size]),
    Call::full(raw::__NR_getsockname, |task, args| name(task, args, |socket| socket.local_address()), &[Fd, Ptr, Ptr]),
    Call::full(raw::__NR_getpeername, |task, args| name(task, args, |socket| socket.peer_address()), &[Fd, Ptr, Ptr]),
    Call::full(raw::__NR_shutdown, shutdown, &[Fd, Int]),
    Call::partial(
        raw::__NR_setsockopt,
        set_option,
        &[Fd, Int, Int, Ptr, Size],
        "options that only change packets are remembered and do nothing; filters and groups of chosen sources are refused",
    ),
    Call::full(raw::__NR_getsockopt, option, &[Fd, Int, Int, Ptr, Ptr]),
    Call::full(raw::__NR_sendto, message::send_to, &[Fd, In, Size, Flags, Ptr, Size]),
    Call::full(raw::__NR_recvfrom, message::receive_from, &[Fd, Out, Size, Flags, Ptr, Ptr]),
    Call::full(raw::__NR_sendmsg, message::send_message, &[Fd, Ptr, Flags]),
    Call::full(raw::__NR_recvmsg, message::receive_message, &[Fd, Ptr, Flags]),
    Call::full(raw::__NR_sendmmsg, message::send_messages, &[Fd, Ptr, Size, Flags]),
    Call::full(raw::__NR_recvmmsg, message::receive_messages, &[Fd, Ptr, Size, Flags, Ptr]),
];

/// Longest `sockaddr`, `struct sockaddr_storage`.
const ADDRESS_MAX: usize = 128;
/// Longest value of an option: none that we know is longer.
const OPTION_MAX: usize = 4096;
/// The part of `type` that is one.
const TYPE_MASK: u32 = 0xf;

/// The highest of them, `SOCK_PACKET`.
const HIGHEST_TYPE: u32 = 10;

/// Type and flags out of `socket(2)`'s second argument.
fn decode_type(value: u32) -> Result<(u32, u32), Errno> {
    let (kind, flags) = (value & TYPE_MASK, value & !TYPE_MASK);
    if flags & !(raw::O_CLOEXEC | raw::O_NONBLOCK) != 0 || kind > HIGHEST_TYPE { Err(Errno::EINVAL) } else { Ok((kind, flags)) }
}

fn unix_kind(kind: u32, protocol: u32) -> Result<Kind, Errno> {
    if !matches!(protocol, 0 | raw_net::AF_UNIX) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    match kind {
        1 => Ok(Kind::Stream),
        2 | 3 => Ok(Kind::Datagram),
        5 => Ok(Kind::SeqPacket),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

fn socket(task: &Arc<Task>, args: &Args) -> SysResult {
    let (domain, protocol) = (args.uint(0), args.uint(2));
    let (kind, flags) = decode_type(args.uint(1))?;
    let space = Arc::clone(&task.namespaces().net);
    let net = &*space.net;
    let socket: Arc<dyn Socket> = match domain {
        raw_net::AF_UNIX => net::unix::socket(net, unix_kind(kind, protocol)?),
        raw_net::AF_INET | raw_net::AF_INET6 if space.network == Network::Host => net::host::socket(domain, kind, protocol)?,
        raw_net::AF_NETLINK => net::netlink::socket(net, space.network, kind, protocol)?,
        raw_net::AF_INET | raw_net::AF_INET6 => net::inet::socket(task, domain, kind, protocol)?,
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    blocking::install(task, open(task, socket, flags), flags)
}

fn open(task: &Task, socket: Arc<dyn Socket>, flags: u32) -> Arc<File> {
    let credentials = task.credentials();
    socket.base().administration.get_or_init(|| Arc::clone(&task.namespaces().net.owner));
    net::open_owned(&task.namespaces().net.net, socket, flags, (credentials.fsuid, credentials.fsgid))
}

fn socketpair(task: &Arc<Task>, args: &Args) -> SysResult {
    let (kind, flags) = decode_type(args.uint(1))?;
    let space = Arc::clone(&task.namespaces().net);
    let net = &*space.net;
    match args.uint(0) {
        raw_net::AF_UNIX => {}
        raw_net::AF_INET | raw_net::AF_INET6 | raw_net::AF_NETLINK => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EAFNOSUPPORT),
    }
    let (one, other) = net::unix::pair(net, unix_kind(kind, args.uint(2))?, &Identity::of_task(task));
    let files = task.files();
    let first = blocking::install(task, open(task, one, flags), flags)? as i32;
    let remove = |fd| files.remove(fd).map(|file| files.closed(&file, task));
    let second = match blocking::install(task, open(task, other, flags), flags) {
        Ok(fd) => fd as i32,
        Err(errno) => {
            let _ = remove(first);
            return Err(errno);
        }
    };
    if let Err(errno) = task.write(args.raw(3), &[first, second]) {
        let _ = remove(first);
        let _ = remove(second);
        return Err(errno);
    }
    Ok(0)
}

/// Reads a `sockaddr` in.
pub(super) fn read_address(task: &Task, address: u64, length: i32) -> Result<Vec<u8>, Errno> {
    let length = usize::try_from(length).ok().filter(|length| *length <= ADDRESS_MAX).ok_or(Errno::EINVAL)?;
    task.read_slice(address, length)
}

/// Writes a `sockaddr` out, cut to the room that the caller has; the length is the whole one.
pub(super) fn write_address(task: &Task, bytes: &[u8], address: u64, length_address: u64) -> Result<(), Errno> {
    let room = usize::try_from(task.read::<i32>(length_address)?).map_err(|_| Errno::EINVAL)?;
    task.write_bytes(address, &bytes[..bytes.len().min(room)])?;
    task.write(length_address, &(bytes.len() as i32))
}

fn bind(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    let socket = net::of_file(&file)?;
    let address = read_address(task, args.raw(1), args.int(2))?;
    socket.bind(task, &address).map(|()| 0)
}

fn listen(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    net::of_file(&file)?.listen(task, args.int(1)).map(|()| 0)
}

/// When a wait that starts now ends by `SO_RCVTIMEO` or `SO_SNDTIMEO`.
pub(super) fn deadline(file: &File, writing: bool) -> Option<u64> {
    file.ops.timeout(writing).map(|timeout| crate::time::monotonic_ns() + timeout)
}

fn accept(task: &Arc<Task>, args: &Args, flags: u32) -> SysResult {
    if flags & !(raw::O_CLOEXEC | raw::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(args.int(0))?;
    let socket = net::of_file(&file)?;
    let accepted = blocking::retry(task, &*file.ops, PollEvents::READ, file.nonblocking(), deadline(&file, false), || socket.accept())?;
    // A connection is in its listener's network, whoever accepts it.
    if let Some(administration) = socket.base().administration.get() {
        accepted.socket.base().administration.get_or_init(|| Arc::clone(administration));
    }
    let new = open(task, accepted.socket, flags);
    if args.raw(1) != 0 {
        write_address(task, &accepted.peer, args.raw(1), args.raw(2))?;
    }
    blocking::install(task, new, flags)
}

fn connect(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    let socket = net::of_file(&file)?;
    let address = read_address(task, args.raw(1), args.int(2))?;
    let (nonblocking, deadline) = (file.nonblocking(), deadline(&file, true));
    let attempt = || socket.connect(task, &address, nonblocking);
    match blocking::retry(task, &*file.ops, PollEvents::WRITE, nonblocking, deadline, attempt) {
        Err(Errno::EINPROGRESS) if !nonblocking => {}
        result => return result.map(|()| 0),
    }
    let finish = || socket.finish_connect();
    match blocking::retry(task, &*file.ops, PollEvents::WRITE, false, deadline, finish) {
        Err(Errno::EAGAIN) => Err(Errno::EINPROGRESS),
        result => result.map(|()| 0),
    }
}

fn name(task: &Arc<Task>, args: &Args, ask: impl Fn(&dyn Socket) -> Result<Vec<u8>, Errno>) -> SysResult {
    let file = task.file(args.int(0))?;
    let address = ask(&**net::of_file(&file)?)?;
    write_address(task, &address, args.raw(1), args.raw(2)).map(|()| 0)
}

fn shutdown(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    let socket = net::of_file(&file)?;
    let how = match args.uint(1) {
        0 => Shutdown { read: true, write: false },
        1 => Shutdown { read: false, write: true },
        2 => Shutdown { read: true, write: true },
        _ => return Err(Errno::EINVAL),
    };
    socket.shutdown(how).map(|()| 0)
}

fn set_option(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    let socket = net::of_file(&file)?;
    let length = usize::try_from(args.int(4)).map_err(|_| Errno::EINVAL)?;
    let value: Vec<u8> = task.read_slice(args.raw(3), length.min(OPTION_MAX))?;
    socket.set_option(task, args.int(1), args.int(2), &value).map(|()| 0)
}

/// Writes a new descriptor out, cut to the room that the caller has, as Linux does.
fn tell_process(task: &Task, args: &Args, fd: i32, length: usize) -> SysResult {
    let value = fd.to_ne_bytes();
    let value = &value[..value.len().min(length)];
    task.write_bytes(args.raw(3), value)?;
    task.write(args.raw(4), &(value.len() as i32)).map(|()| 0)
}

fn option(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    let socket = net::of_file(&file)?;
    let length = usize::try_from(task.read::<i32>(args.raw(4))?).map_err(|_| Errno::EINVAL)?;
    let value = match (args.int(1), args.uint(2)) {
        (SOL_SOCKET, raw_net::SO_PEERNAME) => {
            let address = socket.peer_address()?;
            // Unlike others it is never longer than what there is.
            if address.len() < length { Err(Errno::EINVAL) } else { Ok(address) }
        }
        (SOL_SOCKET, raw_net::SO_NETNS_COOKIE) if length != size_of::<u64>() => Err(Errno::EINVAL),
        (SOL_SOCKET, raw_net::SO_NETNS_COOKIE) => Ok(task.namespaces().net.number.to_ne_bytes().to_vec()),
        (SOL_SOCKET, raw_net::SO_PEERCRED) => {
            let value = socket.option(SOL_SOCKET, args.int(2), length)?;
            let shown = bytemuck::try_pod_read_unaligned::<Credentials>(&value).map(|peer| peer.shown_to(task));
            Ok(shown.map_or(value, |peer| bytemuck::bytes_of(&peer).to_vec()))
        }
        (SOL_SOCKET, raw_net::SO_PEERGROUPS) => {
            let groups = socket.option(SOL_SOCKET, args.int(2), length)?;
            if groups.len() > length {
                task.write(args.raw(4), &(groups.len() as i32))?;
                return Err(Errno::ERANGE);
            }
            let user = Arc::clone(&task.credentials().user);
            let shown = groups.chunks_exact(4).flat_map(|group| {
                let group = u32::from_ne_bytes([group[0], group[1], group[2], group[3]]);
                user.show_group(group).to_ne_bytes()
            });
            Ok(shown.collect())
        }
        (SOL_SOCKET, raw_net::SO_PEERPIDFD) => {
            let pid = options::int(SOL_SOCKET, &socket.option(SOL_SOCKET, args.int(2), length)?)?;
            let fd = message::open_process(task, pid)?;
            return tell_process(task, args, fd, length).inspect_err(|_| {
                // Nobody would know of it.
                let files = task.files();
                let _ = files.remove(fd).map(|file| files.closed(&file, task));
            });
        }
        (level, _) => socket.option(level, args.int(2), length),
    }?;
    let value = &value[..value.len().min(length)];
    task.write_bytes(args.raw(3), value)?;
    task.write(args.raw(4), &(value.len() as i32)).map(|()| 0)
}
