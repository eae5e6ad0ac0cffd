//! The line discipline `n_tty`: turns what is typed into what is read, with editing, echo and special characters; and what is
//! written into what is shown.

use std::collections::VecDeque;

use cloudpilot_abi::raw;

use super::termios::Termios;

/// Most bytes that wait to be read, `N_TTY_BUF_SIZE`.
pub const INPUT_LIMIT: usize = 4096;
/// Most bytes that wait to be shown. Echo beyond it is dropped: typing into a terminal that nobody reads must not fill memory.
pub const OUTPUT_LIMIT: usize = 64 << 10;

/// What typing did besides filling buffers; done by the caller once the terminal is unlocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A signal for the foreground group.
    Signal(i32),
    /// Output stopped (`^S`).
    Stopped,
    /// Output goes on (`^Q`).
    Started,
}

/// A line that can be read.
struct Line {
    bytes: VecDeque<u8>,
    /// Ended by the end-of-file character, which is not part of it.
    end_of_file: bool,
}

/// Input and output state of one terminal.
#[derive(Default)]
pub struct Discipline {
    /// Lines that can be read, canonical mode.
    lines: VecDeque<Line>,
    /// The line being typed.
    editing: Vec<u8>,
    /// What can be read, raw mode.
    raw: VecDeque<u8>,
    /// To be shown: read by the master.
    pub output: VecDeque<u8>,
    /// Output is stopped by `^S` or `tcflow(3)`.
    pub stopped: bool,
    /// The next character is taken literally.
    literal: bool,
    /// Between `\` and `/` of `ECHOPRT`.
    erasing: bool,
    /// Cursor column.
    column: usize,
    /// Column where the line being typed starts.
    line_column: usize,
    /// When something was typed last (host's monotonic clock).
    pub last_input_ns: u64,
}

/// How to erase.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Erase {
    Character,
    Word,
    Line,
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

fn is_continuation(byte: u8, termios: &Termios) -> bool {
    termios.input(raw::IUTF8) && byte & 0xc0 == 0x80
}

impl Discipline {
    /// Bytes that a read could get.
    pub fn readable(&self, termios: &Termios) -> usize {
        if termios.canonical() { self.lines.iter().map(|line| line.bytes.len()).sum() } else { self.raw.len() }
    }

    /// Whether a read has something to answer in canonical mode, be it the end of the file.
    pub fn has_line(&self) -> bool {
        !self.lines.is_empty()
    }

    /// How many more bytes of input are taken. A full line without its end takes more, to be dropped, or it could never be ended.
    pub fn input_room(&self, termios: &Termios) -> usize {
        let used = self.lines.iter().map(|line| line.bytes.len() + usize::from(line.end_of_file)).sum::<usize>();
        let room = INPUT_LIMIT.saturating_sub(used + self.editing.len() + self.raw.len() + 1);
        if room == 0 && termios.canonical() && self.lines.is_empty() { 1 } else { room }
    }

    /// How many bytes of output are taken.
    pub fn output_room(&self) -> usize {
        if self.stopped { 0 } else { OUTPUT_LIMIT.saturating_sub(self.output.len()) }
    }

    /// Takes up to `buffer.len()` bytes out in raw mode.
    pub fn read_raw(&mut self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.raw.len());
        for (slot, byte) in buffer.iter_mut().zip(self.raw.drain(..count)) {
            *slot = byte;
        }
        count
    }

    /// Takes up to one line out in canonical mode; none if no line waits.
    pub fn read_line(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let line = self.lines.front_mut()?;
        let count = buffer.len().min(line.bytes.len());
        for (slot, byte) in buffer.iter_mut().zip(line.bytes.drain(..count)) {
            *slot = byte;
        }
        if line.bytes.is_empty() {
            self.lines.pop_front();
        }
        Some(count)
    }

    /// Drops all input.
    pub fn flush_input(&mut self) {
        self.lines.clear();
        self.editing.clear();
        self.raw.clear();
        self.literal = false;
        self.erasing = false;
    }

    /// Drops all output.
    pub fn flush_output(&mut self) {
        self.output.clear();
    }

    /// The mode changed: what was typed stays readable.
    pub fn change_mode(&mut self, old: &Termios, new: &Termios) {
        match (old.canonical(), new.canonical()) {
            (true, false) => {
                for line in self.lines.drain(..) {
                    self.raw.extend(line.bytes);
                }
                self.raw.extend(self.editing.drain(..));
                self.literal = false;
                self.erasing = false;
            }
            (false, true) if !self.raw.is_empty() => {
                let bytes = std::mem::take(&mut self.raw);
                self.lines.push_back(Line { bytes, end_of_file: false });
            }
            _ => {}
        }
        if !new.input(raw::IXON) {
            self.stopped = false;
        }
    }

    /// Takes one typed byte.
    pub fn type_byte(&mut self, termios: &Termios, byte: u8, effects: &mut Vec<Effect>) {
        let mut byte = byte;
        if termios.input(raw::ISTRIP) {
            byte &= 0x7f;
        }
        if termios.input(raw::IUCLC) && termios.local(raw::IEXTEN) {
            byte = byte.to_ascii_lowercase();
        }
        if termios.local(raw::EXTPROC) {
            self.store(termios, byte);
            return;
        }
        if std::mem::take(&mut self.literal) {
            self.echo_and_store(termios, byte);
            return;
        }
        if self.flow_control(termios, byte, effects) || self.signal(termios, byte, effects) {
            return;
        }
        match byte {
            b'\r' if termios.input(raw::IGNCR) => return,
            b'\r' if termios.input(raw::ICRNL) => byte = b'\n',
            b'\n' if termios.input(raw::INLCR) => byte = b'\r',
            _ => {}
        }
        if termios.canonical() && self.edit(termios, byte) {
            return;
        }
        self.echo_and_store(termios, byte);
    }

    fn echo_and_store(&mut self, termios: &Termios, byte: u8) {
        if termios.local(raw::ECHO) {
            self.finish_erasing(termios);
            if self.editing.is_empty() {
                self.line_column = self.column;
            }
            if byte == b'\n' { self.emit(termios, byte) } else { self.echo(termios, byte) }
        }
        if byte == 0xff && termios.input(raw::PARMRK) {
            self.store(termios, byte);
        }
        self.store(termios, byte);
    }

    fn store(&mut self, termios: &Termios, byte: u8) {
        if !termios.canonical() {
            self.raw.push_back(byte);
        } else if self.input_room(termios) > 1 {
            self.editing.push(byte);
        } else if termios.input(raw::IMAXBEL) {
            self.emit(termios, 7);
        }
    }

    fn flow_control(&mut self, termios: &Termios, byte: u8, effects: &mut Vec<Effect>) -> bool {
        if !termios.input(raw::IXON) {
            return false;
        }
        if termios.is(byte, raw::VSTART) {
            self.start(effects);
            return true;
        }
        if termios.is(byte, raw::VSTOP) {
            if !self.stopped {
                self.stopped = true;
                effects.push(Effect::Stopped);
            }
            return true;
        }
        if termios.input(raw::IXANY) {
            self.start(effects);
        }
        false
    }

    fn start(&mut self, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.stopped) {
            effects.push(Effect::Started);
        }
    }

    fn signal(&mut self, termios: &Termios, byte: u8, effects: &mut Vec<Effect>) -> bool {
        if !termios.local(raw::ISIG) {
            return false;
        }
        let signals = [(raw::VINTR, raw::SIGINT), (raw::VQUIT, raw::SIGQUIT), (raw::VSUSP, raw::SIGTSTP)];
        let Some((_, signal)) = signals.iter().find(|(index, _)| termios.is(byte, *index)) else { return false };
        if !termios.local(raw::NOFLSH) {
            self.flush_input();
            self.flush_output();
        }
        if termios.input(raw::IXON) {
            self.start(effects);
        }
        if termios.local(raw::ECHO) {
            self.echo(termios, byte);
        }
        effects.push(Effect::Signal(*signal as i32));
        true
    }

    /// Special characters of canonical mode; false for those to be stored.
    fn edit(&mut self, termios: &Termios, byte: u8) -> bool {
        let extended = termios.local(raw::IEXTEN);
        let echoes = termios.local(raw::ECHO);
        if termios.is(byte, raw::VERASE) {
            self.erase(termios, Erase::Character);
        } else if termios.is(byte, raw::VKILL) {
            self.erase(termios, Erase::Line);
        } else if termios.is(byte, raw::VWERASE) && extended {
            self.erase(termios, Erase::Word);
        } else if termios.is(byte, raw::VLNEXT) && extended {
            self.literal = true;
            if echoes {
                self.finish_erasing(termios);
                if termios.local(raw::ECHOCTL) {
                    self.emit(termios, b'^');
                    self.emit(termios, 8);
                }
            }
        } else if termios.is(byte, raw::VREPRINT) && echoes && extended {
            self.finish_erasing(termios);
            self.echo(termios, byte);
            self.emit(termios, b'\n');
            for byte in self.editing.clone() {
                self.echo(termios, byte);
            }
        } else if byte == b'\n' {
            if echoes || termios.local(raw::ECHONL) {
                self.finish_erasing(termios);
                self.emit(termios, byte);
            }
            self.end_line(Some(byte));
        } else if termios.is(byte, raw::VEOF) {
            self.end_line(None);
        } else if termios.is(byte, raw::VEOL) || termios.is(byte, raw::VEOL2) && extended {
            if echoes {
                self.finish_erasing(termios);
                self.echo(termios, byte);
            }
            self.end_line(Some(byte));
        } else {
            return false;
        }
        true
    }

    /// Makes the line being typed readable; without a last byte it was ended by the end-of-file character.
    fn end_line(&mut self, last: Option<u8>) {
        let mut bytes: VecDeque<u8> = std::mem::take(&mut self.editing).into();
        bytes.extend(last);
        self.lines.push_back(Line { bytes, end_of_file: last.is_none() });
    }

    fn erase(&mut self, termios: &Termios, kind: Erase) {
        if self.editing.is_empty() {
            return;
        }
        let echoes = termios.local(raw::ECHO);
        if kind == Erase::Line {
            if !echoes {
                self.editing.clear();
                return;
            }
            if !(termios.local(raw::ECHOK) && termios.local(raw::ECHOKE) && termios.local(raw::ECHOE)) {
                self.editing.clear();
                self.finish_erasing(termios);
                self.echo(termios, termios.c_cc[raw::VKILL as usize]);
                if termios.local(raw::ECHOK) {
                    self.emit(termios, b'\n');
                }
                return;
            }
        }
        let mut seen_word = false;
        while !self.editing.is_empty() {
            let mut start = self.editing.len() - 1;
            while start > 0 && is_continuation(self.editing[start], termios) {
                start -= 1;
            }
            let byte = self.editing[start];
            if is_continuation(byte, termios) {
                break;
            }
            if kind == Erase::Word {
                if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 {
                    seen_word = true;
                } else if seen_word {
                    break;
                }
            }
            let erased = self.editing.split_off(start);
            if echoes {
                self.echo_erased(termios, kind, &erased);
            }
            if kind == Erase::Character {
                break;
            }
        }
        if self.editing.is_empty() && echoes {
            self.finish_erasing(termios);
        }
    }

    fn echo_erased(&mut self, termios: &Termios, kind: Erase, erased: &[u8]) {
        let byte = erased[0];
        if termios.local(raw::ECHOPRT) {
            if !std::mem::replace(&mut self.erasing, true) {
                self.emit(termios, b'\\');
            }
            self.echo(termios, byte);
            for byte in &erased[1..] {
                self.emit(termios, *byte);
            }
        } else if kind == Erase::Character && !termios.local(raw::ECHOE) {
            self.echo(termios, termios.c_cc[raw::VERASE as usize]);
        } else if byte == b'\t' {
            self.erase_tab(termios);
        } else {
            let shown = if is_control(byte) { if termios.local(raw::ECHOCTL) { 2 } else { 0 } } else { 1 };
            for _ in 0..shown {
                for byte in [8, b' ', 8] {
                    self.emit(termios, byte);
                }
            }
        }
    }

    /// Goes back to where a tab was typed, from what stands before it on the line.
    fn erase_tab(&mut self, termios: &Termios) {
        let mut width = 0;
        let mut after_tab = false;
        for &byte in self.editing.iter().rev() {
            if byte == b'\t' {
                after_tab = true;
                break;
            }
            if is_control(byte) {
                width += if termios.local(raw::ECHOCTL) { 2 } else { 0 };
            } else if !is_continuation(byte, termios) {
                width += 1;
            }
        }
        if !after_tab {
            width += self.line_column;
        }
        for _ in 0..8 - (width & 7) {
            self.push_output(8);
            self.column = self.column.saturating_sub(1);
        }
    }

    fn finish_erasing(&mut self, termios: &Termios) {
        if std::mem::take(&mut self.erasing) {
            self.emit(termios, b'/');
        }
    }

    /// Shows a typed byte; control characters as `^X` with `ECHOCTL`.
    fn echo(&mut self, termios: &Termios, byte: u8) {
        if termios.local(raw::ECHOCTL) && is_control(byte) && byte != b'\t' {
            self.emit(termios, b'^');
            self.emit(termios, byte ^ 0x40);
        } else {
            self.emit(termios, byte);
        }
    }

    fn push_output(&mut self, byte: u8) {
        if self.output.len() < OUTPUT_LIMIT * 2 {
            self.output.push_back(byte);
        }
    }

    /// Puts one byte out, processed as `OPOST` says.
    pub fn emit(&mut self, termios: &Termios, byte: u8) {
        if !termios.output(raw::OPOST) {
            self.push_output(byte);
            return;
        }
        let mut byte = byte;
        match byte {
            b'\n' => {
                if termios.output(raw::ONLRET) {
                    self.column = 0;
                }
                if termios.output(raw::ONLCR) {
                    self.column = 0;
                    self.line_column = 0;
                    self.push_output(b'\r');
                } else {
                    self.line_column = self.column;
                }
            }
            b'\r' => {
                if termios.output(raw::ONOCR) && self.column == 0 {
                    return;
                }
                if termios.output(raw::OCRNL) {
                    byte = b'\n';
                    if termios.output(raw::ONLRET) {
                        self.column = 0;
                        self.line_column = 0;
                    }
                } else {
                    self.column = 0;
                    self.line_column = 0;
                }
            }
            b'\t' => {
                let spaces = 8 - (self.column & 7);
                self.column += spaces;
                if termios.c_oflag & raw::TABDLY == raw::XTABS {
                    (0..spaces).for_each(|_| self.push_output(b' '));
                    return;
                }
            }
            8 => self.column = self.column.saturating_sub(1),
            _ => {
                if !is_control(byte) {
                    if termios.output(raw::OLCUC) {
                        byte = byte.to_ascii_uppercase();
                    }
                    if !is_continuation(byte, termios) {
                        self.column += 1;
                    }
                }
            }
        }
        self.push_output(byte);
    }
}
