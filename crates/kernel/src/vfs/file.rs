//! Open file descriptions and what can be done with them.

use std::any::Any;
use std::io::SeekFrom;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use super::Path;
use super::async_notice::AsyncNotice;
use super::directory_notice::DirectoryNotice;
use super::inode::{DirectorySink, Inode};
use super::locks::LockOwner;
use super::watch;
use super::write_access::{ReadAccess, WriteAccess};
use crate::fs::epoll::EpollLinks;
use crate::io::{Destination, Source};
use crate::mm::Mapping;
use crate::task::Task;
use crate::wait::{PollEvents, WaitQueue};

/// What the bytes of a file count as, where the sandbox's use of resources is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Memory of the sandbox, or nothing that anybody counts: pipes, terminals, generated files.
    Memory,
    /// Files of the host.
    Storage,
    /// The loopback.
    Loopback,
    /// What is outside of the sandbox.
    Network,
}

/// Operations of an open file. Nothing here blocks: what would, answers `EAGAIN` and announces readiness on [`queue`](Self::queue);
/// the system-call layer waits and tries again unless `O_NONBLOCK` is set.
pub trait FileOps: Any + Send + Sync {
    /// For callers that need the concrete type (sockets, epoll, ptys).
    fn as_any(&self) -> &dyn Any;

    /// What its bytes count as.
    fn traffic(&self) -> Traffic {
        Traffic::Memory
    }

    /// Reads at `offset`, which files without positions ignore. 0 is the end.
    fn read(&self, _file: &File, _destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Writes at `offset`. `O_APPEND` is the file's business: it writes at its end and reports where through [`end_of_file`](Self::end_of_file).
    fn write(&self, _file: &File, _source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Whether positions mean something (`lseek`, `pread`); otherwise `ESPIPE`.
    fn seekable(&self) -> bool {
        false
    }

    /// The position of a file that keeps it elsewhere (a host description that others share): moves by `lseek(2)`'s rules and answers where it is. Reads
    /// and writes at the position then come with the offset [`OWN_POSITION`]. None for files whose [`File::position`] counts.
    fn own_position(&self, _move_to: SeekFrom) -> Option<Result<u64, Errno>> {
        None
    }

    /// Size for `SEEK_END` and for the position after an append.
    fn end_of_file(&self, _file: &File) -> Result<u64, Errno> {
        Err(Errno::EINVAL)
    }

    /// `SEEK_DATA` (`data` true) and `SEEK_HOLE`; the default knows no holes.
    fn seek_data(&self, file: &File, offset: u64, data: bool) -> Result<u64, Errno> {
        let end = self.end_of_file(file)?;
        match (offset < end, data) {
            (false, _) => Err(Errno::ENXIO),
            (true, true) => Ok(offset),
            (true, false) => Ok(end),
        }
    }

    /// Lists a directory from `cursor` (0 at first); entries `.` and `..` included.
    fn read_directory(&self, _file: &File, _cursor: u64, _sink: &mut DirectorySink<'_>) -> Result<(), Errno> {
        Err(Errno::ENOTDIR)
    }

    /// Present readiness, as `poll(2)` would report with every event asked for.
    fn poll(&self, _file: &File) -> PollEvents {
        PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM
    }

    /// For a read that answered `EAGAIN`: when (host's monotonic clock) it ends nevertheless, with 0 bytes (a terminal's `VTIME`). `started` is
    /// when the call began. Asked anew before each wait.
    fn read_deadline(&self, _file: &File, _started: u64) -> Option<u64> {
        None
    }

    /// Whether `lseek(2)` succeeds although there is nothing to seek in.
    fn ignores_seeks(&self) -> bool {
        false
    }

    /// Whether a write that fails with `EPIPE` also raises `SIGPIPE`.
    fn signals_broken_pipe(&self) -> bool {
        true
    }

    /// Longest wait of a read or write, nanoseconds, after which it fails with `EAGAIN` (a socket's `SO_RCVTIMEO` and `SO_SNDTIMEO`).
    fn timeout(&self, _writing: bool) -> Option<u64> {
        None
    }

    /// Where changes of readiness are announced; none for files that are always ready.
    fn queue(&self) -> Option<&WaitQueue> {
        None
    }

    /// Called before somebody waits on [`queue`](Self::queue) (true) and after (false): host descriptors arm their poller here.
    fn watch(&self, _on: bool) {}

    /// `ioctl(2)`; those that every file knows (`FIONBIO`, `FIOCLEX`) are handled above.
    fn ioctl(&self, _file: &File, _task: &Arc<Task>, _request: u32, _argument: u64) -> Result<usize, Errno> {
        Err(Errno::ENOTTY)
    }

    /// What a mapping of this file shows. `shared` and `writable` are the mapping's.
    fn mapping(&self, _file: &File, _shared: bool, _writable: bool) -> Result<Mapping, Errno> {
        Err(Errno::ENODEV)
    }

    /// `fsync(2)`, `fdatasync(2)`.
    fn sync(&self, _file: &File, _data_only: bool) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// What was written through shared mappings is to be seen (`msync(2)`): for files that keep times, a change.
    fn note_mapped_writes(&self) {}

    /// `fallocate(2)`.
    fn allocate(&self, _file: &File, _mode: u32, _offset: u64, _length: u64) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// A descriptor was closed (others of the same description may be open still).
    fn flush(&self, _file: &File, _task: &Arc<Task>) {}

    /// The last descriptor is gone.
    fn release(&self, _file: &File) {}

    /// Lines for `/proc/<pid>/fdinfo` beside position and flags.
    fn describe(&self, _file: &File) -> String {
        String::new()
    }
}

/// The offset that stands for "at the file's own position"; see [`FileOps::own_position`].
pub const OWN_POSITION: u64 = u64::MAX;

/// Status flags that `fcntl(F_SETFL)` may change.
pub const SETTABLE_FLAGS: u32 = raw::O_APPEND | raw::O_NONBLOCK | raw::O_DIRECT | raw::O_NOATIME | raw::FASYNC;

/// An open file description, `open(2)`: what descriptors share after `dup(2)` and `fork(2)`.
pub struct File {
    /// What can be done.
    pub ops: Arc<dyn FileOps>,
    /// The inode: attributes, locks, watches.
    pub inode: Arc<dyn Inode>,
    /// Name and mount under which it was opened; none for pipes, sockets and the like.
    pub path: Option<Path>,
    /// Position; locked for as long as one read or write that uses it, as Linux does.
    pub position: Mutex<u64>,
    flags: AtomicU32,
    /// `F_SETOWN`: positive a process, negative a group.
    pub owner: AtomicI32,
    /// `F_SETSIG`.
    pub owner_signal: AtomicI32,
    /// Real and effective user of who named the owner: what that one may not signal hears nothing.
    pub owner_setter: AtomicU64,
    /// Which epolls watch it, so that they forget it with its last descriptor.
    pub epolls: EpollLinks,
    /// Who sends `SIGIO` while `FASYNC` is set.
    pub async_notice: AsyncNotice,
    /// Who sends `SIGIO` for changes of a directory.
    pub directory_notice: DirectoryNotice,
    /// Held by files that were opened by name for writing.
    pub write_access: OnceLock<WriteAccess>,
    /// Held by files that were opened by name for reading alone.
    pub read_access: OnceLock<ReadAccess>,
    /// Whether opening it made it, `F_CREATED_QUERY`.
    pub created: AtomicBool,
}

/// How many descriptions there are, `/proc/sys/fs/file-nr`.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// How many files are open.
pub fn open_count() -> u64 {
    OPEN.load(Ordering::Relaxed)
}

impl File {
    /// A description with its `O_*` flags.
    pub fn new(ops: Arc<dyn FileOps>, inode: Arc<dyn Inode>, path: Option<Path>, flags: u32) -> Arc<Self> {
        watch::file_opened(&*inode);
        OPEN.fetch_add(1, Ordering::Relaxed);
        let flags = AtomicU32::new(flags & !(raw::O_CREAT | raw::O_EXCL | raw::O_NOCTTY | raw::O_TRUNC | raw::O_CLOEXEC));
        Arc::new(Self {
            ops,
            inode,
            path,
            position: Mutex::new(0),
            flags,
            owner: AtomicI32::new(0),
            owner_signal: AtomicI32::new(0),
            owner_setter: AtomicU64::new(0),
            epolls: EpollLinks::default(),
            async_notice: AsyncNotice::default(),
            directory_notice: DirectoryNotice::default(),
            write_access: OnceLock::new(),
            read_access: OnceLock::new(),
            created: AtomicBool::new(false),
        })
    }

    /// Access mode and status flags, as `F_GETFL` gives them.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Replaces the flags that `F_SETFL` may change.
    pub fn set_flags(&self, flags: u32) {
        let kept = self.flags() & !SETTABLE_FLAGS;
        self.flags.store(kept | flags & SETTABLE_FLAGS, Ordering::Relaxed);
    }

    /// Opened for reading (and not by `O_PATH`).
    pub fn readable(&self) -> bool {
        let flags = self.flags();
        flags & raw::O_PATH == 0 && matches!(flags & raw::O_ACCMODE, raw::O_RDONLY | raw::O_RDWR)
    }

    /// Opened for writing (and not by `O_PATH`).
    pub fn writable(&self) -> bool {
        let flags = self.flags();
        flags & raw::O_PATH == 0 && matches!(flags & raw::O_ACCMODE, raw::O_WRONLY | raw::O_RDWR)
    }

    /// `O_NONBLOCK`.
    pub fn nonblocking(&self) -> bool {
        self.flags() & raw::O_NONBLOCK != 0
    }

    /// `O_APPEND`.
    pub fn appends(&self) -> bool {
        self.flags() & raw::O_APPEND != 0
    }

    /// Whether [`position`](Self::position) counts.
    pub fn has_position(&self) -> bool {
        self.ops.seekable() && self.ops.own_position(SeekFrom::Current(0)).is_none()
    }

    /// Where the next read or write happens.
    pub fn current_position(&self) -> Result<u64, Errno> {
        self.ops.own_position(SeekFrom::Current(0)).unwrap_or_else(|| Ok(*self.position.lock()))
    }

    /// Moves there.
    pub fn set_position(&self, position: u64) -> Result<(), Errno> {
        match self.ops.own_position(SeekFrom::Start(position)) {
            Some(result) => result.map(drop),
            None => {
                *self.position.lock() = position;
                Ok(())
            }
        }
    }

    /// The operations as their concrete type.
    pub fn ops_as<T: 'static>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
        self.epolls.file_gone(self);
        self.async_notice.end(self);
        self.directory_notice.end(self);
        self.inode.common().locks.release(LockOwner::description(self));
        self.inode.common().leases.release(self);
        if let Some(path) = &self.path {
            path.mount.use_again();
        }
        if self.flags() & raw::O_PATH == 0 {
            watch::file_event(self, if self.writable() { raw::IN_CLOSE_WRITE } else { raw::IN_CLOSE_NOWRITE });
        }
        self.ops.release(self);
        watch::file_closed(&*self.inode);
    }
}
