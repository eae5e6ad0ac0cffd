//! `ioctl(2)`: what holds for descriptors and files of any kind; the rest is the file's own.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw, raw_ioctl};

use super::{Arg, Args, Call, SysResult};
use crate::task::Task;
use crate::vfs::file::File;
use crate::vfs::inode::FileType;
use crate::vfs::permission;

/// This family.
pub const CALLS: &[Call] = &[Call::full(raw::__NR_ioctl, ioctl, &[Arg::Fd, Arg::Flags, Arg::Ptr])];

/// Bytes of `struct fsxattr`, none of whose fields apply here.
const EXTENDED_FLAGS: usize = 28;

fn ioctl(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    let argument = args.raw(2);
    let file_type = file.inode.file_type();
    match args.uint(1) {
        raw_ioctl::FIOCLEX => task.files().set_close_on_exec(args.int(0), true)?,
        raw_ioctl::FIONCLEX => task.files().set_close_on_exec(args.int(0), false)?,
        raw_ioctl::FIONBIO => {
            let on = task.read::<i32>(argument)? != 0;
            file.set_flags(if on { file.flags() | raw::O_NONBLOCK } else { file.flags() & !raw::O_NONBLOCK });
        }
        raw_ioctl::FIOASYNC => {
            let on = task.read::<i32>(argument)? != 0;
            file.set_async(task, args.int(0), on)?;
            file.set_flags(if on { file.flags() | raw::FASYNC } else { file.flags() & !raw::FASYNC });
        }
        raw_ioctl::FIOQSIZE => match file_type {
            FileType::Directory | FileType::Regular | FileType::Symlink => task.write(argument, &file.inode.attributes()?.size)?,
            _ => return Err(Errno::ENOTTY),
        },
        raw_ioctl::FIONREAD if file_type == FileType::Regular => {
            let left = file.inode.attributes()?.size as i64 - file.current_position()? as i64;
            task.write(argument, &(left as i32))?;
        }
        raw_ioctl::FIGETBSZ => task.write(argument, &(file.inode.attributes()?.block_size as i32))?,
        raw_ioctl::FIBMAP if file_type == FileType::Regular => return block_of(task, argument),
        raw_ioctl::FICLONE => return clone_range(&file, &*task.file(argument as u32 as i32)?),
        raw_ioctl::FICLONERANGE => {
            let [source, ..]: [i64; 4] = task.read(argument)?;
            return clone_range(&file, &*task.file(source as i32)?);
        }
        raw_ioctl::FIDEDUPERANGE => return deduplicate(task, &file, argument),
        raw_ioctl::FS_IOC_GETFLAGS if has_flags(&file) => task.write(argument, &0_u32)?,
        raw_ioctl::FS_IOC_SETFLAGS if has_flags(&file) => return set_flags(task, &file, argument),
        raw_ioctl::FS_IOC_FSGETXATTR if has_flags(&file) => task.write(argument, &[0_u8; EXTENDED_FLAGS])?,
        request => return file.ops.ioctl(&file, task, request, argument),
    }
    Ok(0)
}

/// Whether a file has flags such as `FS_IMMUTABLE_FL`, `ioctl_iflags(2)`: those in memory do.
fn has_flags(file: &File) -> bool {
    let in_memory = file.path.as_ref().is_some_and(|path| matches!(path.mount.kind.as_str(), "tmpfs" | "ramfs" | "overlay"));
    in_memory && matches!(file.inode.file_type(), FileType::Regular | FileType::Directory)
}

/// No flag can be set; to set none is right.
fn set_flags(task: &Task, file: &File, argument: u64) -> SysResult {
    let flags: u32 = task.read(argument)?;
    if !permission::is_owner(&file.inode.attributes()?, &task.credentials()) {
        return Err(Errno::EPERM);
    }
    if flags == 0 { Ok(0) } else { Err(Errno::EOPNOTSUPP) }
}

/// `FIBMAP`: no filesystem here has blocks that could be told.
fn block_of(task: &Task, argument: u64) -> SysResult {
    if !task.credentials().has(raw::CAP_SYS_RAWIO) {
        return Err(Errno::EPERM);
    }
    task.read::<i32>(argument)?;
    Err(Errno::EINVAL)
}

/// `ioctl_ficlone(2)`: nothing here shares blocks. Programs fall back to copying at `EOPNOTSUPP`.
fn clone_range(target: &File, source: &File) -> SysResult {
    let mount = |file: &File| file.path.as_ref().map(|path| path.mount.id);
    if mount(target) != mount(source) {
        return Err(Errno::EXDEV);
    }
    for file in [source, target] {
        match file.inode.file_type() {
            FileType::Regular => {}
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
    }
    if !source.readable() || !target.writable() || target.appends() {
        return Err(Errno::EBADF);
    }
    Err(Errno::EOPNOTSUPP)
}

/// `ioctl_fideduperange(2)`, which is as little there.
fn deduplicate(task: &Task, source: &File, argument: u64) -> SysResult {
    task.read::<[u64; 3]>(argument)?;
    match source.inode.file_type() {
        _ if !source.readable() => Err(Errno::EINVAL),
        FileType::Directory => Err(Errno::EISDIR),
        FileType::Regular => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EINVAL),
    }
}
