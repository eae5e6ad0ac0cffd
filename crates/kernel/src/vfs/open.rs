//! Opening: `open(2)` after its arguments are decoded.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::{Errno, raw};

use super::acl;
use super::file::File;
use super::inode::{FileType, NewNode, SetAttributes};
use super::leases;
use super::name::{Name, Path};
use super::permission::{self, EXECUTE, READ, WRITE};
use super::walk::Walk;
use super::watch;
use super::write_access::{ReadAccess, WriteAccess};
use crate::task::Task;

/// Flags without any meaning of their own here (`O_LARGEFILE`, `O_SYNC`, …) are kept and reported by `F_GETFL`.
const O_TMPFILE_BIT: u32 = 0o20_000_000;
/// What counts beside `O_PATH`.
pub const PATH_FLAGS: u32 = raw::O_PATH | raw::O_DIRECTORY | raw::O_NOFOLLOW | raw::O_CLOEXEC;

/// Filesystems whose files are made up while they are read: they know no `O_DIRECT`.
const GENERATED: [&str; 4] = ["proc", "sysfs", "cgroup2", "nsfs"];

/// Opens or makes a file. `mode` counts only with `O_CREAT` and `O_TMPFILE`; the umask is applied here.
pub fn open(walk: &Walk<'_>, path: &[u8], flags: u32, mode: u32) -> Result<Arc<File>, Errno> {
    let task = walk.task;
    // 64-bit programs ask for it without saying so.
    let flags = if flags & raw::O_PATH == 0 { flags | raw::O_LARGEFILE } else { flags & PATH_FLAGS };
    if flags & raw::O_CREAT != 0 && flags & raw::O_DIRECTORY != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & O_TMPFILE_BIT != 0 {
        if flags & raw::O_CREAT != 0 {
            return Err(Errno::EINVAL);
        }
        return open_unlisted(walk, path, flags, mode);
    }
    if flags & raw::O_PATH != 0 {
        let place = walk.lookup(path, flags & raw::O_NOFOLLOW == 0)?;
        if flags & raw::O_DIRECTORY != 0 && place.inode().file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        return Ok(path_only_with(place, flags));
    }
    if flags & raw::O_CREAT == 0 {
        let place = walk.lookup(path, flags & raw::O_NOFOLLOW == 0)?;
        if place.inode().file_type() == FileType::Symlink {
            return Err(if flags & raw::O_DIRECTORY != 0 { Errno::ENOTDIR } else { Errno::ELOOP });
        }
        return open_place(task, walk, place, flags, true);
    }
    let (parent, found) = if flags & (raw::O_EXCL | raw::O_NOFOLLOW) != 0 {
        let parent = walk.parent(path)?;
        let found = match parent.is_entry().then(|| walk_one(walk, &parent)) {
            None => Some(parent.directory.clone()),
            Some(Ok(place)) => Some(place),
            Some(Err(Errno::ENOENT)) => None,
            Some(Err(errno)) => return Err(errno),
        };
        (parent, found)
    } else {
        walk.parent_following(path)?
    };
    if parent.trailing_slash && parent.is_entry() {
        return Err(Errno::EISDIR);
    }
    if let Some(place) = found {
        if flags & raw::O_EXCL != 0 {
            return Err(Errno::EEXIST);
        }
        match place.inode().file_type() {
            FileType::Symlink => return Err(Errno::ELOOP),
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return open_place(task, walk, place, flags, true),
        }
    }
    permission::check_directory_change(&parent.directory, &walk.credentials)?;
    let directory = parent.directory.inode();
    let permissions = acl::masked(directory, mode, task.fs().umask);
    let (inode, made) = match directory.create(&parent.component, NewNode::File, permissions, &walk.credentials) {
        Ok(inode) => (inode, true),
        // Somebody else was quicker.
        Err(Errno::EEXIST) if flags & raw::O_EXCL == 0 => (directory.lookup(&parent.component)?, false),
        Err(errno) => return Err(errno),
    };
    watch::entry_event(&**directory, &parent.component, FileType::Regular, raw::IN_CREATE, 0);
    let name = parent.directory.name.adopt(&parent.component, inode);
    // The maker may write to it whatever its mode says.
    let file = open_place(task, walk, Path { mount: parent.directory.mount, name }, flags & !raw::O_TRUNC, false)?;
    file.created.store(made, Ordering::Relaxed);
    Ok(file)
}

/// A file that only stands for a place, as `O_PATH` opens it.
pub fn path_only(place: Path) -> Arc<File> {
    path_only_with(place, raw::O_PATH)
}

fn path_only_with(place: Path, flags: u32) -> Arc<File> {
    let inode = Arc::clone(place.inode());
    File::new(Arc::new(PathOnly), inode, Some(place), flags)
}

fn walk_one(walk: &Walk<'_>, parent: &super::walk::Parent) -> Result<Path, Errno> {
    let name = parent.directory.name.child(&parent.component)?;
    Ok(walk.kernel.mounts.descend(Path { mount: Arc::clone(&parent.directory.mount), name }))
}

/// Opens what a walk found.
fn open_place(task: &Arc<Task>, walk: &Walk<'_>, place: Path, flags: u32, check: bool) -> Result<Arc<File>, Errno> {
    let inode = Arc::clone(place.inode());
    let file_type = inode.file_type();
    let accesses = match flags & raw::O_ACCMODE {
        raw::O_RDONLY => READ,
        raw::O_WRONLY => WRITE,
        _ => READ | WRITE,
    };
    let truncates = flags & raw::O_TRUNC != 0;
    let changes = accesses & WRITE != 0 || truncates;
    match file_type {
        FileType::Directory if changes || flags & raw::O_CREAT != 0 => return Err(Errno::EISDIR),
        FileType::Directory => {}
        _ if flags & raw::O_DIRECTORY != 0 => return Err(Errno::ENOTDIR),
        FileType::Socket => return Err(Errno::ENXIO),
        _ => {}
    }
    if changes && file_type == FileType::Regular {
        permission::check_writable_mount(&place)?;
    }
    if matches!(file_type, FileType::CharacterDevice | FileType::BlockDevice) && place.mount.flags() & raw::MS_NODEV != 0 {
        return Err(Errno::EACCES);
    }
    if check {
        let wanted = accesses | if truncates { WRITE } else { 0 };
        permission::check(&inode, &walk.credentials, wanted)?;
        if flags & raw::O_NOATIME != 0 && !permission::is_owner(&inode.attributes()?, &walk.credentials) {
            return Err(Errno::EPERM);
        }
    }
    let is_regular = file_type == FileType::Regular;
    let access = if changes && is_regular { Some(WriteAccess::take(&inode)?.through(&place.mount)) } else { None };
    if flags & raw::O_DIRECT != 0 && !(is_regular && !GENERATED.contains(&place.mount.kind.as_str()) || file_type == FileType::Fifo) {
        return Err(Errno::EINVAL);
    }
    let read_access = (accesses == READ && is_regular).then(|| ReadAccess::take(&inode));
    leases::break_leases(task, &inode, changes, flags & raw::O_NONBLOCK != 0)?;
    if truncates && is_regular {
        inode.set_attributes(&SetAttributes { size: Some(0), ..SetAttributes::default() })?;
        task.kernel.settle_mappings();
    }
    let ops = Arc::clone(&inode).open(flags, task)?;
    watch::name_event(&place.name, raw::IN_OPEN);
    if truncates && is_regular {
        watch::name_event(&place.name, raw::IN_MODIFY);
    }
    let file = File::new(ops, inode, Some(place), flags);
    if accesses & WRITE != 0
        && let Some(access) = access
    {
        let _ = file.write_access.set(access);
    }
    if let Some(access) = read_access {
        let _ = file.read_access.set(access);
    }
    Ok(file)
}

/// `O_TMPFILE`: a file in a directory's filesystem that no directory lists.
fn open_unlisted(walk: &Walk<'_>, path: &[u8], flags: u32, mode: u32) -> Result<Arc<File>, Errno> {
    if flags & raw::O_ACCMODE == raw::O_RDONLY || flags & raw::O_DIRECTORY == 0 {
        return Err(Errno::EINVAL);
    }
    let directory = walk.lookup(path, true)?;
    if directory.inode().file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    permission::check_writable_mount(&directory)?;
    permission::check(directory.inode(), &walk.credentials, WRITE | EXECUTE)?;
    let permissions = acl::masked(directory.inode(), mode, walk.task.fs().umask);
    let inode = directory.inode().create_unlisted(permissions, &walk.credentials, flags & raw::O_EXCL == 0)?;
    let text = format!("#{}", inode.attributes()?.inode);
    let name = Name::unlisted(&directory.name, text.as_bytes(), Arc::clone(&inode));
    let ops = Arc::clone(&inode).open(flags & !raw::O_DIRECTORY, walk.task)?;
    watch::name_event(&name, raw::IN_OPEN);
    let access = WriteAccess::take(&inode)?.through(&directory.mount);
    let file = File::new(ops, inode, Some(Path { mount: directory.mount, name }), flags);
    let _ = file.write_access.set(access);
    Ok(file)
}

/// Operations of a file opened with `O_PATH`: none.
struct PathOnly;

impl super::file::FileOps for PathOnly {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
