//! Terminal settings, `termios(3)`.

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::raw;

/// The kernel's `struct termios2`; its first 36 bytes are `struct termios`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[expect(missing_docs, reason = "the names are the manual page's")]
pub struct Termios {
    pub c_iflag: u32,
    pub c_oflag: u32,
    pub c_cflag: u32,
    pub c_lflag: u32,
    pub c_line: u8,
    pub c_cc: [u8; raw::NCCS as usize],
    pub c_ispeed: u32,
    pub c_ospeed: u32,
}

/// Bytes of `struct termios`.
pub const TERMIOS_SIZE: usize = 36;

/// `struct winsize`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[expect(missing_docs, reason = "the names are the manual page's")]
pub struct Winsize {
    pub ws_row: u16,
    pub ws_col: u16,
    pub ws_xpixel: u16,
    pub ws_ypixel: u16,
}

/// `struct termio`, the settings of System V.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[expect(missing_docs, reason = "the names are the manual page's")]
pub struct Termio {
    pub c_iflag: u16,
    pub c_oflag: u16,
    pub c_cflag: u16,
    pub c_lflag: u16,
    pub c_line: u8,
    pub c_cc: [u8; 8],
    pub pad: u8,
}

impl Default for Termios {
    /// What a new pty has.
    fn default() -> Self {
        let mut c_cc = [0; raw::NCCS as usize];
        let characters = [
            (raw::VINTR, 3),
            (raw::VQUIT, 28),
            (raw::VERASE, 127),
            (raw::VKILL, 21),
            (raw::VEOF, 4),
            (raw::VMIN, 1),
            (raw::VSTART, 17),
            (raw::VSTOP, 19),
            (raw::VSUSP, 26),
            (raw::VREPRINT, 18),
            (raw::VDISCARD, 15),
            (raw::VWERASE, 23),
            (raw::VLNEXT, 22),
        ];
        for (index, character) in characters {
            c_cc[index as usize] = character;
        }
        Self {
            c_iflag: raw::ICRNL | raw::IXON,
            c_oflag: raw::OPOST | raw::ONLCR,
            c_cflag: raw::B38400 | raw::CS8 | raw::CREAD,
            c_lflag: raw::ISIG | raw::ICANON | raw::ECHO | raw::ECHOE | raw::ECHOK | raw::ECHOCTL | raw::ECHOKE | raw::IEXTEN,
            c_line: 0,
            c_cc,
            c_ispeed: 38400,
            c_ospeed: 38400,
        }
    }
}

impl Termios {
    /// Whether an input flag is set.
    pub fn input(&self, flag: u32) -> bool {
        self.c_iflag & flag != 0
    }

    /// Whether an output flag is set.
    pub fn output(&self, flag: u32) -> bool {
        self.c_oflag & flag != 0
    }

    /// Whether a local flag is set.
    pub fn local(&self, flag: u32) -> bool {
        self.c_lflag & flag != 0
    }

    /// Whether `byte` is the special character at an index; 0 switches a special character off.
    pub fn is(&self, byte: u8, index: u32) -> bool {
        byte != 0 && self.c_cc[index as usize] == byte
    }

    /// Canonical mode.
    pub fn canonical(&self) -> bool {
        self.local(raw::ICANON)
    }

    /// `VMIN`.
    pub fn minimum(&self) -> usize {
        usize::from(self.c_cc[raw::VMIN as usize])
    }

    /// `VTIME` in nanoseconds.
    pub fn time_ns(&self) -> u64 {
        u64::from(self.c_cc[raw::VTIME as usize]) * 100_000_000
    }

    /// As System V has it.
    pub fn to_termio(self) -> Termio {
        let mut c_cc = [0; 8];
        c_cc.copy_from_slice(&self.c_cc[..8]);
        Termio {
            c_iflag: self.c_iflag as u16,
            c_oflag: self.c_oflag as u16,
            c_cflag: self.c_cflag as u16,
            c_lflag: self.c_lflag as u16,
            c_line: self.c_line,
            c_cc,
            pad: 0,
        }
    }

    /// With what System V's structure can say replaced.
    #[must_use]
    pub fn with_termio(mut self, termio: &Termio) -> Self {
        let replace = |old: u32, new: u16| old & 0xffff_0000 | u32::from(new);
        self.c_iflag = replace(self.c_iflag, termio.c_iflag);
        self.c_oflag = replace(self.c_oflag, termio.c_oflag);
        self.c_cflag = replace(self.c_cflag, termio.c_cflag);
        self.c_lflag = replace(self.c_lflag, termio.c_lflag);
        self.c_line = termio.c_line;
        self.c_cc[..8].copy_from_slice(&termio.c_cc);
        self
    }

    /// Fills in the speeds that a plain `struct termios` gives as codes.
    pub fn decode_speed(&mut self) {
        const SPEEDS: [u32; 16] = [0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400];
        const FAST: [u32; 16] = [
            0, 57600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000, 2_500_000,
            3_000_000, 3_500_000, 4_000_000,
        ];
        let code = self.c_cflag & raw::CBAUD;
        if code == raw::BOTHER {
            return;
        }
        let table = if code & raw::CBAUDEX != 0 { &FAST } else { &SPEEDS };
        self.c_ospeed = table[(code & 0xf) as usize];
        self.c_ispeed = self.c_ospeed;
    }
}
