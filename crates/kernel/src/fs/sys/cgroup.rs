//! The unified control-group hierarchy as seen from inside: one group, with the sandbox's own limits. Runtimes size themselves by it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use cloudpilot_abi::Errno;

use super::{Machine, made, text};
use crate::Kernel;
use crate::fs::generated::{Filesystem, Fixed, Listing, Node, Plan};
use crate::fs::proc::cpu_list;
use crate::task::Task;
use crate::task::activity::Flow;
use crate::vfs::Inode;
use crate::vfs::inode::FileType;

/// `st_dev` of the hierarchy.
const DEVICE: u64 = 0x17;
/// `CGROUP2_SUPER_MAGIC`.
const MAGIC: i64 = 0x6367_7270;
/// Period of the processor quota, microseconds.
const PERIOD: u32 = 100_000;

/// The hierarchy.
pub fn root(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    let plan = Plan::directory(Fixed { about: Arc::downgrade(kernel), listing: LISTING });
    Node::root(Filesystem { device: DEVICE, magic: MAGIC }, plan)
}

fn processes(kernel: &Arc<Kernel>) -> Vec<i32> {
    kernel.tasks.processes().iter().map(|process| process.pid).collect()
}

fn threads(kernel: &Arc<Kernel>) -> Vec<i32> {
    kernel.tasks.tasks().iter().map(|task| task.tid()).collect()
}

/// Every process is in the one group already: putting it there changes nothing.
fn members(machine: &Machine, find: fn(&Arc<Kernel>) -> Vec<i32>) -> Plan {
    let machine = Weak::clone(machine);
    let show = move |reader: Option<&Task>| {
        let numbers = find(&machine.upgrade().ok_or(Errno::ENOENT)?);
        let shown = numbers.into_iter().map(|number| reader.map_or(number, |reader| reader.shows(number)));
        Ok(shown.map(|number| format!("{number}\n")).collect::<String>().into_bytes())
    };
    Plan::file_for(show).mode(0o644).taking(|_, _| Ok(()))
}

fn cpu_stat(kernel: &Arc<Kernel>) -> String {
    let mut user = kernel.system.dead_user_ns.load(Ordering::Relaxed);
    let mut system = kernel.system.dead_system_ns.load(Ordering::Relaxed);
    for task in kernel.tasks.tasks() {
        user += task.user_ns.load(Ordering::Relaxed);
        system += task.system_ns.load(Ordering::Relaxed);
    }
    let (user, system) = (user / 1000, system / 1000);
    format!(
        "usage_usec {}\nuser_usec {user}\nsystem_usec {system}\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\nnr_bursts 0\nburst_usec 0\n",
        user + system
    )
}

fn memory_current(kernel: &Arc<Kernel>) -> String {
    format!("{}\n", kernel.memory.bytes_in_use())
}

fn memory_stat(kernel: &Arc<Kernel>) -> String {
    let used = kernel.memory.bytes_in_use();
    let rows = [
        ("anon", used),
        ("file", 0),
        ("kernel", 0),
        ("kernel_stack", 0),
        ("pagetables", 0),
        ("sock", 0),
        ("shmem", 0),
        ("file_mapped", 0),
        ("file_dirty", 0),
        ("file_writeback", 0),
        ("inactive_anon", 0),
        ("active_anon", used),
        ("inactive_file", 0),
        ("active_file", 0),
        ("unevictable", 0),
        ("slab_reclaimable", 0),
        ("slab_unreclaimable", 0),
        ("slab", 0),
        ("pgfault", 0),
        ("pgmajfault", 0),
    ];
    rows.iter().map(|(label, value)| format!("{label} {value}\n")).collect()
}

/// Of files of the host, as one device: nothing is told of where they lie.
fn io_stat(kernel: &Arc<Kernel>) -> String {
    let Flow { bytes_in, bytes_out, operations_in, operations_out } = kernel.activity().storage;
    if operations_in + operations_out == 0 {
        return String::new();
    }
    format!("254:0 rbytes={bytes_in} wbytes={bytes_out} rios={operations_in} wios={operations_out} dbytes=0 dios=0\n")
}

fn tasks(kernel: &Arc<Kernel>) -> String {
    format!("{}\n", kernel.tasks.tasks().len())
}

fn effective_cpus(kernel: &Arc<Kernel>) -> String {
    cpu_list(kernel.online_cpus()) + "\n"
}

const LISTING: Listing<Weak<Kernel>> = &[
    ("cgroup.controllers", FileType::Regular, |_| text("cpuset cpu io memory pids\n")),
    ("cgroup.events", FileType::Regular, |_| text("populated 1\nfrozen 0\n")),
    ("cgroup.freeze", FileType::Regular, |_| text("0\n")),
    ("cgroup.max.depth", FileType::Regular, |_| text("0\n")),
    ("cgroup.max.descendants", FileType::Regular, |_| text("0\n")),
    ("cgroup.procs", FileType::Regular, |machine| members(machine, processes)),
    ("cgroup.stat", FileType::Regular, |_| text("nr_descendants 0\nnr_dying_descendants 0\n")),
    ("cgroup.subtree_control", FileType::Regular, |_| text("\n")),
    ("cgroup.threads", FileType::Regular, |machine| members(machine, threads)),
    ("cgroup.type", FileType::Regular, |_| text("domain\n")),
    ("cpu.max", FileType::Regular, |machine| made(machine, |kernel| format!("{} {PERIOD}\n", kernel.cpu_count() * PERIOD))),
    ("cpu.stat", FileType::Regular, |machine| made(machine, cpu_stat)),
    ("cpu.weight", FileType::Regular, |_| text("100\n")),
    ("cpuset.cpus", FileType::Regular, |_| text("\n")),
    ("cpuset.cpus.effective", FileType::Regular, |machine| made(machine, effective_cpus)),
    ("cpuset.mems", FileType::Regular, |_| text("\n")),
    ("cpuset.mems.effective", FileType::Regular, |_| text("0\n")),
    ("io.stat", FileType::Regular, |machine| made(machine, io_stat)),
    ("memory.current", FileType::Regular, |machine| made(machine, memory_current)),
    ("memory.events", FileType::Regular, |_| text("low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n")),
    ("memory.high", FileType::Regular, |_| text("max\n")),
    ("memory.low", FileType::Regular, |_| text("0\n")),
    ("memory.max", FileType::Regular, |machine| made(machine, |kernel| format!("{}\n", kernel.limits.memory_bytes))),
    ("memory.min", FileType::Regular, |_| text("0\n")),
    ("memory.stat", FileType::Regular, |machine| made(machine, memory_stat)),
    ("memory.swap.current", FileType::Regular, |_| text("0\n")),
    ("memory.swap.max", FileType::Regular, |_| text("0\n")),
    ("pids.current", FileType::Regular, |machine| made(machine, tasks)),
    ("pids.events", FileType::Regular, |_| text("max 0\n")),
    ("pids.max", FileType::Regular, |machine| made(machine, |kernel| format!("{}\n", kernel.limits.processes))),
];
