//! Guest memory as address spaces: areas, what backs them, faults, copies.

pub mod report;

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_abi::Errno;
use cloudpilot_abi::types::Iovec;
use cloudpilot_memory::Object;
use cloudpilot_platform::Executor;

/// What a file offers to `mmap(2)`.
pub enum Mapping {
    /// Zeroes, private to each mapping (`/dev/zero` privately).
    Zero,
    /// Pages of our memory file: tmpfs, memfds, shared memory. Offset 0 of the file is offset 0 of the object.
    Object(Arc<Object>),
    /// A host file, mapped by the stub itself. Shared writable mappings only of files opened for writing in a volume.
    Host(Arc<OwnedFd>),
}

/// An address space.
pub struct Mm {}

impl Mm {
    /// Copies bytes out of the guest, all or `EFAULT`.
    pub fn read(&self, _executor: &mut dyn Executor, _address: u64, _buffer: &mut [u8]) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }

    /// Copies bytes into the guest, all or `EFAULT`.
    pub fn write(&self, _executor: &mut dyn Executor, _address: u64, _bytes: &[u8]) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }

    /// A string up to its zero byte.
    pub fn read_string(&self, _executor: &mut dyn Executor, _address: u64, _limit: usize, _too_long: Errno) -> Result<Vec<u8>, Errno> {
        Err(Errno::EFAULT)
    }

    /// Hands readable guest memory to `use_slices` in place; what lies behind an unreadable byte is left out.
    pub fn with_slices(
        &self,
        _executor: &mut dyn Executor,
        _pieces: &[Iovec],
        _use_slices: impl FnOnce(&[IoSlice<'_>]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        Err(Errno::EFAULT)
    }

    /// Hands writable guest memory to `fill_slices` in place; what lies behind an unwritable byte is left out.
    pub fn with_slices_mut(
        &self,
        _executor: &mut dyn Executor,
        _pieces: &[Iovec],
        _fill_slices: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        Err(Errno::EFAULT)
    }
}
