//! The memory file and its window in the kernel process.

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FallocateFlags, MemfdFlags, SealFlags, SeekFrom, StatxFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::pool::Pool;
use crate::ranges::Ranges;

/// Size of the sparse file and of its window: far more than any host has memory, so that offsets never run short before memory does, and
/// a thirty-second of the address space.
const FILE_SIZE: u64 = 1 << 42;

/// Why memory could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryError {
    /// The file has no range of that size left.
    Exhausted,
    /// Whoever pays for the pages may have no more of them.
    Unpaid,
}

/// A range of the memory file, page-aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Range {
    /// Bytes.
    pub fn length(self) -> u64 {
        self.end - self.start
    }
}

/// All memory of a sandbox.
pub struct MemoryFile {
    fd: OwnedFd,
    window: NonNull<u8>,
    ranges: Mutex<Ranges>,
    pool: Mutex<Pool>,
}

// SAFETY: `window` is a mapping that lives as long as the value; access to its bytes goes through raw copies.
unsafe impl Send for MemoryFile {}
// SAFETY: as above; `ranges` has its own lock.
unsafe impl Sync for MemoryFile {}

/// Where a large window may lie: at random, but away from the top of the address space, where stubs have their fixed places and the host puts
/// mappings without a wish.
pub fn window_hint() -> *mut c_void {
    const LOWEST: u64 = 0x1000_0000_0000;
    const SPAN: u64 = 0x5000_0000_0000;
    let mut bytes = [0; 8];
    // Without randomness the window lies at the lowest place, which works as well.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    ((LOWEST + u64::from_le_bytes(bytes) % SPAN) & !0xfff) as *mut c_void
}

/// Up to this size a range is zeroed without asking which of its pages exist: to ask costs more than to write, and what is kept was touched before.
const ZERO_UNSEEN: u64 = 256 << 10;

impl MemoryFile {
    /// Makes the file and maps it. It is sealed against shrinking, so that no mapping of it can ever fault for its size.
    pub fn new() -> std::io::Result<Arc<Self>> {
        let fd = rustix::fs::memfd_create(c"cloudpilot-memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, FILE_SIZE)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // SAFETY: a fresh mapping where nothing is aliases nothing.
        let window = unsafe {
            rustix::mm::mmap(
                window_hint(),
                FILE_SIZE as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &fd,
                0,
            )?
        };
        // Stubs are forked from this process: they must not inherit a view of everybody's memory.
        // SAFETY: advice about a mapping of our own.
        unsafe { rustix::mm::madvise(window, FILE_SIZE as usize, rustix::mm::Advice::LinuxDontFork)? };
        let window = NonNull::new(window.cast::<u8>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Arc::new(Self { fd, window, ranges: Mutex::new(Ranges::new(FILE_SIZE)), pool: Mutex::default() }))
    }

    /// The descriptor, for mapping ranges elsewhere.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A zeroed range of `length` bytes (a multiple of the page size) with one owner. Costs no memory until touched.
    pub fn allocate(&self, length: u64) -> Result<Range, MemoryError> {
        if let Some(start) = self.pool.lock().take(length) {
            self.zero_existing(start, length);
            return Ok(Range { start, end: start + length });
        }
        self.allocate_fresh(length)
    }

    /// The same with bytes that may be anything, somebody else's included: the caller overwrites all of them before a guest sees any.
    pub fn allocate_to_fill(&self, length: u64) -> Result<Range, MemoryError> {
        match self.pool.lock().take(length) {
            Some(start) => Ok(Range { start, end: start + length }),
            None => self.allocate_fresh(length),
        }
    }

    fn allocate_fresh(&self, length: u64) -> Result<Range, MemoryError> {
        let start = self.ranges.lock().allocate(length).ok_or(MemoryError::Exhausted)?;
        Ok(Range { start, end: start + length })
    }

    /// Zeroes the pages of a range that exist; the others stay holes, which read as zeroes, too.
    fn zero_existing(&self, start: u64, length: u64) {
        if length <= ZERO_UNSEEN {
            return self.zero(start, length);
        }
        let end = start + length;
        let mut at = start;
        while at < end {
            // A failure means that there is nothing from here on, short of a host that does not know its own files.
            let Ok(from) = rustix::fs::seek(&self.fd, SeekFrom::Data(at)) else { return };
            let to = rustix::fs::seek(&self.fd, SeekFrom::Hole(from)).unwrap_or(end).min(end);
            if from >= end {
                return;
            }
            self.zero(from, to - from);
            at = to;
        }
    }

    /// One owner more.
    pub fn retain(&self, range: Range) {
        self.ranges.lock().retain(range.start, range.end);
    }

    /// One owner less; what has none left goes back to the host.
    pub fn release(&self, range: Range) {
        if range.start == range.end {
            return;
        }
        let freed = self.ranges.lock().release(range.start, range.end);
        for (start, end) in freed {
            let surplus = self.pool.lock().put(start, end);
            self.give_back(surplus);
        }
    }

    /// Sets how much freed memory is kept for reuse at most.
    pub fn keep_at_most(&self, bytes: u64) {
        self.pool.lock().limit(bytes);
    }

    /// Gives all memory back to the host that is kept for reuse.
    pub fn trim(&self) {
        let all = self.pool.lock().shrink(0);
        self.give_back(all);
    }

    fn give_back(&self, ranges: Vec<(u64, u64)>) {
        for (start, end) in ranges {
            // Punching first keeps the promise that allocated ranges read as zeros. A failure is impossible for a memfd of ours short of a
            // kernel out of memory; then the range is lost rather than handed out dirty.
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if rustix::fs::fallocate(&self.fd, punch, start, end - start).is_ok() {
                self.ranges.lock().reuse(start, end);
            }
        }
    }

    /// Whether the byte at `range.start` has several owners, and how far into the range that answer holds.
    pub fn shared(&self, range: Range) -> (bool, u64) {
        self.ranges.lock().shared(range.start, range.end)
    }

    /// Bytes that are really in use.
    pub fn bytes_in_use(&self) -> u64 {
        rustix::fs::statx(&self.fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BLOCKS).map_or(0, |status| status.stx_blocks * 512)
    }

    /// Address in the kernel process of an offset. The bytes are shared with the guest, which may change them at any time: copy, then check.
    pub fn pointer(&self, offset: u64) -> NonNull<u8> {
        debug_assert!(offset <= FILE_SIZE);
        // SAFETY: offsets come from `allocate` and lie within the window.
        unsafe { self.window.add(offset as usize) }
    }

    /// Copies bytes out.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        // SAFETY: the range lies within the window; `buffer` is ours and does not overlap it. The guest may write meanwhile, which only
        // makes the copied bytes a mixture.
        unsafe { std::ptr::copy_nonoverlapping(self.pointer(offset).as_ptr(), buffer.as_mut_ptr(), buffer.len()) }
    }

    /// Copies bytes in.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        // SAFETY: as for `read`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer(offset).as_ptr(), bytes.len()) }
    }

    /// Copies within the file (copy-on-write).
    pub fn copy(&self, from: u64, to: u64, length: u64) {
        // SAFETY: both ranges lie within the window; `to` was just allocated, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(self.pointer(from).as_ptr(), self.pointer(to).as_ptr(), length as usize) }
    }

    /// Writes zeros.
    pub fn zero(&self, offset: u64, length: u64) {
        // SAFETY: the range lies within the window.
        unsafe { std::ptr::write_bytes(self.pointer(offset).as_ptr(), 0, length as usize) }
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` and nothing that borrows from it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.window.as_ptr().cast(), FILE_SIZE as usize) };
    }
}
