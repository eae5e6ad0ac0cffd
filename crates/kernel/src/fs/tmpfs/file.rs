//! Open regular files of a tmpfs.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use cloudpilot_abi::{Errno, raw};
use cloudpilot_memory::Object;

use super::node::{Body, LowerFile, Node};
use crate::fs::host::file as host;
use crate::io::{Destination, Source};
use crate::mm::Mapping;
use crate::vfs::file::{File, FileOps, Traffic};

/// An open regular file.
pub struct TmpfsFile {
    node: Arc<Node>,
    /// The host file that was read so far: it stays open as long as this does.
    lower: OnceLock<Arc<OwnedFd>>,
}

enum Contents {
    Object(Arc<Object>),
    Lower(Arc<LowerFile>),
}

/// Most bytes copied at once: guest memory stays locked meanwhile.
const STEP: usize = 1 << 20;

/// Reads with guest memory locked before the object: the guest may have mapped the object itself there.
fn read_object(object: &Object, destination: &mut Destination<'_>, offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    loop {
        let at = offset.saturating_add(done as u64);
        let left = usize::try_from(object.size().saturating_sub(at)).unwrap_or(usize::MAX);
        let step = destination.remaining().min(left).min(STEP);
        let result = destination.with_slices(step, |slices| {
            let mut count = 0;
            for slice in slices {
                let got = object.read_at(at + count as u64, slice);
                count += got;
                if got < slice.len() {
                    break;
                }
            }
            Ok(count)
        });
        match result {
            Ok(0) => return Ok(done),
            Ok(count) => done += count,
            Err(errno) => return if done > 0 { Ok(done) } else { Err(errno) },
        }
    }
}

/// The same for writing.
fn write_object(object: &Object, source: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while source.remaining() > 0 {
        let at = offset + done as u64;
        let result = source.with_slices(STEP, |slices| {
            let mut count = 0;
            for slice in slices {
                match object.write_at(at + count as u64, slice) {
                    Ok(written) => count += written,
                    Err(_) if count > 0 => break,
                    Err(_) => return Err(Errno::ENOSPC),
                }
            }
            Ok(count)
        });
        match result {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

impl TmpfsFile {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node, lower: OnceLock::new() }
    }

    fn contents(&self) -> Result<Contents, Errno> {
        match &self.node.state.read().body {
            Body::File(object) => Ok(Contents::Object(Arc::clone(object))),
            Body::Lower(lower) => Ok(Contents::Lower(Arc::clone(lower))),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open_lower(&self, lower: &LowerFile) -> Result<&Arc<OwnedFd>, Errno> {
        if let Some(open) = self.lower.get() {
            return Ok(open);
        }
        let open = lower.open()?;
        Ok(self.lower.get_or_init(|| open))
    }
}

impl FileOps for TmpfsFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn traffic(&self) -> Traffic {
        if matches!(self.node.state.read().body, Body::Lower(_)) { Traffic::Storage } else { Traffic::Memory }
    }

    fn read(&self, file: &File, destination: &mut Destination<'_>, offset: u64) -> Result<usize, Errno> {
        self.node.note_read(file);
        match self.contents()? {
            Contents::Lower(lower) => host::read_at(self.open_lower(&lower)?, destination, offset),
            Contents::Object(object) => read_object(&object, destination, offset),
        }
    }

    fn write(&self, file: &File, source: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
        let object = self.node.copy_up()?;
        // One at a time at the end, so that none writes over another.
        let (_turn, offset) = if source.appends_to(file) {
            let turn = self.node.appending.lock();
            (Some(turn), object.size())
        } else {
            (None, offset)
        };
        let length = source.remaining();
        if length == 0 {
            return Ok(0);
        }
        if offset.checked_add(length as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Err(Errno::EFBIG);
        }
        let result = write_object(&object, source, offset);
        self.node.note_write();
        result
    }

    fn seekable(&self) -> bool {
        true
    }

    fn end_of_file(&self, _file: &File) -> Result<u64, Errno> {
        Ok(match self.contents()? {
            Contents::Object(object) => object.size(),
            Contents::Lower(lower) => lower.size,
        })
    }

    fn seek_data(&self, file: &File, offset: u64, data: bool) -> Result<u64, Errno> {
        match self.contents()? {
            Contents::Object(object) => object.seek(offset, data).ok_or(Errno::ENXIO),
            Contents::Lower(_) => {
                let end = self.end_of_file(file)?;
                if offset >= end { Err(Errno::ENXIO) } else { Ok(if data { offset } else { end }) }
            }
        }
    }

    fn mapping(&self, file: &File, shared: bool, writable: bool) -> Result<Mapping, Errno> {
        self.node.note_read(file);
        if shared && writable {
            return self.node.copy_up().map(Mapping::Object);
        }
        match self.contents()? {
            Contents::Object(object) => Ok(Mapping::Object(object)),
            Contents::Lower(lower) => self.open_lower(&lower).map(|open| Mapping::Host(Arc::clone(open))),
        }
    }

    fn note_mapped_writes(&self) {
        self.node.note_write();
    }

    fn sync(&self, _file: &File, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }

    fn allocate(&self, _file: &File, mode: u32, offset: u64, length: u64) -> Result<(), Errno> {
        let object = self.node.copy_up()?;
        let end = offset.checked_add(length).filter(|&end| end <= i64::MAX as u64).ok_or(Errno::EFBIG)?;
        match mode {
            0 | raw::FALLOC_FL_KEEP_SIZE => object.reserve(offset, end).map_err(|_| Errno::ENOSPC)?,
            mode if mode == raw::FALLOC_FL_PUNCH_HOLE | raw::FALLOC_FL_KEEP_SIZE => object.punch(offset, end),
            raw::FALLOC_FL_ZERO_RANGE => object.punch(offset, end),
            mode if mode == raw::FALLOC_FL_ZERO_RANGE | raw::FALLOC_FL_KEEP_SIZE => object.punch(offset, end.min(object.size())),
            _ => return Err(Errno::EOPNOTSUPP),
        }
        if mode & raw::FALLOC_FL_KEEP_SIZE == 0 {
            object.grow(end);
        }
        self.node.note_write();
        Ok(())
    }
}
