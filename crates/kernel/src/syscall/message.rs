//! Messages through sockets: `send`, `recv` and their forms with headers and control data.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::{Iovec, Timespec};
use cloudpilot_abi::{Errno, raw};

use super::socket::{deadline, read_address, write_address};
use super::{Args, SysResult, blocking};
use crate::fs::pidfd;
use crate::io::{Destination, Source};
use crate::net::message::{
    Control, Credentials, Incoming, MSG_CMSG_CLOEXEC, MSG_CTRUNC, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_PEEK, MSG_TRUNC,
    MSG_WAITALL, MSG_WAITFORONE, Outgoing,
};
use crate::net::options::SOL_SOCKET;
use crate::net::rights::{MAX_IN_MESSAGE, Rights};
use crate::net::{self, Kind, Socket};
use crate::task::Task;
use crate::task::activity::Direction;
use crate::task::user_memory::MAX_TRANSFER;
use crate::vfs::file::File;
use crate::wait::PollEvents;

/// `struct msghdr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Header {
    name: u64,
    name_length: i32,
    pad0: u32,
    pieces: u64,
    piece_count: u64,
    control: u64,
    control_length: u64,
    flags: u32,
    pad1: u32,
}

/// `struct mmsghdr`.
const MULTIPLE_SIZE: u64 = size_of::<Header>() as u64 + 8;
/// Where `msg_len` of `struct mmsghdr` is.
const MULTIPLE_LENGTH: u64 = size_of::<Header>() as u64;
/// Most messages of one `sendmmsg(2)`, as in Linux.
const MULTIPLE_MAX: u32 = 1024;

/// `struct cmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ControlHeader {
    length: u64,
    level: i32,
    kind: i32,
}

const CONTROL_HEADER: usize = size_of::<ControlHeader>();
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;
const SCM_PIDFD: i32 = 4;
/// Longest control data that may be sent, Linux's `optmem_max`.
const CONTROL_MAX: u64 = 20_480;
/// Bytes of a datagram's buffer that its sender may claim to have: no socket takes longer ones.
const DATAGRAM_MAX: usize = 1 << 20;

fn is_stream(socket: &dyn Socket) -> bool {
    socket.base().kind == Kind::Stream
}

/// Sends all of a stream's bytes, or one message; waits for room.
fn send(task: &Task, file: &File, source: &mut Source<'_>, message: &mut Outgoing<'_>) -> SysResult {
    let socket = net::of_file(file)?;
    let nonblocking = message.flags & MSG_DONTWAIT != 0 || file.nonblocking();
    let deadline = deadline(file, true);
    let stream = is_stream(&**socket);
    if !stream && source.remaining() > DATAGRAM_MAX {
        return Err(Errno::EMSGSIZE);
    }
    let mut total = 0;
    loop {
        match blocking::retry(task, &*file.ops, PollEvents::WRITE, nonblocking, deadline, || socket.send(source, message)) {
            Ok(count) => {
                total += count;
                task.counters.traffic(socket.traffic(), Direction::Out, count);
                if count == 0 || source.remaining() == 0 || !stream {
                    return Ok(total);
                }
            }
            Err(errno) => {
                if errno == Errno::EPIPE && message.flags & MSG_NOSIGNAL == 0 && stream {
                    blocking::send_to_self(task, raw::SIGPIPE as i32);
                }
                return if total > 0 { Ok(total) } else { Err(errno) };
            }
        }
    }
}

/// Receives what is there, or with `MSG_WAITALL` all that fits; waits for it.
fn receive(task: &Task, file: &File, destination: &mut Destination<'_>, flags: u32) -> Result<Incoming, Errno> {
    let socket = net::of_file(file)?;
    let nonblocking = flags & (MSG_DONTWAIT | MSG_ERRQUEUE) != 0 || file.nonblocking();
    let deadline = deadline(file, false);
    // Some answer differently to who would not wait.
    let flags = if nonblocking { flags | MSG_DONTWAIT } else { flags };
    let mut all = blocking::retry(task, &*file.ops, PollEvents::READ, nonblocking, deadline, || socket.receive(destination, flags))?;
    let goes_on = flags & MSG_WAITALL != 0 && flags & MSG_PEEK == 0 && is_stream(&**socket);
    // Who is told the sender gets nothing of another's along: what comes next may be.
    let tells_sender = all.credentials.is_some() || all.process.is_some();
    while goes_on && !tells_sender && all.count > 0 && destination.remaining() > 0 && all.files.is_empty() {
        match blocking::retry(task, &*file.ops, PollEvents::READ, nonblocking, deadline, || socket.receive(destination, flags)) {
            Ok(more) if more.count > 0 => {
                all.count += more.count;
                all.length += more.count;
                all.files = more.files;
            }
            // The end, an error or a signal: what came so far counts.
            Ok(_) | Err(_) => break,
        }
    }
    if flags & MSG_PEEK == 0 {
        task.counters.traffic(socket.traffic(), Direction::In, all.count);
    }
    Ok(all)
}

/// What a receiving call answers: with `MSG_TRUNC` a message's whole length.
fn answer(message: &Incoming, flags: u32) -> usize {
    if flags & MSG_TRUNC != 0 { message.length } else { message.count }
}

/// `sendto(2)`.
pub(super) fn send_to(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    net::of_file(&file)?;
    let address = if args.raw(4) == 0 { None } else { Some(read_address(task, args.raw(4), args.int(5))?) };
    let mut message = Outgoing {
        address: address.as_deref().filter(|address| !address.is_empty()),
        flags: args.uint(3),
        task: Some(task),
        ..Outgoing::plain(Credentials::of_task(task))
    };
    send(task, &file, &mut task.source(args.raw(1), args.size(2)), &mut message)
}

/// `recvfrom(2)`.
pub(super) fn receive_from(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    net::of_file(&file)?;
    let flags = args.uint(3);
    let message = receive(task, &file, &mut task.destination(args.raw(1), args.size(2)), flags)?;
    if args.raw(4) != 0 {
        let address = message.address.as_deref().unwrap_or_default();
        write_address(task, address, args.raw(4), args.raw(5))?;
    }
    Ok(answer(&message, flags))
}

/// `sendmsg(2)`.
pub(super) fn send_message(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    net::of_file(&file)?;
    send_one(task, &file, args.raw(1), args.uint(2))
}

fn read_pieces(task: &Task, header: &Header) -> Result<Vec<Iovec>, Errno> {
    task.read_iovec(header.pieces, usize::try_from(header.piece_count).map_err(|_| Errno::EMSGSIZE)?).map_err(|errno| match errno {
        Errno::EINVAL if header.piece_count > 1024 => Errno::EMSGSIZE,
        other => other,
    })
}

fn send_one(task: &Arc<Task>, file: &File, header: u64, flags: u32) -> SysResult {
    let header: Header = task.read(header)?;
    let address = match header.name {
        0 => None,
        // Linux takes no more than it knows of too long a name.
        name => Some(read_address(task, name, header.name_length.min(128))?).filter(|address| !address.is_empty()),
    };
    let pieces = read_pieces(task, &header)?;
    let Sent { rights, sender, controls } = read_control(task, &header)?;
    let mut message = Outgoing { address: address.as_deref(), flags, sender, rights, controls, task: Some(task) };
    send(task, file, &mut Source::guest(task, pieces), &mut message)
}

/// What control data says.
struct Sent {
    rights: Option<Rights>,
    sender: Credentials,
    controls: Vec<Control>,
}

/// Takes the control data apart: files and credentials, and what is the protocol's business.
fn read_control(task: &Arc<Task>, header: &Header) -> Result<Sent, Errno> {
    let mut sender = Credentials::of_task(task);
    let mut controls = Vec::new();
    if header.control == 0 || header.control_length == 0 {
        return Ok(Sent { rights: None, sender, controls });
    }
    if header.control_length > CONTROL_MAX {
        return Err(Errno::ENOBUFS);
    }
    let control: Vec<u8> = task.read_slice(header.control, header.control_length as usize)?;
    let mut files = Vec::new();
    let mut rest = control.as_slice();
    while rest.len() >= CONTROL_HEADER {
        let item: ControlHeader = bytemuck::pod_read_unaligned(&rest[..CONTROL_HEADER]);
        let length = usize::try_from(item.length).map_err(|_| Errno::EINVAL)?;
        let body = rest.get(CONTROL_HEADER..length).ok_or(Errno::EINVAL)?;
        match (item.level, item.kind) {
            (SOL_SOCKET, SCM_RIGHTS) => {
                if files.len() + body.len() / 4 > MAX_IN_MESSAGE {
                    return Err(Errno::EINVAL);
                }
                for bytes in body.chunks_exact(4) {
                    // O_PATH descriptors may travel too.
                    files.push(task.files().get(i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))?);
                }
            }
            (SOL_SOCKET, SCM_CREDENTIALS) => {
                let claimed = bytemuck::try_pod_read_unaligned(body).map_err(|_| Errno::EINVAL)?;
                sender = check_credentials(task, claimed)?;
            }
            (SOL_SOCKET, _) => return Err(Errno::EINVAL),
            (level, kind) => controls.push(Control { level, kind, bytes: body.to_vec() }),
        }
        rest = rest.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    let rights = if files.is_empty() { None } else { Some(Rights::new(&task.kernel.net.in_flight, files)?) };
    Ok(Sent { rights, sender, controls })
}

/// Who may claim to be whom, `unix(7)`.
fn check_credentials(task: &Task, claimed: Credentials) -> Result<Credentials, Errno> {
    let own = task.credentials();
    let claimed = Credentials {
        pid: task.number(claimed.pid),
        uid: own.user.user(claimed.uid).ok_or(Errno::EINVAL)?,
        gid: own.user.group(claimed.gid).ok_or(Errno::EINVAL)?,
    };
    let pid = claimed.pid == task.process.pid || own.has_in(&task.process.numbers.owner, raw::CAP_SYS_ADMIN);
    let uid = [own.ruid, own.euid, own.suid].contains(&claimed.uid) || own.has_here(raw::CAP_SETUID);
    let gid = [own.rgid, own.egid, own.sgid].contains(&claimed.gid) || own.has_here(raw::CAP_SETGID);
    if !(pid && uid && gid) {
        return Err(Errno::EPERM);
    }
    if task.kernel.tasks.process(claimed.pid).is_none() {
        return Err(Errno::ESRCH);
    }
    if claimed.uid == u32::MAX || claimed.gid == u32::MAX {
        return Err(Errno::EINVAL);
    }
    Ok(claimed)
}

/// `recvmsg(2)`.
pub(super) fn receive_message(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    net::of_file(&file)?;
    receive_one(task, &file, args.raw(1), args.uint(2))
}

fn receive_one(task: &Arc<Task>, file: &File, at: u64, flags: u32) -> SysResult {
    let mut header: Header = task.read(at)?;
    if header.name_length < 0 {
        return Err(Errno::EINVAL);
    }
    let pieces = read_pieces(task, &header)?;
    let message = receive(task, file, &mut Destination::guest(task, pieces), flags)?;
    if header.name != 0 {
        let address = message.address.as_deref().unwrap_or_default();
        task.write_bytes(header.name, &address[..address.len().min(header.name_length as usize)])?;
        header.name_length = address.len() as i32;
    }
    header.flags = message.flags | flags & MSG_CMSG_CLOEXEC;
    let result = answer(&message, flags);
    write_control(task, &mut header, message, flags)?;
    task.write(at, &header)?;
    Ok(result)
}

/// A descriptor of a process that a socket knows of.
pub(super) fn open_process(task: &Arc<Task>, pid: i32) -> Result<i32, Errno> {
    let process = task.kernel.tasks.process(pid).ok_or(Errno::ESRCH)?;
    task.install(pidfd::open(&process, 0), true)
}

/// Control data as it is put together for a receiver.
struct ControlRoom {
    bytes: Vec<u8>,
    room: usize,
    cut: bool,
}

impl ControlRoom {
    fn put(&mut self, level: i32, kind: i32, body: &[u8]) {
        let start = self.bytes.len();
        let left = self.room.saturating_sub(start);
        if left < CONTROL_HEADER {
            self.cut = true;
            return;
        }
        let length = (CONTROL_HEADER + body.len()).min(left);
        self.cut |= length < CONTROL_HEADER + body.len();
        self.bytes.extend(bytemuck::bytes_of(&ControlHeader { length: length as u64, level, kind }));
        self.bytes.extend(&body[..length - CONTROL_HEADER]);
        self.bytes.resize((start + length.next_multiple_of(8)).min(self.room), 0);
    }
}

fn write_control(task: &Arc<Task>, header: &mut Header, message: Incoming, flags: u32) -> Result<(), Errno> {
    let room = if header.control == 0 { 0 } else { header.control_length.min(CONTROL_MAX) as usize };
    let mut control = ControlRoom { bytes: Vec::new(), room, cut: false };
    for item in &message.controls {
        control.put(item.level, item.kind, &item.bytes);
    }
    if let Some(credentials) = &message.credentials {
        control.put(SOL_SOCKET, SCM_CREDENTIALS, bytemuck::bytes_of(&credentials.shown_to(task)));
    }
    if !message.files.is_empty() {
        let fits = room.saturating_sub(control.bytes.len() + CONTROL_HEADER) / 4;
        control.cut |= fits < message.files.len();
        let mut numbers = Vec::new();
        for file in message.files.iter().take(fits) {
            match task.install(Arc::clone(file), flags & MSG_CMSG_CLOEXEC != 0) {
                Ok(fd) => numbers.extend(fd.to_ne_bytes()),
                // No more descriptors: the rest is lost, as on Linux.
                Err(_) => {
                    control.cut = true;
                    break;
                }
            }
        }
        if !numbers.is_empty() {
            control.put(SOL_SOCKET, SCM_RIGHTS, &numbers);
        }
    }
    if let Some(pid) = message.process {
        const WHOLE: usize = CONTROL_HEADER + size_of::<i32>();
        // Half a descriptor is none.
        if room.saturating_sub(control.bytes.len()) < WHOLE {
            control.cut = true;
        } else {
            let told = open_process(task, pid).unwrap_or_else(|errno| -i32::from(errno.0));
            control.put(SOL_SOCKET, SCM_PIDFD, &told.to_ne_bytes());
        }
    }
    if control.cut {
        header.flags |= MSG_CTRUNC;
    }
    header.control_length = control.bytes.len() as u64;
    if control.bytes.is_empty() { Ok(()) } else { task.write_bytes(header.control, &control.bytes) }
}

/// `sendmmsg(2)`.
pub(super) fn send_messages(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    net::of_file(&file)?;
    let flags = args.uint(3);
    each_message(args, |at| {
        let sent = send_one(task, &file, at, flags)?;
        task.write(at.wrapping_add(MULTIPLE_LENGTH), &(sent as u32))
    })
}

fn each_message(args: &Args, mut one: impl FnMut(u64) -> Result<(), Errno>) -> SysResult {
    let mut done = 0;
    for index in 0..args.uint(2).min(MULTIPLE_MAX) {
        match one(args.raw(1).wrapping_add(u64::from(index) * MULTIPLE_SIZE)) {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// `recvmmsg(2)`.
pub(super) fn receive_messages(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    net::of_file(&file)?;
    let mut end = None;
    if args.raw(4) != 0 {
        let time: Timespec = task.read(args.raw(4))?;
        if time.tv_sec < 0 || !(0..1_000_000_000).contains(&time.tv_nsec) {
            return Err(Errno::EINVAL);
        }
        let length = (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64);
        end = Some(crate::time::monotonic_ns().saturating_add(length));
    }
    let mut flags = args.uint(3);
    let mut first = true;
    each_message(args, |at| {
        // As on Linux, the timeout counts between messages only.
        if !first && end.is_some_and(|end| crate::time::monotonic_ns() >= end) {
            return Err(Errno::EAGAIN);
        }
        let received = receive_one(task, &file, at, flags & !MSG_WAITFORONE)?;
        task.write(at.wrapping_add(MULTIPLE_LENGTH), &(received.min(MAX_TRANSFER) as u32))?;
        first = false;
        if flags & MSG_WAITFORONE != 0 {
            flags |= MSG_DONTWAIT;
        }
        Ok(())
    })
}
