//! Our own copies from and to the guest, by way of the memory file's window.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use cloudpilot_abi::types::Iovec;
use cloudpilot_abi::{Errno, PAGE_SIZE};
use cloudpilot_platform::{Access, Executor};
use parking_lot::{RwLockReadGuard, RwLockWriteGuard};

use super::area::Content;
use super::{Mm, State};

/// Where readable guest bytes are.
enum Readable<'a> {
    /// In the window.
    Memory(*const u8),
    /// Nowhere yet: zeroes.
    Zero,
    /// In a host file, from this offset on.
    Host(&'a OwnedFd, u64),
}

/// Zeroes to read from where no page exists.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// What `futex(2)` identifies a word by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FutexKey {
    /// Address space and address.
    Private(u64, u64),
    /// Offset in the memory file: the same for everybody who maps the page.
    Shared(u64),
}

impl Mm {
    /// Finds up to `length` readable bytes at `address`.
    fn readable<'a>(&self, state: &'a State, address: u64, length: u64) -> Result<(Readable<'a>, u64), Errno> {
        let (start, area) = state.area_at(address).ok_or(Errno::EFAULT)?;
        if !area.allows(Access::Read) {
            return Err(Errno::EFAULT);
        }
        let end = area.end.min(address + length);
        if let Some((extent_start, extent)) = state.extents.find(address) {
            let place = self.memory.pointer(extent.offset + (address - extent_start)).as_ptr().cast_const();
            return Ok((Readable::Memory(place), extent.end.min(end) - address));
        }
        let hole = state.extents.next_start(address).map_or(end, |next| next.min(end)) - address;
        match &area.content {
            Content::Anonymous => Ok((Readable::Zero, hole.min(ZEROES.len() as u64))),
            Content::Host(file, offset) => Ok((Readable::Host(file, offset + (address - start)), hole)),
            // The vDSO is the host's, and programs have no reason to pass parts of it.
            Content::Object(..) | Content::Platform => Err(Errno::EAGAIN),
        }
    }

    /// Runs `work` on the state after `prepare` has found nothing to put right, which it says by `EAGAIN` and an address.
    fn with_pages<T>(
        &self,
        executor: &mut dyn Executor,
        access: Access,
        mut work: impl FnMut(&RwLockReadGuard<'_, State>) -> Result<T, (Errno, u64)>,
    ) -> Result<T, Errno> {
        let mut state = self.state.read();
        // Bounded: each round makes one more run of pages exist, but another thread may take them away again and again.
        for _ in 0..4096 {
            match work(&state) {
                Ok(value) => return Ok(value),
                Err((Errno::EAGAIN, address)) => {
                    drop(state);
                    let mut writer = self.state.write();
                    self.fault_in(&mut writer, executor, address, access).map_err(Errno::from)?;
                    state = RwLockWriteGuard::downgrade(writer);
                }
                Err((errno, _)) => return Err(errno),
            }
        }
        Err(Errno::EFAULT)
    }

    /// Copies the bytes that can be had at `address` without making pages; answers how many.
    pub(super) fn read_present(&self, state: &State, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let (place, length) = self.readable(state, address, buffer.len() as u64)?;
        copy_readable(&place, &mut buffer[..length as usize])?;
        Ok(length as usize)
    }

    /// Copies bytes out of the guest, all or `EFAULT`.
    pub fn read(&self, executor: &mut dyn Executor, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        address.checked_add(buffer.len() as u64).ok_or(Errno::EFAULT)?;
        let mut done = 0;
        self.with_pages(executor, Access::Read, |state| {
            while done < buffer.len() {
                let at = address + done as u64;
                let (place, length) = self.readable(state, at, (buffer.len() - done) as u64).map_err(|errno| (errno, at))?;
                let part = &mut buffer[done..done + length as usize];
                copy_readable(&place, part).map_err(|errno| (errno, at))?;
                done += length as usize;
            }
            Ok(())
        })
    }

    /// Finds up to `length` writable bytes at `address`; `EAGAIN` when a page must be made first.
    fn writable(&self, state: &State, address: u64, length: u64) -> Result<(*mut u8, u64), Errno> {
        let (_, area) = state.area_at(address).ok_or(Errno::EFAULT)?;
        if !area.allows(Access::Write) {
            return Err(Errno::EFAULT);
        }
        match state.extents.find(address) {
            Some((extent_start, extent)) if !extent.copy_on_write => {
                let place = self.memory.pointer(extent.offset + (address - extent_start)).as_ptr();
                Ok((place, extent.end.min(area.end).min(address + length) - address))
            }
            _ if matches!(area.content, Content::Host(..)) && area.shared => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::EAGAIN),
        }
    }

    /// Copies bytes into the guest, all or `EFAULT`.
    pub fn write(&self, executor: &mut dyn Executor, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        address.checked_add(bytes.len() as u64).ok_or(Errno::EFAULT)?;
        let mut done = 0;
        self.with_pages(executor, Access::Write, |state| {
            while done < bytes.len() {
                let at = address + done as u64;
                match self.writable(state, at, (bytes.len() - done) as u64) {
                    Ok((place, length)) => {
                        // SAFETY: `place` is `length` bytes of the window, which the read lock keeps this address space's; `bytes` is ours.
                        unsafe { std::ptr::copy_nonoverlapping(bytes[done..].as_ptr(), place, length as usize) };
                        done += length as usize;
                    }
                    Err(Errno::EOPNOTSUPP) => done += self.write_host(state, at, &bytes[done..]).map_err(|errno| (errno, at))?,
                    Err(errno) => return Err((errno, at)),
                }
            }
            Ok(())
        })
    }

    /// Writes to a shared mapping of a host file through the file, which the host keeps coherent with the stub's mapping.
    fn write_host(&self, state: &State, address: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let (start, area) = state.area_at(address).ok_or(Errno::EFAULT)?;
        let Content::Host(file, offset) = &area.content else { return Err(Errno::EFAULT) };
        let length = bytes.len().min((area.end - address) as usize);
        match crate::host::transfer::write_at(file, &bytes[..length], offset + (address - start)) {
            Ok(0) | Err(_) => Err(Errno::EFAULT),
            Ok(count) => Ok(count),
        }
    }

    /// A string up to its zero byte; `too_long` if there is none within `limit` bytes.
    pub fn read_string(&self, executor: &mut dyn Executor, address: u64, limit: usize, too_long: Errno) -> Result<Vec<u8>, Errno> {
        /// Read at a time: most strings end within it, and it never crosses a page, behind which there may be nothing.
        const STEP: u64 = 256;
        let mut string = Vec::new();
        let mut buffer = [0; STEP as usize];
        while string.len() < limit {
            let at = address.checked_add(string.len() as u64).ok_or(Errno::EFAULT)?;
            let step = STEP.min(PAGE_SIZE - at % PAGE_SIZE).min((limit - string.len()) as u64) as usize;
            self.read(executor, at, &mut buffer[..step])?;
            if let Some(end) = buffer[..step].iter().position(|&byte| byte == 0) {
                string.extend_from_slice(&buffer[..end]);
                return Ok(string);
            }
            string.extend_from_slice(&buffer[..step]);
        }
        Err(too_long)
    }

    /// Hands readable guest memory to `use_slices` in place; what lies behind an unreadable byte is left out.
    pub fn with_slices(
        &self,
        executor: &mut dyn Executor,
        pieces: &[Iovec],
        use_slices: impl FnOnce(&[IoSlice<'_>]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let mut use_slices = Some(use_slices);
        self.with_pages(executor, Access::Read, |state| {
            let (mut places, mut copies, mut refused) = (Vec::with_capacity(pieces.len()), Vec::new(), None);
            'pieces: for piece in pieces {
                let mut at = piece.iov_base;
                let end = at.checked_add(piece.iov_len).ok_or((Errno::EFAULT, at))?;
                while at < end {
                    match self.readable(state, at, end - at) {
                        Ok((place, length)) => {
                            let start = match place {
                                Readable::Memory(start) => start,
                                Readable::Zero => ZEROES.as_ptr(),
                                Readable::Host(..) => {
                                    let mut copy = vec![0; length as usize];
                                    copy_readable(&place, &mut copy).map_err(|errno| (errno, at))?;
                                    let start = copy.as_ptr();
                                    copies.push(copy);
                                    start
                                }
                            };
                            places.push((start, length as usize));
                            at += length;
                        }
                        Err(Errno::EAGAIN) => return Err((Errno::EAGAIN, at)),
                        Err(errno) => {
                            refused = Some(errno);
                            break 'pieces;
                        }
                    }
                }
            }
            if let (true, Some(errno)) = (places.is_empty(), refused) {
                return Err((errno, 0));
            }
            // SAFETY: each place is as long as said: bytes of the window that the read lock keeps this address space's, zeroes, or a copy that
            // lives until the end of this closure. The guest may change them meanwhile; users read each byte once.
            let slices: Vec<IoSlice<'_>> =
                places.iter().map(|&(start, length)| IoSlice::new(unsafe { std::slice::from_raw_parts(start, length) })).collect();
            use_slices.take().map_or(Err((Errno::EFAULT, 0)), |use_slices| use_slices(&slices).map_err(|errno| (real(errno), 0)))
        })
        .map_err(unreal)
    }

    /// Hands writable guest memory to `fill_slices` in place; what lies behind an unwritable byte is left out.
    pub fn with_slices_mut(
        &self,
        executor: &mut dyn Executor,
        pieces: &[Iovec],
        fill_slices: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let mut fill_slices = Some(fill_slices);
        self.with_pages(executor, Access::Write, |state| {
            let (mut places, mut refused) = (Vec::with_capacity(pieces.len()), None);
            'pieces: for piece in pieces {
                let mut at = piece.iov_base;
                let end = at.checked_add(piece.iov_len).ok_or((Errno::EFAULT, at))?;
                while at < end {
                    match self.writable(state, at, end - at) {
                        Ok((start, length)) => {
                            places.push((start, length as usize));
                            at += length;
                        }
                        Err(Errno::EAGAIN) => return Err((Errno::EAGAIN, at)),
                        Err(Errno::EOPNOTSUPP) if places.is_empty() => {
                            let fill = fill_slices.take().ok_or((Errno::EFAULT, 0))?;
                            return self.fill_host(state, at, end - at, fill).map_err(|errno| (real(errno), 0));
                        }
                        Err(errno) => {
                            refused = Some(errno);
                            break 'pieces;
                        }
                    }
                }
            }
            if let (true, Some(errno)) = (places.is_empty(), refused) {
                return Err((errno, 0));
            }
            // SAFETY: as in `with_slices`; pieces that overlap each other, which only a strange caller passes, alias as plain bytes that nothing
            // relies on.
            let mut slices: Vec<IoSliceMut<'_>> =
                places.iter().map(|&(start, length)| IoSliceMut::new(unsafe { std::slice::from_raw_parts_mut(start, length) })).collect();
            fill_slices.take().map_or(Err((Errno::EFAULT, 0)), |fill| fill(&mut slices).map_err(|errno| (real(errno), 0)))
        })
        .map_err(unreal)
    }

    /// Fills a shared mapping of a host file by way of a buffer.
    fn fill_host(
        &self,
        state: &State,
        address: u64,
        length: u64,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        const BUFFER: u64 = 64 << 10;
        let mut buffer = vec![0; length.min(BUFFER) as usize];
        let count = fill(&mut [IoSliceMut::new(&mut buffer)])?;
        let mut done = 0;
        while done < count {
            done += self.write_host(state, address + done as u64, &buffer[done..count])?;
        }
        Ok(count)
    }

    /// What identifies the futex word at `address`, which `shared` calls may share with other address spaces.
    pub fn futex_key(&self, executor: &mut dyn Executor, address: u64, shared: bool) -> Result<FutexKey, Errno> {
        if !address.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if !shared {
            return Ok(FutexKey::Private(self.id, address));
        }
        self.with_pages(executor, Access::Read, |state| {
            let (_, area) = state.area_at(address).ok_or((Errno::EFAULT, address))?;
            if !area.shared {
                return Ok(FutexKey::Private(self.id, address));
            }
            match state.extents.find(address) {
                Some((start, extent)) => Ok(FutexKey::Shared(extent.offset + (address - start))),
                None if matches!(area.content, Content::Object(..)) => Err((Errno::EAGAIN, address)),
                // A host file: other address spaces of this sandbox that map it are not recognised.
                None => Ok(FutexKey::Private(self.id, address)),
            }
        })
    }

    /// Loads a word atomically.
    pub fn load_u32(&self, executor: &mut dyn Executor, address: u64) -> Result<u32, Errno> {
        if !address.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        self.with_pages(executor, Access::Read, |state| match self.readable(state, address, 4).map_err(|errno| (errno, address))? {
            // SAFETY: four aligned bytes of the window, valid for as long as the read lock is held.
            (Readable::Memory(place), 4) => Ok(unsafe { &*place.cast::<AtomicU32>() }.load(Ordering::SeqCst)),
            (place, _) => {
                let mut bytes = [0; 4];
                copy_readable(&place, &mut bytes).map_err(|errno| (errno, address))?;
                Ok(u32::from_le_bytes(bytes))
            }
        })
    }

    /// Replaces a word if it is `current`; answers what it was.
    pub fn compare_exchange_u32(&self, executor: &mut dyn Executor, address: u64, current: u32, new: u32) -> Result<u32, Errno> {
        if !address.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        self.with_pages(executor, Access::Write, |state| {
            let (place, length) = self.writable(state, address, 4).map_err(|errno| (errno, address))?;
            if length < 4 {
                return Err((Errno::EFAULT, address));
            }
            // SAFETY: as in `load_u32`, and writable.
            let word = unsafe { &*place.cast::<AtomicU32>() };
            Ok(word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|was| was))
        })
    }
}

/// Copies bytes from where they are; past the end of a host file there are zeroes up to the page's end, which callers do not exceed.
fn copy_readable(place: &Readable<'_>, buffer: &mut [u8]) -> Result<(), Errno> {
    match place {
        // SAFETY: the place is as long as the buffer, by `readable`; the guest may write meanwhile, which only mixes old and new bytes.
        Readable::Memory(start) => unsafe { std::ptr::copy_nonoverlapping(*start, buffer.as_mut_ptr(), buffer.len()) },
        Readable::Zero => buffer.fill(0),
        Readable::Host(file, offset) => {
            let mut done = 0;
            while done < buffer.len() {
                match crate::host::transfer::read_at(file, &mut buffer[done..], offset + done as u64) {
                    Ok(0) => {
                        buffer[done..].fill(0);
                        break;
                    }
                    Ok(count) => done += count,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return Err(Errno::EFAULT),
                }
            }
        }
    }
    Ok(())
}

/// An object's own `EAGAIN` must not look like a page that is missing.
const REAL_EAGAIN: Errno = Errno(4000);

fn real(errno: Errno) -> Errno {
    if errno == Errno::EAGAIN { REAL_EAGAIN } else { errno }
}

fn unreal(errno: Errno) -> Errno {
    if errno == REAL_EAGAIN { Errno::EAGAIN } else { errno }
}
