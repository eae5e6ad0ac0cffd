//! The slave's end: the terminal that programs see.

use std::any::Any;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::Tty;
use crate::io::{Destination, Source};
use crate::task::Task;
use crate::vfs::file::{File, FileOps};
use crate::wait::{PollEvents, WaitQueue};

/// Bytes moved at once between a program and the terminal.
const PIECE: usize = 4096;

/// `CAP_SYS_ADMIN`.
const CAP_SYS_ADMIN: u32 = 21;

/// An open slave.
pub struct Slave {
    tty: Arc<Tty>,
    /// The terminal's generation when it was opened.
    generation: u64,
}

impl Tty {
    /// Opens the slave for a task.
    pub fn open_slave(self: &Arc<Self>, flags: u32, task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        {
            let state = self.state.lock();
            if state.locked || state.master_closed {
                return Err(Errno::EIO);
            }
            if state.exclusive && !task.credentials().has(CAP_SYS_ADMIN) {
                return Err(Errno::EBUSY);
            }
        }
        let slave = self.slave();
        if flags & (raw::O_NOCTTY | raw::O_PATH) == 0 {
            self.acquire_by_open(task);
        }
        Ok(slave)
    }

    /// Opens the slave without asking.
    pub fn slave(self: &Arc<Self>) -> Arc<dyn FileOps> {
        let mut state = self.state.lock();
        state.slaves += 1;
        state.slave_was_open = true;
        Arc::new(Slave { tty: Arc::clone(self), generation: state.generation })
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        let last = {
            let mut state = self.tty.state.lock();
            state.slaves -= 1;
            if state.slaves == 0 {
                state.exclusive = false;
            }
            state.slaves == 0
        };
        if last {
            self.tty.master_queue.notify(PollEvents::HUP | PollEvents::READ);
        }
    }
}

impl Slave {
    /// The terminal.
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }

    /// Whether the terminal was hung up since this was opened.
    pub fn is_hung_up(&self) -> bool {
        let state = self.tty.state.lock();
        state.generation != self.generation || state.master_closed
    }

    /// Takes input out, up to the buffer's length.
    fn take_input(&self, file: &File, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut state = self.tty.state.lock();
        let termios = state.termios;
        if termios.canonical() {
            return state.discipline.read_line(buffer).ok_or(Errno::EAGAIN);
        }
        let available = state.discipline.readable(&termios);
        let (minimum, time) = (termios.minimum(), termios.time_ns());
        let enough = match (minimum, time) {
            (0, 0) => true,
            (0, _) => available > 0,
            // What is there is taken at once from a file that does not block.
            _ if file.nonblocking() => available > 0,
            (_, 0) => available >= minimum.min(buffer.len()),
            (_, time) => {
                let waited = crate::time::monotonic_ns().saturating_sub(state.discipline.last_input_ns);
                available >= minimum.min(buffer.len()) || available > 0 && waited >= time
            }
        };
        if enough { Ok(state.discipline.read_raw(buffer)) } else { Err(Errno::EAGAIN) }
    }
}

impl FileOps for Slave {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &File, destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        if self.is_hung_up() {
            return Ok(0);
        }
        if let Some(task) = destination.task() {
            self.tty.check_foreground(task, raw::SIGTTIN)?;
        }
        if destination.remaining() == 0 {
            return Ok(0);
        }
        let mut buffer = [0; PIECE];
        let wanted = destination.remaining().min(PIECE);
        let count = self.take_input(file, &mut buffer[..wanted])?;
        self.tty.input_consumed();
        destination.put(&buffer[..count])
    }

    fn write(&self, _file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        if self.is_hung_up() {
            return Err(Errno::EIO);
        }
        if let Some(task) = source.task()
            && self.tty.state.lock().termios.local(raw::TOSTOP)
        {
            self.tty.check_foreground(task, raw::SIGTTOU)?;
        }
        let mut done = 0;
        while source.remaining() > 0 {
            // Each byte may become eight (a tab); the limit is soft by that much.
            let room = self.tty.state.lock().discipline.output_room();
            if room == 0 {
                if done == 0 {
                    return Err(Errno::EAGAIN);
                }
                break;
            }
            let bytes = match source.take_vec(PIECE.min(room)) {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => bytes,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            };
            let mut state = self.tty.state.lock();
            let termios = state.termios;
            for byte in &bytes {
                state.discipline.emit(&termios, *byte);
            }
            done += bytes.len();
        }
        self.tty.output_added();
        Ok(done)
    }

    fn read_deadline(&self, _file: &File, started: u64) -> Option<u64> {
        let state = self.tty.state.lock();
        if state.termios.canonical() || state.termios.time_ns() == 0 {
            return None;
        }
        let time = state.termios.time_ns();
        match state.termios.minimum() {
            0 => Some(started + time),
            _ if state.discipline.readable(&state.termios) > 0 => Some(state.discipline.last_input_ns + time),
            _ => None,
        }
    }

    fn poll(&self, _file: &File) -> PollEvents {
        let readable = PollEvents::IN | PollEvents::RDNORM;
        let writable = PollEvents::OUT | PollEvents::WRNORM;
        if self.is_hung_up() {
            return readable | writable | PollEvents::ERR | PollEvents::HUP;
        }
        let state = self.tty.state.lock();
        let mut events = PollEvents::empty();
        let ready = if state.termios.canonical() {
            state.discipline.has_line()
        } else {
            let minimum = if state.termios.time_ns() == 0 { state.termios.minimum().max(1) } else { 1 };
            state.discipline.readable(&state.termios) >= minimum
        };
        if ready {
            events |= readable;
        }
        if state.discipline.output_room() > 0 {
            events |= writable;
        }
        events
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.tty.slave_queue)
    }

    fn ioctl(&self, file: &File, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        if self.is_hung_up() {
            return Err(Errno::EIO);
        }
        super::ioctl::slave(&self.tty, file, task, request, argument)
    }
}
