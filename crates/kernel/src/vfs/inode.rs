//! The inode: what a filesystem must answer for one file, directory, link or device.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};

use cloudpilot_abi::Errno;
use cloudpilot_abi::types::Timespec;

use super::acl::Acl;
use super::file::FileOps;
use super::{Path, leases::FileLeases, locks::FileLocks, watch::InodeWatches, write_access::WriteCount};
use crate::task::{Credentials, Task};

/// What kind of thing an inode is; the values are `st_mode`'s type bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FileType {
    /// None of the others: what has a descriptor and no name, such as an eventfd.
    Anonymous = 0,
    /// Named pipe.
    Fifo = 0o010_000,
    /// Character device.
    CharacterDevice = 0o020_000,
    /// Directory.
    Directory = 0o040_000,
    /// Block device.
    BlockDevice = 0o060_000,
    /// Regular file.
    Regular = 0o100_000,
    /// Symbolic link.
    Symlink = 0o120_000,
    /// Unix socket.
    Socket = 0o140_000,
}

impl FileType {
    /// From the type bits of a mode.
    pub fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharacterDevice,
            0o040_000 => Self::Directory,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::Regular,
            0o120_000 => Self::Symlink,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }

    /// The `d_type` that `getdents64(2)` reports.
    pub fn dirent_type(self) -> u8 {
        (self as u32 >> 12) as u8
    }
}

/// An inode's attributes: what `statx(2)` reports.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// Number of the filesystem.
    pub device: u64,
    /// Number within it.
    pub inode: u64,
    /// Type.
    pub file_type: FileType,
    /// Permission bits with set-id and sticky, `0o7777`.
    pub permissions: u32,
    /// Hard links.
    pub links: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// For devices: what they are.
    pub device_type: u64,
    /// Bytes.
    pub size: u64,
    /// Preferred size of reads and writes.
    pub block_size: u64,
    /// 512-byte blocks in use.
    pub blocks: u64,
    /// Last read.
    pub accessed: Timespec,
    /// Last write.
    pub modified: Timespec,
    /// Last change of these attributes.
    pub changed: Timespec,
    /// Birth, if known.
    pub created: Option<Timespec>,
}

impl Attributes {
    /// `st_mode`.
    pub fn mode(&self) -> u32 {
        self.file_type as u32 | self.permissions
    }
}

/// A time to set, `utimensat(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// `UTIME_NOW`.
    Now,
    /// As given.
    At(Timespec),
}

/// Changes to attributes; `None` leaves a field alone. Permission checks are done by the caller (`vfs`), not by filesystems.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttributes {
    /// Permission bits.
    pub permissions: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Truncate or extend.
    pub size: Option<u64>,
    /// Last read.
    pub accessed: Option<SetTime>,
    /// Last write.
    pub modified: Option<SetTime>,
}

/// What to make in a directory.
#[derive(Clone, Debug)]
pub enum NewNode<'a> {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link with its target.
    Symlink(&'a [u8]),
    /// Named pipe.
    Fifo,
    /// Unix socket (made by `bind(2)`).
    Socket,
    /// Device node with its number.
    Device(FileType, u64),
}

/// Where following a link leads.
pub enum LinkTarget {
    /// A path to walk.
    Text(Vec<u8>),
    /// Straight to a place (`/proc/self/exe`, `/proc/self/fd/3`); `text` is what `readlink(2)` prints.
    Place {
        /// For `readlink`.
        text: Vec<u8>,
        /// Where it leads; none for things without a name in the tree that are reopened through `file`.
        path: Option<Path>,
        /// The open file itself (pipes, sockets, deleted files): opening the link opens its inode again.
        inode: Option<Arc<dyn Inode>>,
    },
}

/// State that every inode carries for the layers above its filesystem.
#[derive(Default)]
pub struct InodeCommon {
    /// Advisory locks.
    pub locks: FileLocks,
    /// Leases.
    pub leases: FileLeases,
    /// inotify watches.
    pub watches: InodeWatches,
    /// Writers, or programs that run from it.
    pub writers: WriteCount,
    /// Open files of any kind.
    pub opens: AtomicI64,
    /// Its last name is gone, and its watchers were not told yet because it is open.
    pub is_removed: AtomicBool,
    /// Files that were opened by name for reading alone.
    pub readers: AtomicI64,
}

/// Callback of directory reading: name, inode number, type, and the cursor *after* this entry; answers whether there was room.
pub type DirectorySink<'a> = dyn FnMut(&[u8], u64, FileType, u64) -> bool + 'a;

/// One inode. Names arrive as single components without slashes, never empty, `.` or `..`; type and permission checks
/// (search, write, sticky) were made by the caller. Default bodies answer what Linux answers where the operation makes no sense.
pub trait Inode: Any + Send + Sync {
    /// For downcasts between inodes of one filesystem (`link`, `rename`).
    fn as_any(&self) -> &dyn Any;

    /// Locks and watches.
    fn common(&self) -> &InodeCommon;

    /// Current attributes.
    fn attributes(&self) -> Result<Attributes, Errno>;

    /// Type alone, without host calls; never changes.
    fn file_type(&self) -> FileType;

    /// What the link in `/proc/<pid>/fd` reads for inodes that stand in no tree.
    fn link_text(&self) -> Option<Vec<u8>> {
        None
    }

    /// Changes attributes.
    fn set_attributes(&self, _changes: &SetAttributes) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Finds a name in this directory.
    fn lookup(&self, _name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        Err(Errno::ENOTDIR)
    }

    /// Whether the name cache may answer for this directory; false where names come and go by themselves (`/proc`, volumes): each look-up then
    /// asks anew, and a name keeps its identity as long as it leads to the same inode.
    fn names_are_stable(&self) -> bool {
        true
    }

    /// Makes a name. `permissions` has the umask applied; `credentials` own the new node (a set-group-id directory passes its group on).
    fn create(&self, _name: &[u8], _node: NewNode<'_>, _permissions: u32, _credentials: &Credentials) -> Result<Arc<dyn Inode>, Errno> {
        Err(Errno::EPERM)
    }

    /// Makes a regular file in this directory's filesystem that no directory lists (`O_TMPFILE`). `linkable`: whether it may get a name later.
    fn create_unlisted(&self, _permissions: u32, _credentials: &Credentials, _linkable: bool) -> Result<Arc<dyn Inode>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes `name` another name of `target`, an inode of the same filesystem.
    fn link(&self, _name: &[u8], _target: &Arc<dyn Inode>) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Removes a name that is not a directory.
    fn unlink(&self, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Removes an empty directory.
    fn rmdir(&self, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Renames within the filesystem; `flags` are `RENAME_*` of `renameat2(2)`.
    fn rename(&self, _name: &[u8], _new_parent: &Arc<dyn Inode>, _new_name: &[u8], _flags: u32) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// The target of a symbolic link.
    fn read_link(&self, _task: &Arc<Task>) -> Result<LinkTarget, Errno> {
        Err(Errno::EINVAL)
    }

    /// Opens: answers the operations of a new open file description. `flags` are the `O_*` of `open(2)`, `O_CREAT` and friends
    /// already done with; `O_TRUNC` has been applied through [`set_attributes`](Self::set_attributes).
    fn open(self: Arc<Self>, flags: u32, task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno>;

    /// Value of an extended attribute, whole.
    fn get_xattr(&self, _name: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets one; `flags` are `XATTR_CREATE` and `XATTR_REPLACE`.
    fn set_xattr(&self, _name: &[u8], _value: &[u8], _flags: u32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Names of all.
    fn list_xattrs(&self) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(Vec::new())
    }

    /// Removes one.
    fn remove_xattr(&self, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Access control list: the one that judges, or with `default` the one that new entries get.
    fn acl(&self, _default: bool) -> Option<Arc<Acl>> {
        None
    }

    /// Sets or removes one; the permission bits follow.
    fn set_acl(&self, _default: bool, _list: Option<Acl>) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Figures of the whole filesystem.
    fn statfs(&self) -> Result<FilesystemFigures, Errno>;
}

/// `statfs(2)` of a filesystem.
#[derive(Clone, Copy, Debug, Default)]
pub struct FilesystemFigures {
    /// Magic number (`TMPFS_MAGIC`, …).
    pub magic: i64,
    /// Bytes a block.
    pub block_size: i64,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks free.
    pub free_blocks: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Inodes free.
    pub free_inodes: u64,
    /// Longest name.
    pub name_length: i64,
}
