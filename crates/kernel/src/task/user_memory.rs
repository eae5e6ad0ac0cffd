//! A task's view of its own memory: what system-call handlers read and write.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use bytemuck::Pod;
use cloudpilot_abi::Errno;
use cloudpilot_abi::types::Iovec;

use super::Task;
use crate::io::{Destination, Source};

/// Longest path, with its end, `PATH_MAX`.
pub const PATH_MAX: usize = 4096;
/// Most pieces of one call, `UIO_MAXIOV`.
const IOV_MAX: usize = 1024;
/// Most bytes one call moves, Linux's `MAX_RW_COUNT`.
pub const MAX_TRANSFER: usize = 0x7fff_f000;

impl Task {
    /// Copies bytes from the guest; `EFAULT` unless all are readable.
    pub fn read_bytes(&self, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let mm = self.mm()?;
        let mut cpu = self.cpu.lock();
        mm.read(&mut *cpu.guest, address, buffer)
    }

    /// Copies bytes to the guest; `EFAULT` unless all are writable (an earlier part may be written then).
    pub fn write_bytes(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mm = self.mm()?;
        let mut cpu = self.cpu.lock();
        mm.write(&mut *cpu.guest, address, bytes)
    }

    /// Copies a structure from the guest.
    pub fn read<T: Pod>(&self, address: u64) -> Result<T, Errno> {
        let mut value = T::zeroed();
        self.read_bytes(address, bytemuck::bytes_of_mut(&mut value))?;
        Ok(value)
    }

    /// Copies a structure to the guest.
    pub fn write<T: Pod>(&self, address: u64, value: &T) -> Result<(), Errno> {
        self.write_bytes(address, bytemuck::bytes_of(value))
    }

    /// Copies `count` structures from the guest. The caller bounds `count`.
    pub fn read_slice<T: Pod>(&self, address: u64, count: usize) -> Result<Vec<T>, Errno> {
        let mut values = vec![T::zeroed(); count];
        self.read_bytes(address, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// Copies structures to the guest.
    pub fn write_slice<T: Pod>(&self, address: u64, values: &[T]) -> Result<(), Errno> {
        self.write_bytes(address, bytemuck::cast_slice(values))
    }

    /// A string up to its zero byte; `too_long` if there is none within `limit` bytes.
    pub fn read_string(&self, address: u64, limit: usize, too_long: Errno) -> Result<Vec<u8>, Errno> {
        let mm = self.mm()?;
        let mut cpu = self.cpu.lock();
        mm.read_string(&mut *cpu.guest, address, limit, too_long)
    }

    /// A path: `ENAMETOOLONG` from `PATH_MAX` on. An empty one is the caller's to judge.
    pub fn read_path(&self, address: u64) -> Result<Vec<u8>, Errno> {
        self.read_string(address, PATH_MAX, Errno::ENAMETOOLONG)
    }

    /// The pieces of `readv(2)` and friends, checked and cut to [`MAX_TRANSFER`].
    pub fn read_iovec(&self, address: u64, count: usize) -> Result<Vec<Iovec>, Errno> {
        if count > IOV_MAX {
            return Err(Errno::EINVAL);
        }
        let mut pieces: Vec<Iovec> = self.read_slice(address, count)?;
        let mut left = MAX_TRANSFER as u64;
        for piece in &mut pieces {
            if piece.iov_len > i64::MAX as u64 {
                return Err(Errno::EINVAL);
            }
            piece.iov_len = piece.iov_len.min(left);
            left -= piece.iov_len;
        }
        Ok(pieces)
    }

    /// Where a read of `length` bytes into one buffer goes.
    pub fn destination(&self, address: u64, length: usize) -> Destination<'_> {
        Destination::guest_buffer(self, address, length.min(MAX_TRANSFER))
    }

    /// Where a write of `length` bytes from one buffer comes from.
    pub fn source(&self, address: u64, length: usize) -> Source<'_> {
        Source::guest_buffer(self, address, length.min(MAX_TRANSFER))
    }

    /// Runs `use_slices` on guest memory in place; see [`Source::with_slices`].
    pub fn with_memory(&self, pieces: &[Iovec], use_slices: impl FnOnce(&[IoSlice<'_>]) -> Result<usize, Errno>) -> Result<usize, Errno> {
        let mm = self.mm()?;
        let mut cpu = self.cpu.lock();
        mm.with_slices(&mut *cpu.guest, pieces, use_slices)
    }

    /// Runs `fill_slices` on writable guest memory in place; see [`Destination::with_slices`].
    pub fn with_memory_mut(
        &self,
        pieces: &[Iovec],
        fill_slices: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let mm = self.mm()?;
        let mut cpu = self.cpu.lock();
        mm.with_slices_mut(&mut *cpu.guest, pieces, fill_slices)
    }

    /// This task by reference count, from a plain reference: for handlers of objects that outlive the call.
    pub fn shared(&self) -> Option<Arc<Self>> {
        self.kernel.tasks.find(self.tid())
    }
}
