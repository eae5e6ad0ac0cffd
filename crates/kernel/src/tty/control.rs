//! Job control: who has a terminal, who may use it, and what happens when it goes.

use std::sync::Arc;

use bytemuck::Zeroable;
use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};

use super::Tty;
use crate::Kernel;
use crate::task::session::{is_orphaned, place};
use crate::task::{Process, Task};
use crate::wait::PollEvents;

/// `CAP_SYS_ADMIN`.
const CAP_SYS_ADMIN: u32 = 21;

/// Whether a task ignores or blocks a signal.
fn turns_away(task: &Task, signal: i32) -> bool {
    const IGNORE: u64 = 1;
    let index = (signal - 1) as usize;
    task.signals.lock().mask & 1 << index != 0 || task.process.signals.lock().actions[index].handler == IGNORE
}

impl Tty {
    /// Whether the terminal controls the task's process.
    pub(super) fn controls(self: &Arc<Self>, task: &Task) -> bool {
        task.process.terminal.lock().as_ref().is_some_and(|terminal| Arc::ptr_eq(terminal, self))
    }

    /// Lets only the foreground group go on; others get `signal` (`SIGTTIN`, `SIGTTOU`), and their call is restarted when continued.
    pub(super) fn check_foreground(&self, task: &Task, signal: u32) -> Result<(), Errno> {
        let controlled = task.process.terminal.lock().as_ref().is_some_and(|terminal| std::ptr::eq(&**terminal, self));
        if !controlled {
            return Ok(());
        }
        let foreground = self.foreground_group();
        let group = place(&task.process).0;
        if foreground == 0 || group == foreground {
            return Ok(());
        }
        if turns_away(task, signal as i32) {
            return if signal == raw::SIGTTIN { Err(Errno::EIO) } else { Ok(()) };
        }
        if is_orphaned(&task.kernel, group) {
            return Err(Errno::EIO);
        }
        self.signal_group(group, signal as i32);
        Err(Errno::ERESTARTSYS)
    }

    /// Makes it the controlling terminal of a session's leader; its group comes to the foreground.
    pub fn make_controlling(self: &Arc<Self>, process: &Arc<Process>) {
        let (group, session) = place(process);
        {
            let mut state = self.state.lock();
            state.session = session;
            state.foreground = group;
        }
        *process.terminal.lock() = Some(Arc::clone(self));
    }

    /// Opening a terminal without `O_NOCTTY` makes it the controlling one, for a session leader that has none.
    pub(super) fn acquire_by_open(self: &Arc<Self>, task: &Task) {
        let (_, session) = place(&task.process);
        if session == task.process.pid && task.process.terminal.lock().is_none() && self.state.lock().session == 0 {
            self.make_controlling(&task.process);
        }
    }

    /// `TIOCSCTTY`.
    pub(super) fn acquire(self: &Arc<Self>, task: &Task, steal: bool, readable: bool) -> Result<(), Errno> {
        let (_, session) = place(&task.process);
        let leads = session == task.process.pid;
        let owner = self.state.lock().session;
        if leads && owner == session && self.controls(task) {
            return Ok(());
        }
        if !leads || task.process.terminal.lock().is_some() {
            return Err(Errno::EPERM);
        }
        let privileged = task.credentials().has(CAP_SYS_ADMIN);
        if owner != 0 {
            if !(steal && privileged) {
                return Err(Errno::EPERM);
            }
            self.leave_processes(&task.kernel, owner);
        }
        if !readable && !privileged {
            return Err(Errno::EPERM);
        }
        self.make_controlling(&task.process);
        Ok(())
    }

    /// `TIOCNOTTY`.
    pub(super) fn give_up(self: &Arc<Self>, task: &Task) -> Result<(), Errno> {
        if !self.controls(task) {
            return Err(Errno::ENOTTY);
        }
        let (_, session) = place(&task.process);
        if session == task.process.pid {
            let foreground = self.foreground_group();
            self.signal_group(foreground, raw::SIGHUP as i32);
            self.signal_group(foreground, raw::SIGCONT as i32);
            self.end_session(&task.kernel);
        }
        *task.process.terminal.lock() = None;
        Ok(())
    }

    /// `TIOCSPGRP`; the group is one as the task knows it.
    pub(super) fn set_foreground(self: &Arc<Self>, task: &Task, group: i32) -> Result<(), Errno> {
        match self.check_foreground(task, raw::SIGTTOU) {
            Err(Errno::EIO) => return Err(Errno::ENOTTY),
            result => result?,
        }
        let (_, session) = place(&task.process);
        if !self.controls(task) || self.state.lock().session != session {
            return Err(Errno::ENOTTY);
        }
        if group < 0 {
            return Err(Errno::EINVAL);
        }
        let group = task.number(group);
        let members: Vec<i32> = task
            .kernel
            .tasks
            .processes()
            .iter()
            .map(|process| place(process))
            .filter(|place| place.0 == group)
            .map(|place| place.1)
            .collect();
        match members.first() {
            None => Err(Errno::ESRCH),
            Some(other) if *other != session => Err(Errno::EPERM),
            Some(_) => {
                self.state.lock().foreground = group;
                Ok(())
            }
        }
    }

    /// No process of a session has this terminal any more.
    fn leave_processes(&self, kernel: &Kernel, session: i32) {
        for process in kernel.tasks.processes() {
            if place(&process).1 != session {
                continue;
            }
            let mut terminal = process.terminal.lock();
            if terminal.as_ref().is_some_and(|terminal| std::ptr::eq(&**terminal, self)) {
                *terminal = None;
            }
        }
    }

    fn end_session(&self, kernel: &Kernel) {
        let session = {
            let mut state = self.state.lock();
            state.foreground = 0;
            std::mem::take(&mut state.session)
        };
        if session != 0 {
            self.leave_processes(kernel, session);
        }
    }

    /// Hangs up: open slaves are dead, the session loses its terminal, its leader and the foreground group hear of it.
    pub fn hang_up(&self, kernel: &Kernel) {
        let (session, foreground) = {
            let mut state = self.state.lock();
            state.generation += 1;
            state.discipline.flush_input();
            (state.session, state.foreground)
        };
        if session != 0
            && let Some(leader) = kernel.tasks.process(session)
        {
            for signal in [raw::SIGHUP, raw::SIGCONT] {
                let mut info = Siginfo::zeroed();
                info.si_signo = signal as i32;
                info.si_code = raw::SI_KERNEL as i32;
                crate::signal::send_to_process(&leader, &info);
            }
        }
        if foreground != session {
            self.signal_group(foreground, raw::SIGHUP as i32);
            self.signal_group(foreground, raw::SIGCONT as i32);
        }
        self.end_session(kernel);
        self.slave_queue.notify(PollEvents::all());
        self.master_queue.notify(PollEvents::all());
    }
}

/// The leader of a session exits: its terminal is hung up, so that the foreground group gets `SIGHUP` and `SIGCONT` and no process of the session
/// has the terminal any more. Does nothing for processes that lead no session.
pub fn disassociate(kernel: &Arc<Kernel>, leader: &Arc<Process>) {
    let terminal = leader.terminal.lock().take();
    if let Some(terminal) = terminal
        && place(leader).1 == leader.pid
    {
        terminal.hang_up(kernel);
    }
}
