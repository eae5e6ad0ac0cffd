//! Processes and threads: making, replacing, ending, waiting; groups and sessions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, raw};

use super::Arg::{Fd, Flags, Int, Path, Ptr, Signal, Size};
use super::{Args, Call, SysResult, at};
use crate::config::ExitStatus;
use crate::fs::pidfd;
use crate::loader::{self, MAX_STRING};
use crate::namespace::{self, pid::DEEPEST};
use crate::task::clone::{self, CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CloneArguments};
use crate::task::wait::{self, Options, Target};
use crate::task::{Process, Task, exec, exit, session};
use crate::vfs::Walk;
use crate::{ptrace, signal};

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_fork, fork, &[]),
    Call::full(raw::__NR_vfork, vfork, &[]),
    Call::partial(raw::__NR_clone, clone_call, &[Flags, Ptr, Ptr, Ptr, Ptr], "no namespaces of time: EINVAL"),
    Call::partial(raw::__NR_clone3, clone3, &[Ptr, Size], "no namespaces of time; cgroup descriptors are refused"),
    Call::full(raw::__NR_execve, execve, &[Path, Ptr, Ptr]),
    Call::full(raw::__NR_execveat, execveat, &[Fd, Path, Ptr, Ptr, Flags]),
    Call::full(raw::__NR_exit, exit_call, &[Int]),
    Call::full(raw::__NR_exit_group, exit_group, &[Int]),
    Call::full(raw::__NR_wait4, wait4, &[Int, Ptr, Flags, Ptr]),
    Call::full(raw::__NR_waitid, waitid, &[Int, Int, Ptr, Flags, Ptr]),
    Call::full(raw::__NR_getpid, |task, _| Ok(task.process.own_pid() as usize), &[]),
    Call::full(raw::__NR_gettid, |task, _| Ok(task.own_tid() as usize), &[]),
    Call::full(raw::__NR_getppid, getppid, &[]),
    Call::full(raw::__NR_getpgid, getpgid, &[Int]),
    Call::full(raw::__NR_getpgrp, |task, _| Ok(task.shows(session::place(&task.process).0) as usize), &[]),
    Call::full(raw::__NR_setpgid, setpgid, &[Int, Int]),
    Call::full(raw::__NR_getsid, getsid, &[Int]),
    Call::full(raw::__NR_setsid, |task, _| session::start(&task.kernel, &task.process).map(|sid| task.shows(sid) as usize), &[]),
    Call::full(raw::__NR_set_tid_address, set_tid_address, &[Ptr]),
    Call::full(raw::__NR_pidfd_open, pidfd_open, &[Int, Flags]),
    Call::full(raw::__NR_pidfd_send_signal, pidfd_send_signal, &[Fd, Signal, Ptr, Flags]),
    Call::partial(raw::__NR_unshare, unshare, &[Flags], "no namespaces of time: EINVAL"),
    Call::partial(raw::__NR_setns, setns, &[Fd, Flags], "no namespaces of time"),
    Call::partial(
        raw::__NR_reboot,
        reboot,
        &[Int, Int, Int, Ptr],
        "ends a PID namespace; the machine is not the sandbox's to steer: EPERM",
    ),
    Call::full(raw::__NR_process_vm_readv, |task, args| process_vm(task, args, false), &[Int, Ptr, Size, Ptr, Size, Flags]),
    Call::full(raw::__NR_process_vm_writev, |task, args| process_vm(task, args, true), &[Int, Ptr, Size, Ptr, Size, Flags]),
];

fn fork(task: &Arc<Task>, _args: &Args) -> SysResult {
    make(task, &CloneArguments { exit_signal: u64::from(raw::SIGCHLD), ..CloneArguments::default() })
}

fn vfork(task: &Arc<Task>, _args: &Args) -> SysResult {
    let flags = u64::from(raw::CLONE_VM | raw::CLONE_VFORK);
    make(task, &CloneArguments { flags, exit_signal: u64::from(raw::SIGCHLD), ..CloneArguments::default() })
}

fn make(task: &Arc<Task>, arguments: &CloneArguments) -> SysResult {
    clone::clone(task, arguments).map(|tid| tid as usize)
}

fn clone_call(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.raw(0) & 0xffff_ffff;
    let exit_signal = flags & u64::from(raw::CSIGNAL);
    let flags = flags & !u64::from(raw::CSIGNAL);
    if exit_signal > crate::signal::HIGHEST as u64 {
        return Err(Errno::EINVAL);
    }
    // The old call has one place for both numbers.
    let (parent_tid, pidfd) = (args.raw(2), args.raw(2));
    if flags & u64::from(raw::CLONE_PIDFD) != 0 && flags & u64::from(raw::CLONE_THREAD | raw::CLONE_DETACHED) != 0 {
        return Err(Errno::EINVAL);
    }
    make(
        task,
        &CloneArguments {
            flags,
            pidfd,
            child_tid: args.raw(3),
            parent_tid,
            exit_signal,
            stack: args.raw(1),
            tls: args.raw(4),
            wanted: Vec::new(),
        },
    )
}

/// `struct clone_args`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Clone3 {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Size of the first published `struct clone_args`.
const CLONE3_FIRST_SIZE: usize = 64;

fn clone3(task: &Arc<Task>, args: &Args) -> SysResult {
    let size = args.size(1);
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    if size < CLONE3_FIRST_SIZE {
        return Err(Errno::EINVAL);
    }
    let bytes: Vec<u8> = task.read_slice(args.raw(0), size)?;
    let mut given = Clone3::default();
    let known = size.min(size_of::<Clone3>());
    bytemuck::bytes_of_mut(&mut given)[..known].copy_from_slice(&bytes[..known]);
    if bytes[known..].iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let bad_stack = (given.stack == 0) != (given.stack_size == 0);
    let forbidden = u64::from(raw::CSIGNAL | raw::CLONE_DETACHED);
    let thread_with_signal = given.flags & u64::from(raw::CLONE_THREAD | raw::CLONE_PARENT) != 0 && given.exit_signal != 0;
    let too_many = given.set_tid_size > DEEPEST as u64;
    if bad_stack || given.flags & forbidden != 0 || thread_with_signal || too_many || (given.set_tid_size == 0) != (given.set_tid == 0) {
        return Err(Errno::EINVAL);
    }
    if given.flags & CLONE_CLEAR_SIGHAND != 0 && given.flags & u64::from(raw::CLONE_SIGHAND) != 0 {
        return Err(Errno::EINVAL);
    }
    if given.flags & !(u64::from(u32::MAX) | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP) != 0 {
        return Err(Errno::EINVAL);
    }
    if given.flags & CLONE_INTO_CGROUP != 0 {
        // The groups that there are show, but nobody moves between them.
        let fd = i32::try_from(given.cgroup).map_err(|_| Errno::EINVAL)?;
        return Err(task.file(fd).err().unwrap_or(Errno::EBADF));
    }
    let wanted = if given.set_tid_size == 0 { Vec::new() } else { task.read_slice(given.set_tid, given.set_tid_size as usize)? };
    let stack = if given.stack == 0 { 0 } else { given.stack.checked_add(given.stack_size).ok_or(Errno::EINVAL)? };
    make(
        task,
        &CloneArguments {
            flags: given.flags,
            pidfd: given.pidfd,
            child_tid: given.child_tid,
            parent_tid: given.parent_tid,
            exit_signal: given.exit_signal,
            stack,
            tls: given.tls,
            wanted,
        },
    )
}

/// Most strings of one vector: with their pointers they fill the limit of all strings.
const MAX_STRINGS: usize = 1 << 20;

/// A vector of strings, `argv` or `envp`; a null pointer stands for an empty one.
fn strings(task: &Task, address: u64) -> Result<Vec<Vec<u8>>, Errno> {
    let mut strings = Vec::new();
    if address == 0 {
        return Ok(strings);
    }
    let mut total = 0;
    for index in 0..MAX_STRINGS {
        let pointer: u64 = task.read(address.wrapping_add(index as u64 * 8))?;
        if pointer == 0 {
            return Ok(strings);
        }
        let string = task.read_string(pointer, MAX_STRING, Errno::E2BIG)?;
        total += string.len() + 9;
        if total > 8 << 20 {
            return Err(Errno::E2BIG);
        }
        strings.push(string);
    }
    Err(Errno::E2BIG)
}

fn execve(task: &Arc<Task>, args: &Args) -> SysResult {
    let path = task.read_path(args.raw(0))?;
    let file = loader::open_program(&Walk::of(task), &path, 0)?;
    run_program(task, (file, path, false), args.raw(1), args.raw(2))
}

fn execveat(task: &Arc<Task>, args: &Args) -> SysResult {
    let (fd, flags) = (args.int(0), args.uint(4));
    at::check_flags(flags, raw::AT_EMPTY_PATH | raw::AT_SYMLINK_NOFOLLOW)?;
    let path = task.read_path(args.raw(1))?;
    let place = at::lookup_flags(task, fd, args.raw(1), flags)?;
    let file = loader::open_place(task, &Walk::of(task), place)?;
    let name = match (fd, path.as_slice()) {
        (_, [b'/', ..]) | (at::CWD, _) => path,
        (_, []) => format!("/dev/fd/{fd}").into_bytes(),
        _ => [format!("/dev/fd/{fd}/").as_bytes(), &path].concat(),
    };
    let is_lost = name.starts_with(b"/dev/fd/") && task.files().get_with_flag(fd).is_ok_and(|(_, close_on_exec)| close_on_exec);
    run_program(task, (file, name, is_lost), args.raw(2), args.raw(3))
}

/// Runs an opened program under a name, which may be lost by then.
fn run_program(task: &Arc<Task>, (file, name, is_lost): (Arc<crate::vfs::File>, Vec<u8>, bool), argv: u64, envp: u64) -> SysResult {
    let mut arguments = strings(task, argv)?;
    let environment = strings(task, envp)?;
    if arguments.is_empty() {
        // As Linux does since 5.18: programs rely on having a name.
        arguments.push(Vec::new());
    }
    let program = loader::prepare(task, loader::Request { file, name, arguments, environment, is_lost })?;
    let tid = task.tid();
    exec::exec(task, &program)?;
    if task.is_traced.load(Ordering::Relaxed) {
        if ptrace::wants(task, ptrace::EVENT_EXEC) {
            ptrace::at_event(task, ptrace::EVENT_EXEC, tid);
        } else if !task.ptrace.state.lock().seized {
            // So it was before there were events.
            signal::send_to_task(task, &signal::info_from_task(task, raw::SIGTRAP as i32, raw::SI_USER as i32));
        }
    }
    Ok(0)
}

fn exit_call(task: &Arc<Task>, args: &Args) -> SysResult {
    exit::begin_thread_exit(task, args.raw(0) as u8);
    Ok(0)
}

fn exit_group(task: &Arc<Task>, args: &Args) -> SysResult {
    exit::begin_group_exit(&task.process, ExitStatus::Exited(args.raw(0) as u8));
    Ok(0)
}

fn wait4(task: &Arc<Task>, args: &Args) -> SysResult {
    let options = args.uint(2);
    let known = raw::WNOHANG | raw::WUNTRACED | raw::WCONTINUED | raw::__WNOTHREAD | raw::__WCLONE | raw::__WALL;
    if options & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let target = match args.int(0) {
        -1 => Target::Any,
        i32::MIN => return Err(Errno::ESRCH),
        0 => Target::Group(0),
        pid @ 1.. => Target::Process(task.number(pid)),
        group => Target::Group(task.number(-group)),
    };
    let Some(news) = wait::wait(task, &target, Options(options | raw::WEXITED))? else { return Ok(0) };
    if args.raw(1) != 0 {
        task.write(args.raw(1), &news.change.status())?;
    }
    if args.raw(3) != 0 {
        task.write(args.raw(3), &news.usage)?;
    }
    Ok(task.shows(news.pid) as usize)
}

fn waitid(task: &Arc<Task>, args: &Args) -> SysResult {
    let options = args.uint(3);
    let states = raw::WEXITED | raw::WSTOPPED | raw::WCONTINUED;
    let known = states | raw::WNOHANG | raw::WNOWAIT | raw::__WNOTHREAD | raw::__WCLONE | raw::__WALL;
    if options & !known != 0 || options & states == 0 {
        return Err(Errno::EINVAL);
    }
    let id = args.int(1);
    let target = match args.uint(0) {
        raw::P_ALL => Target::Any,
        raw::P_PID if id > 0 => Target::Process(task.number(id)),
        raw::P_PGID if id >= 0 => Target::Group(if id == 0 { 0 } else { task.number(id) }),
        raw::P_PIDFD if id >= 0 => Target::Handle(pidfd::process_of(&*task.file(id)?)?),
        _ => return Err(Errno::EINVAL),
    };
    // A handle that does not block does not wait, and says so.
    let handle = if args.uint(0) == raw::P_PIDFD { Some(task.file(id)?) } else { None };
    let impatient = options & raw::WNOHANG == 0 && handle.is_some_and(|file| file.nonblocking());
    let news = wait::wait(task, &target, Options(options | if impatient { raw::WNOHANG } else { 0 }))?;
    if impatient && news.is_none() {
        return Err(Errno::EAGAIN);
    }
    let info = news.as_ref().map_or_else(wait::no_info, |news| news.info);
    if args.raw(2) != 0 {
        task.write(args.raw(2), &info)?;
    }
    if let (Some(news), true) = (news, args.raw(4) != 0) {
        task.write(args.raw(4), &news.usage)?;
    }
    Ok(0)
}

fn getppid(task: &Arc<Task>, _args: &Args) -> SysResult {
    Ok(task.process.family.lock().parent.upgrade().map_or(0, |parent| task.shows(parent.pid)) as usize)
}

/// A process by number; 0 is the caller's.
fn find(task: &Task, pid: i32) -> Result<Arc<Process>, Errno> {
    if pid == 0 { Ok(Arc::clone(&task.process)) } else { task.find_process(pid).ok_or(Errno::ESRCH) }
}

fn getpgid(task: &Arc<Task>, args: &Args) -> SysResult {
    Ok(task.shows(session::place(&*find(task, args.int(0))?).0) as usize)
}

fn getsid(task: &Arc<Task>, args: &Args) -> SysResult {
    Ok(task.shows(session::place(&*find(task, args.int(0))?).1) as usize)
}

fn setpgid(task: &Arc<Task>, args: &Args) -> SysResult {
    let (pid, group) = (args.int(0), args.int(1));
    // Without a group it is the process that names it.
    if group < 0 || group == 0 && pid < 0 {
        return Err(Errno::EINVAL);
    }
    let own = |number| if number == 0 { 0 } else { task.number(number) };
    session::set_group(&task.kernel, &task.process, own(pid), own(group)).map(|()| 0)
}

fn set_tid_address(task: &Arc<Task>, args: &Args) -> SysResult {
    task.clear_child_tid.store(args.raw(0), Ordering::Relaxed);
    Ok(task.own_tid() as usize)
}

fn pidfd_open(task: &Arc<Task>, args: &Args) -> SysResult {
    let (pid, flags) = (args.int(0), args.uint(1));
    if flags & !raw::O_NONBLOCK != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let process = match task.find_process(pid) {
        Some(process) => process,
        // A thread that leads no process.
        None => return Err(if task.find_task(pid).is_some() { Errno::EINVAL } else { Errno::ESRCH }),
    };
    task.install(pidfd::open(&process, flags), true).map(|fd| fd as usize)
}

/// `PIDFD_SIGNAL_THREAD`, `PIDFD_SIGNAL_THREAD_GROUP`, `PIDFD_SIGNAL_PROCESS_GROUP`: to whom a signal goes.
const SCOPE_THREAD: u32 = 1;
const SCOPE_PROCESS: u32 = 2;
const SCOPE_GROUP: u32 = 4;

fn pidfd_send_signal(task: &Arc<Task>, args: &Args) -> SysResult {
    let scope = args.uint(3);
    if !matches!(scope, 0 | SCOPE_THREAD | SCOPE_PROCESS | SCOPE_GROUP) {
        return Err(Errno::EINVAL);
    }
    let file = task.file(args.int(0))?;
    // Before there were pidfds, a directory of procfs stood for a process.
    let process = pidfd::process_of(&file).or_else(|errno| crate::fs::proc::process_of(&*file.inode).ok_or(errno))?;
    // Who is not in the caller's namespace is out of its reach.
    if !process.numbers.is_within(&task.process.numbers) {
        return Err(Errno::EINVAL);
    }
    if process.is_reaped() {
        return Err(Errno::ESRCH);
    }
    let (number, info) = (args.int(1), args.raw(2));
    match scope {
        SCOPE_THREAD => super::signal::send_to_leader(task, &process, number, info),
        SCOPE_GROUP => super::signal::send_to_led_group(task, &process, number, info),
        _ => super::signal::send_by_handle(task, &process, number, info),
    }
    .map(|()| 0)
}

fn unshare(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(0);
    let threads = raw::CLONE_THREAD | raw::CLONE_SIGHAND | raw::CLONE_VM;
    let harmless = raw::CLONE_FS | raw::CLONE_FILES | raw::CLONE_SYSVSEM;
    if flags & threads != 0 {
        return if task.mm()?.is_shared() { Err(Errno::EINVAL) } else { Ok(0) };
    }
    if flags & !(harmless | namespace::ALL) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & namespace::ALL != 0 {
        namespace::unshare(task, flags & namespace::ALL)?;
    }
    if flags & raw::CLONE_FS != 0 {
        let mut fs = task.fs.lock();
        let state = fs.state.lock().clone();
        *fs = Arc::new(crate::task::FsContext { state: parking_lot::Mutex::new(state) });
    }
    if flags & raw::CLONE_FILES != 0 {
        let files = task.files().duplicate();
        *task.files.lock() = files;
    }
    Ok(0)
}

/// `reboot(2)`: inside a PID namespace, that ends.
fn reboot(task: &Arc<Task>, args: &Args) -> SysResult {
    let numbers = &task.process.numbers;
    if numbers.is_first() || !task.credentials().has_in(&numbers.owner, raw::CAP_SYS_BOOT) {
        return Err(Errno::EPERM);
    }
    let second = [raw::LINUX_REBOOT_MAGIC2, raw::LINUX_REBOOT_MAGIC2A, raw::LINUX_REBOOT_MAGIC2B, raw::LINUX_REBOOT_MAGIC2C];
    if args.uint(0) != raw::LINUX_REBOOT_MAGIC1 || !second.contains(&args.uint(1)) {
        return Err(Errno::EINVAL);
    }
    let signal = match args.uint(2) {
        raw::LINUX_REBOOT_CMD_RESTART | raw::LINUX_REBOOT_CMD_RESTART2 => raw::SIGHUP,
        raw::LINUX_REBOOT_CMD_HALT | raw::LINUX_REBOOT_CMD_POWER_OFF => raw::SIGINT,
        _ => return Err(Errno::EINVAL),
    };
    namespace::pid::reboot(task, signal as u8);
    exit::begin_thread_exit(task, 0);
    Ok(0)
}

fn setns(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    namespace::file::set(task, &file, args.uint(1)).map(|()| 0)
}

fn process_vm(task: &Arc<Task>, args: &Args, write: bool) -> SysResult {
    if args.raw(5) != 0 {
        return Err(Errno::EINVAL);
    }
    let local = task.read_iovec(args.raw(1), args.size(2))?;
    let remote = task.read_iovec(args.raw(3), args.size(4))?;
    let target = task.find_task(args.int(0)).ok_or(Errno::ESRCH)?;
    if !crate::fs::proc::may_trace(task, &target) {
        return Err(Errno::EPERM);
    }
    let mm = target.mm()?;
    let mut total = 0;
    let mut local = local.into_iter().filter(|piece| piece.iov_len > 0).peekable();
    let mut local_done = 0;
    for piece in remote {
        let mut done = 0;
        while done < piece.iov_len {
            let Some(own) = local.peek().copied() else { return Ok(total) };
            let length = (piece.iov_len - done).min(own.iov_len - local_done).min(64 << 10);
            let (from, to) = (piece.iov_base.wrapping_add(done), own.iov_base.wrapping_add(local_done));
            let mut buffer = vec![0; length as usize];
            let count = if write {
                task.read_bytes(to, &mut buffer)?;
                let count = mm.write_foreign(from, &buffer, false).unwrap_or(0);
                target.kick();
                count
            } else {
                let count = mm.read_foreign(from, &mut buffer);
                task.write_bytes(to, &buffer[..count])?;
                count
            };
            total += count;
            if count < length as usize {
                return if total == 0 { Err(Errno::EFAULT) } else { Ok(total) };
            }
            done += length;
            local_done += length;
            if local_done == own.iov_len {
                local.next();
                local_done = 0;
            }
        }
    }
    Ok(total)
}
