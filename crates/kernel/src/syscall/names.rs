//! Making, removing and renaming names.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::at;
use super::{Arg, Args, Call, SysResult};
use crate::task::Task;
use crate::vfs::entries;
use crate::vfs::inode::{FileType, LinkTarget, NewNode};

use Arg::{Fd, Flags, Mode, Path, Ptr, Size};

/// The family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_mkdir, |task, args| make_directory(task, at::CWD, args.raw(0), args.uint(1)), &[Path, Mode]),
    Call::full(raw::__NR_mkdirat, |task, args| make_directory(task, args.int(0), args.raw(1), args.uint(2)), &[Fd, Path, Mode]),
    Call::full(raw::__NR_mknod, |task, args| make_node(task, at::CWD, args.raw(0), args.uint(1), args.raw(2)), &[Path, Mode, Size]),
    Call::full(
        raw::__NR_mknodat,
        |task, args| make_node(task, args.int(0), args.raw(1), args.uint(2), args.raw(3)),
        &[Fd, Path, Mode, Size],
    ),
    Call::full(raw::__NR_symlink, |task, args| symlink(task, args.raw(0), at::CWD, args.raw(1)), &[Path, Path]),
    Call::full(raw::__NR_symlinkat, |task, args| symlink(task, args.raw(0), args.int(1), args.raw(2)), &[Path, Fd, Path]),
    Call::full(raw::__NR_link, |task, args| link(task, (at::CWD, args.raw(0)), (at::CWD, args.raw(1)), 0), &[Path, Path]),
    Call::full(
        raw::__NR_linkat,
        |task, args| link(task, (args.int(0), args.raw(1)), (args.int(2), args.raw(3)), args.uint(4)),
        &[Fd, Path, Fd, Path, Flags],
    ),
    Call::full(raw::__NR_unlink, |task, args| remove(task, at::CWD, args.raw(0), false), &[Path]),
    Call::full(raw::__NR_rmdir, |task, args| remove(task, at::CWD, args.raw(0), true), &[Path]),
    Call::full(raw::__NR_unlinkat, unlinkat, &[Fd, Path, Flags]),
    Call::full(raw::__NR_rename, |task, args| rename(task, (at::CWD, args.raw(0)), (at::CWD, args.raw(1)), 0), &[Path, Path]),
    Call::full(
        raw::__NR_renameat,
        |task, args| rename(task, (args.int(0), args.raw(1)), (args.int(2), args.raw(3)), 0),
        &[Fd, Path, Fd, Path],
    ),
    Call::full(
        raw::__NR_renameat2,
        |task, args| rename(task, (args.int(0), args.raw(1)), (args.int(2), args.raw(3)), args.uint(4)),
        &[Fd, Path, Fd, Path, Flags],
    ),
    Call::full(raw::__NR_readlink, |task, args| readlink(task, at::CWD, args.raw(0), args.raw(1), args.int(2)), &[Path, Ptr, Size]),
    Call::full(
        raw::__NR_readlinkat,
        |task, args| readlink(task, args.int(0), args.raw(1), args.raw(2), args.int(3)),
        &[Fd, Path, Ptr, Size],
    ),
];

fn make_directory(task: &Arc<Task>, fd: i32, address: u64, mode: u32) -> SysResult {
    let path = task.read_path(address)?;
    entries::make(&at::walk(task, fd, &path)?, &path, NewNode::Directory, mode & 0o1777).map(|()| 0)
}

fn make_node(task: &Arc<Task>, fd: i32, address: u64, mode: u32, device: u64) -> SysResult {
    let file_type = match mode & 0o170_000 {
        0 => FileType::Regular,
        _ => FileType::from_mode(mode).ok_or(Errno::EINVAL)?,
    };
    let node = match file_type {
        FileType::Regular => NewNode::File,
        FileType::Fifo => NewNode::Fifo,
        FileType::Socket => NewNode::Socket,
        FileType::CharacterDevice | FileType::BlockDevice if !task.credentials().has(raw::CAP_MKNOD) => return Err(Errno::EPERM),
        FileType::CharacterDevice | FileType::BlockDevice => NewNode::Device(file_type, device),
        FileType::Directory => return Err(Errno::EPERM),
        FileType::Symlink | FileType::Anonymous => return Err(Errno::EINVAL),
    };
    let path = task.read_path(address)?;
    entries::make(&at::walk(task, fd, &path)?, &path, node, mode).map(|()| 0)
}

fn symlink(task: &Arc<Task>, target: u64, fd: i32, address: u64) -> SysResult {
    let target = task.read_path(target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let path = task.read_path(address)?;
    entries::make(&at::walk(task, fd, &path)?, &path, NewNode::Symlink(&target), 0o777).map(|()| 0)
}

fn link(task: &Arc<Task>, old: (i32, u64), new: (i32, u64), flags: u32) -> SysResult {
    at::check_flags(flags, raw::AT_SYMLINK_FOLLOW | raw::AT_EMPTY_PATH)?;
    let place = at::lookup(task, old.0, old.1, flags, flags & raw::AT_SYMLINK_FOLLOW != 0)?;
    let path = task.read_path(new.1)?;
    entries::link(&place, &at::walk(task, new.0, &path)?, &path).map(|()| 0)
}

fn unlinkat(task: &Arc<Task>, args: &Args) -> SysResult {
    at::check_flags(args.uint(2), raw::AT_REMOVEDIR)?;
    remove(task, args.int(0), args.raw(1), args.uint(2) & raw::AT_REMOVEDIR != 0)
}

fn remove(task: &Arc<Task>, fd: i32, address: u64, directory: bool) -> SysResult {
    let path = task.read_path(address)?;
    entries::remove(&at::walk(task, fd, &path)?, &path, directory).map(|()| 0)
}

fn rename(task: &Arc<Task>, old: (i32, u64), new: (i32, u64), flags: u32) -> SysResult {
    at::check_flags(flags, raw::RENAME_NOREPLACE | raw::RENAME_EXCHANGE)?;
    let (old_path, new_path) = (task.read_path(old.1)?, task.read_path(new.1)?);
    let (from, to) = (at::walk(task, old.0, &old_path)?, at::walk(task, new.0, &new_path)?);
    entries::rename((&from, &old_path), (&to, &new_path), flags).map(|()| 0)
}

fn readlink(task: &Arc<Task>, fd: i32, address: u64, buffer: u64, size: i32) -> SysResult {
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    // An empty path means the descriptor itself, a link opened with O_PATH.
    let path = task.read_path(address)?;
    let place = if path.is_empty() && fd != at::CWD {
        at::place(&task.files().get(fd)?, task)
    } else {
        at::walk(task, fd, &path)?.lookup(&path, false)?
    };
    if place.inode().file_type() != FileType::Symlink {
        return Err(if path.is_empty() { Errno::ENOENT } else { Errno::EINVAL });
    }
    let text = match place.inode().read_link(task)? {
        LinkTarget::Text(text) | LinkTarget::Place { text, .. } => text,
    };
    let count = text.len().min(size as usize);
    task.write_bytes(buffer, &text[..count])?;
    Ok(count)
}
