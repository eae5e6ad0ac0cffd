//! Descriptors themselves: `close`, `dup`, `fcntl`, `flock`, `pipe`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::{Arg, Args, Call, SysResult, record_locks};
use crate::fs::{memfd, pipe};
use crate::task::Task;
use crate::vfs::file::{File, SETTABLE_FLAGS};
use crate::vfs::leases;

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_close, close, &[Arg::Fd]),
    Call::full(raw::__NR_close_range, close_range, &[Arg::Fd, Arg::Fd, Arg::Flags]),
    Call::full(raw::__NR_dup, dup, &[Arg::Fd]),
    Call::full(raw::__NR_dup2, dup2, &[Arg::Fd, Arg::Fd]),
    Call::full(raw::__NR_dup3, dup3, &[Arg::Fd, Arg::Fd, Arg::Flags]),
    Call::full(raw::__NR_fcntl, fcntl, &[Arg::Fd, Arg::Int, Arg::Ptr]),
    Call::full(raw::__NR_pipe, pipe, &[Arg::Ptr]),
    Call::full(raw::__NR_pipe2, pipe2, &[Arg::Ptr, Arg::Flags]),
];

/// `close_range(2)`: with a descriptor table of one's own.
const CLOSE_RANGE_UNSHARE: u32 = 1 << 1;
/// `close_range(2)`: mark rather than close.
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

fn close(task: &Arc<Task>, args: &Args) -> SysResult {
    let files = task.files();
    let file = files.remove(args.int(0))?;
    files.closed(&file, task);
    Ok(0)
}

fn close_range(task: &Arc<Task>, args: &Args) -> SysResult {
    let (first, last, flags) = (args.uint(0), args.uint(1), args.uint(2));
    if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        let mut files = task.files.lock();
        let own = files.duplicate();
        *files = own;
    }
    let files = task.files();
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        files.set_close_on_exec_range(first as usize, last as usize);
        return Ok(0);
    }
    for file in files.take_where(first as usize, last as usize, |_| true) {
        files.closed(&file, task);
    }
    Ok(0)
}

/// `RLIMIT_NOFILE`.
fn open_files_limit(task: &Task) -> u64 {
    task.process.limits.lock().soft(raw::RLIMIT_NOFILE)
}

fn dup(task: &Arc<Task>, args: &Args) -> SysResult {
    let files = task.files();
    let file = files.get(args.int(0))?;
    files.insert(file, false, 0, open_files_limit(task)).map(|fd| fd as usize)
}

fn dup2(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.int(0) == args.int(1) {
        return task.files().get(args.int(0)).map(|_| args.int(0) as usize);
    }
    duplicate_to(task, args.int(0), args.int(1), false)
}

fn dup3(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.uint(2) & !raw::O_CLOEXEC != 0 || args.int(0) == args.int(1) {
        return Err(Errno::EINVAL);
    }
    duplicate_to(task, args.int(0), args.int(1), args.uint(2) != 0)
}

fn duplicate_to(task: &Arc<Task>, from: i32, to: i32, close_on_exec: bool) -> SysResult {
    if u64::try_from(to).map_err(|_| Errno::EBADF)? >= open_files_limit(task) {
        return Err(Errno::EBADF);
    }
    let files = task.files();
    let file = files.get(from)?;
    if let Some(old) = files.replace(to, file, close_on_exec)? {
        files.closed(&old, task);
    }
    Ok(to as usize)
}

fn fcntl(task: &Arc<Task>, args: &Args) -> SysResult {
    let fd = args.int(0);
    let (file, close_on_exec) = task.files().get_with_flag(fd)?;
    let command = args.uint(1);
    match command {
        raw::F_DUPFD | raw::F_DUPFD_CLOEXEC => {
            let lowest = usize::try_from(args.int(2)).map_err(|_| Errno::EINVAL)?;
            let limit = open_files_limit(task);
            if lowest as u64 >= limit {
                return Err(Errno::EINVAL);
            }
            task.files().insert(file, command == raw::F_DUPFD_CLOEXEC, lowest, limit).map(|fd| fd as usize)
        }
        raw::F_GETFD => Ok(usize::from(close_on_exec)),
        raw::F_SETFD => task.files().set_close_on_exec(fd, args.uint(2) & raw::FD_CLOEXEC != 0).map(|()| 0),
        raw::F_GETFL => Ok(file.flags() as usize),
        raw::F_DUPFD_QUERY => Ok(usize::from(Arc::ptr_eq(&file, &task.files().get(args.int(2))?))),
        // All that follows is about the file itself.
        _ if file.flags() & raw::O_PATH != 0 => Err(Errno::EBADF),
        raw::F_SETFL => set_flags(task, fd, &file, args.uint(2)),
        raw::F_GETLK | raw::F_SETLK | raw::F_SETLKW | raw::F_OFD_GETLK | raw::F_OFD_SETLK | raw::F_OFD_SETLKW => {
            record_locks::fcntl(task, fd, &file, command, args.raw(2))
        }
        raw::F_SETOWN | raw::F_GETOWN | raw::F_SETOWN_EX | raw::F_GETOWN_EX | raw::F_SETSIG | raw::F_GETSIG => {
            owner_command(task, &file, command, args)
        }
        raw::F_SETPIPE_SZ => {
            pipe::of_file(&file).ok_or(Errno::EBADF)?.set_capacity(args.uint(2), task.credentials().has(raw::CAP_SYS_RESOURCE))
        }
        raw::F_GETPIPE_SZ => Ok(pipe::of_file(&file).ok_or(Errno::EBADF)?.capacity()),
        raw::F_ADD_SEALS => memfd::add_seals(&file, args.uint(2)).map(|()| 0),
        raw::F_GET_SEALS => memfd::seals(&file).map(|seals| seals as usize),
        raw::F_NOTIFY => file.notify_of_entries(task, fd, args.uint(2)).map(|()| 0),
        raw::F_SETLEASE => set_lease(task, fd, &file, args.uint(2)),
        raw::F_GETLEASE => Ok(match file.inode.common().leases.held(&file) {
            Some(leases::Kind::Read) => raw::F_RDLCK,
            Some(leases::Kind::Write) => raw::F_WRLCK,
            None => raw::F_UNLCK,
        } as usize),
        raw::F_GET_RW_HINT => task.write(args.raw(2), &0u64).map(|()| 0),
        raw::F_SET_RW_HINT => task.read::<u64>(args.raw(2)).and_then(|hint| if hint <= 5 { Ok(0) } else { Err(Errno::EINVAL) }),
        raw::F_CREATED_QUERY => Ok(usize::from(file.created.load(std::sync::atomic::Ordering::Relaxed))),
        _ => Err(Errno::EINVAL),
    }
}

fn set_flags(task: &Arc<Task>, fd: i32, file: &Arc<File>, flags: u32) -> SysResult {
    if (file.flags() ^ flags) & raw::O_NOATIME & flags != 0 {
        let credentials = task.credentials();
        if !crate::vfs::permission::is_owner(&file.inode.attributes()?, &credentials) {
            return Err(Errno::EPERM);
        }
    }
    if (file.flags() ^ flags) & raw::FASYNC != 0 {
        file.set_async(task, fd, flags & raw::FASYNC != 0)?;
    }
    file.set_flags(flags & SETTABLE_FLAGS);
    Ok(0)
}

fn set_lease(task: &Arc<Task>, fd: i32, file: &Arc<File>, kind: u32) -> SysResult {
    let leases = &file.inode.common().leases;
    match kind {
        raw::F_RDLCK => leases.take(task, file, fd, leases::Kind::Read)?,
        raw::F_WRLCK => leases.take(task, file, fd, leases::Kind::Write)?,
        raw::F_UNLCK => leases.give_back(task, file)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// Who gets `SIGIO`, and which signal instead of it.
fn owner_command(task: &Arc<Task>, file: &Arc<File>, command: u32, args: &Args) -> SysResult {
    use std::sync::atomic::Ordering::Relaxed;
    match command {
        raw::F_SETOWN => {
            let owner = args.int(2);
            if owner == i32::MIN {
                return Err(Errno::EINVAL);
            }
            file.set_owner(task, owner)?;
        }
        // The system call itself cannot tell a small group from an error; the C library asks by F_GETOWN_EX.
        raw::F_GETOWN => return Ok(task.shows_owner(file.owner.load(Relaxed)) as isize as usize),
        raw::F_SETOWN_EX => {
            let [kind, number]: [i32; 2] = task.read(args.raw(2))?;
            match kind as u32 {
                raw::F_OWNER_TID | raw::F_OWNER_PID => file.set_owner(task, number)?,
                raw::F_OWNER_PGRP => file.set_owner(task, number.checked_neg().ok_or(Errno::EINVAL)?)?,
                _ => return Err(Errno::EINVAL),
            }
        }
        raw::F_GETOWN_EX => {
            let owner = task.shows_owner(file.owner.load(Relaxed));
            let kind = if owner < 0 { raw::F_OWNER_PGRP } else { raw::F_OWNER_PID };
            task.write(args.raw(2), &[kind as i32, owner.abs()])?;
        }
        raw::F_SETSIG => {
            if !(0..=64).contains(&args.int(2)) {
                return Err(Errno::EINVAL);
            }
            file.owner_signal.store(args.int(2), Relaxed);
            file.owner_changed();
        }
        _ => return Ok(file.owner_signal.load(Relaxed) as usize),
    }
    Ok(0)
}

fn pipe(task: &Arc<Task>, args: &Args) -> SysResult {
    make_pipe(task, args.raw(0), 0)
}

fn pipe2(task: &Arc<Task>, args: &Args) -> SysResult {
    make_pipe(task, args.raw(0), args.uint(1))
}

fn make_pipe(task: &Arc<Task>, address: u64, flags: u32) -> SysResult {
    // O_NOTIFICATION_PIPE (O_EXCL) is for key rings, which are not there.
    if flags & !(raw::O_CLOEXEC | raw::O_NONBLOCK | raw::O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let (reader, writer) = pipe::new_pair(flags & (raw::O_NONBLOCK | raw::O_DIRECT));
    let close_on_exec = flags & raw::O_CLOEXEC != 0;
    let files = task.files();
    let limit = open_files_limit(task);
    let read_end = files.insert(reader, close_on_exec, 0, limit)?;
    let write_end = match files.insert(writer, close_on_exec, 0, limit) {
        Ok(fd) => fd,
        Err(errno) => {
            let _ = files.remove(read_end);
            return Err(errno);
        }
    };
    if let Err(errno) = task.write(address, &[read_end, write_end]) {
        let _ = files.remove(read_end);
        let _ = files.remove(write_end);
        return Err(errno);
    }
    Ok(0)
}
