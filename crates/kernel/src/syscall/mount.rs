//! Mounting inside, `mount(2)`, `umount2(2)`, `pivot_root(2)`, and flushing.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::at;
use super::{Arg, Args, Call, SysResult};
use crate::fs::mountable;
use crate::task::Task;
use crate::vfs::inode::FileType;
use crate::vfs::mount::NO_LINKS;
use crate::vfs::{Mount, Name, Path as Place};

use Arg::{Fd, Flags, Path, Ptr};

/// The family.
pub const CALLS: &[Call] = &[
    Call::partial(
        raw::__NR_mount,
        mount,
        &[Path, Path, Path, Flags, Ptr],
        "tmpfs, proc, sysfs, cgroup2, devpts and bind mounts; no block devices",
    ),
    Call::full(raw::__NR_umount2, umount, &[Path, Flags]),
    Call::full(raw::__NR_pivot_root, pivot_root, &[Path, Path]),
    Call::full(raw::__NR_sync, |_, _| Ok(0), &[]),
    Call::full(raw::__NR_syncfs, |task, args| task.file(args.int(0)).map(|_| 0), &[Fd]),
];

/// How times of reading are kept.
pub const ACCESS_TIMES: u32 = raw::MS_NOATIME | raw::MS_NODIRATIME | raw::MS_RELATIME | raw::MS_STRICTATIME;
/// Flags that a mount keeps.
const KEPT: u32 = raw::MS_RDONLY | raw::MS_NOSUID | raw::MS_NODEV | raw::MS_NOEXEC | NO_LINKS | ACCESS_TIMES;
/// Changes of propagation.
pub const PROPAGATION: u32 = raw::MS_PRIVATE | raw::MS_SLAVE | raw::MS_SHARED | raw::MS_UNBINDABLE;
/// `MS_NOUSER`: only for the kernel's own mounts.
const MS_NOUSER: u32 = 1 << 31;
/// Longest option text, one page.
const LONGEST_OPTIONS: usize = 4096;

/// `EPERM` unless the caller may change its mounts.
pub fn check_capable(task: &Task) -> Result<(), Errno> {
    if task.credentials().has_in(&task.namespaces().mount.owner, raw::CAP_SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Whether a mount belongs to the caller's tree.
pub fn is_own(task: &Task, mount: &Mount) -> bool {
    mount.space() == task.namespaces().mount.number
}

fn is_root(place: &Place) -> bool {
    Arc::ptr_eq(&place.name, &place.mount.root)
}

fn optional_text(task: &Task, address: u64) -> Result<Option<Vec<u8>>, Errno> {
    if address == 0 { Ok(None) } else { task.read_path(address).map(Some) }
}

/// The options: text up to its end or the page's, of which as much as is there counts.
fn read_options(task: &Task, address: u64) -> Result<Vec<u8>, Errno> {
    if address == 0 {
        return Ok(Vec::new());
    }
    task.read_string(address, LONGEST_OPTIONS, Errno::EINVAL)
}

fn mount(task: &Arc<Task>, args: &Args) -> SysResult {
    let kind = optional_text(task, args.raw(2))?;
    let source = optional_text(task, args.raw(0))?;
    let options = read_options(task, args.raw(4))?;
    // An ancient mark in the upper half means nothing any more.
    let flags = if args.uint(3) & 0xffff_0000 == 0xc0ed_0000 { args.uint(3) & 0xffff } else { args.uint(3) };
    let target = at::lookup(task, at::CWD, args.raw(1), 0, true)?;
    if flags & MS_NOUSER != 0 {
        return Err(Errno::EINVAL);
    }
    check_capable(task)?;
    if flags & raw::MS_REMOUNT != 0 {
        remount(task, &target, flags)?;
    } else if flags & raw::MS_BIND != 0 {
        bind(task, source.as_deref(), target, flags & raw::MS_REC != 0)?;
    } else if flags & PROPAGATION != 0 {
        change_propagation(task, &target, flags)?;
    } else if flags & raw::MS_MOVE != 0 {
        let source = source.filter(|source| !source.is_empty()).ok_or(Errno::EINVAL)?;
        let from = at::walk(task, at::CWD, &source)?.lookup(&source, true)?;
        move_mount(task, &from, target)?;
    } else {
        let kind = kind.ok_or(Errno::EINVAL)?;
        let root = mountable::make(task, &kind, &options)?;
        let source = source.unwrap_or_else(|| b"none".to_vec());
        let (kind, source) = (String::from_utf8_lossy(&kind), String::from_utf8_lossy(&source));
        let mount = Mount::made_in(Name::root(root), &kind, &source, flags & KEPT, &task.credentials().user);
        mount.set_filesystem_read_only(flags & raw::MS_RDONLY != 0)?;
        graft(task, vec![mount], target)?;
    }
    Ok(0)
}

/// Attaches a tree, if it fits: a directory on a directory, anything else on anything else.
pub fn graft(task: &Task, tree: crate::vfs::mount::Tree, target: Place) -> Result<(), Errno> {
    if !is_own(task, &target.mount) {
        return Err(Errno::EINVAL);
    }
    if target.name.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let is_directory = |file_type| file_type == FileType::Directory;
    if is_directory(tree[0].root.inode.file_type()) != is_directory(target.inode().file_type()) {
        return Err(Errno::ENOTDIR);
    }
    task.kernel.mounts.attach_tree(tree, target);
    Ok(())
}

fn remount(task: &Task, target: &Place, flags: u32) -> Result<(), Errno> {
    if !is_root(target) || !is_own(task, &target.mount) {
        return Err(Errno::EINVAL);
    }
    let times = if flags & ACCESS_TIMES == 0 { target.mount.flags() & ACCESS_TIMES } else { 0 };
    let (mount, kept) = (&target.mount, flags & KEPT | times);
    if flags & raw::MS_BIND == 0 {
        mount.check_flags(kept)?;
        // It is the same for whoever sees the filesystem, in other namespaces, too.
        if !mount.is_administered_by(&task.credentials()) {
            return Err(Errno::EPERM);
        }
        mount.set_filesystem_read_only(flags & raw::MS_RDONLY != 0)?;
    }
    mount.set_flags(kept)
}

fn bind(task: &Arc<Task>, source: Option<&[u8]>, target: Place, recursively: bool) -> Result<(), Errno> {
    let source = source.filter(|source| !source.is_empty()).ok_or(Errno::EINVAL)?;
    let from = at::walk(task, at::CWD, source)?.lookup(source, true)?;
    if !is_own(task, &from.mount) && from.mount.kind != "nsfs" {
        return Err(Errno::EINVAL);
    }
    let tree = task.kernel.mounts.copy(&from, recursively)?;
    graft(task, tree, target)
}

fn change_propagation(task: &Task, target: &Place, flags: u32) -> Result<(), Errno> {
    let kind = flags & PROPAGATION;
    if !is_root(target) || !is_own(task, &target.mount) || kind.count_ones() != 1 || flags & !(kind | raw::MS_REC | raw::MS_SILENT) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & raw::MS_REC == 0 {
        target.mount.propagate(kind);
        return Ok(());
    }
    task.kernel.mounts.tree_of(&target.mount).iter().for_each(|mount| mount.propagate(kind));
    Ok(())
}

/// Moves a mount with all below it.
pub fn move_mount(task: &Task, from: &Place, target: Place) -> Result<(), Errno> {
    let place = from.mount.attached();
    let shared = |mount: &Mount| mount.propagation().group != 0;
    let stuck = !is_root(from) || from.mount.is_locked() || !is_own(task, &from.mount) || !is_own(task, &target.mount);
    let Some(place) = place.filter(|place| !stuck && !shared(&place.mount)) else { return Err(Errno::EINVAL) };
    let mounts = &task.kernel.mounts;
    let tree = mounts.tree_of(&from.mount);
    if tree.iter().any(|mount| Arc::ptr_eq(mount, &target.mount)) {
        return Err(Errno::ELOOP);
    }
    let is_directory = |file_type| file_type == FileType::Directory;
    if is_directory(from.inode().file_type()) != is_directory(target.inode().file_type()) {
        return Err(Errno::ENOTDIR);
    }
    if shared(&target.mount) && tree.iter().any(|mount| mount.propagation().unbindable) {
        return Err(Errno::EINVAL);
    }
    drop(place);
    let tree = mounts.take(&from.mount);
    mounts.attach_tree(tree, target);
    Ok(())
}

fn umount(task: &Arc<Task>, args: &Args) -> SysResult {
    const UMOUNT_NOFOLLOW: u32 = 8;
    let flags = args.uint(1);
    at::check_flags(flags, raw::MNT_FORCE | raw::MNT_DETACH | raw::MNT_EXPIRE | UMOUNT_NOFOLLOW)?;
    let target = at::lookup(task, at::CWD, args.raw(0), 0, flags & UMOUNT_NOFOLLOW == 0)?;
    check_capable(task)?;
    let lazily = flags & raw::MNT_DETACH != 0;
    let space = task.namespaces().mount.number;
    if flags & raw::MNT_FORCE != 0 && !task.credentials().has(raw::CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if flags & raw::MNT_EXPIRE != 0 {
        if flags & (raw::MNT_FORCE | raw::MNT_DETACH) != 0 || !is_root(&target) || target.mount.space() != space {
            return Err(Errno::EINVAL);
        }
        if task.kernel.mounts.is_busy(&target.mount) {
            return Err(Errno::EBUSY);
        }
        if !target.mount.expire() {
            return Err(Errno::EAGAIN);
        }
    }
    task.kernel.mounts.detach(&target, space, lazily)?;
    Ok(0)
}

fn pivot_root(task: &Arc<Task>, args: &Args) -> SysResult {
    check_capable(task)?;
    let new = at::lookup(task, at::CWD, args.raw(0), 0, true)?;
    if new.inode().file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    let put_old = at::lookup(task, at::CWD, args.raw(1), 0, true)?;
    if put_old.inode().file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    let root = task.fs().root;
    let shared = |mount: &Mount| mount.propagation().group != 0;
    let parent_shared = |mount: &Mount| mount.attached().is_some_and(|place| shared(&place.mount));
    if shared(&put_old.mount) || parent_shared(&new.mount) || parent_shared(&root.mount) {
        return Err(Errno::EINVAL);
    }
    if !is_own(task, &root.mount) || !is_own(task, &new.mount) || new.mount.is_locked() {
        return Err(Errno::EINVAL);
    }
    if new.name.is_deleted() {
        return Err(Errno::ENOENT);
    }
    if Arc::ptr_eq(&new.mount, &root.mount) || Arc::ptr_eq(&put_old.mount, &root.mount) {
        return Err(Errno::EBUSY);
    }
    let reaches = |place: &Place, from: &Place| place.display(from).first() == Some(&b'/');
    if !is_root(&root) || !is_root(&new) || new.mount.attached().is_none() || !reaches(&put_old, &new) || !reaches(&new, &root) {
        return Err(Errno::EINVAL);
    }
    task.kernel.mounts.pivot(&new.mount, &root.mount, put_old);
    let space = Arc::clone(&task.namespaces().mount);
    {
        let mut top = space.root.lock();
        if Arc::ptr_eq(&top, &root.mount) {
            *top = Arc::clone(&new.mount);
        }
    }
    // Everybody who stands at the old root goes along.
    for other in task.kernel.tasks.tasks() {
        let fs = Arc::clone(&other.fs.lock());
        let mut state = fs.state.lock();
        let state = &mut *state;
        for place in [&mut state.root, &mut state.cwd] {
            if place.is(&root) {
                *place = new.clone();
            }
        }
    }
    Ok(0)
}
