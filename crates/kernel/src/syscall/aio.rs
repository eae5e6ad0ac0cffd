//! `io_setup`, `io_submit` and their family: requests that are handed over in lists and end as events.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, PAGE_SIZE, raw};

use super::{Arg, Args, Call, SysResult, blocking, poll};
use crate::aio::{Context, Event, MAX_REQUESTS};
use crate::fs::eventfd::EventFd;
use crate::io::{Destination, Source};
use crate::mm::{MapRequest, Placement};
use crate::task::Task;
use crate::vfs::File;
use crate::vfs::inode::FileType;
use crate::wait::{PollEvents, WaitError};

/// The family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_io_setup, io_setup, &[Arg::Size, Arg::Ptr]),
    Call::full(raw::__NR_io_destroy, io_destroy, &[Arg::Ptr]),
    Call::partial(
        raw::__NR_io_submit,
        io_submit,
        &[Arg::Ptr, Arg::Int, Arg::Ptr],
        "reads and writes are done at once; no eventfd for polls",
    ),
    Call::full(raw::__NR_io_cancel, io_cancel, &[Arg::Ptr, Arg::Ptr, Arg::Ptr]),
    Call::full(raw::__NR_io_getevents, io_getevents, &[Arg::Ptr, Arg::Int, Arg::Int, Arg::Ptr, Arg::Ptr]),
    Call::full(raw::__NR_io_pgetevents, io_pgetevents, &[Arg::Ptr, Arg::Int, Arg::Int, Arg::Ptr, Arg::Ptr, Arg::Ptr]),
];

/// `struct iocb`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: u32,
    operation: u16,
    priority: u16,
    fd: u32,
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    notified: u32,
}

/// `IOCB_CMD_*` of `linux/aio_abi.h`.
mod operation {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const FSYNC: u16 = 2;
    pub const FDSYNC: u16 = 3;
    pub const POLL: u16 = 5;
    pub const READV: u16 = 7;
    pub const WRITEV: u16 = 8;
}

/// `IOCB_FLAG_RESFD`: count the end in an eventfd.
const NOTIFIES: u32 = 1;
/// `IOCB_FLAG_IOPRIO`: the request has a priority, which nothing here heeds.
const HAS_PRIORITY: u32 = 2;
/// Classes of `ioprio_set(2)`: 0 to 3, in the upper bits.
const LAST_PRIORITY_CLASS: u16 = 3;
/// Where `key` stands in a request.
const KEY_OFFSET: u64 = 8;
/// Requests altogether when nobody wrote `/proc/sys/fs/aio-max-nr`.
const DEFAULT_LIMIT: u64 = 65_536;

fn limit(task: &Task) -> u64 {
    let sysctls = task.kernel.system.sysctls.lock();
    let text = sysctls.get("fs/aio-max-nr").and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_LIMIT)
}

fn io_setup(task: &Arc<Task>, args: &Args) -> SysResult {
    let requests = args.uint(0);
    if task.read::<u64>(args.raw(1))? != 0 || requests == 0 || requests > MAX_REQUESTS {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm()?;
    let address_limit = task.process.limits.lock().soft(raw::RLIMIT_AS);
    // A page whose zeroes tell the C library that there is no ring to look at.
    let number = mm.aio.make(requests, limit(task), || {
        let mut request = MapRequest::anonymous(Placement::Anywhere(0), PAGE_SIZE, raw::PROT_READ | raw::PROT_WRITE);
        request.name = Some("/[aio] (deleted)".to_owned());
        mm.map(&mut *task.cpu.lock().guest, request, address_limit)
    })?;
    if let Err(errno) = task.write(args.raw(1), &number) {
        destroy(task, number)?;
        return Err(errno);
    }
    Ok(0)
}

fn destroy(task: &Task, number: u64) -> Result<(), Errno> {
    let mm = task.mm()?;
    mm.aio.destroy(number)?;
    // Whoever took the page away has what they wanted.
    let _ = mm.unmap(&mut *task.cpu.lock().guest, number, PAGE_SIZE);
    Ok(())
}

fn io_destroy(task: &Arc<Task>, args: &Args) -> SysResult {
    destroy(task, args.raw(0)).map(|()| 0)
}

fn io_submit(task: &Arc<Task>, args: &Args) -> SysResult {
    let count = u64::try_from(args.long(1)).map_err(|_| Errno::EINVAL)?;
    let context = task.mm()?.aio.find(args.raw(0))?;
    let count = count.min(context.capacity());
    for index in 0..count {
        let submitted = args.raw(2).checked_add(8 * index).ok_or(Errno::EFAULT);
        let submitted = submitted.and_then(|at| task.read::<u64>(at)).and_then(|address| submit(task, &context, address));
        match submitted {
            Ok(()) => {}
            Err(errno) if index == 0 => return Err(errno),
            Err(_) => return Ok(index as usize),
        }
    }
    Ok(count as usize)
}

/// Takes one request; errors of the work itself come with its event.
fn submit(task: &Arc<Task>, context: &Arc<Context>, address: u64) -> Result<(), Errno> {
    let request: Request = task.read(address)?;
    if request.reserved != 0 || request.length > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    context.begin()?;
    let result = start(task, context, address, &request);
    if result.is_err() {
        context.refuse();
    }
    result
}

fn start(task: &Arc<Task>, context: &Arc<Context>, address: u64, request: &Request) -> Result<(), Errno> {
    let file = task.file(request.fd as i32)?;
    let notified = if request.flags & NOTIFIES != 0 {
        let file = task.file(request.notified as i32)?;
        file.ops_as::<EventFd>().ok_or(Errno::EINVAL)?;
        Some(file)
    } else {
        None
    };
    task.write(address + KEY_OFFSET, &0u32)?;
    let event = Event { data: request.data, request: address, result: 0, second_result: 0 };
    let result = match request.operation {
        operation::READ | operation::READV => read(task, &file, request)?,
        operation::WRITE | operation::WRITEV => write(task, &file, request)?,
        operation::FSYNC | operation::FDSYNC => synchronize(&file, request)?,
        operation::POLL => {
            let wanted = wanted_events(request)?;
            // Counting in an eventfd could come round to the very file that is announcing.
            if notified.is_some() {
                return Err(Errno::EINVAL);
            }
            context.poll(file, wanted, event);
            return Ok(());
        }
        _ => return Err(Errno::EINVAL),
    };
    let result = match result {
        Ok(count) => count as i64,
        // Nobody can start the call anew.
        Err(errno) if errno.is_restart() => -i64::from(Errno::EINTR.0),
        Err(errno) => -i64::from(errno.0),
    };
    context.end(Event { result, ..event }, notified.as_deref());
    Ok(())
}

/// What is checked of reads and writes before they start: where, and that the flags are known.
fn check_transfer(file: &File, request: &Request, known: u32) -> Result<Option<u64>, Errno> {
    if request.flags & HAS_PRIORITY != 0 && request.priority >> 13 > LAST_PRIORITY_CLASS {
        return Err(Errno::EINVAL);
    }
    if request.rw_flags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if file.inode.file_type() == FileType::Directory {
        return Err(Errno::EINVAL);
    }
    if !file.ops.seekable() {
        return Ok(None);
    }
    u64::try_from(request.offset).map(Some).map_err(|_| Errno::EINVAL)
}

fn read(task: &Arc<Task>, file: &Arc<File>, request: &Request) -> Result<SysResult, Errno> {
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    let at = check_transfer(file, request, raw::RWF_HIPRI | raw::RWF_NOWAIT)?;
    let mut destination = if request.operation == operation::READV {
        Destination::guest(task, task.read_iovec(request.buffer, request.length as usize)?)
    } else {
        task.destination(request.buffer, request.length as usize)
    };
    Ok(blocking::read(task, file, &mut destination, at, request.rw_flags & raw::RWF_NOWAIT != 0))
}

fn write(task: &Arc<Task>, file: &Arc<File>, request: &Request) -> Result<SysResult, Errno> {
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    let known = raw::RWF_HIPRI | raw::RWF_NOWAIT | raw::RWF_DSYNC | raw::RWF_SYNC | raw::RWF_APPEND;
    let at = check_transfer(file, request, known)?;
    let mut source = if request.operation == operation::WRITEV {
        Source::guest(task, task.read_iovec(request.buffer, request.length as usize)?)
    } else {
        task.source(request.buffer, request.length as usize)
    };
    if request.rw_flags & raw::RWF_APPEND != 0 {
        source.set_append(true);
    }
    let mut result = blocking::write(task, file, &mut source, at, request.rw_flags & raw::RWF_NOWAIT != 0);
    if request.rw_flags & (raw::RWF_DSYNC | raw::RWF_SYNC) != 0 {
        result = result.and_then(|count| file.ops.sync(file, request.rw_flags & raw::RWF_SYNC == 0).map(|()| count));
    }
    Ok(result)
}

fn synchronize(file: &File, request: &Request) -> Result<SysResult, Errno> {
    if request.buffer != 0 || request.offset != 0 || request.length != 0 || request.rw_flags != 0 {
        return Err(Errno::EINVAL);
    }
    match file.ops.sync(file, request.operation == operation::FDSYNC) {
        // What cannot be synchronized at all is refused before it starts.
        Err(Errno::EINVAL) => Err(Errno::EINVAL),
        result => Ok(result.map(|()| 0)),
    }
}

fn wanted_events(request: &Request) -> Result<PollEvents, Errno> {
    let wanted = u16::try_from(request.buffer).map_err(|_| Errno::EINVAL)?;
    if request.offset != 0 || request.length != 0 || request.rw_flags != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(PollEvents::from_bits_truncate(wanted.into()) | PollEvents::ERR | PollEvents::HUP)
}

fn io_cancel(task: &Arc<Task>, args: &Args) -> SysResult {
    let key: u32 = task.read(args.raw(1).wrapping_add(KEY_OFFSET))?;
    if key != 0 {
        return Err(Errno::EINVAL);
    }
    let context = task.mm()?.aio.find(args.raw(0))?;
    // Its event tells the rest.
    if context.cancel(args.raw(1)) { Err(Errno::EINPROGRESS) } else { Err(Errno::EINVAL) }
}

fn io_getevents(task: &Arc<Task>, args: &Args) -> SysResult {
    get_events(task, args, read_timeout(task, args)?)
}

fn io_pgetevents(task: &Arc<Task>, args: &Args) -> SysResult {
    let timeout = read_timeout(task, args)?;
    let mask = match args.raw(5) {
        0 => None,
        address => {
            let [mask, size]: [u64; 2] = task.read(address)?;
            poll::read_mask(task, mask, size as usize)?
        }
    };
    let result = crate::signal::with_temporary_mask(task, mask, || get_events(task, args, timeout));
    if result == Err(Errno::EINTR) { Err(Errno::ERESTARTNOHAND) } else { result }
}

/// Nanoseconds to wait; none for ever.
fn read_timeout(task: &Task, args: &Args) -> Result<Option<u64>, Errno> {
    if args.raw(4) == 0 {
        return Ok(None);
    }
    let time: Timespec = task.read(args.raw(4))?;
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    Ok(Some(u64::try_from(nanoseconds.max(0)).unwrap_or(u64::MAX)))
}

/// Waits for `args[1]` events and hands out up to `args[2]`; what is there when the time is over counts.
fn get_events(task: &Arc<Task>, args: &Args, timeout: Option<u64>) -> SysResult {
    let context = task.mm()?.aio.find(args.raw(0))?;
    let (least, most) = (args.long(1), args.long(2));
    if least < 0 || least > most {
        return Err(Errno::EINVAL);
    }
    let (least, most) = (least as usize, most as usize);
    let mut done = 0;
    let mut fetch = || -> Option<SysResult> {
        let taken = context.take(most - done);
        let at = args.raw(3).wrapping_add((done * size_of::<Event>()) as u64);
        if task.write_bytes(at, bytemuck::cast_slice(&taken)).is_err() {
            context.put_back(&taken);
            return Some(if done > 0 { Ok(done) } else { Err(Errno::EFAULT) });
        }
        context.handed_out(taken.len());
        done += taken.len();
        (done >= least || context.is_destroyed()).then_some(Ok(done))
    };
    if timeout == Some(0) {
        return fetch().unwrap_or(Ok(done));
    }
    let deadline = timeout.map(|timeout| crate::time::monotonic_ns().saturating_add(timeout));
    match task.block_on(&[&context.queue], PollEvents::READ, deadline, fetch) {
        Ok(result) => result,
        Err(WaitError::Interrupted) if done == 0 => Err(Errno::EINTR),
        Err(WaitError::Interrupted | WaitError::TimedOut) => Ok(done),
    }
}
