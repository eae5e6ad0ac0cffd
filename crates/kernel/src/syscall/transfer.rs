//! Reading and writing: `read`, `write` and their vectored and positioned forms, `lseek`.

use std::io::SeekFrom;
use std::sync::Arc;

use cloudpilot_abi::types::Iovec;
use cloudpilot_abi::{Errno, raw};

use super::{Arg, Args, Call, SysResult, blocking};
use crate::io::{Destination, Source};
use crate::task::Task;
use crate::vfs::file::File;
use crate::vfs::inode::FileType;

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_read, read, &[Arg::Fd, Arg::Out, Arg::Size]),
    Call::full(raw::__NR_write, write, &[Arg::Fd, Arg::In, Arg::Size]),
    Call::full(raw::__NR_pread64, pread64, &[Arg::Fd, Arg::Out, Arg::Size, Arg::Int]),
    Call::full(raw::__NR_pwrite64, pwrite64, &[Arg::Fd, Arg::In, Arg::Size, Arg::Int]),
    Call::full(raw::__NR_readv, readv, &[Arg::Fd, Arg::Ptr, Arg::Size]),
    Call::full(raw::__NR_writev, writev, &[Arg::Fd, Arg::Ptr, Arg::Size]),
    Call::full(raw::__NR_preadv, preadv, &[Arg::Fd, Arg::Ptr, Arg::Size, Arg::Int]),
    Call::full(raw::__NR_pwritev, pwritev, &[Arg::Fd, Arg::Ptr, Arg::Size, Arg::Int]),
    Call::full(raw::__NR_preadv2, preadv2, &[Arg::Fd, Arg::Ptr, Arg::Size, Arg::Int, Arg::Int, Arg::Flags]),
    Call::full(raw::__NR_pwritev2, pwritev2, &[Arg::Fd, Arg::Ptr, Arg::Size, Arg::Int, Arg::Int, Arg::Flags]),
    Call::full(raw::__NR_lseek, lseek, &[Arg::Fd, Arg::Int, Arg::Int]),
];

fn read(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    let length = checked_length(args.size(2))?;
    // A socket is not even asked.
    if length == 0 && file.readable() && file.inode.file_type() == FileType::Socket {
        return Ok(0);
    }
    let mut destination = task.destination(args.raw(1), length);
    blocking::read(task, &file, &mut destination, None, false)
}

fn write(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    let mut source = task.source(args.raw(1), checked_length(args.size(2))?);
    blocking::write(task, &file, &mut source, None, false)
}

fn pread64(task: &Arc<Task>, args: &Args) -> SysResult {
    let offset = checked_offset(args.long(3))?;
    let file = positioned(task, args)?;
    let mut destination = task.destination(args.raw(1), checked_length(args.size(2))?);
    blocking::read(task, &file, &mut destination, Some(offset), false)
}

fn pwrite64(task: &Arc<Task>, args: &Args) -> SysResult {
    let offset = checked_offset(args.long(3))?;
    let file = positioned(task, args)?;
    let mut source = task.source(args.raw(1), checked_length(args.size(2))?);
    blocking::write(task, &file, &mut source, Some(offset), false)
}

fn readv(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    vectored_read(task, &file, args, None, 0)
}

fn writev(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    vectored_write(task, &file, args, None, 0)
}

fn preadv(task: &Arc<Task>, args: &Args) -> SysResult {
    let offset = checked_offset(args.long(3))?;
    let file = positioned(task, args)?;
    vectored_read(task, &file, args, Some(offset), 0)
}

fn pwritev(task: &Arc<Task>, args: &Args) -> SysResult {
    let offset = checked_offset(args.long(3))?;
    let file = positioned(task, args)?;
    vectored_write(task, &file, args, Some(offset), 0)
}

fn preadv2(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.long(3) == -1 {
        let file = task.file(args.int(0))?;
        return vectored_read(task, &file, args, None, args.uint(5));
    }
    let offset = checked_offset(args.long(3))?;
    let file = positioned(task, args)?;
    vectored_read(task, &file, args, Some(offset), args.uint(5))
}

fn pwritev2(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.long(3) == -1 {
        let file = task.file(args.int(0))?;
        return vectored_write(task, &file, args, None, args.uint(5));
    }
    let offset = checked_offset(args.long(3))?;
    let file = positioned(task, args)?;
    vectored_write(task, &file, args, Some(offset), args.uint(5))
}

/// At the offset, `O_APPEND` or not; newer than the headers that our numbers come from.
const RWF_NOAPPEND: u32 = 0x20;
/// What `preadv2(2)` and `pwritev2(2)` take; the hint for polled completion changes nothing here, nor do reads care for what is about writes.
const KNOWN_FLAGS: u32 = raw::RWF_HIPRI | raw::RWF_NOWAIT | raw::RWF_DSYNC | raw::RWF_SYNC | raw::RWF_APPEND | RWF_NOAPPEND;

/// The pieces of a vectored call; none if there is nothing to do, of which the file is not even told.
fn pieces(task: &Task, args: &Args, flags: u32) -> Result<Option<Vec<Iovec>>, Errno> {
    let pieces = task.read_iovec(args.raw(1), args.size(2))?;
    if pieces.iter().all(|piece| piece.iov_len == 0) {
        return Ok(None);
    }
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & (raw::RWF_APPEND | RWF_NOAPPEND) == raw::RWF_APPEND | RWF_NOAPPEND {
        return Err(Errno::EINVAL);
    }
    Ok(Some(pieces))
}

fn vectored_read(task: &Arc<Task>, file: &File, args: &Args, at: Option<u64>, flags: u32) -> SysResult {
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    let Some(pieces) = pieces(task, args, flags)? else { return Ok(0) };
    blocking::read(task, file, &mut Destination::guest(task, pieces), at, flags & raw::RWF_NOWAIT != 0)
}

fn vectored_write(task: &Arc<Task>, file: &File, args: &Args, at: Option<u64>, flags: u32) -> SysResult {
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    let Some(pieces) = pieces(task, args, flags)? else { return Ok(0) };
    let mut source = Source::guest(task, pieces);
    if flags & (raw::RWF_APPEND | RWF_NOAPPEND) != 0 {
        source.set_append(flags & raw::RWF_APPEND != 0);
    }
    let count = blocking::write(task, file, &mut source, at, flags & raw::RWF_NOWAIT != 0)?;
    if flags & (raw::RWF_DSYNC | raw::RWF_SYNC) != 0 && file.inode.file_type() == FileType::Regular {
        file.ops.sync(file, flags & raw::RWF_SYNC == 0)?;
    }
    Ok(count)
}

/// A length as `access_ok` judges it: what is negative as a signed number cannot be memory.
fn checked_length(length: usize) -> Result<usize, Errno> {
    if length > isize::MAX as usize { Err(Errno::EINVAL) } else { Ok(length) }
}

fn checked_offset(offset: i64) -> Result<u64, Errno> {
    u64::try_from(offset).map_err(|_| Errno::EINVAL)
}

/// The file of a call that names an offset.
fn positioned(task: &Task, args: &Args) -> Result<Arc<File>, Errno> {
    let file = task.file(args.int(0))?;
    if file.ops.seekable() { Ok(file) } else { Err(Errno::ESPIPE) }
}

fn lseek(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    let offset = args.long(1);
    if args.uint(2) > raw::SEEK_HOLE {
        return Err(Errno::EINVAL);
    }
    if file.ops.ignores_seeks() {
        return Ok(0);
    }
    if !file.ops.seekable() {
        return Err(Errno::ESPIPE);
    }
    if let Some(result) = own_seek(&file, offset, args.uint(2))? {
        return result.map(|position| position as usize);
    }
    let mut position = file.position.lock();
    let target = match args.uint(2) {
        raw::SEEK_SET => offset,
        raw::SEEK_CUR => (*position as i64).checked_add(offset).ok_or(Errno::EINVAL)?,
        raw::SEEK_END => (file.ops.end_of_file(&file)? as i64).checked_add(offset).ok_or(Errno::EINVAL)?,
        which => {
            let start = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            file.ops.seek_data(&file, start, which == raw::SEEK_DATA)? as i64
        }
    };
    *position = u64::try_from(target).map_err(|_| Errno::EINVAL)?;
    Ok(target as usize)
}

/// `lseek` of a file that keeps its position elsewhere; none for others.
fn own_seek(file: &File, offset: i64, whence: u32) -> Result<Option<Result<u64, Errno>>, Errno> {
    let target = match whence {
        raw::SEEK_SET => SeekFrom::Start(u64::try_from(offset).map_err(|_| Errno::EINVAL)?),
        raw::SEEK_CUR => SeekFrom::Current(offset),
        raw::SEEK_END => SeekFrom::End(offset),
        _ => return Ok(None),
    };
    Ok(file.ops.own_position(target))
}
