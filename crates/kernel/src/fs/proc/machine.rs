//! Files about the machine as a whole: its memory is the sandbox's limit, its processors those that the sandbox is told of.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Machine;
use crate::Kernel;
use crate::fs::FILESYSTEMS;
use crate::fs::generated::{Fixed, Listing, Plan};
use crate::namespace::pid::PidNamespace;
use crate::system;
use crate::vfs::inode::FileType;

/// `USER_HZ` ticks.
const TICK_NS: u64 = 10_000_000;

/// `/proc/cmdline`.
pub fn command_line(_kernel: &Arc<Kernel>) -> String {
    "BOOT_IMAGE=/vmlinuz-cloudpilot quiet\n".to_owned()
}

/// `/proc/version`.
pub fn version(_kernel: &Arc<Kernel>) -> String {
    format!("{} version {} (cloudpilot@cloudpilot) (rustc) {}\n", system::NAME, system::RELEASE, system::VERSION)
}

/// `/proc/uptime`.
pub fn uptime(kernel: &Arc<Kernel>) -> String {
    let uptime = kernel.system.uptime_ns();
    let (user, system) = processor_times(kernel);
    let idle = (uptime * u64::from(kernel.cpu_count())).saturating_sub(user + system);
    let seconds = |ns: u64| format!("{}.{:02}", ns / 1_000_000_000, ns / TICK_NS % 100);
    format!("{} {}\n", seconds(uptime), seconds(idle))
}

/// Processor time of all tasks that are or were, guest and kernel.
fn processor_times(kernel: &Arc<Kernel>) -> (u64, u64) {
    let mut user = kernel.system.dead_user_ns.load(Ordering::Relaxed);
    let mut system = kernel.system.dead_system_ns.load(Ordering::Relaxed);
    for task in kernel.tasks.tasks() {
        user += task.user_ns.load(Ordering::Relaxed);
        system += task.system_ns.load(Ordering::Relaxed);
    }
    (user, system)
}

fn running_tasks(kernel: &Arc<Kernel>) -> usize {
    kernel.tasks.tasks().iter().filter(|task| !task.parker.is_sleeping()).count()
}

/// `/proc/loadavg`.
pub fn loadavg(kernel: &Arc<Kernel>, numbers: &PidNamespace) -> String {
    let [one, five, fifteen] = kernel.load_averages();
    let tasks = kernel.tasks.tasks();
    let last = numbers.with_cursor(kernel, |cursor| cursor.last);
    format!("{one:.2} {five:.2} {fifteen:.2} {}/{} {last}\n", running_tasks(kernel), tasks.len())
}

/// `/proc/stat`.
pub fn stat(kernel: &Arc<Kernel>) -> String {
    let uptime = kernel.system.uptime_ns();
    let (user, system) = processor_times(kernel);
    let cpus = u64::from(kernel.cpu_count());
    let line = |name: &str, share: u64, ticks_of: u64| {
        let (user, system) = (user / share, system / share);
        let idle = (uptime * ticks_of).saturating_sub(user + system);
        format!("{name} {} 0 {} {} 0 0 0 0 0 0\n", user / TICK_NS, system / TICK_NS, idle / TICK_NS)
    };
    let mut text = line("cpu ", 1, cpus);
    for index in 0..cpus {
        text.push_str(&line(&format!("cpu{index}"), cpus, 1));
    }
    let forks = kernel.system.forks.load(Ordering::Relaxed).max(kernel.tasks.tasks().len() as u64);
    let _ = write!(text, "intr 0\nctxt 0\nbtime {}\nprocesses {forks}\n", kernel.system.boot_realtime);
    let _ = write!(text, "procs_running {}\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n", running_tasks(kernel));
    text
}

/// `/proc/meminfo`.
pub fn meminfo(kernel: &Arc<Kernel>) -> String {
    let total = kernel.limits.memory_bytes / 1024;
    let used = (kernel.memory.bytes_in_use() / 1024).min(total);
    let free = total - used;
    let rows = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", used),
        ("Inactive", 0),
        ("Active(anon)", used),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", used),
        ("Mapped", 0),
        ("Shmem", 0),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("CommitLimit", total),
        ("Committed_AS", used),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("AnonHugePages", 0),
    ];
    let mut text = String::new();
    for (label, kilobytes) in rows {
        let _ = writeln!(text, "{:<15} {kilobytes:8} kB", format!("{label}:"));
    }
    for label in ["HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp"] {
        let _ = writeln!(text, "{:<16} {:7}", format!("{label}:"), 0);
    }
    text.push_str("Hugepagesize:       2048 kB\nHugetlb:               0 kB\n");
    text
}

/// `/proc/vmstat`.
pub fn vmstat(kernel: &Arc<Kernel>) -> String {
    let pages = |bytes: u64| bytes / cloudpilot_abi::PAGE_SIZE;
    let used = kernel.memory.bytes_in_use();
    let rows = [
        ("nr_free_pages", pages(kernel.limits.memory_bytes.saturating_sub(used))),
        ("nr_anon_pages", pages(used)),
        ("nr_file_pages", 0),
        ("nr_dirty", 0),
        ("nr_writeback", 0),
        ("pgpgin", 0),
        ("pgpgout", 0),
        ("pswpin", 0),
        ("pswpout", 0),
        ("pgfault", 0),
        ("pgmajfault", 0),
        ("oom_kill", 0),
    ];
    rows.iter().map(|(label, value)| format!("{label} {value}\n")).collect()
}

/// `/proc/filesystems`.
pub fn filesystems(_kernel: &Arc<Kernel>) -> String {
    FILESYSTEMS.iter().map(|(name, nodev)| format!("{}\t{name}\n", if *nodev { "nodev" } else { "" })).collect()
}

/// `/proc/devices`.
pub fn devices(_kernel: &Arc<Kernel>) -> String {
    "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n".to_owned()
}

/// `/proc/swaps`.
pub fn swaps(_kernel: &Arc<Kernel>) -> String {
    "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_owned()
}

/// `/proc/cgroups`: only the unified hierarchy is there.
pub fn cgroups(_kernel: &Arc<Kernel>) -> String {
    "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t0\t1\t1\npids\t0\t1\t1\n".to_owned()
}

fn cpu_columns(kernel: &Arc<Kernel>) -> String {
    (0..kernel.cpu_count()).map(|index| format!("{:>11}", format!("CPU{index}"))).collect()
}

/// `/proc/interrupts`: the heading alone.
pub fn interrupts(kernel: &Arc<Kernel>) -> String {
    format!("    {}\n", cpu_columns(kernel))
}

/// `/proc/softirqs`: none happen.
pub fn softirqs(kernel: &Arc<Kernel>) -> String {
    let mut text = format!("                    {}\n", cpu_columns(kernel).trim_start());
    for name in ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"] {
        let zeros: String = (0..kernel.cpu_count()).map(|_| format!("{:>11}", 0)).collect();
        let _ = writeln!(text, "{name:>12}:{zeros}");
    }
    text
}

/// `/proc/tty`.
pub fn tty(machine: &Machine) -> Plan {
    const LISTING: Listing<Machine> = &[
        ("drivers", FileType::Regular, |machine| {
            super::machine_file(machine, |_| {
                "/dev/tty             /dev/tty        5       0 system:/dev/tty\n\
                 /dev/ptmx            /dev/ptmx       5       2 system\n\
                 pty_slave            /dev/pts      136 0-1048575 pty:slave\n\
                 pty_master           /dev/ptm      128 0-1048575 pty:master\n"
                    .to_owned()
            })
        }),
        ("ldiscs", FileType::Regular, |machine| super::machine_file(machine, |_| "n_tty       0\n".to_owned())),
    ];
    Plan::directory(Fixed { about: machine.clone(), listing: LISTING })
}

/// `/proc/sysvipc`.
pub fn sysvipc(machine: &Machine) -> Plan {
    const LISTING: Listing<Machine> = &[
        ("msg", FileType::Regular, |machine| super::numbers_file(machine, message_queues)),
        ("sem", FileType::Regular, |machine| super::machine_file(machine, semaphores)),
        ("shm", FileType::Regular, |machine| super::numbers_file(machine, shared_memory)),
    ];
    Plan::directory(Fixed { about: machine.clone(), listing: LISTING })
}

fn message_queues(kernel: &Arc<Kernel>, numbers: &PidNamespace) -> String {
    let mut text =
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n"
            .to_owned();
    for (id, queue) in kernel.ipc.messages.all() {
        let state = queue.state.lock();
        let (of, count) = (state.permissions, state.messages.len());
        let _ = write!(text, "{:>10} {id:>10}  {:>4o}  {:>10} {count:>10} ", of.key, of.mode, state.bytes);
        let _ = write!(text, "{:>5} {:>5} ", numbers.show(state.last_sender), numbers.show(state.last_receiver));
        let _ = write!(text, "{:>5} {:>5} {:>5} {:>5} ", of.uid, of.gid, of.cuid, of.cgid);
        let _ = writeln!(text, "{:>10} {:>10} {:>10}", state.sent, state.received, state.changed);
    }
    text
}

fn semaphores(kernel: &Arc<Kernel>) -> String {
    let mut text = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n".to_owned();
    for (id, set) in kernel.ipc.semaphores.all() {
        let state = set.state.lock();
        let of = state.permissions;
        let _ = write!(text, "{:>10} {id:>10}  {:>4o} {:>10} ", of.key, of.mode, state.semaphores.len());
        let _ = write!(text, "{:>5} {:>5} {:>5} {:>5} ", of.uid, of.gid, of.cuid, of.cgid);
        let _ = writeln!(text, "{:>10} {:>10}", state.used, state.changed);
    }
    text
}

fn shared_memory(kernel: &Arc<Kernel>, numbers: &PidNamespace) -> String {
    let mut text = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n".to_owned();
    for (id, segment) in kernel.ipc.segments.all() {
        if segment.settle(kernel, &kernel.ipc) {
            continue;
        }
        let state = *segment.state.lock();
        let (of, attachments) = (state.permissions, segment.attachments(kernel));
        let (maker, last) = (numbers.show(segment.maker), numbers.show(segment.last.load(Ordering::Relaxed)));
        let _ = write!(text, "{:>10} {id:>10}  {:>4o} {:>21} ", of.key, of.mode, segment.size);
        let _ = write!(text, "{maker:>5} {last:>5}  {attachments:>5} ");
        let _ = write!(text, "{:>5} {:>5} {:>5} {:>5} ", of.uid, of.gid, of.cuid, of.cgid);
        let _ = write!(text, "{:>10} {:>10} {:>10} ", state.attached, state.detached, state.changed);
        let _ = writeln!(text, "{:>21} {:>21}", segment.memory.allocated(), 0);
    }
    text
}
