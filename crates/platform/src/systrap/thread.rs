//! One guest thread: a thread of a stub process and its slot.

use std::sync::Arc;

use cloudpilot_abi::raw;

use super::Shared;
use super::filter::{FORK_FLAGS, THREAD_FLAGS};
use super::layout::{
    CALLS, GUEST_END, Header, HostCall, SLOT_SIZE, STOP_FAST, STOP_NOTED, STUB_CODE, STUB_CODE_SIZE, TRAMPOLINES, TURN_CALLS,
    TURN_CALLS_FAST, TURN_CALLS_RESUME, TURN_EXIT, TURN_FAST, TURN_KERNEL, TURN_RESUME, TURN_TRAP, UCONTEXT_ERROR, UCONTEXT_FAULT_ADDRESS,
    UCONTEXT_FLOATING_POINT, UCONTEXT_REGISTERS, UCONTEXT_SIZE, UCONTEXT_STACK, UCONTEXT_TRAP,
};
use super::slots::Slots;
use super::stub;
use super::wait;
use crate::{Access, Backing, Executor, Gone, GuestThread, Interrupter, Protection, Registers, SpawnError, Stop, Trampoline};

/// Signal that brings a guest thread back into its stub.
pub const INTERRUPT: i32 = libc::SIGUSR1;

/// Architecture number of 64-bit system calls, `si_arch`.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Where `siginfo_t` has `si_arch` for SIGSYS, and `si_code`, `si_addr` generally.
const SIGINFO_ARCH: u64 = 28;
const SIGINFO_CODE: u64 = 8;
const SIGINFO_ADDRESS: u64 = 16;
const SIGINFO_SIZE: u64 = 128;
/// `arch_prctl(2)`.
const ARCH_SET_GS: u64 = 0x1001;
/// Flags as reported for a call on the fast path, which does not keep them.
const FAST_FLAGS: u64 = 0x202;
/// `SI_KERNEL`.
const SI_KERNEL: i32 = 128;
/// Exception vector of a page fault, and its error bits.
const TRAP_PAGE_FAULT: u64 = 14;
const ERROR_WRITE: u64 = 2;
const ERROR_FETCH: u64 = 16;

/// Bytes of the floating-point state before the part that XSAVE adds.
const LEGACY_STATE: usize = 512;
/// Bytes that XSAVE puts before the rest.
const XSAVE_HEADER: usize = 64;
/// Where the legacy part describes the rest (`struct _fpx_sw_bytes`): magic, whole size, features, XSAVE size.
const SW_MAGIC: usize = 464;
const SW_EXTENDED_SIZE: usize = 468;
const SW_FEATURES: usize = 472;
const SW_XSTATE_SIZE: usize = 480;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
/// `MXCSR` after reset, and the bits that may be set at all.
const MXCSR_RESET: u32 = 0x1f80;
const MXCSR_MASK: u32 = 0xffff;

/// A guest thread.
pub(crate) struct SystrapThread {
    shared: Arc<Shared>,
    slot: u32,
    process: i32,
    thread: i32,
    /// Offset in the slot of the `ucontext_t` of the last stop.
    context: u64,
    /// The stub still works on a batch that was handed over at birth.
    newborn: bool,
    /// Calls whose results nobody needs, to be made before the guest runs on.
    pending: Vec<HostCall>,
    /// `gs` base that the guest set; 0 if none.
    gs: u64,
    /// Whether the last stop came on the fast path, so that the slot's context is that of an earlier one.
    fast: bool,
    /// How soon the guest usually comes back.
    habit: wait::Habit,
    /// Registers that were reported with it.
    reported: Registers,
    /// Whether such calls may wait: the only thread of its address space is stopped, so that nobody sees the old mappings meanwhile.
    alone: bool,
    finished: bool,
}

struct Signaller {
    shared: Arc<Shared>,
    slot: u32,
    process: i32,
    thread: i32,
}

impl Interrupter for Signaller {
    fn interrupt(&self) {
        // SAFETY: sends a signal to a thread of a stub; a number in use by another stub at worst interrupts that one for nothing.
        let result = unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, INTERRUPT) };
        if result != 0 {
            // No such thread although nobody told it to end: it broke its own stub.
            self.shared.slots.mark_gone(self.slot);
        }
    }

    fn kill(&self) {
        self.shared.slots.expect_death(self.process);
        // SAFETY: as above.
        unsafe { libc::kill(self.process, libc::SIGKILL) };
    }
}

impl SystrapThread {
    pub(crate) fn new(shared: Arc<Shared>, slot: u32, process: i32, thread: i32) -> Self {
        Self {
            shared,
            slot,
            process,
            thread,
            context: 0,
            newborn: false,
            pending: Vec::new(),
            gs: 0,
            fast: false,
            habit: wait::Habit::default(),
            reported: Registers::default(),
            alone: false,
            finished: false,
        }
    }

    fn header(&self) -> &Header {
        self.shared.slots.header(self.slot)
    }

    /// Reads a word of the slot once.
    fn word<T: Copy>(&self, offset: u64) -> T {
        debug_assert!(offset + size_of::<T>() as u64 <= SLOT_SIZE);
        // SAFETY: within the slot; volatile, since the guest may change it at any time.
        unsafe { self.shared.slots.pointer(self.slot, offset).cast::<T>().read_volatile() }
    }

    fn set_word<T: Copy>(&self, offset: u64, value: T) {
        debug_assert!(offset + size_of::<T>() as u64 <= SLOT_SIZE);
        // SAFETY: within the slot.
        unsafe { self.shared.slots.pointer(self.slot, offset).cast::<T>().write_volatile(value) }
    }

    /// Offset in the slot of `size` bytes at a guest address, if they lie within its stack and are aligned.
    fn offset_of(&self, address: u64, size: u64) -> Option<u64> {
        let offset = address.checked_sub(Slots::guest_address(self.slot))?;
        (offset >= 4096 && offset.checked_add(size)? <= SLOT_SIZE && offset % 8 == 0).then_some(offset)
    }

    /// Takes note of where the stop's registers lie. False if the guest tampered with the slot.
    pub(crate) fn note_stop(&mut self) -> bool {
        let address: u64 = self.word(std::mem::offset_of!(Header, context) as u64);
        match self.offset_of(address, UCONTEXT_SIZE) {
            Some(offset) => {
                self.context = offset;
                true
            }
            None => false,
        }
    }

    /// Takes out of the first stub's stop what it shows of the kernel process that it is a copy of: registers, addresses of code, vector state. Every
    /// guest thread's first state is a copy of this one, in memory that the guest can read.
    pub(crate) fn forget_origin(&mut self) -> bool {
        let Some((offset, size)) = self.floating_point_area() else { return false };
        let slots = &self.shared.slots;
        let zero = |from: u64, to: u64| {
            // SAFETY: both lie within the slot, whose thread waits.
            unsafe { std::ptr::write_bytes(slots.pointer(self.slot, from), 0, to.saturating_sub(from) as usize) };
        };
        self.set_word(self.context + UCONTEXT_REGISTERS, Registers::default());
        self.set_word(self.context + UCONTEXT_FAULT_ADDRESS, 0_u64);
        zero(self.context + UCONTEXT_SIZE, offset);
        zero(offset, offset + SW_MAGIC as u64);
        // Behind the state there is a word that the host looks for.
        zero(offset + LEGACY_STATE as u64, offset + (size as u64).saturating_sub(size_of::<u32>() as u64).max(LEGACY_STATE as u64));
        self.reset_floating_point();
        true
    }

    /// Signal of the last stop.
    pub(crate) fn stop_signal(&self) -> i32 {
        self.word::<u32>(std::mem::offset_of!(Header, signal) as u64) as i32
    }

    fn finish_birth(&mut self) -> Result<(), Gone> {
        if std::mem::take(&mut self.newborn) && wait::take(self.shared.slots.header(self.slot), &mut self.habit) != TURN_KERNEL {
            return Err(Gone);
        }
        Ok(())
    }

    /// Puts calls into the slot.
    fn post(&self, slot: u32, calls: &[HostCall]) {
        let base = self.shared.slots.pointer(slot, 0).cast::<Header>();
        // SAFETY: the slot begins with a header; raw writes, since the other side may touch it too.
        unsafe {
            (&raw mut (*base).call_count).write_volatile(calls.len() as u32);
            std::ptr::copy_nonoverlapping(calls.as_ptr(), (&raw mut (*base).calls).cast(), calls.len());
        }
    }

    /// Lets the stub make calls; their results are the guest's to forge, so nothing of ours may depend on their truth.
    pub(crate) fn call_all(&mut self, calls: &mut [HostCall]) -> Result<(), Gone> {
        self.finish_birth()?;
        let before = self.pending.len();
        if before + calls.len() > CALLS {
            self.flush()?;
            return self.submit(calls);
        }
        let mut batch = std::mem::take(&mut self.pending);
        batch.extend_from_slice(calls);
        let result = self.submit(&mut batch);
        calls.copy_from_slice(&batch[before..]);
        batch.clear();
        self.pending = batch;
        result
    }

    fn submit(&mut self, calls: &mut [HostCall]) -> Result<(), Gone> {
        for batch in calls.chunks_mut(CALLS) {
            self.post(self.slot, batch);
            if wait::hand_over(self.shared.slots.header(self.slot), TURN_CALLS, &mut self.habit) != TURN_KERNEL {
                return Err(Gone);
            }
            for (index, call) in batch.iter_mut().enumerate() {
                call.result = self.word((64 + index * size_of::<HostCall>() + 56) as u64);
            }
        }
        Ok(())
    }

    /// Makes the calls that wait.
    fn flush(&mut self) -> Result<(), Gone> {
        let mut batch = std::mem::take(&mut self.pending);
        let result = if batch.is_empty() { Ok(()) } else { self.submit(&mut batch) };
        batch.clear();
        self.pending = batch;
        result
    }

    /// Makes a call whose result nobody needs: now, or together with the next one.
    fn call_blindly(&mut self, number: u32, args: &[u64]) -> Result<(), Gone> {
        if !self.alone {
            return self.call(number, args).map(|_| ());
        }
        self.finish_birth()?;
        if self.pending.len() == CALLS {
            self.flush()?;
        }
        self.pending.push(HostCall::new(number, args));
        Ok(())
    }

    fn call(&mut self, number: u32, args: &[u64]) -> Result<HostCall, Gone> {
        let mut calls = [HostCall::new(number, args)];
        self.call_all(&mut calls)?;
        Ok(calls[0])
    }

    fn registers(&self) -> Registers {
        self.word(self.context + UCONTEXT_REGISTERS)
    }

    /// Offset and size of the floating-point state of the last stop.
    fn floating_point_area(&self) -> Option<(u64, usize)> {
        let address: u64 = self.word(self.context + UCONTEXT_FLOATING_POINT);
        let offset = self.offset_of(address, LEGACY_STATE as u64)?;
        let magic: u32 = self.word(offset + SW_MAGIC as u64);
        let size: u32 = self.word(offset + SW_EXTENDED_SIZE as u64);
        let size = if magic == FP_XSTATE_MAGIC1 { size.max(LEGACY_STATE as u32) } else { LEGACY_STATE as u32 };
        self.offset_of(address, u64::from(size)).map(|offset| (offset, size as usize))
    }

    /// Copies this thread's stop into another slot, so that a new thread can be resumed from there with the same vector state.
    fn copy_stop(&self, slot: u32) {
        let slots = &self.shared.slots;
        let move_by = Slots::guest_address(slot).wrapping_sub(Slots::guest_address(self.slot));
        // SAFETY: both slots lie within the window and differ.
        unsafe {
            std::ptr::write_bytes(slots.pointer(slot, 0), 0, 64);
            slots.prepare(slot);
            let from = slots.pointer(self.slot, self.context);
            let length = (SLOT_SIZE - self.context) as usize;
            std::ptr::copy_nonoverlapping(from, slots.pointer(slot, self.context), length);
            let context = slots.pointer(slot, self.context);
            let floating_point = context.add(UCONTEXT_FLOATING_POINT as usize).cast::<u64>();
            floating_point.write_unaligned(floating_point.read_unaligned().wrapping_add(move_by));
            // `rt_sigreturn` sets the alternate stack from here: that is how a new thread gets its own.
            let stack = context.add(UCONTEXT_STACK as usize).cast::<u64>();
            stack.write_unaligned(Slots::guest_address(slot) + 4096);
        }
    }

    fn finish_spawn(&self, slot: u32, process: i32, thread: i32) -> Box<dyn GuestThread> {
        let mut child = Self::new(Arc::clone(&self.shared), slot, process, thread);
        child.context = self.context;
        child.gs = self.gs;
        child.newborn = true;
        Box::new(child)
    }

    fn spawn_process(&mut self, empty: bool) -> Result<Box<dyn GuestThread>, SpawnError> {
        self.finish_birth()?;
        self.save_all()?;
        let slot = self.shared.slots.allocate().ok_or(SpawnError::Refused(libc::EAGAIN))?;
        self.copy_stop(slot);
        let address = Slots::guest_address(slot);
        // The child's first deed: keep its slot from its own children, and leave what it inherited if it is to start empty.
        let mut first = vec![HostCall::new(raw::__NR_madvise, &[address, SLOT_SIZE, u64::from(raw::MADV_DONTFORK)]), self.own_gs(slot)];
        if empty {
            first.push(HostCall::new(raw::__NR_munmap, &[0, GUEST_END]));
        }
        self.post(slot, &first);
        self.shared.slots.header(slot).turn.store(TURN_CALLS, std::sync::atomic::Ordering::SeqCst);
        let mut calls = [
            self.map_slot_call(slot),
            HostCall::new(raw::__NR_clone, &[u64::from(FORK_FLAGS), stack_top(slot), 0, 0, 0]),
            HostCall::new(raw::__NR_munmap, &[address, SLOT_SIZE]),
        ];
        self.call_all(&mut calls)?;
        if let Some(errno) = calls[0].error().or(calls[1].error()) {
            self.shared.slots.give_back(slot);
            return Err(SpawnError::Refused(errno));
        }
        // The result is the guest's to forge: 0, -1 and numbers of processes that are there already would make us signal others. What it really
        // made is none of ours; its slot is lost.
        let process = i32::try_from(calls[1].result).ok().filter(|process| *process > 1).ok_or(SpawnError::Gone)?;
        if !self.shared.slots.assign_first(process, slot) {
            return Err(SpawnError::Gone);
        }
        // It may have died before it was entered: then nobody would tell.
        // SAFETY: signal 0 only asks.
        if unsafe { libc::kill(process, 0) } != 0 {
            self.shared.slots.process_died(process);
        }
        Ok(self.finish_spawn(slot, process, process))
    }

    /// The segment base of a new thread: its slot's address, by which the fast path finds the slot, unless the guest has a base of its own.
    fn own_gs(&self, slot: u32) -> HostCall {
        let base = if self.gs == 0 { Slots::guest_address(slot) } else { self.gs };
        HostCall::new(raw::__NR_arch_prctl, &[ARCH_SET_GS, base])
    }

    /// Brings a thread that stopped on the fast path to a stop by a signal, which saves its vector state in the slot, too.
    fn save_all(&mut self) -> Result<(), Gone> {
        if !self.fast {
            return Ok(());
        }
        self.finish_birth()?;
        if wait::hand_over(self.shared.slots.header(self.slot), TURN_TRAP, &mut self.habit) != TURN_KERNEL || !self.note_stop() {
            return Err(Gone);
        }
        self.fast = false;
        // Flags are not kept on the fast path: those of the trap are as good.
        let mut registers = self.reported;
        registers.eflags = self.registers().eflags;
        self.set_word(self.context + UCONTEXT_REGISTERS, registers);
        Ok(())
    }

    /// Whether an interrupt was only noted since it hit our own code on the fast path. The guest runs on by another way now, on which nobody
    /// would look at the note; from the trap on, the host keeps interrupts until the guest runs.
    fn take_note(&self) -> bool {
        let offset = std::mem::offset_of!(Header, noted) as u64;
        let noted = self.word::<u32>(offset) != 0;
        if noted {
            self.set_word(offset, 0_u32);
        }
        noted
    }

    /// Registers at a stop that came by a signal, where that hit our own code on the fast path: as if it had come at the path's first instruction,
    /// or right behind the call.
    fn outside(&self, stop: Registers, given: u32) -> Registers {
        let (start, saved, end) = stub::fast_path();
        match stop.rip {
            rip if (start..saved).contains(&rip) => Registers { rip: start, ..stop },
            rip if (saved..end).contains(&rip) => {
                let fast = self.fast_registers();
                Registers { rcx: fast.rip, rip: start, eflags: stop.eflags, ..fast }
            }
            rip if (STUB_CODE..STUB_CODE + STUB_CODE_SIZE).contains(&rip) && matches!(given, TURN_FAST | TURN_CALLS_FAST) => {
                Registers { eflags: stop.eflags, ..self.fast_registers() }
            }
            _ => stop,
        }
    }

    fn fast_registers(&self) -> Registers {
        self.word(std::mem::offset_of!(Header, fast) as u64)
    }

    fn map_slot_call(&self, slot: u32) -> HostCall {
        let protection = u64::from(raw::PROT_READ | raw::PROT_WRITE);
        let flags = u64::from(raw::MAP_SHARED | raw::MAP_FIXED);
        let file = self.shared.slots.descriptor() as u64;
        HostCall::new(raw::__NR_mmap, &[Slots::guest_address(slot), SLOT_SIZE, protection, flags, file, u64::from(slot) * SLOT_SIZE])
    }

    fn decode_stop(&self) -> Option<Stop> {
        let signal = self.stop_signal();
        let info_address: u64 = self.word(std::mem::offset_of!(Header, info) as u64);
        let info = self.offset_of(info_address, SIGINFO_SIZE)?;
        let code: i32 = self.word(info + SIGINFO_CODE);
        let address: u64 = self.word(info + SIGINFO_ADDRESS);
        let trap: u64 = self.word(self.context + UCONTEXT_TRAP);
        Some(match signal {
            libc::SIGSYS if self.word::<u32>(info + SIGINFO_ARCH) == AUDIT_ARCH_X86_64 => Stop::SystemCall,
            // A 32-bit call gate: as on a Linux without 32-bit support.
            libc::SIGSYS => Stop::Exception { signal: libc::SIGSEGV, code: SI_KERNEL, address: 0, trap: 13 },
            libc::SIGSEGV if trap == TRAP_PAGE_FAULT => {
                let error: u64 = self.word(self.context + UCONTEXT_ERROR);
                let access = match (error & ERROR_FETCH != 0, error & ERROR_WRITE != 0) {
                    (true, _) => Access::Execute,
                    (_, true) => Access::Write,
                    _ => Access::Read,
                };
                Stop::Fault { address: self.word(self.context + UCONTEXT_FAULT_ADDRESS), access }
            }
            INTERRUPT => Stop::Interrupted,
            libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP => Stop::Exception { signal, code, address, trap },
            // No stop is like this: the guest has written to its slot.
            _ => return None,
        })
    }
}

/// Where a new thread's stack pointer starts: below the end of its slot, so that masking it finds the slot.
fn stack_top(slot: u32) -> u64 {
    Slots::guest_address(slot) + SLOT_SIZE - 64
}

impl Executor for SystrapThread {
    fn map(&mut self, address: u64, length: u64, protection: Protection, backing: Backing) -> Result<(), Gone> {
        let (flags, fd, offset) = match backing {
            Backing::Memory(offset) => (raw::MAP_SHARED | raw::MAP_NORESERVE, self.shared.memory, offset),
            Backing::Host { fd, offset, shared } => (if shared { raw::MAP_SHARED } else { raw::MAP_PRIVATE }, fd, offset),
            Backing::None => return self.unmap(address, length),
        };
        let args = [address, length, u64::from(protection), u64::from(flags | raw::MAP_FIXED), fd as u64, offset];
        self.call_blindly(raw::__NR_mmap, &args)
    }

    fn unmap(&mut self, address: u64, length: u64) -> Result<(), Gone> {
        self.call_blindly(raw::__NR_munmap, &[address, length])
    }

    fn protect(&mut self, address: u64, length: u64, protection: Protection) -> Result<(), Gone> {
        self.call_blindly(raw::__NR_mprotect, &[address, length, u64::from(protection)])
    }
}

impl GuestThread for SystrapThread {
    fn run(&mut self, registers: &mut Registers, meanwhile: &mut dyn FnMut()) -> Stop {
        if self.finish_birth().is_err() {
            return Stop::Gone;
        }
        let goes_on = self.fast && Registers { rax: 0, ..*registers } == Registers { rax: 0, ..self.reported };
        let (plain, with_calls) = if goes_on {
            let offset = std::mem::offset_of!(Header, fast) + std::mem::offset_of!(Registers, rax);
            self.set_word(offset as u64, registers.rax);
            (TURN_FAST, TURN_CALLS_FAST)
        } else {
            if self.save_all().is_err() {
                return Stop::Gone;
            }
            if self.take_note() {
                meanwhile();
                return Stop::Interrupted;
            }
            self.set_word(self.context + UCONTEXT_REGISTERS, *registers);
            let resume = Slots::guest_address(self.slot) + self.context;
            self.set_word(std::mem::offset_of!(Header, resume) as u64, resume);
            (TURN_RESUME, TURN_CALLS_RESUME)
        };
        let mut turn = plain;
        if !self.pending.is_empty() {
            self.post(self.slot, &self.pending);
            self.pending.clear();
            turn = with_calls;
        }
        let header = self.shared.slots.header(self.slot);
        let was_woken = wait::give(header, turn);
        self.shared.slots.go_on(self.slot, was_woken);
        meanwhile();
        if wait::take(header, &mut self.habit) != TURN_KERNEL {
            return Stop::Gone;
        }
        match self.stop_signal() as u32 {
            STOP_FAST => {
                self.fast = true;
                *registers = Registers { eflags: FAST_FLAGS, ..self.fast_registers() };
                self.reported = *registers;
                return Stop::SystemCall;
            }
            STOP_NOTED if goes_on => {
                self.reported = *registers;
                return Stop::Interrupted;
            }
            _ => {}
        }
        self.fast = false;
        if !self.note_stop() {
            return Stop::Gone;
        }
        *registers = self.outside(self.registers(), turn);
        self.decode_stop().unwrap_or(Stop::Gone)
    }

    fn trampoline(&self) -> Option<Trampoline> {
        let (start, end) = TRAMPOLINES;
        (!self.fast && self.gs == 0).then(|| Trampoline { entry: stub::fast_path().0, start, end })
    }

    fn floating_point(&mut self) -> Vec<u8> {
        if self.save_all().is_err() {
            return Vec::new();
        }
        self.saved_floating_point()
    }

    fn set_floating_point(&mut self, state: &[u8]) -> bool {
        self.save_all().is_ok() && self.replace_floating_point(state)
    }

    fn reset_floating_point(&mut self) {
        let mut state = vec![0_u8; LEGACY_STATE];
        state[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        state[24..28].copy_from_slice(&MXCSR_RESET.to_le_bytes());
        let _ = self.set_floating_point(&state);
    }

    fn fs_base(&mut self) -> Result<u64, Gone> {
        self.segment_base(0x1003)
    }

    fn set_fs_base(&mut self, base: u64) -> Result<(), Gone> {
        self.call_blindly(raw::__NR_arch_prctl, &[0x1002, base])
    }

    fn gs_base(&mut self) -> Result<u64, Gone> {
        Ok(self.gs)
    }

    fn set_gs_base(&mut self, base: u64) -> Result<(), Gone> {
        self.gs = base;
        let call = self.own_gs(self.slot);
        self.call_blindly(raw::__NR_arch_prctl, &call.args[..2])
    }

    fn spawn_thread(&mut self) -> Result<Box<dyn GuestThread>, SpawnError> {
        self.finish_birth()?;
        self.alone = false;
        let (slot, mapped) = self.shared.slots.allocate_for_thread(self.process).ok_or(SpawnError::Refused(libc::EAGAIN))?;
        self.save_all()?;
        self.copy_stop(slot);
        self.post(slot, &[self.own_gs(slot)]);
        self.shared.slots.header(slot).turn.store(TURN_CALLS, std::sync::atomic::Ordering::SeqCst);
        let mut calls = Vec::with_capacity(3);
        if !mapped {
            calls.push(self.map_slot_call(slot));
            let address = Slots::guest_address(slot);
            calls.push(HostCall::new(raw::__NR_madvise, &[address, SLOT_SIZE, u64::from(raw::MADV_DONTFORK)]));
        }
        calls.push(HostCall::new(raw::__NR_clone, &[u64::from(THREAD_FLAGS), stack_top(slot), 0, 0, 0]));
        self.call_all(&mut calls)?;
        if let Some(errno) = calls.iter().find_map(HostCall::error) {
            self.shared.slots.header(slot).turn.store(super::layout::TURN_EXITED, std::sync::atomic::Ordering::SeqCst);
            self.shared.slots.retire(self.process, slot);
            return Err(SpawnError::Refused(errno));
        }
        let thread = calls.last().map_or(0, |call| call.result as i32);
        Ok(self.finish_spawn(slot, self.process, thread))
    }

    fn fork(&mut self) -> Result<Box<dyn GuestThread>, SpawnError> {
        self.spawn_process(false)
    }

    fn fork_empty(&mut self) -> Result<Box<dyn GuestThread>, SpawnError> {
        self.spawn_process(true)
    }

    fn clear(&mut self) -> Result<(), Gone> {
        self.unmap(0, GUEST_END)
    }

    fn set_alone(&mut self) {
        self.alone = true;
    }

    fn rest(&mut self, another: bool) {
        if another {
            self.shared.slots.linger(self.slot);
        } else {
            wait::rest(self.header(), false);
        }
    }

    fn interrupter(&self) -> Arc<dyn Interrupter> {
        Arc::new(Signaller { shared: Arc::clone(&self.shared), slot: self.slot, process: self.process, thread: self.thread })
    }

    fn finish(mut self: Box<Self>, last: bool) {
        self.finished = true;
        if last {
            self.interrupter().kill();
        } else if self.finish_birth().is_ok() {
            wait::give(self.header(), TURN_EXIT);
        }
    }
}

impl SystrapThread {
    fn saved_floating_point(&self) -> Vec<u8> {
        self.floating_point_area().map_or_else(Vec::new, |(offset, size)| self.copy_area(offset, size))
    }

    fn copy_area(&self, offset: u64, size: usize) -> Vec<u8> {
        let mut state = vec![0; size];
        // SAFETY: the area was checked to lie within the slot.
        unsafe { std::ptr::copy_nonoverlapping(self.shared.slots.pointer(self.slot, offset), state.as_mut_ptr(), size) };
        state
    }

    fn replace_floating_point(&self, state: &[u8]) -> bool {
        let Some((offset, size)) = self.floating_point_area() else { return false };
        if state.len() < LEGACY_STATE {
            return false;
        }
        // Copied once: what sizes it tells is looked at in the copy, which the guest cannot change any more.
        let mut new = self.copy_area(offset, size);
        new[..SW_MAGIC].copy_from_slice(&state[..SW_MAGIC]);
        let mxcsr = u32::from_le_bytes([state[24], state[25], state[26], state[27]]) & MXCSR_MASK;
        new[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        let word = |bytes: &[u8], at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if size >= LEGACY_STATE + XSAVE_HEADER {
            let xstate = (word(&new, SW_XSTATE_SIZE) as usize).min(size);
            let header = LEGACY_STATE..LEGACY_STATE + XSAVE_HEADER;
            new[header.clone()].fill(0);
            if word(state, SW_MAGIC) == FP_XSTATE_MAGIC1 && state.len() >= xstate && xstate >= header.end {
                new[header.end..xstate].copy_from_slice(&state[header.end..xstate]);
                // Only features that this processor saves: anything else makes the host refuse the whole frame.
                for index in 0..8 {
                    new[LEGACY_STATE + index] = state[LEGACY_STATE + index] & new[SW_FEATURES + index];
                }
            } else {
                new[LEGACY_STATE] = 3; // x87 and SSE are in the legacy part, the rest starts afresh
            }
        }
        // SAFETY: `new` has the area's size, which was checked to lie within the slot.
        unsafe { std::ptr::copy_nonoverlapping(new.as_ptr(), self.shared.slots.pointer(self.slot, offset), new.len()) };
        true
    }

    /// `ARCH_GET_FS` and `ARCH_GET_GS` write to memory: to the last call's result word, which no single call uses.
    fn segment_base(&mut self, code: u64) -> Result<u64, Gone> {
        let offset = (64 + (CALLS - 1) * size_of::<HostCall>() + 56) as u64;
        self.finish_birth()?;
        self.flush()?;
        self.call(raw::__NR_arch_prctl, &[code, Slots::guest_address(self.slot) + offset])?;
        Ok(self.word(offset))
    }
}

impl Drop for SystrapThread {
    fn drop(&mut self) {
        self.shared.slots.retire(self.process, self.slot);
    }
}
