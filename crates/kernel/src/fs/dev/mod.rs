//! Devices: what opening a device node gives, and the nodes of `/dev`.
//!
//! `/dev` itself is a tmpfs: programs may add to it. Device nodes anywhere lead here by their number.

mod memory;

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use crate::task::{Credentials, Task};
use crate::vfs::inode::{FileType, NewNode, SetAttributes};
use crate::vfs::{FileOps, Inode};

/// Major number of the memory devices.
const MEMORY: u32 = 1;
/// Major number of the terminals that stand for others.
const TERMINAL: u32 = 5;
/// Major number of pseudoterminal slaves.
pub const SLAVES: u32 = 136;

/// A device number as `st_rdev` and `mknod(2)` have it.
pub const fn number(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (major & 0xfff) << 8 | minor & 0xff | (minor & 0xffff_ff00) << 12 | (major & 0xffff_f000) << 32
}

/// The parts of a device number.
pub const fn parts(number: u64) -> (u32, u32) {
    let major = number >> 8 & 0xfff | number >> 32 & 0xffff_f000;
    let minor = number & 0xff | number >> 12 & 0xffff_ff00;
    (major as u32, minor as u32)
}

/// Opens a character device by its number; `ENXIO` for what does not exist, block devices among them.
pub fn open_device(device: u64, flags: u32, task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
    match parts(device) {
        (MEMORY, 3) => Ok(Arc::new(memory::Null)),
        (MEMORY, 5) => Ok(Arc::new(memory::Zero { memory: Arc::clone(&task.kernel.memory) })),
        (MEMORY, 7) => Ok(Arc::new(memory::Full)),
        (MEMORY, 8 | 9) => Ok(Arc::new(memory::Random)),
        (TERMINAL, 0 | 1) => {
            let terminal = task.process.terminal.lock().clone().ok_or(Errno::ENXIO)?;
            terminal.open_slave(flags | raw::O_NOCTTY, task)
        }
        (TERMINAL, 2) => task.kernel.terminals.open_master(&task.kernel, task),
        (SLAVES, index) => task.kernel.terminals.find(index).ok_or(Errno::EIO)?.open_slave(flags, task),
        _ => Err(Errno::ENXIO),
    }
}

/// Character devices of `/dev`: name, number, permissions.
const NODES: [(&str, u64, u32); 7] = [
    ("null", number(MEMORY, 3), 0o666),
    ("zero", number(MEMORY, 5), 0o666),
    ("full", number(MEMORY, 7), 0o666),
    ("random", number(MEMORY, 8), 0o666),
    ("urandom", number(MEMORY, 9), 0o666),
    ("tty", number(TERMINAL, 0), 0o666),
    ("console", number(TERMINAL, 1), 0o620),
];

/// Links of `/dev`.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];

/// Directories of `/dev`: a devpts, a tmpfs and an mqueue belong on them.
const DIRECTORIES: [(&str, u32); 3] = [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777)];

/// Fills an empty directory with the nodes of `/dev`.
pub fn populate(root: &Arc<dyn Inode>) -> Result<(), Errno> {
    let owner = Credentials::new(0, 0, Vec::new());
    let with_mode = |inode: Arc<dyn Inode>, permissions: u32| {
        inode.set_attributes(&SetAttributes { permissions: Some(permissions), ..SetAttributes::default() })
    };
    for (name, device, permissions) in NODES {
        let node = NewNode::Device(FileType::CharacterDevice, device);
        with_mode(root.create(name.as_bytes(), node, permissions, &owner)?, permissions)?;
    }
    for (name, target) in LINKS {
        root.create(name.as_bytes(), NewNode::Symlink(target.as_bytes()), 0o777, &owner)?;
    }
    for (name, permissions) in DIRECTORIES {
        with_mode(root.create(name.as_bytes(), NewNode::Directory, permissions, &owner)?, permissions)?;
    }
    Ok(())
}
