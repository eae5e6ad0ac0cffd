//! The in-memory filesystem, and with a lower layer the root overlay: a directory may show a read-only host directory beneath its own entries,
//! and a file may be a host file until it is first changed. One kind of node serves both, so that renaming, linking or removing what came from
//! below is no special case: a node keeps its lower part wherever it goes.
//!
//! Lock order: a directory's state before its children's; two directories by number.

pub mod changes;
mod directory;
mod file;
mod node;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cloudpilot_memory::{Account, MemoryFile, Object};

pub use node::{Body, Lower, Node};

use crate::fs::host::HostDirectory;
use crate::vfs::inode::FilesystemFigures;

/// Bytes that a name, node and its bookkeeping are charged with, so that empty files run into the size limit too.
const NODE_CHARGE: u64 = 512;
/// `TMPFS_MAGIC`, `OVERLAYFS_SUPER_MAGIC`.
const TMPFS_MAGIC: i64 = 0x0102_1994;
const OVERLAY_MAGIC: i64 = 0x794c_7630;

/// One filesystem.
pub struct Tmpfs {
    /// Its number, `st_dev`.
    device: u64,
    memory: Arc<MemoryFile>,
    /// Most bytes that files and nodes may take.
    limit: u64,
    used: AtomicU64,
    nodes: AtomicU64,
    next_inode: AtomicU64,
    overlay: bool,
    /// The directory that the whole of it lies over.
    lower: Option<Arc<HostDirectory>>,
}

static NEXT_DEVICE: AtomicU64 = AtomicU64::new(0x20);

impl Account for Tmpfs {
    fn charge(&self, bytes: u64) -> bool {
        let reserve = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_ok()
    }

    fn refund(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Tmpfs {
    /// An empty filesystem of at most `limit` bytes; answers its root directory. `lower` makes it an overlay.
    pub fn create(memory: &Arc<MemoryFile>, limit: u64, permissions: u32, lower: Option<Lower>) -> Arc<Node> {
        let filesystem = Arc::new(Self {
            device: NEXT_DEVICE.fetch_add(1, Ordering::Relaxed),
            memory: Arc::clone(memory),
            limit,
            used: AtomicU64::new(0),
            nodes: AtomicU64::new(0),
            next_inode: AtomicU64::new(1),
            overlay: lower.is_some(),
            lower: lower.as_ref().and_then(|lower| match lower {
                Lower::Host(directory) => Some(Arc::clone(directory)),
                Lower::Empty => None,
            }),
        });
        Node::root(filesystem, permissions, lower)
    }

    /// The filesystem's memory.
    pub fn memory(&self) -> &Arc<MemoryFile> {
        &self.memory
    }

    /// An empty file's contents, which this filesystem's limit holds for.
    fn object(self: &Arc<Self>) -> Arc<Object> {
        Object::accounted(&self.memory, Arc::clone(self) as Arc<dyn Account>)
    }

    fn new_inode(&self) -> u64 {
        self.next_inode.fetch_add(1, Ordering::Relaxed)
    }

    fn figures(&self) -> FilesystemFigures {
        let used = self.used.load(Ordering::Relaxed);
        let inodes = self.limit / NODE_CHARGE;
        FilesystemFigures {
            magic: if self.overlay { OVERLAY_MAGIC } else { TMPFS_MAGIC },
            block_size: 4096,
            blocks: self.limit / 4096,
            free_blocks: self.limit.saturating_sub(used) / 4096,
            inodes,
            free_inodes: inodes.saturating_sub(self.nodes.load(Ordering::Relaxed)),
            name_length: 255,
        }
    }
}
