//! The line discipline, as terminals on Linux behave.

use cloudpilot_abi::raw;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};

use super::discipline::{Discipline, Effect};
use super::master::Master;
use super::termios::Termios;
use super::{Tty, bridge};
use crate::io::{Destination, Source};
use crate::vfs::File;
use crate::wait::PollEvents;
use cloudpilot_abi::Errno;

struct Terminal {
    discipline: Discipline,
    termios: Termios,
    effects: Vec<Effect>,
}

impl Terminal {
    fn new() -> Self {
        Self { discipline: Discipline::default(), termios: Termios::default(), effects: Vec::new() }
    }

    fn types(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.discipline.type_byte(&self.termios, *byte, &mut self.effects);
        }
    }

    fn reads(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 256];
        let count = if self.termios.canonical() { self.discipline.read_line(&mut buffer)? } else { self.discipline.read_raw(&mut buffer) };
        Some(buffer[..count].to_vec())
    }

    fn shows(&mut self) -> String {
        let bytes: Vec<u8> = self.discipline.output.drain(..).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[test]
fn a_line_is_readable_once_ended_and_is_echoed() {
    let mut terminal = Terminal::new();
    terminal.types(b"ab");
    assert_eq!(terminal.reads(), None);
    terminal.types(b"\r");
    assert_eq!(terminal.reads().as_deref(), Some(&b"ab\n"[..]));
    assert_eq!(terminal.shows(), "ab\r\n");
}

#[test]
fn end_of_file_ends_a_line_without_a_byte() {
    let mut terminal = Terminal::new();
    terminal.types(b"x\x04\x04");
    assert_eq!(terminal.reads().as_deref(), Some(&b"x"[..]));
    assert_eq!(terminal.reads().as_deref(), Some(&b""[..]));
    assert_eq!(terminal.reads(), None);
}

#[test]
fn characters_words_and_lines_are_erased() {
    let mut terminal = Terminal::new();
    terminal.types(b"abc\x7f\x7f");
    assert_eq!(terminal.shows(), "abc\x08 \x08\x08 \x08");
    terminal.types(b" de fg\x17\n");
    assert_eq!(terminal.reads().as_deref(), Some(&b"a de \n"[..]));
    terminal.types(b"gone\x15kept\n");
    assert_eq!(terminal.reads().as_deref(), Some(&b"kept\n"[..]));
}

#[test]
fn a_multibyte_character_is_erased_whole() {
    let mut terminal = Terminal::new();
    terminal.termios.c_iflag |= raw::IUTF8;
    terminal.types("aé".as_bytes());
    terminal.shows();
    terminal.types(b"\x7f\n");
    assert_eq!(terminal.shows(), "\x08 \x08\r\n");
    assert_eq!(terminal.reads().as_deref(), Some(&b"a\n"[..]));
}

#[test]
fn erasing_a_tab_goes_back_to_where_it_was_typed() {
    let mut terminal = Terminal::new();
    terminal.types(b"ab\t");
    terminal.shows();
    terminal.types(b"\x7f");
    assert_eq!(terminal.shows(), "\x08".repeat(6));
}

#[test]
fn special_characters_signal_and_flush() {
    let mut terminal = Terminal::new();
    terminal.types(b"half\x03");
    assert_eq!(terminal.effects, [Effect::Signal(raw::SIGINT as i32)]);
    assert_eq!(terminal.shows(), "^C");
    terminal.types(b"\n");
    assert_eq!(terminal.reads().as_deref(), Some(&b"\n"[..]));
}

#[test]
fn the_next_character_can_be_taken_literally() {
    let mut terminal = Terminal::new();
    terminal.types(b"\x16\x03\n");
    assert_eq!(terminal.effects, []);
    assert_eq!(terminal.shows(), "^\x08^C\r\n");
    assert_eq!(terminal.reads().as_deref(), Some(&b"\x03\n"[..]));
}

#[test]
fn output_is_stopped_and_started() {
    let mut terminal = Terminal::new();
    terminal.types(b"\x13");
    assert_eq!(terminal.discipline.output_room(), 0);
    terminal.types(b"\x11");
    assert!(terminal.discipline.output_room() > 0);
    assert_eq!(terminal.effects, [Effect::Stopped, Effect::Started]);
}

#[test]
fn raw_mode_hands_everything_through() {
    let mut terminal = Terminal::new();
    terminal.termios.c_lflag &= !(raw::ICANON | raw::ECHO | raw::ISIG);
    terminal.termios.c_iflag = 0;
    terminal.types(b"\x03\r\x7f");
    assert_eq!(terminal.reads().as_deref(), Some(&b"\x03\r\x7f"[..]));
    assert_eq!(terminal.shows(), "");
    assert_eq!(terminal.effects, []);
}

#[test]
fn a_change_of_mode_keeps_what_was_typed() {
    let mut terminal = Terminal::new();
    terminal.types(b"one\ntwo");
    let old = terminal.termios;
    terminal.termios.c_lflag &= !raw::ICANON;
    let new = terminal.termios;
    terminal.discipline.change_mode(&old, &new);
    assert_eq!(terminal.reads().as_deref(), Some(&b"one\ntwo"[..]));
}

#[test]
fn a_full_line_drops_what_is_typed_but_can_be_ended() {
    let mut terminal = Terminal::new();
    terminal.types(&[b'x'; 5000]);
    assert_eq!(terminal.discipline.input_room(&terminal.termios), 1);
    terminal.types(b"\n");
    let mut line = vec![0; 8192];
    let length = terminal.discipline.read_line(&mut line).expect("a line");
    assert_eq!(line[length - 1], b'\n');
    assert!(length <= 4096);
}

#[test]
fn output_is_processed() {
    let mut terminal = Terminal::new();
    for byte in b"a\tb\n" {
        terminal.discipline.emit(&terminal.termios, *byte);
    }
    assert_eq!(terminal.shows(), "a\tb\r\n");
    terminal.termios.c_oflag |= raw::XTABS;
    for byte in b"a\tb" {
        terminal.discipline.emit(&terminal.termios, *byte);
    }
    assert_eq!(terminal.shows(), "a       b");
}

fn pair() -> (Arc<Tty>, Arc<File>, Arc<File>) {
    let tty = Tty::new(Weak::new(), 0, 0);
    tty.unlock();
    let open = |ops| File::new(ops, tty.node.clone(), None, raw::O_RDWR);
    let (master, slave) = (open(Arc::new(Master::new(Arc::clone(&tty)))), open(tty.slave()));
    (tty, master, slave)
}

fn write(file: &File, bytes: &[u8]) -> Result<usize, Errno> {
    file.ops.write(file, &mut Source::own(bytes), 0)
}

fn read(file: &File) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 64];
    let count = file.ops.read(file, &mut Destination::own(&mut buffer), 0)?;
    buffer.truncate(count);
    Ok(buffer)
}

#[test]
fn a_pair_carries_both_ways_and_reports_readiness() {
    let (_tty, master, slave) = pair();
    assert_eq!(read(&slave), Err(Errno::EAGAIN));
    assert_eq!(read(&master), Err(Errno::EAGAIN));
    assert_eq!(write(&master, b"ls"), Ok(2));
    assert!(!slave.ops.poll(&slave).contains(PollEvents::IN));
    assert_eq!(write(&master, b"\n"), Ok(1));
    assert!(slave.ops.poll(&slave).contains(PollEvents::IN));
    assert_eq!(read(&slave).as_deref(), Ok(&b"ls\n"[..]));
    assert_eq!(write(&slave, b"a\n"), Ok(2));
    assert_eq!(read(&master).as_deref(), Ok(&b"ls\r\na\r\n"[..]));
    drop(slave);
    assert!(master.ops.poll(&master).contains(PollEvents::HUP));
    assert_eq!(read(&master), Err(Errno::EIO));
}

#[test]
fn closing_the_master_hangs_up() {
    let (tty, master, slave) = pair();
    write(&master, b"lost\n").expect("room");
    drop(master);
    // Only a kernel can be told of the hang-up; the slave finds the master closed.
    assert!(tty.state.lock().master_closed);
    assert_eq!(read(&slave).as_deref(), Ok(&b""[..]));
    assert_eq!(write(&slave, b"x"), Err(Errno::EIO));
    assert!(slave.ops.poll(&slave).contains(PollEvents::HUP));
}

#[test]
fn minimum_and_time_rule_raw_reads() {
    let (tty, master, slave) = pair();
    tty.state.lock().termios.c_lflag &= !(raw::ICANON | raw::ECHO);
    let set = |minimum: u8, time: u8| {
        let mut state = tty.state.lock();
        state.termios.c_cc[raw::VMIN as usize] = minimum;
        state.termios.c_cc[raw::VTIME as usize] = time;
    };
    set(3, 0);
    write(&master, b"ab").expect("room");
    assert_eq!(read(&slave), Err(Errno::EAGAIN));
    assert!(!slave.ops.poll(&slave).contains(PollEvents::IN));
    write(&master, b"c").expect("room");
    assert_eq!(read(&slave).as_deref(), Ok(&b"abc"[..]));
    set(0, 0);
    assert_eq!(read(&slave).as_deref(), Ok(&b""[..]));
    set(0, 2);
    assert_eq!(read(&slave), Err(Errno::EAGAIN));
    assert_eq!(slave.ops.read_deadline(&slave, 5), Some(200_000_005));
    set(9, 1);
    assert_eq!(slave.ops.read_deadline(&slave, 5), None);
    write(&master, b"d").expect("room");
    assert!(slave.ops.read_deadline(&slave, 5).is_some_and(|deadline| deadline > 5));
    std::thread::sleep(std::time::Duration::from_millis(110));
    assert_eq!(read(&slave).as_deref(), Ok(&b"d"[..]));
}

#[test]
fn packets_tell_of_stops() {
    let (tty, master, _slave) = pair();
    tty.state.lock().packets = true;
    write(&master, b"\x13").expect("room");
    assert!(master.ops.poll(&master).contains(PollEvents::PRI));
    assert_eq!(read(&master).as_deref(), Ok(&[raw::TIOCPKT_STOP as u8][..]));
    write(&master, b"x").expect("room");
    assert_eq!(read(&master).as_deref(), Ok(&[raw::TIOCPKT_DATA as u8, b'x'][..]));
}

#[test]
fn the_bridge_joins_both_sides_and_ends_with_the_last_slave() {
    let tty = Tty::new(Weak::new(), 0, 0);
    tty.unlock();
    let slave = File::new(tty.slave(), tty.node.clone(), None, raw::O_RDWR);
    let (mut host, guest) = UnixStream::pair().expect("a pair of sockets");
    let input = guest.try_clone().expect("a descriptor");
    bridge::join(tty, input.into(), guest.into()).expect("a thread");
    host.write_all(b"hi\n").expect("typed");
    let mut shown = [0; 4];
    host.read_exact(&mut shown).expect("echo");
    assert_eq!(&shown, b"hi\r\n");
    assert_eq!(read(&slave).as_deref(), Ok(&b"hi\n"[..]));
    write(&slave, b"bye\n").expect("room");
    drop(slave);
    let mut rest = Vec::new();
    host.read_to_end(&mut rest).expect("the end");
    assert_eq!(rest, b"bye\r\n");
}
