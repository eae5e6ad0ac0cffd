//! Terminals: pseudoterminal pairs, the line discipline, job control, and the bridge between a guest's terminal and the host's.
//!
//! Lock order: the set of terminals, then one terminal's `state`, then its queues. A process's `terminal` field and its `family` are locked
//! alone; signals are sent with no terminal locked.

pub mod bridge;
mod control;
mod discipline;
mod ioctl;
mod master;
mod slave;
pub mod termios;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytemuck::Zeroable;
use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

pub use control::disassociate;

use crate::Kernel;
use crate::fs::{dev, devpts};
use crate::task::Task;
use crate::vfs::FileOps;
use crate::wait::{PollEvents, WaitQueue};
use discipline::{Discipline, Effect};
use termios::{Termios, Winsize};

/// Most terminals at a time, `/proc/sys/kernel/pty/max`: each may hold some hundred KiB of the kernel process's own memory.
const TERMINALS_LIMIT: usize = 4096;

/// All pseudoterminals by number.
#[derive(Default)]
pub struct Terminals {
    terminals: Mutex<BTreeMap<u32, Arc<Tty>>>,
}

impl Terminals {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.terminals.lock().len()
    }

    /// One by number.
    pub fn find(&self, index: u32) -> Option<Arc<Tty>> {
        self.terminals.lock().get(&index).cloned()
    }

    /// All, ascending.
    pub fn all(&self) -> Vec<Arc<Tty>> {
        self.terminals.lock().values().cloned().collect()
    }

    /// Makes a pair whose slave belongs to a user.
    pub fn create(&self, kernel: &Arc<Kernel>, uid: u32) -> Result<Arc<Tty>, Errno> {
        let mut terminals = self.terminals.lock();
        if terminals.len() >= TERMINALS_LIMIT {
            return Err(Errno::ENOSPC);
        }
        let index = (0..).find(|index| !terminals.contains_key(index)).ok_or(Errno::ENOSPC)?;
        let tty = Tty::new(Arc::downgrade(kernel), index, uid);
        terminals.insert(index, Arc::clone(&tty));
        Ok(tty)
    }

    /// Opens `/dev/ptmx`: makes a pair and answers its master.
    pub fn open_master(&self, kernel: &Arc<Kernel>, task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        let tty = self.create(kernel, task.credentials().fsuid)?;
        Ok(Arc::new(master::Master::new(tty)))
    }

    fn remove(&self, index: u32) {
        self.terminals.lock().remove(&index);
    }
}

/// A pseudoterminal: the slave that programs see, and what the master needs.
pub struct Tty {
    /// Number below `/dev/pts`.
    pub index: u32,
    kernel: Weak<Kernel>,
    /// The node in devpts.
    pub node: Arc<devpts::SlaveNode>,
    state: Mutex<State>,
    /// Readiness of the master.
    master_queue: WaitQueue,
    /// Readiness of the slave.
    slave_queue: WaitQueue,
    /// A bridge to the host is there.
    bridged: AtomicBool,
    /// That bridge holds output that the host has not taken yet.
    in_transit: AtomicBool,
}

struct State {
    termios: Termios,
    window: Winsize,
    discipline: Discipline,
    /// `TIOCPKT`: reads of the master begin with a byte that says what happened.
    packets: bool,
    /// `TIOCPKT_*` that the master has not read yet.
    packet_status: u8,
    /// `TIOCSPTLCK`: the slave cannot be opened.
    locked: bool,
    /// `TIOCEXCL`.
    exclusive: bool,
    /// The master is closed, and with it the terminal is gone.
    master_closed: bool,
    /// Open files of the slave.
    slaves: u32,
    /// Whether there ever was one.
    slave_was_open: bool,
    /// Counts hang-ups: slaves opened before the last one are dead.
    generation: u64,
    /// The session that it controls; 0 if none.
    session: i32,
    /// Its foreground group; 0 if none.
    foreground: i32,
}

impl State {
    fn new() -> Self {
        Self {
            termios: Termios::default(),
            window: Winsize::default(),
            discipline: Discipline::default(),
            packets: false,
            packet_status: 0,
            locked: true,
            exclusive: false,
            master_closed: false,
            slaves: 0,
            slave_was_open: false,
            generation: 0,
            session: 0,
            foreground: 0,
        }
    }

    /// Notes an event for a master in packet mode.
    fn note_packet(&mut self, status: u32) {
        const OPPOSITES: [(u32, u32); 2] = [(raw::TIOCPKT_STOP, raw::TIOCPKT_START), (raw::TIOCPKT_NOSTOP, raw::TIOCPKT_DOSTOP)];
        if !self.packets {
            return;
        }
        for (one, other) in OPPOSITES {
            if status & (one | other) != 0 {
                self.packet_status &= !((one | other) as u8);
            }
        }
        self.packet_status |= status as u8;
    }
}

impl Tty {
    fn new(kernel: Weak<Kernel>, index: u32, uid: u32) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            index,
            kernel,
            node: devpts::SlaveNode::new(this.clone(), index, uid),
            state: Mutex::new(State::new()),
            master_queue: WaitQueue::new(),
            slave_queue: WaitQueue::new(),
            bridged: AtomicBool::new(false),
            in_transit: AtomicBool::new(false),
        })
    }

    /// Number of the slave's device, as `st_rdev` has it.
    pub fn device_number(&self) -> u64 {
        dev::number(dev::SLAVES, self.index)
    }

    /// The foreground group; 0 if there is none.
    pub fn foreground_group(&self) -> i32 {
        self.state.lock().foreground
    }

    /// Waits, though not for ever, until a bridge has handed all output to the host: what a program showed last must not come after the news of
    /// its end. Returns at once for terminals without a bridge.
    pub fn wait_until_shown(&self) {
        /// A host that takes nothing for so long has lost interest.
        const PATIENCE: u32 = 1000;
        const PAUSE: Duration = Duration::from_millis(1);
        for _ in 0..PATIENCE {
            // In this order: what is no longer here is in transit, or was shown.
            let waits = !self.state.lock().discipline.output.is_empty();
            if !self.bridged.load(Ordering::SeqCst) || !waits && !self.in_transit.load(Ordering::SeqCst) {
                return;
            }
            crate::pause(PAUSE);
        }
    }

    /// The window's size.
    pub fn window(&self) -> Winsize {
        self.state.lock().window
    }

    /// Sets the window's size; a change is told to the foreground group.
    pub fn set_window(&self, window: Winsize) {
        let changed = {
            let mut state = self.state.lock();
            std::mem::replace(&mut state.window, window) != window
        };
        if changed {
            self.signal_foreground(raw::SIGWINCH as i32);
        }
    }

    /// Lets the slave be opened, `unlockpt(3)`.
    pub fn unlock(&self) {
        self.state.lock().locked = false;
    }

    /// Sends a signal to the foreground group.
    fn signal_foreground(&self, signal: i32) {
        let group = self.foreground_group();
        self.signal_group(group, signal);
    }

    fn signal_group(&self, group: i32, signal: i32) {
        if let (Some(kernel), 1..) = (self.kernel.upgrade(), group) {
            let mut info = Siginfo::zeroed();
            info.si_signo = signal;
            info.si_code = raw::SI_KERNEL as i32;
            // A group that is gone needs no signal.
            let _ = crate::signal::send_to_group(&kernel, group, &info);
        }
    }

    /// Types bytes, as a write to the master does; answers how many were taken.
    fn type_bytes(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut effects = Vec::new();
        let mut count = 0;
        {
            let mut state = self.state.lock();
            let State { termios, discipline, .. } = &mut *state;
            discipline.last_input_ns = crate::time::monotonic_ns();
            while count < bytes.len() && discipline.input_room(termios) > 0 {
                discipline.type_byte(termios, bytes[count], &mut effects);
                count += 1;
            }
            if termios.input(raw::IXON) {
                for effect in &effects {
                    match effect {
                        Effect::Stopped => state.note_packet(raw::TIOCPKT_STOP),
                        Effect::Started => state.note_packet(raw::TIOCPKT_START),
                        Effect::Signal(_) if !state.termios.local(raw::NOFLSH) => {
                            state.note_packet(raw::TIOCPKT_FLUSHREAD | raw::TIOCPKT_FLUSHWRITE);
                        }
                        Effect::Signal(_) => {}
                    }
                }
            }
        }
        self.slave_queue.notify(PollEvents::READ | PollEvents::WRITE);
        self.master_queue.notify(PollEvents::READ);
        for effect in effects {
            if let Effect::Signal(signal) = effect {
                self.signal_foreground(signal);
            }
        }
        if count == 0 && !bytes.is_empty() { Err(Errno::EAGAIN) } else { Ok(count) }
    }

    /// Input was consumed: the master may write again.
    fn input_consumed(&self) {
        self.master_queue.notify(PollEvents::WRITE);
    }

    /// Something is there to be shown.
    fn output_added(&self) {
        self.master_queue.notify(PollEvents::READ | PollEvents::PRI);
    }

    /// Output was consumed, or may flow again.
    fn output_consumed(&self) {
        self.slave_queue.notify(PollEvents::WRITE);
    }
}
