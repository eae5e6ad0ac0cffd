//! Copying an address space, `fork(2)`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::{Errno, raw};
use cloudpilot_memory::Range;
use cloudpilot_platform::{GuestThread, SpawnError};

use super::area::Content;
use super::{Mm, State};

impl Mm {
    /// Makes a copy with a guest thread in it. Private pages become shared until written, by either side.
    pub fn fork(&self, thread: &mut dyn GuestThread) -> Result<(Arc<Self>, Box<dyn GuestThread>), Errno> {
        // The child's stub starts with the mappings of this one: none may show what is gone.
        self.renew(thread);
        let mut state = self.state.write();
        self.protect_private(&mut state, thread)?;
        let mut child_thread = thread.fork().map_err(|error| match error {
            SpawnError::Gone => Errno::ESRCH,
            SpawnError::Refused(errno) => Errno(errno as u16),
        })?;
        let mut copy = State {
            areas: state.areas.clone(),
            extents: state.extents.clone(),
            layout: state.layout,
            auxiliary_vector: state.auxiliary_vector.clone(),
            mmap_top: state.mmap_top,
            hint: state.hint,
            mapped: state.mapped,
            sites: state.sites.clone(),
            pending: state.pending.clone(),
            gone: Vec::new(),
            doomed: Vec::new(),
            lock_future: false,
            program: state.program.clone(),
        };
        for (start, extent) in copy.extents.within(0, u64::MAX) {
            self.memory.retain(Range { start: extent.offset, end: extent.offset + (extent.end - start) });
        }
        let unlike: Vec<(u64, u64, bool)> = copy
            .areas
            .iter()
            .filter(|(_, area)| area.keep_from_fork || area.wipe_on_fork)
            .map(|(start, area)| (*start, area.end, area.keep_from_fork))
            .collect();
        for (start, end, remove) in unlike {
            child_thread.unmap(start, end - start).map_err(|_| Errno::EAGAIN)?;
            copy.extents.remove(start, end, |range| self.memory.release(range));
            if remove {
                copy.areas.remove(&start);
                copy.mapped -= end - start;
            }
        }
        copy.areas.values_mut().for_each(|area| area.locked = false);
        let copy = Self::from_state(&self.memory, self.limits, copy);
        copy.stale.store(self.stale.load(Ordering::SeqCst), Ordering::SeqCst);
        copy.note_objects();
        Ok((copy, child_thread))
    }

    /// Marks all private pages copy-on-write and takes the write permission from their mappings.
    fn protect_private(&self, state: &mut State, thread: &mut dyn GuestThread) -> Result<(), Errno> {
        let private: Vec<(u64, u64, u32)> = state
            .areas
            .iter()
            .filter(|(_, area)| !area.shared && !matches!(area.content, Content::Platform))
            .map(|(start, area)| (*start, area.end, area.protection))
            .collect();
        for (start, end, protection) in private {
            let mut run: Option<(u64, u64)> = None;
            for (from, extent) in state.extents.within(start, end) {
                if extent.copy_on_write {
                    continue;
                }
                match &mut run {
                    Some((_, run_end)) if *run_end == from => *run_end = extent.end,
                    _ => {
                        take_write(thread, run.replace((from, extent.end)), protection)?;
                    }
                }
            }
            take_write(thread, run, protection)?;
            state.extents.mark(start, end, true);
        }
        Ok(())
    }
}

fn take_write(thread: &mut dyn GuestThread, run: Option<(u64, u64)>, protection: u32) -> Result<(), Errno> {
    match run {
        Some((start, end)) if protection & raw::PROT_WRITE != 0 => {
            thread.protect(start, end - start, protection & !raw::PROT_WRITE).map_err(|_| Errno::ESRCH)
        }
        _ => Ok(()),
    }
}
