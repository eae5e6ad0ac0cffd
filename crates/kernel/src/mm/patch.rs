//! Patching system-call sites: code that makes a call often gets a jump to the platform's fast path in place of `mov eax, number; syscall`.
//!
//! A patch replaces a whole page of code by a changed copy, so that threads that run through the site see the old bytes or the new ones, never a
//! mixture. A thread that stood right before the `syscall` finds an instruction there that no processor knows; the kernel serves its call from that
//! stop ([`Mm::is_patched_call`]). Programs that read their own code see the patch; that is the price.

use std::collections::HashMap;

use cloudpilot_abi::{Errno, PAGE_SIZE, page_down, raw};
use cloudpilot_platform::{Executor, PATCH_LENGTH, Trampoline};

use super::area::{Area, Content};
use super::extents::Extent;
use super::{Mm, State};

/// Stops from one site before it is patched: a patch costs a page and about as much time as this many stops.
const WORTH_PATCHING: u8 = 24;
/// Sites that are counted: more are not worth the memory.
const MOST_COUNTED: usize = 4096;
/// Bytes of one trampoline: the address of its code, then the code.
const TRAMPOLINE_SIZE: u64 = 48;

/// Patched sites of an address space; part of what fork copies.
#[derive(Clone, Default)]
pub(super) struct Sites {
    counts: HashMap<u64, u8>,
    /// Addresses of patched sites with the bytes that stood there.
    patched: Vec<(u64, [u8; PATCH_LENGTH as usize])>,
    /// Where the next trampoline goes; 0 before the first.
    next: u64,
    /// No patches any more: the program uses what they need, or there is no room.
    off: bool,
}

impl Sites {
    /// Code at these addresses is gone.
    pub(super) fn forget(&mut self, start: u64, end: u64) {
        self.counts.retain(|site, _| !(start..end).contains(site));
        self.patched.retain(|(site, _)| !(start..end).contains(site));
    }
}

impl Mm {
    /// Notes a stop by a `syscall` instruction that ends at `end`; patches the site if that pays.
    pub fn note_call_site(&self, executor: &mut dyn Executor, end: u64, number: u32, trampoline: Trampoline) {
        let mut state = self.state.write();
        let site = end.wrapping_sub(PATCH_LENGTH);
        if state.sites.off || !count(&mut state.sites, site) {
            return;
        }
        // What cannot be patched is served as before, and not tried again for a while.
        let _ = self.patch_site(&mut state, executor, site, number, trampoline);
    }

    /// Whether `address` is where a patch overwrote a `syscall` instruction; answers where the call goes on.
    pub fn is_patched_call(&self, address: u64) -> Option<u64> {
        let site = address.wrapping_sub(PATCH_LENGTH - 2);
        let state = self.state.read();
        state.sites.patched.iter().any(|(patched, _)| *patched == site).then(|| site + PATCH_LENGTH)
    }

    /// Takes all patches back and makes no more: the program wants the segment register that the fast path needs.
    pub fn end_patching(&self, executor: &mut dyn Executor) {
        let mut state = self.state.write();
        state.sites.off = true;
        for (site, original) in std::mem::take(&mut state.sites.patched) {
            let _ = self.replace_code(&mut state, executor, site, &original);
        }
    }

    /// Takes patches within a range back: the code is about to move, and its trampolines lead to where it was.
    pub(super) fn restore_code(&self, state: &mut State, executor: &mut dyn Executor, start: u64, end: u64) {
        let inside: Vec<_> = state.sites.patched.iter().filter(|(site, _)| (start..end).contains(site)).copied().collect();
        for (site, original) in inside {
            let _ = self.replace_code(state, executor, site, &original);
        }
        state.sites.forget(start, end);
    }

    fn patch_site(
        &self,
        state: &mut State,
        executor: &mut dyn Executor,
        site: u64,
        number: u32,
        trampoline: Trampoline,
    ) -> Result<(), Errno> {
        let mut original = [0; PATCH_LENGTH as usize];
        self.read_code(state, site, &mut original)?;
        if original != call_site(number) || page_down(site) != page_down(site + PATCH_LENGTH - 1) {
            return Err(Errno::EINVAL);
        }
        let place = self.reserve_trampoline(state, trampoline)?;
        self.replace_code(state, executor, place, &code(place, number, site + PATCH_LENGTH, trampoline.entry))?;
        self.replace_code(state, executor, site, &jump(place))?;
        state.sites.next = place + TRAMPOLINE_SIZE;
        state.sites.patched.push((site, original));
        Ok(())
    }

    /// Room for one more trampoline within one page; the range is mapped with the first.
    fn reserve_trampoline(&self, state: &mut State, trampoline: Trampoline) -> Result<u64, Errno> {
        if state.sites.next == 0 {
            // Guests cannot map anything there themselves.
            let area = Area {
                end: trampoline.end,
                protection: raw::PROT_READ | raw::PROT_EXEC,
                shared: false,
                may_write: false,
                grows_down: false,
                content: Content::Anonymous,
                file: None,
                name: Some("[syscalls]".to_owned()),
                keep_from_fork: false,
                wipe_on_fork: false,
                locked: false,
            };
            state.areas.insert(trampoline.start, area);
            state.mapped += trampoline.end - trampoline.start;
            state.sites.next = trampoline.start;
        }
        let mut place = state.sites.next;
        if page_down(place) != page_down(place + TRAMPOLINE_SIZE - 1) {
            place = page_down(place) + PAGE_SIZE;
        }
        if place + TRAMPOLINE_SIZE > trampoline.end {
            state.sites.off = true;
            return Err(Errno::ENOSPC);
        }
        Ok(place)
    }

    fn read_code(&self, state: &State, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < buffer.len() {
            done += self.read_present(state, address + done as u64, &mut buffer[done..])?;
        }
        Ok(())
    }

    /// Puts a copy of a page of code with other bytes at `address` in the place of the page: threads see either.
    fn replace_code(&self, state: &mut State, executor: &mut dyn Executor, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let page = page_down(address);
        let (_, area) = state.area_at(page).ok_or(Errno::EFAULT)?;
        let wanted = raw::PROT_EXEC | raw::PROT_WRITE;
        if area.shared || area.protection & wanted != raw::PROT_EXEC || matches!(area.content, Content::Platform) {
            return Err(Errno::EACCES);
        }
        let protection = area.protection;
        let mut copy = vec![0; PAGE_SIZE as usize];
        // Behind the end of a file there are zeroes.
        let _ = self.read_code(state, page, &mut copy);
        let offset = (address - page) as usize;
        copy[offset..offset + bytes.len()].copy_from_slice(bytes);
        let range = self.memory.allocate(PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
        self.memory.write(range.start, &copy);
        let memory = std::sync::Arc::clone(&self.memory);
        state.extents.remove(page, page + PAGE_SIZE, |old| memory.release(old));
        state.extents.insert(page, Extent { end: page + PAGE_SIZE, offset: range.start, copy_on_write: false });
        executor.map(page, PAGE_SIZE, protection, cloudpilot_platform::Backing::Memory(range.start)).map_err(|_| Errno::ESRCH)
    }
}

/// Counts a stop; whether the site is worth a patch now.
fn count(sites: &mut Sites, site: u64) -> bool {
    if sites.counts.len() >= MOST_COUNTED && !sites.counts.contains_key(&site) {
        return false;
    }
    let count = sites.counts.entry(site).or_default();
    *count = count.wrapping_add(1);
    *count == WORTH_PATCHING
}

/// `mov eax, number; syscall`.
fn call_site(number: u32) -> [u8; PATCH_LENGTH as usize] {
    let [a, b, c, d] = number.to_le_bytes();
    [0xb8, a, b, c, d, 0x0f, 0x05]
}

/// `jmp [place]`, by absolute address. The last two bytes lie where `syscall` was.
fn jump(place: u64) -> [u8; PATCH_LENGTH as usize] {
    let [a, b, c, d] = (place as u32).to_le_bytes();
    [0xff, 0x24, 0x25, a, b, c, d]
}

/// A trampoline: the address of the code behind it, then `mov eax, number; mov rcx, next; mov r11, entry; jmp r11`.
fn code(place: u64, number: u32, next: u64, entry: u64) -> Vec<u8> {
    let mut code = (place + 8).to_le_bytes().to_vec();
    code.push(0xb8);
    code.extend(number.to_le_bytes());
    code.extend([0x48, 0xb9]);
    code.extend(next.to_le_bytes());
    code.extend([0x49, 0xbb]);
    code.extend(entry.to_le_bytes());
    code.extend([0x41, 0xff, 0xe3]);
    debug_assert!(code.len() as u64 <= TRAMPOLINE_SIZE);
    code
}
