//! Growing, shrinking and moving areas, `mremap(2)` and `brk(2)`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, PAGE_SIZE, page_up, raw};
use cloudpilot_platform::{Backing, Executor};

use super::area::{Area, Content};
use super::map::{Placement, check_sealed, gone};
use super::{Mm, State};

impl Mm {
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

    /// `remap_file_pages(2)`: shows another part of the same file in a range of a shared mapping.
    ///
    /// # Errors
    ///
    /// `EINVAL` unless all of the range shows one file alike.
    pub fn show_elsewhere(&self, executor: &mut dyn Executor, start: u64, length: u64, offset: u64) -> Result<(), Errno> {
        let end = start.checked_add(length).ok_or(Errno::EINVAL)?;
        let mut state = self.state.write();
        check_sealed(&state, start, end)?;
        let (_, area) = state.area_at(start).filter(|(_, area)| area.shared).ok_or(Errno::EINVAL)?;
        let mut moved = area.clone();
        let mut at = area.end;
        while at < end {
            let (_, next) = state.area_at(at).ok_or(Errno::EINVAL)?;
            let same = match (&moved.content, &next.content) {
                (Content::Object(one, _), Content::Object(other, _)) => Arc::ptr_eq(one, other),
                (Content::Host(one, _), Content::Host(other, _)) => Arc::ptr_eq(one, other),
                _ => false,
            };
            if !same || !next.shared || next.protection != moved.protection {
                return Err(Errno::EINVAL);
            }
            at = next.end;
        }
        match &mut moved.content {
            Content::Object(_, from) | Content::Host(_, from) => *from = offset,
            Content::Anonymous | Content::Platform => return Err(Errno::EINVAL),
        }
        if let Some((_, from)) = &mut moved.file {
            *from = offset;
        }
        moved.end = end;
        self.remove(&mut state, executor, start, end)?;
        state.mapped += length;
        self.enter(&mut state, executor, start, moved, true)
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
                writer: None,
                name: Some("[heap]".to_owned()),
                keep_from_fork: false,
                wipe_on_fork: false,
                locked: state.lock_future,
                sealed: false,
                policy: None,
            };
            state.mapped += new_end - old_end;
            self.enter(&mut state, executor, old_end, area, false)?;
        }
        state.layout.brk.1 = wanted;
        Ok(wanted)
    }
}
