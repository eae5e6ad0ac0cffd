//! procfs: `/proc`. Everything is made when it is read; a file about a task that is gone answers `ESRCH`.
//!
//! Locks: readers take the locks of what they show one at a time, never two together.

mod cpu;
mod links;
mod locks;
mod machine;
mod memory;
mod mounts;
mod net;
mod status;
mod subject;
mod sysctl;
mod task;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use cloudpilot_abi::Errno;

use super::generated::{Directory, Entry, Filesystem, Fixed, Kind, Listing, Node, Plan, fixed_entries};
use crate::Kernel;
use crate::namespace::pid::{self, PidNamespace};
use crate::task::Task;
use crate::vfs::Inode;
use crate::vfs::inode::{FileType, LinkTarget};

pub use memory::command_line;
pub use mounts::within_filesystem as root_within;
pub use status::{cpu_list, cpu_mask};
pub use subject::may_trace;

/// `st_dev` of the first procfs.
const DEVICE: u64 = 0x15;
/// `st_dev` of the next one that is mounted: programs tell by it that they look into another namespace.
static NEXT_DEVICE: AtomicU64 = AtomicU64::new(0x100);
/// `PROC_SUPER_MAGIC`.
pub const MAGIC: i64 = 0x9fa0;
/// Cursors of process directories start here, behind those of the fixed entries.
const PID_CURSOR: u64 = 1 << 16;

/// The procfs that the machine boots with.
pub fn root(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    make(kernel, pid::first(), DEVICE)
}

/// A procfs that shows the tasks in a PID namespace, by their numbers in it.
pub fn root_of(kernel: &Arc<Kernel>, numbers: &Arc<PidNamespace>) -> Arc<dyn Inode> {
    make(kernel, numbers, NEXT_DEVICE.fetch_add(1, Ordering::Relaxed))
}

fn make(kernel: &Arc<Kernel>, numbers: &Arc<PidNamespace>, device: u64) -> Arc<dyn Inode> {
    let machine = Machine { kernel: Arc::downgrade(kernel), numbers: Arc::clone(numbers) };
    Node::root(Filesystem { device, magic: MAGIC }, Plan::directory(Root { machine }))
}

/// The process whose directory this is, `/proc/<pid>`.
pub fn process_of(inode: &dyn Inode) -> Option<Arc<crate::task::Process>> {
    inode.as_any().downcast_ref::<Node>()?.process()
}

/// What a procfs is about: the machine, and the numbers by which it names processes.
#[derive(Clone)]
struct Machine {
    kernel: Weak<Kernel>,
    numbers: Arc<PidNamespace>,
}

impl Machine {
    fn upgrade(&self) -> Option<Arc<Kernel>> {
        self.kernel.upgrade()
    }
}

/// A file about the machine.
fn machine_file(machine: &Machine, make: fn(&Arc<Kernel>) -> String) -> Plan {
    let machine = machine.clone();
    Plan::file(move || Ok(make(&machine.upgrade().ok_or(Errno::ENOENT)?).into_bytes()))
}

/// A file about the machine that names processes by the numbers of its reader.
fn numbers_file(machine: &Machine, make: fn(&Arc<Kernel>, &PidNamespace) -> String) -> Plan {
    let machine = machine.clone();
    Plan::file_for(move |reader| {
        let kernel = machine.upgrade().ok_or(Errno::ENOENT)?;
        let numbers = reader.map_or(&machine.numbers, |reader| &reader.process.numbers);
        Ok(make(&kernel, numbers).into_bytes())
    })
}

struct Root {
    machine: Machine,
}

impl Directory for Root {
    fn lookup(&self, name: &[u8]) -> Result<Plan, Errno> {
        if let Some(entry) = LISTING.iter().find(|entry| entry.0.as_bytes() == name) {
            return Ok(entry.2(&self.machine));
        }
        let pid = self.machine.numbers.number(subject::parse_number(name).ok_or(Errno::ENOENT)?);
        let kernel = self.machine.upgrade().ok_or(Errno::ENOENT)?;
        // Threads have directories too, which listings leave out.
        let process = kernel.tasks.process(pid).or_else(|| kernel.tasks.find(pid).map(|task| Arc::clone(&task.process)));
        let process = process.ok_or(Errno::ENOENT)?;
        Ok(task::process_directory(&kernel, &self.machine.numbers, &process))
    }

    fn entries(&self) -> Result<Vec<Entry>, Errno> {
        let kernel = self.machine.upgrade().ok_or(Errno::ENOENT)?;
        let numbers = &self.machine.numbers;
        let processes = kernel.tasks.processes();
        let visible = processes.iter().filter(|process| process.numbers.is_within(numbers));
        let mut shown: Vec<i32> = visible.map(|process| numbers.show(process.pid)).filter(|number| *number > 0).collect();
        shown.sort_unstable();
        let mut entries = fixed_entries(LISTING);
        entries.extend(shown.into_iter().map(|number| Entry {
            name: number.to_string().into_bytes(),
            file_type: FileType::Directory,
            cursor: PID_CURSOR + number as u64,
        }));
        Ok(entries)
    }
}

/// What a procfs calls a task that looks, by the kernel's number; `ENOENT` for one that is not in its namespace.
fn number_of(numbers: &PidNamespace, task: &Task, number: i32) -> Result<i32, Errno> {
    if task.process.numbers.is_within(numbers) { Ok(numbers.show(number)) } else { Err(Errno::ENOENT) }
}

/// The process that looks.
fn own_link(machine: &Machine) -> Plan {
    let numbers = Arc::clone(&machine.numbers);
    let resolve: super::generated::Resolve =
        Box::new(move |task| Ok(LinkTarget::Text(number_of(&numbers, task, task.process.pid)?.to_string().into_bytes())));
    Plan { permissions: 0o777, owner: (0, 0), kind: Kind::Link(resolve) }
}

/// The thread that looks.
fn own_thread_link(machine: &Machine) -> Plan {
    let numbers = Arc::clone(&machine.numbers);
    let resolve: super::generated::Resolve = Box::new(move |task| {
        let (pid, tid) = (number_of(&numbers, task, task.process.pid)?, number_of(&numbers, task, task.tid())?);
        Ok(LinkTarget::Text(format!("{pid}/task/{tid}").into_bytes()))
    });
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
    ("loadavg", FileType::Regular, |machine| numbers_file(machine, machine::loadavg)),
    ("locks", FileType::Regular, |machine| numbers_file(machine, locks::all)),
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
