//! Moving and copying bytes between two pipes, `splice(2)` and `tee(2)`.

use std::sync::Arc;

use cloudpilot_abi::Errno;
use parking_lot::MutexGuard;

use super::buffer::PAGE;
use super::{Pipe, State};
use crate::io::{Destination, Source};
use crate::wait::{PollEvents, WaitQueue};

/// Both pipes' states, locked in the order of their addresses; `EINVAL` when they are one.
fn lock_both<'a>(from: &'a Arc<Pipe>, to: &'a Arc<Pipe>) -> Result<(MutexGuard<'a, State>, MutexGuard<'a, State>), Errno> {
    match Arc::as_ptr(from).cmp(&Arc::as_ptr(to)) {
        std::cmp::Ordering::Equal => Err(Errno::EINVAL),
        std::cmp::Ordering::Less => {
            let first = from.state.lock();
            Ok((first, to.state.lock()))
        }
        std::cmp::Ordering::Greater => {
            let second = to.state.lock();
            Ok((from.state.lock(), second))
        }
    }
}

/// Whether bytes can go from one to the other: 0 at the end of input, `EAGAIN` while there is nothing to read or no room.
fn check(from: &State, to: &State) -> Result<bool, Errno> {
    if to.readers == 0 {
        return Err(Errno::EPIPE);
    }
    if from.buffer.is_empty() {
        return if from.writers == 0 { Ok(false) } else { Err(Errno::EAGAIN) };
    }
    if to.buffer.is_full() { Err(Errno::EAGAIN) } else { Ok(true) }
}

impl Pipe {
    /// Announces bytes, room, and the ends' coming and going.
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Bytes that fit now; `EPIPE` without a reader.
    pub fn room(&self) -> Result<usize, Errno> {
        let state = self.state.lock();
        if state.readers == 0 { Err(Errno::EPIPE) } else { Ok(state.buffer.room(usize::MAX, false)) }
    }

    /// Takes up to `length` bytes out; empty at the end of input.
    pub fn take(&self, length: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length.min(self.state.lock().buffer.bytes().max(1))];
        let count = self.read(&mut Destination::own(&mut bytes))?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Puts bytes back in front that [`take`](Self::take) took and nobody wanted.
    pub fn give_back(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.state.lock().buffer.push_front(bytes);
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
    }
}

/// Moves up to `length` bytes without copying whole pages.
pub fn move_between(from: &Arc<Pipe>, to: &Arc<Pipe>, length: usize) -> Result<usize, Errno> {
    let (mut source, mut target) = lock_both(from, to)?;
    if !check(&source, &target)? {
        return Ok(0);
    }
    let moved = source.buffer.move_to(&mut target.buffer, length);
    drop((source, target));
    from.queue.notify(PollEvents::OUT | PollEvents::WRNORM);
    to.queue.notify(PollEvents::IN | PollEvents::RDNORM);
    Ok(moved)
}

/// Copies up to `length` bytes and leaves them where they are.
pub fn tee_between(from: &Arc<Pipe>, to: &Arc<Pipe>, length: usize) -> Result<usize, Errno> {
    let (source, mut target) = lock_both(from, to)?;
    if !check(&source, &target)? {
        return Ok(0);
    }
    let length = length.min(source.buffer.bytes());
    let mut bytes = vec![0; target.buffer.room(length.max(PAGE + 1), false).min(length)];
    let count = source.buffer.peek(&mut bytes);
    let copied = target.buffer.fill(&mut Source::own(&bytes[..count]), count, false)?;
    drop((source, target));
    to.queue.notify(PollEvents::IN | PollEvents::RDNORM);
    Ok(copied)
}
