//! What concerns a file's storage: `fsync`, `fallocate`, `fadvise64`, `readahead`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, PAGE_SIZE, raw};

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
    Call::partial(raw::__NR_cachestat, cachestat, &[Arg::Fd, Arg::Ptr, Arg::Ptr, Arg::Flags], "all of a file counts as present and clean"),
    Call::full(raw::__NR_quotactl, quotactl, &[Arg::Flags, Arg::Path, Arg::Int, Arg::Ptr]),
    Call::full(raw::__NR_quotactl_fd, quotactl_fd, &[Arg::Fd, Arg::Flags, Arg::Int, Arg::Ptr]),
    Call::full(raw::__NR_ustat, ustat, &[Arg::Int, Arg::Ptr]),
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

fn cachestat(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.files().get(args.int(0))?;
    let [offset, length]: [u64; 2] = task.read(args.raw(1))?;
    if args.uint(3) != 0 {
        return Err(Errno::EINVAL);
    }
    let size = match file.inode.file_type() {
        FileType::Regular => file.inode.attributes()?.size,
        _ => 0,
    };
    let end = if length == 0 { size } else { size.min(offset.saturating_add(length)) };
    let pages = if end > offset { end.div_ceil(PAGE_SIZE) - offset / PAGE_SIZE } else { 0 };
    task.write(args.raw(2), &[pages, 0, 0, 0, 0]).map(|()| 0)
}

/// Kinds of quotas: of users, groups, projects. The kind is the lower half of a command's second byte pair.
const QUOTA_KINDS: u32 = 3;

/// No filesystem inside counts quotas.
fn quotactl(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.uint(0) & 0xff >= QUOTA_KINDS {
        return Err(Errno::EINVAL);
    }
    if args.raw(1) == 0 {
        return Err(Errno::ENODEV);
    }
    let place = super::at::lookup(task, super::at::CWD, args.raw(1), 0, true)?;
    // There is nothing that could be mounted behind a block device.
    if place.inode().file_type() == FileType::BlockDevice { Err(Errno::ENODEV) } else { Err(Errno::ENOTBLK) }
}

fn quotactl_fd(task: &Arc<Task>, args: &Args) -> SysResult {
    task.files().get(args.int(0))?;
    if args.uint(1) & 0xff >= QUOTA_KINDS { Err(Errno::EINVAL) } else { Err(Errno::ENOSYS) }
}

fn ustat(task: &Arc<Task>, args: &Args) -> SysResult {
    /// `struct ustat` with names that nobody has filled in for long.
    const SIZE: usize = 32;
    let device = u64::from(args.uint(0));
    let mounts = task.kernel.mounts.all();
    let root = mounts.iter().map(|mount| &mount.root.inode).find(|inode| inode.attributes().is_ok_and(|found| found.device == device));
    let figures = root.ok_or(Errno::EINVAL)?.statfs()?;
    let mut answer = [0u8; SIZE];
    answer[..4].copy_from_slice(&(figures.free_blocks as u32).to_ne_bytes());
    answer[8..16].copy_from_slice(&figures.free_inodes.to_ne_bytes());
    task.write_bytes(args.raw(1), &answer).map(|()| 0)
}
