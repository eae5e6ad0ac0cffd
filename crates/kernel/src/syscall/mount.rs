//! Mounting inside, and flushing.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::at;
use super::{Arg, Args, Call, SysResult};
use crate::fs::tmpfs::Tmpfs;
use crate::task::Task;
use crate::vfs::inode::{FileType, Inode};
use crate::vfs::{Mount, Name};

use Arg::{Fd, Flags, Path, Ptr};

/// The family.
pub const CALLS: &[Call] = &[
    Call::partial(
        raw::__NR_mount,
        mount,
        &[Path, Path, Path, Flags, Ptr],
        "tmpfs, proc, sysfs and bind mounts, remounts; no mount namespaces of their own",
    ),
    Call::full(raw::__NR_umount2, umount, &[Path, Flags]),
    Call::full(raw::__NR_sync, |_, _| Ok(0), &[]),
    Call::full(raw::__NR_syncfs, |task, args| task.files().get(args.int(0)).map(|_| 0), &[Fd]),
];

/// Flags that a mount keeps.
const KEPT: u32 = raw::MS_RDONLY | raw::MS_NOSUID | raw::MS_NODEV | raw::MS_NOEXEC | raw::MS_NOATIME | raw::MS_RELATIME;
/// Changes of propagation, which nothing here depends on.
const PROPAGATION: u32 = raw::MS_PRIVATE | raw::MS_SLAVE | raw::MS_SHARED | raw::MS_UNBINDABLE;

fn mount(task: &Arc<Task>, args: &Args) -> SysResult {
    let kernel = &task.kernel;
    let flags = args.uint(3);
    let target = at::lookup(task, at::CWD, args.raw(1), 0, true)?;
    if !task.credentials().has(raw::CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if flags & raw::MS_REMOUNT != 0 {
        if !Arc::ptr_eq(&target.name, &target.mount.root) {
            return Err(Errno::EINVAL);
        }
        target.mount.set_flags(flags & KEPT);
        return Ok(0);
    }
    if flags & PROPAGATION != 0 {
        return Ok(0);
    }
    if flags & raw::MS_MOVE != 0 {
        return Err(Errno::EINVAL);
    }
    let (root, kind, source) = if flags & raw::MS_BIND != 0 {
        let source = at::lookup(task, at::CWD, args.raw(0), 0, true)?;
        let text = String::from_utf8_lossy(&source.display(&task.fs().root)).into_owned();
        (source.name, source.mount.kind.clone(), text)
    } else {
        let kind = task.read_path(args.raw(2))?;
        let source = if args.raw(0) == 0 { b"none".to_vec() } else { task.read_path(args.raw(0))? };
        let root: Arc<dyn Inode> = match kind.as_slice() {
            b"tmpfs" | b"ramfs" => Tmpfs::create(&kernel.memory, kernel.limits.tmpfs_bytes, 0o1777, None),
            b"proc" => crate::fs::proc::root(kernel),
            b"sysfs" => crate::fs::sys::root(kernel),
            _ => return Err(Errno::ENODEV),
        };
        (Name::root(root), String::from_utf8_lossy(&kind).into_owned(), String::from_utf8_lossy(&source).into_owned())
    };
    let directory = |file_type| file_type == FileType::Directory;
    if directory(root.inode.file_type()) != directory(target.inode().file_type()) {
        return Err(Errno::ENOTDIR);
    }
    kernel.mounts.attach(&Mount::new(root, &kind, &source, flags & KEPT), target);
    Ok(0)
}

fn umount(task: &Arc<Task>, args: &Args) -> SysResult {
    const UMOUNT_NOFOLLOW: u32 = 8;
    at::check_flags(args.uint(1), raw::MNT_FORCE | raw::MNT_DETACH | raw::MNT_EXPIRE | UMOUNT_NOFOLLOW)?;
    let target = at::lookup(task, at::CWD, args.raw(0), 0, args.uint(1) & UMOUNT_NOFOLLOW == 0)?;
    if !task.credentials().has(raw::CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    task.kernel.mounts.detach(&target, args.uint(1) & raw::MNT_DETACH != 0)?;
    Ok(0)
}
