//! Process groups and sessions, `setpgid(2)`, `setsid(2)`, `credentials(7)`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::Process;
use crate::Kernel;
use crate::signal;

/// Group and session of a process.
pub fn place(process: &Process) -> (i32, i32) {
    let family = process.family.lock();
    (family.group, family.session)
}

/// Whether no member of a group has a parent in another group of the same session: nobody is left who could continue it.
pub fn is_orphaned(kernel: &Kernel, group: i32) -> bool {
    !kernel.tasks.processes().iter().any(|process| {
        let (own_group, session, parent, dead) = {
            let family = process.family.lock();
            (family.group, family.session, family.parent.upgrade(), family.exit.is_some())
        };
        own_group == group
            && !dead
            && parent.is_some_and(|parent| {
                let (parent_group, parent_session) = place(&parent);
                !parent.is_init() && parent_group != group && parent_session == session
            })
    })
}

/// A group that has just become orphaned and holds a stopped process gets `SIGHUP` and `SIGCONT`, since nobody would ever continue it.
pub fn wake_if_orphaned(kernel: &Kernel, group: i32) {
    let stopped = |process: &Arc<Process>| {
        let family = process.family.lock();
        family.group == group && family.stopped
    };
    if kernel.tasks.processes().iter().any(stopped) && is_orphaned(kernel, group) {
        for signal in [raw::SIGHUP, raw::SIGCONT] {
            let _ = signal::send_to_group(kernel, group, &signal::info_from_kernel(signal as i32));
        }
    }
}

/// `setpgid(2)` by `caller`, in the kernel's numbers; 0 stands for the caller and for the process's own number.
pub fn set_group(kernel: &Kernel, caller: &Arc<Process>, pid: i32, group: i32) -> Result<(), Errno> {
    let process = if pid == 0 || pid == caller.pid { Arc::clone(caller) } else { kernel.tasks.process(pid).ok_or(Errno::ESRCH)? };
    let group = if group == 0 { process.pid } else { group };
    let (_, session) = place(caller);
    if !Arc::ptr_eq(&process, caller) {
        let family = process.family.lock();
        let is_child = family.parent.upgrade().is_some_and(|parent| Arc::ptr_eq(&parent, caller));
        if !is_child || family.exit.is_some() {
            return Err(Errno::ESRCH);
        }
        if family.session != session {
            return Err(Errno::EPERM);
        }
        if family.has_execed {
            return Err(Errno::EACCES);
        }
    }
    if process.pid == place(&process).1 {
        return Err(Errno::EPERM);
    }
    if group != process.pid && !kernel.tasks.processes().iter().any(|other| place(other) == (group, session)) {
        return Err(Errno::EPERM);
    }
    let old = std::mem::replace(&mut process.family.lock().group, group);
    kernel.tasks.release(&process, old);
    Ok(())
}

/// `setsid(2)`.
pub fn start(kernel: &Kernel, process: &Process) -> Result<i32, Errno> {
    let pid = process.pid;
    if kernel.tasks.processes().iter().any(|other| place(other).0 == pid) {
        return Err(Errno::EPERM);
    }
    {
        let mut family = process.family.lock();
        family.group = pid;
        family.session = pid;
    }
    *process.terminal.lock() = None;
    Ok(pid)
}
