//! Moving bytes between files without the program: `sendfile`, `splice`, `tee`, `vmsplice`, `copy_file_range`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::{Arg, Args, Call, SysResult, blocking};
use crate::fs::pipe::{self, Pipe};
use crate::io::{Destination, Source};
use crate::task::Task;
use crate::task::user_memory::MAX_TRANSFER;
use crate::vfs::file::File;
use crate::vfs::inode::FileType;
use crate::wait::{PollEvents, WaitError};

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_sendfile, sendfile, &[Arg::Fd, Arg::Fd, Arg::Ptr, Arg::Size]),
    Call::full(raw::__NR_splice, splice, &[Arg::Fd, Arg::Ptr, Arg::Fd, Arg::Ptr, Arg::Size, Arg::Flags]),
    Call::full(raw::__NR_tee, tee, &[Arg::Fd, Arg::Fd, Arg::Size, Arg::Flags]),
    Call::partial(raw::__NR_vmsplice, vmsplice, &[Arg::Fd, Arg::Ptr, Arg::Size, Arg::Flags], "copies instead of sharing pages"),
    Call::full(raw::__NR_copy_file_range, copy_file_range, &[Arg::Fd, Arg::Ptr, Arg::Fd, Arg::Ptr, Arg::Size, Arg::Flags]),
];

/// Bytes moved at once, through a buffer of ours.
const CHUNK: usize = 128 << 10;

/// An offset that the program keeps in its memory, if it gave an address.
fn read_offset(task: &Task, address: u64) -> Result<Option<u64>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    let offset: i64 = task.read(address)?;
    u64::try_from(offset).map(Some).map_err(|_| Errno::EINVAL)
}

/// One side of a copy that has positions: reads or writes at `at`, which moves, or at the file's own position.
struct Side<'a> {
    file: &'a File,
    at: Option<u64>,
}

impl Side<'_> {
    /// Where the next byte comes from or goes to.
    fn position(&self) -> Result<u64, Errno> {
        self.at.map_or_else(|| self.file.current_position(), Ok)
    }

    /// Bytes were used up.
    fn advance(&mut self, count: usize) -> Result<(), Errno> {
        match &mut self.at {
            Some(at) => *at += count as u64,
            None => self.file.set_position(self.file.current_position()? + count as u64)?,
        }
        Ok(())
    }

    /// Stores a moved offset back for the program.
    fn store(&self, task: &Task, address: u64) -> Result<(), Errno> {
        match self.at {
            Some(at) if address != 0 => task.write(address, &at),
            _ => Ok(()),
        }
    }
}

/// Copies up to `length` bytes from a file with positions to any file. What the target does not take stays unread.
fn copy(task: &Task, from: &mut Side<'_>, to: &File, to_at: Option<u64>, length: usize, nonblocking: bool) -> SysResult {
    let mut buffer = vec![0; length.min(CHUNK)];
    let mut total = 0;
    while total < length {
        let wanted = buffer.len().min(length - total);
        let step = blocking::read(task, from.file, &mut Destination::own(&mut buffer[..wanted]), Some(from.position()?), nonblocking)
            .and_then(|count| {
                if count == 0 {
                    return Ok(0);
                }
                let at = to_at.map(|at| at + total as u64);
                let count = blocking::write(task, to, &mut Source::own(&buffer[..count]), at, nonblocking)?;
                from.advance(count)?;
                Ok(count)
            });
        match step {
            Ok(0) => break,
            Ok(count) => total += count,
            Err(_) if total > 0 => break,
            Err(errno) => return Err(errno),
        }
        // A large copy must not keep a killed task alive.
        if task.interrupted() {
            break;
        }
    }
    Ok(total)
}

fn sendfile(task: &Arc<Task>, args: &Args) -> SysResult {
    let offset = read_offset(task, args.raw(2))?;
    let input = task.file(args.int(1))?;
    if !input.readable() {
        return Err(Errno::EBADF);
    }
    if offset.is_some() && !input.ops.seekable() {
        return Err(Errno::ESPIPE);
    }
    let output = task.file(args.int(0))?;
    if !output.writable() {
        return Err(Errno::EBADF);
    }
    if args.long(3) < 0 || output.appends() {
        return Err(Errno::EINVAL);
    }
    let length = args.size(3).min(MAX_TRANSFER);
    let file_type = input.inode.file_type();
    if file_type == FileType::Socket
        && let Some(target) = pipe::of_file(&output)
    {
        return into_pipe(task, &mut Side { file: &input, at: None }, target, length, input.nonblocking(), output.nonblocking());
    }
    if file_type == FileType::Directory || !input.ops.seekable() {
        return Err(Errno::EINVAL);
    }
    let mut from = Side { file: &input, at: offset };
    let count = copy(task, &mut from, &output, None, length, false)?;
    from.store(task, args.raw(2))?;
    Ok(count)
}

fn copy_file_range(task: &Arc<Task>, args: &Args) -> SysResult {
    let input = task.file(args.int(0))?;
    let output = task.file(args.int(2))?;
    if args.uint(5) != 0 {
        return Err(Errno::EINVAL);
    }
    let given = |address: u64| if address == 0 { Ok(None) } else { task.read::<u64>(address).map(Some) };
    let (from_offset, to_offset) = (given(args.raw(1))?, given(args.raw(3))?);
    let types = [input.inode.file_type(), output.inode.file_type()];
    if types.contains(&FileType::Directory) {
        return Err(Errno::EISDIR);
    }
    if types != [FileType::Regular; 2] {
        return Err(Errno::EINVAL);
    }
    if !input.readable() || !output.writable() || output.appends() {
        return Err(Errno::EBADF);
    }
    let attributes = input.inode.attributes()?;
    // Filesystems do not copy into each other.
    if attributes.device != output.inode.attributes()?.device {
        return Err(Errno::EXDEV);
    }
    let length = args.size(4).min(MAX_TRANSFER);
    let mut from = Side { file: &input, at: from_offset };
    let mut to = Side { file: &output, at: to_offset };
    let (start, target) = (from.position()?, to.position()?);
    let wanted = args.raw(4);
    if start.checked_add(wanted).is_none() || target.checked_add(wanted).is_none() {
        return Err(Errno::EOVERFLOW);
    }
    if start > i64::MAX as u64 || target > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    // What lies behind the end is no part of the copy, and cannot overlap with it.
    let length = length.min(usize::try_from(attributes.size.saturating_sub(start)).unwrap_or(usize::MAX));
    let (end, target_end) = (start + length as u64, target.saturating_add(length as u64));
    if length > 0 && target_end > i64::MAX as u64 {
        return Err(Errno::EFBIG);
    }
    if Arc::ptr_eq(&input.inode, &output.inode) && start < target_end && target < end {
        return Err(Errno::EINVAL);
    }
    let count = copy(task, &mut from, &output, Some(target), length, false)?;
    to.advance(count)?;
    from.store(task, args.raw(1))?;
    to.store(task, args.raw(3))?;
    Ok(count)
}

/// Flags of `splice(2)`, `tee(2)`, `vmsplice(2)`; only one of them changes anything.
const SPLICE_FLAGS: u32 = raw::SPLICE_F_MOVE | raw::SPLICE_F_NONBLOCK | raw::SPLICE_F_MORE | raw::SPLICE_F_GIFT;

fn splice(task: &Arc<Task>, args: &Args) -> SysResult {
    let (length, flags) = (args.size(4).min(MAX_TRANSFER), args.uint(5));
    if length == 0 {
        return Ok(0);
    }
    if flags & !SPLICE_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let (input, output) = (task.file(args.int(0))?, task.file(args.int(2))?);
    let nonblocking = flags & raw::SPLICE_F_NONBLOCK != 0;
    let (in_address, out_address) = (args.raw(1), args.raw(3));
    let pipes = (pipe::of_file(&input), pipe::of_file(&output));
    if pipes.0.is_some() && in_address != 0 || pipes.1.is_some() && out_address != 0 {
        return Err(Errno::ESPIPE);
    }
    if !input.readable() || !output.writable() {
        return Err(Errno::EBADF);
    }
    match pipes {
        (Some(from), Some(to)) => {
            let nonblocking = nonblocking || input.nonblocking() || output.nonblocking();
            wait_both(task, from, to, nonblocking, || pipe::move_between(from, to, length))
        }
        (Some(from), None) => {
            let offset = output_offset(task, &output, out_address)?;
            let count = from_pipe(task, from, &output, offset, length, nonblocking || input.nonblocking())?;
            Side { file: &output, at: offset.map(|offset| offset + count as u64) }.store(task, out_address)?;
            Ok(count)
        }
        // What has neither a place in a tree nor is a stream cannot be spliced from.
        (None, _) if matches!(input.inode.file_type(), FileType::Anonymous | FileType::Directory) => Err(Errno::EINVAL),
        (None, Some(to)) => {
            if in_address != 0 && !input.ops.seekable() || input.inode.file_type() == FileType::Directory {
                return Err(Errno::EINVAL);
            }
            let mut from = Side { file: &input, at: read_offset(task, in_address)? };
            let count = into_pipe(task, &mut from, to, length, nonblocking, output.nonblocking())?;
            from.store(task, in_address)?;
            Ok(count)
        }
        (None, None) => Err(Errno::EINVAL),
    }
}

fn output_offset(task: &Task, output: &File, address: u64) -> Result<Option<u64>, Errno> {
    if output.appends() {
        return Err(Errno::EINVAL);
    }
    if address != 0 && !output.ops.seekable() {
        return Err(Errno::EINVAL);
    }
    read_offset(task, address)
}

/// Takes bytes out of a pipe and writes them to a file.
fn from_pipe(task: &Task, from: &Arc<Pipe>, to: &File, at: Option<u64>, length: usize, nonblocking: bool) -> SysResult {
    let attempt = || from.take(length.min(CHUNK));
    let bytes = wait_one(task, from, PollEvents::READ, nonblocking, attempt)?;
    if bytes.is_empty() {
        return Ok(0);
    }
    let result = blocking::write(task, to, &mut Source::own(&bytes), at, nonblocking);
    let written = *result.as_ref().unwrap_or(&0);
    from.give_back(&bytes[written..]);
    result
}

/// Reads from a file as much as a pipe has room for.
fn into_pipe(task: &Task, from: &mut Side<'_>, to: &Arc<Pipe>, length: usize, nonblocking: bool, pipe_nonblocking: bool) -> SysResult {
    let room = wait_one(task, to, PollEvents::WRITE, nonblocking || pipe_nonblocking, || match to.room()? {
        0 => Err(Errno::EAGAIN),
        room => Ok(room),
    });
    let room = room.inspect_err(|errno| {
        if *errno == Errno::EPIPE {
            blocking::send_to_self(task, raw::SIGPIPE as i32);
        }
    })?;
    let mut buffer = vec![0; room.min(length).min(CHUNK)];
    let positioned = from.file.ops.seekable();
    let at = if positioned { Some(from.position()?) } else { None };
    let count = blocking::read(task, from.file, &mut Destination::own(&mut buffer), at, nonblocking)?;
    let mut source = Source::own(&buffer[..count]);
    let mut written = 0;
    while written < count {
        // Should another writer have filled the pipe meanwhile, what was read from a stream must wait for room, or would be lost.
        let give_up = nonblocking && positioned;
        match wait_one(task, to, PollEvents::WRITE, give_up, || to.write(&mut source, false)) {
            Ok(more) => written += more,
            Err(_) if written > 0 || !positioned => break,
            Err(errno) => return Err(errno),
        }
    }
    if positioned {
        from.advance(written)?;
    }
    Ok(written)
}

/// Waits for one pipe.
fn wait_one<T>(
    task: &Task,
    pipe: &Pipe,
    mask: PollEvents,
    nonblocking: bool,
    mut attempt: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match attempt() {
        Err(Errno::EAGAIN) if !nonblocking => {}
        result => return result,
    }
    let waited = task.block_on(&[pipe.queue()], mask, None, || match attempt() {
        Err(Errno::EAGAIN) => None,
        result => Some(result),
    });
    waited.unwrap_or(Err(Errno::ERESTARTSYS))
}

/// Waits until one pipe has bytes and the other room.
fn wait_both(task: &Task, from: &Pipe, to: &Pipe, nonblocking: bool, mut attempt: impl FnMut() -> SysResult) -> SysResult {
    let result = match attempt() {
        Err(Errno::EAGAIN) if !nonblocking => {
            let queues = [(from.queue(), PollEvents::READ), (to.queue(), PollEvents::WRITE)];
            let waited = task.block_on_each(&queues, None, || match attempt() {
                Err(Errno::EAGAIN) => None,
                result => Some(result),
            });
            match waited {
                Ok(result) => result,
                Err(WaitError::Interrupted | WaitError::TimedOut) => Err(Errno::ERESTARTSYS),
            }
        }
        result => result,
    };
    if result == Err(Errno::EPIPE) {
        blocking::send_to_self(task, raw::SIGPIPE as i32);
    }
    result
}

fn tee(task: &Arc<Task>, args: &Args) -> SysResult {
    let (length, flags) = (args.size(2).min(MAX_TRANSFER), args.uint(3));
    if flags & !SPLICE_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    if length == 0 {
        return Ok(0);
    }
    let (input, output) = (task.file(args.int(0))?, task.file(args.int(1))?);
    if !input.readable() || !output.writable() {
        return Err(Errno::EBADF);
    }
    let (Some(from), Some(to)) = (pipe::of_file(&input), pipe::of_file(&output)) else { return Err(Errno::EINVAL) };
    let nonblocking = flags & raw::SPLICE_F_NONBLOCK != 0 || input.nonblocking() || output.nonblocking();
    wait_both(task, from, to, nonblocking, || pipe::tee_between(from, to, length))
}

fn vmsplice(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(3);
    if flags & !SPLICE_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(args.int(0))?;
    let pieces = task.read_iovec(args.raw(1), args.size(2))?;
    if pieces.iter().all(|piece| piece.iov_len == 0) {
        return Ok(0);
    }
    if pipe::of_file(&file).is_none() {
        return Err(Errno::EBADF);
    }
    let nonblocking = flags & raw::SPLICE_F_NONBLOCK != 0;
    if file.writable() {
        blocking::write(task, &file, &mut Source::guest(task, pieces), None, nonblocking)
    } else {
        blocking::read(task, &file, &mut Destination::guest(task, pieces), None, nonblocking)
    }
}
