//! Terminals: pseudoterminal pairs, the line discipline, job control, and the bridge between a guest's terminal and the host's.
//!
//! Lock order: the set of terminals, then one terminal's `state`; a process's `terminal` field is locked alone.

use std::sync::Arc;

use crate::Kernel;
use crate::task::Process;

/// All pseudoterminals.
#[derive(Default)]
pub struct Terminals {}

/// One terminal.
pub struct Tty {}

/// The leader of a session exits, or gives its terminal up (`TIOCNOTTY`): the foreground group gets `SIGHUP` and `SIGCONT`, and no process
/// of the session has the terminal any more.
pub fn disassociate(_kernel: &Arc<Kernel>, _leader: &Arc<Process>) {}

impl Tty {
    /// `vhangup(2)`.
    pub fn hang_up(&self, _kernel: &Arc<Kernel>) {}
}

impl Terminals {
    /// How many there are.
    pub fn count(&self) -> usize {
        0
    }
}

impl Tty {
    /// Number of the device, as `st_rdev` has it.
    pub fn device_number(&self) -> u64 {
        0
    }

    /// The foreground group; 0 if there is none.
    pub fn foreground_group(&self) -> i32 {
        0
    }
}
