//! Sparse files of guest memory: tmpfs files, memfds, shared mappings.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use cloudpilot_abi::PAGE_SIZE;
use parking_lot::{Mutex, RwLock};

use crate::file::{MemoryError, MemoryFile, Range};

/// A run of pages: `length` bytes of the object, at `offset` of the memory file.
#[derive(Clone, Copy)]
struct Extent {
    length: u64,
    offset: u64,
}

struct Pages {
    /// Extents by their position in the object; page-aligned, never overlapping.
    extents: BTreeMap<u64, Extent>,
    /// Sum of their lengths.
    allocated: u64,
    size: u64,
    /// Who pays for them, however they come and go: by writes, by faults, with the object's end.
    account: Option<Arc<dyn Account>>,
}

/// Told when pages of an object go away (truncation, holes): whoever maps them must let go of them, too.
pub trait Mapper: Send + Sync {
    /// Pages from `start` to `end` of `object` are gone. `truncated`: they are past its end now, rather than a hole.
    fn pages_gone(&self, object: &Object, start: u64, end: u64, truncated: bool);
}

/// Who pays for the pages of an object: a filesystem with a limit. Called with the object's pages locked.
pub trait Account: Send + Sync {
    /// Takes bytes; false if they are too many.
    fn charge(&self, bytes: u64) -> bool;

    /// Gives bytes back.
    fn refund(&self, bytes: u64);
}

/// A sparse file in guest memory. Every page belongs to the object; mappings take part through the memory file's owner counts, so that
/// truncation never pulls memory from under one.
pub struct Object {
    memory: Arc<MemoryFile>,
    pages: RwLock<Pages>,
    mappers: Mutex<Vec<Weak<dyn Mapper>>>,
}

impl Object {
    /// An object of `size` zero bytes.
    pub fn new(memory: &Arc<MemoryFile>, size: u64) -> Arc<Self> {
        Self::with_account(memory, size, None)
    }

    /// An object whose pages somebody pays for; making pages fails with [`MemoryError::Unpaid`] when that is refused.
    pub fn accounted(memory: &Arc<MemoryFile>, account: Arc<dyn Account>) -> Arc<Self> {
        Self::with_account(memory, 0, Some(account))
    }

    fn with_account(memory: &Arc<MemoryFile>, size: u64, account: Option<Arc<dyn Account>>) -> Arc<Self> {
        let pages = Pages { extents: BTreeMap::new(), allocated: 0, size, account };
        Arc::new(Self { memory: Arc::clone(memory), pages: RwLock::new(pages), mappers: Mutex::default() })
    }

    /// Notes who maps pages of it.
    pub fn add_mapper(&self, mapper: &Weak<dyn Mapper>) {
        let mut mappers = self.mappers.lock();
        if !mappers.iter().any(|known| known.ptr_eq(mapper)) {
            mappers.retain(|known| known.strong_count() > 0);
            mappers.push(Weak::clone(mapper));
        }
    }

    /// Tells those who map pages that these are gone. Called without any lock.
    fn announce(&self, start: u64, end: u64, truncated: bool) {
        let mappers: Vec<Arc<dyn Mapper>> = self.mappers.lock().iter().filter_map(Weak::upgrade).collect();
        for mapper in mappers {
            mapper.pages_gone(self, start, end, truncated);
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.pages.read().size
    }

    /// Bytes of pages that exist (not holes).
    pub fn allocated(&self) -> u64 {
        self.pages.read().allocated
    }

    /// The memory file it lives in.
    pub fn memory(&self) -> &Arc<MemoryFile> {
        &self.memory
    }

    /// Hands the bytes at `offset` to `each` piece by piece, at most `length` and not past the end; a hole comes as `None` with its length.
    /// `each` answers how many bytes it used; less than given ends the walk. Answers the bytes used.
    pub fn read_pieces<E>(
        &self,
        offset: u64,
        length: usize,
        mut each: impl FnMut(Option<u64>, usize) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let pages = self.pages.read();
        let end = pages.size.min(offset.saturating_add(length as u64));
        let mut at = offset;
        while at < end {
            let (place, piece_end) = pages.find(at, end);
            let piece = (piece_end - at) as usize;
            match each(place, piece) {
                Ok(used) => {
                    at += used as u64;
                    if used < piece {
                        break;
                    }
                }
                Err(error) if at == offset => return Err(error),
                Err(_) => break,
            }
        }
        Ok((at.max(offset) - offset) as usize)
    }

    /// Copies bytes out; short at the end of the object.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        let length = buffer.len();
        let result = self.read_pieces::<std::convert::Infallible>(offset, length, |place, piece| {
            match place {
                Some(place) => self.memory.read(place, &mut buffer[done..done + piece]),
                None => buffer[done..done + piece].fill(0),
            }
            done += piece;
            Ok(piece)
        });
        result.unwrap_or(0)
    }

    /// Makes pages for `length` bytes at `offset`, grows the size as bytes arrive, and lets `each` fill them piece by piece (offset in the
    /// memory file, length; answers bytes stored).
    pub fn write_pieces<E: From<MemoryError>>(
        &self,
        offset: u64,
        length: usize,
        mut each: impl FnMut(u64, usize) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let mut pages = self.pages.write();
        let end = offset + length as u64;
        let mut at = offset;
        while at < end {
            let step = pages.fill(&self.memory, at, end).map_err(E::from).and_then(|(place, piece_end)| {
                let piece = (piece_end - at) as usize;
                each(place, piece).map(|used| (used, piece))
            });
            match step {
                Ok((used, piece)) => {
                    at += used as u64;
                    if used < piece {
                        break;
                    }
                }
                Err(error) if at == offset => return Err(error),
                Err(_) => break,
            }
        }
        pages.size = pages.size.max(at);
        Ok((at - offset) as usize)
    }

    /// Copies bytes in, growing the object.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize, MemoryError> {
        let mut done = 0;
        self.write_pieces(offset, bytes.len(), |place, piece| {
            self.memory.write(place, &bytes[done..done + piece]);
            done += piece;
            Ok(piece)
        })
    }

    /// Cuts or extends; what lies past the new end reads as zeros should the object grow again.
    pub fn truncate(&self, size: u64) {
        let mut pages = self.pages.write();
        let keep = size.div_ceil(PAGE_SIZE) * PAGE_SIZE;
        let shrinks = size < pages.size;
        if shrinks {
            pages.remove(&self.memory, keep, u64::MAX);
            if let (Some(place), _) = pages.find(size, keep)
                && keep > size
            {
                self.memory.zero(place, keep - size);
            }
        }
        pages.size = size;
        drop(pages);
        if shrinks {
            self.announce(keep, u64::MAX, true);
        }
    }

    /// Zeroes a range; whole pages of it become holes. The size stays.
    pub fn punch(&self, start: u64, end: u64) {
        let mut pages = self.pages.write();
        let first = start.div_ceil(PAGE_SIZE) * PAGE_SIZE;
        let last = end / PAGE_SIZE * PAGE_SIZE;
        if first < last {
            pages.remove(&self.memory, first, last);
        }
        for (from, to) in [(start, first.min(end)), (last.max(start), end)] {
            if from < to
                && let (Some(place), piece_end) = pages.find(from, to)
            {
                self.memory.zero(place, piece_end - from);
            }
        }
        drop(pages);
        if first < last {
            self.announce(first, last, false);
        }
    }

    /// Makes pages for a range (`fallocate(2)`) without changing the size.
    pub fn reserve(&self, start: u64, end: u64) -> Result<(), MemoryError> {
        let mut pages = self.pages.write();
        let mut at = start;
        while at < end {
            at = pages.fill(&self.memory, at, end)?.1;
        }
        Ok(())
    }

    /// Grows the size to at least `size`.
    pub fn grow(&self, size: u64) {
        let mut pages = self.pages.write();
        pages.size = pages.size.max(size);
    }

    /// The next data (`data` true) or hole at or after `offset`; none past the end. The end counts as a hole.
    pub fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        let pages = self.pages.read();
        let mut at = offset;
        while at < pages.size {
            let (place, end) = pages.find(at, pages.size);
            if place.is_some() == data {
                return Some(at);
            }
            at = end;
        }
        (!data && offset < pages.size).then_some(pages.size)
    }

    /// Pages for a mapping: makes them if needed, and takes one more owner of what it answers, which the caller releases. `offset` and
    /// `length` are page-aligned; the answer may be shorter than asked.
    pub fn share(&self, offset: u64, length: u64) -> Result<Range, MemoryError> {
        let mut pages = self.pages.write();
        let (start, end) = pages.fill(&self.memory, offset, offset + length)?;
        let range = Range { start, end: start + (end - offset) };
        self.memory.retain(range);
        Ok(range)
    }
}

impl Pages {
    /// Where the byte at `at` lies, and up to where (at most `end`) that run or hole reaches.
    fn find(&self, at: u64, end: u64) -> (Option<u64>, u64) {
        if let Some((&start, extent)) = self.extents.range(..=at).next_back()
            && start + extent.length > at
        {
            return (Some(extent.offset + (at - start)), (start + extent.length).min(end));
        }
        let next = self.extents.range(at..).next().map_or(end, |(start, _)| (*start).min(end));
        (None, next)
    }

    /// Like [`find`](Self::find), but a hole gets pages first.
    fn fill(&mut self, memory: &MemoryFile, at: u64, end: u64) -> Result<(u64, u64), MemoryError> {
        if let (Some(place), piece_end) = self.find(at, end) {
            return Ok((place, piece_end));
        }
        let start = at / PAGE_SIZE * PAGE_SIZE;
        let mut length = self.find(at, end).1.div_ceil(PAGE_SIZE) * PAGE_SIZE - start;
        if let Some(account) = &self.account
            && !account.charge(length)
        {
            // Where there is no room for all of it, there may be some for its first page.
            if length == PAGE_SIZE || !account.charge(PAGE_SIZE) {
                return Err(MemoryError::Unpaid);
            }
            length = PAGE_SIZE;
        }
        let range = memory.allocate(length).inspect_err(|_| self.refund(length))?;
        self.allocated += range.length();
        let before = self.extents.range_mut(..start).next_back();
        match before {
            Some((&before, extent)) if before + extent.length == start && extent.offset + extent.length == range.start => {
                extent.length += range.length();
            }
            _ => {
                self.extents.insert(start, Extent { length: range.length(), offset: range.start });
            }
        }
        Ok((range.start + (at - start), (start + length).min(end)))
    }

    fn refund(&self, bytes: u64) {
        if let Some(account) = &self.account {
            account.refund(bytes);
        }
    }

    /// Drops the pages of a page-aligned range.
    fn remove(&mut self, memory: &MemoryFile, start: u64, end: u64) {
        self.split(start);
        self.split(end);
        let gone: Vec<u64> = self.extents.range(start..end).map(|(at, _)| *at).collect();
        for at in gone {
            if let Some(extent) = self.extents.remove(&at) {
                self.allocated -= extent.length;
                self.refund(extent.length);
                memory.release(Range { start: extent.offset, end: extent.offset + extent.length });
            }
        }
    }

    /// Makes sure that no extent reaches across `at`.
    fn split(&mut self, at: u64) {
        if let Some((&start, extent)) = self.extents.range_mut(..at).next_back()
            && start + extent.length > at
        {
            let head = at - start;
            let tail = Extent { length: extent.length - head, offset: extent.offset + head };
            extent.length = head;
            self.extents.insert(at, tail);
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let memory = Arc::clone(&self.memory);
        self.pages.get_mut().remove(&memory, 0, u64::MAX);
    }
}
