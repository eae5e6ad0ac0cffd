//! The context slots of a sandbox: one memory file, mapped as a whole in the kernel process; each guest process maps the slots of its own threads.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::thread::futex;

use super::layout::{Header, SLOT_COUNT, SLOT_SIZE, SLOTS, TURN_EXITED, TURN_GONE};
use super::wait;

/// Who uses which slot.
#[derive(Default)]
struct Use {
    next: u32,
    /// Slots mapped in each guest process: those in use and those whose thread has ended.
    processes: HashMap<i32, ProcessSlots>,
}

#[derive(Default)]
struct ProcessSlots {
    mapped: Vec<u32>,
    retired: Vec<u32>,
    /// We have killed it.
    death_expected: bool,
}

/// All slots.
pub struct Slots {
    fd: OwnedFd,
    window: NonNull<u8>,
    used: Mutex<Use>,
    /// One more than the slot whose guest thread waits awake so that its core is awake for another; 0 if none does.
    lingering: AtomicU32,
    /// Slots ready for any process; apart from `used`, so that it can be locked after it.
    freed: Mutex<Vec<u32>>,
}

// SAFETY: the window is a mapping that lives as long as the value; its words are accessed atomically or by raw copies.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

const WINDOW_SIZE: u64 = SLOT_SIZE * SLOT_COUNT as u64;

impl Slots {
    /// Makes the file and its window.
    pub fn new() -> std::io::Result<Self> {
        let fd = rustix::fs::memfd_create(c"cloudpilot-slots", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, WINDOW_SIZE)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address of the host's choice aliases nothing.
        let window = unsafe { rustix::mm::mmap(cloudpilot_memory::window_hint(), WINDOW_SIZE as usize, protection, flags, &fd, 0)? };
        // SAFETY: advice about a mapping of our own. Guests must not inherit the view of every slot.
        unsafe { rustix::mm::madvise(window, WINDOW_SIZE as usize, rustix::mm::Advice::LinuxDontFork)? };
        let window = NonNull::new(window.cast::<u8>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { fd, window, used: Mutex::default(), freed: Mutex::default(), lingering: AtomicU32::new(0) })
    }

    /// A guest thread that waits for a while keeps its core awake for the next one.
    pub fn linger(&self, slot: u32) {
        wait::rest(self.header(slot), true);
        self.end_lingering(self.lingering.swap(slot + 1, Ordering::Relaxed), slot);
    }

    /// A guest thread goes on. If it had to be woken it needs a core: whoever keeps one awake lets go of it.
    pub fn go_on(&self, slot: u32, was_woken: bool) {
        let lingering = self.lingering.load(Ordering::Relaxed);
        if lingering == slot + 1 || (lingering != 0 && was_woken) {
            self.end_lingering(self.lingering.swap(0, Ordering::Relaxed), slot);
        }
    }

    fn end_lingering(&self, before: u32, own: u32) {
        if let Some(slot) = before.checked_sub(1).filter(|&slot| slot != own) {
            // Should it run again by now, it at worst sleeps a little early the next time.
            wait::rest(self.header(slot), false);
        }
    }

    /// Descriptor number, as guests' stubs map it.
    pub fn descriptor(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// A slot for a new process.
    pub fn allocate(&self) -> Option<u32> {
        if let Some(slot) = self.freed.lock().pop() {
            return Some(slot);
        }
        let mut used = self.used.lock();
        let slot = used.next;
        (slot < SLOT_COUNT).then(|| {
            used.next += 1;
            slot
        })
    }

    /// A slot for a new thread of a process, and whether the process has it mapped already: that of a thread that has ended for sure.
    pub fn allocate_for_thread(&self, process: i32) -> Option<(u32, bool)> {
        if let Some(slots) = self.used.lock().processes.get_mut(&process) {
            let ended = |slot: &u32| self.header(*slot).turn.load(Ordering::SeqCst) == TURN_EXITED;
            if let Some(index) = slots.retired.iter().position(ended) {
                return Some((slots.retired.swap_remove(index), true));
            }
        }
        let slot = self.allocate()?;
        self.assign(process, slot);
        Some((slot, false))
    }

    /// Notes that a process has a slot mapped.
    pub fn assign(&self, process: i32, slot: u32) {
        self.used.lock().processes.entry(process).or_default().mapped.push(slot);
    }

    /// Notes the first slot of a new process; false if the process is known.
    pub fn assign_first(&self, process: i32, slot: u32) -> bool {
        let mut used = self.used.lock();
        if used.processes.contains_key(&process) {
            return false;
        }
        used.processes.entry(process).or_default().mapped.push(slot);
        true
    }

    /// A process is about to be killed by us.
    pub fn expect_death(&self, process: i32) {
        if let Some(slots) = self.used.lock().processes.get_mut(&process) {
            slots.death_expected = true;
        }
    }

    /// Whether a process is one of ours and we have not killed it.
    pub fn should_live(&self, process: i32) -> bool {
        self.used.lock().processes.get(&process).is_some_and(|slots| !slots.death_expected)
    }

    /// The kernel thread of a slot is done with it. While the process lives it keeps the slot mapped, so that only its own threads may
    /// have it again.
    pub fn retire(&self, process: i32, slot: u32) {
        match self.used.lock().processes.get_mut(&process) {
            Some(slots) => slots.retired.push(slot),
            None => self.release(slot),
        }
    }

    /// Gives a slot back that no process got to map.
    pub fn give_back(&self, slot: u32) {
        self.freed.lock().push(slot);
    }

    /// A process is dead: wakes the kernel threads that wait for its threads, and takes its retired slots back.
    pub fn process_died(&self, process: i32) {
        let slots = self.used.lock().processes.remove(&process).unwrap_or_default();
        let retired: HashSet<u32> = slots.retired.iter().copied().collect();
        for &slot in slots.mapped.iter().filter(|slot| !retired.contains(slot)) {
            self.mark_gone(slot);
        }
        for slot in slots.retired {
            self.release(slot);
        }
    }

    /// Tells the kernel thread of a slot that its guest thread is dead.
    pub fn mark_gone(&self, slot: u32) {
        let header = self.header(slot);
        header.turn.store(TURN_GONE, Ordering::SeqCst);
        let _ = futex::wake(&header.turn, futex::Flags::empty(), i32::MAX as u32);
    }

    /// Frees a slot that nobody uses or has mapped. Its contents go: the next user may be another guest process.
    fn release(&self, slot: u32) {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(&self.fd, punch, u64::from(slot) * SLOT_SIZE, SLOT_SIZE).is_ok() {
            self.freed.lock().push(slot);
        }
    }

    /// The header of a slot.
    pub fn header(&self, slot: u32) -> &Header {
        // SAFETY: the slot lies within the window; `Header` is valid for any bytes.
        unsafe { &*self.pointer(slot, 0).cast::<Header>() }
    }

    /// Writes what the stub's fast path needs to know.
    pub fn prepare(&self, slot: u32) {
        let header = self.pointer(slot, 0).cast::<Header>();
        // SAFETY: within the slot; raw writes, since a guest may have it mapped.
        unsafe {
            (&raw mut (*header).own_address).write_volatile(Self::guest_address(slot));
            (&raw mut (*header).noted).write_volatile(0);
        }
    }

    /// A place within a slot.
    pub fn pointer(&self, slot: u32, offset: u64) -> *mut u8 {
        debug_assert!(slot < SLOT_COUNT && offset < SLOT_SIZE);
        // SAFETY: within the window by the assertion, which every caller upholds.
        unsafe { self.window.add((u64::from(slot) * SLOT_SIZE + offset) as usize).as_ptr() }
    }

    /// Address of a slot in guests that have it mapped.
    pub fn guest_address(slot: u32) -> u64 {
        SLOTS + u64::from(slot) * SLOT_SIZE
    }
}
