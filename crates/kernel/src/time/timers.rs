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
use crate::task::{Process, Task, usage};

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

/// What a timer counts.
#[derive(Clone)]
pub enum Base {
    /// Real time, on the monotonic clock; absolute times of this clock are converted when they are set.
    Real(i32),
    /// Time that a process spends in its own code (`ITIMER_VIRTUAL`).
    User(Weak<Process>),
    /// Processor time of a process.
    Process(Weak<Process>),
    /// Processor time of a thread.
    Thread(Weak<Task>),
}

/// Shortest wait before processor time is looked at again.
const SHORTEST_LOOK_NS: u64 = 1_000_000;

impl Base {
    /// What it shows.
    pub fn now(&self) -> u64 {
        let of_process = |process: &Weak<Process>| process.upgrade().map(|process| usage::times(&process, None)).unwrap_or_default();
        match self {
            Self::Real(_) => monotonic_ns(),
            Self::User(process) => of_process(process).user_ns,
            Self::Process(process) => {
                let times = of_process(process);
                times.user_ns + times.system_ns
            }
            Self::Thread(task) => task.upgrade().map_or(0, |task| task.cpu_ns()),
        }
    }

    /// The earliest time, on the monotonic clock, at which it can show `next`.
    fn earliest(&self, next: u64) -> u64 {
        let threads = match self {
            Self::Real(_) => return next,
            Self::User(process) | Self::Process(process) => process.upgrade().map_or(1, |process| process.family.lock().tasks.len().max(1)),
            Self::Thread(_) => 1,
        };
        let left = next.saturating_sub(self.now()) / threads as u64;
        monotonic_ns().saturating_add(left.max(SHORTEST_LOOK_NS))
    }
}

/// When a timer ends first.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// Never.
    Disarmed,
    /// After so many nanoseconds of its base.
    After(u64),
    /// When its base shows this.
    At(u64),
}

/// Nanoseconds that are left (0 when it is not armed), and the period.
pub type Left = (u64, u64);

struct Timer {
    process: Weak<Process>,
    key: Key,
    base: Base,
    /// Next end, in its base's time; 0 when it is not armed.
    next: u64,
    /// Period; 0 for once.
    interval: u64,
    notify: Notify,
    /// `sigev_value`.
    value: u64,
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
    pub fn interval(&self, kind: u32) -> Left {
        self.timers.get(&Key::Interval(kind)).map_or((0, 0), Timer::left)
    }

    /// Makes a POSIX timer; answers its number.
    pub fn create(&mut self, process: &Arc<Process>, base: Base, notify: Option<(Notify, u64)>) -> Result<i32, Errno> {
        let limit = process.limits.lock().soft(raw::RLIMIT_SIGPENDING);
        if self.timers.len() >= MOST_TIMERS || self.timers.len() as u64 >= limit {
            return Err(Errno::EAGAIN);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1) & i32::MAX;
        let (notify, value) = notify.unwrap_or((Notify::Process(raw::SIGALRM as i32), number as u64));
        self.enter(process, Key::Posix(number), base, notify, value);
        Ok(number)
    }

    fn enter(&mut self, process: &Arc<Process>, key: Key, base: Base, notify: Notify, value: u64) {
        let process = Arc::downgrade(process);
        let timer = Timer { process, key, base, next: 0, interval: 0, notify, value, handle: None, overrun: 0 };
        self.timers.insert(key, timer);
    }

    /// Sets an interval timer; answers what it was.
    pub fn set_interval(&mut self, process: &Arc<Process>, kind: u32, signal: i32, start: Start, interval: u64) -> Left {
        let key = Key::Interval(kind);
        if !self.timers.contains_key(&key) {
            let base = match kind {
                raw::ITIMER_VIRTUAL => Base::User(Arc::downgrade(process)),
                raw::ITIMER_PROF => Base::Process(Arc::downgrade(process)),
                _ => Base::Real(raw::CLOCK_MONOTONIC as i32),
            };
            self.enter(process, key, base, Notify::Process(signal), 0);
        }
        self.set(key, start, interval).unwrap_or_default()
    }

    /// Sets a timer; answers what it was.
    pub fn set(&mut self, key: Key, start: Start, interval: u64) -> Result<Left, Errno> {
        let timer = self.timers.get_mut(&key).ok_or(Errno::EINVAL)?;
        let before = timer.left();
        timer.next = match start {
            Start::Disarmed => 0,
            Start::After(time) => timer.base.now().saturating_add(time),
            Start::At(time) => time.max(1),
        };
        timer.interval = interval;
        timer.overrun = 0;
        timer.arm();
        Ok(before)
    }

    /// What a timer is set to.
    pub fn get(&self, key: Key) -> Result<Left, Errno> {
        self.timers.get(&key).map(Timer::left).ok_or(Errno::EINVAL)
    }

    /// What a timer counts.
    pub fn base(&self, key: Key) -> Result<Base, Errno> {
        self.timers.get(&key).map(|timer| timer.base.clone()).ok_or(Errno::EINVAL)
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
    /// What is left, and the period. An armed timer has at least one nanosecond left.
    fn left(&self) -> Left {
        (if self.next == 0 { 0 } else { self.next.saturating_sub(self.base.now()).max(1) }, self.interval)
    }

    fn arm(&mut self) {
        self.handle = None;
        if self.next != 0 {
            let end = End { process: self.process.clone(), key: self.key };
            self.handle = Some(schedule(self.base.earliest(self.next), Arc::new(end)));
        }
    }

    /// The time may have come: if so notes it, arms the next one, answers what is to be sent.
    fn elapse(&mut self) -> Option<(Notify, Siginfo)> {
        if self.next == 0 {
            return None;
        }
        let now = self.base.now();
        if now < self.next {
            self.arm();
            return None;
        }
        let missed = match self.interval {
            0 => {
                self.next = 0;
                0
            }
            interval => {
                let missed = (now - self.next) / interval;
                self.next += (missed + 1) * interval;
                missed
            }
        };
        let still_pending = self.add_to_pending(missed + 1);
        self.overrun = if still_pending { self.overrun + missed + 1 } else { missed };
        self.arm();
        if still_pending {
            return None;
        }
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

impl Timer {
    /// Counts ends in the timer's signal that nobody took yet; false if there is none.
    fn add_to_pending(&self, ends: u64) -> bool {
        let (Key::Posix(id), Some(process)) = (self.key, self.process.upgrade()) else { return false };
        let count = |pending: &mut Vec<Siginfo>| {
            let own = |info: &&mut Siginfo| info.si_code == raw::SI_TIMER && info.fields[0] & 0xffff_ffff == id as u64;
            let Some(info) = pending.iter_mut().find(own) else { return false };
            let total = (info.fields[0] >> 32) + ends;
            info.fields[0] = info.fields[0] & 0xffff_ffff | total.min(LARGEST_OVERRUN) << 32;
            true
        };
        match &self.notify {
            Notify::Nobody => false,
            Notify::Process(_) => count(&mut process.signals.lock().pending),
            Notify::Thread(_, task) => task.upgrade().is_some_and(|task| count(&mut task.signals.lock().pending)),
        }
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
