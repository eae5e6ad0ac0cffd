//! What follows when an object that is mapped loses pages: `ftruncate(2)`, holes.
//!
//! Its pages are taken out of the address space at once. The stub's own mappings go when one of its threads is about to run on; until then the
//! pages are kept, so that nobody else gets them while a thread may still reach them.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use cloudpilot_memory::{Mapper, Object};

use super::area::Content;
use super::{Mm, State};
use crate::Kernel;

/// Whether some address space has lost pages that its threads may still run with.
static STALE: AtomicBool = AtomicBool::new(false);

impl Mm {
    /// Tells an object that its pages may be mapped here.
    pub(super) fn note_object(&self, object: &Object) {
        let this: Weak<dyn Mapper> = self.this.clone();
        object.add_mapper(&this);
    }

    /// Tells all mapped objects.
    pub(super) fn note_objects(&self) {
        let state = self.state.read();
        for area in state.areas.values() {
            if let Content::Object(object, _) = &area.content {
                self.note_object(object);
            }
        }
    }

    /// Whether threads that run in it must stop for a moment.
    fn is_stale(&self) -> bool {
        self.stale.load(Ordering::SeqCst)
    }
}

impl State {
    /// Addresses of areas that show a part of an object; of shared ones only, or of all.
    fn showing(&self, object: &Object, start: u64, end: u64, all: bool) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        for (at, area) in &self.areas {
            let Content::Object(shown, offset) = &area.content else { continue };
            if !std::ptr::eq(&**shown, object) || !(all || area.shared) {
                continue;
            }
            let (from, to) = (start.max(*offset), end.min(offset + (area.end - at)));
            if from < to {
                found.push((at + (from - offset), at + (to - offset)));
            }
        }
        found
    }
}

impl Mapper for Mm {
    fn pages_gone(&self, object: &Object, start: u64, end: u64, truncated: bool) {
        let mut state = self.state.write();
        let state = &mut *state;
        let mut lost = false;
        for (from, to) in state.showing(object, start, end, truncated) {
            let before = state.doomed.len();
            let doomed = &mut state.doomed;
            state.extents.remove(from, to, |range| doomed.push(range));
            if state.doomed.len() > before {
                state.gone.push((from, to - from));
                lost = true;
            }
        }
        if lost {
            self.stale.store(true, Ordering::SeqCst);
            STALE.store(true, Ordering::SeqCst);
        }
    }
}

impl Kernel {
    /// Stops threads for a moment that run with pages that are gone. Called after what may have taken pages.
    pub fn settle_mappings(&self) {
        if !STALE.swap(false, Ordering::SeqCst) {
            return;
        }
        for task in self.tasks.tasks() {
            let mm = task.mm.lock().clone();
            if mm.is_some_and(|mm| mm.is_stale()) {
                task.kick();
            }
        }
    }
}
