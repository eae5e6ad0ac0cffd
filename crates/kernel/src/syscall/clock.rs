//! Clocks, sleeps and timers.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::{Timespec, Timeval};
use cloudpilot_abi::{Errno, raw};
use rustix::time::{ClockId, clock_gettime as host_clock};

use super::Arg::{Flags, Int, Ptr, Size};
use super::{Args, Call, Support, SysResult};
use crate::task::{Task, usage};
use crate::time::timers::{Base, Key, Left, Notify, Start};
use crate::time::{monotonic_ns, realtime};
use crate::wait::WaitError;

const CLOCK_IS_HOSTS: &str = "the clock is the host's";
const READ_ONLY: &str = "the clock is the host's: its state can be read, changes are refused with EPERM";

const fn refuse(number: u32, handler: super::Handler, args: &'static [super::Arg]) -> Call {
    Call { number, handler, support: Support::Refused, note: CLOCK_IS_HOSTS, args }
}

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_clock_gettime, clock_gettime, &[Int, Ptr]),
    Call::full(raw::__NR_clock_getres, clock_getres, &[Int, Ptr]),
    refuse(raw::__NR_clock_settime, clock_settime, &[Int, Ptr]),
    Call::partial(raw::__NR_clock_adjtime, clock_adjtime, &[Int, Ptr], READ_ONLY),
    Call::partial(raw::__NR_adjtimex, |task, args| adjust(task, args.raw(0)), &[Ptr], READ_ONLY),
    refuse(raw::__NR_settimeofday, |_, _| Err(Errno::EPERM), &[Ptr, Ptr]),
    Call::full(raw::__NR_gettimeofday, gettimeofday, &[Ptr, Ptr]),
    Call::full(raw::__NR_time, time, &[Ptr]),
    Call::full(raw::__NR_nanosleep, nanosleep, &[Ptr, Ptr]),
    Call::full(raw::__NR_clock_nanosleep, clock_nanosleep, &[Int, Flags, Ptr, Ptr]),
    Call::full(raw::__NR_alarm, alarm, &[Size]),
    Call::full(raw::__NR_setitimer, setitimer, &[Int, Ptr, Ptr]),
    Call::full(raw::__NR_getitimer, getitimer, &[Int, Ptr]),
    Call::full(raw::__NR_timer_create, timer_create, &[Int, Ptr, Ptr]),
    Call::full(raw::__NR_timer_settime, timer_settime, &[Int, Flags, Ptr, Ptr]),
    Call::full(raw::__NR_timer_gettime, timer_gettime, &[Int, Ptr]),
    Call::full(raw::__NR_timer_getoverrun, timer_getoverrun, &[Int]),
    Call::full(raw::__NR_timer_delete, timer_delete, &[Int]),
];

const SECOND: u64 = 1_000_000_000;
/// `CLOCK_TAI` and the coarse clocks.
const CLOCK_REALTIME: i32 = raw::CLOCK_REALTIME as i32;
const CLOCK_MONOTONIC: i32 = raw::CLOCK_MONOTONIC as i32;
const CLOCK_PROCESS: i32 = raw::CLOCK_PROCESS_CPUTIME_ID as i32;
const CLOCK_THREAD: i32 = raw::CLOCK_THREAD_CPUTIME_ID as i32;
const CLOCK_MONOTONIC_RAW: i32 = raw::CLOCK_MONOTONIC_RAW as i32;
const CLOCK_REALTIME_COARSE: i32 = raw::CLOCK_REALTIME_COARSE as i32;
const CLOCK_MONOTONIC_COARSE: i32 = raw::CLOCK_MONOTONIC_COARSE as i32;
const CLOCK_BOOTTIME: i32 = raw::CLOCK_BOOTTIME as i32;
const CLOCK_REALTIME_ALARM: i32 = raw::CLOCK_REALTIME_ALARM as i32;
const CLOCK_BOOTTIME_ALARM: i32 = raw::CLOCK_BOOTTIME_ALARM as i32;
const CLOCK_TAI: i32 = raw::CLOCK_TAI as i32;

fn nanoseconds(time: Timespec) -> Result<u64, Errno> {
    if time.tv_sec < 0 || !(0..SECOND as i64).contains(&time.tv_nsec) {
        return Err(Errno::EINVAL);
    }
    Ok((time.tv_sec as u64).saturating_mul(SECOND).saturating_add(time.tv_nsec as u64))
}

fn timespec(nanoseconds: u64) -> Timespec {
    Timespec { tv_sec: (nanoseconds / SECOND) as i64, tv_nsec: (nanoseconds % SECOND) as i64 }
}

/// When a time from now is over, on the monotonic clock.
pub fn deadline_after(time: Timespec) -> Result<u64, Errno> {
    Ok(monotonic_ns().saturating_add(nanoseconds(time)?))
}

/// When a clock shows a time, on the monotonic clock.
pub fn deadline_at(clock: i32, time: Timespec) -> Result<u64, Errno> {
    let wanted = nanoseconds(time)?;
    let now = match clock {
        CLOCK_MONOTONIC | CLOCK_MONOTONIC_RAW | CLOCK_MONOTONIC_COARSE => return Ok(wanted.max(1)),
        CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => host_time(ClockId::Boottime),
        // Nobody told us of leap seconds: TAI is UTC, as on hosts that were not told either.
        CLOCK_REALTIME | CLOCK_REALTIME_ALARM | CLOCK_REALTIME_COARSE | CLOCK_TAI => nanoseconds(realtime())?,
        _ => return Err(Errno::EINVAL),
    };
    Ok(monotonic_ns().saturating_add(wanted.saturating_sub(now)).max(1))
}

fn host_time(clock: ClockId) -> u64 {
    let now = host_clock(clock);
    now.tv_sec as u64 * SECOND + now.tv_nsec as u64
}

/// The kind of processor clock that counts nanoseconds; the others count ticks.
const KIND_SCHEDULER: i32 = 2;

/// A clock of a process or thread by number: `~pid << 3 | per-thread << 2 | kind`.
fn cpu_clock(task: &Arc<Task>, clock: i32) -> Result<u64, Errno> {
    /// Of four kinds, the last does not exist.
    const NO_KIND: i32 = 3;
    if clock & 3 == NO_KIND {
        return Err(Errno::EINVAL);
    }
    let pid = !(clock >> 3);
    if clock & 4 != 0 {
        let thread = if pid == 0 { Arc::clone(task) } else { task.find_task(pid).ok_or(Errno::EINVAL)? };
        if !Arc::ptr_eq(&thread.process, &task.process) {
            return Err(Errno::EINVAL);
        }
        return Ok(thread.cpu_ns());
    }
    let process = if pid == 0 { Arc::clone(&task.process) } else { task.find_process(pid).ok_or(Errno::EINVAL)? };
    let times = usage::times(&process, None);
    Ok(times.user_ns + times.system_ns)
}

fn now(task: &Arc<Task>, clock: i32) -> Result<u64, Errno> {
    Ok(match clock {
        CLOCK_REALTIME | CLOCK_REALTIME_ALARM | CLOCK_TAI => nanoseconds(realtime())?,
        CLOCK_MONOTONIC => monotonic_ns(),
        CLOCK_MONOTONIC_RAW => host_time(ClockId::MonotonicRaw),
        CLOCK_REALTIME_COARSE => host_time(ClockId::RealtimeCoarse),
        CLOCK_MONOTONIC_COARSE => host_time(ClockId::MonotonicCoarse),
        CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => host_time(ClockId::Boottime),
        CLOCK_PROCESS => {
            let times = usage::times(&task.process, None);
            times.user_ns + times.system_ns
        }
        CLOCK_THREAD => task.cpu_ns(),
        ..0 => cpu_clock(task, clock)?,
        _ => return Err(Errno::EINVAL),
    })
}

fn clock_gettime(task: &Arc<Task>, args: &Args) -> SysResult {
    let now = now(task, args.int(0))?;
    task.write(args.raw(1), &timespec(now))?;
    Ok(0)
}

fn clock_getres(task: &Arc<Task>, args: &Args) -> SysResult {
    let clock = args.int(0);
    now(task, clock)?;
    /// Tick of the coarse clocks, 250 Hz.
    const COARSE: u64 = 4_000_000;
    let counts_ticks = clock < 0 && clock & 3 != KIND_SCHEDULER;
    let resolution = if counts_ticks || matches!(clock, CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE) { COARSE } else { 1 };
    if args.raw(1) != 0 {
        task.write(args.raw(1), &timespec(resolution))?;
    }
    Ok(0)
}

fn clock_settime(task: &Arc<Task>, args: &Args) -> SysResult {
    // Only the wall clock can be set at all.
    if args.int(0) != CLOCK_REALTIME {
        return Err(Errno::EINVAL);
    }
    nanoseconds(task.read(args.raw(1))?)?;
    Err(Errno::EPERM)
}

fn clock_adjtime(task: &Arc<Task>, args: &Args) -> SysResult {
    match args.int(0) {
        CLOCK_REALTIME => adjust(task, args.raw(1)),
        clock => now(task, clock).and(Err(Errno::EOPNOTSUPP)),
    }
}

/// `struct timex`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Timex {
    modes: u32,
    pad: u32,
    offset: i64,
    frequency: i64,
    largest_error: i64,
    estimated_error: i64,
    status: i32,
    pad_after_status: u32,
    constant: i64,
    precision: i64,
    tolerance: i64,
    time: Timeval,
    tick: i64,
    rest: [i64; 12],
}

/// What adjusting the clock answers to those who only ask: a clock that nobody steers.
fn adjust(task: &Arc<Task>, address: u64) -> SysResult {
    const ADJ_OFFSET_SS_READ: u32 = 0xa001;
    const STA_UNSYNC: i32 = 0x40;
    const TIME_ERROR: usize = 5;
    let mut given: Timex = task.read(address)?;
    // adjtime(3) with nothing to set only asks.
    if given.modes != 0 && given.modes != ADJ_OFFSET_SS_READ {
        return Err(Errno::EPERM);
    }
    let wall = realtime();
    given = Timex { status: STA_UNSYNC, constant: 2, precision: 1, tolerance: 32_768_000, tick: 10_000, ..Timex::zeroed() };
    given.largest_error = 16_000_000;
    given.estimated_error = 16_000_000;
    given.time = Timeval { tv_sec: wall.tv_sec, tv_usec: wall.tv_nsec / 1000 };
    task.write(address, &given)?;
    Ok(TIME_ERROR)
}

fn gettimeofday(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.raw(0) != 0 {
        let now = realtime();
        task.write(args.raw(0), &Timeval { tv_sec: now.tv_sec, tv_usec: now.tv_nsec / 1000 })?;
    }
    if args.raw(1) != 0 {
        // `struct timezone`: always UTC.
        task.write(args.raw(1), &[0_i32; 2])?;
    }
    Ok(0)
}

fn time(task: &Arc<Task>, args: &Args) -> SysResult {
    let now = realtime().tv_sec;
    if args.raw(0) != 0 {
        task.write(args.raw(0), &now)?;
    }
    Ok(now as usize)
}

/// Sleeps; a sleep for a time reports what is left, and goes on where it was after a stop.
fn sleep(task: &Arc<Task>, deadline: u64, rest: Option<u64>) -> SysResult {
    match task.sleep_until(Some(deadline)) {
        WaitError::TimedOut => Ok(0),
        WaitError::Interrupted => {
            let Some(rest) = rest else { return Err(Errno::ERESTARTNOHAND) };
            if rest != 0 {
                task.write(rest, &timespec(deadline.saturating_sub(monotonic_ns())))?;
            }
            *task.restart.lock() = Some(Box::new(move |task| sleep(task, deadline, Some(rest))));
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
    }
}

fn nanosleep(task: &Arc<Task>, args: &Args) -> SysResult {
    let deadline = deadline_after(task.read(args.raw(0))?)?;
    sleep(task, deadline, Some(args.raw(1)))
}

fn clock_nanosleep(task: &Arc<Task>, args: &Args) -> SysResult {
    let clock = args.int(0);
    let time: Timespec = task.read(args.raw(2))?;
    match clock {
        CLOCK_THREAD => return Err(Errno::EOPNOTSUPP),
        CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE | CLOCK_MONOTONIC_RAW => return Err(Errno::EOPNOTSUPP),
        // As where no clock can wake the machine.
        CLOCK_REALTIME_ALARM | CLOCK_BOOTTIME_ALARM => return Err(Errno::EOPNOTSUPP),
        _ => {}
    }
    let absolute = args.uint(1) & raw::TIMER_ABSTIME != 0;
    if matches!(clock, CLOCK_PROCESS | ..0) {
        // Asleep, a process uses no time: what can be waited for is real time only.
        let used = now(task, clock)?;
        let wanted = nanoseconds(time)?;
        let left = if absolute { wanted.saturating_sub(used) } else { wanted };
        return sleep(task, monotonic_ns().saturating_add(left), (!absolute).then_some(args.raw(3)));
    }
    if absolute {
        return sleep(task, deadline_at(clock, time)?, None);
    }
    deadline_at(clock, Timespec::default())?;
    sleep(task, deadline_after(time)?, Some(args.raw(3)))
}

/// `struct itimerval`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct IntervalValue {
    interval: Timeval,
    value: Timeval,
}

fn timeval_ns(time: Timeval) -> Result<u64, Errno> {
    if time.tv_sec < 0 || !(0..1_000_000).contains(&time.tv_usec) {
        return Err(Errno::EINVAL);
    }
    Ok((time.tv_sec as u64).saturating_mul(SECOND).saturating_add(time.tv_usec as u64 * 1000))
}

fn timeval(nanoseconds: u64) -> Timeval {
    Timeval { tv_sec: (nanoseconds / SECOND) as i64, tv_usec: (nanoseconds % SECOND / 1000) as i64 }
}

fn start(value: u64) -> Start {
    if value == 0 { Start::Disarmed } else { Start::After(value) }
}

fn interval_value((left, interval): Left) -> IntervalValue {
    // Less than a microsecond left is not nothing.
    IntervalValue { interval: timeval(interval), value: timeval(if left == 0 { 0 } else { left.max(1000) }) }
}

fn interval_signal(kind: u32) -> Result<i32, Errno> {
    Ok(match kind {
        raw::ITIMER_REAL => raw::SIGALRM,
        raw::ITIMER_VIRTUAL => raw::SIGVTALRM,
        raw::ITIMER_PROF => raw::SIGPROF,
        _ => return Err(Errno::EINVAL),
    } as i32)
}

fn alarm(task: &Arc<Task>, args: &Args) -> SysResult {
    let process = &task.process;
    let new = start(u64::from(args.uint(0)) * SECOND);
    let (left, _) = process.timers.lock().set_interval(process, raw::ITIMER_REAL, raw::SIGALRM as i32, new, 0);
    // Rounded to the nearest second, but an armed timer has at least one.
    Ok(if left == 0 { 0 } else { ((left + SECOND / 2) / SECOND).max(1) as usize })
}

fn setitimer(task: &Arc<Task>, args: &Args) -> SysResult {
    let kind = args.uint(0);
    let signal = interval_signal(kind)?;
    let given: IntervalValue = if args.raw(1) == 0 { IntervalValue::default() } else { task.read(args.raw(1))? };
    let (value, mut interval) = (timeval_ns(given.value)?, timeval_ns(given.interval)?);
    if kind == raw::ITIMER_REAL && value == 0 {
        // Linux keeps the interval of a disarmed timer for the other two only.
        interval = 0;
    }
    let process = &task.process;
    let old = process.timers.lock().set_interval(process, kind, signal, start(value), interval);
    if args.raw(2) != 0 {
        task.write(args.raw(2), &interval_value(old))?;
    }
    Ok(0)
}

fn getitimer(task: &Arc<Task>, args: &Args) -> SysResult {
    interval_signal(args.uint(0))?;
    let left = task.process.timers.lock().interval(args.uint(0));
    task.write(args.raw(1), &interval_value(left))?;
    Ok(0)
}

/// `struct sigevent`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SignalEvent {
    value: u64,
    signal: i32,
    notify: i32,
    thread: i32,
    rest: [i32; 11],
}

/// What a timer made for this clock counts.
fn timer_base(task: &Arc<Task>, clock: i32) -> Result<Base, Errno> {
    let pid = !(clock >> 3);
    Ok(match clock {
        CLOCK_PROCESS => Base::Process(Arc::downgrade(&task.process)),
        CLOCK_THREAD => Base::Thread(Arc::downgrade(task)),
        ..0 if clock & 4 != 0 => {
            cpu_clock(task, clock)?;
            let thread = if pid == 0 { Some(Arc::clone(task)) } else { task.find_task(pid) };
            Base::Thread(Arc::downgrade(&thread.ok_or(Errno::EINVAL)?))
        }
        ..0 => {
            cpu_clock(task, clock)?;
            let process = if pid == 0 { Some(Arc::clone(&task.process)) } else { task.find_process(pid) };
            Base::Process(Arc::downgrade(&process.ok_or(Errno::EINVAL)?))
        }
        CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE | CLOCK_MONOTONIC_RAW => return Err(Errno::EOPNOTSUPP),
        CLOCK_REALTIME_ALARM | CLOCK_BOOTTIME_ALARM => return Err(Errno::EOPNOTSUPP),
        _ => {
            deadline_at(clock, Timespec::default())?;
            Base::Real(clock)
        }
    })
}

fn timer_create(task: &Arc<Task>, args: &Args) -> SysResult {
    let clock = args.int(0);
    let base = timer_base(task, clock)?;
    let notify = match args.raw(1) {
        0 => None,
        address => {
            let event: SignalEvent = task.read(address)?;
            let checked = || if crate::signal::bit(event.signal) == 0 { Err(Errno::EINVAL) } else { Ok(event.signal) };
            let notify = match event.notify as u32 {
                raw::SIGEV_NONE => Notify::Nobody,
                raw::SIGEV_SIGNAL | raw::SIGEV_THREAD => Notify::Process(checked()?),
                raw::SIGEV_THREAD_ID => {
                    let thread = task.find_task(event.thread).ok_or(Errno::EINVAL)?;
                    if !Arc::ptr_eq(&thread.process, &task.process) {
                        return Err(Errno::EINVAL);
                    }
                    Notify::Thread(checked()?, Arc::downgrade(&thread))
                }
                _ => return Err(Errno::EINVAL),
            };
            Some((notify, event.value))
        }
    };
    let number = task.process.timers.lock().create(&task.process, base, notify)?;
    task.write(args.raw(2), &number)?;
    Ok(0)
}

/// `struct itimerspec`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TimerValue {
    interval: Timespec,
    value: Timespec,
}

fn timer_value((left, interval): Left) -> TimerValue {
    TimerValue { interval: timespec(interval), value: timespec(left) }
}

fn timer_settime(task: &Arc<Task>, args: &Args) -> SysResult {
    let key = Key::Posix(args.int(0));
    if args.raw(2) == 0 {
        return Err(Errno::EINVAL);
    }
    let given: TimerValue = task.read(args.raw(2))?;
    let (value, interval) = (nanoseconds(given.value)?, nanoseconds(given.interval)?);
    let base = task.process.timers.lock().base(key)?;
    let new = match (args.uint(1) & raw::TIMER_ABSTIME != 0 && value != 0, base) {
        (true, Base::Real(clock)) => Start::At(deadline_at(clock, given.value)?),
        (true, _) => Start::At(value),
        (false, _) => start(value),
    };
    let old = task.process.timers.lock().set(key, new, interval)?;
    if args.raw(3) != 0 {
        task.write(args.raw(3), &timer_value(old))?;
    }
    Ok(0)
}

fn timer_gettime(task: &Arc<Task>, args: &Args) -> SysResult {
    let left = task.process.timers.lock().get(Key::Posix(args.int(0)))?;
    task.write(args.raw(1), &timer_value(left))?;
    Ok(0)
}

fn timer_getoverrun(task: &Arc<Task>, args: &Args) -> SysResult {
    task.process.timers.lock().overrun(Key::Posix(args.int(0))).map(|count| count as usize)
}

fn timer_delete(task: &Arc<Task>, args: &Args) -> SysResult {
    task.process.timers.lock().delete(Key::Posix(args.int(0))).map(|()| 0)
}
