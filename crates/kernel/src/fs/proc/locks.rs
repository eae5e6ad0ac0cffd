//! Locks of files as `/proc/locks` and `fdinfo` list them, `proc_locks(5)`.

use std::fmt::Write;
use std::sync::Arc;

use super::subject::Live;
use crate::Kernel;
use crate::namespace::pid::PidNamespace;
use crate::vfs::File;
use crate::vfs::locks::{LOCK_END, LockOwner, RecordLock, WholeLock};

/// One line behind its number: kind, holder, file, range.
fn line(file: &File, numbers: &PidNamespace, kind: &str, exclusive: bool, pid: i32, range: (u64, u64)) -> String {
    let (device, inode) = file.inode.attributes().map_or((0, 0), |attributes| (attributes.device, attributes.inode));
    let how = if exclusive { "WRITE" } else { "READ" };
    let pid = if pid < 0 { pid } else { numbers.show(pid) };
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff);
    let last = if range.1 == LOCK_END { "EOF".to_owned() } else { range.1.to_string() };
    format!("{kind} ADVISORY  {how} {pid} {major:02x}:{minor:02x}:{inode} {} {last}\n", range.0)
}

fn whole_line(file: &File, numbers: &PidNamespace, lock: &WholeLock) -> String {
    line(file, numbers, "FLOCK ", lock.exclusive, lock.pid, (0, LOCK_END))
}

fn record_line(file: &File, numbers: &PidNamespace, lock: &RecordLock) -> String {
    let kind = if matches!(lock.owner, LockOwner::Table(_)) { "POSIX " } else { "OFDLCK" };
    line(file, numbers, kind, lock.exclusive, lock.pid, (lock.start, lock.last))
}

/// What a process holds through one of its files: the lines of `fdinfo`.
pub fn of_file(live: &Live, file: &File) -> String {
    let (whole, records) = file.inode.common().locks.held();
    let description = LockOwner::description(file);
    let table = live.task.as_ref().map(|task| task.files().owner());
    let whole = whole.iter().filter(|lock| lock.owner == description).map(|lock| whole_line(file, &live.numbers, lock));
    let is_own = |lock: &&RecordLock| lock.owner == description || Some(lock.owner) == table;
    let records = records.iter().filter(is_own).map(|lock| record_line(file, &live.numbers, lock));
    whole.chain(records).fold(String::new(), |mut text, line| {
        let _ = write!(text, "lock:\t1: {line}");
        text
    })
}

/// `/proc/locks`. A lock lives as long as some process has its file open, so that open files lead to all.
pub fn all(kernel: &Arc<Kernel>, numbers: &PidNamespace) -> String {
    let mut seen: Vec<Arc<dyn crate::vfs::Inode>> = Vec::new();
    let mut lines = Vec::new();
    for task in kernel.tasks.processes().iter().filter_map(|process| process.family.lock().tasks.first().cloned()) {
        let files = task.files();
        for file in files.numbers().into_iter().filter_map(|number| files.get(number).ok()) {
            let (whole, records) = file.inode.common().locks.held();
            if whole.is_empty() && records.is_empty() || seen.iter().any(|inode| Arc::ptr_eq(inode, &file.inode)) {
                continue;
            }
            lines.extend(whole.iter().map(|lock| whole_line(&file, numbers, lock)));
            lines.extend(records.iter().map(|lock| record_line(&file, numbers, lock)));
            seen.push(Arc::clone(&file.inode));
        }
    }
    lines.iter().enumerate().fold(String::new(), |mut text, (index, line)| {
        let _ = write!(text, "{}: {line}", index + 1);
        text
    })
}
