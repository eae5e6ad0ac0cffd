//! sysfs: `/sys`, as much as programs look at: processors, memory nodes, huge pages, the loopback interface.

pub mod cgroup;

use std::sync::{Arc, Weak};

use cloudpilot_abi::Errno;

use super::generated::{Directory, Entry, Filesystem, Fixed, Listing, Node, Plan, fixed_entries};
use super::proc::{cpu_list, cpu_mask};
use crate::Kernel;
use crate::vfs::Inode;
use crate::vfs::inode::FileType;

pub use cgroup::root as cgroup_root;

/// `st_dev` of sysfs.
const DEVICE: u64 = 0x16;
/// `SYSFS_MAGIC`.
const MAGIC: i64 = 0x6265_6572;

/// What files are about.
type Machine = Weak<Kernel>;

/// A sysfs for this kernel.
pub fn root(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    let plan = Plan::directory(Fixed { about: Arc::downgrade(kernel), listing: ROOT });
    Node::root(Filesystem { device: DEVICE, magic: MAGIC }, plan)
}

/// A file made from the kernel's state.
fn made(machine: &Machine, make: fn(&Arc<Kernel>) -> String) -> Plan {
    let machine = Weak::clone(machine);
    Plan::file(move || Ok(make(&machine.upgrade().ok_or(Errno::ENOENT)?).into_bytes()))
}

/// A file that never changes.
fn text(text: &'static str) -> Plan {
    Plan::file(move || Ok(text.as_bytes().to_vec()))
}

/// A directory.
fn directory(machine: &Machine, listing: Listing<Machine>) -> Plan {
    Plan::directory(Fixed { about: Weak::clone(machine), listing })
}

fn online(kernel: &Arc<Kernel>) -> String {
    cpu_list(kernel.online_cpus()) + "\n"
}

fn online_mask(kernel: &Arc<Kernel>) -> String {
    cpu_mask(kernel.online_cpus(), kernel.cpu_count()) + "\n"
}

fn node_memory(kernel: &Arc<Kernel>) -> String {
    let total = kernel.limits.memory_bytes / 1024;
    let used = (kernel.memory.bytes_in_use() / 1024).min(total);
    format!("Node 0 MemTotal:       {total:8} kB\nNode 0 MemFree:        {:8} kB\nNode 0 MemUsed:        {used:8} kB\n", total - used)
}

const EMPTY: Listing<Machine> = &[];

const ROOT: Listing<Machine> = &[
    ("block", FileType::Directory, |machine| directory(machine, EMPTY)),
    ("bus", FileType::Directory, |machine| directory(machine, EMPTY)),
    ("class", FileType::Directory, |machine| directory(machine, CLASS)),
    ("dev", FileType::Directory, |machine| directory(machine, DEV)),
    ("devices", FileType::Directory, |machine| directory(machine, DEVICES)),
    ("firmware", FileType::Directory, |machine| directory(machine, EMPTY)),
    ("fs", FileType::Directory, |machine| directory(machine, FS)),
    ("kernel", FileType::Directory, |machine| directory(machine, KERNEL)),
    ("module", FileType::Directory, |machine| directory(machine, EMPTY)),
    ("power", FileType::Directory, |machine| directory(machine, EMPTY)),
];

const CLASS: Listing<Machine> = &[
    ("block", FileType::Directory, |machine| directory(machine, EMPTY)),
    ("dmi", FileType::Directory, |machine| directory(machine, EMPTY)),
    ("net", FileType::Directory, |machine| {
        directory(machine, &[("lo", FileType::Symlink, |_| Plan::link("../../devices/virtual/net/lo"))])
    }),
    ("tty", FileType::Directory, |machine| directory(machine, EMPTY)),
];

const DEV: Listing<Machine> = &[
    ("block", FileType::Directory, |machine| directory(machine, EMPTY)),
    ("char", FileType::Directory, |machine| directory(machine, EMPTY)),
];

const DEVICES: Listing<Machine> = &[
    ("system", FileType::Directory, |machine| directory(machine, SYSTEM)),
    ("virtual", FileType::Directory, |machine| directory(machine, &[("net", FileType::Directory, |machine| directory(machine, NET))])),
];

const NET: Listing<Machine> = &[("lo", FileType::Directory, |machine| directory(machine, LOOPBACK))];

const LOOPBACK: Listing<Machine> = &[
    ("addr_assign_type", FileType::Regular, |_| text("0\n")),
    ("addr_len", FileType::Regular, |_| text("6\n")),
    ("address", FileType::Regular, |_| text("00:00:00:00:00:00\n")),
    ("broadcast", FileType::Regular, |_| text("00:00:00:00:00:00\n")),
    ("carrier", FileType::Regular, |_| text("1\n")),
    ("flags", FileType::Regular, |_| text("0x9\n")),
    ("ifindex", FileType::Regular, |_| text("1\n")),
    ("iflink", FileType::Regular, |_| text("1\n")),
    ("mtu", FileType::Regular, |_| text("65536\n")),
    ("operstate", FileType::Regular, |_| text("unknown\n")),
    ("tx_queue_len", FileType::Regular, |_| text("1000\n")),
    ("type", FileType::Regular, |_| text("772\n")),
];

const SYSTEM: Listing<Machine> = &[
    ("cpu", FileType::Directory, |machine| Plan::directory(Processors { machine: Weak::clone(machine) })),
    ("node", FileType::Directory, |machine| directory(machine, NODES)),
];

const NODES: Listing<Machine> = &[
    ("has_cpu", FileType::Regular, |_| text("0\n")),
    ("has_memory", FileType::Regular, |_| text("0\n")),
    ("has_normal_memory", FileType::Regular, |_| text("0\n")),
    ("node0", FileType::Directory, |machine| directory(machine, NODE)),
    ("online", FileType::Regular, |_| text("0\n")),
    ("possible", FileType::Regular, |_| text("0\n")),
];

const NODE: Listing<Machine> = &[
    ("cpulist", FileType::Regular, |machine| made(machine, online)),
    ("cpumap", FileType::Regular, |machine| made(machine, online_mask)),
    ("distance", FileType::Regular, |_| text("10\n")),
    ("meminfo", FileType::Regular, |machine| made(machine, node_memory)),
    ("numastat", FileType::Regular, |_| text("numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\nlocal_node 0\nother_node 0\n")),
];

const FS: Listing<Machine> = &[("cgroup", FileType::Directory, |machine| directory(machine, EMPTY))];

const KERNEL: Listing<Machine> = &[
    ("debug", FileType::Directory, |machine| directory(machine, EMPTY)),
    ("mm", FileType::Directory, |machine| directory(machine, MM)),
    ("security", FileType::Directory, |machine| directory(machine, EMPTY)),
];

const MM: Listing<Machine> = &[
    ("hugepages", FileType::Directory, |machine| directory(machine, EMPTY)),
    ("transparent_hugepage", FileType::Directory, |machine| directory(machine, HUGE_PAGES)),
];

const HUGE_PAGES: Listing<Machine> = &[
    ("defrag", FileType::Regular, |_| text("always defer defer+madvise madvise [never]\n")),
    ("enabled", FileType::Regular, |_| text("always madvise [never]\n")),
    ("hpage_pmd_size", FileType::Regular, |_| text("2097152\n")),
    ("shmem_enabled", FileType::Regular, |_| text("always within_size advise [never] deny force\n")),
    ("use_zero_page", FileType::Regular, |_| text("1\n")),
];

/// `/sys/devices/system/cpu`: fixed files, and a directory for each processor.
struct Processors {
    machine: Machine,
}

const PROCESSORS: Listing<Machine> = &[
    ("isolated", FileType::Regular, |_| text("\n")),
    ("kernel_max", FileType::Regular, |_| text("63\n")),
    ("nohz_full", FileType::Regular, |_| text("(null)\n")),
    ("offline", FileType::Regular, |_| text("\n")),
    ("online", FileType::Regular, |machine| made(machine, online)),
    ("possible", FileType::Regular, |machine| made(machine, online)),
    ("present", FileType::Regular, |machine| made(machine, online)),
];

impl Directory for Processors {
    fn lookup(&self, name: &[u8]) -> Result<Plan, Errno> {
        if let Some(entry) = PROCESSORS.iter().find(|entry| entry.0.as_bytes() == name) {
            return Ok(entry.2(&self.machine));
        }
        let count = self.machine.upgrade().ok_or(Errno::ENOENT)?.cpu_count();
        let number = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix("cpu"));
        let index = number.and_then(|number| number.parse::<u32>().ok().filter(|index| index.to_string() == number && *index < count));
        let processor = Processor { machine: Weak::clone(&self.machine), index: index.ok_or(Errno::ENOENT)? };
        Ok(Plan::directory(Fixed { about: processor, listing: PROCESSOR }))
    }

    fn entries(&self) -> Result<Vec<Entry>, Errno> {
        let count = self.machine.upgrade().ok_or(Errno::ENOENT)?.cpu_count();
        let mut entries = fixed_entries(PROCESSORS);
        let first = entries.len() as u64 + 3;
        entries.extend((0..u64::from(count)).map(|index| Entry {
            name: format!("cpu{index}").into_bytes(),
            file_type: FileType::Directory,
            cursor: first + index,
        }));
        Ok(entries)
    }
}

/// One processor.
#[derive(Clone)]
struct Processor {
    machine: Machine,
    index: u32,
}

impl Processor {
    /// A file made from the processor's number.
    fn file(&self, make: fn(&Arc<Kernel>, u32) -> String) -> Plan {
        let Self { machine, index } = self.clone();
        Plan::file(move || Ok(make(&machine.upgrade().ok_or(Errno::ENOENT)?, index).into_bytes()))
    }
}

const PROCESSOR: Listing<Processor> = &[
    ("crash_notes_size", FileType::Regular, |_| text("0\n")),
    ("online", FileType::Regular, |_| text("1\n")),
    ("topology", FileType::Directory, |processor| Plan::directory(Fixed { about: processor.clone(), listing: TOPOLOGY })),
];

fn own_mask(kernel: &Arc<Kernel>, index: u32) -> String {
    cpu_mask(1 << index, kernel.cpu_count()) + "\n"
}

fn own_list(_kernel: &Arc<Kernel>, index: u32) -> String {
    format!("{index}\n")
}

fn all_mask(kernel: &Arc<Kernel>, _index: u32) -> String {
    online_mask(kernel)
}

fn all_list(kernel: &Arc<Kernel>, _index: u32) -> String {
    online(kernel)
}

/// One package of cores with one thread each.
const TOPOLOGY: Listing<Processor> = &[
    ("core_cpus", FileType::Regular, |processor| processor.file(own_mask)),
    ("core_cpus_list", FileType::Regular, |processor| processor.file(own_list)),
    ("core_id", FileType::Regular, |processor| processor.file(own_list)),
    ("core_siblings", FileType::Regular, |processor| processor.file(all_mask)),
    ("core_siblings_list", FileType::Regular, |processor| processor.file(all_list)),
    ("die_id", FileType::Regular, |_| text("0\n")),
    ("package_cpus", FileType::Regular, |processor| processor.file(all_mask)),
    ("package_cpus_list", FileType::Regular, |processor| processor.file(all_list)),
    ("physical_package_id", FileType::Regular, |_| text("0\n")),
    ("thread_siblings", FileType::Regular, |processor| processor.file(own_mask)),
    ("thread_siblings_list", FileType::Regular, |processor| processor.file(own_list)),
];
