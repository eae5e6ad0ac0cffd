//! procfs: `/proc`. Everything is made when it is read; a file about a task that is gone answers `ESRCH`.
//!
//! Locks: readers take the locks of what they show one at a time, never two together.

mod cpu;
mod links;
mod machine;
mod memory;
mod mounts;
mod net;
mod status;
mod subject;
mod sysctl;
mod task;

use std::sync::{Arc, Weak};

use cloudpilot_abi::Errno;

use super::generated::{Directory, Entry, Filesystem, Fixed, Kind, Listing, Node, Plan, fixed_entries};
use crate::Kernel;
use crate::vfs::Inode;
use crate::vfs::inode::{FileType, LinkTarget};

pub use memory::command_line;
pub use mounts::within_filesystem as root_within;
pub use status::{cpu_list, cpu_mask};
pub use subject::may_trace;

/// `st_dev` of procfs.
const DEVICE: u64 = 0x15;
/// `PROC_SUPER_MAGIC`.
const MAGIC: i64 = 0x9fa0;
/// Cursors of process directories start here, behind those of the fixed entries.
const PID_CURSOR: u64 = 1 << 16;

/// A procfs that shows this kernel's tasks.
pub fn root(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    Node::root(Filesystem { device: DEVICE, magic: MAGIC }, Plan::directory(Root { kernel: Arc::downgrade(kernel) }))
}

/// The process whose directory this is, `/proc/<pid>`.
pub fn process_of(inode: &dyn Inode) -> Option<Arc<crate::task::Process>> {
    inode.as_any().downcast_ref::<Node>()?.process()
}

/// What the machine's files are about.
type Machine = Weak<Kernel>;

/// A file about the machine.
fn machine_file(machine: &Machine, make: fn(&Arc<Kernel>) -> String) -> Plan {
    let machine = Weak::clone(machine);
    Plan::file(move || Ok(make(&machine.upgrade().ok_or(Errno::ENOENT)?).into_bytes()))
}

struct Root {
    kernel: Machine,
}

impl Directory for Root {
    fn lookup(&self, name: &[u8]) -> Result<Plan, Errno> {
        if let Some(entry) = LISTING.iter().find(|entry| entry.0.as_bytes() == name) {
            return Ok(entry.2(&self.kernel));
        }
        let pid = subject::parse_number(name).ok_or(Errno::ENOENT)?;
        let kernel = self.kernel.upgrade().ok_or(Errno::ENOENT)?;
        // Threads have directories too, which listings leave out.
        let process = kernel.tasks.process(pid).or_else(|| kernel.tasks.find(pid).map(|task| Arc::clone(&task.process)));
        let process = process.ok_or(Errno::ENOENT)?;
        Ok(task::process_directory(&kernel, &process))
    }

    fn entries(&self) -> Result<Vec<Entry>, Errno> {
        let kernel = self.kernel.upgrade().ok_or(Errno::ENOENT)?;
        let mut entries = fixed_entries(LISTING);
        entries.extend(kernel.tasks.processes().iter().map(|process| Entry {
            name: process.pid.to_string().into_bytes(),
            file_type: FileType::Directory,
            cursor: PID_CURSOR + process.pid as u64,
        }));
        Ok(entries)
    }
}

/// The process that looks.
fn own_link(_machine: &Machine) -> Plan {
    let resolve: super::generated::Resolve = Box::new(|task| Ok(LinkTarget::Text(task.process.pid.to_string().into_bytes())));
    Plan { permissions: 0o777, owner: (0, 0), kind: Kind::Link(resolve) }
}

/// The thread that looks.
fn own_thread_link(_machine: &Machine) -> Plan {
    let resolve: super::generated::Resolve =
        Box::new(|task| Ok(LinkTarget::Text(format!("{}/task/{}", task.process.pid, task.tid()).into_bytes())));
    Plan { permissions: 0o777, owner: (0, 0), kind: Kind::Link(resolve) }
}

const LISTING: Listing<Machine> = &[
    ("bus", FileType::Directory, |_| Plan::directory(Fixed { about: (), listing: &[] })),
    ("cgroups", FileType::Regular, |machine| machine_file(machine, machine::cgroups)),
    ("cmdline", FileType::Regular, |machine| machine_file(machine, machine::command_line)),
    ("cpuinfo", FileType::Regular, |machine| machine_file(machine, cpu::cpuinfo)),
    ("devices", FileType::Regular, |machine| machine_file(machine, machine::devices)),
    ("diskstats", FileType::Regular, |machine| machine_file(machine, |_| String::new())),
    ("driver", FileType::Directory, |_| Plan::directory(Fixed { about: (), listing: &[] })),
    ("execdomains", FileType::Regular, |machine| machine_file(machine, |_| "0-0\tLinux           \t[kernel]\n".to_owned())),
    ("filesystems", FileType::Regular, |machine| machine_file(machine, machine::filesystems)),
    ("fs", FileType::Directory, |_| Plan::directory(Fixed { about: (), listing: &[] })),
    ("interrupts", FileType::Regular, |machine| machine_file(machine, machine::interrupts)),
    ("irq", FileType::Directory, |_| Plan::directory(Fixed { about: (), listing: &[] })),
    ("keys", FileType::Regular, |machine| machine_file(machine, |_| String::new())),
    ("loadavg", FileType::Regular, |machine| machine_file(machine, machine::loadavg)),
    ("locks", FileType::Regular, |machine| machine_file(machine, |_| String::new())),
    ("meminfo", FileType::Regular, |machine| machine_file(machine, machine::meminfo)),
    ("misc", FileType::Regular, |machine| machine_file(machine, |_| String::new())),
    ("modules", FileType::Regular, |machine| machine_file(machine, |_| String::new())),
    ("mounts", FileType::Symlink, |_| Plan::link("self/mounts")),
    ("net", FileType::Symlink, |_| Plan::link("self/net")),
    ("partitions", FileType::Regular, |machine| machine_file(machine, |_| "major minor  #blocks  name\n\n".to_owned())),
    ("self", FileType::Symlink, own_link),
    ("softirqs", FileType::Regular, |machine| machine_file(machine, machine::softirqs)),
    ("stat", FileType::Regular, |machine| machine_file(machine, machine::stat)),
    ("swaps", FileType::Regular, |machine| machine_file(machine, machine::swaps)),
    ("sys", FileType::Directory, |machine| sysctl::directory(machine)),
    ("sysvipc", FileType::Directory, |machine| machine::sysvipc(machine)),
    ("thread-self", FileType::Symlink, own_thread_link),
    ("tty", FileType::Directory, |machine| machine::tty(machine)),
    ("uptime", FileType::Regular, |machine| machine_file(machine, machine::uptime)),
    ("version", FileType::Regular, |machine| machine_file(machine, machine::version)),
    ("vmstat", FileType::Regular, |machine| machine_file(machine, machine::vmstat)),
    ("zoneinfo", FileType::Regular, |machine| machine_file(machine, |_| String::new())),
];
