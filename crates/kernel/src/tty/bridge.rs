//! Joins a guest's terminal with the host's: what is typed there goes to the master, what programs show goes back.
//!
//! One thread a terminal, asleep in the host's `poll(2)` unless bytes move; it ends when the last slave is closed and all is shown.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::{Errno, raw};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno as HostErrno;

use super::master::Master;
use super::termios::Winsize;
use crate::Kernel;
use crate::vfs::File;
use crate::wait::{PollEvents, Wake};

/// Bytes moved at once.
const PIECE: usize = 16 << 10;
/// Stack of a bridge's thread: it holds one piece.
const STACK_BYTES: usize = 128 << 10;

/// Makes a terminal, joins it with host descriptors and answers its slave, opened for reading and writing. The caller makes it the
/// controlling terminal of whom it starts ([`super::Tty::make_controlling`], found through [`terminal_of`]).
pub fn start(kernel: &Arc<Kernel>, input: OwnedFd, output: OwnedFd, rows: u16, columns: u16) -> Result<Arc<File>, Errno> {
    let tty = kernel.terminals.create(kernel, 0)?;
    tty.unlock();
    tty.set_window(Winsize { ws_row: rows, ws_col: columns, ..Winsize::default() });
    let slave = tty.slave_file(kernel, tty.slave(), raw::O_RDWR);
    join(tty, input, output)?;
    Ok(slave)
}

/// Starts the thread that joins a terminal with host descriptors.
pub(super) fn join(tty: Arc<super::Tty>, input: OwnedFd, output: OwnedFd) -> Result<(), Errno> {
    let wake = Arc::new(Bell { eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|_| Errno::EMFILE)? });
    tty.bridged.store(true, Ordering::SeqCst);
    let master = Master::new(tty);
    let waiter = master.readiness_queue().register(PollEvents::all(), wake.clone());
    let bridge = Bridge { master, wake, input: Some(input), output, typed: Vec::new(), shown: Vec::new() };
    let started = std::thread::Builder::new().name("terminal".into()).stack_size(STACK_BYTES).spawn(move || {
        let mut bridge = bridge;
        bridge.run();
        bridge.master.tty().bridged.store(false, Ordering::SeqCst);
        bridge.master.readiness_queue().unregister(waiter);
    });
    started.map(|_| ()).map_err(|_| Errno::EAGAIN)
}

/// The terminal that an open slave belongs to.
pub fn terminal_of(file: &File) -> Option<&Arc<super::Tty>> {
    file.ops_as::<super::slave::Slave>().map(super::slave::Slave::tty)
}

/// Wakes the bridge's thread out of its poll.
struct Bell {
    eventfd: OwnedFd,
}

impl Wake for Bell {
    fn wake(&self, _events: PollEvents) {
        // A full counter means that the bell rings already.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }
}

struct Bridge {
    master: Master,
    wake: Arc<Bell>,
    /// None once it ended.
    input: Option<OwnedFd>,
    output: OwnedFd,
    /// Read from the host, not yet typed.
    typed: Vec<u8>,
    /// Taken from the terminal, not yet written to the host.
    shown: Vec<u8>,
}

impl Bridge {
    fn run(&mut self) {
        loop {
            self.type_more();
            let gone = self.show_more();
            if self.shown.is_empty() && gone {
                return;
            }
            if !self.wait() {
                return;
            }
        }
    }

    /// Types what was read before, as far as the terminal takes it.
    fn type_more(&mut self) {
        while !self.typed.is_empty() {
            match self.master.type_bytes(&self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(_) => break,
            }
        }
    }

    /// Takes output; true once the terminal has no programs left.
    fn show_more(&mut self) -> bool {
        if self.shown.is_empty() {
            // Before the output leaves the terminal: whoever looks must find it in one place or the other.
            let in_transit = &self.master.tty().in_transit;
            in_transit.store(true, Ordering::SeqCst);
            let taken = self.master.take_output(PIECE);
            if !matches!(&taken, Ok(bytes) if !bytes.is_empty()) {
                in_transit.store(false, Ordering::SeqCst);
            }
            match taken {
                Ok(bytes) => self.shown = bytes,
                Err(errno) => return errno == Errno::EIO,
            }
        }
        false
    }

    /// Sleeps until something can move, and moves it between us and the host. False when the host's side is gone.
    fn wait(&mut self) -> bool {
        let nothing = PollFlags::empty();
        let reads = if self.typed.is_empty() { PollFlags::IN } else { nothing };
        let writes = if self.shown.is_empty() { nothing } else { PollFlags::OUT };
        let mut fds = vec![PollFd::new(&self.wake.eventfd, PollFlags::IN), PollFd::new(&self.output, writes)];
        if let Some(input) = &self.input
            && !reads.is_empty()
        {
            fds.push(PollFd::new(input, reads));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(HostErrno::INTR) => return true,
            Err(_) => return false,
        }
        let (rung, output, input) = (fds[0].revents(), fds[1].revents(), fds.get(2).map_or(nothing, |fd| fd.revents()));
        if rung.contains(PollFlags::IN) {
            let mut counter = [0; 8];
            let _ = rustix::io::read(&self.wake.eventfd, &mut counter);
        }
        if !input.is_empty() {
            self.read_host();
        }
        if output.contains(PollFlags::OUT) {
            return self.write_host();
        }
        !output.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
    }

    fn read_host(&mut self) {
        let mut buffer = vec![0; PIECE];
        let Some(input) = &self.input else { return };
        match rustix::io::read(input.as_fd(), &mut buffer) {
            Ok(0) => {
                // The end of a file that is typed: programs see it as `^D`.
                self.input = None;
                self.typed.push(4);
            }
            Ok(count) => self.typed.extend_from_slice(&buffer[..count]),
            Err(HostErrno::INTR | HostErrno::AGAIN) => {}
            Err(_) => self.input = None,
        }
    }

    fn write_host(&mut self) -> bool {
        match rustix::io::write(&self.output, &self.shown) {
            Ok(count) => {
                self.shown.drain(..count);
                if self.shown.is_empty() {
                    self.master.tty().in_transit.store(false, Ordering::SeqCst);
                }
                true
            }
            Err(HostErrno::INTR | HostErrno::AGAIN) => true,
            Err(_) => false,
        }
    }
}
