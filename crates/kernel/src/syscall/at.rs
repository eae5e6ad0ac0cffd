//! Paths as system calls take them: a descriptor to start from, a path, and `AT_*` flags.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use crate::task::Task;
use crate::vfs::inode::FileType;
use crate::vfs::name::Name;
use crate::vfs::{File, Path, Walk};

/// `AT_FDCWD`.
pub const CWD: i32 = raw::AT_FDCWD;

/// A walk for `path` from a descriptor.
pub fn walk<'a>(task: &'a Arc<Task>, fd: i32, path: &[u8]) -> Result<Walk<'a>, Errno> {
    if fd == CWD || path.starts_with(b"/") {
        return Ok(Walk::of(task));
    }
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    let file = task.files().get(fd)?;
    if file.inode.file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    Ok(Walk::from(task, place(&file, task)))
}

/// Where an open file stands; files without a name get one of their own.
pub fn place(file: &Arc<File>, task: &Arc<Task>) -> Path {
    file.path.clone().unwrap_or_else(|| Path { mount: task.fs().root.mount, name: Name::root(Arc::clone(&file.inode)) })
}

/// What a path leads to, with `AT_EMPTY_PATH`, `AT_SYMLINK_NOFOLLOW` and `AT_SYMLINK_FOLLOW` as Linux's `user_path_at` takes them.
pub fn lookup(task: &Arc<Task>, fd: i32, address: u64, flags: u32, follow: bool) -> Result<Path, Errno> {
    let path = if address == 0 && flags & raw::AT_EMPTY_PATH != 0 { Vec::new() } else { task.read_path(address)? };
    if path.is_empty() && flags & raw::AT_EMPTY_PATH != 0 {
        if fd == CWD {
            return Ok(task.fs().cwd);
        }
        return Ok(place(&task.files().get(fd)?, task));
    }
    walk(task, fd, &path)?.lookup(&path, follow)
}

/// The same with the flags' own word on links: followed unless `AT_SYMLINK_NOFOLLOW`.
pub fn lookup_flags(task: &Arc<Task>, fd: i32, address: u64, flags: u32) -> Result<Path, Errno> {
    lookup(task, fd, address, flags, flags & raw::AT_SYMLINK_NOFOLLOW == 0)
}

/// Refuses flags beyond those that a call knows.
pub fn check_flags(flags: u32, known: u32) -> Result<(), Errno> {
    if flags & !known != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}
