//! Changing what may be done with pages, `mprotect(2)`.

use cloudpilot_abi::{Errno, PAGE_SIZE, page_up, raw};
use cloudpilot_platform::{Backing, Executor};

use super::area::{Area, Content};
use super::fault::{ANONYMOUS_CHUNK, host_backing};
use super::map::{check_sealed, covered_until, gone, join, split};
use super::{Mm, State};

impl Mm {
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
    pub(super) fn reprotect(&self, state: &mut State, executor: &mut dyn Executor, start: u64, area: &Area) -> Result<(), Errno> {
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
    pub(super) fn reprotect_hole(
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
}
