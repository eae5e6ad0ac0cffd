//! Entering areas into the map and taking them out: `mmap(2)`, `munmap(2)`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, PAGE_SIZE, page_down, page_up, raw};
use cloudpilot_platform::Executor;

use super::area::{Area, Content};
use super::fault::{ANONYMOUS_CHUNK, FaultError, host_backing};
use super::{Mapping, Mm, State};
use crate::vfs::File;

/// Where a mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Wherever there is room; the address is a hint, 0 for none.
    Anywhere(u64),
    /// There, replacing what is there (`MAP_FIXED`).
    Fixed(u64),
    /// There, or `EEXIST` (`MAP_FIXED_NOREPLACE`).
    FixedFree(u64),
    /// Below 2 GiB (`MAP_32BIT`).
    Low,
}

/// A new mapping.
pub struct MapRequest {
    /// Where.
    pub placement: Placement,
    /// Bytes; rounded up to pages.
    pub length: u64,
    /// `PROT_*`.
    pub protection: u32,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// Whether `PROT_WRITE` may be added later.
    pub may_write: bool,
    /// `MAP_GROWSDOWN`.
    pub grows_down: bool,
    /// What it shows, from `offset` on.
    pub mapping: Mapping,
    /// Page-aligned.
    pub offset: u64,
    /// The file, for `/proc/<pid>/maps` and to keep it open.
    pub file: Option<Arc<File>>,
    /// `[heap]` and the like.
    pub name: Option<String>,
    /// Make all pages exist now (`MAP_POPULATE`).
    pub populate: bool,
}

impl MapRequest {
    /// Private anonymous memory.
    pub fn anonymous(placement: Placement, length: u64, protection: u32) -> Self {
        Self {
            placement,
            length,
            protection,
            shared: false,
            may_write: true,
            grows_down: false,
            mapping: Mapping::Zero,
            offset: 0,
            file: None,
            name: None,
            populate: false,
        }
    }
}

/// Private file mappings that are writable are copied at once up to this size: program data is nearly always written, and one copy is cheaper
/// than the faults.
const EAGER_COPY: u64 = 256 << 10;
/// Most areas of one address space, `vm.max_map_count`.
const MAX_AREAS: usize = 65_530;

impl From<FaultError> for Errno {
    fn from(error: FaultError) -> Self {
        match error {
            FaultError::OutOfMemory => Self::ENOMEM,
            FaultError::Gone => Self::ESRCH,
            FaultError::NotMapped | FaultError::Forbidden | FaultError::PastEnd => Self::EFAULT,
        }
    }
}

/// A stub that is gone takes its task along.
pub(super) fn gone(_: cloudpilot_platform::Gone) -> Errno {
    Errno::ESRCH
}

impl Mm {
    /// Maps; answers the address. `address_limit` is `RLIMIT_AS`.
    pub fn map(&self, executor: &mut dyn Executor, request: MapRequest, address_limit: u64) -> Result<u64, Errno> {
        let length = page_up(request.length).filter(|&length| length != 0).ok_or(Errno::ENOMEM)?;
        let mut state = self.state.write();
        let start = self.place(&state, request.placement, length)?;
        if matches!(request.placement, Placement::Fixed(_)) {
            check_sealed(&state, start, start + length)?;
            self.remove(&mut state, executor, start, start + length)?;
        }
        if state.mapped + length > address_limit || state.areas.len() >= MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        let writer = match &request.mapping {
            Mapping::Sealable(_, writer) if request.shared && request.may_write => Some(writer.clone()),
            _ => None,
        };
        let content = match request.mapping {
            Mapping::Zero if request.shared => Content::Object(cloudpilot_memory::Object::new(&self.memory, length), 0),
            Mapping::Zero => Content::Anonymous,
            Mapping::Object(object) | Mapping::Sealable(object, _) | Mapping::Sealed(object) => Content::Object(object, request.offset),
            Mapping::Host(file) => Content::Host(file, request.offset),
        };
        let area = Area {
            end: start + length,
            protection: request.protection,
            shared: request.shared,
            may_write: request.may_write,
            grows_down: request.grows_down,
            content,
            file: request.file.map(|file| (file, request.offset)),
            writer,
            name: request.name,
            keep_from_fork: false,
            wipe_on_fork: false,
            locked: state.lock_future,
            sealed: false,
            policy: None,
        };
        state.mapped += length;
        if !matches!(request.placement, Placement::Fixed(_) | Placement::FixedFree(_)) {
            state.hint = start;
        }
        self.enter(&mut state, executor, start, area, request.populate)?;
        Ok(start)
    }

    /// Enters an area into the map, joins it to its neighbour, and maps what is cheap to map ahead of the first touch.
    pub(super) fn enter(
        &self,
        state: &mut State,
        executor: &mut dyn Executor,
        start: u64,
        area: Area,
        populate: bool,
    ) -> Result<(), Errno> {
        let (end, protection, shared) = (area.end, area.protection, area.shared);
        let content = area.content.clone();
        if let Content::Object(object, _) = &content {
            self.note_object(object);
        }
        let ahead = area.clone();
        match state.areas.range_mut(..start).next_back() {
            Some((&before, last)) if last.end == start && last.continues_in(before, &area) => last.end = end,
            _ => {
                state.areas.insert(start, area);
            }
        }
        if protection & (raw::PROT_READ | raw::PROT_WRITE | raw::PROT_EXEC) == 0 {
            return Ok(());
        }
        match content {
            Content::Anonymous if end - start <= ANONYMOUS_CHUNK && protection & raw::PROT_WRITE != 0 && !ahead.grows_down => {
                self.place_anonymous(state, executor, start, end, protection)?;
            }
            Content::Host(file, offset) if !shared && protection & raw::PROT_WRITE != 0 && end - start <= EAGER_COPY => {
                self.copy_from_host(state, executor, &ahead, (start, end), &file, offset)?;
            }
            Content::Host(file, offset) => {
                let protection = if shared { protection } else { ahead.read_only() };
                if protection != 0 {
                    executor.map(start, end - start, protection, host_backing(&file, offset, shared)).map_err(gone)?;
                }
            }
            Content::Object(..) if populate => self.populate(state, executor, start, end)?,
            // Whoever maps a file that has something to read mostly reads it.
            Content::Object(object, offset) if object.seek(offset, true) == Some(offset) => {
                // Whatever is wrong is wrong when it is touched, unless the stub is dead.
                if self.fault_in(state, executor, start, cloudpilot_platform::Access::Read) == Err(FaultError::Gone) {
                    return Err(Errno::ESRCH);
                }
            }
            Content::Object(..) | Content::Anonymous | Content::Platform => {}
        }
        Ok(())
    }

    /// Makes the pages of a range exist; what cannot is left.
    pub(super) fn populate(&self, state: &mut State, executor: &mut dyn Executor, start: u64, end: u64) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let access = match state.area_at(at) {
                Some((_, area)) if area.protection & raw::PROT_WRITE != 0 => cloudpilot_platform::Access::Write,
                Some(_) => cloudpilot_platform::Access::Read,
                None => return Err(Errno::ENOMEM),
            };
            match self.fault_in(state, executor, at, access) {
                Ok(()) => {}
                Err(FaultError::Gone) => return Err(Errno::ESRCH),
                Err(_) => return Ok(()),
            }
            at = state.extents.find(at).map_or(at + PAGE_SIZE, |(_, extent)| extent.end);
        }
        Ok(())
    }

    /// Finds the address of a new mapping.
    pub(super) fn place(&self, state: &State, placement: Placement, length: u64) -> Result<u64, Errno> {
        let (lowest, highest) = (self.limits.lowest, self.limits.highest);
        let fits = |start: u64| start >= lowest && start.checked_add(length).is_some_and(|end| end <= highest);
        let is_free = |start: u64| state.areas.range(..start + length).next_back().is_none_or(|(_, area)| area.end <= start);
        match placement {
            Placement::Fixed(start) | Placement::FixedFree(start) if !start.is_multiple_of(PAGE_SIZE) => Err(Errno::EINVAL),
            Placement::Fixed(start) | Placement::FixedFree(start) if start < lowest => Err(Errno::EPERM),
            Placement::Fixed(start) | Placement::FixedFree(start) if !fits(start) => Err(Errno::ENOMEM),
            Placement::FixedFree(start) if !is_free(start) => Err(Errno::EEXIST),
            Placement::Fixed(start) | Placement::FixedFree(start) => Ok(start),
            Placement::Anywhere(hint) => {
                let hint = page_down(hint);
                if hint != 0 && fits(hint) && is_free(hint) {
                    return Ok(hint);
                }
                if let Some(start) = state.hint.checked_sub(length)
                    && start >= lowest
                    && is_free(start)
                {
                    return Ok(start);
                }
                gap_below(state, state.mmap_top, lowest, length).or_else(|| gap_below(state, highest, lowest, length)).ok_or(Errno::ENOMEM)
            }
            Placement::Low => gap_below(state, 0x8000_0000, lowest, length).ok_or(Errno::ENOMEM),
        }
    }

    /// Unmaps.
    pub fn unmap(&self, executor: &mut dyn Executor, start: u64, length: u64) -> Result<(), Errno> {
        let end = self.check_range(start, length)?;
        if start == end {
            return Err(Errno::EINVAL);
        }
        let mut state = self.state.write();
        check_sealed(&state, start, end)?;
        self.remove(&mut state, executor, start, end)
    }

    /// Takes everything within `start..end` out of the map and out of the stub.
    pub(super) fn remove(&self, state: &mut State, executor: &mut dyn Executor, start: u64, end: u64) -> Result<(), Errno> {
        split(state, start);
        split(state, end);
        let gone_areas: Vec<u64> = state.areas.range(start..end).map(|(at, _)| *at).collect();
        if gone_areas.is_empty() {
            return Ok(());
        }
        // First the stub's mapping, then the pages: they must not be reused while a guest thread can still reach them.
        executor.unmap(start, end - start).map_err(gone)?;
        let mut code = false;
        for at in gone_areas {
            if let Some(area) = state.areas.remove(&at) {
                state.mapped -= area.end - at;
                code |= area.protection & raw::PROT_EXEC != 0;
            }
        }
        if code {
            state.sites.forget(start, end);
        }
        state.extents.remove(start, end, |range| self.memory.release(range));
        if start == state.hint {
            // What was placed last goes first: give its place to the next.
            state.hint = end;
        }
        Ok(())
    }

    /// The end of a page-aligned range that guests may map.
    pub(super) fn check_range(&self, start: u64, length: u64) -> Result<u64, Errno> {
        let end = page_up(length).and_then(|length| start.checked_add(length)).ok_or(Errno::EINVAL)?;
        if !start.is_multiple_of(PAGE_SIZE) || end > self.limits.highest { Err(Errno::EINVAL) } else { Ok(end) }
    }
}

/// `EPERM` if something in a range is sealed.
pub(super) fn check_sealed(state: &State, start: u64, end: u64) -> Result<(), Errno> {
    let from = state.area_at(start).map_or(start, |(at, _)| at);
    if state.areas.range(from..end).any(|(_, area)| area.sealed) { Err(Errno::EPERM) } else { Ok(()) }
}

/// The highest gap of `length` bytes between `lowest` and `top`.
fn gap_below(state: &State, top: u64, lowest: u64, length: u64) -> Option<u64> {
    let mut gap_end = top;
    for (&start, area) in state.areas.range(..top).rev() {
        if area.end < gap_end && gap_end - area.end >= length {
            break;
        }
        gap_end = start.min(gap_end);
    }
    let start = gap_end.checked_sub(length)?;
    (start >= lowest && state.areas.range(..gap_end).next_back().is_none_or(|(_, area)| area.end <= start)).then_some(start)
}

/// Up to where, from `start`, areas follow each other without a gap; at most `end`.
pub(super) fn covered_until(state: &State, start: u64, end: u64) -> u64 {
    let mut at = start;
    while at < end {
        match state.area_at(at) {
            Some((_, area)) => at = area.end,
            None => return at,
        }
    }
    end
}

/// Makes sure that no area reaches across `at`.
pub(super) fn split(state: &mut State, at: u64) {
    if let Some((&start, area)) = state.areas.range_mut(..at).next_back()
        && area.end > at
    {
        let mut tail = area.clone();
        tail.advance(at - start);
        area.end = at;
        state.areas.insert(at, tail);
    }
}

/// Joins areas from the one before `start` to the one at `end` where they have become alike.
pub(super) fn join(state: &mut State, start: u64, end: u64) {
    let first = state.areas.range(..start).next_back().map_or(start, |(at, _)| *at);
    let starts: Vec<u64> = state.areas.range(first..=end).map(|(at, _)| *at).collect();
    let mut kept: Option<u64> = None;
    for at in starts {
        if let Some(before) = kept
            && let (Some(last), Some(next)) = (state.areas.get(&before), state.areas.get(&at))
            && last.end == at
            && last.continues_in(before, next)
        {
            let next_end = next.end;
            state.areas.remove(&at);
            if let Some(last) = state.areas.get_mut(&before) {
                last.end = next_end;
            }
        } else {
            kept = Some(at);
        }
    }
}
