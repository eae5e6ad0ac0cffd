//! Open regular files of a volume.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, SeekFrom};

use super::super::{errno, file as host};
use super::node::{Access, Node};
use crate::io::{Destination, Source};
use crate::mm::Mapping;
use crate::vfs::file::{File, FileOps, Traffic};

/// An open regular file. It holds no node: its [`File`] does.
pub(super) struct OpenFile {
    descriptor: Arc<OwnedFd>,
    /// For `O_APPEND`: a descriptor of its own, since the host then finds the end and writes there in one step.
    appending: Option<Arc<OwnedFd>>,
    /// Appends where that is not to be had (`O_APPEND` set later, or no name to open by): one at a time, at the end as it is.
    end: Mutex<()>,
}

impl OpenFile {
    pub(super) fn new(node: Arc<Node>, flags: u32) -> Result<Self, Errno> {
        let access = match flags & raw::O_ACCMODE {
            raw::O_RDONLY => Access::Read,
            raw::O_WRONLY => Access::Write,
            _ => Access::ReadWrite,
        };
        let writes = access != Access::Read;
        let descriptor = match node.take_kept() {
            Some((writable, kept)) if writable || !writes => kept,
            Some(_) => return Err(Errno::EROFS),
            None => node.descriptor(access)?,
        };
        let appends = writes && flags & raw::O_APPEND != 0;
        let appending = appends.then(|| node.descriptor(Access::Append).ok()).flatten();
        Ok(Self { descriptor, appending, end: Mutex::new(()) })
    }

    fn size(&self) -> Result<u64, Errno> {
        Ok(crate::host::transfer::status(&*self.descriptor).map_err(errno)?.stx_size)
    }
}

impl FileOps for OpenFile {
    fn traffic(&self) -> Traffic {
        Traffic::Storage
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, offset: u64) -> Result<usize, Errno> {
        host::read_at(&self.descriptor, destination, offset)
    }

    fn write(&self, file: &File, source: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
        match &self.appending {
            // The host ignores the offset of a descriptor that appends.
            Some(appending) if source.appends_to(file) => host::write_at(appending, source, 0),
            None if source.appends_to(file) => {
                let _one = self.end.lock();
                host::write_at(&self.descriptor, source, self.size()?)
            }
            _ => host::write_at(&self.descriptor, source, offset),
        }
    }

    fn seekable(&self) -> bool {
        true
    }

    fn end_of_file(&self, _file: &File) -> Result<u64, Errno> {
        self.size()
    }

    fn seek_data(&self, _file: &File, offset: u64, data: bool) -> Result<u64, Errno> {
        // The host's position moves; nothing here ever reads or writes at it.
        rustix::fs::seek(&*self.descriptor, if data { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) }).map_err(errno)
    }

    fn mapping(&self, file: &File, shared: bool, writable: bool) -> Result<Mapping, Errno> {
        if shared && writable && !file.writable() {
            return Err(Errno::EACCES);
        }
        Ok(Mapping::Host(Arc::clone(&self.descriptor)))
    }

    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        if data_only { rustix::fs::fdatasync(&*self.descriptor) } else { rustix::fs::fsync(&*self.descriptor) }.map_err(errno)
    }

    fn allocate(&self, _file: &File, mode: u32, offset: u64, length: u64) -> Result<(), Errno> {
        rustix::fs::fallocate(&*self.descriptor, FallocateFlags::from_bits_retain(mode), offset, length).map_err(errno)
    }
}
