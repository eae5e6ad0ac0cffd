//! `timerfd_create(2)`: a timer whose expirations are read.
//!
//! Lock order: the timer's state; the timer service is called with it held, its callback takes no lock of ours but the queue's.

use std::any::Any;
use std::sync::{Arc, Weak};

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use crate::io::Destination;
use crate::task::Task;
use crate::time::service::{self, Expire, TimerHandle};
use crate::vfs::anonymous;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::FileType;
use crate::wait::{PollEvents, WaitQueue};

/// Nanoseconds a second.
const SECOND: u64 = 1_000_000_000;

/// `struct itimerspec`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct TimerSetting {
    /// Period; zero for a single expiration.
    pub interval: Timespec,
    /// First expiration; zero for none.
    pub value: Timespec,
}

#[derive(Default)]
struct State {
    /// Next expiration, by the host's monotonic clock; none when disarmed.
    next: Option<u64>,
    /// Period; 0 for a single expiration.
    interval: u64,
    /// Expirations that nobody has read, apart from those since `next`.
    unread: u64,
    /// Calls back at `next`; none once it has.
    handle: Option<TimerHandle>,
}

/// A timer with a descriptor.
pub struct TimerFd {
    clock: ClockId,
    this: Weak<Self>,
    state: Mutex<State>,
    queue: WaitQueue,
}

/// A new, disarmed timer; `flags` may hold `O_NONBLOCK`. `EINVAL` for clocks that cannot be waited for.
pub fn open(clock: u32, flags: u32) -> Result<Arc<File>, Errno> {
    let clock = match clock {
        raw::CLOCK_REALTIME | raw::CLOCK_REALTIME_ALARM => ClockId::Realtime,
        raw::CLOCK_MONOTONIC => ClockId::Monotonic,
        raw::CLOCK_BOOTTIME | raw::CLOCK_BOOTTIME_ALARM => ClockId::Boottime,
        _ => return Err(Errno::EINVAL),
    };
    let timer = Arc::new_cyclic(|this| TimerFd { clock, this: this.clone(), state: Mutex::default(), queue: WaitQueue::new() });
    Ok(anonymous::open("anon_inode:[timerfd]", FileType::Anonymous, timer, raw::O_RDWR | flags & raw::O_NONBLOCK))
}

/// Nanoseconds that a time stands for; `EINVAL` if it is no proper time.
fn nanoseconds(time: Timespec) -> Result<u64, Errno> {
    if time.tv_sec < 0 || !(0..SECOND as i64).contains(&time.tv_nsec) {
        return Err(Errno::EINVAL);
    }
    Ok((time.tv_sec as u64).saturating_mul(SECOND).saturating_add(time.tv_nsec as u64))
}

fn timespec(nanoseconds: u64) -> Timespec {
    Timespec { tv_sec: (nanoseconds / SECOND) as i64, tv_nsec: (nanoseconds % SECOND) as i64 }
}

impl State {
    /// Counts what has expired until `now` and moves on to the next expiration.
    fn advance(&mut self, now: u64) {
        let Some(next) = self.next.filter(|next| *next <= now) else { return };
        match (now - next).checked_div(self.interval) {
            None => {
                self.unread = self.unread.saturating_add(1);
                self.next = None;
            }
            Some(whole) => {
                let periods = whole + 1;
                self.unread = self.unread.saturating_add(periods);
                self.next = Some(next.saturating_add(periods.saturating_mul(self.interval)));
            }
        }
        self.handle = None;
    }
}

impl TimerFd {
    /// The next expiration as a deadline of the monotonic clock.
    fn deadline(&self, value: u64, absolute: bool) -> u64 {
        let now = crate::time::monotonic_ns();
        if !absolute {
            return now.saturating_add(value);
        }
        let clock = clock_gettime(self.clock);
        let clock = clock.tv_sec as u64 * SECOND + clock.tv_nsec as u64;
        if value >= clock { now.saturating_add(value - clock) } else { now.saturating_sub(clock - value) }
    }

    fn arm(&self, state: &mut State) {
        if let (Some(next), None, Some(this)) = (state.next, &state.handle, self.this.upgrade()) {
            state.handle = Some(service::schedule(next, Arc::new(Expiry(Arc::downgrade(&this)))));
        }
    }

    fn setting_at(state: &State, now: u64) -> TimerSetting {
        let left = state.next.map_or(0, |next| next.saturating_sub(now).max(1));
        TimerSetting { interval: timespec(state.interval), value: timespec(left) }
    }

    /// `timerfd_settime(2)`: answers the setting before.
    pub fn set(&self, setting: TimerSetting, absolute: bool) -> Result<TimerSetting, Errno> {
        let (value, interval) = (nanoseconds(setting.value)?, nanoseconds(setting.interval)?);
        let now = crate::time::monotonic_ns();
        let mut state = self.state.lock();
        state.advance(now);
        let before = Self::setting_at(&state, now);
        let next = (value != 0).then(|| self.deadline(value, absolute));
        *state = State { next, interval, unread: 0, handle: None };
        self.arm(&mut state);
        Ok(before)
    }

    /// `timerfd_gettime(2)`.
    pub fn setting(&self) -> TimerSetting {
        let now = crate::time::monotonic_ns();
        let mut state = self.state.lock();
        state.advance(now);
        self.arm(&mut state);
        Self::setting_at(&state, now)
    }
}

/// What the timer service holds: not the timer itself, which it would keep alive.
struct Expiry(Weak<TimerFd>);

impl Expire for Expiry {
    fn expire(&self) {
        if let Some(timer) = self.0.upgrade() {
            timer.queue.notify(PollEvents::IN | PollEvents::RDNORM);
        }
    }
}

impl FileOps for TimerFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        if destination.remaining() < size_of::<u64>() {
            return Err(Errno::EINVAL);
        }
        let mut state = self.state.lock();
        state.advance(crate::time::monotonic_ns());
        let count = std::mem::take(&mut state.unread);
        // The service is asked for the next expiration only once this one was read: a timer that nobody reads costs no wakes.
        self.arm(&mut state);
        drop(state);
        if count == 0 { Err(Errno::EAGAIN) } else { destination.put(&count.to_ne_bytes()) }
    }

    fn poll(&self, _file: &File) -> PollEvents {
        let state = self.state.lock();
        let expired = state.unread > 0 || state.next.is_some_and(|next| next <= crate::time::monotonic_ns());
        if expired { PollEvents::IN | PollEvents::RDNORM } else { PollEvents::empty() }
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn ioctl(&self, _file: &File, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        /// `TFD_IOC_SET_TICKS` of `linux/timerfd.h`: what restores a timer that had expired.
        const SET_TICKS: u32 = 0x4008_5400;
        if request != SET_TICKS {
            return Err(Errno::ENOTTY);
        }
        let ticks: u64 = task.read(argument)?;
        if ticks == 0 {
            return Err(Errno::EINVAL);
        }
        let mut state = self.state.lock();
        state.advance(crate::time::monotonic_ns());
        state.unread = ticks;
        self.arm(&mut state);
        drop(state);
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
        Ok(0)
    }

    fn describe(&self, _file: &File) -> String {
        let setting = self.setting();
        let unread = self.state.lock().unread;
        let clock = self.clock as i32;
        let (value, interval) = (setting.value, setting.interval);
        format!(
            "clockid: {clock}\nticks: {unread}\nsettime flags: 00\nit_value: ({}, {})\nit_interval: ({}, {})\n",
            value.tv_sec, value.tv_nsec, interval.tv_sec, interval.tv_nsec
        )
    }
}
