//! The memory devices, `null(4)`, `full(4)` and `random(4)`.

use std::any::Any;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw_ioctl};
use cloudpilot_memory::{MemoryFile, Object};

use crate::io::{Destination, Source};
use crate::mm::Mapping;
use crate::task::Task;
use crate::vfs::file::{File, FileOps};

/// Size of the object behind a shared mapping of `/dev/zero`: no mapping is larger.
const ZERO_SIZE: u64 = 1 << 46;

/// Bits of entropy that `RNDGETENTCNT` reports: the pool is always full.
const ENTROPY_BITS: i32 = 256;

/// `/dev/null`.
pub struct Null;

impl FileOps for Null {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, _destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        Ok(0)
    }

    fn write(&self, _file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        // Taken unseen: even an invalid buffer is no error.
        Ok(source.remaining())
    }

    fn seekable(&self) -> bool {
        true
    }

    fn ignores_seeks(&self) -> bool {
        true
    }
}

/// `/dev/zero`.
pub struct Zero {
    /// Where shared mappings get their pages.
    pub memory: Arc<MemoryFile>,
}

impl FileOps for Zero {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        destination.put_zeros(destination.remaining())
    }

    fn write(&self, _file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        Ok(source.remaining())
    }

    fn seekable(&self) -> bool {
        true
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    fn mapping(&self, _file: &File, shared: bool, _writable: bool) -> Result<Mapping, Errno> {
        Ok(if shared { Mapping::Object(Object::new(&self.memory, ZERO_SIZE)) } else { Mapping::Zero })
    }
}

/// `/dev/full`.
pub struct Full;

impl FileOps for Full {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        destination.put_zeros(destination.remaining())
    }

    fn write(&self, _file: &File, _source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::ENOSPC)
    }

    fn seekable(&self) -> bool {
        true
    }

    fn ignores_seeks(&self) -> bool {
        true
    }
}

/// `/dev/random` and `/dev/urandom`: the host's generator.
pub struct Random;

impl FileOps for Random {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        // Filled in a buffer of ours: the guest must not see or change bytes that the host's call still works on.
        const PIECE: usize = 4096;
        let mut buffer = [0; PIECE];
        let mut done = 0;
        while destination.remaining() > 0 {
            let now = destination.remaining().min(PIECE);
            crate::system::random_bytes(&mut buffer[..now]);
            match destination.put(&buffer[..now]) {
                Ok(stored) => done += stored,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
            if destination.task().is_some_and(Task::interrupted) {
                break;
            }
        }
        Ok(done)
    }

    fn write(&self, _file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        // Whatever guests stir in does not reach the host's pool.
        Ok(source.remaining())
    }

    fn seekable(&self) -> bool {
        true
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    fn ioctl(&self, _file: &File, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        match request {
            raw_ioctl::RNDGETENTCNT => {
                task.write(argument, &ENTROPY_BITS)?;
                Ok(0)
            }
            raw_ioctl::RNDADDTOENTCNT | raw_ioctl::RNDADDENTROPY | raw_ioctl::RNDZAPENTCNT | raw_ioctl::RNDCLEARPOOL => Err(Errno::EPERM),
            _ => Err(Errno::EINVAL),
        }
    }
}
