//! Where the bytes of a read go and those of a write come from: pieces of guest memory, or a buffer of our own.

use std::io::{IoSlice, IoSliceMut};

use cloudpilot_abi::Errno;
use cloudpilot_abi::types::Iovec;

use crate::task::Task;

enum Place<'a, B> {
    Guest { task: &'a Task, pieces: Pieces },
    Own(B),
}

/// Pieces of guest memory; the usual single one costs no allocation.
enum Pieces {
    One([Iovec; 1]),
    Many(Vec<Iovec>),
}

impl Pieces {
    fn all(&self) -> &[Iovec] {
        match self {
            Self::One(piece) => piece,
            Self::Many(pieces) => pieces,
        }
    }

    /// The part that starts `skip` bytes in and is at most `length` long.
    fn window(&self, skip: u64, length: u64) -> Self {
        match self {
            Self::One([piece]) => {
                let skip = skip.min(piece.iov_len);
                let iov_len = (piece.iov_len - skip).min(length);
                Self::One([Iovec { iov_base: piece.iov_base.wrapping_add(skip), iov_len }])
            }
            Self::Many(pieces) => Self::Many(window(pieces, skip, length)),
        }
    }
}

impl From<Vec<Iovec>> for Pieces {
    fn from(pieces: Vec<Iovec>) -> Self {
        match pieces[..] {
            [piece] => Self::One([piece]),
            _ => Self::Many(pieces),
        }
    }
}

/// Receives bytes. Short counts mean that guest memory ended early; `EFAULT` only when nothing at all could be stored.
pub struct Destination<'a> {
    place: Place<'a, &'a mut [u8]>,
    done: usize,
    total: usize,
}

/// Gives bytes. Short counts mean that guest memory ended early; `EFAULT` only when nothing at all could be fetched.
pub struct Source<'a> {
    place: Place<'a, &'a [u8]>,
    done: usize,
    total: usize,
    /// What the call itself says about writing at the file's end (`RWF_APPEND`, `RWF_NOAPPEND`); none leaves it to `O_APPEND`.
    append: Option<bool>,
}

/// The part of `pieces` that starts `skip` bytes in and is at most `length` long.
fn window(pieces: &[Iovec], mut skip: u64, mut length: u64) -> Vec<Iovec> {
    let mut result = Vec::with_capacity(pieces.len());
    for piece in pieces {
        if skip >= piece.iov_len {
            skip -= piece.iov_len;
            continue;
        }
        let take = (piece.iov_len - skip).min(length);
        if take == 0 {
            break;
        }
        result.push(Iovec { iov_base: piece.iov_base.wrapping_add(skip), iov_len: take });
        length -= take;
        skip = 0;
    }
    result
}

fn sum(pieces: &[Iovec]) -> usize {
    pieces.iter().map(|piece| piece.iov_len as usize).sum()
}

impl<'a> Destination<'a> {
    /// Pieces of the calling task's memory.
    pub fn guest(task: &'a Task, pieces: Vec<Iovec>) -> Self {
        let total = sum(&pieces);
        Self { place: Place::Guest { task, pieces: pieces.into() }, done: 0, total }
    }

    /// One piece of the calling task's memory.
    pub fn guest_buffer(task: &'a Task, address: u64, length: usize) -> Self {
        let pieces = Pieces::One([Iovec { iov_base: address, iov_len: length as u64 }]);
        Self { place: Place::Guest { task, pieces }, done: 0, total: length }
    }

    /// A buffer of our own.
    pub fn own(buffer: &'a mut [u8]) -> Self {
        let total = buffer.len();
        Self { place: Place::Own(buffer), done: 0, total }
    }

    /// The task that reads; none for the kernel's own buffers.
    pub fn task(&self) -> Option<&'a Task> {
        match &self.place {
            Place::Guest { task, .. } => Some(task),
            Place::Own(_) => None,
        }
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.total - self.done
    }

    /// Bytes stored so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Lets at most `length` more bytes in.
    pub fn limit(&mut self, length: usize) {
        self.total = self.total.min(self.done + length);
    }

    /// Stores as much of `bytes` as fits.
    pub fn put(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.with_slices(bytes.len(), |slices| {
            let mut rest = bytes;
            for slice in slices {
                let (now, later) = rest.split_at(slice.len().min(rest.len()));
                slice[..now.len()].copy_from_slice(now);
                rest = later;
            }
            Ok(bytes.len() - rest.len())
        })
    }

    /// Stores zeros.
    pub fn put_zeros(&mut self, length: usize) -> Result<usize, Errno> {
        self.with_slices(length, |slices| {
            let mut count = 0;
            for slice in slices {
                slice.fill(0);
                count += slice.len();
            }
            Ok(count)
        })
    }

    /// Hands up to `length` bytes of the remaining room to `fill` as slices (for one host call, say), which answers how many it filled.
    /// `fill` runs with the guest's address space locked: it must not block and not touch guest memory otherwise.
    pub fn with_slices(&mut self, length: usize, fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<usize, Errno>) -> Result<usize, Errno> {
        let length = length.min(self.remaining());
        if length == 0 {
            return Ok(0);
        }
        let count = match &mut self.place {
            Place::Own(buffer) => fill(&mut [IoSliceMut::new(&mut buffer[self.done..self.done + length])])?,
            Place::Guest { task, pieces } => {
                let pieces = pieces.window(self.done as u64, length as u64);
                task.with_memory_mut(pieces.all(), fill)?
            }
        };
        self.done += count;
        Ok(count)
    }
}

impl<'a> Source<'a> {
    /// Pieces of the calling task's memory.
    pub fn guest(task: &'a Task, pieces: Vec<Iovec>) -> Self {
        let total = sum(&pieces);
        Self { place: Place::Guest { task, pieces: pieces.into() }, done: 0, total, append: None }
    }

    /// One piece of the calling task's memory.
    pub fn guest_buffer(task: &'a Task, address: u64, length: usize) -> Self {
        let pieces = Pieces::One([Iovec { iov_base: address, iov_len: length as u64 }]);
        Self { place: Place::Guest { task, pieces }, done: 0, total: length, append: None }
    }

    /// A buffer of our own.
    pub fn own(buffer: &'a [u8]) -> Self {
        Self { place: Place::Own(buffer), done: 0, total: buffer.len(), append: None }
    }

    /// Has the bytes written at the file's end, or not, whatever `O_APPEND` says.
    pub fn set_append(&mut self, append: bool) {
        self.append = Some(append);
    }

    /// Whether they go to the end of `file`.
    pub fn appends_to(&self, file: &crate::vfs::File) -> bool {
        self.append.unwrap_or_else(|| file.appends())
    }

    /// The task that writes; none for the kernel's own buffers.
    pub fn task(&self) -> Option<&'a Task> {
        match &self.place {
            Place::Guest { task, .. } => Some(task),
            Place::Own(_) => None,
        }
    }

    /// Bytes that are left.
    pub fn remaining(&self) -> usize {
        self.total - self.done
    }

    /// Length of the piece that comes next.
    pub fn first_piece(&self) -> usize {
        match &self.place {
            Place::Own(_) => self.remaining(),
            Place::Guest { pieces, .. } => {
                let next = pieces.window(self.done as u64, u64::MAX);
                next.all().first().map_or(0, |piece| piece.iov_len as usize)
            }
        }
    }

    /// Bytes taken so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Lets at most `length` more bytes out.
    pub fn limit(&mut self, length: usize) {
        self.total = self.total.min(self.done + length);
    }

    /// Fetches up to `buffer.len()` bytes.
    pub fn take(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let length = buffer.len();
        self.with_slices(length, |slices| {
            let mut count = 0;
            for slice in slices {
                buffer[count..count + slice.len()].copy_from_slice(slice);
                count += slice.len();
            }
            Ok(count)
        })
    }

    /// Fetches up to `buffer.len()` bytes without using them up.
    pub fn peek(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let before = self.done;
        let result = self.take(buffer);
        self.done = before;
        result
    }

    /// Fetches up to `length` bytes into a new buffer; short when the guest's memory ends early.
    pub fn take_vec(&mut self, length: usize) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; length.min(self.remaining())];
        let mut count = 0;
        while count < buffer.len() {
            match self.take(&mut buffer[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(_) if count > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        buffer.truncate(count);
        Ok(buffer)
    }

    /// Hands up to `length` of the remaining bytes to `drain` as slices, which answers how many it used. `drain` runs with the guest's
    /// address space locked: it must not block and not touch guest memory otherwise. The guest may change the bytes meanwhile: read each once.
    pub fn with_slices(&mut self, length: usize, drain: impl FnOnce(&[IoSlice<'_>]) -> Result<usize, Errno>) -> Result<usize, Errno> {
        let length = length.min(self.remaining());
        if length == 0 {
            return Ok(0);
        }
        let count = match &self.place {
            Place::Own(buffer) => drain(&[IoSlice::new(&buffer[self.done..self.done + length])])?,
            Place::Guest { task, pieces } => {
                let pieces = pieces.window(self.done as u64, length as u64);
                task.with_memory(pieces.all(), drain)?
            }
        };
        self.done += count;
        Ok(count)
    }
}
