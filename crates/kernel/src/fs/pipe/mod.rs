//! Pipes and FIFOs, `pipe(7)`, `fifo(7)`.
//!
//! Lock order: a pipe's state (two pipes of one splice by address), then guest memory, then the pipe's queue.

mod buffer;
mod splice;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw, raw_ioctl};
use parking_lot::Mutex;

pub use splice::{move_between, tee_between};

use crate::io::{Destination, Source};
use crate::task::Task;
use crate::vfs::anonymous::AnonymousInode;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::Inode;
use crate::wait::{PollEvents, WaitError, WaitQueue};
use buffer::{Buffer, LARGEST, PAGE};

struct State {
    buffer: Buffer,
    readers: u32,
    writers: u32,
    /// Openings for reading and writing so far: a FIFO's blocking open waits for the other one to move, since the peer may come and go at once.
    reader_opens: u64,
    writer_opens: u64,
}

/// A pipe, shared by its two ends; a FIFO's inode owns one as long as somebody has it open.
pub struct Pipe {
    state: Mutex<State>,
    /// Announces bytes (`IN`), room (`OUT`) and the end of the last reader or writer.
    queue: WaitQueue,
}

/// The operations of one open end.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
}

/// A new pipe's two descriptions: read end, write end.
pub fn new_pair(flags: u32) -> (Arc<File>, Arc<File>) {
    let pipe = Pipe::new();
    let inode: Arc<dyn Inode> = AnonymousInode::new_fifo(Fifo { pipe: Mutex::new(Arc::downgrade(&pipe)), anonymous: true });
    let reader = PipeEnd::open(&pipe, true, false);
    let writer = PipeEnd::open(&pipe, false, true);
    (
        File::new(reader, Arc::clone(&inode), None, raw::O_RDONLY | flags & raw::O_NONBLOCK),
        File::new(writer, inode, None, raw::O_WRONLY | flags),
    )
}

/// The pipe behind a file, if it is one.
pub fn of_file(file: &File) -> Option<&Arc<Pipe>> {
    file.ops_as::<PipeEnd>().map(|end| &end.pipe)
}

impl Pipe {
    /// An empty pipe without ends.
    pub fn new() -> Arc<Self> {
        let state = State { buffer: Buffer::new(), readers: 0, writers: 0, reader_opens: 0, writer_opens: 0 };
        Arc::new(Self { state: Mutex::new(state), queue: WaitQueue::new() })
    }

    /// `F_GETPIPE_SZ`.
    pub fn capacity(&self) -> usize {
        self.state.lock().buffer.slots() * PAGE
    }

    /// `F_SETPIPE_SZ`: rounds up to a power of two pages, answers the new size.
    pub fn set_capacity(&self, bytes: u32, privileged: bool) -> Result<usize, Errno> {
        if bytes > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let slots = (bytes as usize).div_ceil(PAGE).max(1).next_power_of_two();
        // Even the privileged are bounded: pages of pipes are memory of the kernel process.
        if slots > LARGEST && !(privileged && slots <= 16 * LARGEST) {
            return Err(Errno::EPERM);
        }
        let mut state = self.state.lock();
        state.buffer.resize(slots, privileged)?;
        drop(state);
        self.queue.notify(PollEvents::OUT | PollEvents::WRNORM);
        Ok(slots * PAGE)
    }

    /// Reads what is there.
    pub fn read(&self, destination: &mut Destination<'_>) -> Result<usize, Errno> {
        if destination.remaining() == 0 {
            return Ok(0);
        }
        let mut state = self.state.lock();
        if state.buffer.is_empty() {
            return if state.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let count = state.buffer.drain(destination)?;
        let room = !state.buffer.is_full();
        drop(state);
        if room {
            self.queue.notify(PollEvents::OUT | PollEvents::WRNORM);
        }
        Ok(count)
    }

    /// Writes what fits; up to `PIPE_BUF` all or nothing.
    pub fn write(&self, source: &mut Source<'_>, packet: bool) -> Result<usize, Errno> {
        let length = source.remaining();
        if length == 0 {
            return Ok(0);
        }
        let mut state = self.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let room = state.buffer.room(length, packet);
        if room == 0 {
            return Err(Errno::EAGAIN);
        }
        let count = state.buffer.fill(source, room, packet)?;
        drop(state);
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
        Ok(count)
    }

    fn poll(&self, reads: bool, writes: bool) -> PollEvents {
        let state = self.state.lock();
        let mut events = PollEvents::empty();
        if reads {
            if !state.buffer.is_empty() {
                events |= PollEvents::IN | PollEvents::RDNORM;
            }
            // A FIFO that no writer ever opened has not hung up.
            if state.writers == 0 && state.writer_opens > 0 {
                events |= PollEvents::HUP;
            }
        }
        if writes {
            if !state.buffer.is_full() {
                events |= PollEvents::OUT | PollEvents::WRNORM;
            }
            if state.readers == 0 {
                events |= PollEvents::ERR;
            }
        }
        events
    }
}

impl PipeEnd {
    fn open(pipe: &Arc<Pipe>, reads: bool, writes: bool) -> Arc<Self> {
        let mut state = pipe.state.lock();
        state.readers += u32::from(reads);
        state.writers += u32::from(writes);
        state.reader_opens += u64::from(reads);
        state.writer_opens += u64::from(writes);
        drop(state);
        pipe.queue.notify(PollEvents::IN | PollEvents::OUT);
        Arc::new(Self { pipe: Arc::clone(pipe), reads, writes })
    }
}

/// What a FIFO inode keeps: its pipe, alive while it is open.
#[derive(Default)]
pub struct Fifo {
    pipe: Mutex<std::sync::Weak<Pipe>>,
    /// Made by `pipe(2)`: opened again through `/dev/fd`, it waits for nobody.
    anonymous: bool,
}

impl Fifo {
    /// Opens an end as `open(2)` does: without the other end, readers and writers wait for it, unless `O_NONBLOCK` (then readers go on and
    /// writers get `ENXIO`) or `O_RDWR` is given. For [`Inode::open`](crate::vfs::Inode::open) of FIFOs; no lock may be held.
    pub fn open(&self, flags: u32, task: &Task) -> Result<Arc<dyn FileOps>, Errno> {
        let pipe = {
            let mut kept = self.pipe.lock();
            kept.upgrade().unwrap_or_else(|| {
                let pipe = Pipe::new();
                *kept = Arc::downgrade(&pipe);
                pipe
            })
        };
        let (reads, writes) = match flags & raw::O_ACCMODE {
            raw::O_RDONLY => (true, false),
            raw::O_WRONLY => (false, true),
            raw::O_RDWR => (true, true),
            _ => return Err(Errno::EINVAL),
        };
        let nonblocking = flags & raw::O_NONBLOCK != 0;
        if writes && !reads && nonblocking && pipe.state.lock().readers == 0 {
            return Err(Errno::ENXIO);
        }
        let opens = || {
            let state = pipe.state.lock();
            if reads { (state.writers, state.writer_opens) } else { (state.readers, state.reader_opens) }
        };
        let (_, before) = opens();
        let end = PipeEnd::open(&pipe, reads, writes);
        if (reads && writes) || nonblocking || self.anonymous || opens().0 > 0 {
            return Ok(end);
        }
        let waited = task.block_on(&[&pipe.queue], PollEvents::READ | PollEvents::WRITE, None, || {
            // The peer may have come and gone.
            (opens().1 != before).then_some(())
        });
        match waited {
            Ok(()) => Ok(end),
            Err(WaitError::Interrupted | WaitError::TimedOut) => Err(Errno::ERESTARTSYS),
        }
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.readers -= u32::from(self.reads);
        state.writers -= u32::from(self.writes);
        let (readers, writers) = (state.readers, state.writers);
        drop(state);
        if self.writes && writers == 0 {
            self.pipe.queue.notify(PollEvents::IN | PollEvents::RDNORM | PollEvents::HUP);
        }
        if self.reads && readers == 0 {
            self.pipe.queue.notify(PollEvents::OUT | PollEvents::WRNORM | PollEvents::ERR);
        }
    }
}

impl FileOps for PipeEnd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        self.pipe.read(destination)
    }

    fn write(&self, file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        self.pipe.write(source, file.flags() & raw::O_DIRECT != 0)
    }

    fn poll(&self, _file: &File) -> PollEvents {
        self.pipe.poll(self.reads, self.writes)
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.pipe.queue)
    }

    fn ioctl(&self, _file: &File, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        match request {
            raw_ioctl::FIONREAD => {
                let bytes = self.pipe.state.lock().buffer.bytes();
                task.write(argument, &(bytes as i32)).map(|()| 0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}
