//! System V shared memory, `shmget(2)`.
//!
//! Each attachment is a mapping of a file of its own behind which the segment stands; how often a segment is attached is counted by looking
//! through the address spaces, so that forks, exits and splits of mappings need no bookkeeping.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use cloudpilot_abi::{Errno, PAGE_SIZE, raw};
use parking_lot::Mutex;

use super::{Ipc, Object, Permissions};
use crate::Kernel;
use crate::mm::Mm;
use crate::task::Task;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{Attributes, FileType, FilesystemFigures, Inode, InodeCommon};

/// `SHM_DEST`: removed, and gone with its last attachment.
pub const DESTROYED: u32 = 0o1000;
/// `SHM_LOCKED`.
pub const LOCKED: u32 = 0o2000;

/// A segment.
pub struct Segment {
    /// Number.
    pub id: i32,
    /// Size as asked for.
    pub size: u64,
    /// Its memory.
    pub memory: Arc<cloudpilot_memory::Object>,
    /// What changes.
    pub state: Mutex<State>,
    /// Maker.
    pub maker: i32,
    /// Process that attached or detached last.
    pub last: AtomicI32,
    common: InodeCommon,
}

/// What changes of a segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Who may use it.
    pub permissions: Permissions,
    /// Last attachment, seconds.
    pub attached: i64,
    /// Last detachment.
    pub detached: i64,
    /// Last change.
    pub changed: i64,
}

impl Object for Segment {
    fn permissions(&self) -> Permissions {
        self.state.lock().permissions
    }
}

impl Segment {
    /// A new one.
    pub fn new(task: &Task, id: i32, size: u64, permissions: Permissions) -> Self {
        let memory = cloudpilot_memory::Object::new(&task.kernel.memory, size.next_multiple_of(PAGE_SIZE));
        let state = State { permissions, changed: crate::time::realtime().tv_sec, ..State::default() };
        let maker = task.process.pid;
        Self { id, size, memory, state: Mutex::new(state), maker, last: AtomicI32::new(0), common: InodeCommon::default() }
    }

    /// How often it is attached now.
    pub fn attachments(self: &Arc<Self>, kernel: &Kernel) -> usize {
        let mut spaces: Vec<Arc<Mm>> = Vec::new();
        for task in kernel.tasks.tasks() {
            if let Ok(mm) = task.mm()
                && !spaces.iter().any(|other| Arc::ptr_eq(other, &mm))
            {
                spaces.push(mm);
            }
        }
        let count = |mm: &Arc<Mm>| {
            let mut files: Vec<*const File> = mm.mapped_files(|file| of_file(file).is_some_and(|segment| Arc::ptr_eq(segment, self)));
            files.sort_unstable();
            files.dedup();
            files.len()
        };
        spaces.iter().map(count).sum()
    }

    /// Notes an attachment or detachment by a process.
    pub fn touch(&self, pid: i32, attached: bool) {
        self.last.store(pid, Ordering::Relaxed);
        let now = crate::time::realtime().tv_sec;
        let mut state = self.state.lock();
        if attached {
            state.attached = now;
        } else {
            state.detached = now;
        }
    }

    /// Takes a removed segment out of the registry once nobody has it attached; true if it is gone.
    pub fn settle(self: &Arc<Self>, kernel: &Kernel, ipc: &Ipc) -> bool {
        let destroyed = self.state.lock().permissions.mode & DESTROYED != 0;
        destroyed && self.attachments(kernel) == 0 && {
            ipc.segments.remove(self.id);
            true
        }
    }
}

/// The segment of a number, unless it was removed and its last attachment has gone meanwhile.
pub fn find(kernel: &Kernel, ipc: &Ipc, id: i32) -> Result<Arc<Segment>, Errno> {
    let segment = ipc.segments.find(id)?;
    if segment.settle(kernel, ipc) { Err(Errno::EINVAL) } else { Ok(segment) }
}

/// A process ended: removed segments that it was the last to have attached give their memory back.
pub fn process_exits(kernel: &Kernel, ipc: &Ipc) {
    for (_, segment) in ipc.segments.all() {
        segment.settle(kernel, ipc);
    }
}

/// The file of one attachment.
pub struct Attachment(Arc<Segment>);

/// A new attachment's file.
pub fn attachment(segment: &Arc<Segment>) -> Arc<File> {
    File::new(Arc::new(Attachment(Arc::clone(segment))), Arc::clone(segment) as Arc<dyn Inode>, None, raw::O_RDWR)
}

/// The segment behind a file, if it is an attachment.
pub fn of_file(file: &File) -> Option<&Arc<Segment>> {
    file.ops_as::<Attachment>().map(|attachment| &attachment.0)
}

impl FileOps for Attachment {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Inode for Segment {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &InodeCommon {
        &self.common
    }

    fn attributes(&self) -> Result<Attributes, Errno> {
        let state = *self.state.lock();
        let time = cloudpilot_abi::types::Timespec { tv_sec: state.changed, tv_nsec: 0 };
        Ok(Attributes {
            device: 1,
            inode: self.id as u64,
            file_type: FileType::Regular,
            permissions: state.permissions.mode & 0o777,
            links: 0,
            uid: state.permissions.uid,
            gid: state.permissions.gid,
            device_type: 0,
            size: self.size,
            block_size: PAGE_SIZE,
            blocks: self.memory.allocated() / 512,
            accessed: time,
            modified: time,
            changed: time,
            created: None,
        })
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn link_text(&self) -> Option<Vec<u8>> {
        Some(format!("/SYSV{:08x} (deleted)", self.state.lock().permissions.key).into_bytes())
    }

    fn open(self: Arc<Self>, _flags: u32, _task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ENXIO)
    }

    fn statfs(&self) -> Result<FilesystemFigures, Errno> {
        Ok(FilesystemFigures { magic: 0x0102_1994, block_size: PAGE_SIZE as i64, name_length: 255, ..FilesystemFigures::default() })
    }
}
