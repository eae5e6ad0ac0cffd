//! The one place where a system call on a file waits: objects answer `EAGAIN`, this waits for their announcement and tries again.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use crate::io::{Destination, Source};
use crate::task::activity::Direction;
use crate::task::{Credentials, Task};
use crate::vfs::file::{File, FileOps, OWN_POSITION};
use crate::vfs::inode::{FileType, Inode, SetAttributes};
use crate::vfs::watch;
use crate::wait::{PollEvents, WaitError};

/// Tells a file that somebody waits for it (host descriptors then arm their poller), until dropped.
pub struct Watching<'a>(&'a dyn FileOps);

impl<'a> Watching<'a> {
    /// Starts.
    pub fn new(ops: &'a dyn FileOps) -> Self {
        ops.watch(true);
        Self(ops)
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.watch(false);
    }
}

/// Calls `attempt` until it answers something else than `EAGAIN`, waiting for `mask` in between; `nonblocking` calls answer `EAGAIN` at once.
/// A signal ends the wait with `ERESTARTSYS` (`EINTR` if there is a deadline), the deadline (host's monotonic clock) with `EAGAIN`.
pub fn retry<T>(
    task: &Task,
    ops: &dyn FileOps,
    mask: PollEvents,
    nonblocking: bool,
    deadline: Option<u64>,
    mut attempt: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match attempt() {
        Err(Errno::EAGAIN) if !nonblocking => {}
        result => return result,
    }
    let Some(queue) = ops.queue() else { return Err(Errno::EAGAIN) };
    let _watching = Watching::new(ops);
    let waited = task.block_on(&[queue], mask, deadline, || match attempt() {
        Err(Errno::EAGAIN) => None,
        result => Some(result),
    });
    match waited {
        Ok(result) => result,
        // A restarted call would wait its whole time again.
        Err(WaitError::Interrupted) if deadline.is_some() => Err(Errno::EINTR),
        Err(WaitError::Interrupted) => Err(Errno::ERESTARTSYS),
        Err(WaitError::TimedOut) => Err(Errno::EAGAIN),
    }
}

/// No byte may lie past the largest offset.
fn check_end(at: Option<u64>, length: usize) -> Result<(), Errno> {
    let fits = at.is_none_or(|at| at == OWN_POSITION || at.checked_add(length as u64).is_some_and(|end| end <= i64::MAX as u64));
    if fits { Ok(()) } else { Err(Errno::EINVAL) }
}

/// One read at `at`, or at the file's position, which it moves.
fn read_once(file: &File, destination: &mut Destination<'_>, at: Option<u64>) -> Result<usize, Errno> {
    match at {
        Some(offset) => file.ops.read(file, destination, offset),
        None if file.has_position() => {
            let mut position = file.position.lock();
            let count = file.ops.read(file, destination, *position)?;
            *position += count as u64;
            Ok(count)
        }
        None => file.ops.read(file, destination, OWN_POSITION),
    }
}

/// `read(2)` and its family, after the file was found: checks, waits, moves the position.
pub fn read(task: &Task, file: &File, destination: &mut Destination<'_>, at: Option<u64>, nonblocking: bool) -> Result<usize, Errno> {
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    if file.inode.file_type() == FileType::Directory {
        return Err(Errno::EISDIR);
    }
    check_end(at, destination.remaining())?;
    let result = match read_once(file, destination, at) {
        Err(Errno::EAGAIN) if destination.remaining() == 0 => Ok(0),
        Err(Errno::EAGAIN) if !(nonblocking || file.nonblocking()) => read_waiting(task, file, destination, at),
        result => result,
    };
    task.counters.call(file, Direction::In, &result);
    if let Ok(1..) = result {
        watch::file_event(file, raw::IN_ACCESS);
    }
    result
}

/// The waiting part of [`read`]; a terminal's timeout may start or move while it waits.
fn read_waiting(task: &Task, file: &File, destination: &mut Destination<'_>, at: Option<u64>) -> Result<usize, Errno> {
    let Some(queue) = file.ops.queue() else { return Err(Errno::EAGAIN) };
    let started = crate::time::monotonic_ns();
    if let Some(timeout) = file.ops.timeout(false) {
        return retry(task, &*file.ops, PollEvents::READ, false, Some(started + timeout), || read_once(file, destination, at));
    }
    let _watching = Watching::new(&*file.ops);
    let mut deadline = file.ops.read_deadline(file, started);
    loop {
        let waited = task.block_on(&[queue], PollEvents::READ, deadline, || match read_once(file, destination, at) {
            Err(Errno::EAGAIN) if file.ops.read_deadline(file, started) == deadline => None,
            result => Some(result),
        });
        match waited {
            Ok(Err(Errno::EAGAIN)) => deadline = file.ops.read_deadline(file, started),
            Ok(result) => return result,
            Err(WaitError::Interrupted) => return Err(Errno::ERESTARTSYS),
            Err(WaitError::TimedOut) => return Ok(0),
        }
    }
}

/// Where an appended write ends, or starts: at the file's end. Devices and what is made when it is read have none, and take it for any other.
fn end_after(file: &File, appends: bool, otherwise: u64) -> u64 {
    if appends { file.ops.end_of_file(file).unwrap_or(otherwise) } else { otherwise }
}

/// One write at `at`, or at the file's position, which it moves.
fn write_once(file: &File, source: &mut Source<'_>, at: Option<u64>) -> Result<usize, Errno> {
    match at {
        Some(offset) => file.ops.write(file, source, offset),
        None if file.has_position() => {
            let mut position = file.position.lock();
            let count = file.ops.write(file, source, *position)?;
            *position = end_after(file, source.appends_to(file), *position + count as u64);
            Ok(count)
        }
        None => file.ops.write(file, source, OWN_POSITION),
    }
}

/// `write(2)` and its family, after the file was found: checks, limits, waits, moves the position. Streams are written to until all is
/// written or a signal comes.
pub fn write(task: &Task, file: &File, source: &mut Source<'_>, at: Option<u64>, nonblocking: bool) -> Result<usize, Errno> {
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    check_end(at, source.remaining())?;
    if file.inode.file_type() == FileType::Regular {
        limit_size(task, file, source, at)?;
    }
    let nonblocking = nonblocking || file.nonblocking();
    let deadline = file.ops.timeout(true).map(|timeout| crate::time::monotonic_ns() + timeout);
    let mut total = 0;
    let result = loop {
        match retry(task, &*file.ops, PollEvents::WRITE, nonblocking, deadline, || write_once(file, source, at)) {
            Ok(count) => {
                total += count;
                if count == 0 || source.remaining() == 0 || file.ops.queue().is_none() {
                    break Ok(total);
                }
            }
            Err(errno) => {
                if errno == Errno::EPIPE && file.ops.signals_broken_pipe() {
                    send_to_self(task, raw::SIGPIPE as i32);
                }
                break if total > 0 { Ok(total) } else { Err(errno) };
            }
        }
    };
    task.counters.call(file, Direction::Out, &result);
    if let Ok(1..) = result {
        watch::file_event(file, raw::IN_MODIFY);
        if file.inode.file_type() == FileType::Regular {
            drop_set_id(&*file.inode, &task.credentials());
        }
    }
    result
}

/// A program that somebody without `CAP_FSETID` changed no longer runs as its owner or group.
pub fn drop_set_id(inode: &dyn Inode, credentials: &Credentials) {
    let Ok(attributes) = inode.attributes() else { return };
    if credentials.has_over(&attributes, raw::CAP_FSETID) {
        return;
    }
    let runs_as_group = attributes.permissions & raw::S_IXGRP != 0 || !credentials.in_group(attributes.gid);
    let dropped = attributes.permissions & (raw::S_ISUID | if runs_as_group { raw::S_ISGID } else { 0 });
    if dropped != 0 {
        let permissions = Some(attributes.permissions & !dropped);
        // Where the mode cannot be changed, neither could it have been set.
        let _ = inode.set_attributes(&SetAttributes { permissions, ..SetAttributes::default() });
    }
}

/// `RLIMIT_FSIZE`: a write that starts past it is refused with `SIGXFSZ`, one that reaches past it is cut.
fn limit_size(task: &Task, file: &File, source: &mut Source<'_>, at: Option<u64>) -> Result<(), Errno> {
    let limit = task.process.limits.lock().soft(raw::RLIMIT_FSIZE);
    if limit == crate::task::limits::INFINITY {
        return Ok(());
    }
    let start = at.map_or_else(|| file.current_position(), Ok)?;
    let start = end_after(file, source.appends_to(file), start);
    if start >= limit && source.remaining() > 0 {
        send_to_self(task, raw::SIGXFSZ as i32);
        return Err(Errno::EFBIG);
    }
    source.limit(usize::try_from(limit - start).unwrap_or(usize::MAX));
    Ok(())
}

/// Sends the calling task a signal that the kernel itself raises in its name (`SI_USER` from itself).
pub fn send_to_self(task: &Task, signal: i32) {
    crate::signal::send_to_task(task, &crate::signal::info_from_task(task, signal, raw::SI_USER as i32));
}

/// For the calls that leave a new descriptor behind: installs `file` with the flags `O_CLOEXEC` and `O_NONBLOCK` already decoded.
pub fn install(task: &Task, file: Arc<File>, flags: u32) -> Result<usize, Errno> {
    task.install(file, flags & raw::O_CLOEXEC != 0).map(|fd| fd as usize)
}
