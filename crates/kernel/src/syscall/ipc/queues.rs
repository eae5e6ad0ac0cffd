//! POSIX message queues, `mq_open(3)` and its family.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, raw};

use super::super::{blocking, clock};
use super::{Args, SysResult};
use crate::ipc::posix_queues::{self, Means};
use crate::task::Task;
use crate::wait::PollEvents;

/// `struct mq_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct MqAttributes {
    flags: i64,
    capacity: i64,
    largest: i64,
    length: i64,
    reserved: [i64; 4],
}

/// Highest priority and one, `MQ_PRIO_MAX`.
const MQ_PRIO_MAX: u32 = 32_768;

/// The name of a queue; the C library took its slash off.
fn queue_name(task: &Task, address: u64) -> Result<Vec<u8>, Errno> {
    let name = task.read_path(address)?;
    match name.len() {
        0 => Err(Errno::ENOENT),
        256.. => Err(Errno::ENAMETOOLONG),
        _ if name.contains(&b'/') => Err(Errno::EACCES),
        _ => Ok(name),
    }
}

pub fn mq_open(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(1);
    let limits = match (flags & raw::O_CREAT, args.raw(3)) {
        (0, _) | (_, 0) => None,
        (_, address) => {
            let given: MqAttributes = task.read(address)?;
            let bound = |value: i64| usize::try_from(value).unwrap_or(0);
            Some((bound(given.capacity), bound(given.largest)))
        }
    };
    let name = queue_name(task, args.raw(0))?;
    let space = Arc::clone(&task.namespaces().ipc);
    let file = space.ipc.queues.open(task, &space.ipc.limits, name, (flags, args.uint(2)), limits)?;
    blocking::install(task, file, flags)
}

pub fn mq_unlink(task: &Arc<Task>, args: &Args) -> SysResult {
    let name = queue_name(task, args.raw(0))?;
    task.namespaces().ipc.ipc.queues.unlink(&task.credentials(), &name).map(|()| 0)
}

fn mq_deadline(task: &Task, address: u64) -> Result<Option<u64>, Errno> {
    if address == 0 { Ok(None) } else { clock::deadline_at(raw::CLOCK_REALTIME as i32, task.read(address)?).map(Some) }
}

pub fn mq_timedsend(task: &Arc<Task>, args: &Args) -> SysResult {
    let (length, priority) = (args.size(2), args.uint(3));
    if priority >= MQ_PRIO_MAX {
        return Err(Errno::EINVAL);
    }
    let deadline = mq_deadline(task, args.raw(4))?;
    let file = task.file(args.int(0))?;
    let queue = posix_queues::of_file(&file)?;
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    if length > queue.largest {
        return Err(Errno::EMSGSIZE);
    }
    let text: Vec<u8> = task.read_slice(args.raw(1), length)?;
    let attempt = || queue.send(task, priority, &text).ok_or(Errno::EAGAIN);
    blocking::retry(task, &*file.ops, PollEvents::OUT, file.nonblocking(), deadline, attempt)
        .map_err(|errno| late(errno, &file))
        .map(|()| 0)
}

/// A wait that ran out of time is no refusal to wait.
fn late(errno: Errno, file: &crate::vfs::File) -> Errno {
    if errno == Errno::EAGAIN && !file.nonblocking() { Errno::ETIMEDOUT } else { errno }
}

pub fn mq_timedreceive(task: &Arc<Task>, args: &Args) -> SysResult {
    let deadline = mq_deadline(task, args.raw(4))?;
    let file = task.file(args.int(0))?;
    let queue = posix_queues::of_file(&file)?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    if args.size(2) < queue.largest {
        return Err(Errno::EMSGSIZE);
    }
    queue.count_receiver(true);
    let attempt = || queue.receive().ok_or(Errno::EAGAIN);
    let result = blocking::retry(task, &*file.ops, PollEvents::IN, file.nonblocking(), deadline, attempt);
    queue.count_receiver(false);
    let (priority, text) = result.map_err(|errno| late(errno, &file))?;
    task.write_bytes(args.raw(1), &text)?;
    if args.raw(3) != 0 {
        task.write(args.raw(3), &priority)?;
    }
    Ok(text.len())
}

pub fn mq_notify(task: &Arc<Task>, args: &Args) -> SysResult {
    let wanted = if args.raw(1) == 0 { None } else { Some(means_of(task, args.raw(1))?) };
    let file = task.file(args.int(0))?;
    posix_queues::of_file(&file)?.notify(&task.process, wanted).map(|()| 0)
}

fn means_of(task: &Arc<Task>, address: u64) -> Result<Means, Errno> {
    // `struct sigevent`: value, signal, kind.
    let (value, [number, kind]): (u64, [i32; 2]) = (task.read(address)?, task.read(address.wrapping_add(8))?);
    match kind as u32 {
        raw::SIGEV_NONE => Ok(Means::Silence),
        raw::SIGEV_SIGNAL if crate::signal::bit(number) != 0 => Ok(Means::Signal(number, value)),
        raw::SIGEV_THREAD => {
            // The signal's place holds the socket.
            let socket = task.file(number)?;
            Ok(Means::Socket(crate::net::netlink::of_file(&socket)?, task.read(value)?))
        }
        _ => Err(Errno::EINVAL),
    }
}

pub fn mq_getsetattr(task: &Arc<Task>, args: &Args) -> SysResult {
    let given: Option<MqAttributes> = if args.raw(1) == 0 { None } else { Some(task.read(args.raw(1))?) };
    let nonblocking = i64::from(raw::O_NONBLOCK);
    if given.is_some_and(|given| given.flags & !nonblocking != 0) {
        return Err(Errno::EINVAL);
    }
    let file = task.file(args.int(0))?;
    let queue = posix_queues::of_file(&file)?;
    if args.raw(2) != 0 {
        let answer = MqAttributes {
            flags: i64::from(file.flags() & raw::O_NONBLOCK),
            capacity: queue.capacity as i64,
            largest: queue.largest as i64,
            length: queue.length() as i64,
            reserved: [0; 4],
        };
        task.write(args.raw(2), &answer)?;
    }
    if let Some(given) = given {
        file.set_flags(file.flags() & !raw::O_NONBLOCK | given.flags as u32);
    }
    Ok(0)
}
