//! Inodes without a name in any tree: behind pipes, sockets, eventfds and the like.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cloudpilot_abi::Errno;
use cloudpilot_abi::types::Timespec;
use parking_lot::Mutex;

use super::file::{File, FileOps};
use super::inode::{Attributes, FileType, FilesystemFigures, Inode, InodeCommon, SetAttributes, SetTime};
use crate::fs::pipe::Fifo;
use crate::task::Task;

/// Device number that anonymous inodes report.
const ANONYMOUS_DEVICE: u64 = 0x0e;
static NEXT_INODE: AtomicU64 = AtomicU64::new(1);

/// An inode that only attributes can be asked of.
pub struct AnonymousInode {
    common: InodeCommon,
    file_type: FileType,
    number: u64,
    /// What `/proc/<pid>/fd/<n>` prints: `anon_inode:[eventfd]`, `pipe`, `socket` (the last two get `:[number]` appended).
    label: &'static str,
    attributes: Mutex<(u32, u32, u32, Timespec)>,
    /// For pipes, which can be opened again through `/proc/<pid>/fd`.
    fifo: Option<Fifo>,
}

impl AnonymousInode {
    /// A new inode owned by root with mode 0600.
    pub fn new(label: &'static str, file_type: FileType) -> Arc<Self> {
        Self::with_fifo(label, file_type, None)
    }

    /// The inode of a pipe.
    pub fn new_fifo(fifo: Fifo) -> Arc<Self> {
        Self::with_fifo("pipe", FileType::Fifo, Some(fifo))
    }

    fn with_fifo(label: &'static str, file_type: FileType, fifo: Option<Fifo>) -> Arc<Self> {
        let number = next_number();
        let attributes = Mutex::new((0o600, 0, 0, crate::time::realtime()));
        Arc::new(Self { common: InodeCommon::default(), file_type, number, label, attributes, fifo })
    }

    /// What the link in `/proc/<pid>/fd` reads.
    pub fn link_text(&self) -> String {
        if self.label.starts_with("anon_inode") || self.label.starts_with('/') {
            self.label.to_owned()
        } else {
            format!("{}:[{}]", self.label, self.number)
        }
    }
}

/// A number for an inode outside of all trees.
pub fn next_number() -> u64 {
    NEXT_INODE.fetch_add(1, Ordering::Relaxed)
}

/// Opens an anonymous file, such as `anon_inode:[eventfd]`.
pub fn open(label: &'static str, file_type: FileType, ops: Arc<dyn FileOps>, flags: u32) -> Arc<File> {
    File::new(ops, AnonymousInode::new(label, file_type), None, flags)
}

impl Inode for AnonymousInode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &InodeCommon {
        &self.common
    }

    fn attributes(&self) -> Result<Attributes, Errno> {
        let (permissions, uid, gid, time) = *self.attributes.lock();
        Ok(Attributes {
            device: ANONYMOUS_DEVICE,
            inode: self.number,
            file_type: self.file_type,
            permissions,
            links: 1,
            uid,
            gid,
            device_type: 0,
            size: 0,
            block_size: 4096,
            blocks: 0,
            accessed: time,
            modified: time,
            changed: time,
            created: None,
        })
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn link_text(&self) -> Option<Vec<u8>> {
        Some(AnonymousInode::link_text(self).into_bytes())
    }

    fn set_attributes(&self, changes: &SetAttributes) -> Result<(), Errno> {
        if changes.size.is_some() {
            return Err(Errno::EINVAL);
        }
        let mut attributes = self.attributes.lock();
        attributes.0 = changes.permissions.unwrap_or(attributes.0);
        attributes.1 = changes.uid.unwrap_or(attributes.1);
        attributes.2 = changes.gid.unwrap_or(attributes.2);
        if let Some(SetTime::At(time)) = changes.modified {
            attributes.3 = time;
        }
        Ok(())
    }

    fn open(self: Arc<Self>, flags: u32, task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        self.fifo.as_ref().ok_or(Errno::ENXIO)?.open(flags, task)
    }

    fn statfs(&self) -> Result<FilesystemFigures, Errno> {
        // `PIPEFS_MAGIC`, `SOCKFS_MAGIC`, `ANON_INODE_FS_MAGIC`.
        let magic = match self.file_type {
            FileType::Fifo => 0x5049_5045,
            FileType::Socket => 0x534f_434b,
            _ => 0x0904_1934,
        };
        Ok(FilesystemFigures { magic, block_size: 4096, name_length: 255, ..FilesystemFigures::default() })
    }
}
