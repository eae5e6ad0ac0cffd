//! The machine: names, figures, randomness, the log, personality.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, raw};

use super::Arg::{Flags, Int, Out, Ptr, Size};
use super::{Args, Call, SysResult};
use crate::system;
use crate::task::{Task, usage};

pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_uname, uname, &[Ptr]),
    Call::full(raw::__NR_sethostname, sethostname, &[Ptr, Size]),
    Call::full(raw::__NR_setdomainname, setdomainname, &[Ptr, Size]),
    Call::full(raw::__NR_sysinfo, sysinfo, &[Ptr]),
    Call::full(raw::__NR_getrandom, getrandom, &[Out, Size, Flags]),
    Call::partial(raw::__NR_syslog, syslog, &[Int, Out, Int], "the log holds one line about the boot and takes no others"),
    Call::full(raw::__NR_getcpu, getcpu, &[Ptr, Ptr, Ptr]),
    Call::partial(raw::__NR_personality, personality, &[Flags], "ADDR_NO_RANDOMIZE and the like are remembered without effect"),
    Call::partial(raw::__NR_sysfs, sysfs, &[Int, Ptr, Ptr], "counts and names a fixed list of filesystems"),
    Call::full(raw::__NR_vhangup, vhangup, &[]),
    Call::full(raw::__NR_getrusage, getrusage, &[Int, Ptr]),
    Call::full(raw::__NR_times, times, &[Ptr]),
];

/// `CAP_SYS_ADMIN`.
const CAP_SYS_ADMIN: u32 = 21;
/// `CAP_SYSLOG`.
const CAP_SYSLOG: u32 = 34;
/// `CAP_SYS_TTY_CONFIG`.
const CAP_SYS_TTY_CONFIG: u32 = 26;

/// Longest host or domain name, `__NEW_UTS_LEN`.
const UTS_LENGTH: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct NewUtsname {
    fields: [[u8; UTS_LENGTH + 1]; 6],
}

fn uname(task: &Arc<Task>, args: &Args) -> SysResult {
    let names = Arc::clone(&task.namespaces().uts);
    let (hostname, domainname) = (names.hostname.lock().clone(), names.domainname.lock().clone());
    let mut name = NewUtsname::zeroed();
    let texts = [system::NAME, &hostname, system::RELEASE, system::VERSION, system::MACHINE, &domainname];
    for (field, text) in name.fields.iter_mut().zip(texts) {
        let length = text.len().min(UTS_LENGTH);
        field[..length].copy_from_slice(&text.as_bytes()[..length]);
    }
    task.write(args.raw(0), &name)?;
    Ok(0)
}

fn read_name(task: &Task, args: &Args) -> Result<String, Errno> {
    if !task.credentials().has_in(&task.namespaces().uts.owner, CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let length = usize::try_from(args.int(1)).map_err(|_| Errno::EINVAL)?;
    if length > UTS_LENGTH {
        return Err(Errno::EINVAL);
    }
    let bytes: Vec<u8> = task.read_slice(args.raw(0), length)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
}

fn sethostname(task: &Arc<Task>, args: &Args) -> SysResult {
    let name = read_name(task, args)?;
    *task.namespaces().uts.hostname.lock() = name;
    Ok(0)
}

fn setdomainname(task: &Arc<Task>, args: &Args) -> SysResult {
    let name = read_name(task, args)?;
    *task.namespaces().uts.domainname.lock() = name;
    Ok(0)
}

/// `struct sysinfo`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Sysinfo {
    uptime: i64,
    loads: [u64; 3],
    total_ram: u64,
    free_ram: u64,
    shared_ram: u64,
    buffer_ram: u64,
    total_swap: u64,
    free_swap: u64,
    processes: u16,
    pad: u16,
    pad_to_long: u32,
    total_high: u64,
    free_high: u64,
    unit: u32,
    tail: u32,
}

fn sysinfo(task: &Arc<Task>, args: &Args) -> SysResult {
    let kernel = &task.kernel;
    let used = kernel.memory.bytes_in_use();
    let mut info = Sysinfo::zeroed();
    info.uptime = (kernel.system.uptime_ns() / 1_000_000_000) as i64;
    info.loads = kernel.load_averages().map(|load| (load * 65536.0) as u64);
    info.total_ram = kernel.limits.memory_bytes;
    info.free_ram = kernel.limits.memory_bytes.saturating_sub(used);
    info.processes = kernel.tasks.tasks().len().min(usize::from(u16::MAX)) as u16;
    info.unit = 1;
    task.write(args.raw(0), &info)?;
    Ok(0)
}

/// Bytes that `getrandom` makes at once; between pieces it looks for signals, as Linux does.
const RANDOM_PIECE: usize = 4096;

fn getrandom(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(2);
    if flags & !(raw::GRND_NONBLOCK | raw::GRND_RANDOM | raw::GRND_INSECURE) != 0
        || flags & (raw::GRND_RANDOM | raw::GRND_INSECURE) == raw::GRND_RANDOM | raw::GRND_INSECURE
    {
        return Err(Errno::EINVAL);
    }
    let length = args.size(1).min(i32::MAX as usize);
    let mut piece = [0; RANDOM_PIECE];
    let mut done = 0;
    while done < length {
        if done > 0 && task.interrupted() {
            break;
        }
        let now = (length - done).min(RANDOM_PIECE);
        system::random_bytes(&mut piece[..now]);
        match task.write_bytes(args.raw(0).wrapping_add(done as u64), &piece[..now]) {
            Ok(()) => done += now,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

fn syslog(task: &Arc<Task>, args: &Args) -> SysResult {
    const READ: i32 = 2;
    const READ_ALL: i32 = 3;
    const READ_CLEAR: i32 = 4;
    const CONSOLE_LEVEL: i32 = 8;
    const SIZE_UNREAD: i32 = 9;
    const SIZE_BUFFER: i32 = 10;
    let action = args.int(0);
    if !(0..=SIZE_BUFFER).contains(&action) {
        return Err(Errno::EINVAL);
    }
    if !matches!(action, READ_ALL | SIZE_BUFFER) && !task.credentials().has(CAP_SYSLOG) {
        return Err(Errno::EPERM);
    }
    let line = format!("<5>[    0.000000] {} version {} {}\n", system::NAME, system::RELEASE, system::VERSION);
    match action {
        READ | READ_ALL | READ_CLEAR => {
            let length = usize::try_from(args.int(2)).map_err(|_| Errno::EINVAL)?;
            if args.raw(1) == 0 {
                return Err(Errno::EINVAL);
            }
            let tail = if action == READ { &[][..] } else { &line.as_bytes()[line.len() - length.min(line.len())..] };
            task.write_bytes(args.raw(1), tail)?;
            Ok(tail.len())
        }
        CONSOLE_LEVEL if !(1..=8).contains(&args.int(2)) => Err(Errno::EINVAL),
        SIZE_UNREAD => Ok(0),
        SIZE_BUFFER => Ok(1 << 14),
        _ => Ok(0),
    }
}

fn getcpu(task: &Arc<Task>, args: &Args) -> SysResult {
    let cpu = rustix::thread::sched_getcpu() as u32 % task.kernel.cpu_count();
    let allowed = task.scheduling.lock().cpus(task.kernel.online_cpus());
    // Where the task may not run by its own word, it does not run as far as it can tell.
    let cpu = if allowed & 1 << cpu == 0 { allowed.trailing_zeros() } else { cpu };
    if args.raw(0) != 0 {
        task.write(args.raw(0), &cpu)?;
    }
    if args.raw(1) != 0 {
        task.write(args.raw(1), &0u32)?;
    }
    Ok(0)
}

fn personality(task: &Arc<Task>, args: &Args) -> SysResult {
    const QUERY: u32 = 0xffff_ffff;
    let mut scheduling = task.scheduling.lock();
    let before = scheduling.personality;
    if args.uint(0) != QUERY {
        scheduling.personality = args.uint(0);
    }
    Ok(before as usize)
}

fn sysfs(task: &Arc<Task>, args: &Args) -> SysResult {
    let names = crate::fs::FILESYSTEMS;
    match args.int(0) {
        1 => {
            let wanted = task.read_path(args.raw(1))?;
            names.iter().position(|(name, _)| name.as_bytes() == wanted).ok_or(Errno::EINVAL)
        }
        2 => {
            let (name, _) = names.get(args.uint(1) as usize).ok_or(Errno::EINVAL)?;
            task.write_bytes(args.raw(2), &[name.as_bytes(), b"\0"].concat())?;
            Ok(0)
        }
        3 => Ok(names.len()),
        _ => Err(Errno::EINVAL),
    }
}

fn vhangup(task: &Arc<Task>, _args: &Args) -> SysResult {
    if !task.credentials().has(CAP_SYS_TTY_CONFIG) {
        return Err(Errno::EPERM);
    }
    let terminal = task.process.terminal.lock().clone();
    if let Some(terminal) = terminal {
        terminal.hang_up(&task.kernel);
    }
    Ok(0)
}

fn getrusage(task: &Arc<Task>, args: &Args) -> SysResult {
    const RUSAGE_CHILDREN: i32 = -1;
    const RUSAGE_SELF: i32 = 0;
    const RUSAGE_THREAD: i32 = 1;
    let usage = match args.int(0) {
        RUSAGE_SELF => usage::times(&task.process, None).own(),
        RUSAGE_THREAD => usage::times(&task.process, Some(task)).own(),
        RUSAGE_CHILDREN => usage::times(&task.process, None).children(),
        _ => return Err(Errno::EINVAL),
    };
    task.write(args.raw(1), &usage)?;
    Ok(0)
}

fn times(task: &Arc<Task>, args: &Args) -> SysResult {
    const TICK_NS: u64 = 10_000_000;
    let times = usage::times(&task.process, None);
    let ticks = [times.user_ns, times.system_ns, times.children_user_ns, times.children_system_ns].map(|ns| ns / TICK_NS);
    if args.raw(0) != 0 {
        task.write(args.raw(0), &ticks)?;
    }
    Ok((crate::time::monotonic_ns() / TICK_NS) as usize)
}
