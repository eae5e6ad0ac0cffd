//! Open directories of a volume.

use std::any::Any;
use std::os::fd::OwnedFd;

use cloudpilot_abi::Errno;
use parking_lot::Mutex;
use rustix::fs::SeekFrom;

use super::super::{errno, file_type, statx};
use crate::io::Destination;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{DirectorySink, FileType};

/// Bytes of entries asked of the host at once.
const LISTING: usize = 8 << 10;

/// An open directory. Cursors are the host's own, which stay valid while names come and go.
pub(super) struct OpenDirectory {
    /// Its position is moved and used under one lock.
    listing: Mutex<OwnedFd>,
}

impl OpenDirectory {
    pub(super) fn new(listing: OwnedFd) -> Self {
        Self { listing: Mutex::new(listing) }
    }
}

impl FileOps for OpenDirectory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn end_of_file(&self, _file: &File) -> Result<u64, Errno> {
        Ok(i64::MAX as u64)
    }

    fn read(&self, _file: &File, _destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }

    fn read_directory(&self, file: &File, cursor: u64, sink: &mut DirectorySink<'_>) -> Result<(), Errno> {
        let parent = file.path.as_ref().and_then(|path| path.name.parent()).and_then(|parent| parent.inode.attributes().ok());
        let listing = self.listing.lock();
        rustix::fs::seek(&*listing, SeekFrom::Start(cursor)).map_err(errno)?;
        let mut buffer = Vec::with_capacity(LISTING);
        let mut entries = rustix::fs::RawDir::new(&*listing, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name();
            let kind = match entry.file_type() {
                rustix::fs::FileType::Unknown => {
                    statx(std::os::fd::AsFd::as_fd(&*listing), name).map_or(FileType::Regular, |it| it.file_type)
                }
                known => file_type(known),
            };
            // What lies above the volume's root on the host is not the guest's business.
            let number = match name.to_bytes() {
                b".." => parent.map_or(1, |attributes| attributes.inode),
                _ => entry.ino(),
            };
            if !sink(name.to_bytes(), number, kind, entry.next_entry_cookie()) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        let listing = self.listing.lock();
        if data_only { rustix::fs::fdatasync(&*listing) } else { rustix::fs::fsync(&*listing) }.map_err(errno)
    }
}
