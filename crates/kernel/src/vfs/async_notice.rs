//! `FASYNC`: a signal to a file's owner whenever its readiness changes, `fcntl(2)` under `F_SETOWN`.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytemuck::Zeroable;
use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use super::file::File;
use super::inode::FileType;
use crate::Kernel;
use crate::fs::signalfd::SignalFd;
use crate::namespace::pid::NOBODY;
use crate::signal::info_from_kernel;
use crate::task::{Credentials, Process, Task};
use crate::wait::{PollEvents, Wake};

/// What hears of urgent data: its owner gets `SIGURG` whether or not `FASYNC` is set.
struct UrgentNotice {
    kernel: Weak<Kernel>,
    owner: AtomicI32,
    setter: AtomicU64,
}

impl Wake for UrgentNotice {
    fn wake(&self, events: PollEvents) {
        if let (true, Some(kernel)) = (events.contains(PollEvents::PRI), self.kernel.upgrade()) {
            tell(&kernel, self.owner.load(Ordering::Relaxed), self.setter.load(Ordering::Relaxed), &info_from_kernel(raw::SIGURG as i32));
        }
    }
}

/// Real and effective user of who named an owner, in one word.
fn setter_of(credentials: &Credentials) -> u64 {
    u64::from(credentials.ruid) << 32 | u64::from(credentials.euid)
}

/// Whether a process may be sent signals for who named it: as if that one sent them itself, `kill(2)`.
fn may_tell(process: &Process, setter: u64) -> bool {
    let (ruid, euid) = ((setter >> 32) as u32, setter as u32);
    let Some(task) = process.family.lock().tasks.first().cloned() else { return false };
    let target = task.credentials();
    euid == 0 || [ruid, euid].iter().any(|user| *user == target.ruid || *user == target.suid)
}

/// Sends a signal to a file's owner: a process, a group by its negative number, or nobody.
fn tell(kernel: &Kernel, owner: i32, setter: u64, info: &Siginfo) {
    let processes = match owner {
        0 => return,
        group @ ..0 => kernel.tasks.processes().into_iter().filter(|process| process.family.lock().group == -group).collect(),
        pid => kernel.tasks.process(pid).into_iter().collect::<Vec<_>>(),
    };
    for process in processes.iter().filter(|process| may_tell(process, setter)) {
        crate::signal::send_to_process(process, info);
    }
}

/// What hears of readiness. It holds no file: were it to drop the last reference to one, that would happen with its queue locked.
struct Notice {
    kernel: Weak<Kernel>,
    /// Descriptor through which it was asked for, which the signal names.
    fd: i32,
    owner: AtomicI32,
    setter: AtomicU64,
    signal: AtomicI32,
}

/// A file's notice, if `FASYNC` is set, with its number on the file's queue.
#[derive(Default)]
pub struct AsyncNotice {
    notice: Mutex<Option<(u64, Arc<Notice>)>>,
    urgent: Mutex<Option<(u64, Arc<UrgentNotice>)>>,
}

/// `si_code` of readiness (`POLL_IN`, `POLL_OUT`, `POLL_ERR`, `POLL_HUP`).
fn code(events: PollEvents) -> i32 {
    if events.contains(PollEvents::HUP) {
        6
    } else if events.contains(PollEvents::ERR) {
        4
    } else if events.intersects(PollEvents::IN | PollEvents::RDNORM) {
        1
    } else {
        2
    }
}

/// What a signal about a file says: plain `SIGIO` nothing, one that `F_SETSIG` chose what happened to which descriptor.
fn readiness(signal: i32, code: i32, band: u32, fd: i32) -> Siginfo {
    if signal == 0 {
        return info_from_kernel(raw::SIGIO as i32);
    }
    let mut info = Siginfo::zeroed();
    info.si_signo = signal;
    info.si_code = code;
    info.fields[0] = u64::from(band);
    info.fields[1] = u64::from(fd as u32);
    info
}

/// Tells the owner of a file that something came up that is no readiness.
pub(super) fn send_message(kernel: &Kernel, (owner, setter): (i32, u64), signal: i32, fd: i32) {
    /// `si_code` `POLL_MSG` and its `si_band`: `POLLIN | POLLRDNORM | POLLMSG`.
    const MESSAGE: (i32, u32) = (3, 0x441);
    tell(kernel, owner, setter, &readiness(signal, MESSAGE.0, MESSAGE.1, fd));
}

impl Wake for Notice {
    fn wake(&self, events: PollEvents) {
        let Some(kernel) = self.kernel.upgrade() else { return };
        let info = readiness(self.signal.load(Ordering::Relaxed), code(events), events.bits(), self.fd);
        tell(&kernel, self.owner.load(Ordering::Relaxed), self.setter.load(Ordering::Relaxed), &info);
    }
}

impl AsyncNotice {
    /// Ends the notices of readiness.
    pub fn stop(&self, file: &File) {
        if let (Some((id, _)), Some(queue)) = (self.notice.lock().take(), file.ops.queue()) {
            queue.unregister(id);
            file.ops.watch(false);
        }
    }

    /// Ends all that was registered for a file that goes away.
    pub fn end(&self, file: &File) {
        self.stop(file);
        if let (Some((id, _)), Some(queue)) = (self.urgent.lock().take(), file.ops.queue()) {
            queue.unregister(id);
        }
    }

    /// Sends `SIGURG` to an owner from now on.
    fn watch_urgent(&self, file: &File, task: &Task) {
        let mut urgent = self.urgent.lock();
        if let (None, Some(queue)) = (&*urgent, file.ops.queue()) {
            let notice =
                Arc::new(UrgentNotice { kernel: Arc::downgrade(&task.kernel), owner: AtomicI32::new(0), setter: AtomicU64::new(0) });
            *urgent = Some((queue.register(PollEvents::PRI, notice.clone()), notice));
        }
    }
}

impl File {
    /// Tells the file's owner that its lease is in somebody's way; `fd` is the descriptor through which it was asked for.
    pub fn tell_of_message(&self, kernel: &Kernel, fd: i32) {
        let owner = (self.owner.load(Ordering::Relaxed), self.owner_setter.load(Ordering::Relaxed));
        send_message(kernel, owner, self.owner_signal.load(Ordering::Relaxed), fd);
    }

    /// `FASYNC` on or off. Files without readiness take no notice, as on Linux.
    pub fn set_async(&self, task: &Task, fd: i32, on: bool) -> Result<(), Errno> {
        self.async_notice.stop(self);
        // A signal about signals would send the next.
        let tells_of_signals = self.ops_as::<SignalFd>().is_some();
        let Some(queue) = self.ops.queue().filter(|_| on && !tells_of_signals) else { return Ok(()) };
        let notice = Arc::new(Notice {
            kernel: Arc::downgrade(&task.kernel),
            fd,
            owner: AtomicI32::new(0),
            setter: AtomicU64::new(0),
            signal: AtomicI32::new(0),
        });
        let id = queue.register(PollEvents::READ | PollEvents::WRITE, notice.clone());
        self.ops.watch(true);
        *self.async_notice.notice.lock() = Some((id, notice));
        self.owner_changed();
        Ok(())
    }

    /// `F_SETOWN`: a process, or a group by its negative number, as the task knows it; 0 for nobody.
    pub fn set_owner(&self, task: &Task, owner: i32) -> Result<(), Errno> {
        let known = task.number(owner.checked_abs().ok_or(Errno::EINVAL)?);
        if owner > 0 && !task.kernel.tasks.is_taken(known) || owner < 0 && known == NOBODY {
            return Err(Errno::ESRCH);
        }
        let owner = match owner {
            0 => 0,
            ..0 => -known,
            _ => known,
        };
        self.name_owner(&task.credentials(), owner);
        if self.inode.file_type() == FileType::Socket {
            self.async_notice.watch_urgent(self, task);
        }
        self.owner_changed();
        Ok(())
    }

    /// Notes the owner, by the kernel's number, and who named it.
    pub(super) fn name_owner(&self, credentials: &Credentials, owner: i32) {
        self.owner_setter.store(setter_of(credentials), Ordering::Relaxed);
        self.owner.store(owner, Ordering::Relaxed);
    }

    /// Owner or signal were changed.
    pub fn owner_changed(&self) {
        let owner = (self.owner.load(Ordering::Relaxed), self.owner_setter.load(Ordering::Relaxed));
        let signal = self.owner_signal.load(Ordering::Relaxed);
        if let Some((_, notice)) = &*self.async_notice.notice.lock() {
            notice.owner.store(owner.0, Ordering::Relaxed);
            notice.setter.store(owner.1, Ordering::Relaxed);
            notice.signal.store(signal, Ordering::Relaxed);
        }
        self.directory_notice.owner_changed(owner, signal);
        if let Some((_, urgent)) = &*self.async_notice.urgent.lock() {
            urgent.owner.store(owner.0, Ordering::Relaxed);
            urgent.setter.store(owner.1, Ordering::Relaxed);
        }
    }
}
