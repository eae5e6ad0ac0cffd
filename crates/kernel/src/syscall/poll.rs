//! `poll`, `select` and their variants.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::{Timespec, Timeval};
use cloudpilot_abi::{Errno, raw};

use super::blocking::Watching;
use super::{Arg, Args, Call, SysResult};
use crate::signal::SignalSet;
use crate::task::Task;
use crate::vfs::file::File;
use crate::wait::{PollEvents, WaitError, WaitQueue};

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_poll, poll, &[Arg::Ptr, Arg::Size, Arg::Int]),
    Call::full(raw::__NR_ppoll, ppoll, &[Arg::Ptr, Arg::Size, Arg::Ptr, Arg::Ptr, Arg::Size]),
    Call::full(raw::__NR_select, select, &[Arg::Int, Arg::Ptr, Arg::Ptr, Arg::Ptr, Arg::Ptr]),
    Call::full(raw::__NR_pselect6, pselect6, &[Arg::Int, Arg::Ptr, Arg::Ptr, Arg::Ptr, Arg::Ptr, Arg::Ptr]),
];

/// `struct pollfd`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PollFd {
    fd: i32,
    events: i16,
    revents: i16,
}

/// Nanoseconds a second.
const SECOND: u64 = 1_000_000_000;

/// The deadline that a timeout in milliseconds means; negative for none.
pub fn deadline_after_ms(milliseconds: i32) -> Option<u64> {
    u64::try_from(milliseconds).ok().map(|milliseconds| crate::time::monotonic_ns() + milliseconds * 1_000_000)
}

/// The deadline that a timeout means; `EINVAL` if it is no proper time.
pub fn deadline_after(timeout: Timespec) -> Result<u64, Errno> {
    if timeout.tv_sec < 0 || !(0..SECOND as i64).contains(&timeout.tv_nsec) {
        return Err(Errno::EINVAL);
    }
    let length = (timeout.tv_sec as u64).saturating_mul(SECOND).saturating_add(timeout.tv_nsec as u64);
    Ok(crate::time::monotonic_ns().saturating_add(length))
}

/// The signal mask of `ppoll(2)` and friends, if given.
pub fn read_mask(task: &Task, address: u64, size: usize) -> Result<Option<SignalSet>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    if size != size_of::<SignalSet>() {
        return Err(Errno::EINVAL);
    }
    task.read(address).map(Some)
}

/// One file of a call, with what is asked of it.
struct Interest {
    file: Arc<File>,
    wanted: PollEvents,
}

impl Interest {
    fn ready(&self) -> PollEvents {
        self.file.ops.poll(&self.file) & self.wanted
    }
}

/// Waits until `count_ready` answers something else than 0, or the deadline passes.
fn wait(task: &Task, interests: &[Interest], deadline: Option<u64>, mut count_ready: impl FnMut() -> usize) -> SysResult {
    let ready = count_ready();
    if ready > 0 || deadline.is_some_and(|deadline| deadline <= crate::time::monotonic_ns()) {
        return Ok(ready);
    }
    let _watching: Vec<Watching<'_>> = interests.iter().map(|interest| Watching::new(&*interest.file.ops)).collect();
    let queues: Vec<(&WaitQueue, PollEvents)> =
        interests.iter().filter_map(|interest| interest.file.ops.queue().map(|queue| (queue, interest.wanted))).collect();
    let attempt = || match count_ready() {
        0 => None,
        ready => Some(ready),
    };
    match task.block_on_each(&queues, deadline, attempt) {
        Ok(ready) => Ok(ready),
        Err(WaitError::TimedOut) => Ok(0),
        Err(WaitError::Interrupted) => Err(Errno::ERESTARTNOHAND),
    }
}

fn poll(task: &Arc<Task>, args: &Args) -> SysResult {
    let deadline = deadline_after_ms(args.int(2));
    let (address, count) = (args.raw(0), args.uint(1));
    match poll_until(task, address, count, deadline) {
        Err(Errno::ERESTARTNOHAND) => {
            // After a stop and continue the rest of the time is waited for, without the program's doing.
            *task.restart.lock() = Some(Box::new(move |task| poll_until(task, address, count, deadline)));
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
        result => result,
    }
}

fn poll_until(task: &Arc<Task>, address: u64, count: u32, deadline: Option<u64>) -> SysResult {
    if u64::from(count) > task.process.limits.lock().soft(raw::RLIMIT_NOFILE) {
        return Err(Errno::EINVAL);
    }
    let mut entries: Vec<PollFd> = task.read_slice(address, count as usize)?;
    let mut interests = Vec::with_capacity(entries.len());
    let mut indices = Vec::with_capacity(entries.len());
    let mut invalid = 0;
    for (index, entry) in entries.iter_mut().enumerate() {
        entry.revents = 0;
        if entry.fd < 0 {
            continue;
        }
        match task.file(entry.fd) {
            Ok(file) => {
                let asked = PollEvents::from_bits_truncate(u32::from(entry.events as u16));
                interests.push(Interest { file, wanted: asked | PollEvents::ERR | PollEvents::HUP });
                indices.push(index);
            }
            Err(_) => {
                entry.revents = PollEvents::NVAL.bits() as i16;
                invalid += 1;
            }
        }
    }
    let deadline = if invalid > 0 { Some(0) } else { deadline };
    let ready = wait(task, &interests, deadline, || {
        let mut ready = 0;
        for (interest, &index) in interests.iter().zip(&indices) {
            let events = interest.ready();
            entries[index].revents = events.bits() as i16;
            ready += usize::from(!events.is_empty());
        }
        ready
    })?;
    task.write_slice(address, &entries)?;
    Ok(ready + invalid)
}

fn ppoll(task: &Arc<Task>, args: &Args) -> SysResult {
    let timeout: Option<Timespec> = if args.raw(2) == 0 { None } else { Some(task.read(args.raw(2))?) };
    let deadline = timeout.map(deadline_after).transpose()?;
    let mask = read_mask(task, args.raw(3), args.size(4))?;
    let result = crate::signal::with_temporary_mask(task, mask, || poll_until(task, args.raw(0), args.uint(1), deadline));
    write_left(task, deadline, |left| task.write(args.raw(2), &left));
    result
}

/// Stores the time that is left, as Linux does; a timeout in read-only memory is no error.
fn write_left(_task: &Task, deadline: Option<u64>, store: impl FnOnce(Timespec) -> Result<(), Errno>) {
    if let Some(deadline) = deadline {
        let left = deadline.saturating_sub(crate::time::monotonic_ns());
        let _ = store(Timespec { tv_sec: (left / SECOND) as i64, tv_nsec: (left % SECOND) as i64 });
    }
}

/// The three sets of `select(2)`, with what each waits for.
const SELECT_EVENTS: [PollEvents; 3] = [
    PollEvents::IN.union(PollEvents::RDNORM).union(PollEvents::RDBAND).union(PollEvents::HUP).union(PollEvents::ERR),
    PollEvents::OUT.union(PollEvents::WRNORM).union(PollEvents::WRBAND).union(PollEvents::ERR),
    PollEvents::PRI,
];

fn select_until(task: &Arc<Task>, args: &Args, deadline: Option<u64>) -> SysResult {
    let count = usize::try_from(args.int(0)).map_err(|_| Errno::EINVAL)?;
    // Linux looks at no more than the table holds.
    let count = count.min(task.files().numbers().last().map_or(0, |last| *last as usize + 1).next_multiple_of(64));
    let words = count.div_ceil(64);
    let addresses = [args.raw(1), args.raw(2), args.raw(3)];
    let mut asked = [const { Vec::new() }; 3];
    for (set, &address) in asked.iter_mut().zip(&addresses) {
        *set = if address == 0 { vec![0u64; words] } else { task.read_slice::<u64>(address, words)? };
    }
    let mut interests = Vec::new();
    let mut numbers = Vec::new();
    for fd in 0..count {
        let (word, bit) = (fd / 64, 1u64 << (fd % 64));
        let mut wanted = PollEvents::empty();
        for (set, events) in asked.iter().zip(SELECT_EVENTS) {
            if set[word] & bit != 0 {
                wanted |= events;
            }
        }
        if !wanted.is_empty() {
            interests.push(Interest { file: task.files().get(fd as i32)?, wanted });
            numbers.push(fd);
        }
    }
    let mut found = [vec![0u64; words], vec![0u64; words], vec![0u64; words]];
    let ready = wait(task, &interests, deadline, || {
        let mut ready = 0;
        for (interest, &fd) in interests.iter().zip(&numbers) {
            // What only stands for a place is no file to wait for: it counts as ready, for whoever asks finds out.
            let only_place = interest.file.flags() & raw::O_PATH != 0;
            let events = if only_place { interest.wanted } else { interest.ready() };
            let (word, bit) = (fd / 64, 1u64 << (fd % 64));
            for ((set, asked), wanted) in found.iter_mut().zip(&asked).zip(SELECT_EVENTS) {
                if asked[word] & bit != 0 && events.intersects(wanted) {
                    set[word] |= bit;
                    ready += 1;
                }
            }
        }
        ready
    })?;
    for (set, &address) in found.iter().zip(&addresses) {
        if address != 0 {
            task.write_slice(address, set)?;
        }
    }
    Ok(ready)
}

fn select(task: &Arc<Task>, args: &Args) -> SysResult {
    let deadline = match args.raw(4) {
        0 => None,
        address => {
            let timeout: Timeval = task.read(address)?;
            if timeout.tv_sec < 0 || timeout.tv_usec < 0 {
                return Err(Errno::EINVAL);
            }
            let seconds = timeout.tv_sec.saturating_add(timeout.tv_usec / 1_000_000);
            Some(deadline_after(Timespec { tv_sec: seconds, tv_nsec: timeout.tv_usec % 1_000_000 * 1000 })?)
        }
    };
    let result = select_until(task, args, deadline);
    write_left(task, deadline, |left| task.write(args.raw(4), &Timeval { tv_sec: left.tv_sec, tv_usec: left.tv_nsec / 1000 }));
    result
}

fn pselect6(task: &Arc<Task>, args: &Args) -> SysResult {
    let deadline = match args.raw(4) {
        0 => None,
        address => Some(deadline_after(task.read(address)?)?),
    };
    // The sixth argument points to the mask's address and its size.
    let mask = match args.raw(5) {
        0 => None,
        address => {
            let [mask, size]: [u64; 2] = task.read(address)?;
            read_mask(task, mask, size as usize)?
        }
    };
    let result = crate::signal::with_temporary_mask(task, mask, || select_until(task, args, deadline));
    write_left(task, deadline, |left| task.write(args.raw(4), &left));
    result
}
