//! `memfd_create(2)`: files of guest memory without a name, with seals.
//!
//! Lock order: a memfd's seals, then guest memory, then the object's pages.

use std::any::Any;
use std::sync::Arc;

use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, PAGE_SIZE, raw};
use cloudpilot_memory::Object;
use parking_lot::Mutex;

use crate::io::{Destination, Source};
use crate::mm::{Mapping, WriterMark};
use crate::task::{Credentials, Task};
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{Attributes, FileType, FilesystemFigures, Inode, InodeCommon, SetAttributes, SetTime};

/// `TMPFS_MAGIC`: memfds live on the kernel's internal tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// Device number of that tmpfs.
const DEVICE: u64 = 0x01;
/// All seals there are.
const ALL_SEALS: u32 =
    raw::F_SEAL_SEAL | raw::F_SEAL_SHRINK | raw::F_SEAL_GROW | raw::F_SEAL_WRITE | raw::F_SEAL_FUTURE_WRITE | raw::F_SEAL_EXEC;
/// Largest size, as on tmpfs.
const LARGEST: u64 = i64::MAX as u64;

struct State {
    seals: u32,
    permissions: u32,
    uid: u32,
    gid: u32,
    accessed: Timespec,
    modified: Timespec,
    changed: Timespec,
}

/// A memfd's inode.
pub struct Memfd {
    common: InodeCommon,
    object: Arc<Object>,
    /// Cloned for each shared mapping that may write.
    writer: WriterMark,
    number: u64,
    name: Vec<u8>,
    state: Mutex<State>,
}

/// One open description of it.
struct MemfdOps {
    memfd: Arc<Memfd>,
}

/// A new memfd; `flags` are `MFD_*`.
pub fn create(task: &Task, name: Vec<u8>, flags: u32) -> Arc<File> {
    let sealing = flags & (raw::MFD_ALLOW_SEALING | raw::MFD_NOEXEC_SEAL) != 0;
    let mut seals = if sealing { 0 } else { raw::F_SEAL_SEAL };
    let mut permissions = 0o777;
    if flags & raw::MFD_NOEXEC_SEAL != 0 {
        seals |= raw::F_SEAL_EXEC;
        permissions = 0o666;
    }
    let credentials: Arc<Credentials> = task.credentials();
    let now = crate::time::realtime();
    let state = State { seals, permissions, uid: credentials.fsuid, gid: credentials.fsgid, accessed: now, modified: now, changed: now };
    let memfd = Arc::new(Memfd {
        common: InodeCommon::default(),
        object: Object::new(&task.kernel.memory, 0),
        writer: WriterMark::default(),
        number: crate::vfs::anonymous::next_number(),
        name,
        state: Mutex::new(state),
    });
    File::new(Arc::new(MemfdOps { memfd: Arc::clone(&memfd) }), memfd, None, raw::O_RDWR | raw::O_LARGEFILE)
}

fn of_file(file: &File) -> Result<&Arc<Memfd>, Errno> {
    file.ops_as::<MemfdOps>().map(|ops| &ops.memfd).ok_or(Errno::EINVAL)
}

/// Files of a tmpfs count as sealed against seals, as on Linux, where memfds are files of one.
fn is_on_tmpfs(file: &File) -> bool {
    file.inode.file_type() == FileType::Regular && file.path.as_ref().is_some_and(|path| path.mount.kind == "tmpfs")
}

/// `F_GET_SEALS`.
pub fn seals(file: &File) -> Result<u32, Errno> {
    if is_on_tmpfs(file) {
        return Ok(raw::F_SEAL_SEAL);
    }
    Ok(of_file(file)?.state.lock().seals)
}

/// `F_ADD_SEALS`.
pub fn add_seals(file: &File, seals: u32) -> Result<(), Errno> {
    if !file.writable() {
        return Err(Errno::EPERM);
    }
    if seals & !ALL_SEALS != 0 {
        return Err(Errno::EINVAL);
    }
    if is_on_tmpfs(file) {
        return Err(Errno::EPERM);
    }
    let memfd = of_file(file)?;
    let mut state = memfd.state.lock();
    if state.seals & raw::F_SEAL_SEAL != 0 {
        return Err(Errno::EPERM);
    }
    if seals & raw::F_SEAL_WRITE != 0 && state.seals & raw::F_SEAL_WRITE == 0 && memfd.writer.is_shared() {
        return Err(Errno::EBUSY);
    }
    state.seals |= seals;
    if seals & raw::F_SEAL_EXEC != 0 && state.permissions & 0o111 != 0 {
        state.seals |= raw::F_SEAL_SHRINK | raw::F_SEAL_GROW | raw::F_SEAL_WRITE | raw::F_SEAL_FUTURE_WRITE;
    }
    Ok(())
}

impl Memfd {
    fn touch_modified(&self) {
        let now = crate::time::realtime();
        let mut state = self.state.lock();
        state.modified = now;
        state.changed = now;
    }

    /// What `F_SEAL_SHRINK` and `F_SEAL_GROW` say to a new size.
    fn check_size(&self, seals: u32, size: u64) -> Result<(), Errno> {
        let old = self.object.size();
        if size < old && seals & raw::F_SEAL_SHRINK != 0 || size > old && seals & raw::F_SEAL_GROW != 0 {
            return Err(Errno::EPERM);
        }
        Ok(())
    }
}

impl Inode for Memfd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &InodeCommon {
        &self.common
    }

    fn attributes(&self) -> Result<Attributes, Errno> {
        let state = self.state.lock();
        Ok(Attributes {
            device: DEVICE,
            inode: self.number,
            file_type: FileType::Regular,
            permissions: state.permissions,
            links: 0,
            uid: state.uid,
            gid: state.gid,
            device_type: 0,
            size: self.object.size(),
            block_size: PAGE_SIZE,
            blocks: self.object.allocated() / 512,
            accessed: state.accessed,
            modified: state.modified,
            changed: state.changed,
            created: None,
        })
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn link_text(&self) -> Option<Vec<u8>> {
        Some([b"/memfd:", &self.name[..], b" (deleted)"].concat())
    }

    fn set_attributes(&self, changes: &SetAttributes) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if let Some(size) = changes.size {
            if size > LARGEST {
                return Err(Errno::EFBIG);
            }
            self.check_size(state.seals, size)?;
            self.object.truncate(size);
        }
        let now = crate::time::realtime();
        let time = |set: SetTime| match set {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        if let Some(permissions) = changes.permissions {
            if state.seals & raw::F_SEAL_EXEC != 0 && (state.permissions ^ permissions) & 0o111 != 0 {
                return Err(Errno::EPERM);
            }
            state.permissions = permissions;
        }
        state.uid = changes.uid.unwrap_or(state.uid);
        state.gid = changes.gid.unwrap_or(state.gid);
        state.accessed = changes.accessed.map_or(state.accessed, time);
        state.modified = changes.modified.map_or(if changes.size.is_some() { now } else { state.modified }, time);
        state.changed = now;
        Ok(())
    }

    fn open(self: Arc<Self>, _flags: u32, _task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(MemfdOps { memfd: self }))
    }

    fn statfs(&self) -> Result<FilesystemFigures, Errno> {
        Ok(FilesystemFigures { magic: TMPFS_MAGIC, block_size: PAGE_SIZE as i64, name_length: 255, ..FilesystemFigures::default() })
    }
}

impl FileOps for MemfdOps {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, offset: u64) -> Result<usize, Errno> {
        let object = &self.memfd.object;
        let left = object.size().saturating_sub(offset);
        let length = destination.remaining().min(usize::try_from(left).unwrap_or(usize::MAX));
        destination.with_slices(length, |slices| {
            let mut count = 0;
            for slice in slices {
                let wanted = slice.len();
                let got = object.read_at(offset + count as u64, slice);
                count += got;
                if got < wanted {
                    break;
                }
            }
            Ok(count)
        })
    }

    fn write(&self, file: &File, source: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
        if source.remaining() == 0 {
            return Ok(0);
        }
        let memfd = &self.memfd;
        // The seals stay locked: a write that was let through must not happen after its seal was set.
        let state = memfd.state.lock();
        if state.seals & (raw::F_SEAL_WRITE | raw::F_SEAL_FUTURE_WRITE) != 0 {
            return Err(Errno::EPERM);
        }
        let size = memfd.object.size();
        let offset = if source.appends_to(file) { size } else { offset };
        if offset >= LARGEST {
            return Err(Errno::EFBIG);
        }
        let mut length = source.remaining().min(usize::try_from(LARGEST - offset).unwrap_or(usize::MAX));
        if state.seals & raw::F_SEAL_GROW != 0 {
            if offset >= size {
                return Err(Errno::EPERM);
            }
            // A page that would reach past the end is refused whole.
            if offset + length as u64 > size {
                length = (size / PAGE_SIZE * PAGE_SIZE).saturating_sub(offset) as usize;
                if length == 0 {
                    return Err(Errno::EPERM);
                }
            }
        }
        let object = &memfd.object;
        let count = source.with_slices(length, |slices| {
            let mut count = 0;
            for slice in slices {
                match object.write_at(offset + count as u64, slice) {
                    Ok(written) => count += written,
                    Err(_) if count > 0 => break,
                    Err(_) => return Err(Errno::ENOSPC),
                }
            }
            Ok(count)
        })?;
        drop(state);
        memfd.touch_modified();
        Ok(count)
    }

    fn seekable(&self) -> bool {
        true
    }

    fn end_of_file(&self, _file: &File) -> Result<u64, Errno> {
        Ok(self.memfd.object.size())
    }

    fn seek_data(&self, _file: &File, offset: u64, data: bool) -> Result<u64, Errno> {
        self.memfd.object.seek(offset, data).ok_or(Errno::ENXIO)
    }

    fn mapping(&self, _file: &File, shared: bool, writable: bool) -> Result<Mapping, Errno> {
        let object = Arc::clone(&self.memfd.object);
        // The mark is taken with the seals locked: a seal that comes next sees it.
        let state = self.memfd.state.lock();
        Ok(match shared {
            true if state.seals & (raw::F_SEAL_WRITE | raw::F_SEAL_FUTURE_WRITE) != 0 => Mapping::Sealed(object),
            true if writable => Mapping::Sealable(object, self.memfd.writer.clone()),
            _ => Mapping::Object(object),
        })
    }

    fn sync(&self, _file: &File, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }

    fn allocate(&self, _file: &File, mode: u32, offset: u64, length: u64) -> Result<(), Errno> {
        let memfd = &self.memfd;
        let state = memfd.state.lock();
        let end = offset.checked_add(length).filter(|end| *end <= LARGEST).ok_or(Errno::EFBIG)?;
        let object = &memfd.object;
        if mode == raw::FALLOC_FL_PUNCH_HOLE | raw::FALLOC_FL_KEEP_SIZE {
            if state.seals & (raw::F_SEAL_WRITE | raw::F_SEAL_FUTURE_WRITE) != 0 {
                return Err(Errno::EPERM);
            }
            object.punch(offset, end.min(object.size()).max(offset));
            return Ok(());
        }
        if mode & !raw::FALLOC_FL_KEEP_SIZE != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if end > object.size() && state.seals & raw::F_SEAL_GROW != 0 {
            return Err(Errno::EPERM);
        }
        object.reserve(offset, end).map_err(|_| Errno::ENOSPC)?;
        if mode & raw::FALLOC_FL_KEEP_SIZE == 0 {
            object.grow(end);
        }
        Ok(())
    }
}
