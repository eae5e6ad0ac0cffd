//! What lies in a pipe: a queue of pages, each with some bytes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::io::{Destination, Source};
use cloudpilot_abi::Errno;

/// Bytes a page.
pub const PAGE: usize = cloudpilot_abi::PAGE_SIZE as usize;
/// Pages that all pipes of the sandbox may be sized for before new ones get the smallest size: Linux's `pipe-user-pages-soft`. It keeps
/// a guest that fills pipes without reading them from eating the memory of the kernel process.
const SOFT_LIMIT: usize = 16_384;
/// Pages that an unprivileged pipe may be sized for, `/proc/sys/fs/pipe-max-size`.
pub const LARGEST: usize = 256;
/// Pages of a new pipe.
const USUAL: usize = 16;
/// Pages of a new pipe past the soft limit; Linux found that programs fail with fewer.
const SMALLEST: usize = 2;
/// Empty pages kept for the next write, so that a conversation over a pipe allocates nothing.
const SPARE: usize = 2;

/// Pages that all pipes are sized for.
static SIZED: AtomicUsize = AtomicUsize::new(0);

struct Chunk {
    page: Box<[u8; PAGE]>,
    start: usize,
    end: usize,
    /// Written with `O_DIRECT`: one read takes it, whole or cut.
    packet: bool,
}

/// The queue.
pub struct Buffer {
    chunks: VecDeque<Chunk>,
    spare: Vec<Box<[u8; PAGE]>>,
    /// Chunks that fit.
    slots: usize,
    bytes: usize,
}

impl Buffer {
    pub fn new() -> Self {
        let slots = if SIZED.load(Ordering::Relaxed) + USUAL > SOFT_LIMIT { SMALLEST } else { USUAL };
        SIZED.fetch_add(slots, Ordering::Relaxed);
        Self { chunks: VecDeque::with_capacity(slots), spare: Vec::new(), slots, bytes: 0 }
    }

    /// Bytes waiting to be read.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether not a single byte can be added as a new chunk.
    pub fn is_full(&self) -> bool {
        self.chunks.len() >= self.slots
    }

    pub fn slots(&self) -> usize {
        self.slots
    }

    /// `F_SETPIPE_SZ` in pages; `EBUSY` when more is in use.
    pub fn resize(&mut self, slots: usize, privileged: bool) -> Result<(), Errno> {
        if slots < self.chunks.len() {
            return Err(Errno::EBUSY);
        }
        let grows = slots.saturating_sub(self.slots);
        if grows > 0 && !privileged && SIZED.load(Ordering::Relaxed) + grows > SOFT_LIMIT {
            return Err(Errno::EPERM);
        }
        SIZED.fetch_add(slots, Ordering::Relaxed);
        SIZED.fetch_sub(self.slots, Ordering::Relaxed);
        self.slots = slots;
        Ok(())
    }

    /// Room behind the last chunk, for bytes that may join it.
    fn tail_room(&self) -> usize {
        self.chunks.back().filter(|chunk| !chunk.packet).map_or(0, |chunk| PAGE - chunk.end)
    }

    /// Bytes that a write of `length` may add now: all or nothing up to a page, else whatever fits.
    pub fn room(&self, length: usize, packet: bool) -> usize {
        let free = (self.slots - self.chunks.len().min(self.slots)) * PAGE;
        if packet {
            return free.min(length);
        }
        let tail = self.tail_room();
        if length <= PAGE {
            return if length <= tail || free > 0 { length } else { 0 };
        }
        (free + tail).min(length)
    }

    fn fresh_page(&mut self) -> Box<[u8; PAGE]> {
        self.spare.pop().unwrap_or_else(|| Box::new([0; PAGE]))
    }

    /// Adds up to `length` bytes from `source`; the caller asked [`room`](Self::room).
    pub fn fill(&mut self, source: &mut Source<'_>, length: usize, packet: bool) -> Result<usize, Errno> {
        // A write of at most a page must not be torn between the last page and a new one if only part of it arrives; Linux joins it
        // only when all of it fits.
        let join = !packet && (length > PAGE || length <= self.tail_room());
        source.with_slices(length, |slices| {
            let mut count = 0;
            let mut fresh = !join;
            for slice in slices {
                let mut rest: &[u8] = slice;
                while !rest.is_empty() {
                    if fresh || self.chunks.back().is_none_or(|chunk| chunk.packet != packet || chunk.end == PAGE) {
                        if self.is_full() {
                            return Ok(count);
                        }
                        let page = self.fresh_page();
                        self.chunks.push_back(Chunk { page, start: 0, end: 0, packet });
                        fresh = false;
                    }
                    let Some(chunk) = self.chunks.back_mut() else { return Ok(count) };
                    let take = rest.len().min(PAGE - chunk.end);
                    chunk.page[chunk.end..chunk.end + take].copy_from_slice(&rest[..take]);
                    chunk.end += take;
                    self.bytes += take;
                    count += take;
                    rest = &rest[take..];
                }
            }
            Ok(count)
        })
    }

    /// Moves bytes to `destination`: as many as fit, or one packet, whose rest is lost.
    pub fn drain(&mut self, destination: &mut Destination<'_>) -> Result<usize, Errno> {
        let packet = self.chunks.front().is_some_and(|chunk| chunk.packet);
        let wanted = if packet { self.chunks.front().map_or(0, |chunk| chunk.end - chunk.start) } else { self.bytes };
        let count = destination.with_slices(wanted, |slices| {
            let mut count = 0;
            for slice in slices {
                count += self.copy_out(slice, count, packet);
            }
            Ok(count)
        })?;
        if packet {
            self.drop_front()
        } else {
            self.consume(count)
        }
        Ok(count)
    }

    /// Copies bytes from `skip` on without taking them; stops before a packet unless it is the first chunk and `packet` says so.
    fn copy_out(&self, mut into: &mut [u8], mut skip: usize, packet: bool) -> usize {
        let mut count = 0;
        for chunk in self.chunks.iter().take(if packet { 1 } else { usize::MAX }) {
            if into.is_empty() || chunk.packet != packet {
                break;
            }
            let bytes = &chunk.page[chunk.start..chunk.end];
            if skip >= bytes.len() {
                skip -= bytes.len();
                continue;
            }
            let bytes = &bytes[skip..];
            skip = 0;
            let take = bytes.len().min(into.len());
            into[..take].copy_from_slice(&bytes[..take]);
            into = &mut into[take..];
            count += take;
        }
        count
    }

    /// Copies up to `into.len()` bytes without taking them (`tee(2)`).
    pub fn peek(&self, into: &mut [u8]) -> usize {
        let packet = self.chunks.front().is_some_and(|chunk| chunk.packet);
        self.copy_out(into, 0, packet)
    }

    /// Takes `count` bytes away.
    pub fn consume(&mut self, mut count: usize) {
        while count > 0 {
            let Some(chunk) = self.chunks.front_mut() else { return };
            let take = count.min(chunk.end - chunk.start);
            chunk.start += take;
            self.bytes -= take;
            count -= take;
            if chunk.start == chunk.end {
                self.drop_front();
            }
        }
    }

    fn drop_front(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.bytes -= chunk.end - chunk.start;
            if self.spare.len() < SPARE {
                self.spare.push(chunk.page);
            }
        }
    }

    /// Adds bytes in front; the pipe may hold more than its size until they are read.
    pub fn push_front(&mut self, bytes: &[u8]) {
        for part in bytes.rchunks(PAGE) {
            let mut page = self.fresh_page();
            page[..part.len()].copy_from_slice(part);
            self.chunks.push_front(Chunk { page, start: 0, end: part.len(), packet: false });
            self.bytes += part.len();
        }
    }

    /// Moves chunks, whole where possible, to another pipe (`splice(2)`); answers the bytes.
    pub fn move_to(&mut self, other: &mut Self, mut length: usize) -> usize {
        let mut moved = 0;
        while length > 0 && !other.is_full() {
            let Some(chunk) = self.chunks.front_mut() else { break };
            let size = chunk.end - chunk.start;
            if size <= length {
                let Some(chunk) = self.chunks.pop_front() else { break };
                self.bytes -= size;
                other.bytes += size;
                other.chunks.push_back(chunk);
                moved += size;
                length -= size;
                continue;
            }
            let mut page = other.fresh_page();
            page[..length].copy_from_slice(&chunk.page[chunk.start..chunk.start + length]);
            let packet = chunk.packet;
            other.chunks.push_back(Chunk { page, start: 0, end: length, packet });
            other.bytes += length;
            self.consume(length);
            moved += length;
            length = 0;
        }
        moved
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        SIZED.fetch_sub(self.slots, Ordering::Relaxed);
    }
}
