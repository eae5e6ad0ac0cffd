//! Patching system-call sites: code that makes a call often gets a jump to the platform's fast path in its place.
//!
//! A patch replaces a whole page of code by a changed copy, so that threads that run through the site see the old bytes or the new ones, never a
//! mixture. A thread that stood within the site, before the `syscall` or about to return from it, comes upon an instruction there that no processor
//! knows; the kernel takes it from that stop to where it belongs ([`Mm::within_patch`]). Programs that read their own code see the patch; that is
//! the price.

use std::collections::HashMap;

use cloudpilot_abi::{Errno, PAGE_SIZE, page_down, raw};
use cloudpilot_platform::{Executor, PATCH_LENGTH, Trampoline};

use super::area::{Area, Content};
use super::extents::Extent;
use super::{Mm, State};

/// Stops from one site before it is patched: a patch costs a page and about as much time as this many stops save.
const WORTH_PATCHING: u8 = 8;
/// Sites that are counted: more are not worth the memory.
const MOST_COUNTED: usize = 4096;
/// Bytes of one trampoline: the address of its code, then the code.
const TRAMPOLINE_SIZE: u64 = 64;
/// Longest site.
const LONGEST_SITE: usize = 10;
/// `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// `mov r9, [rsp+8]`, which stands before the `syscall` of the C library's `syscall(3)`.
const LAST_ARGUMENT: [u8; 5] = [0x4c, 0x8b, 0x4c, 0x24, 0x08];
/// `xor eax, eax; syscall; cmp rax, -4096`: the C library's `read(2)`.
const ZERO_SITE: [u8; LONGEST_SITE] = [0x31, 0xc0, 0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff];
/// First bytes that are no instruction of a 64-bit program. Where the second byte of a trampoline's address is one of them, a thread that returns
/// into the middle of [`ZERO_SITE`] stops there.
const UNKNOWN_OPCODES: [u8; 19] =
    [0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x82, 0x9a, 0xce, 0xd4, 0xd6, 0xea];

/// What a site looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Five bytes that are as good in a trampoline, then `syscall`.
    Plain,
    /// [`ZERO_SITE`].
    Zero,
}

impl Shape {
    fn length(self) -> u64 {
        match self {
            Self::Plain => PATCH_LENGTH,
            Self::Zero => LONGEST_SITE as u64,
        }
    }

    /// Where the `syscall` instruction ends in it.
    fn call_end(self) -> u64 {
        match self {
            Self::Plain => PATCH_LENGTH,
            Self::Zero => 4,
        }
    }
}

/// A patched site.
#[derive(Clone, Copy)]
struct Patch {
    site: u64,
    shape: Shape,
    original: [u8; LONGEST_SITE],
    trampoline: u64,
}

/// Where a thread stood when the code around it was patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// Before the `syscall`: it makes its call, and goes on there.
    Call(u64),
    /// Behind it: it goes on there.
    Return(u64),
}

/// Patched sites of an address space; part of what fork copies.
#[derive(Clone, Default)]
pub(super) struct Sites {
    counts: HashMap<u64, u8>,
    patched: Vec<Patch>,
    /// Trampolines taken of each kind; the range is mapped with the first.
    taken: [u64; 2],
    /// No patches any more: the program uses what they need, or there is no room.
    off: bool,
}

impl Sites {
    /// Code at these addresses is gone.
    pub(super) fn forget(&mut self, start: u64, end: u64) {
        self.counts.retain(|call, _| !(start..end).contains(call));
        self.patched.retain(|patch| !(start..end).contains(&patch.site));
    }
}

impl Mm {
    /// Notes a stop by a `syscall` instruction that ends at `end`; patches the site if that pays.
    pub fn note_call_site(&self, executor: &mut dyn Executor, end: u64, number: u32, trampoline: Trampoline) {
        let mut state = self.state.write();
        if state.sites.off || !count(&mut state.sites, end) {
            return;
        }
        // What cannot be patched is served as before, and not tried again for a while.
        let _ = self.patch_site(&mut state, executor, end, number, trampoline);
    }

    /// Whether `address` is a place that a patch overwrote.
    pub fn within_patch(&self, address: u64) -> Option<Within> {
        let state = self.state.read();
        let patch = state.sites.patched.iter().find(|patch| (patch.site..patch.site + patch.shape.length()).contains(&address))?;
        match (patch.shape, address - patch.site) {
            (Shape::Plain, 5) => Some(Within::Call(patch.site + PATCH_LENGTH)),
            // `and eax, …` before the unknown instruction leaves the zero that is there.
            (Shape::Zero, 7) => Some(Within::Call(patch.trampoline + tail_offset())),
            (Shape::Zero, 4) => Some(Within::Return(patch.trampoline + tail_offset())),
            _ => None,
        }
    }

    /// Takes all patches back and makes no more: the program wants the segment register that the fast path needs.
    pub fn end_patching(&self, executor: &mut dyn Executor) {
        let mut state = self.state.write();
        state.sites.off = true;
        self.restore_code(&mut state, executor, 0, u64::MAX);
    }

    /// Takes patches within a range back: the code is about to move, and its trampolines lead to where it was.
    pub(super) fn restore_code(&self, state: &mut State, executor: &mut dyn Executor, start: u64, end: u64) {
        let inside: Vec<Patch> = state.sites.patched.iter().filter(|patch| (start..end).contains(&patch.site)).copied().collect();
        for patch in inside {
            let _ = self.replace_code(state, executor, patch.site, &patch.original[..patch.shape.length() as usize]);
        }
        state.sites.forget(start, end);
    }

    fn patch_site(
        &self,
        state: &mut State,
        executor: &mut dyn Executor,
        end: u64,
        number: u32,
        trampoline: Trampoline,
    ) -> Result<(), Errno> {
        let shape = self.shape(state, end, number).ok_or(Errno::EINVAL)?;
        let site = end - shape.call_end();
        let mut original = [0; LONGEST_SITE];
        self.read_code(state, site, &mut original[..shape.length() as usize])?;
        if page_down(site) != page_down(site + shape.length() - 1) {
            return Err(Errno::EINVAL);
        }
        let place = self.reserve_trampoline(state, shape, trampoline)?;
        self.replace_code(state, executor, place, &code(place, shape, &original, site, trampoline.entry))?;
        self.replace_code(state, executor, site, &jump(place))?;
        state.sites.taken[shape as usize] += 1;
        state.sites.patched.push(Patch { site, shape, original, trampoline: place });
        Ok(())
    }

    /// What the code around a `syscall` that ends at `end` looks like; none if it cannot be patched.
    fn shape(&self, state: &State, end: u64, number: u32) -> Option<Shape> {
        let mut before = [0; PATCH_LENGTH as usize];
        self.read_code(state, end.checked_sub(PATCH_LENGTH)?, &mut before).ok()?;
        if before[5..] != SYSCALL {
            return None;
        }
        let [a, b, c, d] = number.to_le_bytes();
        if before[..5] == [0xb8, a, b, c, d] || before[..5] == LAST_ARGUMENT {
            return Some(Shape::Plain);
        }
        let mut around = [0; LONGEST_SITE];
        self.read_code(state, end - Shape::Zero.call_end(), &mut around).ok()?;
        (around == ZERO_SITE).then_some(Shape::Zero)
    }

    /// Room for one more trampoline; the range is mapped with the first.
    fn reserve_trampoline(&self, state: &mut State, shape: Shape, trampoline: Trampoline) -> Result<u64, Errno> {
        if state.sites.taken == [0, 0] && state.area_at(trampoline.start).is_none() {
            // Guests cannot map anything there themselves.
            let area = Area {
                end: trampoline.end,
                protection: raw::PROT_READ | raw::PROT_EXEC,
                shared: false,
                may_write: false,
                grows_down: false,
                content: Content::Anonymous,
                file: None,
                writer: None,
                name: Some("[syscalls]".to_owned()),
                keep_from_fork: false,
                wipe_on_fork: false,
                locked: false,
                sealed: false,
                policy: None,
            };
            state.areas.insert(trampoline.start, area);
            state.mapped += trampoline.end - trampoline.start;
        }
        let taken = state.sites.taken[shape as usize];
        let lines = (0..=u8::MAX).filter(|line| UNKNOWN_OPCODES.contains(line) == (shape == Shape::Zero));
        let mut places =
            lines.flat_map(|line| (0..256 / TRAMPOLINE_SIZE).map(move |index| (u64::from(line) << 8) | (index * TRAMPOLINE_SIZE)));
        places.nth(taken as usize).map(|place| trampoline.start + place).ok_or(Errno::ENOSPC)
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
        let range = self.memory.allocate_to_fill(PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
        self.memory.write(range.start, &copy);
        let mut replaced = Vec::new();
        state.extents.remove(page, page + PAGE_SIZE, |old| replaced.push(old));
        state.extents.insert(page, Extent { end: page + PAGE_SIZE, offset: range.start, copy_on_write: false });
        let mapped = executor.map(page, PAGE_SIZE, protection, cloudpilot_platform::Backing::Memory(range.start));
        // Only now: other threads ran through the old page until this moment.
        replaced.into_iter().for_each(|old| self.memory.release(old));
        mapped.map_err(|_| Errno::ESRCH)
    }
}

/// Counts a stop; whether the site is worth a patch now.
fn count(sites: &mut Sites, call: u64) -> bool {
    if sites.counts.len() >= MOST_COUNTED && !sites.counts.contains_key(&call) {
        return false;
    }
    let count = sites.counts.entry(call).or_default();
    *count = count.wrapping_add(1);
    *count == WORTH_PATCHING
}

/// `jmp [place]`, by absolute address. The last two bytes lie where a plain site had its `syscall`.
fn jump(place: u64) -> [u8; PATCH_LENGTH as usize] {
    let [a, b, c, d] = (place as u32).to_le_bytes();
    [0xff, 0x24, 0x25, a, b, c, d]
}

/// Where in a trampoline the instructions stand that followed the call in [`ZERO_SITE`].
fn tail_offset() -> u64 {
    8 + 2 + 10 + 10 + 3 + 2
}

/// A trampoline: the address of the code behind it; then what stood before the call, `mov rcx, next; mov r11, entry; jmp r11`; and for
/// [`Shape::Zero`] a `syscall` for calls that are restarted, what stood behind the call, and a jump back.
fn code(place: u64, shape: Shape, original: &[u8; LONGEST_SITE], site: u64, entry: u64) -> Vec<u8> {
    let (before, next) = match shape {
        Shape::Plain => (&original[..5], site + PATCH_LENGTH),
        Shape::Zero => (&original[..2], place + tail_offset()),
    };
    let mut code = (place + 8).to_le_bytes().to_vec();
    code.extend(before);
    code.extend([0x48, 0xb9]);
    code.extend(next.to_le_bytes());
    code.extend([0x49, 0xbb]);
    code.extend(entry.to_le_bytes());
    code.extend([0x41, 0xff, 0xe3]);
    if shape == Shape::Zero {
        // A call that a signal interrupted is restarted two bytes before where it would have returned.
        code.extend(SYSCALL);
        debug_assert_eq!(code.len() as u64, tail_offset());
        code.extend(&original[4..]);
        code.extend([0xff, 0x25, 0, 0, 0, 0]);
        code.extend((site + shape.length()).to_le_bytes());
    }
    debug_assert!(code.len() as u64 <= TRAMPOLINE_SIZE);
    code
}
