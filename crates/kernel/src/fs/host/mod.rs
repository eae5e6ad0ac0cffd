//! Host directories reached by handles: what a handle's mount does not contain cannot be named. Every look-up is one component, beneath the
//! handle, no links followed, no magic links. Used in two ways: as the read-only lower layer of a [`tmpfs`](crate::fs::tmpfs), and writable as
//! a volume ([`volume`]).

pub mod file;
pub mod owners;
pub mod volume;

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use cloudpilot_abi::Errno;
use cloudpilot_abi::types::Timespec;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};

use self::owners::Owners;
use crate::vfs::inode::{Attributes, FileType};

/// Owner that the host's user namespace shows for users it does not map; inside they are root's, as the host's own root usually is. So is what
/// belongs to the starter: it is all that the starter's sandbox may change on the host.
const OVERFLOW_ID: u32 = 65_534;

/// Descriptors of the lower layer that are kept open though nobody uses them. Hosts may give a process as few as 1024, and a guest that walks
/// over a whole distribution looks at tens of thousands of directories and files: the others are opened again when they are needed.
const KEPT_OPEN: usize = 256;

/// Those, the oldest first.
static KEPT: Mutex<VecDeque<Arc<OwnedFd>>> = Mutex::new(VecDeque::new());

/// A descriptor that is opened when it is needed and closed when it has not been for a while.
#[derive(Default)]
pub struct Reopened {
    descriptor: Mutex<Weak<OwnedFd>>,
}

impl Reopened {
    /// The open descriptor, if it is there.
    fn present(&self) -> Option<Arc<OwnedFd>> {
        self.descriptor.lock().upgrade()
    }

    /// The open descriptor, by `open` if it is not there.
    pub fn get(&self, open: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(descriptor) = self.present() {
            return Ok(descriptor);
        }
        let descriptor = Arc::new(open()?);
        *self.descriptor.lock() = Arc::downgrade(&descriptor);
        let mut kept = KEPT.lock();
        kept.push_back(Arc::clone(&descriptor));
        let oldest = if kept.len() > KEPT_OPEN { kept.pop_front() } else { None };
        // Closed without the lock.
        drop(kept);
        drop(oldest);
        Ok(descriptor)
    }
}

/// How to get at a directory.
enum Way {
    /// By the handle that came with the sandbox.
    Root(Arc<OwnedFd>),
    /// By its name in another one; it has these numbers (device and inode), or is not the one any more.
    Below { parent: Arc<HostDirectory>, name: CString, numbers: (u64, u64), handle: Reopened },
    /// It is being dropped.
    Gone,
}

/// A directory of the host.
pub struct HostDirectory {
    way: Way,
    /// Hide whatever "others" may not read.
    world_readable_only: bool,
    /// What is different inside about this directory and what is in it.
    owners: Option<Arc<Owners>>,
}

impl Drop for HostDirectory {
    fn drop(&mut self) {
        // As for names: those above go one after the other.
        let mut way = std::mem::replace(&mut self.way, Way::Gone);
        while let Way::Below { parent, .. } = way {
            way = Arc::into_inner(parent).map_or(Way::Gone, |mut parent| std::mem::replace(&mut parent.way, Way::Gone));
        }
    }
}

/// One entry found in a host directory.
pub struct HostEntry {
    /// Attributes as of now.
    pub attributes: Attributes,
    /// For directories.
    pub directory: Option<Arc<HostDirectory>>,
    /// For symbolic links.
    pub target: Option<Vec<u8>>,
}

fn host_name(name: &[u8]) -> Result<CString, Errno> {
    CString::new(name).map_err(|_| Errno::ENOENT)
}

fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error() as u16)
}

/// A handle to a directory in another one; `ESTALE` if another one has taken its name.
fn open_below(above: &OwnedFd, name: &CStr, numbers: (u64, u64)) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::openat2(above, name, flags, Mode::empty(), resolve()).map_err(errno)?;
    let attributes = statx(found.as_fd(), c"")?;
    if (attributes.device, attributes.inode) == numbers { Ok(found) } else { Err(Errno::ESTALE) }
}

impl HostDirectory {
    /// A root, by its handle.
    pub fn root(handle: OwnedFd, world_readable_only: bool, owners: Option<Arc<Owners>>) -> Arc<Self> {
        Arc::new(Self { way: Way::Root(Arc::new(handle)), world_readable_only, owners })
    }

    fn handle(self: &Arc<Self>) -> Result<Arc<OwnedFd>, Errno> {
        // Up to the first directory that is open, and down again: not by recursion, since the tree may be deeper than the stack.
        let mut closed: Vec<Arc<Self>> = Vec::new();
        let mut at = Arc::clone(self);
        let mut above = loop {
            let parent = match &at.way {
                Way::Root(handle) => break Arc::clone(handle),
                Way::Gone => return Err(Errno::ESTALE),
                Way::Below { parent, handle, .. } => match handle.present() {
                    Some(handle) => break handle,
                    None => Arc::clone(parent),
                },
            };
            closed.push(std::mem::replace(&mut at, parent));
        };
        for directory in closed.iter().rev() {
            if let Way::Below { name, numbers, handle, .. } = &directory.way {
                above = handle.get(|| open_below(&above, name, *numbers))?;
            }
        }
        Ok(above)
    }

    /// Attributes of the directory itself.
    pub fn attributes(self: &Arc<Self>) -> Result<Attributes, Errno> {
        let mut attributes = statx(self.handle()?.as_fd(), c"")?;
        if let Some(owners) = &self.owners {
            owners.apply(&mut attributes);
        }
        Ok(attributes)
    }

    /// Whether both are the same directory of the host.
    pub fn is_same(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let numbers = |directory: &Self| match &directory.way {
            Way::Below { numbers, .. } => Some(*numbers),
            Way::Root(_) | Way::Gone => None,
        };
        match (numbers(self), numbers(other)) {
            (None, None) => Arc::ptr_eq(self, other),
            (own, theirs) => own == theirs,
        }
    }

    /// Finds an entry.
    pub fn find(self: &Arc<Self>, name: &[u8]) -> Result<HostEntry, Errno> {
        let owners = self.owners.as_ref().and_then(|owners| owners.below(name));
        let name = host_name(name)?;
        let own = self.handle()?;
        let mut attributes = statx(own.as_fd(), &name)?;
        let numbers = (attributes.device, attributes.inode);
        let needed = if attributes.file_type == FileType::Directory { 0o005 } else { 0o004 };
        if self.world_readable_only && attributes.file_type != FileType::Symlink && attributes.permissions & needed != needed {
            return Err(Errno::ENOENT);
        }
        if let Some(owners) = owners {
            owners.apply(&mut attributes);
        }
        let mut entry = HostEntry { attributes, directory: None, target: None };
        match attributes.file_type {
            FileType::Directory => {
                let way = Way::Below { parent: Arc::clone(self), name, numbers, handle: Reopened::default() };
                let owners = owners.map(Arc::clone);
                entry.directory = Some(Arc::new(Self { way, world_readable_only: self.world_readable_only, owners }));
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&own, &name, Vec::new()).map_err(errno)?;
                entry.target = Some(target.into_bytes());
            }
            _ => {}
        }
        Ok(entry)
    }

    /// Opens a regular file. Devices, sockets and FIFOs of the host are never opened: `ENXIO`.
    pub fn open_file(self: &Arc<Self>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let name = host_name(name)?;
        // NONBLOCK: should the host swap a FIFO in, opening it must not hang us.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::openat2(&self.handle()?, &name, flags, Mode::empty(), resolve()).map_err(errno)?;
        let mode = u32::from(crate::host::transfer::status(&file).map_err(errno)?.stx_mode);
        if self.world_readable_only && mode & 0o004 == 0 {
            return Err(Errno::ENOENT);
        }
        if mode & 0o170_000 == FileType::Regular as u32 { crate::host::within_limit(file) } else { Err(Errno::ENXIO) }
    }

    /// Names and types of all entries that may be seen.
    pub fn list(self: &Arc<Self>) -> Result<Vec<(Vec<u8>, u64, FileType)>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let own = self.handle()?;
        let readable = rustix::fs::openat2(&own, c".", flags, Mode::empty(), resolve()).map_err(errno)?;
        let mut entries = Vec::new();
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut directory = rustix::fs::RawDir::new(&readable, buffer.spare_capacity_mut());
        while let Some(entry) = directory.next() {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let file_type = file_type(entry.file_type());
            if self.world_readable_only {
                // The listing must not tell what look-up hides.
                match statx(own.as_fd(), entry.file_name()) {
                    Ok(found) if found.file_type == FileType::Symlink => {}
                    Ok(found) if found.file_type == FileType::Directory && found.permissions & 0o005 == 0o005 => {}
                    Ok(found) if found.file_type != FileType::Directory && found.permissions & 0o004 != 0 => {}
                    _ => continue,
                }
            }
            entries.push((name.to_vec(), entry.ino(), file_type));
        }
        Ok(entries)
    }
}

fn file_type(host: rustix::fs::FileType) -> FileType {
    use rustix::fs::FileType as Host;
    match host {
        Host::Directory => FileType::Directory,
        Host::Symlink => FileType::Symlink,
        Host::Fifo => FileType::Fifo,
        Host::Socket => FileType::Socket,
        Host::CharacterDevice => FileType::CharacterDevice,
        Host::BlockDevice => FileType::BlockDevice,
        _ => FileType::Regular,
    }
}

fn time(value: rustix::fs::StatxTimestamp) -> Timespec {
    Timespec { tv_sec: value.tv_sec, tv_nsec: i64::from(value.tv_nsec) }
}

/// `statx` of an entry, or of the handle itself for an empty name.
fn statx(handle: std::os::fd::BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<Attributes, Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let found = rustix::fs::statx(handle, name, flags, wanted).map_err(errno)?;
    let mode = u32::from(found.stx_mode);
    let owner = |id: u32, own: u64| if id == OVERFLOW_ID || u64::from(id) == own { 0 } else { id };
    // SAFETY: looks numbers up that the host handed to this process at its start. A call would not be let through.
    let (own_user, own_group) = unsafe { (libc::getauxval(libc::AT_EUID), libc::getauxval(libc::AT_EGID)) };
    Ok(Attributes {
        device: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        file_type: FileType::from_mode(mode).ok_or(Errno::EIO)?,
        permissions: mode & 0o7777,
        links: u64::from(found.stx_nlink),
        uid: owner(found.stx_uid, own_user),
        gid: owner(found.stx_gid, own_group),
        device_type: rustix::fs::makedev(found.stx_rdev_major, found.stx_rdev_minor),
        size: found.stx_size,
        block_size: u64::from(found.stx_blksize),
        blocks: found.stx_blocks,
        accessed: time(found.stx_atime),
        modified: time(found.stx_mtime),
        changed: time(found.stx_ctime),
        created: (found.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| time(found.stx_btime)),
    })
}
