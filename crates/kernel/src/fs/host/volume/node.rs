//! Inodes of a volume.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::super::{errno, host_name, resolve, statx};
use super::directory::OpenDirectory;
use super::file::OpenFile;
use super::{Volume, failure, handle_of};
use crate::fs::pipe::Fifo;
use crate::host::within_limit;
use crate::task::{Credentials, Task};
use crate::vfs::file::FileOps;
use crate::vfs::inode::{Attributes, FileType, FilesystemFigures, Inode, InodeCommon, LinkTarget, NewNode, SetAttributes, SetTime};

/// Set-id bits never reach the host: a file made in the sandbox belongs to the user who started it, and must not act as that user for
/// others. The set-group-id bit of directories only says whose group new files get.
fn harmless(permissions: u32, file_type: FileType) -> Mode {
    let set_id = if file_type == FileType::Directory { raw::S_ISUID } else { raw::S_ISUID | raw::S_ISGID };
    Mode::from_raw_mode(permissions & 0o7777 & !set_id)
}

/// Descriptors of a regular file. All reads and writes say their offset, so that any number of open files share one.
#[derive(Default)]
struct Opened {
    reading: Weak<OwnedFd>,
    writing: Weak<OwnedFd>,
    /// From the making of the file until it is first opened: its mode may forbid what its maker may do. The only descriptor of a volume that is
    /// a single file stays here.
    kept: Option<(bool, Arc<OwnedFd>)>,
}

/// A directory, and a name in it.
pub(super) type Place = (Arc<Node>, Box<[u8]>);

/// What one may do with an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// Writing alone will do: a file that may not be read cannot be mapped, which is all that needs more.
    Write,
    ReadWrite,
    /// At the end of the file, wherever that is by then.
    Append,
}

/// An inode of a volume.
pub(super) struct Node {
    pub(super) volume: Arc<Volume>,
    /// `O_PATH`, but for a volume that is a single file.
    pub(super) handle: OwnedFd,
    key: (u64, u64),
    device: u64,
    file_type: FileType,
    common: InodeCommon,
    /// Directory and name where it was last seen.
    place: Mutex<Option<Place>>,
    opened: Mutex<Opened>,
    /// For a named pipe: ours.
    fifo: Fifo,
}

impl Node {
    pub(super) fn new(
        volume: &Arc<Volume>,
        handle: OwnedFd,
        key: (u64, u64),
        device: u64,
        file_type: FileType,
        place: Option<Place>,
        kept: Option<(bool, Arc<OwnedFd>)>,
    ) -> Arc<Self> {
        let opened = Mutex::new(Opened { kept, ..Opened::default() });
        let (volume, place) = (Arc::clone(volume), Mutex::new(place));
        Arc::new(Self { volume, handle, key, device, file_type, common: InodeCommon::default(), place, opened, fifo: Fifo::default() })
    }

    pub(super) fn set_place(&self, place: Option<Place>) {
        if place.is_some() {
            let old = std::mem::replace(&mut *self.place.lock(), place);
            drop(old);
        }
    }

    /// The same inode as a `Node`, if it is one of this volume.
    fn sibling(&self, inode: &Arc<dyn Inode>) -> Result<Arc<Self>, Errno> {
        let any: Arc<dyn Any + Send + Sync> = Arc::clone(inode) as _;
        any.downcast::<Self>().ok().filter(|node| Arc::ptr_eq(&node.volume, &self.volume)).ok_or(Errno::EXDEV)
    }

    fn find(self: &Arc<Self>, name: &[u8]) -> Result<Arc<Self>, Errno> {
        let handle = handle_of(&self.handle, name)?;
        let attributes = statx(handle.as_fd(), c"")?;
        Ok(self.volume.adopt(handle, &attributes, Some((Arc::clone(self), name.into())), None))
    }

    /// Notes where an entry of this directory is now, if somebody holds it.
    fn note_place(self: &Arc<Self>, name: &[u8]) {
        let found = host_name(name).and_then(|host| statx(self.handle.as_fd(), &host));
        if let Ok(found) = found
            && let Some(node) = self.volume.known((found.device, found.inode))
        {
            node.set_place(Some((Arc::clone(self), name.into())));
        }
    }

    /// A descriptor of this regular file: one that is open already, or a new one by its last known name, if that still leads to it.
    pub(super) fn descriptor(&self, access: Access) -> Result<Arc<OwnedFd>, Errno> {
        {
            let opened = self.opened.lock();
            if let Some((writes, kept)) = &opened.kept
                && (*writes && access != Access::Append || access == Access::Read)
            {
                return Ok(Arc::clone(kept));
            }
            let found = opened.writing.upgrade().filter(|_| access != Access::Append);
            let found = found.or_else(|| opened.reading.upgrade().filter(|_| access == Access::Read));
            if let Some(found) = found {
                return Ok(found);
            }
        }
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write | Access::ReadWrite => OFlags::RDWR,
            Access::Append => OFlags::WRONLY | OFlags::APPEND,
        };
        let descriptor = match self.open_again(flags) {
            Err(Errno::EACCES) if access == Access::Write => return self.open_again(OFlags::WRONLY).map(Arc::new),
            result => Arc::new(result?),
        };
        let mut opened = self.opened.lock();
        match access {
            Access::Read => opened.reading = Arc::downgrade(&descriptor),
            Access::Write | Access::ReadWrite => opened.writing = Arc::downgrade(&descriptor),
            Access::Append => {}
        }
        Ok(descriptor)
    }

    fn open_again(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        // NONBLOCK: should the host swap a FIFO in, opening it must not hang us.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = |directory: &OwnedFd, name: &std::ffi::CStr| {
            within_limit(rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve()).map_err(failure)?)
        };
        let descriptor = if self.file_type == FileType::Directory {
            open(&self.handle, c".")?
        } else {
            let (directory, name) = self.place.lock().clone().ok_or(Errno::EACCES)?;
            open(&directory.handle, &host_name(&name)?)?
        };
        let found = statx(descriptor.as_fd(), c"")?;
        if (found.device, found.inode) == self.key { Ok(descriptor) } else { Err(Errno::ESTALE) }
    }

    /// What an open file keeps from the making of the file; given up once it is opened.
    pub(super) fn take_kept(&self) -> Option<(bool, Arc<OwnedFd>)> {
        let mut opened = self.opened.lock();
        let single_file = self.place.lock().is_none();
        if single_file {
            return opened.kept.clone();
        }
        let kept = opened.kept.take();
        if let Some((_, descriptor)) = &kept {
            opened.writing = Arc::downgrade(descriptor);
        }
        kept
    }

    fn make_file(self: &Arc<Self>, name: &[u8], permissions: u32) -> Result<Arc<Self>, Errno> {
        let host = host_name(name)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = harmless(permissions, FileType::Regular);
        let descriptor = rustix::fs::openat2(&self.handle, &host, flags, mode, resolve()).map_err(failure)?;
        let made = statx(descriptor.as_fd(), c"")?;
        let handle = handle_of(&self.handle, name)?;
        let found = statx(handle.as_fd(), c"")?;
        if (found.device, found.inode) != (made.device, made.inode) {
            return Err(Errno::ESTALE);
        }
        Ok(self.volume.adopt(handle, &made, Some((Arc::clone(self), name.into())), Some((true, Arc::new(descriptor)))))
    }

    fn make_name(&self, name: &[u8], file_type: rustix::fs::FileType, permissions: u32) -> Result<(), Errno> {
        let mode = harmless(permissions, FileType::Fifo);
        rustix::fs::mknodat(&self.handle, &*host_name(name)?, file_type, mode, 0).map_err(failure)
    }

    fn set_permissions(&self, permissions: u32) -> Result<(), Errno> {
        let mode = harmless(permissions, self.file_type);
        // SAFETY: a plain host call; the string lives across it.
        let result = unsafe {
            libc::syscall(
                libc::SYS_fchmodat2,
                std::os::fd::AsRawFd::as_raw_fd(&self.handle),
                c"".as_ptr(),
                mode.as_raw_mode(),
                libc::AT_EMPTY_PATH,
            )
        };
        if result == 0 {
            return Ok(());
        }
        match std::io::Error::last_os_error().raw_os_error() {
            // Linux before 6.6 changes modes by open descriptors only.
            Some(libc::ENOSYS) => {
                let descriptor = match self.file_type {
                    FileType::Directory => Arc::new(self.open_again(OFlags::RDONLY)?),
                    FileType::Regular => self.descriptor(Access::Read).or_else(|_| self.descriptor(Access::Write))?,
                    _ => return Err(Errno::EOPNOTSUPP),
                };
                rustix::fs::fchmod(&*descriptor, mode).map_err(errno)
            }
            number => Err(number.map_or(Errno::EIO, |number| Errno(number as u16))),
        }
    }

    fn set_times(&self, accessed: Option<SetTime>, modified: Option<SetTime>) -> Result<(), Errno> {
        let time = |change: Option<SetTime>| match change {
            None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            Some(SetTime::At(time)) => Timespec { tv_sec: time.tv_sec, tv_nsec: time.tv_nsec },
        };
        let times = Timestamps { last_access: time(accessed), last_modification: time(modified) };
        rustix::fs::utimensat(&self.handle, c"", &times, AtFlags::EMPTY_PATH).map_err(errno)
    }

    fn check_writable(&self) -> Result<(), Errno> {
        if self.volume.read_only { Err(Errno::EROFS) } else { Ok(()) }
    }

    fn this(&self) -> Result<Arc<Self>, Errno> {
        // Whoever calls holds the node, so that it is known.
        self.volume.known(self.key).ok_or(Errno::ESTALE)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.volume.forget(self.key);
        // The directories above, of which this was the last holder, one after the other: inside each other's drop, a deep tree would exhaust the
        // stack.
        let mut place = self.place.get_mut().take();
        while let Some((directory, _)) = place {
            place = Arc::into_inner(directory).and_then(|mut directory| directory.place.get_mut().take());
        }
    }
}

impl Inode for Node {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &InodeCommon {
        &self.common
    }

    fn attributes(&self) -> Result<Attributes, Errno> {
        Ok(Attributes { device: self.device, ..statx(self.handle.as_fd(), c"")? })
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn set_attributes(&self, changes: &SetAttributes) -> Result<(), Errno> {
        self.check_writable()?;
        if changes.uid.is_some() || changes.gid.is_some() {
            // The host's owners are not the sandbox's to choose; programs that restore the one there is go on.
            let present = self.attributes()?;
            if changes.uid.is_some_and(|uid| uid != present.uid) || changes.gid.is_some_and(|gid| gid != present.gid) {
                return Err(Errno::EPERM);
            }
        }
        if let Some(size) = changes.size {
            if self.file_type != FileType::Regular {
                return Err(if self.file_type == FileType::Directory { Errno::EISDIR } else { Errno::EINVAL });
            }
            rustix::fs::ftruncate(&*self.descriptor(Access::Write)?, size).map_err(errno)?;
        }
        if let Some(permissions) = changes.permissions {
            self.set_permissions(permissions)?;
        }
        if changes.accessed.is_some() || changes.modified.is_some() {
            self.set_times(changes.accessed, changes.modified)?;
        }
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        if self.file_type != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        Ok(self.this()?.find(name)?)
    }

    fn names_are_stable(&self) -> bool {
        false
    }

    fn create(&self, name: &[u8], node: NewNode<'_>, permissions: u32, _credentials: &Credentials) -> Result<Arc<dyn Inode>, Errno> {
        self.check_writable()?;
        let this = self.this()?;
        match node {
            NewNode::File => return Ok(this.make_file(name, permissions)?),
            NewNode::Directory => {
                let mode = harmless(permissions, FileType::Directory);
                rustix::fs::mkdirat(&self.handle, &*host_name(name)?, mode).map_err(failure)?;
            }
            NewNode::Symlink(target) => {
                let target = host_name(target)?;
                rustix::fs::symlinkat(&*target, &self.handle, &*host_name(name)?).map_err(failure)?;
            }
            // Names only: what goes through them stays in this kernel.
            NewNode::Fifo => self.make_name(name, rustix::fs::FileType::Fifo, permissions)?,
            NewNode::Socket => self.make_name(name, rustix::fs::FileType::Socket, permissions)?,
            NewNode::Device(..) => return Err(Errno::EPERM),
        }
        Ok(this.find(name)?)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<(), Errno> {
        self.check_writable()?;
        let target = self.sibling(target)?;
        // By its name: by its handle the host asks for a capability. What that name leads to by now is checked first.
        let (directory, old) = target.place.lock().clone().ok_or(Errno::EPERM)?;
        let old = host_name(&old)?;
        let found = statx(directory.handle.as_fd(), &old)?;
        if (found.device, found.inode) != target.key {
            return Err(Errno::ENOENT);
        }
        rustix::fs::linkat(&directory.handle, &*old, &self.handle, &*host_name(name)?, AtFlags::empty()).map_err(failure)
    }

    fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        self.check_writable()?;
        rustix::fs::unlinkat(&self.handle, &*host_name(name)?, AtFlags::empty()).map_err(failure)
    }

    fn rmdir(&self, name: &[u8]) -> Result<(), Errno> {
        self.check_writable()?;
        rustix::fs::unlinkat(&self.handle, &*host_name(name)?, AtFlags::REMOVEDIR).map_err(failure)
    }

    fn rename(&self, name: &[u8], new_parent: &Arc<dyn Inode>, new_name: &[u8], flags: u32) -> Result<(), Errno> {
        self.check_writable()?;
        let new_parent = self.sibling(new_parent)?;
        let (old, new) = (host_name(name)?, host_name(new_name)?);
        let flags = RenameFlags::from_bits_retain(flags);
        rustix::fs::renameat_with(&self.handle, &*old, &new_parent.handle, &*new, flags).map_err(failure)?;
        new_parent.note_place(new_name);
        if flags.contains(RenameFlags::EXCHANGE) {
            self.this()?.note_place(name);
        }
        Ok(())
    }

    fn read_link(&self, _task: &Arc<Task>) -> Result<LinkTarget, Errno> {
        self.link_target().map(LinkTarget::Text)
    }

    fn open(self: Arc<Self>, flags: u32, task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        // Whoever holds the name meets here; the host's own pipe behind it is never opened.
        if self.file_type == FileType::Fifo {
            return self.fifo.open(flags, task);
        }
        self.open_as(flags)
    }

    fn statfs(&self) -> Result<FilesystemFigures, Errno> {
        let found = rustix::fs::fstatfs(&self.handle).map_err(errno)?;
        Ok(FilesystemFigures {
            magic: found.f_type,
            block_size: found.f_bsize,
            blocks: found.f_blocks,
            free_blocks: found.f_bavail,
            inodes: found.f_files,
            free_inodes: found.f_ffree,
            name_length: found.f_namelen,
        })
    }
}

impl Node {
    pub(super) fn link_target(&self) -> Result<Vec<u8>, Errno> {
        if self.file_type != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        rustix::fs::readlinkat(&self.handle, c"", Vec::new()).map(std::ffi::CString::into_bytes).map_err(errno)
    }

    pub(super) fn open_as(self: Arc<Self>, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        match self.file_type {
            FileType::Regular => Ok(Arc::new(OpenFile::new(self, flags)?)),
            FileType::Directory => {
                let listing = self.open_again(OFlags::RDONLY | OFlags::DIRECTORY)?;
                Ok(Arc::new(OpenDirectory::new(listing)))
            }
            _ => Err(Errno::ENXIO),
        }
    }
}
