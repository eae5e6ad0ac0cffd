//! `signalfd(2)`: pending signals that are read instead of delivered.

use std::any::Any;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use crate::io::Destination;
use crate::signal::{self, SignalSet};
use crate::task::{Process, Task};
use crate::vfs::anonymous;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::FileType;
use crate::wait::{PollEvents, WaitQueue};

/// `struct signalfd_siginfo`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Record {
    signo: u32,
    errno: i32,
    code: i32,
    pid: u32,
    uid: u32,
    fd: i32,
    tid: u32,
    band: u32,
    overrun: u32,
    trapno: u32,
    status: i32,
    int: i32,
    ptr: u64,
    utime: u64,
    stime: u64,
    addr: u64,
    pad: [u32; 12],
}

/// Signals by descriptor. Readiness is that of the process that made it; a read takes from whoever reads.
pub struct SignalFd {
    set: Mutex<SignalSet>,
    process: Arc<Process>,
}

/// A new signalfd; `flags` may hold `O_NONBLOCK`.
pub fn open(task: &Task, set: SignalSet, flags: u32) -> Arc<File> {
    let ops = SignalFd { set: Mutex::new(set), process: Arc::clone(&task.process) };
    anonymous::open("anon_inode:[signalfd]", FileType::Anonymous, Arc::new(ops), raw::O_RDWR | flags & raw::O_NONBLOCK)
}

/// Changes the signals of an existing one; `EINVAL` if the file is none.
pub fn change(file: &File, set: SignalSet) -> Result<(), Errno> {
    let signalfd = file.ops_as::<SignalFd>().ok_or(Errno::EINVAL)?;
    *signalfd.set.lock() = set;
    signalfd.process.signal_arrivals.notify(PollEvents::IN | PollEvents::RDNORM);
    Ok(())
}

/// `si_code` of `sigqueue(3)`.
const SI_QUEUE: i32 = -1;
/// Of a POSIX timer.
const SI_TIMER: i32 = -2;

/// A signal as a record; which part of the union counts depends on code and number.
fn record(info: &Siginfo) -> Record {
    let mut record = Record { signo: info.si_signo as u32, errno: info.si_errno, code: info.si_code, ..Record::zeroed() };
    let fields = &info.fields;
    let (low, high) = (fields[0] as u32, (fields[0] >> 32) as u32);
    match (info.si_code, info.si_signo as u32) {
        (SI_TIMER, _) => {
            (record.tid, record.overrun) = (low, high);
            (record.int, record.ptr) = (fields[1] as i32, fields[1]);
        }
        (1.., raw::SIGCHLD) => {
            (record.pid, record.uid) = (low, high);
            record.status = fields[1] as i32;
            (record.utime, record.stime) = (fields[2], fields[3]);
        }
        (1.., raw::SIGSEGV | raw::SIGBUS | raw::SIGILL | raw::SIGFPE | raw::SIGTRAP) => record.addr = fields[0],
        (1.., raw::SIGIO) => (record.band, record.fd) = (low, fields[1] as i32),
        (SI_QUEUE, _) => {
            (record.pid, record.uid) = (low, high);
            (record.int, record.ptr) = (fields[1] as i32, fields[1]);
        }
        _ => (record.pid, record.uid) = (low, high),
    }
    record
}

impl FileOps for SignalFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        if destination.remaining() < size_of::<Record>() {
            return Err(Errno::EINVAL);
        }
        let task = destination.task().ok_or(Errno::EINVAL)?;
        let set = *self.set.lock();
        let mut count = 0;
        while destination.remaining() >= size_of::<Record>() {
            let Some(info) = signal::take_pending(task, set) else { break };
            count += destination.put(bytemuck::bytes_of(&record(&info)))?;
        }
        if count == 0 { Err(Errno::EAGAIN) } else { Ok(count) }
    }

    fn poll(&self, _file: &File) -> PollEvents {
        let set = *self.set.lock();
        let tasks = self.process.family.lock().tasks.clone();
        if tasks.iter().any(|task| signal::is_pending(task, set)) { PollEvents::IN | PollEvents::RDNORM } else { PollEvents::empty() }
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.process.signal_arrivals)
    }

    fn describe(&self, _file: &File) -> String {
        format!("sigmask:\t{:016x}\n", *self.set.lock())
    }
}
