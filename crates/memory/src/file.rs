//! The memory file and its window in the kernel process.

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use cloudpilot_abi::PAGE_SIZE;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::ranges::Ranges;

/// Size of the sparse file and of its window: far more than any host has memory, so that offsets never run short before memory does, and
/// a thirty-second of the address space.
const FILE_SIZE: u64 = 1 << 42;

/// Why memory could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryError {
    /// The file has no range of that size left.
    Exhausted,
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
    kept: Mutex<Kept>,
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

/// Freed ranges that are handed out again soon, without asking the host twice: what a copy-on-write fault, a pipe or a small file takes comes and
/// goes all the time, and zeroing it is quicker than giving it back and touching it anew.
#[derive(Default)]
struct Kept {
    /// Starts by number of pages; index 0 is one page.
    starts: [Vec<u64>; LARGEST_KEPT],
    bytes: u64,
}

/// Pages of the largest range that is kept: a copy-on-write granule.
const LARGEST_KEPT: usize = 8;
/// Most bytes that are kept: an idle sandbox holds on to them.
const MOST_KEPT: u64 = 512 << 10;

impl Kept {
    fn stack(&mut self, length: u64) -> Option<&mut Vec<u64>> {
        self.starts.get_mut(usize::try_from(length / PAGE_SIZE).ok()?.checked_sub(1)?)
    }

    fn keep(&mut self, start: u64, length: u64) -> bool {
        if self.bytes + length > MOST_KEPT {
            return false;
        }
        let Some(stack) = self.stack(length) else { return false };
        stack.push(start);
        self.bytes += length;
        true
    }

    fn take(&mut self, length: u64) -> Option<u64> {
        let start = self.stack(length)?.pop()?;
        self.bytes -= length;
        Some(start)
    }
}

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
        Ok(Arc::new(Self { fd, window, ranges: Mutex::new(Ranges::new(FILE_SIZE)), kept: Mutex::default() }))
    }

    /// The descriptor, for mapping ranges elsewhere.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A zeroed range of `length` bytes (a multiple of the page size) with one owner. Costs no memory until touched.
    pub fn allocate(&self, length: u64) -> Result<Range, MemoryError> {
        if let Some(start) = self.kept.lock().take(length) {
            self.zero(start, length);
            return Ok(Range { start, end: start + length });
        }
        let start = self.ranges.lock().allocate(length).ok_or(MemoryError::Exhausted)?;
        Ok(Range { start, end: start + length })
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
            if self.kept.lock().keep(start, end - start) {
                continue;
            }
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
        rustix::fs::fstat(&self.fd).map_or(0, |stat| stat.st_blocks as u64 * 512)
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
