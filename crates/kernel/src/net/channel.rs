//! One direction of a connection: bytes or packets on their way from one socket to another.

use std::collections::VecDeque;
use std::sync::Arc;

use cloudpilot_abi::Errno;
use parking_lot::Mutex;

use super::message::Credentials;
use super::rights::Rights;
use super::urgent::Urgent;
use super::{Endpoint, budget};
use crate::io::{Destination, Source};
use crate::vfs::file::File;

/// Smallest and largest piece of memory for bytes of a stream.
const CHUNK: std::ops::RangeInclusive<usize> = 4096..=64 << 10;

/// What a piece of a stream or a packet counts for beside its bytes: many small ones would take more memory than their bytes tell. Less than
/// Linux's own, so that no program finds less room than there.
const SEGMENT_WEIGHT: usize = 256;

/// Bytes with one sender and one set of files.
struct Segment {
    bytes: Vec<u8>,
    start: usize,
    sender: Credentials,
    rights: Option<Rights>,
}

struct State {
    segments: VecDeque<Segment>,
    bytes: usize,
    capacity: usize,
    /// The writer will write no more.
    writer_done: bool,
    /// The reader takes no more.
    reader_done: bool,
    /// The reader wants no more: it reads the end once it has read what is there, though the writer may go on.
    end_early: bool,
    /// The writer was told that there is no room.
    starved: bool,
    /// The connection was broken off.
    reset: bool,
    urgent: Urgent,
}

/// One direction of a connection.
pub struct Channel {
    state: Mutex<State>,
    reader: Arc<Endpoint>,
    writer: Arc<Endpoint>,
    packets: bool,
}

/// What a look at a channel shows.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Bytes that wait, and whether there is anything (packets may be empty).
    pub bytes: usize,
    /// Something to read.
    pub readable: bool,
    /// Room for writers to be told of.
    pub room: bool,
    /// The writer will write no more.
    pub writer_done: bool,
    /// The reader takes no more.
    pub reader_done: bool,
    /// The reader wants no more.
    pub end_early: bool,
    /// The connection was broken off.
    pub reset: bool,
    /// An urgent byte waits.
    pub urgent: bool,
}

/// What a read took.
#[derive(Default)]
pub struct Taken {
    /// Bytes stored.
    pub count: usize,
    /// Length of the packet; `count` for streams.
    pub length: usize,
    /// Files that came along.
    pub files: Vec<Arc<File>>,
    /// Who sent it; none at the end.
    pub sender: Option<Credentials>,
}

impl State {
    /// What all that waits counts for.
    fn weight(&self) -> usize {
        self.bytes + self.segments.len() * SEGMENT_WEIGHT
    }

    /// Throws the next byte away.
    fn skip_byte(&mut self) {
        let Some(segment) = self.segments.front_mut() else { return };
        segment.start += 1;
        self.bytes -= 1;
        budget::release(1);
        self.urgent.advance(1);
        // Files that came with it go along: nobody can receive them any more.
        if segment.start == segment.bytes.len() {
            self.segments.pop_front();
        }
    }

    /// Writers are woken once a third is free, not for each byte.
    fn has_room(&self) -> bool {
        self.capacity.saturating_sub(self.weight()) * 3 >= self.capacity
    }
}

impl Channel {
    /// An empty channel.
    pub fn new(reader: &Arc<Endpoint>, writer: &Arc<Endpoint>, packets: bool, capacity: usize) -> Arc<Self> {
        let state = State {
            segments: VecDeque::new(),
            bytes: 0,
            capacity,
            writer_done: false,
            reader_done: false,
            end_early: false,
            starved: false,
            reset: false,
            urgent: Urgent::default(),
        };
        Arc::new(Self { state: Mutex::new(state), reader: Arc::clone(reader), writer: Arc::clone(writer), packets })
    }

    /// Writes what fits of a stream, or a whole packet. Files go along with the first byte.
    pub fn write(&self, source: &mut Source<'_>, sender: Credentials, rights: &mut Option<Rights>) -> Result<usize, Errno> {
        let mut state = self.state.lock();
        if state.writer_done || state.reader_done {
            return Err(Errno::EPIPE);
        }
        let count =
            if self.packets { put_packet(&mut state, source, sender, rights)? } else { put_bytes(&mut state, source, sender, rights)? };
        drop(state);
        if count > 0 || self.packets {
            self.reader.readable();
        }
        Ok(count)
    }

    /// Reads what is there, or with `peek` looks at what comes after so many bytes; `by_sender` stops where the sender changes.
    pub fn read(&self, destination: &mut Destination<'_>, peek: Option<usize>, by_sender: bool) -> Result<Taken, Errno> {
        let mut state = self.state.lock();
        if state.urgent.skips_next() && !state.segments.is_empty() {
            state.skip_byte();
        }
        let nothing = state.segments.is_empty() || peek.is_some_and(|skip| skip > 0 && skip >= state.bytes);
        if nothing {
            let ended = state.writer_done || state.reader_done || state.end_early;
            drop(state);
            return match self.reader.take_error() {
                Some(errno) => Err(errno),
                None if ended => Ok(Taken::default()),
                None => Err(Errno::EAGAIN),
            };
        }
        let most = state.urgent.limit();
        let (taken, done) = if self.packets {
            take_packet(&mut state, destination, peek)?
        } else {
            take_bytes(&mut state, destination, peek, by_sender, most)?
        };
        if peek.is_none() && !self.packets {
            state.urgent.advance(taken.count);
        }
        let room = state.starved && state.has_room();
        if room {
            state.starved = false;
        }
        drop(state);
        drop(done);
        if room {
            self.writer.writable();
        }
        Ok(taken)
    }

    /// Throws up to `length` bytes away (`MSG_TRUNC` on a TCP socket).
    pub fn skip(&self, length: usize) -> Result<usize, Errno> {
        let mut scratch = vec![0; length.min(*CHUNK.end())];
        self.read(&mut Destination::own(&mut scratch), None, false).map(|taken| taken.count)
    }

    /// How many of up to `most` bytes are there after the first `skip`.
    pub fn measure(&self, skip: usize, most: usize) -> Result<usize, Errno> {
        // One byte is looked at for the errors of a read.
        self.read(&mut Destination::own(&mut [0]), Some(skip), false)?;
        Ok(self.length().saturating_sub(skip).min(most))
    }

    /// Leaves an error for the reader, after what is there.
    pub fn reset_reader(&self, errno: Errno) {
        self.state.lock().reset = true;
        self.reader.set_error(errno);
    }

    /// The writer will write no more.
    pub fn finish(&self) {
        self.state.lock().writer_done = true;
        self.reader.hung_up();
        self.writer.hung_up();
    }

    /// The reader takes no more; what is there can still be read.
    pub fn refuse(&self) {
        self.state.lock().reader_done = true;
        self.writer.hung_up();
        self.reader.hung_up();
    }

    /// The reader wants no more, but the writer need not know.
    pub fn end_early(&self) {
        self.state.lock().end_early = true;
        self.reader.hung_up();
    }

    /// The reader is gone. Answers whether something was left unread.
    pub fn abandon(&self) -> bool {
        let mut state = self.state.lock();
        state.reader_done = true;
        let left = std::mem::take(&mut state.segments);
        budget::release(std::mem::take(&mut state.bytes));
        drop(state);
        let unread = !left.is_empty();
        drop(left);
        self.writer.hung_up();
        unread
    }

    /// Changes how much fits.
    pub fn set_capacity(&self, capacity: usize) {
        self.state.lock().capacity = capacity;
        self.writer.writable();
    }

    /// A look. `for_writer`: a writer who finds no room wants to be told of it.
    pub fn status(&self, for_writer: bool) -> Status {
        let mut state = self.state.lock();
        let room = state.has_room();
        state.starved |= for_writer && !room;
        Status {
            bytes: state.bytes,
            readable: !(state.segments.is_empty() || state.bytes == 1 && state.urgent.skips_next()),
            room,
            writer_done: state.writer_done,
            reader_done: state.reader_done,
            end_early: state.end_early,
            reset: state.reset,
            urgent: state.urgent.waits(),
        }
    }

    /// Bytes that wait, of all packets, up to an urgent one (`FIONREAD`).
    pub fn length(&self) -> usize {
        let state = self.state.lock();
        state.urgent.readable(state.bytes)
    }

    /// Writes what fits of a stream; its last byte is urgent.
    pub fn write_urgent(&self, source: &mut Source<'_>, sender: Credentials, rights: &mut Option<Rights>) -> Result<usize, Errno> {
        let count = self.write(source, sender, rights)?;
        let mut state = self.state.lock();
        let last = state.segments.back().and_then(|segment| segment.bytes.last().copied());
        if let (1.., Some(byte)) = (count, last) {
            let waiting = state.bytes;
            if state.urgent.mark(waiting, byte) {
                state.skip_byte();
            }
        }
        drop(state);
        self.reader.urgent();
        Ok(count)
    }

    /// Receives an urgent byte ahead of all others; `EINVAL` if there is none.
    pub fn read_urgent(&self, destination: &mut Destination<'_>, peek: bool) -> Result<usize, Errno> {
        let byte = self.state.lock().urgent.take(peek).ok_or(Errno::EINVAL)?;
        destination.put(&[byte])
    }

    /// Whether the next byte to be read is an urgent one (`SIOCATMARK`).
    pub fn at_mark(&self) -> bool {
        self.state.lock().urgent.at_mark()
    }

    /// `SO_OOBINLINE` of the reader.
    pub fn set_inline(&self, inline: bool) {
        self.state.lock().urgent.set_inline(inline);
    }

    /// Shows the files that wait.
    pub fn visit_held(&self, visit: &mut dyn FnMut(&Arc<File>)) {
        let state = self.state.lock();
        state.segments.iter().filter_map(|segment| segment.rights.as_ref()).flat_map(Rights::files).for_each(visit);
    }

    /// Takes the files out of the messages.
    pub fn discard_held(&self) -> Vec<Rights> {
        self.state.lock().segments.iter_mut().filter_map(|segment| segment.rights.take()).collect()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        budget::release(self.state.get_mut().bytes);
    }
}

/// Appends up to `length` bytes of `source`; short when the guest's memory ends early.
fn append(bytes: &mut Vec<u8>, source: &mut Source<'_>, length: usize) -> Result<usize, Errno> {
    let mut count = 0;
    while count < length {
        let more = source.with_slices(length - count, |slices| {
            slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        });
        match more {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(_) if count > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(count)
}

fn put_packet(state: &mut State, source: &mut Source<'_>, sender: Credentials, rights: &mut Option<Rights>) -> Result<usize, Errno> {
    let length = source.remaining();
    if length > state.capacity {
        return Err(Errno::EMSGSIZE);
    }
    let empty = state.segments.is_empty();
    if !empty && state.weight() + SEGMENT_WEIGHT + length > state.capacity || budget::grant(length, empty) < length {
        state.starved = true;
        return Err(Errno::EAGAIN);
    }
    let bytes = source.take_vec(length)?;
    if bytes.len() < length {
        return Err(Errno::EFAULT);
    }
    budget::charge(length);
    state.bytes += length;
    state.segments.push_back(Segment { bytes, start: 0, sender, rights: rights.take() });
    Ok(length)
}

fn put_bytes(state: &mut State, source: &mut Source<'_>, sender: Credentials, rights: &mut Option<Rights>) -> Result<usize, Errno> {
    let wanted = source.remaining();
    if wanted == 0 {
        return Ok(0);
    }
    let room = state.capacity.saturating_sub(state.weight()).min(wanted);
    let granted = budget::grant(room, state.segments.is_empty());
    if granted == 0 {
        state.starved = true;
        return Err(Errno::EAGAIN);
    }
    let mut total = 0;
    while total < granted {
        let goes_on = rights.is_none()
            && state
                .segments
                .back()
                .is_some_and(|last| last.rights.is_none() && last.sender == sender && last.bytes.len() < last.bytes.capacity());
        if !goes_on {
            // Spare room is for those who can use it: the next write of the same sender.
            let alone = rights.is_some() || state.segments.back().is_some_and(|last| last.sender != sender);
            let size = if alone { granted - total } else { (granted - total).max(*CHUNK.start()) }.min(*CHUNK.end());
            state.segments.push_back(Segment { bytes: Vec::with_capacity(size), start: 0, sender, rights: None });
        }
        let Some(last) = state.segments.back_mut() else { break };
        let space = last.bytes.capacity() - last.bytes.len();
        let result = append(&mut last.bytes, source, space.min(granted - total));
        let nothing = last.bytes.is_empty();
        if let Ok(1..) = result {
            last.rights = last.rights.take().or_else(|| rights.take());
        }
        if nothing {
            state.segments.pop_back();
        }
        match result {
            Ok(0) => break,
            Ok(count) => {
                budget::charge(count);
                state.bytes += count;
                total += count;
            }
            Err(_) if total > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(total)
}

fn take_packet(state: &mut State, destination: &mut Destination<'_>, peek: Option<usize>) -> Result<(Taken, Vec<Segment>), Errno> {
    let mut skip = peek.unwrap_or(0);
    let mut packets = state.segments.iter_mut();
    let segment = loop {
        let segment = packets.next().ok_or(Errno::EAGAIN)?;
        if skip == 0 || skip < segment.bytes.len() {
            break segment;
        }
        skip -= segment.bytes.len();
    };
    let (length, sender) = (segment.bytes.len() - skip, Some(segment.sender));
    let count = destination.put(&segment.bytes[skip..])?;
    let files = files_of(segment, peek.is_some());
    let mut done = Vec::new();
    if peek.is_none() {
        budget::release(length);
        state.bytes -= length;
        done.extend(state.segments.pop_front());
    }
    Ok((Taken { count, length, files, sender }, done))
}

fn files_of(segment: &mut Segment, peek: bool) -> Vec<Arc<File>> {
    if peek {
        segment.rights.as_ref().map_or_else(Vec::new, |rights| rights.files().to_vec())
    } else {
        segment.rights.take().map_or_else(Vec::new, Rights::take)
    }
}

/// Takes up to `most` bytes.
fn take_bytes(
    state: &mut State,
    destination: &mut Destination<'_>,
    peek: Option<usize>,
    by_sender: bool,
    most: usize,
) -> Result<(Taken, Vec<Segment>), Errno> {
    let mut taken = Taken::default();
    let mut done = Vec::new();
    let mut index = 0;
    let mut skip = peek.unwrap_or(0);
    while destination.remaining() > 0 && taken.count < most {
        let Some(segment) = state.segments.get_mut(index) else { break };
        let length = segment.bytes.len() - segment.start;
        if skip >= length {
            skip -= length;
            index += 1;
            continue;
        }
        if by_sender && taken.sender.is_some_and(|sender| sender != segment.sender) {
            break;
        }
        let start = segment.start + skip;
        skip = 0;
        let end = segment.bytes.len().min(start.saturating_add(most - taken.count));
        let count = match destination.put(&segment.bytes[start..end]) {
            Ok(count) => count,
            Err(_) if taken.count > 0 => break,
            Err(errno) => return Err(errno),
        };
        taken.sender = Some(segment.sender);
        taken.count += count;
        let had_files = segment.rights.is_some();
        taken.files = files_of(segment, peek.is_some());
        if peek.is_some() {
            index += 1;
        } else {
            segment.start += count;
            budget::release(count);
            state.bytes -= count;
            if segment.start == segment.bytes.len() {
                done.extend(state.segments.pop_front());
            }
        }
        // One message's files at a time, and a short copy means that the guest's memory ended.
        if had_files || count == 0 {
            break;
        }
    }
    taken.length = taken.count;
    Ok((taken, done))
}
