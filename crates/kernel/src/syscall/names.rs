//! Making, removing and renaming names.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::at;
use super::{Arg, Args, Call, SysResult};
use crate::task::Task;
use crate::vfs::inode::{FileType, LinkTarget, NewNode};
use crate::vfs::name::Name;
use crate::vfs::walk::Parent;
use crate::vfs::{permission, watch};

use Arg::{Fd, Flags, Mode, Path, Ptr, Size};

/// The family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_mkdir, |task, args| make_directory(task, at::CWD, args.raw(0), args.uint(1)), &[Path, Mode]),
    Call::full(raw::__NR_mkdirat, |task, args| make_directory(task, args.int(0), args.raw(1), args.uint(2)), &[Fd, Path, Mode]),
    Call::full(raw::__NR_mknod, |task, args| make_node(task, at::CWD, args.raw(0), args.uint(1), args.raw(2)), &[Path, Mode, Size]),
    Call::full(raw::__NR_mknodat, |task, args| make_node(task, args.int(0), args.raw(1), args.uint(2), args.raw(3)), &[Fd, Path, Mode, Size]),
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
    Call::full(
        raw::__NR_readlink,
        |task, args| readlink(task, at::CWD, args.raw(0), args.raw(1), args.int(2)),
        &[Path, Ptr, Size],
    ),
    Call::full(
        raw::__NR_readlinkat,
        |task, args| readlink(task, args.int(0), args.raw(1), args.raw(2), args.int(3)),
        &[Fd, Path, Ptr, Size],
    ),
];

/// The directory and free name for something new; `EEXIST` for what cannot be a new name.
fn new_name(task: &Arc<Task>, fd: i32, address: u64, directory: bool) -> Result<Parent, Errno> {
    let path = task.read_path(address)?;
    let walk = at::walk(task, fd, &path)?;
    let parent = walk.parent(&path)?;
    if !parent.is_entry() {
        return Err(Errno::EEXIST);
    }
    if parent.directory.name.child(&parent.component).is_ok() {
        return Err(Errno::EEXIST);
    }
    if parent.trailing_slash && !directory {
        return Err(Errno::ENOENT);
    }
    permission::check_directory_change(&parent.directory, &walk.credentials)?;
    Ok(parent)
}

fn make(task: &Arc<Task>, parent: &Parent, node: NewNode<'_>, file_type: FileType, mode: u32) -> SysResult {
    let directory = parent.directory.inode();
    let permissions = mode & 0o7777 & !task.fs().umask;
    let inode = directory.create(&parent.component, node, permissions, &task.credentials())?;
    let _ = parent.directory.name.adopt(&parent.component, inode);
    watch::entry_event(&**directory, &parent.component, file_type, raw::IN_CREATE, 0);
    Ok(0)
}

fn make_directory(task: &Arc<Task>, fd: i32, address: u64, mode: u32) -> SysResult {
    let parent = new_name(task, fd, address, true)?;
    make(task, &parent, NewNode::Directory, FileType::Directory, mode & 0o1777)
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
        FileType::Symlink => return Err(Errno::EINVAL),
    };
    let parent = new_name(task, fd, address, false)?;
    make(task, &parent, node, file_type, mode)
}

fn symlink(task: &Arc<Task>, target: u64, fd: i32, address: u64) -> SysResult {
    let target = task.read_path(target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let parent = new_name(task, fd, address, false)?;
    make(task, &parent, NewNode::Symlink(&target), FileType::Symlink, 0o777)
}

fn link(task: &Arc<Task>, old: (i32, u64), new: (i32, u64), flags: u32) -> SysResult {
    at::check_flags(flags, raw::AT_SYMLINK_FOLLOW | raw::AT_EMPTY_PATH)?;
    let place = at::lookup(task, old.0, old.1, flags, flags & raw::AT_SYMLINK_FOLLOW != 0)?;
    let parent = new_name(task, new.0, new.1, false)?;
    if !Arc::ptr_eq(&place.mount, &parent.directory.mount) {
        return Err(Errno::EXDEV);
    }
    if place.inode().file_type() == FileType::Directory {
        return Err(Errno::EPERM);
    }
    let directory = parent.directory.inode();
    directory.link(&parent.component, place.inode())?;
    let _ = parent.directory.name.adopt(&parent.component, Arc::clone(place.inode()));
    watch::entry_event(&**directory, &parent.component, place.inode().file_type(), raw::IN_CREATE, 0);
    watch::name_event(&place.name, raw::IN_ATTRIB);
    Ok(0)
}

fn unlinkat(task: &Arc<Task>, args: &Args) -> SysResult {
    at::check_flags(args.uint(2), raw::AT_REMOVEDIR)?;
    remove(task, args.int(0), args.raw(1), args.uint(2) & raw::AT_REMOVEDIR != 0)
}

fn remove(task: &Arc<Task>, fd: i32, address: u64, directory: bool) -> SysResult {
    let path = task.read_path(address)?;
    let walk = at::walk(task, fd, &path)?;
    let parent = walk.parent(&path)?;
    if !parent.is_entry() {
        return Err(match (directory, parent.component.as_slice()) {
            (false, _) => Errno::EISDIR,
            (true, b".") => Errno::EINVAL,
            (true, b"..") => Errno::ENOTEMPTY,
            (true, _) => Errno::EBUSY,
        });
    }
    let name = parent.directory.name.child(&parent.component)?;
    let file_type = name.inode.file_type();
    permission::check_directory_change(&parent.directory, &walk.credentials)?;
    permission::check_sticky(parent.directory.inode(), &name.inode, &walk.credentials)?;
    match (directory, file_type == FileType::Directory) {
        (false, true) => return Err(Errno::EISDIR),
        (true, false) => return Err(Errno::ENOTDIR),
        (false, false) if parent.trailing_slash => return Err(Errno::ENOTDIR),
        _ => {}
    }
    if task.kernel.mounts.is_covered(&parent.directory.mount, &name) {
        return Err(Errno::EBUSY);
    }
    let inode = parent.directory.inode();
    if directory { inode.rmdir(&parent.component)? } else { inode.unlink(&parent.component)? }
    parent.directory.name.forget(&parent.component);
    watch::entry_event(&**inode, &parent.component, file_type, raw::IN_DELETE, 0);
    if name.inode.attributes().is_ok_and(|attributes| attributes.links == 0) {
        name.inode.common().watches.notify(raw::IN_DELETE_SELF, 0, None);
    } else {
        name.inode.common().watches.notify(raw::IN_ATTRIB, 0, None);
    }
    Ok(0)
}

fn rename(task: &Arc<Task>, old: (i32, u64), new: (i32, u64), flags: u32) -> SysResult {
    at::check_flags(flags, raw::RENAME_NOREPLACE | raw::RENAME_EXCHANGE)?;
    let exchange = flags & raw::RENAME_EXCHANGE != 0;
    if exchange && flags & raw::RENAME_NOREPLACE != 0 {
        return Err(Errno::EINVAL);
    }
    let (old_path, new_path) = (task.read_path(old.1)?, task.read_path(new.1)?);
    let from = at::walk(task, old.0, &old_path)?.parent(&old_path)?;
    let to = at::walk(task, new.0, &new_path)?.parent(&new_path)?;
    if !Arc::ptr_eq(&from.directory.mount, &to.directory.mount) {
        return Err(Errno::EXDEV);
    }
    if !from.is_entry() || !to.is_entry() {
        return Err(Errno::EBUSY);
    }
    let _guard = task.kernel.mounts.rename.lock();
    let credentials = task.credentials();
    let source = from.directory.name.child(&from.component)?;
    let target = to.directory.name.child(&to.component).ok();
    let is_directory = source.inode.file_type() == FileType::Directory;
    if !is_directory && (from.trailing_slash || to.trailing_slash && !exchange) {
        return Err(Errno::ENOTDIR);
    }
    permission::check_directory_change(&from.directory, &credentials)?;
    permission::check_sticky(from.directory.inode(), &source.inode, &credentials)?;
    permission::check_directory_change(&to.directory, &credentials)?;
    match &target {
        Some(_) if flags & raw::RENAME_NOREPLACE != 0 => return Err(Errno::EEXIST),
        Some(target) => permission::check_sticky(to.directory.inode(), &target.inode, &credentials)?,
        None if exchange => return Err(Errno::ENOENT),
        None => {}
    }
    // No directory may move below itself.
    if is_directory && to.directory.name.is_below(&source) {
        return Err(Errno::EINVAL);
    }
    if let Some(target) = &target {
        if from.directory.name.is_below(target) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if Arc::ptr_eq(&source.inode, &target.inode) {
            return Ok(0);
        }
    }
    for (directory, name) in [(&from.directory, Some(&source)), (&to.directory, target.as_ref())] {
        if name.is_some_and(|name| task.kernel.mounts.is_covered(&directory.mount, name)) {
            return Err(Errno::EBUSY);
        }
    }
    from.directory.inode().rename(&from.component, to.directory.inode(), &to.component, flags)?;
    match (&target, exchange) {
        (Some(target), true) => Name::exchange(&source, target),
        _ => Name::move_to(&source, &to.directory.name, &to.component),
    }
    let cookie = watch::next_cookie();
    let kind = source.inode.file_type();
    watch::entry_event(&**from.directory.inode(), &from.component, kind, raw::IN_MOVED_FROM, cookie);
    watch::entry_event(&**to.directory.inode(), &to.component, kind, raw::IN_MOVED_TO, cookie);
    source.inode.common().watches.notify(raw::IN_MOVE_SELF, 0, None);
    if let (Some(target), false) = (&target, exchange)
        && target.inode.attributes().is_ok_and(|attributes| attributes.links == 0)
    {
        target.inode.common().watches.notify(raw::IN_DELETE_SELF, 0, None);
    }
    Ok(0)
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
