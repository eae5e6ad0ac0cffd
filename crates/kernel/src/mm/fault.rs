//! Making pages exist: page faults of the guest, and the same on behalf of our own copies.

use cloudpilot_abi::{PAGE_SIZE, page_down, raw};
use cloudpilot_memory::{MemoryError, Range};
use cloudpilot_platform::{Access, Backing, Executor};

use super::area::{Area, Content};
use super::extents::Extent;
use super::{Mm, State};

/// Why an access cannot be made to work: the signal that the guest gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// `SIGSEGV` with `SEGV_MAPERR`: nothing is mapped there.
    NotMapped,
    /// `SIGSEGV` with `SEGV_ACCERR`: the area forbids it.
    Forbidden,
    /// `SIGBUS` with `BUS_ADRERR`: past the end of the mapped file.
    PastEnd,
    /// No memory left to give: the out-of-memory killer's case.
    OutOfMemory,
    /// The stub is dead.
    Gone,
}

/// Pages made at once by a copy-on-write fault: copying 32 KiB costs about what one fault does, and neighbours are usually written too.
const COPY_GRANULE: u64 = 32 << 10;
/// Largest run of anonymous memory that is placed in one piece. It costs nothing until touched; the bound keeps one wild reservation from using
/// up the memory file's offsets.
pub(super) const ANONYMOUS_CHUNK: u64 = 1 << 30;
/// Pages of a file mapping that are placed at once.
const OBJECT_CHUNK: u64 = 2 << 20;

impl Mm {
    /// Serves a page fault of the guest.
    pub fn fault(&self, executor: &mut dyn Executor, address: u64, access: Access, stack_limit: u64) -> Result<(), FaultError> {
        let mut state = self.state.write();
        if state.area_at(address).is_none() {
            self.grow_stack(&mut state, address, stack_limit)?;
        }
        self.fault_in(&mut state, executor, address, access)
    }

    /// Makes the page at `address` exist and be mapped as `access` needs.
    pub(super) fn fault_in(&self, state: &mut State, executor: &mut dyn Executor, address: u64, access: Access) -> Result<(), FaultError> {
        let (start, area) = state.area_at(address).ok_or(FaultError::NotMapped)?;
        if !area.allows(access) {
            return Err(FaultError::Forbidden);
        }
        let (area, page) = (area.clone(), page_down(address));
        if let Some((extent_start, extent)) = state.extents.find(page) {
            let from = extent_start.max(start);
            let to = extent.end.min(area.end);
            if access == Access::Write && extent.copy_on_write {
                return self.break_copy(state, executor, &area, page, from, to);
            }
            let offset = extent.offset + (from - extent_start);
            let protection = if extent.copy_on_write { area.read_only() } else { area.protection };
            return executor.map(from, to - from, protection, Backing::Memory(offset)).map_err(|_| FaultError::Gone);
        }
        // The hole around the page, within the area.
        let hole_end = state.extents.next_start(page).map_or(area.end, |next| next.min(area.end));
        let hole_start = state.extents.within(start, page).last().map_or(start, |(_, extent)| extent.end);
        match &area.content {
            Content::Anonymous => {
                let from = hole_start.max(page - page % ANONYMOUS_CHUNK);
                let to = hole_end.min(from + ANONYMOUS_CHUNK);
                self.place_anonymous(state, executor, from, to, area.protection)
            }
            Content::Object(object, offset) => {
                let at = offset + (page - start);
                if at >= object.size() {
                    return Err(FaultError::PastEnd);
                }
                let size_end = object.size().div_ceil(PAGE_SIZE) * PAGE_SIZE;
                let length = (hole_end - page).min(OBJECT_CHUNK).min(size_end - at);
                let range = object.share(at, length).map_err(|error| match error {
                    MemoryError::Exhausted => FaultError::OutOfMemory,
                    MemoryError::Unpaid => FaultError::PastEnd,
                })?;
                let end = page + range.length();
                let copy_on_write = !area.shared;
                state.extents.insert(page, Extent { end, offset: range.start, copy_on_write });
                if copy_on_write && access == Access::Write {
                    return self.break_copy(state, executor, &area, page, page, end);
                }
                let protection = if copy_on_write { area.read_only() } else { area.protection };
                executor.map(page, end - page, protection, Backing::Memory(range.start)).map_err(|_| FaultError::Gone)
            }
            Content::Host(file, offset) if access == Access::Write && !area.shared => {
                let from = hole_start.max(page - page % COPY_GRANULE);
                let to = hole_end.min(from + COPY_GRANULE).max(page + PAGE_SIZE);
                self.copy_from_host(state, executor, &area, (from, to), file, offset + (from - start))
            }
            Content::Host(file, offset) => {
                let protection = if area.shared { area.protection } else { area.read_only() };
                let backing = host_backing(file, offset + (hole_start - start), area.shared);
                executor.map(hole_start, hole_end - hole_start, protection, backing).map_err(|_| FaultError::Gone)
            }
            Content::Platform => Err(FaultError::Forbidden),
        }
    }

    /// Gives a hole of an anonymous area fresh zero pages.
    pub(super) fn place_anonymous(
        &self,
        state: &mut State,
        executor: &mut dyn Executor,
        from: u64,
        to: u64,
        protection: u32,
    ) -> Result<(), FaultError> {
        let range = self.memory.allocate(to - from).map_err(|_| FaultError::OutOfMemory)?;
        state.extents.insert(from, Extent { end: to, offset: range.start, copy_on_write: false });
        executor.map(from, to - from, protection, Backing::Memory(range.start)).map_err(|_| FaultError::Gone)
    }

    /// Ends copy-on-write for the pages around `page`, within `from..to` of one extent: by copying, or by taking over what has no other owner.
    fn break_copy(
        &self,
        state: &mut State,
        executor: &mut dyn Executor,
        area: &Area,
        page: u64,
        from: u64,
        to: u64,
    ) -> Result<(), FaultError> {
        let Some((extent_start, extent)) = state.extents.find(page) else { return Err(FaultError::NotMapped) };
        let offset_of = |address: u64| extent.offset + (address - extent_start);
        let (shared, same_until) = self.memory.shared(Range { start: offset_of(page), end: offset_of(to) });
        let same_until = page + (same_until - offset_of(page));
        if !shared {
            // The other side has gone or has its own copy: the whole run up to the next shared page is ours.
            state.extents.mark(page, same_until, false);
            return executor.map(page, same_until - page, area.protection, Backing::Memory(offset_of(page))).map_err(|_| FaultError::Gone);
        }
        let start = from.max(page - page % COPY_GRANULE);
        let end = same_until.min(start + COPY_GRANULE).max(page + PAGE_SIZE);
        let range = self.memory.allocate_to_fill(end - start).map_err(|_| FaultError::OutOfMemory)?;
        self.memory.copy(offset_of(start), range.start, end - start);
        state.extents.remove(start, end, |old| self.memory.release(old));
        state.extents.insert(start, Extent { end, offset: range.start, copy_on_write: false });
        executor.map(start, end - start, area.protection, Backing::Memory(range.start)).map_err(|_| FaultError::Gone)
    }

    /// Gives a hole of a private mapping of a host file its own copy of the file's pages.
    pub(super) fn copy_from_host(
        &self,
        state: &mut State,
        executor: &mut dyn Executor,
        area: &Area,
        (from, to): (u64, u64),
        file: &std::os::fd::OwnedFd,
        offset: u64,
    ) -> Result<(), FaultError> {
        let range = self.memory.allocate_to_fill(to - from).map_err(|_| FaultError::OutOfMemory)?;
        let mut done = 0;
        while done < to - from {
            let place = self.memory.pointer(range.start + done).as_ptr();
            // SAFETY: the range was just allocated and nobody else knows of it.
            let buffer = unsafe { std::slice::from_raw_parts_mut(place, (to - from - done) as usize) };
            match crate::host::transfer::read_at(file, buffer, offset + done) {
                Ok(0) => break,
                Ok(count) => done += count as u64,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    self.memory.release(range);
                    return Err(FaultError::PastEnd);
                }
            }
        }
        self.memory.zero(range.start + done, to - from - done);
        state.extents.insert(from, Extent { end: to, offset: range.start, copy_on_write: false });
        executor.map(from, to - from, area.protection, Backing::Memory(range.start)).map_err(|_| FaultError::Gone)
    }

    /// Extends a stack area down to `address` if one lies above within the limit.
    fn grow_stack(&self, state: &mut State, address: u64, stack_limit: u64) -> Result<(), FaultError> {
        /// Linux's stack guard gap: what must stay free below a growing stack.
        const GUARD_GAP: u64 = 256 * PAGE_SIZE;
        let (&start, area) = state.areas.range(address..).next().ok_or(FaultError::NotMapped)?;
        let new_start = page_down(address);
        if !area.grows_down || area.end - new_start > stack_limit || new_start < self.limits.lowest {
            return Err(FaultError::NotMapped);
        }
        let below = state.areas.range(..new_start).next_back();
        if below.is_some_and(|(_, below)| below.end + GUARD_GAP > new_start && below.protection != raw::PROT_NONE) {
            return Err(FaultError::NotMapped);
        }
        if let Some(area) = state.areas.remove(&start) {
            state.mapped += start - new_start;
            state.areas.insert(new_start, area);
        }
        Ok(())
    }
}

/// A host file as the stub maps it.
pub(super) fn host_backing(file: &std::os::fd::OwnedFd, offset: u64, shared: bool) -> Backing {
    use std::os::fd::AsRawFd;
    Backing::Host { fd: file.as_raw_fd(), offset, shared }
}

impl State {
    /// The area that holds an address, with its start.
    pub(super) fn area_at(&self, address: u64) -> Option<(u64, &Area)> {
        let (&start, area) = self.areas.range(..=address).next_back()?;
        (area.end > address).then_some((start, area))
    }
}
