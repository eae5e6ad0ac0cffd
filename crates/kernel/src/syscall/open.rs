//! Opening files, and directories as streams of entries.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, raw};

use super::at;
use super::{Arg, Args, Call, SysResult};
use crate::task::Task;
use crate::vfs::inode::FileType;
use crate::vfs::{Walk, open as vfs_open, watch};

use Arg::{Fd, Flags, Mode, Out, Path, Ptr, Size};

/// The family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_open, open, &[Path, Flags, Mode]),
    Call::full(raw::__NR_openat, openat, &[Fd, Path, Flags, Mode]),
    Call::full(raw::__NR_openat2, openat2, &[Fd, Path, Ptr, Size]),
    Call::full(raw::__NR_creat, creat, &[Path, Mode]),
    Call::full(raw::__NR_getdents, getdents, &[Fd, Ptr, Size]),
    Call::full(raw::__NR_getdents64, getdents64, &[Fd, Ptr, Size]),
    Call::full(raw::__NR_getcwd, getcwd, &[Out, Size]),
    Call::full(raw::__NR_chdir, chdir, &[Path]),
    Call::full(raw::__NR_fchdir, fchdir, &[Fd]),
    Call::full(raw::__NR_chroot, chroot, &[Path]),
    Call::full(raw::__NR_umask, umask, &[Mode]),
    Call::partial(raw::__NR_inotify_add_watch, inotify_add_watch, &[Fd, Path, Flags], "events of host volumes only as caused from inside"),
];

fn open_path(walk: &Walk<'_>, path: &[u8], flags: u32, mode: u32) -> SysResult {
    let file = vfs_open::open(walk, path, flags, mode)?;
    // A session leader without a terminal gets the one it opens.
    walk.task.install(file, flags & raw::O_CLOEXEC != 0).map(|fd| fd as usize)
}

fn open(task: &Arc<Task>, args: &Args) -> SysResult {
    let path = task.read_path(args.raw(0))?;
    open_path(&Walk::of(task), &path, args.uint(1), args.uint(2))
}

fn creat(task: &Arc<Task>, args: &Args) -> SysResult {
    let path = task.read_path(args.raw(0))?;
    open_path(&Walk::of(task), &path, raw::O_CREAT | raw::O_WRONLY | raw::O_TRUNC, args.uint(1))
}

fn openat(task: &Arc<Task>, args: &Args) -> SysResult {
    let path = task.read_path(args.raw(1))?;
    open_path(&at::walk(task, args.int(0), &path)?, &path, args.uint(2), args.uint(3))
}

/// `struct open_how`, `openat2(2)`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

fn openat2(task: &Arc<Task>, args: &Args) -> SysResult {
    const KNOWN_FLAGS: u64 = 0o37_777_703;
    let size = args.size(3);
    if size < size_of::<OpenHow>() {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let bytes: Vec<u8> = task.read_slice(args.raw(2), size)?;
    let (known, rest) = bytes.split_at(size_of::<OpenHow>());
    if rest.iter().any(|&byte| byte != 0) {
        return Err(Errno::E2BIG);
    }
    let how: OpenHow = bytemuck::pod_read_unaligned(known);
    let makes = how.flags & u64::from(raw::O_CREAT) != 0 || how.flags & 0o20_000_000 != 0;
    if how.flags & !KNOWN_FLAGS != 0
        || how.resolve & !0x3f != 0
        || how.mode & !0o7777 != 0
        || how.mode != 0 && !makes
        || how.resolve & 0x18 == 0x18
        || how.flags & u64::from(raw::O_PATH) != 0 && how.flags & !u64::from(vfs_open::PATH_FLAGS) != 0
    {
        return Err(Errno::EINVAL);
    }
    if how.resolve & 0x20 != 0 {
        // RESOLVE_CACHED: we cannot tell whether a walk would wait for the host.
        return Err(Errno::EAGAIN);
    }
    let path = task.read_path(args.raw(1))?;
    let mut walk = at::walk(task, args.int(0), if how.resolve & 0x10 != 0 { b"." } else { &path })?;
    walk.resolve = how.resolve;
    open_path(&walk, &path, how.flags as u32, how.mode as u32)
}

fn getdents64(task: &Arc<Task>, args: &Args) -> SysResult {
    read_entries(task, args, |record, inode, next, file_type, name| {
        let length = (19 + name.len() + 1).next_multiple_of(8);
        record.extend_from_slice(&inode.to_le_bytes());
        record.extend_from_slice(&next.to_le_bytes());
        record.extend_from_slice(&(length as u16).to_le_bytes());
        record.push(file_type.dirent_type());
        record.extend_from_slice(name);
        length
    })
}

fn getdents(task: &Arc<Task>, args: &Args) -> SysResult {
    read_entries(task, args, |record, inode, next, file_type, name| {
        let length = (18 + name.len() + 2).next_multiple_of(8);
        record.extend_from_slice(&inode.to_le_bytes());
        record.extend_from_slice(&next.to_le_bytes());
        record.extend_from_slice(&(length as u16).to_le_bytes());
        record.extend_from_slice(name);
        record.resize(length - 1, 0);
        record.push(file_type.dirent_type());
        length
    })
}

/// Lists into the caller's buffer; `pack` appends one record, unpadded, and answers its padded length.
fn read_entries(task: &Arc<Task>, args: &Args, pack: impl Fn(&mut Vec<u8>, u64, u64, FileType, &[u8]) -> usize) -> SysResult {
    /// More than this at once helps nobody.
    const LARGEST: usize = 256 << 10;
    let file = task.file(args.int(0))?;
    let room = (args.uint(2) as usize).min(LARGEST);
    let mut position = file.position.lock();
    let mut buffer = Vec::with_capacity(room.min(32 << 10));
    let mut cursor = *position;
    let mut too_small = false;
    file.ops.read_directory(&file, cursor, &mut |name, inode, file_type, next| {
        let mut record = Vec::with_capacity(32 + name.len());
        let length = pack(&mut record, inode, next, file_type, name);
        if buffer.len() + length > room {
            too_small = buffer.is_empty();
            return false;
        }
        record.resize(length, 0);
        buffer.extend_from_slice(&record);
        cursor = next;
        true
    })?;
    if too_small {
        return Err(Errno::EINVAL);
    }
    if file.inode.attributes().is_ok_and(|attributes| attributes.links == 0) {
        return Err(Errno::ENOENT);
    }
    task.write_bytes(args.raw(1), &buffer)?;
    *position = cursor;
    drop(position);
    watch::file_event(&file, raw::IN_ACCESS);
    Ok(buffer.len())
}

fn getcwd(task: &Arc<Task>, args: &Args) -> SysResult {
    let fs = task.fs();
    if fs.cwd.name.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let mut path = fs.cwd.display(&fs.root);
    path.push(0);
    if path.len() > args.size(1) {
        return Err(Errno::ERANGE);
    }
    task.write_bytes(args.raw(0), &path)?;
    Ok(path.len())
}

fn change_directory(task: &Arc<Task>, place: crate::vfs::Path) -> SysResult {
    if place.inode().file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    crate::vfs::permission::check(place.inode(), &task.credentials(), crate::vfs::permission::EXECUTE)?;
    let fs = Arc::clone(&task.fs.lock());
    fs.state.lock().cwd = place;
    Ok(0)
}

fn chdir(task: &Arc<Task>, args: &Args) -> SysResult {
    change_directory(task, at::lookup(task, at::CWD, args.raw(0), 0, true)?)
}

fn fchdir(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.files().get(args.int(0))?;
    change_directory(task, at::place(&file, task))
}

fn chroot(task: &Arc<Task>, args: &Args) -> SysResult {
    let place = at::lookup(task, at::CWD, args.raw(0), 0, true)?;
    if place.inode().file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    crate::vfs::permission::check(place.inode(), &task.credentials(), crate::vfs::permission::EXECUTE)?;
    if !task.credentials().has_here(raw::CAP_SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    let fs = Arc::clone(&task.fs.lock());
    fs.state.lock().root = place;
    Ok(0)
}

fn umask(task: &Arc<Task>, args: &Args) -> SysResult {
    let fs = Arc::clone(&task.fs.lock());
    let old = std::mem::replace(&mut fs.state.lock().umask, args.uint(0) & 0o777);
    Ok(old as usize)
}

fn inotify_add_watch(task: &Arc<Task>, args: &Args) -> SysResult {
    let mask = args.uint(2);
    const FLAGS: u32 =
        raw::IN_ONLYDIR | raw::IN_DONT_FOLLOW | raw::IN_EXCL_UNLINK | raw::IN_MASK_ADD | raw::IN_MASK_CREATE | raw::IN_ONESHOT;
    if mask & (raw::IN_ALL_EVENTS | FLAGS) == 0 || mask & raw::IN_MASK_ADD != 0 && mask & raw::IN_MASK_CREATE != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(args.int(0))?;
    let inotify = file.ops_as::<crate::fs::inotify::Inotify>().ok_or(Errno::EINVAL)?;
    let place = at::lookup(task, at::CWD, args.raw(1), 0, mask & raw::IN_DONT_FOLLOW == 0)?;
    if mask & raw::IN_ONLYDIR != 0 && place.inode().file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    crate::vfs::permission::check(place.inode(), &task.credentials(), crate::vfs::permission::READ)?;
    let inode = Arc::clone(place.inode());
    inotify.add(&inode, Some(place), mask).map(|watch| watch as usize)
}
