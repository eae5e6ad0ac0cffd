//! Interval timers and POSIX timers of a process, `setitimer(2)`, `timer_create(2)`.
//!
//! Lock order: a process's `timers`, then its `signals`. The timer service calls back without either.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};

use super::monotonic_ns;
use super::service::{Expire, TimerHandle, schedule};
use crate::signal;
use crate::task::{Process, Task};

/// Most POSIX timers of one process; on Linux `RLIMIT_SIGPENDING` bounds them.
const MOST_TIMERS: usize = 4096;
/// Largest reported overrun, `DELAYTIMER_MAX`.
const LARGEST_OVERRUN: u64 = i32::MAX as u64;

/// Whom a timer's end is told, `sigevent(3)`.
#[derive(Clone)]
pub enum Notify {
    /// Nobody.
    Nobody,
    /// The process, by this signal.
    Process(i32),
    /// One thread.
    Thread(i32, Weak<Task>),
}

/// When a timer ends: first, and again after each period (0 for once). Nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setting {
    /// Next end; 0 when it is not armed.
    pub next: u64,
    /// Period.
    pub interval: u64,
}

impl Setting {
    /// Nanoseconds that are left, and the period. An armed timer has at least one left.
    pub fn left(&self) -> (u64, u64) {
        let left = if self.next == 0 { 0 } else { self.next.saturating_sub(monotonic_ns()).max(1) };
        (left, self.interval)
    }
}

struct Timer {
    process: Weak<Process>,
    key: Key,
    setting: Setting,
    notify: Notify,
    /// `sigev_value`.
    value: u64,
    /// `clock_gettime` clock that absolute times are given in.
    clock: i32,
    handle: Option<TimerHandle>,
    overrun: u64,
}

/// Which timer: an interval timer by kind, or a POSIX timer by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `ITIMER_REAL` and the others.
    Interval(u32),
    /// `timer_create(2)`.
    Posix(i32),
}

/// Timers of a process.
#[derive(Default)]
pub struct Timers {
    timers: BTreeMap<Key, Timer>,
    next: i32,
}

impl Timers {
    /// Ends all.
    pub fn clear(&mut self) {
        self.timers.clear();
    }

    /// Ends those that exec ends.
    pub fn clear_posix(&mut self) {
        self.timers.retain(|key, _| matches!(key, Key::Interval(_)));
    }

    /// What an interval timer is set to.
    pub fn interval(&self, kind: u32) -> Setting {
        self.timers.get(&Key::Interval(kind)).map_or_else(Setting::default, |timer| timer.setting)
    }

    /// Makes a POSIX timer; answers its number.
    pub fn create(&mut self, process: &Arc<Process>, clock: i32, notify: Option<(Notify, u64)>) -> Result<i32, Errno> {
        if self.timers.len() >= MOST_TIMERS {
            return Err(Errno::EAGAIN);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1) & i32::MAX;
        let (notify, value) = notify.unwrap_or((Notify::Process(raw::SIGALRM as i32), number as u64));
        self.enter(process, Key::Posix(number), clock, notify, value);
        Ok(number)
    }

    fn enter(&mut self, process: &Arc<Process>, key: Key, clock: i32, notify: Notify, value: u64) {
        let process = Arc::downgrade(process);
        let timer = Timer { process, key, setting: Setting::default(), notify, value, clock, handle: None, overrun: 0 };
        self.timers.insert(key, timer);
    }

    /// Sets an interval timer; answers what it was.
    pub fn set_interval(&mut self, process: &Arc<Process>, kind: u32, signal: i32, setting: Setting) -> Setting {
        let key = Key::Interval(kind);
        if !self.timers.contains_key(&key) {
            self.enter(process, key, 0, Notify::Process(signal), 0);
        }
        self.set(key, setting).unwrap_or_default()
    }

    /// Sets a timer; answers what it was.
    pub fn set(&mut self, key: Key, setting: Setting) -> Result<Setting, Errno> {
        let timer = self.timers.get_mut(&key).ok_or(Errno::EINVAL)?;
        let before = std::mem::replace(&mut timer.setting, setting);
        timer.overrun = 0;
        timer.arm();
        Ok(before)
    }

    /// What a timer is set to.
    pub fn get(&self, key: Key) -> Result<Setting, Errno> {
        self.timers.get(&key).map(|timer| timer.setting).ok_or(Errno::EINVAL)
    }

    /// The clock of a timer.
    pub fn clock(&self, key: Key) -> Result<i32, Errno> {
        self.timers.get(&key).map(|timer| timer.clock).ok_or(Errno::EINVAL)
    }

    /// Ends that came while the last signal was still pending.
    pub fn overrun(&self, key: Key) -> Result<u64, Errno> {
        self.timers.get(&key).map(|timer| timer.overrun.min(LARGEST_OVERRUN)).ok_or(Errno::EINVAL)
    }

    /// Ends one.
    pub fn delete(&mut self, key: Key) -> Result<(), Errno> {
        self.timers.remove(&key).map(|_| ()).ok_or(Errno::EINVAL)
    }
}

impl Timer {
    fn arm(&mut self) {
        self.handle = None;
        if self.setting.next != 0 {
            let end = End { process: self.process.clone(), key: self.key };
            self.handle = Some(schedule(self.setting.next, Arc::new(end)));
        }
    }

    /// The time has come: notes it, arms the next one, answers what is to be sent.
    fn elapse(&mut self) -> Option<(Notify, Siginfo)> {
        let now = monotonic_ns();
        if self.setting.next == 0 || now < self.setting.next {
            return None;
        }
        let missed = match self.setting.interval {
            0 => {
                self.setting.next = 0;
                0
            }
            interval => {
                let missed = (now - self.setting.next) / interval;
                self.setting.next += (missed + 1) * interval;
                missed
            }
        };
        self.overrun = missed;
        self.arm();
        let number = match &self.notify {
            Notify::Nobody => return None,
            Notify::Process(number) | Notify::Thread(number, _) => *number,
        };
        let mut info = signal::info_from_kernel(number);
        if let Key::Posix(id) = self.key {
            info.si_code = raw::SI_TIMER;
            info.fields[0] = id as u64 & 0xffff_ffff | missed.min(LARGEST_OVERRUN) << 32;
            info.fields[1] = self.value;
        }
        Some((self.notify.clone(), info))
    }
}

/// What the timer service calls.
struct End {
    process: Weak<Process>,
    key: Key,
}

impl Expire for End {
    fn expire(&self) {
        let Some(process) = self.process.upgrade() else { return };
        let due = process.timers.lock().timers.get_mut(&self.key).and_then(Timer::elapse);
        match due {
            Some((Notify::Process(_), info)) => signal::send_to_process(&process, &info),
            Some((Notify::Thread(_, task), info)) => {
                if let Some(task) = task.upgrade() {
                    signal::send_to_task(&task, &info);
                }
            }
            Some((Notify::Nobody, _)) | None => {}
        }
    }
}
