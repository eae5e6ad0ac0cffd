//! What concerns a file's storage: `fsync`, `fallocate`, `fadvise64`, `readahead`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::{Arg, Args, Call, SysResult};
use crate::task::Task;
use crate::vfs::inode::FileType;
use crate::vfs::watch;

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_fsync, fsync, &[Arg::Fd]),
    Call::full(raw::__NR_fdatasync, fdatasync, &[Arg::Fd]),
    Call::partial(raw::__NR_sync_file_range, sync_file_range, &[Arg::Fd, Arg::Int, Arg::Int, Arg::Flags], "synchronizes the whole file"),
    Call::full(raw::__NR_fallocate, fallocate, &[Arg::Fd, Arg::Flags, Arg::Int, Arg::Int]),
    Call::partial(raw::__NR_fadvise64, fadvise64, &[Arg::Fd, Arg::Int, Arg::Int, Arg::Int], "advice is taken and not used"),
    Call::partial(raw::__NR_readahead, readahead, &[Arg::Fd, Arg::Int, Arg::Size], "advice is taken and not used"),
];

fn fsync(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    file.ops.sync(&file, false).map(|()| 0)
}

fn fdatasync(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    file.ops.sync(&file, true).map(|()| 0)
}

/// `SYNC_FILE_RANGE_WAIT_BEFORE`, `_WRITE` and `_WAIT_AFTER`.
const SYNC_FILE_RANGE_FLAGS: u32 = 7;

fn sync_file_range(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    let (offset, length) = (args.long(1), args.long(2));
    if args.uint(3) & !SYNC_FILE_RANGE_FLAGS != 0 || offset < 0 || offset.checked_add(length).is_none_or(|end| end < offset) {
        return Err(Errno::EINVAL);
    }
    match file.inode.file_type() {
        FileType::Regular | FileType::BlockDevice => match file.ops.sync(&file, true) {
            // Made when it is read: nothing is ever to be written back.
            Ok(()) | Err(Errno::EINVAL) => Ok(0),
            Err(errno) => Err(errno),
        },
        FileType::Directory | FileType::Symlink => Ok(0),
        _ => Err(Errno::ESPIPE),
    }
}

/// Modes that `fallocate(2)` knows.
const FALLOCATE_MODES: u32 = raw::FALLOC_FL_KEEP_SIZE
    | raw::FALLOC_FL_PUNCH_HOLE
    | raw::FALLOC_FL_COLLAPSE_RANGE
    | raw::FALLOC_FL_ZERO_RANGE
    | raw::FALLOC_FL_INSERT_RANGE
    | raw::FALLOC_FL_UNSHARE_RANGE;

fn fallocate(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    let mode = args.uint(1);
    let (Ok(offset), Ok(length @ 1..)) = (u64::try_from(args.long(2)), u64::try_from(args.long(3))) else {
        return Err(Errno::EINVAL);
    };
    let punches = mode & raw::FALLOC_FL_PUNCH_HOLE != 0;
    if mode & !FALLOCATE_MODES != 0 || punches && mode & raw::FALLOC_FL_KEEP_SIZE == 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    match file.inode.file_type() {
        FileType::Fifo => return Err(Errno::ESPIPE),
        FileType::Directory => return Err(Errno::EISDIR),
        FileType::Regular | FileType::BlockDevice if file.ops.seekable() => {}
        _ => return Err(Errno::ENODEV),
    }
    let end = offset.checked_add(length).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EFBIG)?;
    if mode & raw::FALLOC_FL_KEEP_SIZE == 0 && end > task.process.limits.lock().soft(raw::RLIMIT_FSIZE) {
        super::blocking::send_to_self(task, raw::SIGXFSZ as i32);
        return Err(Errno::EFBIG);
    }
    file.ops.allocate(&file, mode, offset, length)?;
    task.kernel.settle_mappings();
    watch::file_event(&file, raw::IN_MODIFY);
    Ok(0)
}

/// The last advice number, `POSIX_FADV_NOREUSE`.
const LAST_ADVICE: i32 = 5;

fn fadvise64(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    if file.inode.file_type() == FileType::Fifo {
        return Err(Errno::ESPIPE);
    }
    if args.long(2) < 0 || !(0..=LAST_ADVICE).contains(&args.int(3)) {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

fn readahead(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    if file.inode.file_type() == FileType::Regular { Ok(0) } else { Err(Errno::EINVAL) }
}
