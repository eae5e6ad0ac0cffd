//! Filesystems whose contents are made when they are read: the common part of procfs and sysfs.
//!
//! A [`Node`] is made anew by each lookup; what it shows comes from closures that hold weak references, so that an open file of a task
//! that is gone answers `ESRCH` instead of keeping the task.

use std::any::Any;
use std::sync::Arc;

use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use crate::io::{Destination, Source};
use crate::task::{Credentials, Task};
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{Attributes, DirectorySink, FileType, FilesystemFigures, Inode, InodeCommon, LinkTarget, NewNode, SetAttributes};

/// Most bytes that one write to a generated file takes: these are settings, not storage.
const WRITE_LIMIT: usize = 4096;

/// Makes the bytes of a file for a task that reads it (none: the kernel itself).
pub type Make = Box<dyn Fn(Option<&Task>) -> Result<Vec<u8>, Errno> + Send + Sync>;
/// Takes what a task (none: the kernel itself) writes.
pub type Take = Box<dyn Fn(Option<&Task>, &[u8]) -> Result<(), Errno> + Send + Sync>;
/// Judges an open beyond the permission bits.
pub type Judge = Box<dyn Fn(&Arc<Task>) -> Result<(), Errno> + Send + Sync>;
/// Resolves a link for a task.
pub type Resolve = Box<dyn Fn(&Arc<Task>) -> Result<LinkTarget, Errno> + Send + Sync>;
/// Opens a file with operations of its own.
pub type Open = Box<dyn Fn(u32, &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> + Send + Sync>;

/// A directory's entries.
pub trait Directory: Send + Sync + 'static {
    /// Finds one by name.
    fn lookup(&self, name: &[u8]) -> Result<Plan, Errno>;
    /// All, ascending by cursor.
    fn entries(&self) -> Result<Vec<Entry>, Errno>;
    /// The process that the directory is about.
    fn process(&self) -> Option<Arc<crate::task::Process>> {
        None
    }
    /// How many of the entries are directories.
    fn subdirectories(&self) -> u64 {
        self.entries().map_or(0, |entries| entries.iter().filter(|entry| entry.file_type == FileType::Directory).count() as u64)
    }
}

/// An entry as a listing shows it.
pub struct Entry {
    /// Name.
    pub name: Vec<u8>,
    /// Type.
    pub file_type: FileType,
    /// Position, greater than those of entries before; from 3 on.
    pub cursor: u64,
}

/// What a node shows.
pub enum Kind {
    /// Entries.
    Directory(Box<dyn Directory>),
    /// Bytes made on demand.
    File {
        /// Makes them.
        make: Make,
        /// Takes writes; none refuses them.
        take: Option<Take>,
        /// Judges opens.
        judge: Option<Judge>,
        /// Whether not even root may open it for writing.
        sealed: bool,
    },
    /// A file with operations of its own.
    Special(Open),
    /// A link.
    Link(Resolve),
}

/// What to make a node of.
pub struct Plan {
    /// Permission bits.
    pub permissions: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// What it shows.
    pub kind: Kind,
}

impl Plan {
    /// A directory that anyone may read, owned by root.
    pub fn directory(directory: impl Directory) -> Self {
        Self { permissions: 0o555, owner: (0, 0), kind: Kind::Directory(Box::new(directory)) }
    }

    /// A file that anyone may read, owned by root.
    pub fn file(make: impl Fn() -> Result<Vec<u8>, Errno> + Send + Sync + 'static) -> Self {
        Self::file_for(move |_| make())
    }

    /// Like [`file`](Self::file), where what it shows depends on who reads it.
    pub fn file_for(make: impl Fn(Option<&Task>) -> Result<Vec<u8>, Errno> + Send + Sync + 'static) -> Self {
        Self { permissions: 0o444, owner: (0, 0), kind: Kind::File { make: Box::new(make), take: None, judge: None, sealed: false } }
    }

    /// A link with a text, owned by root.
    pub fn link(text: impl Into<Vec<u8>>) -> Self {
        let text = text.into();
        let resolve = move |_: &Arc<Task>| Ok(LinkTarget::Text(text.clone()));
        Self { permissions: 0o777, owner: (0, 0), kind: Kind::Link(Box::new(resolve)) }
    }

    /// With other permission bits.
    #[must_use]
    pub fn mode(mut self, permissions: u32) -> Self {
        self.permissions = permissions;
        self
    }

    /// With another owner.
    #[must_use]
    pub fn owned(mut self, owner: (u32, u32)) -> Self {
        self.owner = owner;
        self
    }

    /// Taking writes.
    #[must_use]
    pub fn taking(mut self, with: impl Fn(Option<&Task>, &[u8]) -> Result<(), Errno> + Send + Sync + 'static) -> Self {
        if let Kind::File { take, .. } = &mut self.kind {
            *take = Some(Box::new(with));
        }
        self
    }

    /// Not to be opened for writing, by root either.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        if let Kind::File { sealed, .. } = &mut self.kind {
            *sealed = true;
        }
        self
    }

    /// With a judge of opens.
    #[must_use]
    pub fn judged(mut self, by: impl Fn(&Arc<Task>) -> Result<(), Errno> + Send + Sync + 'static) -> Self {
        if let Kind::File { judge, .. } = &mut self.kind {
            *judge = Some(Box::new(by));
        }
        self
    }
}

/// Numbers of one mounted filesystem.
#[derive(Clone, Copy, Debug)]
pub struct Filesystem {
    /// `st_dev`.
    pub device: u64,
    /// `statfs(2)`'s type.
    pub magic: i64,
}

/// An inode of a generated filesystem.
pub struct Node {
    common: InodeCommon,
    filesystem: Filesystem,
    number: u64,
    parent: u64,
    permissions: u32,
    owner: (u32, u32),
    time: Timespec,
    kind: Kind,
}

/// The number of an entry: the same name has the same number for as long as the filesystem is mounted.
fn number_of(parent: u64, name: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = name.iter().fold(OFFSET ^ parent.wrapping_mul(PRIME), |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    // 32-bit programs and `ls -i` columns like small numbers; 0 and 1 are taken.
    (hash ^ hash >> 32) & 0xffff_ffff | 2
}

impl Node {
    /// The root of a filesystem.
    pub fn root(filesystem: Filesystem, plan: Plan) -> Arc<Self> {
        Self::make(filesystem, 1, 1, plan)
    }

    /// The process that this directory is about, if it is about one.
    pub fn process(&self) -> Option<Arc<crate::task::Process>> {
        match &self.kind {
            Kind::Directory(directory) => directory.process(),
            _ => None,
        }
    }

    fn make(filesystem: Filesystem, number: u64, parent: u64, plan: Plan) -> Arc<Self> {
        let time = crate::time::realtime();
        let Plan { permissions, owner, kind } = plan;
        Arc::new(Self { common: InodeCommon::default(), filesystem, number, parent, permissions, owner, time, kind })
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
        let links = match &self.kind {
            Kind::Directory(directory) => 2 + directory.subdirectories(),
            _ => 1,
        };
        Ok(Attributes {
            device: self.filesystem.device,
            inode: self.number,
            file_type: self.file_type(),
            permissions: self.permissions,
            links,
            uid: self.owner.0,
            gid: self.owner.1,
            device_type: 0,
            size: 0,
            block_size: 1024,
            blocks: 0,
            accessed: self.time,
            modified: self.time,
            changed: self.time,
            created: None,
        })
    }

    fn file_type(&self) -> FileType {
        match self.kind {
            Kind::Directory(_) => FileType::Directory,
            Kind::File { .. } | Kind::Special(_) => FileType::Regular,
            Kind::Link(_) => FileType::Symlink,
        }
    }

    fn set_attributes(&self, changes: &SetAttributes) -> Result<(), Errno> {
        // Shells open with O_TRUNC to write a setting; times are those of the moment; everything else about these files is fixed.
        let same_owner = changes.uid.is_none_or(|user| user == self.owner.0) && changes.gid.is_none_or(|group| group == self.owner.1);
        if changes.permissions.is_none() && same_owner { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn create(&self, _name: &[u8], _node: NewNode<'_>, _permissions: u32, _maker: &Credentials) -> Result<Arc<dyn Inode>, Errno> {
        // A directory of procfs is asked for the name first, and does not have it.
        Err(if self.filesystem.magic == super::proc::MAGIC { Errno::ENOENT } else { Errno::EPERM })
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let Kind::Directory(directory) = &self.kind else {
            return Err(Errno::ENOTDIR);
        };
        let plan = directory.lookup(name)?;
        Ok(Self::make(self.filesystem, number_of(self.number, name), self.number, plan))
    }

    fn names_are_stable(&self) -> bool {
        false
    }

    fn read_link(&self, task: &Arc<Task>) -> Result<LinkTarget, Errno> {
        match &self.kind {
            Kind::Link(resolve) => resolve(task),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Arc<Self>, flags: u32, task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        match &self.kind {
            Kind::Directory(_) => Ok(Arc::new(OpenDirectory { node: self })),
            Kind::File { judge, sealed, .. } => {
                let access = flags & raw::O_ACCMODE;
                if access != raw::O_RDONLY && *sealed {
                    return Err(Errno::EACCES);
                }
                if let Some(judge) = judge {
                    judge(task)?;
                }
                Ok(Arc::new(OpenFile { node: self, bytes: Mutex::new(None) }))
            }
            Kind::Special(open) => open(flags, task),
            Kind::Link(_) => Err(Errno::ELOOP),
        }
    }

    fn statfs(&self) -> Result<FilesystemFigures, Errno> {
        Ok(FilesystemFigures { magic: self.filesystem.magic, block_size: 4096, name_length: 255, ..FilesystemFigures::default() })
    }
}

struct OpenDirectory {
    node: Arc<Node>,
}

impl FileOps for OpenDirectory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, _destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }

    fn seekable(&self) -> bool {
        true
    }

    fn end_of_file(&self, _file: &File) -> Result<u64, Errno> {
        Ok(0)
    }

    fn read_directory(&self, _file: &File, cursor: u64, sink: &mut DirectorySink<'_>) -> Result<(), Errno> {
        let node = &self.node;
        let Kind::Directory(directory) = &node.kind else {
            return Err(Errno::ENOTDIR);
        };
        if cursor < 1 && !sink(b".", node.number, FileType::Directory, 1) {
            return Ok(());
        }
        if cursor < 2 && !sink(b"..", node.parent, FileType::Directory, 2) {
            return Ok(());
        }
        for entry in directory.entries()?.iter().filter(|entry| entry.cursor > cursor) {
            if !sink(&entry.name, number_of(node.number, &entry.name), entry.file_type, entry.cursor) {
                break;
            }
        }
        Ok(())
    }
}

/// An open generated file. The bytes are made at the first read and again at each read from the start, as programs that keep
/// `/proc/stat` open expect.
struct OpenFile {
    node: Arc<Node>,
    bytes: Mutex<Option<Arc<[u8]>>>,
}

impl OpenFile {
    fn bytes(&self, fresh: bool, reader: Option<&Task>) -> Result<Arc<[u8]>, Errno> {
        let kept = self.bytes.lock().clone();
        if let (Some(kept), false) = (kept, fresh) {
            return Ok(kept);
        }
        let Kind::File { make, .. } = &self.node.kind else {
            return Err(Errno::EINVAL);
        };
        // Made without the lock: making may look at other files and tasks.
        let made: Arc<[u8]> = make(reader)?.into();
        *self.bytes.lock() = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl FileOps for OpenFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, offset: u64) -> Result<usize, Errno> {
        let bytes = self.bytes(offset == 0, destination.task())?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        destination.put(&bytes[start..])
    }

    fn write(&self, _file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        let Kind::File { take: Some(take), .. } = &self.node.kind else {
            return Err(Errno::EIO);
        };
        let bytes = source.take_vec(WRITE_LIMIT)?;
        take(source.task(), &bytes)?;
        Ok(bytes.len())
    }

    fn end_of_file(&self, _file: &File) -> Result<u64, Errno> {
        // Where the end is, nobody knows before all was read.
        Err(Errno::EINVAL)
    }

    fn seekable(&self) -> bool {
        true
    }
}

/// A fixed list of entries, each made by a function of what the directory is about.
pub type Listing<T> = &'static [(&'static str, FileType, fn(&T) -> Plan)];

/// A directory with a fixed list of entries, sorted by name.
pub struct Fixed<T: 'static> {
    /// What it is about.
    pub about: T,
    /// Its entries.
    pub listing: Listing<T>,
}

impl<T: Send + Sync + 'static> Directory for Fixed<T> {
    fn lookup(&self, name: &[u8]) -> Result<Plan, Errno> {
        let entry = self.listing.iter().find(|entry| entry.0.as_bytes() == name).ok_or(Errno::ENOENT)?;
        Ok(entry.2(&self.about))
    }

    fn entries(&self) -> Result<Vec<Entry>, Errno> {
        Ok(fixed_entries(self.listing))
    }
}

/// The entries of a fixed list, sorted by name.
pub fn fixed_entries<T>(listing: Listing<T>) -> Vec<Entry> {
    let mut names: Vec<(&str, FileType)> = listing.iter().map(|entry| (entry.0, entry.1)).collect();
    names.sort_unstable_by_key(|entry| entry.0);
    let entry = |(index, (name, file_type)): (usize, (&str, FileType))| Entry { name: name.into(), file_type, cursor: index as u64 + 3 };
    names.into_iter().enumerate().map(entry).collect()
}
