//! System V message queues, `msgget(2)`.

use std::collections::VecDeque;

use cloudpilot_abi::Errno;
use parking_lot::Mutex;

use super::{NOWAIT, Object, Permissions};
use crate::task::Task;
use crate::wait::{PollEvents, WaitError, WaitQueue};

/// `MSG_NOERROR`, `MSG_EXCEPT`.
const NOERROR: u32 = 0o10_000;
/// See [`NOERROR`].
pub const EXCEPT: u32 = 0o20_000;

/// A queue.
pub struct Queue {
    /// What changes.
    pub state: Mutex<State>,
    queue: WaitQueue,
}

/// What changes of a queue.
pub struct State {
    /// Who may use it.
    pub permissions: Permissions,
    /// Messages with their types.
    pub messages: VecDeque<(i64, Vec<u8>)>,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes that they may have.
    pub capacity: u64,
    /// Last `msgsnd`, seconds.
    pub sent: i64,
    /// Last `msgrcv`.
    pub received: i64,
    /// Last change.
    pub changed: i64,
    /// Process that sent last.
    pub last_sender: i32,
    /// Process that received last.
    pub last_receiver: i32,
    removed: bool,
}

impl Object for Queue {
    fn permissions(&self) -> Permissions {
        self.state.lock().permissions
    }
}

impl Queue {
    /// A new one for so many bytes.
    pub fn new(permissions: Permissions, capacity: u64) -> Self {
        let state = State {
            permissions,
            messages: VecDeque::new(),
            bytes: 0,
            capacity,
            sent: 0,
            received: 0,
            changed: crate::time::realtime().tv_sec,
            last_sender: 0,
            last_receiver: 0,
            removed: false,
        };
        Self { state: Mutex::new(state), queue: WaitQueue::new() }
    }

    /// Marks it as removed: whoever waits gets `EIDRM`.
    pub fn removed(&self) {
        self.state.lock().removed = true;
        self.announce();
    }

    /// Lets those who wait look again.
    pub fn announce(&self) {
        self.queue.notify(PollEvents::IN);
    }

    fn wait<T>(
        &self,
        task: &Task,
        flags: u32,
        mut attempt: impl FnMut(&mut State) -> Option<Result<T, Errno>>,
        full: Errno,
    ) -> Result<T, Errno> {
        let result = task.block_on(&[&self.queue], PollEvents::IN, None, || {
            let mut state = self.state.lock();
            if state.removed {
                return Some(Err(Errno::EIDRM));
            }
            attempt(&mut state).or_else(|| (flags & NOWAIT != 0).then_some(Err(full)))
        });
        match result {
            Ok(result) => {
                self.announce();
                result
            }
            Err(WaitError::Interrupted | WaitError::TimedOut) => Err(Errno::ERESTARTNOHAND),
        }
    }

    /// `msgsnd(2)`.
    pub fn send(&self, task: &Task, kind: i64, text: Vec<u8>, flags: u32) -> Result<(), Errno> {
        let mut text = Some(text);
        let attempt = |state: &mut State| {
            let length = text.as_ref().map_or(0, Vec::len) as u64;
            if state.bytes + length > state.capacity || state.messages.len() as u64 >= state.capacity {
                return None;
            }
            state.bytes += length;
            state.messages.push_back((kind, text.take().unwrap_or_default()));
            state.sent = crate::time::realtime().tv_sec;
            state.last_sender = task.process.pid;
            Some(Ok(()))
        };
        self.wait(task, flags, attempt, Errno::EAGAIN)
    }

    /// `msgrcv(2)` with `MSG_COPY`: what the message at an index is, which stays. It never waits.
    pub fn copy(&self, index: i64, room: usize, flags: u32) -> Result<(i64, Vec<u8>), Errno> {
        let state = self.state.lock();
        let found = usize::try_from(index).ok().and_then(|index| state.messages.get(index));
        let (kind, text) = found.ok_or(Errno::ENOMSG)?;
        match text.len() > room {
            false => Ok((*kind, text.clone())),
            // A copy is made whole or not at all.
            true if flags & NOERROR != 0 => Err(Errno::EINVAL),
            true => Err(Errno::E2BIG),
        }
    }

    /// `msgrcv(2)`: the first message of the type, cut to `room` if that is allowed.
    pub fn receive(&self, task: &Task, kind: i64, room: usize, flags: u32) -> Result<(i64, Vec<u8>), Errno> {
        let attempt = |state: &mut State| {
            let index = state.choose(kind, flags)?;
            if state.messages[index].1.len() > room && flags & NOERROR == 0 {
                return Some(Err(Errno::E2BIG));
            }
            let (kind, mut text) = state.messages.remove(index)?;
            state.bytes -= text.len() as u64;
            state.received = crate::time::realtime().tv_sec;
            state.last_receiver = task.process.pid;
            text.truncate(room);
            Some(Ok((kind, text)))
        };
        self.wait(task, flags, attempt, Errno::ENOMSG)
    }
}

impl State {
    fn choose(&self, kind: i64, flags: u32) -> Option<usize> {
        let mut messages = self.messages.iter().enumerate();
        match kind {
            0 => messages.next().map(|(index, _)| index),
            1.. if flags & EXCEPT != 0 => messages.find(|(_, message)| message.0 != kind).map(|(index, _)| index),
            1.. => messages.find(|(_, message)| message.0 == kind).map(|(index, _)| index),
            _ => messages
                .filter(|(_, message)| message.0 <= kind.saturating_neg())
                .min_by_key(|(_, message)| message.0)
                .map(|(index, _)| index),
        }
    }
}
