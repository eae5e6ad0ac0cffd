//! `flock(2)` and the lock commands of `fcntl(2)`.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, raw};

use super::{Arg, Args, Call, SysResult};
use crate::task::Task;
use crate::vfs::file::File;
use crate::vfs::locks::{self, LOCK_END, LockOwner, RecordLock, WholeLock};
use crate::wait::{PollEvents, WaitError};

/// This family.
pub const CALLS: &[Call] = &[Call::full(raw::__NR_flock, flock, &[Arg::Fd, Arg::Flags])];

/// `struct flock`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Flock {
    l_type: i16,
    l_whence: i16,
    pad0: i32,
    l_start: i64,
    l_len: i64,
    l_pid: i32,
    pad1: i32,
}

fn flock(task: &Arc<Task>, args: &Args) -> SysResult {
    let operation = args.uint(1);
    if !matches!(operation & !raw::LOCK_NB, raw::LOCK_SH | raw::LOCK_EX | raw::LOCK_UN) {
        return Err(Errno::EINVAL);
    }
    let file = task.file(args.int(0))?;
    let locks = &file.inode.common().locks;
    let owner = LockOwner::description(&file);
    let exclusive = match operation & !raw::LOCK_NB {
        raw::LOCK_SH => false,
        raw::LOCK_EX => true,
        raw::LOCK_UN => {
            locks.unlock_whole(owner);
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL),
    };
    let attempt = || match locks.lock_whole(WholeLock { owner, exclusive, pid: task.process.pid }) {
        Err(Errno::EAGAIN) => None,
        result => Some(result),
    };
    if operation & raw::LOCK_NB != 0 {
        return attempt().unwrap_or(Err(Errno::EAGAIN)).map(|()| 0);
    }
    match task.block_on(&[locks.queue()], PollEvents::READ, None, attempt) {
        Ok(result) => result.map(|()| 0),
        Err(WaitError::Interrupted | WaitError::TimedOut) => Err(Errno::ERESTARTSYS),
    }
}

/// First and last byte that a `struct flock` names.
fn range(file: &File, lock: &Flock) -> Result<(u64, u64), Errno> {
    let base = match u32::from(lock.l_whence as u16) {
        raw::SEEK_SET => 0,
        raw::SEEK_CUR => file.current_position()? as i64,
        raw::SEEK_END => file.inode.attributes()?.size as i64,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(lock.l_start).ok_or(Errno::EOVERFLOW)?;
    let (start, last) = match lock.l_len {
        0 => (start, LOCK_END as i64),
        length @ 1.. => (start, start.checked_add(length - 1).ok_or(Errno::EOVERFLOW)?),
        length => (start.checked_add(length).ok_or(Errno::EINVAL)?, start - 1),
    };
    if start < 0 {
        return Err(Errno::EINVAL);
    }
    Ok((start as u64, last as u64))
}

/// The lock commands of `fcntl(2)`.
pub fn fcntl(task: &Arc<Task>, fd: i32, file: &Arc<File>, command: u32, address: u64) -> SysResult {
    let mut given: Flock = task.read(address)?;
    let of_description = matches!(command, raw::F_OFD_GETLK | raw::F_OFD_SETLK | raw::F_OFD_SETLKW);
    if of_description && given.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let files = task.files();
    let (owner, pid) = if of_description { (LockOwner::description(file), -1) } else { (files.owner(), task.process.pid) };
    let (start, last) = range(file, &given)?;
    let kind = u32::from(given.l_type as u16);
    let locks = &file.inode.common().locks;
    let wanted = RecordLock { start, last, exclusive: kind == raw::F_WRLCK, owner, pid };
    if matches!(command, raw::F_GETLK | raw::F_OFD_GETLK) {
        match kind {
            raw::F_RDLCK | raw::F_WRLCK => report(task, &mut given, locks.conflict(&wanted)),
            // Of descriptions one may ask for any lock at all, which a lock of everybody's conflicts with.
            raw::F_UNLCK if of_description => report(task, &mut given, locks.conflict(&RecordLock { exclusive: true, ..wanted })),
            _ => return Err(Errno::EINVAL),
        }
        return task.write(address, &given).map(|()| 0);
    }
    match kind {
        raw::F_RDLCK if !file.readable() => return Err(Errno::EBADF),
        raw::F_WRLCK if !file.writable() => return Err(Errno::EBADF),
        raw::F_RDLCK | raw::F_WRLCK => {}
        raw::F_UNLCK => {
            locks.unlock_record(owner, start, last);
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL),
    }
    let waits = matches!(command, raw::F_SETLKW | raw::F_OFD_SETLKW);
    lock_record(task, file, wanted, waits)?;
    // Another thread may have closed the descriptor meanwhile, which ended all locks but this newest one.
    if !of_description && !files.get(fd).is_ok_and(|open| Arc::ptr_eq(&open, file)) {
        locks.release(owner);
        return Err(Errno::EBADF);
    }
    Ok(0)
}

fn lock_record(task: &Task, file: &File, wanted: RecordLock, waits: bool) -> Result<(), Errno> {
    let locks = &file.inode.common().locks;
    if !waits {
        return locks.lock_record(wanted);
    }
    let waited = task.block_on(&[locks.queue()], PollEvents::READ, None, || {
        locks::stop_waiting(wanted.owner);
        match locks.lock_record(wanted) {
            Err(Errno::EAGAIN) => locks.note_waiting(&wanted).err().map(Err),
            result => Some(result),
        }
    });
    locks::stop_waiting(wanted.owner);
    waited.unwrap_or(Err(Errno::ERESTARTSYS))
}

/// Fills in what `F_GETLK` answers.
fn report(task: &Task, answer: &mut Flock, found: Option<RecordLock>) {
    let Some(found) = found else {
        answer.l_type = raw::F_UNLCK as i16;
        return;
    };
    answer.l_type = if found.exclusive { raw::F_WRLCK } else { raw::F_RDLCK } as i16;
    answer.l_whence = raw::SEEK_SET as i16;
    answer.l_start = found.start as i64;
    answer.l_len = if found.last == LOCK_END { 0 } else { (found.last - found.start + 1) as i64 };
    answer.l_pid = if found.pid < 0 { found.pid } else { task.shows(found.pid) };
}
