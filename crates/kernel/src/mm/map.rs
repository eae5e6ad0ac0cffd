//! Changing the map: `mmap(2)`, `munmap(2)`, `mprotect(2)`, `mremap(2)`, `brk(2)`, `madvise(2)`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, PAGE_SIZE, page_down, page_up, raw};
use cloudpilot_platform::{Backing, Executor};

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

fn gone(_: cloudpilot_platform::Gone) -> Errno {
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
        let content = match request.mapping {
            Mapping::Zero if request.shared => Content::Object(cloudpilot_memory::Object::new(&self.memory, length), 0),
            Mapping::Zero => Content::Anonymous,
            Mapping::Object(object) => Content::Object(object, request.offset),
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
            name: request.name,
            keep_from_fork: false,
            wipe_on_fork: false,
            locked: state.lock_future,
            sealed: false,
        };
        state.mapped += length;
        if !matches!(request.placement, Placement::Fixed(_) | Placement::FixedFree(_)) {
            state.hint = start;
        }
        self.enter(&mut state, executor, start, area, request.populate)?;
        Ok(start)
    }

    /// Enters an area into the map, joins it to its neighbour, and maps what is cheap to map ahead of the first touch.
    fn enter(&self, state: &mut State, executor: &mut dyn Executor, start: u64, area: Area, populate: bool) -> Result<(), Errno> {
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
    fn populate(&self, state: &mut State, executor: &mut dyn Executor, start: u64, end: u64) -> Result<(), Errno> {
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
    fn place(&self, state: &State, placement: Placement, length: u64) -> Result<u64, Errno> {
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
    fn remove(&self, state: &mut State, executor: &mut dyn Executor, start: u64, end: u64) -> Result<(), Errno> {
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

    /// Changes the protection of a range; `ENOMEM` where something in it is not mapped.
    pub fn protect(&self, executor: &mut dyn Executor, start: u64, length: u64, protection: u32) -> Result<(), Errno> {
        if !start.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let end = page_up(length).and_then(|length| start.checked_add(length)).ok_or(Errno::ENOMEM)?;
        if start == end {
            return Ok(());
        }
        let mut state = self.state.write();
        check_sealed(&state, start, end)?;
        let covered = covered_until(&state, start, end);
        split(&mut state, start);
        split(&mut state, covered);
        let areas: Vec<u64> = state.areas.range(start..covered).map(|(at, _)| *at).collect();
        for at in areas {
            let Some(area) = state.areas.get_mut(&at) else { continue };
            if protection & raw::PROT_WRITE != 0 && !area.may_write {
                return Err(Errno::EACCES);
            }
            if area.protection != protection {
                area.protection = protection;
                let area = area.clone();
                self.reprotect(&mut state, executor, at, &area)?;
            }
        }
        join(&mut state, start, covered);
        if covered < end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Brings the stub's mappings of an area in line with its new protection.
    fn reprotect(&self, state: &mut State, executor: &mut dyn Executor, start: u64, area: &Area) -> Result<(), Errno> {
        let mut at = start;
        for (from, extent) in state.extents.within(start, area.end) {
            self.reprotect_hole(state, executor, area, start, at, from)?;
            let protection = if extent.copy_on_write { area.read_only() } else { area.protection };
            // Not `protect`: a mapping of these pages may be missing in the stub.
            executor.map(from, extent.end - from, protection, Backing::Memory(extent.offset)).map_err(gone)?;
            at = extent.end;
        }
        self.reprotect_hole(state, executor, area, start, at, area.end)
    }

    /// The same for a part of the area without pages of its own.
    fn reprotect_hole(
        &self,
        state: &mut State,
        executor: &mut dyn Executor,
        area: &Area,
        start: u64,
        from: u64,
        to: u64,
    ) -> Result<(), Errno> {
        if from >= to {
            return Ok(());
        }
        match &area.content {
            Content::Anonymous if area.protection & raw::PROT_WRITE != 0 && to - from <= ANONYMOUS_CHUNK => {
                self.place_anonymous(state, executor, from, to, area.protection)?;
                Ok(())
            }
            Content::Host(file, offset) => {
                let protection = if area.shared { area.protection } else { area.read_only() };
                executor.map(from, to - from, protection, host_backing(file, offset + (from - start), area.shared)).map_err(gone)
            }
            Content::Anonymous | Content::Object(..) | Content::Platform => Ok(()),
        }
    }

    /// `mremap(2)`. `new_address` is given with `MREMAP_FIXED`.
    pub fn remap(
        &self,
        executor: &mut dyn Executor,
        old: (u64, u64),
        new_length: u64,
        may_move: bool,
        keep_old: bool,
        new_address: Option<u64>,
        address_limit: u64,
    ) -> Result<u64, Errno> {
        let (start, old_length) = old;
        let old_end = self.check_range(start, old_length)?;
        let new_length = page_up(new_length).filter(|&length| length != 0).ok_or(Errno::EINVAL)?;
        let old_length = old_end - start;
        let mut state = self.state.write();
        if let Some(target) = new_address {
            if target % PAGE_SIZE != 0 || target < old_end && target.saturating_add(new_length) > start {
                return Err(Errno::EINVAL);
            }
            self.place(&state, Placement::Fixed(target), new_length)?;
            check_sealed(&state, target, target + new_length)?;
        }
        check_sealed(&state, start, old_end)?;
        let (area_start, area) = state.area_at(start).ok_or(Errno::EFAULT)?;
        if area.end < old_end {
            return Err(Errno::EFAULT);
        }
        if old_length == 0 && !area.shared {
            return Err(Errno::EINVAL);
        }
        let mut area = area.clone();
        area.advance(start - area_start);
        if area.protection & raw::PROT_EXEC != 0 {
            self.restore_code(&mut state, executor, start, old_end);
        }
        if new_address.is_none() && !keep_old && old_length != 0 {
            if new_length < old_length {
                self.remove(&mut state, executor, start + new_length, old_end)?;
                return Ok(start);
            }
            if new_length == old_length {
                return Ok(start);
            }
            if state.mapped + (new_length - old_length) > address_limit {
                return Err(Errno::ENOMEM);
            }
            let new_end = start.checked_add(new_length).ok_or(Errno::ENOMEM)?;
            let room = new_end <= self.limits.highest && state.areas.range(old_end..new_end).next().is_none();
            if room && state.area_at(start).is_some_and(|(_, area)| area.end == old_end) {
                let mut tail = area;
                tail.advance(old_length);
                tail.end = new_end;
                state.mapped += new_length - old_length;
                self.enter(&mut state, executor, old_end, tail, false)?;
                return Ok(start);
            }
            if !may_move {
                return Err(Errno::ENOMEM);
            }
        }
        let target = match new_address {
            Some(target) => {
                self.remove(&mut state, executor, target, target + new_length)?;
                target
            }
            None => self.place(&state, Placement::Anywhere(0), new_length)?,
        };
        self.transplant(&mut state, executor, (start, old_length), (target, new_length), area, keep_old)?;
        Ok(target)
    }

    /// Moves the pages and the area of a range elsewhere.
    fn transplant(
        &self,
        state: &mut State,
        executor: &mut dyn Executor,
        (start, old_length): (u64, u64),
        (target, new_length): (u64, u64),
        mut area: Area,
        keep_old: bool,
    ) -> Result<(), Errno> {
        let moved = old_length.min(new_length);
        let extents = state.extents.within(start, start + moved);
        area.end = target + new_length;
        let (protection, read_only) = (area.protection, area.read_only());
        let placed = area.clone();
        for (from, extent) in &extents {
            let range = cloudpilot_memory::Range { start: extent.offset, end: extent.offset + (extent.end - from) };
            self.memory.retain(range);
        }
        if keep_old {
            // MREMAP_DONTUNMAP: the old range stays, empty.
            executor.unmap(start, old_length).map_err(gone)?;
            state.extents.remove(start, start + old_length, |range| self.memory.release(range));
        } else if old_length != 0 {
            self.remove(state, executor, start, start + old_length)?;
        }
        state.mapped += new_length;
        state.areas.insert(target, area);
        for (from, extent) in extents {
            let at = target + (from - start);
            let end = at + (extent.end - from);
            state.extents.insert(at, super::extents::Extent { end, ..extent });
            let protection = if extent.copy_on_write { read_only } else { protection };
            if protection != 0 {
                executor.map(at, end - at, protection, Backing::Memory(extent.offset)).map_err(gone)?;
            }
        }
        let mut at = target;
        for (from, extent) in state.extents.within(target, target + new_length) {
            self.reprotect_hole(state, executor, &placed, target, at, from)?;
            at = extent.end;
        }
        self.reprotect_hole(state, executor, &placed, target, at, target + new_length)
    }

    /// `brk(2)`: answers the heap's end after the attempt, which on failure is the old one.
    pub fn set_break(&self, executor: &mut dyn Executor, wanted: u64, data_limit: u64) -> Result<u64, Errno> {
        let mut state = self.state.write();
        let (start, current) = state.layout.brk;
        let (Some(new_end), Some(old_end)) = (page_up(wanted), page_up(current)) else { return Ok(current) };
        if wanted < start || wanted - start > data_limit || new_end > self.limits.highest {
            return Ok(current);
        }
        if new_end < old_end {
            self.remove(&mut state, executor, new_end, old_end)?;
        } else if new_end > old_end {
            if state.areas.range(..new_end).next_back().is_some_and(|(_, area)| area.end > old_end) {
                return Ok(current);
            }
            let area = Area {
                end: new_end,
                protection: raw::PROT_READ | raw::PROT_WRITE,
                shared: false,
                may_write: true,
                grows_down: false,
                content: Content::Anonymous,
                file: None,
                name: Some("[heap]".to_owned()),
                keep_from_fork: false,
                wipe_on_fork: false,
                locked: state.lock_future,
                sealed: false,
            };
            state.mapped += new_end - old_end;
            self.enter(&mut state, executor, old_end, area, false)?;
        }
        state.layout.brk.1 = wanted;
        Ok(wanted)
    }

    /// `MADV_DONTNEED`, `MADV_REMOVE`: drops pages, so that the next touch finds them fresh (zeroes, or the file's).
    pub fn discard(&self, executor: &mut dyn Executor, start: u64, length: u64, from_file: bool) -> Result<(), Errno> {
        let end = self.check_range(start, length)?;
        let mut state = self.state.write();
        let mut at = start;
        let mut holes = Vec::new();
        while at < end {
            let Some((area_start, area)) = state.area_at(at) else { break };
            let (area, to) = (area.clone(), area.end.min(end));
            match &area.content {
                _ if from_file && area.locked => return Err(Errno::EINVAL),
                Content::Object(object, offset) if from_file => {
                    if !area.shared || !area.may_write {
                        return Err(Errno::EACCES);
                    }
                    holes.push((Arc::clone(object), offset + (at - area_start), offset + (to - area_start)));
                }
                Content::Anonymous | Content::Platform if from_file => return Err(Errno::EINVAL),
                Content::Object(..) if area.shared => {}
                _ if area.locked => return Err(Errno::EINVAL),
                _ if area.sealed && area.protection & raw::PROT_WRITE == 0 => return Err(Errno::EPERM),
                _ => {
                    executor.unmap(at, to - at).map_err(gone)?;
                    state.extents.remove(at, to, |range| self.memory.release(range));
                    self.reprotect_hole(&mut state, executor, &area, area_start, at, to)?;
                }
            }
            at = to;
        }
        let covered = at >= end && covered_until(&state, start, end) >= end;
        drop(state);
        // Without the lock: whoever maps the object, this address space among them, lets go of the pages.
        holes.into_iter().for_each(|(object, from, to)| object.punch(from, to));
        if covered { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Makes the pages of a range exist (`MADV_POPULATE_*`, `mlock(2)`); `ENOMEM` where nothing is mapped.
    pub fn touch(&self, executor: &mut dyn Executor, start: u64, length: u64) -> Result<(), Errno> {
        let end = self.check_range(start, length)?;
        let mut state = self.state.write();
        if covered_until(&state, start, end) < end {
            return Err(Errno::ENOMEM);
        }
        self.populate(&mut state, executor, start, end)
    }

    /// Where the growing area that holds an address starts; `EINVAL` if it does not grow, `ENOMEM` if there is none.
    pub fn growing_start(&self, address: u64) -> Result<u64, Errno> {
        match self.state.read().area_at(address) {
            Some((start, area)) if area.grows_down => Ok(start),
            Some(_) => Err(Errno::EINVAL),
            None => Err(Errno::ENOMEM),
        }
    }

    /// Fails with `errno` unless all areas in a range are fit for something; gaps are not looked at.
    pub fn check_areas(&self, start: u64, length: u64, errno: Errno, fit: impl Fn(&Area) -> bool) -> Result<(), Errno> {
        let end = self.check_range(start, length)?;
        let state = self.state.read();
        let first = state.area_at(start).map_or(start, |(at, _)| at);
        if state.areas.range(first..end.max(first)).all(|(_, area)| fit(area)) { Ok(()) } else { Err(errno) }
    }

    /// Changes flags of the areas of a range; `ENOMEM` where nothing is mapped.
    pub fn change_areas(&self, start: u64, length: u64, change: impl Fn(&mut Area)) -> Result<(), Errno> {
        let end = self.check_range(start, length)?;
        let mut state = self.state.write();
        let covered = covered_until(&state, start, end);
        split(&mut state, start);
        split(&mut state, covered);
        state.areas.range_mut(start..covered).for_each(|(_, area)| change(area));
        join(&mut state, start, covered);
        if covered < end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Changes every area (`mlockall(2)`).
    pub fn change_all_areas(&self, lock_future: bool, change: impl Fn(&mut Area)) {
        let mut state = self.state.write();
        state.lock_future = lock_future;
        state.areas.values_mut().for_each(change);
    }

    /// The end of a page-aligned range that guests may map.
    fn check_range(&self, start: u64, length: u64) -> Result<u64, Errno> {
        let end = page_up(length).and_then(|length| start.checked_add(length)).ok_or(Errno::EINVAL)?;
        if !start.is_multiple_of(PAGE_SIZE) || end > self.limits.highest { Err(Errno::EINVAL) } else { Ok(end) }
    }
}

/// `EPERM` if something in a range is sealed.
fn check_sealed(state: &State, start: u64, end: u64) -> Result<(), Errno> {
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
fn split(state: &mut State, at: u64) {
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
fn join(state: &mut State, start: u64, end: u64) {
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
