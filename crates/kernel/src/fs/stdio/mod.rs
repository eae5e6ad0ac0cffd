//! A host descriptor as a guest's standard input, output or error: pipe, terminal, file or socket.
//!
//! The description behind it is shared with whoever started the sandbox: its flags are never changed (no `O_NONBLOCK`), its terminal
//! settings are only read. So that no kernel thread sleeps in the host, a transfer happens only once the host says that it will not block.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, PAGE_SIZE, raw, raw_ioctl};
use rustix::fs::{FileType as HostType, SeekFrom};
use rustix::io::ReadWriteFlags;

use crate::host::transfer::{OWN_POSITION, status};
use crate::host::{HostDescriptor, errno};
use crate::io::{Destination, Source};
use crate::task::Task;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{Attributes, FileType, FilesystemFigures, Inode, InodeCommon, SetAttributes};
use crate::wait::{PollEvents, WaitQueue};

/// Most bytes of one write to something that cannot refuse to block: a pipe with room takes a page, a terminal a line.
const CAUTIOUS_WRITE: usize = 1024;
/// Most bytes of one read or write: the guest's memory is locked meanwhile.
const LARGEST: usize = 1 << 20;

/// How a host descriptor behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Never blocks, has positions.
    Seekable,
    /// Never blocks, has none (`/dev/null`).
    Steady,
    /// Pipe or socket.
    Stream,
    /// Terminal.
    Terminal,
}

/// Inode and operations at once: what is opened is always this one thing.
pub struct HostFile {
    common: InodeCommon,
    descriptor: Arc<HostDescriptor>,
    kind: Kind,
    file_type: FileType,
    /// The host refused `RWF_NOWAIT` once.
    no_nowait: AtomicBool,
}

/// The description that one of the first three descriptors gets; the access mode is the host description's.
pub fn open(fd: OwnedFd) -> Result<Arc<File>, Errno> {
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(errno)?.bits();
    let status = status(&fd).map_err(errno)?;
    let host_type = HostType::from_raw_mode(u32::from(status.stx_mode));
    let file_type = match host_type {
        HostType::Fifo => FileType::Fifo,
        HostType::RegularFile | HostType::BlockDevice => FileType::Regular,
        HostType::Socket => FileType::Socket,
        // Directories would be a way around the guest's tree.
        HostType::Directory => return Err(Errno::EISDIR),
        _ => FileType::CharacterDevice,
    };
    let kind = match host_type {
        HostType::RegularFile | HostType::BlockDevice => Kind::Seekable,
        HostType::Fifo | HostType::Socket => Kind::Stream,
        _ if rustix::termios::isatty(&fd) => Kind::Terminal,
        _ => Kind::Steady,
    };
    let host = Arc::new(HostFile {
        common: InodeCommon::default(),
        descriptor: HostDescriptor::new(fd),
        kind,
        file_type,
        no_nowait: AtomicBool::new(false),
    });
    Ok(File::new(host.clone(), host, None, flags & (raw::O_ACCMODE | raw::O_APPEND)))
}

impl HostFile {
    /// Reads without waiting, whatever the host's description says about blocking.
    fn read_now(&self, slices: &mut [IoSliceMut<'_>]) -> Result<usize, Errno> {
        let fd = self.descriptor.fd();
        if self.kind == Kind::Stream && !self.no_nowait.load(Ordering::Relaxed) {
            match rustix::io::preadv2(fd, slices, OWN_POSITION, ReadWriteFlags::NOWAIT) {
                Err(rustix::io::Errno::OPNOTSUPP) => self.no_nowait.store(true, Ordering::Relaxed),
                result => return result.map_err(errno),
            }
        }
        // Another reader of the same pipe could still be quicker; then this thread waits for the next bytes, and nobody else does.
        let ready = self.descriptor.poll();
        if !ready.intersects(PollEvents::IN | PollEvents::HUP | PollEvents::ERR) {
            return Err(Errno::EAGAIN);
        }
        rustix::io::preadv2(fd, slices, OWN_POSITION, ReadWriteFlags::empty()).map_err(errno)
    }

    /// Writes without waiting.
    fn write_now(&self, slices: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let fd = self.descriptor.fd();
        if self.kind == Kind::Stream && !self.no_nowait.load(Ordering::Relaxed) {
            match rustix::io::pwritev2(fd, slices, OWN_POSITION, ReadWriteFlags::NOWAIT) {
                Err(rustix::io::Errno::OPNOTSUPP) => self.no_nowait.store(true, Ordering::Relaxed),
                result => return result.map_err(errno),
            }
        }
        let ready = self.descriptor.poll();
        if !ready.intersects(PollEvents::OUT | PollEvents::HUP | PollEvents::ERR) {
            return Err(Errno::EAGAIN);
        }
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| &slice[..slice.len().min(CAUTIOUS_WRITE)]);
        rustix::io::write(fd, first).map_err(errno)
    }
}

impl FileOps for HostFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, offset: u64) -> Result<usize, Errno> {
        let fd = self.descriptor.fd();
        match self.kind {
            // The offset OWN_POSITION is -1 to the host and means its own position.
            Kind::Seekable => {
                destination.with_slices(LARGEST, |slices| rustix::io::preadv2(fd, slices, offset, ReadWriteFlags::empty()).map_err(errno))
            }
            Kind::Steady => destination
                .with_slices(LARGEST, |slices| rustix::io::preadv2(fd, slices, OWN_POSITION, ReadWriteFlags::empty()).map_err(errno)),
            Kind::Stream | Kind::Terminal => destination.with_slices(LARGEST, |slices| self.read_now(slices)),
        }
    }

    fn write(&self, _file: &File, source: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
        let fd = self.descriptor.fd();
        match self.kind {
            // With O_APPEND, set on the host's description itself, the host ignores the offset.
            Kind::Seekable => {
                source.with_slices(LARGEST, |slices| rustix::io::pwritev2(fd, slices, offset, ReadWriteFlags::empty()).map_err(errno))
            }
            Kind::Steady => {
                source.with_slices(LARGEST, |slices| rustix::io::pwritev2(fd, slices, OWN_POSITION, ReadWriteFlags::empty()).map_err(errno))
            }
            Kind::Stream | Kind::Terminal => source.with_slices(LARGEST, |slices| self.write_now(slices)),
        }
    }

    fn seekable(&self) -> bool {
        self.kind == Kind::Seekable
    }

    /// The host description's own: standard output and error are often one file, shared with whoever started the sandbox.
    fn own_position(&self, move_to: std::io::SeekFrom) -> Option<Result<u64, Errno>> {
        let target = match move_to {
            std::io::SeekFrom::Start(offset) => SeekFrom::Start(offset),
            std::io::SeekFrom::Current(offset) => SeekFrom::Current(offset),
            std::io::SeekFrom::End(offset) => SeekFrom::End(offset),
        };
        (self.kind == Kind::Seekable).then(|| rustix::fs::seek(self.descriptor.fd(), target).map_err(errno))
    }

    fn end_of_file(&self, _file: &File) -> Result<u64, Errno> {
        Ok(status(self.descriptor.fd()).map_err(errno)?.stx_size)
    }

    fn seek_data(&self, _file: &File, offset: u64, data: bool) -> Result<u64, Errno> {
        let target = if data { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
        rustix::fs::seek(self.descriptor.fd(), target).map_err(errno)
    }

    fn poll(&self, _file: &File) -> PollEvents {
        match self.kind {
            Kind::Seekable | Kind::Steady => PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM,
            Kind::Stream | Kind::Terminal => self.descriptor.poll(),
        }
    }

    fn queue(&self) -> Option<&WaitQueue> {
        match self.kind {
            Kind::Seekable | Kind::Steady => None,
            Kind::Stream | Kind::Terminal => Some(self.descriptor.queue()),
        }
    }

    fn watch(&self, on: bool) {
        if matches!(self.kind, Kind::Stream | Kind::Terminal) {
            self.descriptor.watch(on);
        }
    }

    fn ioctl(&self, _file: &File, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        let fd = self.descriptor.fd();
        match request {
            raw_ioctl::FIONREAD if self.queue().is_some() => {
                let count = rustix::io::ioctl_fionread(fd).map_err(errno)?;
                task.write(argument, &(count as i32)).map(|()| 0)
            }
            raw_ioctl::TIOCGWINSZ if self.kind == Kind::Terminal => {
                let size = rustix::termios::tcgetwinsize(fd).map_err(errno)?;
                task.write(argument, &[size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel]).map(|()| 0)
            }
            raw_ioctl::TCGETS if self.kind == Kind::Terminal => {
                let termios = terminal_settings(fd.as_raw_fd())?;
                task.write_bytes(argument, &termios).map(|()| 0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        let fd = self.descriptor.fd();
        if data_only { rustix::fs::fdatasync(fd) } else { rustix::fs::fsync(fd) }.map_err(errno)
    }
}

/// Size of the kernel's `struct termios`: four flag words, line discipline, 19 control characters.
const TERMIOS_BYTES: usize = 36;

/// What `TCGETS` answers for a host terminal, byte for byte.
fn terminal_settings(fd: i32) -> Result<[u8; TERMIOS_BYTES], Errno> {
    let mut termios = [0; TERMIOS_BYTES];
    // SAFETY: TCGETS writes one kernel `struct termios`, which is TERMIOS_BYTES long, and nothing else.
    let result = unsafe { libc::ioctl(fd, libc::TCGETS, termios.as_mut_ptr()) };
    if result == 0 { Ok(termios) } else { Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(5) as u16)) }
}

impl Inode for HostFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &InodeCommon {
        &self.common
    }

    fn attributes(&self) -> Result<Attributes, Errno> {
        let found = status(self.descriptor.fd()).map_err(errno)?;
        let time = |at: rustix::fs::StatxTimestamp| Timespec { tv_sec: at.tv_sec, tv_nsec: i64::from(at.tv_nsec) };
        Ok(Attributes {
            // Host numbers of devices and users mean nothing inside; sizes and times do.
            device: 0x0f,
            inode: found.stx_ino,
            file_type: self.file_type,
            permissions: if self.kind == Kind::Terminal { 0o620 } else { u32::from(found.stx_mode) & 0o777 },
            links: 1,
            uid: 0,
            gid: 0,
            device_type: if self.file_type == FileType::CharacterDevice {
                rustix::fs::makedev(found.stx_rdev_major, found.stx_rdev_minor)
            } else {
                0
            },
            size: found.stx_size,
            block_size: PAGE_SIZE,
            blocks: found.stx_blocks,
            accessed: time(found.stx_atime),
            modified: time(found.stx_mtime),
            changed: time(found.stx_ctime),
            created: None,
        })
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn link_text(&self) -> Option<Vec<u8>> {
        let number = status(self.descriptor.fd()).map_or(0, |status| status.stx_ino);
        Some(match self.file_type {
            FileType::Fifo => format!("pipe:[{number}]").into_bytes(),
            FileType::Socket => format!("socket:[{number}]").into_bytes(),
            _ => b"/dev/console".to_vec(),
        })
    }

    fn set_attributes(&self, changes: &SetAttributes) -> Result<(), Errno> {
        // The only change that a program can expect to work on an inherited file: `> file` with ftruncate.
        match changes.size {
            Some(size) if self.kind == Kind::Seekable => rustix::fs::ftruncate(self.descriptor.fd(), size).map_err(errno),
            Some(_) => Err(Errno::EINVAL),
            None => Err(Errno::EPERM),
        }
    }

    /// `/dev/stdin` and friends: the same description serves again.
    fn open(self: Arc<Self>, flags: u32, _task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        let granted = rustix::fs::fcntl_getfl(self.descriptor.fd()).map_err(errno)?.bits() & raw::O_ACCMODE;
        let asked = flags & raw::O_ACCMODE;
        if self.file_type == FileType::Socket {
            return Err(Errno::ENXIO);
        }
        if granted != raw::O_RDWR && granted != asked { Err(Errno::EACCES) } else { Ok(self) }
    }

    fn statfs(&self) -> Result<FilesystemFigures, Errno> {
        Ok(FilesystemFigures { magic: 0x5049_5045, block_size: PAGE_SIZE as i64, name_length: 255, ..FilesystemFigures::default() })
    }
}
