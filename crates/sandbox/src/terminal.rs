//! The caller's terminal: raw while a program has a terminal inside, and as it was afterwards.

use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Rows and columns of a terminal that has no size.
const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// Rows and columns of the caller's terminal.
pub fn size() -> (u16, u16) {
    let known = [tcgetwinsize(stdout()), tcgetwinsize(stdin())].into_iter().flatten();
    known.map(|size| (size.ws_row, size.ws_col)).find(|size| size.0 > 0 && size.1 > 0).unwrap_or(DEFAULT_SIZE)
}

/// Raw mode; dropping it restores what was before.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Switches it on if standard input is a terminal.
    pub fn enter() -> Option<Self> {
        if !isatty(stdin()) {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nobody to tell when the terminal is gone.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}
