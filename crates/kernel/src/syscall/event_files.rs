//! Files that the kernel makes for events and memory: `eventfd`, `timerfd`, `signalfd`, `inotify`, `memfd_create`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::{Arg, Args, Call, SysResult, blocking};
use crate::fs::inotify::{self, Inotify};
use crate::fs::timerfd::{self, TimerFd, TimerSetting};
use crate::fs::{eventfd, memfd, signalfd};
use crate::signal::SignalSet;
use crate::task::Task;
use crate::vfs::file::File;

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_eventfd, eventfd, &[Arg::Size]),
    Call::full(raw::__NR_eventfd2, eventfd2, &[Arg::Size, Arg::Flags]),
    Call::full(raw::__NR_signalfd, signalfd, &[Arg::Fd, Arg::Ptr, Arg::Size]),
    Call::full(raw::__NR_signalfd4, signalfd4, &[Arg::Fd, Arg::Ptr, Arg::Size, Arg::Flags]),
    Call::full(raw::__NR_timerfd_create, timerfd_create, &[Arg::Int, Arg::Flags]),
    Call::partial(
        raw::__NR_timerfd_settime,
        timerfd_settime,
        &[Arg::Fd, Arg::Flags, Arg::Ptr, Arg::Ptr],
        "changes of the wall clock do not cancel or move a timer",
    ),
    Call::full(raw::__NR_timerfd_gettime, timerfd_gettime, &[Arg::Fd, Arg::Ptr]),
    Call::full(raw::__NR_inotify_init, inotify_init, &[]),
    Call::full(raw::__NR_inotify_init1, inotify_init1, &[Arg::Flags]),
    Call::full(raw::__NR_inotify_rm_watch, inotify_rm_watch, &[Arg::Fd, Arg::Int]),
    Call::partial(raw::__NR_memfd_create, memfd_create, &[Arg::Path, Arg::Flags], "huge pages are refused"),
];

fn eventfd(task: &Arc<Task>, args: &Args) -> SysResult {
    blocking::install(task, eventfd::open(args.uint(0), false, 0), 0)
}

fn eventfd2(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(1);
    if flags & !(raw::EFD_SEMAPHORE | raw::EFD_CLOEXEC | raw::EFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    blocking::install(task, eventfd::open(args.uint(0), flags & raw::EFD_SEMAPHORE != 0, flags), flags)
}

/// Longest name of a memfd: a file name without `memfd:`.
const MEMFD_NAME_MAX: usize = 249;

fn memfd_create(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(1);
    let known = raw::MFD_CLOEXEC | raw::MFD_ALLOW_SEALING | raw::MFD_NOEXEC_SEAL | raw::MFD_EXEC;
    let contrary = raw::MFD_NOEXEC_SEAL | raw::MFD_EXEC;
    if flags & !known != 0 || flags & contrary == contrary {
        return Err(Errno::EINVAL);
    }
    let name = task.read_string(args.raw(0), MEMFD_NAME_MAX + 1, Errno::EINVAL)?;
    let close_on_exec = if flags & raw::MFD_CLOEXEC != 0 { raw::O_CLOEXEC } else { 0 };
    blocking::install(task, memfd::create(task, name, flags), close_on_exec)
}

fn signalfd(task: &Arc<Task>, args: &Args) -> SysResult {
    make_signalfd(task, args, 0)
}

fn signalfd4(task: &Arc<Task>, args: &Args) -> SysResult {
    make_signalfd(task, args, args.uint(3))
}

/// `SIGKILL` and `SIGSTOP`, which are never read.
const UNREADABLE: SignalSet = 1 << (raw::SIGKILL - 1) | 1 << (raw::SIGSTOP - 1);

fn make_signalfd(task: &Arc<Task>, args: &Args, flags: u32) -> SysResult {
    if args.size(2) != size_of::<SignalSet>() || flags & !(raw::O_CLOEXEC | raw::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let set = task.read::<SignalSet>(args.raw(1))? & !UNREADABLE;
    if args.int(0) == -1 {
        return blocking::install(task, signalfd::open(task, set, flags), flags);
    }
    signalfd::change(&*task.file(args.int(0))?, set)?;
    Ok(args.int(0) as usize)
}

/// `CAP_WAKE_ALARM`.
const CAP_WAKE_ALARM: u32 = 35;

fn timerfd_create(task: &Arc<Task>, args: &Args) -> SysResult {
    let (clock, flags) = (args.uint(0), args.uint(1));
    if flags & !(raw::TFD_CLOEXEC | raw::TFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    if matches!(clock, raw::CLOCK_REALTIME_ALARM | raw::CLOCK_BOOTTIME_ALARM) && !task.credentials().has(CAP_WAKE_ALARM) {
        return Err(Errno::EPERM);
    }
    blocking::install(task, timerfd::open(clock, flags)?, flags)
}

fn timer(file: &File) -> Result<&TimerFd, Errno> {
    file.ops_as::<TimerFd>().ok_or(Errno::EINVAL)
}

fn timerfd_settime(task: &Arc<Task>, args: &Args) -> SysResult {
    let setting: TimerSetting = task.read(args.raw(2))?;
    let flags = args.uint(1);
    if flags & !(raw::TFD_TIMER_ABSTIME | raw::TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(args.int(0))?;
    let before = timer(&file)?.set(setting, flags & raw::TFD_TIMER_ABSTIME != 0)?;
    if args.raw(3) != 0 {
        task.write(args.raw(3), &before)?;
    }
    Ok(0)
}

fn timerfd_gettime(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    task.write(args.raw(1), &timer(&file)?.setting()).map(|()| 0)
}

fn inotify_init(task: &Arc<Task>, _args: &Args) -> SysResult {
    blocking::install(task, inotify::open(0), 0)
}

fn inotify_init1(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(0);
    if flags & !(raw::IN_CLOEXEC | raw::IN_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    blocking::install(task, inotify::open(flags), flags)
}

fn inotify_rm_watch(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    file.ops_as::<Inotify>().ok_or(Errno::EINVAL)?.remove(args.int(1)).map(|()| 0)
}
