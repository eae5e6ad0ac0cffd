//! devpts: `/dev/pts`, a node for each pseudoterminal and `ptmx` to make new ones.
//!
//! Lock order: a node's `attributes` are locked alone.

use std::any::Any;
use std::sync::{Arc, Weak};

use cloudpilot_abi::Errno;
use cloudpilot_abi::types::Timespec;
use parking_lot::Mutex;

use super::dev;
use crate::Kernel;
use crate::task::Task;
use crate::tty::Tty;
use crate::vfs::Path;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{Attributes, DirectorySink, FileType, FilesystemFigures, Inode, InodeCommon, SetAttributes, SetTime};

/// `st_dev` of devpts.
const DEVICE: u64 = 0x18;
/// `DEVPTS_SUPER_MAGIC`.
const MAGIC: i64 = 0x1cd1;
/// Group `tty` of every distribution, which new slaves belong to (`gid=5`).
const TTY_GROUP: u32 = 5;
/// Inode of `ptmx`; slaves come behind.
const PTMX_INODE: u64 = 2;

/// A devpts that shows this kernel's terminals.
pub fn root(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    Arc::new(Root { common: InodeCommon::default(), kernel: Arc::downgrade(kernel), made: crate::time::realtime() })
}

/// Where a terminal's node lies in the tree of the machine, if a devpts is mounted.
pub fn place_of(kernel: &Kernel, tty: &Tty) -> Option<Path> {
    let mount = kernel.mounts.all().into_iter().find(|mount| mount.root.inode.as_any().is::<Root>())?;
    let name = mount.root.child(tty.index.to_string().as_bytes()).ok()?;
    Some(Path { mount, name })
}

fn figures() -> FilesystemFigures {
    FilesystemFigures { magic: MAGIC, block_size: 4096, name_length: 255, ..FilesystemFigures::default() }
}

fn device_attributes(number: u64, device: u64, permissions: u32, owner: (u32, u32), time: Timespec) -> Attributes {
    Attributes {
        device: DEVICE,
        inode: number,
        file_type: FileType::CharacterDevice,
        permissions,
        links: 1,
        uid: owner.0,
        gid: owner.1,
        device_type: device,
        size: 0,
        block_size: 1024,
        blocks: 0,
        accessed: time,
        modified: time,
        changed: time,
        created: None,
    }
}

struct Root {
    common: InodeCommon,
    kernel: Weak<Kernel>,
    made: Timespec,
}

impl Root {
    fn terminals(&self) -> Vec<Arc<Tty>> {
        self.kernel.upgrade().map(|kernel| kernel.terminals.all()).unwrap_or_default()
    }
}

impl Inode for Root {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &InodeCommon {
        &self.common
    }

    fn attributes(&self) -> Result<Attributes, Errno> {
        let attributes = device_attributes(1, 0, 0o755, (0, 0), self.made);
        Ok(Attributes { file_type: FileType::Directory, links: 2, ..attributes })
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        if name == b"ptmx" {
            return Ok(Arc::new(MultiplexerNode { common: InodeCommon::default(), made: self.made }));
        }
        let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let index: u32 = text.parse().map_err(|_| Errno::ENOENT)?;
        if index.to_string() != text {
            return Err(Errno::ENOENT);
        }
        let kernel = self.kernel.upgrade().ok_or(Errno::ENOENT)?;
        let tty = kernel.terminals.find(index).ok_or(Errno::ENOENT)?;
        Ok(tty.node.clone())
    }

    fn names_are_stable(&self) -> bool {
        false
    }

    fn open(self: Arc<Self>, _flags: u32, _task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(OpenRoot { root: self }))
    }

    fn statfs(&self) -> Result<FilesystemFigures, Errno> {
        Ok(figures())
    }
}

struct OpenRoot {
    root: Arc<Root>,
}

impl FileOps for OpenRoot {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn read_directory(&self, _file: &File, cursor: u64, sink: &mut DirectorySink<'_>) -> Result<(), Errno> {
        let fixed: [(&[u8], u64, FileType); 3] =
            [(b".", 1, FileType::Directory), (b"..", 1, FileType::Directory), (b"ptmx", PTMX_INODE, FileType::CharacterDevice)];
        for (index, (name, number, file_type)) in fixed.into_iter().enumerate().skip(cursor as usize) {
            if !sink(name, number, file_type, index as u64 + 1) {
                return Ok(());
            }
        }
        for tty in self.root.terminals() {
            let after = u64::from(tty.index) + 4;
            if after > cursor && !sink(tty.index.to_string().as_bytes(), tty.node.number, FileType::CharacterDevice, after) {
                break;
            }
        }
        Ok(())
    }
}

/// `/dev/pts/ptmx`.
struct MultiplexerNode {
    common: InodeCommon,
    made: Timespec,
}

impl Inode for MultiplexerNode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &InodeCommon {
        &self.common
    }

    fn attributes(&self) -> Result<Attributes, Errno> {
        Ok(device_attributes(PTMX_INODE, dev::number(5, 2), 0o666, (0, 0), self.made))
    }

    fn file_type(&self) -> FileType {
        FileType::CharacterDevice
    }

    fn open(self: Arc<Self>, _flags: u32, task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        task.kernel.terminals.open_master(&task.kernel, task)
    }

    fn statfs(&self) -> Result<FilesystemFigures, Errno> {
        Ok(figures())
    }
}

/// Permissions, owner and times of a slave's node.
struct NodeAttributes {
    permissions: u32,
    owner: (u32, u32),
    accessed: Timespec,
    modified: Timespec,
    changed: Timespec,
}

/// The node of a slave, `/dev/pts/<n>`.
pub struct SlaveNode {
    common: InodeCommon,
    tty: Weak<Tty>,
    index: u32,
    number: u64,
    attributes: Mutex<NodeAttributes>,
}

impl SlaveNode {
    /// The node of a new pair.
    pub fn new(tty: Weak<Tty>, index: u32, uid: u32) -> Arc<Self> {
        let now = crate::time::realtime();
        let attributes = NodeAttributes { permissions: 0o620, owner: (uid, TTY_GROUP), accessed: now, modified: now, changed: now };
        let number = u64::from(index) + PTMX_INODE + 1;
        Arc::new(Self { common: InodeCommon::default(), tty, index, number, attributes: Mutex::new(attributes) })
    }
}

impl Inode for SlaveNode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &InodeCommon {
        &self.common
    }

    fn attributes(&self) -> Result<Attributes, Errno> {
        let own = self.attributes.lock();
        let device = dev::number(dev::SLAVES, self.index);
        let attributes = device_attributes(self.number, device, own.permissions, own.owner, own.modified);
        Ok(Attributes { accessed: own.accessed, changed: own.changed, ..attributes })
    }

    fn file_type(&self) -> FileType {
        FileType::CharacterDevice
    }

    /// For those who reached it without a path.
    fn link_text(&self) -> Option<Vec<u8>> {
        Some(format!("/dev/pts/{}", self.index).into_bytes())
    }

    fn set_attributes(&self, changes: &SetAttributes) -> Result<(), Errno> {
        let now = crate::time::realtime();
        let time = |change: Option<SetTime>, present: Timespec| match change {
            None => present,
            Some(SetTime::Now) => now,
            Some(SetTime::At(time)) => time,
        };
        let mut own = self.attributes.lock();
        own.permissions = changes.permissions.unwrap_or(own.permissions);
        own.owner = (changes.uid.unwrap_or(own.owner.0), changes.gid.unwrap_or(own.owner.1));
        own.accessed = time(changes.accessed, own.accessed);
        own.modified = time(changes.modified, own.modified);
        own.changed = now;
        Ok(())
    }

    fn open(self: Arc<Self>, flags: u32, task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        self.tty.upgrade().ok_or(Errno::EIO)?.open_slave(flags, task)
    }

    fn statfs(&self) -> Result<FilesystemFigures, Errno> {
        Ok(figures())
    }
}
