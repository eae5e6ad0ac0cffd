//! The master's end: what terminal emulators, `script`, `tmux` and the bridge hold.

use std::any::Any;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::Tty;
use crate::io::{Destination, Source};
use crate::task::Task;
use crate::vfs::file::{File, FileOps};
use crate::wait::{PollEvents, WaitQueue};

/// Bytes taken from a writer at once.
const PIECE: usize = 4096;

/// The master of a pair; closing it hangs the terminal up and removes it.
pub struct Master {
    tty: Arc<Tty>,
}

impl Master {
    /// The master of a new pair.
    pub fn new(tty: Arc<Tty>) -> Self {
        Self { tty }
    }

    /// The terminal.
    pub(super) fn tty(&self) -> &Tty {
        &self.tty
    }

    /// Takes up to `limit` bytes of output. `EIO` once the last slave is closed and nothing is left.
    pub fn take_output(&self, limit: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = Vec::new();
        {
            let mut state = self.tty.state.lock();
            if state.packets && limit > 0 {
                let status = std::mem::take(&mut state.packet_status);
                if status != 0 {
                    return Ok(vec![status]);
                }
                if !state.discipline.output.is_empty() {
                    bytes.push(raw::TIOCPKT_DATA as u8);
                }
            }
            let count = state.discipline.output.len().min(limit.saturating_sub(bytes.len()));
            bytes.extend(state.discipline.output.drain(..count));
            if bytes.is_empty() && limit > 0 {
                let closed = state.slave_was_open && state.slaves == 0;
                return Err(if closed { Errno::EIO } else { Errno::EAGAIN });
            }
        }
        self.tty.output_consumed();
        Ok(bytes)
    }

    /// Readiness.
    pub fn readiness(&self) -> PollEvents {
        let state = self.tty.state.lock();
        let mut events = PollEvents::empty();
        let status = state.packets && state.packet_status != 0;
        if status {
            events |= PollEvents::PRI;
        }
        if status || !state.discipline.output.is_empty() {
            events |= PollEvents::IN | PollEvents::RDNORM;
        }
        if state.discipline.input_room(&state.termios) > 0 {
            events |= PollEvents::OUT | PollEvents::WRNORM;
        }
        if state.slave_was_open && state.slaves == 0 {
            events |= PollEvents::HUP;
        }
        events
    }

    /// Types bytes.
    pub fn type_bytes(&self, bytes: &[u8]) -> Result<usize, Errno> {
        self.tty.type_bytes(bytes)
    }

    /// Where readiness is announced.
    pub fn readiness_queue(&self) -> &WaitQueue {
        &self.tty.master_queue
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.tty.state.lock().master_closed = true;
        if let Some(kernel) = self.tty.kernel.upgrade() {
            self.tty.hang_up(&kernel);
            kernel.terminals.remove(self.tty.index);
        }
    }
}

impl FileOps for Master {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        // What is taken out must reach the reader: no more than surely fits, and memory is touched only afterwards.
        let bytes = self.take_output(destination.remaining())?;
        destination.put(&bytes)
    }

    fn write(&self, _file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        let room = {
            let state = self.tty.state.lock();
            state.discipline.input_room(&state.termios)
        };
        if room == 0 && source.remaining() > 0 {
            return Err(Errno::EAGAIN);
        }
        let mut done = 0;
        while source.remaining() > 0 {
            let room = {
                let state = self.tty.state.lock();
                state.discipline.input_room(&state.termios)
            };
            if room == 0 {
                break;
            }
            let bytes = source.take_vec(PIECE.min(room))?;
            if bytes.is_empty() {
                break;
            }
            // Another writer may have filled the room meanwhile; then these bytes are lost, as on a line that is too fast.
            let _ = self.tty.type_bytes(&bytes);
            done += bytes.len();
        }
        Ok(done)
    }

    fn poll(&self, _file: &File) -> PollEvents {
        self.readiness()
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.tty.master_queue)
    }

    fn ioctl(&self, file: &File, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        super::ioctl::master(&self.tty, file, task, request, argument)
    }

    fn describe(&self, _file: &File) -> String {
        format!("tty-index:\t{}\n", self.tty.index)
    }
}
