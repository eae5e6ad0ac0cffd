//! Nodes: the inodes of a tmpfs.

use std::any::Any;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, PAGE_SIZE, raw};
use cloudpilot_memory::{Account, Object};
use parking_lot::{Mutex, RwLock};
use rustix::fs::OFlags;

use super::directory::Directory;
use super::file::TmpfsFile;
use super::{NODE_CHARGE, Tmpfs};
use crate::fs::host::{HostDirectory, HostEntry, Reopened};
use crate::fs::pipe::Fifo;
use crate::task::{Credentials, Task};
use crate::vfs::acl::Acl;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{Attributes, FileType, FilesystemFigures, Inode, InodeCommon, LinkTarget, NewNode, SetAttributes, SetTime};

/// What a directory shows beneath its own entries.
pub enum Lower {
    /// A host directory.
    Host(Arc<HostDirectory>),
    /// Nothing; for the root of an overlay that is put together entry by entry.
    Empty,
}

/// A host file that has not been changed yet.
pub struct LowerFile {
    /// Its directory and name there.
    pub directory: Arc<HostDirectory>,
    /// See [`directory`](Self::directory).
    pub name: Vec<u8>,
    /// The open host file, while it is used.
    pub opened: Reopened,
    /// Its size, which the read-only layer promises not to change.
    pub size: u64,
}

impl LowerFile {
    /// The open host file.
    pub fn open(&self) -> Result<Arc<OwnedFd>, Errno> {
        self.opened.get(|| self.directory.open_file(&self.name, OFlags::RDONLY))
    }

    /// Whether this is where a directory has it.
    pub(super) fn is(&self, directory: &Arc<HostDirectory>, name: &[u8]) -> bool {
        self.name == name && self.directory.is_same(directory)
    }
}

/// A node's contents.
pub enum Body {
    /// Regular file.
    File(Arc<Object>),
    /// Regular file of the lower layer.
    Lower(Arc<LowerFile>),
    /// Directory.
    Directory(Directory),
    /// Symbolic link.
    Symlink(Vec<u8>),
    /// Named pipe.
    Fifo(Arc<Fifo>),
    /// Socket made by `bind(2)`.
    Socket,
    /// Device node.
    Device(u64),
}

/// What changes about a node.
pub struct State {
    pub permissions: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u64,
    /// Has never had a name but may get one (`O_TMPFILE`).
    pub linkable: bool,
    pub accessed: Timespec,
    pub modified: Timespec,
    pub changed: Timespec,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Access control lists: its own, and what new entries get.
    pub lists: [Option<Arc<Acl>>; 2],
    pub body: Body,
}

/// An inode of a tmpfs.
pub struct Node {
    pub(super) filesystem: Arc<Tmpfs>,
    number: u64,
    file_type: FileType,
    created: Timespec,
    /// Charged to the filesystem's limit, as everything is that the guest made.
    charged: bool,
    common: InodeCommon,
    /// Held by who writes at the end of the file.
    pub(super) appending: Mutex<()>,
    pub(super) state: RwLock<State>,
}

impl Node {
    /// The root directory of a new filesystem.
    pub(super) fn root(filesystem: Arc<Tmpfs>, permissions: u32, lower: Option<Lower>) -> Arc<Self> {
        let body = Body::Directory(Directory::new(match lower {
            Some(Lower::Host(directory)) => Some(directory),
            Some(Lower::Empty) | None => None,
        }));
        Self::new(filesystem, FileType::Directory, permissions, (0, 0), body, false)
    }

    fn new(filesystem: Arc<Tmpfs>, file_type: FileType, permissions: u32, owner: (u32, u32), body: Body, charged: bool) -> Arc<Self> {
        let now = crate::time::realtime();
        let links = if file_type == FileType::Directory { 2 } else { 1 };
        let (uid, gid) = owner;
        let state = State {
            permissions,
            uid,
            gid,
            links,
            linkable: false,
            accessed: now,
            modified: now,
            changed: now,
            xattrs: BTreeMap::new(),
            lists: [None, None],
            body,
        };
        filesystem.nodes.fetch_add(1, Ordering::Relaxed);
        let number = filesystem.new_inode();
        Arc::new(Self {
            filesystem,
            number,
            file_type,
            created: now,
            charged,
            common: InodeCommon::default(),
            appending: Mutex::default(),
            state: RwLock::new(state),
        })
    }

    /// A node for what a lower directory lists under a name.
    pub(super) fn from_lower(filesystem: &Arc<Tmpfs>, directory: &Arc<HostDirectory>, name: &[u8], entry: HostEntry) -> Arc<Self> {
        let found = entry.attributes;
        let body = match (found.file_type, entry.directory, entry.target) {
            (FileType::Directory, lower, _) => Body::Directory(Directory::new(lower)),
            (FileType::Symlink, _, target) => Body::Symlink(target.unwrap_or_default()),
            (FileType::Regular, ..) => Body::Lower(Arc::new(LowerFile {
                directory: Arc::clone(directory),
                name: name.to_vec(),
                opened: Reopened::default(),
                size: found.size,
            })),
            (FileType::Fifo, ..) => Body::Fifo(Arc::default()),
            (FileType::CharacterDevice | FileType::BlockDevice, ..) => Body::Device(found.device_type),
            // No host directory holds anything of no type.
            (FileType::Socket | FileType::Anonymous, ..) => Body::Socket,
        };
        let state = State {
            permissions: found.permissions,
            uid: found.uid,
            gid: found.gid,
            links: found.links,
            linkable: false,
            accessed: found.accessed,
            modified: found.modified,
            changed: found.changed,
            xattrs: BTreeMap::new(),
            lists: [None, None],
            body,
        };
        filesystem.nodes.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            filesystem: Arc::clone(filesystem),
            number: filesystem.new_inode(),
            file_type: found.file_type,
            created: found.created.unwrap_or(found.changed),
            charged: false,
            common: InodeCommon::default(),
            appending: Mutex::default(),
            state: RwLock::new(state),
        })
    }

    /// A node that the guest makes in this directory.
    fn make(&self, node: &NewNode<'_>, permissions: u32, credentials: &Credentials) -> Result<Arc<Self>, Errno> {
        if !self.filesystem.charge(NODE_CHARGE) {
            return Err(Errno::ENOSPC);
        }
        let (file_type, body) = match node {
            NewNode::File => (FileType::Regular, Body::File(self.filesystem.object())),
            NewNode::Directory => (FileType::Directory, Body::Directory(Directory::new(None))),
            NewNode::Symlink(target) => (FileType::Symlink, Body::Symlink(target.to_vec())),
            NewNode::Fifo => (FileType::Fifo, Body::Fifo(Arc::default())),
            NewNode::Socket => (FileType::Socket, Body::Socket),
            NewNode::Device(file_type, number) => (*file_type, Body::Device(*number)),
        };
        let state = self.state.read();
        let inherits = state.permissions & raw::S_ISGID != 0;
        let gid = if inherits { state.gid } else { credentials.fsgid };
        let mut permissions = if file_type == FileType::Symlink { 0o777 } else { permissions };
        if inherits && file_type == FileType::Directory {
            permissions |= raw::S_ISGID;
        } else if inherits && !credentials.in_group(gid) && !credentials.has(raw::CAP_FSETID) {
            // Who is not in the group must not get at its rights this way.
            let runs_as_group = permissions & (raw::S_ISGID | raw::S_IXGRP) == raw::S_ISGID | raw::S_IXGRP;
            permissions &= if runs_as_group { !raw::S_ISGID } else { !0 };
        }
        let inherited = state.lists[1].clone().filter(|_| file_type != FileType::Symlink);
        drop(state);
        let own = inherited.as_ref().map(|list| list.inherited(permissions));
        let permissions = own.as_ref().map_or(permissions, |(_, bits)| *bits);
        let made = Self::new(Arc::clone(&self.filesystem), file_type, permissions, (credentials.fsuid, gid), body, true);
        if let Some((own, _)) = own {
            let default = inherited.filter(|_| file_type == FileType::Directory);
            made.state.write().lists = [Some(Arc::new(own)).filter(|list| !list.is_plain()), default];
        }
        Ok(made)
    }

    /// Makes a node as root, for the tree that boot builds. An existing entry of that name is replaced.
    pub fn plant(&self, name: &[u8], node: &NewNode<'_>, permissions: u32) -> Result<Arc<Self>, Errno> {
        let made = self.make(node, permissions, &Credentials::new(0, 0, Vec::new()))?;
        self.enter(name, &made)?;
        Ok(made)
    }

    /// Enters a host directory under a name, for the tree that boot builds.
    pub fn plant_lower(&self, name: &[u8], directory: Arc<HostDirectory>) -> Result<(), Errno> {
        let entry = HostEntry { attributes: directory.attributes()?, directory: Some(Arc::clone(&directory)), target: None };
        let node = Self::from_lower(&self.filesystem, &directory, name, entry);
        self.enter(name, &node)
    }

    fn enter(&self, name: &[u8], node: &Arc<Self>) -> Result<(), Errno> {
        let mut state = self.state.write();
        let Body::Directory(directory) = &mut state.body else { return Err(Errno::ENOTDIR) };
        if directory.insert(name, Arc::clone(node)).is_none() && node.file_type == FileType::Directory {
            state.links += 1;
        }
        Ok(())
    }

    /// A node found by number of filesystem and type: the same filesystem's, or none.
    pub(super) fn of(inode: &Arc<dyn Inode>) -> Option<Arc<Self>> {
        let any: Arc<dyn Any + Send + Sync> = Arc::clone(inode) as _;
        any.downcast::<Self>().ok()
    }

    /// Makes a lower file the filesystem's own, so that it can be changed. Answers the object.
    pub fn copy_up(&self) -> Result<Arc<Object>, Errno> {
        let mut state = self.state.write();
        let lower = match &state.body {
            Body::File(object) => return Ok(Arc::clone(object)),
            Body::Lower(lower) => Arc::clone(lower),
            _ => return Err(Errno::EINVAL),
        };
        let source = lower.open()?;
        let object = self.filesystem.object();
        let mut buffer = vec![0; 256 << 10];
        let mut offset = 0;
        loop {
            let count =
                rustix::io::retry_on_intr(|| crate::host::transfer::read_at(&*source, &mut buffer[..], offset)).map_err(|_| Errno::EIO)?;
            if count == 0 {
                break;
            }
            object.write_at(offset, &buffer[..count]).map_err(|_| Errno::ENOSPC)?;
            offset += count as u64;
        }
        state.body = Body::File(Arc::clone(&object));
        Ok(object)
    }

    /// Changes the size of a regular file, within the filesystem's limit.
    pub(super) fn resize(&self, size: u64) -> Result<(), Errno> {
        if size > i64::MAX as u64 {
            return Err(Errno::EFBIG);
        }
        if size == 0 {
            // What will be empty need not be copied up.
            let mut state = self.state.write();
            if matches!(state.body, Body::Lower(_)) {
                state.body = Body::File(self.filesystem.object());
                return Ok(());
            }
        }
        self.copy_up()?.truncate(size);
        Ok(())
    }

    /// Notes a read through an open file: its time, when it was last read before it was last changed (`MS_RELATIME`).
    pub(super) fn note_read(&self, file: &File) {
        if file.flags() & raw::O_NOATIME != 0 || file.path.as_ref().is_some_and(|path| path.mount.flags() & raw::MS_NOATIME != 0) {
            return;
        }
        let state = self.state.read();
        if state.accessed > state.modified && state.accessed > state.changed {
            return;
        }
        drop(state);
        self.state.write().accessed = crate::time::realtime();
    }

    /// Notes a change of contents.
    pub(super) fn note_write(&self) {
        let now = crate::time::realtime();
        let mut state = self.state.write();
        state.modified = now;
        state.changed = now;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.filesystem.nodes.fetch_sub(1, Ordering::Relaxed);
        if self.charged {
            self.filesystem.refund(NODE_CHARGE);
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

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn attributes(&self) -> Result<Attributes, Errno> {
        let state = self.state.read();
        let (size, blocks, device_type) = match &state.body {
            Body::File(object) => (object.size(), object.allocated() / 512, 0),
            Body::Lower(lower) => (lower.size, lower.size.div_ceil(PAGE_SIZE) * 8, 0),
            Body::Symlink(target) => (target.len() as u64, 0, 0),
            // Entries of a lower directory come in as they are looked up: a size that counts them would grow while somebody only reads.
            Body::Directory(_) if self.filesystem.overlay => (PAGE_SIZE, 0, 0),
            Body::Directory(directory) => (20 * (2 + directory.len() as u64), 0, 0),
            Body::Device(number) => (0, 0, *number),
            Body::Fifo(_) | Body::Socket => (0, 0, 0),
        };
        Ok(Attributes {
            device: self.filesystem.device,
            inode: self.number,
            file_type: self.file_type,
            permissions: state.permissions,
            links: state.links,
            uid: state.uid,
            gid: state.gid,
            device_type,
            size,
            block_size: 4096,
            blocks,
            accessed: state.accessed,
            modified: state.modified,
            changed: state.changed,
            created: Some(self.created),
        })
    }

    fn set_attributes(&self, changes: &SetAttributes) -> Result<(), Errno> {
        if let Some(size) = changes.size {
            self.resize(size)?;
        }
        let now = crate::time::realtime();
        let at = |time: SetTime| match time {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        let mut state = self.state.write();
        if let Some(permissions) = changes.permissions {
            state.permissions = permissions;
            let own = state.lists[0].take();
            state.lists[0] = own.map(|list| Arc::new(list.with_permissions(permissions)));
        }
        state.uid = changes.uid.unwrap_or(state.uid);
        state.gid = changes.gid.unwrap_or(state.gid);
        state.accessed = changes.accessed.map_or(state.accessed, at);
        state.modified = changes.modified.map_or(state.modified, at);
        if changes.size.is_some() && changes.modified.is_none() {
            state.modified = now;
        }
        state.changed = now;
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        self.find(name).map(|node| node as Arc<dyn Inode>)
    }

    fn create(&self, name: &[u8], node: NewNode<'_>, permissions: u32, credentials: &Credentials) -> Result<Arc<dyn Inode>, Errno> {
        let made = self.make(&node, permissions, credentials)?;
        self.add(name, &made)?;
        Ok(made)
    }

    fn create_unlisted(&self, permissions: u32, credentials: &Credentials, linkable: bool) -> Result<Arc<dyn Inode>, Errno> {
        let made = self.make(&NewNode::File, permissions, credentials)?;
        let mut state = made.state.write();
        (state.links, state.linkable) = (0, linkable);
        drop(state);
        Ok(made)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<(), Errno> {
        let target = Self::of(target).filter(|target| Arc::ptr_eq(&target.filesystem, &self.filesystem)).ok_or(Errno::EXDEV)?;
        // Counted before it is entered, so that nobody finds an entry of a file without links.
        let was_linkable = {
            let mut state = target.state.write();
            if state.links == 0 && !state.linkable {
                return Err(Errno::ENOENT);
            }
            state.links += 1;
            std::mem::take(&mut state.linkable)
        };
        let added = self.add(name, &target);
        let mut state = target.state.write();
        if added.is_err() {
            state.links -= 1;
            state.linkable = was_linkable;
            return added;
        }
        state.changed = crate::time::realtime();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        self.take(name, false)
    }

    fn rmdir(&self, name: &[u8]) -> Result<(), Errno> {
        self.take(name, true)
    }

    fn rename(&self, name: &[u8], new_parent: &Arc<dyn Inode>, new_name: &[u8], flags: u32) -> Result<(), Errno> {
        let new_parent = Self::of(new_parent).filter(|parent| Arc::ptr_eq(&parent.filesystem, &self.filesystem)).ok_or(Errno::EXDEV)?;
        super::directory::rename(self, name, &new_parent, new_name, flags)
    }

    fn read_link(&self, _task: &Arc<Task>) -> Result<LinkTarget, Errno> {
        match &self.state.read().body {
            Body::Symlink(target) => Ok(LinkTarget::Text(target.clone())),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Arc<Self>, flags: u32, task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        let device = match &self.state.read().body {
            Body::Device(number) => Some(*number),
            _ => None,
        };
        if let Some(number) = device {
            return crate::fs::dev::open_device(number, flags, task);
        }
        match self.file_type {
            FileType::Regular => {
                if flags & raw::O_ACCMODE != raw::O_RDONLY {
                    self.copy_up()?;
                }
                Ok(Arc::new(TmpfsFile::new(self)))
            }
            FileType::Directory => Ok(Arc::new(super::directory::OpenDirectory::new(self))),
            FileType::Fifo => {
                // The pipe is taken out of the lock: opening one waits for the other end.
                let node = Arc::clone(&self);
                let state = node.state.read();
                let Body::Fifo(fifo) = &state.body else { return Err(Errno::EINVAL) };
                let fifo = Arc::clone(fifo);
                drop(state);
                fifo.open(flags, task)
            }
            _ => Err(Errno::ENXIO),
        }
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.state.read().xattrs.get(name).cloned().ok_or(Errno::ENODATA)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        /// Bytes of all attributes of one file, as ext4 with one block has.
        const ROOM: usize = 4096;
        let mut state = self.state.write();
        match (state.xattrs.contains_key(name), flags) {
            (true, raw::XATTR_CREATE) => return Err(Errno::EEXIST),
            (false, raw::XATTR_REPLACE) => return Err(Errno::ENODATA),
            _ => {}
        }
        let others: usize = state.xattrs.iter().filter(|(other, _)| *other != name).map(|(name, value)| name.len() + value.len()).sum();
        if others + name.len() + value.len() > 16 * ROOM {
            return Err(Errno::ENOSPC);
        }
        state.xattrs.insert(name.to_vec(), value.to_vec());
        state.changed = crate::time::realtime();
        Ok(())
    }

    fn list_xattrs(&self) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(self.state.read().xattrs.keys().cloned().collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        let mut state = self.state.write();
        state.xattrs.remove(name).ok_or(Errno::ENODATA)?;
        state.changed = crate::time::realtime();
        Ok(())
    }

    fn acl(&self, default: bool) -> Option<Arc<Acl>> {
        self.state.read().lists[usize::from(default)].clone()
    }

    fn set_acl(&self, default: bool, list: Option<Acl>) -> Result<(), Errno> {
        let mut state = self.state.write();
        if let Some(list) = list.as_ref().filter(|_| !default) {
            state.permissions = state.permissions & !0o777 | list.permissions();
        }
        // A list that says no more than the bits do is not kept.
        let kept = list.filter(|list| default || !list.is_plain());
        state.lists[usize::from(default)] = kept.map(Arc::new);
        state.changed = crate::time::realtime();
        Ok(())
    }

    fn statfs(&self) -> Result<FilesystemFigures, Errno> {
        Ok(self.filesystem.figures())
    }
}
