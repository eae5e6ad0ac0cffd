//! Access to an address space by tasks that do not live in it: `process_vm_readv(2)`, `/proc/<pid>/mem`, `ptrace(2)`.
//!
//! Only a thread of the address space can change its mappings. A write that replaces pages therefore leaves a note, and the threads renew
//! those mappings before they run on; the caller interrupts them.

use std::sync::atomic::Ordering;

use cloudpilot_abi::Errno;
use cloudpilot_platform::{Access, Backing, Executor, Gone, Protection};

use super::Mm;

/// Collects what the address space's own threads must renew.
#[derive(Default)]
struct Notes(Vec<(u64, u64)>);

impl Executor for Notes {
    fn map(&mut self, address: u64, length: u64, _protection: Protection, _backing: Backing) -> Result<(), Gone> {
        self.0.push((address, length));
        Ok(())
    }

    fn unmap(&mut self, address: u64, length: u64) -> Result<(), Gone> {
        self.0.push((address, length));
        Ok(())
    }

    fn protect(&mut self, address: u64, length: u64, _protection: Protection) -> Result<(), Gone> {
        self.0.push((address, length));
        Ok(())
    }
}

impl Mm {
    /// Copies bytes out of this address space for another task; answers how many came before the first unreadable one.
    pub fn read_foreign(&self, address: u64, buffer: &mut [u8]) -> usize {
        let mut notes = Notes::default();
        let mut done = 0;
        while done < buffer.len() {
            // Page by page, so that what can be read before a hole is read.
            let at = address.saturating_add(done as u64);
            let step = (4096 - at % 4096).min((buffer.len() - done) as u64) as usize;
            if self.read(&mut notes, at, &mut buffer[done..done + step]).is_err() {
                break;
            }
            done += step;
        }
        self.note(notes);
        done
    }

    /// Copies bytes into this address space for another task; `force` writes to private pages that the owner itself may not write, as a debugger
    /// does. Answers how many went before the first unwritable one; `EIO` if none did.
    pub fn write_foreign(&self, address: u64, bytes: &[u8], force: bool) -> Result<usize, Errno> {
        let mut notes = Notes::default();
        let mut done = 0;
        while done < bytes.len() {
            let at = address.saturating_add(done as u64);
            let step = (4096 - at % 4096).min((bytes.len() - done) as u64) as usize;
            let part = &bytes[done..done + step];
            let written = self.write(&mut notes, at, part).is_ok() || force && self.write_forced(&mut notes, at, part).is_ok();
            if !written {
                break;
            }
            done += step;
        }
        self.note(notes);
        if done == 0 && !bytes.is_empty() { Err(Errno::EIO) } else { Ok(done) }
    }

    /// Writes within one page whose area forbids it, by lifting the ban for the moment.
    fn write_forced(&self, notes: &mut Notes, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut state = self.state.write();
        let (start, area) = state.area_at(address).ok_or(Errno::EFAULT)?;
        if area.shared {
            return Err(Errno::EFAULT);
        }
        let protection = area.protection;
        let set = |state: &mut super::State, value| {
            if let Some(area) = state.areas.get_mut(&start) {
                area.protection = value;
            }
        };
        set(&mut state, protection | cloudpilot_abi::raw::PROT_WRITE);
        let result = self.fault_in(&mut state, notes, address, Access::Write).map_err(Errno::from);
        set(&mut state, protection);
        result?;
        let (extent_start, extent) = state.extents.find(address).ok_or(Errno::EFAULT)?;
        self.memory.write(extent.offset + (address - extent_start), bytes);
        Ok(())
    }

    fn note(&self, notes: Notes) {
        if !notes.0.is_empty() {
            self.state.write().pending.extend(notes.0);
            self.stale.store(true, Ordering::SeqCst);
        }
    }

    /// Renews mappings that other tasks made stale. Called by a thread of this address space before it runs on.
    pub fn renew(&self, executor: &mut dyn Executor) {
        if !self.stale.swap(false, Ordering::SeqCst) {
            return;
        }
        let mut state = self.state.write();
        for (start, length) in std::mem::take(&mut state.gone) {
            if executor.unmap(start, length).is_err() {
                return;
            }
            state.pending.push((start, length));
        }
        for range in std::mem::take(&mut state.doomed) {
            self.memory.release(range);
        }
        for (start, length) in std::mem::take(&mut state.pending) {
            for (from, extent) in state.extents.within(start, start + length) {
                let Some((_, area)) = state.area_at(from) else { continue };
                let protection = if extent.copy_on_write { area.read_only() } else { area.protection };
                let end = extent.end.min(area.end);
                if executor.map(from, end - from, protection, Backing::Memory(extent.offset)).is_err() {
                    return;
                }
            }
        }
    }
}
