//! What becomes of pages and areas otherwise, `madvise(2)` and `mlock(2)`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, PAGE_SIZE, page_up, raw};
use cloudpilot_platform::Executor;

use super::Mm;
use super::area::{Area, Content};
use super::map::{covered_until, gone, join, split};

impl Mm {
    /// `MADV_DONTNEED`, `MADV_REMOVE`: drops pages, so that the next touch finds them fresh (zeroes, or the file's).
    pub fn discard(&self, executor: &mut dyn Executor, start: u64, length: u64, from_file: bool) -> Result<(), Errno> {
        let end = self.check_advised(start, length)?;
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

    /// The areas of a range, and whether they cover all of it.
    pub fn areas_between(&self, start: u64, length: u64) -> Result<(Vec<Area>, bool), Errno> {
        let end = self.check_advised(start, length)?;
        let state = self.state.read();
        let first = state.area_at(start).map_or(start, |(at, _)| at);
        let areas = state.areas.range(first..end.max(first)).map(|(_, area)| area.clone()).collect();
        Ok((areas, covered_until(&state, start, end) >= end))
    }

    /// The end of a page-aligned range that is only spoken of: what lies above all that can be mapped is a gap, `ENOMEM`.
    fn check_advised(&self, start: u64, length: u64) -> Result<u64, Errno> {
        self.check_range(start, length).map_err(|errno| {
            let end = page_up(length).and_then(|length| start.checked_add(length));
            if start.is_multiple_of(PAGE_SIZE) && end.is_some() { Errno::ENOMEM } else { errno }
        })
    }

    /// Makes the pages of a range exist (`MADV_POPULATE_*`, `mlock(2)`); `ENOMEM` where nothing is mapped.
    pub fn touch(&self, executor: &mut dyn Executor, start: u64, length: u64) -> Result<(), Errno> {
        let end = self.check_advised(start, length)?;
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
        let end = self.check_advised(start, length)?;
        let state = self.state.read();
        let first = state.area_at(start).map_or(start, |(at, _)| at);
        if state.areas.range(first..end.max(first)).all(|(_, area)| fit(area)) { Ok(()) } else { Err(errno) }
    }

    /// Changes flags of the areas of a range; `ENOMEM` where nothing is mapped.
    pub fn change_areas(&self, start: u64, length: u64, change: impl Fn(&mut Area)) -> Result<(), Errno> {
        let end = self.check_advised(start, length)?;
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
}
