//! `ioctl_tty(2)`.

use std::sync::Arc;

use bytemuck::Zeroable;
use cloudpilot_abi::{Errno, raw, raw_ioctl};

use super::Tty;
use super::termios::{TERMIOS_SIZE, Termio, Termios};
use crate::task::Task;
use crate::vfs::File;
use crate::vfs::file::FileOps;
use crate::wait::PollEvents;

/// `CAP_SYS_ADMIN`.
const CAP_SYS_ADMIN: u32 = 21;

/// When new settings take effect; output of a pty drains at once, so that only flushing differs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    AfterFlush,
}

/// `ioctl` on the slave's end.
pub fn slave(tty: &Arc<Tty>, file: &File, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
    match request {
        raw_ioctl::FIONREAD => {
            let state = tty.state.lock();
            let count = state.discipline.readable(&state.termios) as i32;
            drop(state);
            put(task, argument, &count)
        }
        raw_ioctl::TIOCGPGRP if !tty.controls(task) => Err(Errno::ENOTTY),
        raw_ioctl::TIOCGSID if !tty.controls(task) => Err(Errno::ENOTTY),
        raw_ioctl::TIOCSCTTY => tty.acquire(task, argument == 1, file.readable()).map(|()| 0),
        raw_ioctl::TIOCNOTTY => tty.give_up(task).map(|()| 0),
        _ => common(tty, task, request, argument),
    }
}

/// `ioctl` on the master's end: much of it is about the slave.
pub fn master(tty: &Arc<Tty>, _file: &File, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
    match request {
        raw_ioctl::FIONREAD => put(task, argument, &(tty.state.lock().discipline.output.len() as i32)),
        raw_ioctl::TIOCGPTN => put(task, argument, &tty.index),
        raw_ioctl::TIOCSPTLCK => {
            let locked = task.read::<i32>(argument)? != 0;
            tty.state.lock().locked = locked;
            Ok(0)
        }
        raw_ioctl::TIOCGPTLCK => {
            let locked = i32::from(tty.state.lock().locked);
            put(task, argument, &locked)
        }
        raw_ioctl::TIOCPKT => {
            let on = task.read::<i32>(argument)? != 0;
            let mut state = tty.state.lock();
            if on && !state.packets {
                state.packet_status = 0;
            }
            state.packets = on;
            Ok(0)
        }
        raw_ioctl::TIOCGPKT => {
            let on = i32::from(tty.state.lock().packets);
            put(task, argument, &on)
        }
        raw_ioctl::TIOCSIG => {
            let signal = argument as i32;
            if !(1..=64).contains(&signal) {
                return Err(Errno::EINVAL);
            }
            tty.signal_foreground(signal);
            Ok(0)
        }
        raw_ioctl::TIOCGPTPEER => open_peer(tty, task, argument as u32),
        raw_ioctl::TIOCSCTTY | raw_ioctl::TIOCNOTTY => Err(Errno::ENOTTY),
        _ => common(tty, task, request, argument),
    }
}

fn put<T: bytemuck::Pod>(task: &Task, address: u64, value: &T) -> Result<usize, Errno> {
    task.write(address, value)?;
    Ok(0)
}

/// `TIOCGPTPEER`: opens the slave without its name.
fn open_peer(tty: &Arc<Tty>, task: &Arc<Task>, flags: u32) -> Result<usize, Errno> {
    let known = raw::O_ACCMODE | raw::O_NOCTTY | raw::O_NONBLOCK | raw::O_CLOEXEC;
    let ops = tty.open_slave(flags & known, task)?;
    let file = tty.slave_file(&task.kernel, ops, flags & known);
    crate::syscall::blocking::install(task, file, flags)
}

impl Tty {
    /// An open file for the slave, by its name below `/dev/pts` where that can be found.
    pub(super) fn slave_file(&self, kernel: &crate::Kernel, ops: Arc<dyn FileOps>, flags: u32) -> Arc<File> {
        let path = crate::fs::devpts::place_of(kernel, self);
        File::new(ops, self.node.clone(), path, flags)
    }
}

fn common(tty: &Arc<Tty>, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
    match request {
        raw_ioctl::TCGETS | raw_ioctl::TCGETS2 | raw_ioctl::TCGETA => get_settings(tty, task, request, argument),
        raw_ioctl::TCSETS
        | raw_ioctl::TCSETSW
        | raw_ioctl::TCSETSF
        | raw_ioctl::TCSETS2
        | raw_ioctl::TCSETSW2
        | raw_ioctl::TCSETSF2
        | raw_ioctl::TCSETA
        | raw_ioctl::TCSETAW
        | raw_ioctl::TCSETAF => {
            tty.check_foreground(task, raw::SIGTTOU)?;
            set_settings(tty, task, request, argument)
        }
        raw_ioctl::TIOCGWINSZ => put(task, argument, &tty.window()),
        raw_ioctl::TIOCSWINSZ => {
            tty.set_window(task.read(argument)?);
            Ok(0)
        }
        raw_ioctl::TIOCGPGRP => put(task, argument, &task.shows(tty.foreground_group())),
        raw_ioctl::TIOCSPGRP => {
            let group = task.read(argument)?;
            tty.set_foreground(task, group).map(|()| 0)
        }
        raw_ioctl::TIOCGSID => {
            let session = tty.state.lock().session;
            if session == 0 { Err(Errno::ENOTTY) } else { put(task, argument, &task.shows(session)) }
        }
        raw_ioctl::TIOCOUTQ => {
            // What the master has not read yet does not count: for a pty it was sent.
            put(task, argument, &0i32)
        }
        raw_ioctl::TCFLSH => flush(tty, task, argument as u32),
        raw_ioctl::TCXONC => flow(tty, task, argument as u32),
        raw_ioctl::TCSBRK | raw_ioctl::TCSBRKP | raw_ioctl::TIOCSBRK | raw_ioctl::TIOCCBRK => {
            tty.check_foreground(task, raw::SIGTTOU)?;
            Ok(0)
        }
        raw_ioctl::TIOCEXCL | raw_ioctl::TIOCNXCL => {
            tty.state.lock().exclusive = request == raw_ioctl::TIOCEXCL;
            Ok(0)
        }
        raw_ioctl::TIOCGEXCL => {
            let exclusive = i32::from(tty.state.lock().exclusive);
            put(task, argument, &exclusive)
        }
        raw_ioctl::TIOCGETD => put(task, argument, &0i32),
        raw_ioctl::TIOCSETD => match task.read::<i32>(argument)? {
            0 => Ok(0),
            _ => Err(Errno::EINVAL),
        },
        raw_ioctl::TIOCGDEV => put(task, argument, &(tty.device_number() as u32)),
        // Typing into somebody's terminal is how jailed programs used to get out.
        raw_ioctl::TIOCSTI => Err(Errno::EIO),
        raw_ioctl::TIOCCONS => Err(Errno::EPERM),
        raw_ioctl::TIOCVHANGUP => {
            if !task.credentials().has(CAP_SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            tty.hang_up(&task.kernel);
            Ok(0)
        }
        _ => Err(Errno::ENOTTY),
    }
}

fn get_settings(tty: &Tty, task: &Task, request: u32, argument: u64) -> Result<usize, Errno> {
    let termios = tty.state.lock().termios;
    match request {
        raw_ioctl::TCGETA => task.write_bytes(argument, &bytemuck::bytes_of(&termios.to_termio())[..17])?,
        raw_ioctl::TCGETS => task.write_bytes(argument, &bytemuck::bytes_of(&termios)[..TERMIOS_SIZE])?,
        _ => task.write(argument, &termios)?,
    }
    Ok(0)
}

fn set_settings(tty: &Tty, task: &Task, request: u32, argument: u64) -> Result<usize, Errno> {
    let present = tty.state.lock().termios;
    let mut wanted = match request {
        raw_ioctl::TCSETA | raw_ioctl::TCSETAW | raw_ioctl::TCSETAF => {
            let mut termio = Termio::zeroed();
            task.read_bytes(argument, &mut bytemuck::bytes_of_mut(&mut termio)[..17])?;
            present.with_termio(&termio)
        }
        raw_ioctl::TCSETS | raw_ioctl::TCSETSW | raw_ioctl::TCSETSF => {
            let mut termios = present;
            task.read_bytes(argument, &mut bytemuck::bytes_of_mut(&mut termios)[..TERMIOS_SIZE])?;
            termios
        }
        _ => task.read::<Termios>(argument)?,
    };
    wanted.decode_speed();
    // A pty has 8 bits, no parity and a receiver that is on.
    wanted.c_cflag = wanted.c_cflag & !(raw::CSIZE | raw::PARENB) | raw::CS8 | raw::CREAD;
    wanted.c_line = 0;
    let flushes = matches!(request, raw_ioctl::TCSETSF | raw_ioctl::TCSETSF2 | raw_ioctl::TCSETAF);
    apply(tty, &wanted, if flushes { When::AfterFlush } else { When::Now });
    Ok(0)
}

fn apply(tty: &Tty, wanted: &Termios, when: When) {
    {
        let mut state = tty.state.lock();
        if when == When::AfterFlush {
            state.discipline.flush_input();
        }
        let old = std::mem::replace(&mut state.termios, *wanted);
        state.discipline.change_mode(&old, wanted);
        let flows = |termios: &Termios| {
            termios.input(raw::IXON) && termios.c_cc[raw::VSTOP as usize] == 19 && termios.c_cc[raw::VSTART as usize] == 17
        };
        if flows(&old) != flows(wanted) {
            state.note_packet(if flows(wanted) { raw::TIOCPKT_DOSTOP } else { raw::TIOCPKT_NOSTOP });
        }
        if (old.c_lflag | wanted.c_lflag) & raw::EXTPROC != 0 {
            state.note_packet(raw::TIOCPKT_IOCTL);
        }
    }
    tty.slave_queue.notify(PollEvents::READ | PollEvents::WRITE);
    tty.master_queue.notify(PollEvents::READ | PollEvents::PRI | PollEvents::WRITE);
}

/// `tcflush(3)`.
fn flush(tty: &Tty, task: &Task, which: u32) -> Result<usize, Errno> {
    tty.check_foreground(task, raw::SIGTTOU)?;
    {
        let mut state = tty.state.lock();
        match which {
            raw::TCIFLUSH => state.discipline.flush_input(),
            raw::TCOFLUSH => state.discipline.flush_output(),
            raw::TCIOFLUSH => {
                state.discipline.flush_input();
                state.discipline.flush_output();
            }
            _ => return Err(Errno::EINVAL),
        }
        if which != raw::TCOFLUSH {
            state.note_packet(raw::TIOCPKT_FLUSHREAD);
        }
        if which != raw::TCIFLUSH {
            state.note_packet(raw::TIOCPKT_FLUSHWRITE);
        }
    }
    tty.input_consumed();
    tty.output_consumed();
    tty.output_added();
    Ok(0)
}

/// `tcflow(3)`.
fn flow(tty: &Tty, task: &Task, action: u32) -> Result<usize, Errno> {
    tty.check_foreground(task, raw::SIGTTOU)?;
    match action {
        raw::TCOOFF | raw::TCOON => {
            let mut state = tty.state.lock();
            state.discipline.stopped = action == raw::TCOOFF;
            state.note_packet(if action == raw::TCOOFF { raw::TIOCPKT_STOP } else { raw::TIOCPKT_START });
        }
        raw::TCIOFF | raw::TCION => {
            // Asks the other side to stop or go on by sending the character for it.
            let mut state = tty.state.lock();
            let index = if action == raw::TCIOFF { raw::VSTOP } else { raw::VSTART };
            let character = state.termios.c_cc[index as usize];
            if character != 0 {
                state.discipline.output.push_back(character);
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    tty.output_consumed();
    tty.output_added();
    Ok(0)
}
