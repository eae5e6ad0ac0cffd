//! Registers of a tracee: as one structure, word by word, and in sets.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::Errno;
use cloudpilot_abi::types::Iovec;

use crate::syscall::SysResult;
use crate::task::Task;

const NT_PRSTATUS: u64 = 1;
const NT_FPREGSET: u64 = 2;
const NT_X86_XSTATE: u64 = 0x202;
/// Bytes of the legacy part of the vector state.
pub(super) const FXSAVE: usize = 512;
/// Where the signal frame's own words lie in it, and where debuggers look for the features in use.
const SOFTWARE_BYTES: usize = 464;
/// Where in it the control word of vector instructions lies, the bits that it may have, and what those are where the processor does not tell.
const CONTROL: usize = 24;
const CONTROL_MASK: usize = 28;
const LEAST_CONTROL_MASK: u32 = 0xffbf;
/// Where in `struct user` the debug registers lie.
const DEBUG_REGISTERS: std::ops::Range<u64> = 848..912;
/// The bits of the last of them that switch breakpoints on.
const BREAKPOINTS_ON: u64 = 0xff;

/// `struct user_regs_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
pub(super) struct UserRegisters {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbp: u64,
    rbx: u64,
    r11: u64,
    pub(super) r10: u64,
    pub(super) r9: u64,
    pub(super) r8: u64,
    pub(super) rax: u64,
    rcx: u64,
    pub(super) rdx: u64,
    pub(super) rsi: u64,
    pub(super) rdi: u64,
    pub(super) orig_rax: u64,
    pub(super) rip: u64,
    cs: u64,
    eflags: u64,
    pub(super) rsp: u64,
    ss: u64,
    fs_base: u64,
    gs_base: u64,
    segments: [u64; 4],
}

/// The part of a segment selector that says whose it is: the guest's all have it.
const RING: u64 = 3;
/// Flags that a tracer may change.
const CHANGEABLE_FLAGS: u64 = 0x4_0000 | 0x1_0000 | 0x800 | 0x400 | 0x80 | 0x40 | 0x10 | 0x4 | 0x1;

/// The general registers.
pub(super) fn registers(target: &Task) -> Result<UserRegisters, Errno> {
    let orig_rax = target.ptrace.state.lock().call;
    let mut cpu = target.cpu.lock();
    let of = cpu.registers;
    let fs_base = cpu.guest.fs_base().map_err(|_| Errno::ESRCH)?;
    let gs_base = cpu.guest.gs_base().map_err(|_| Errno::ESRCH)?;
    Ok(UserRegisters {
        r15: of.r15,
        r14: of.r14,
        r13: of.r13,
        r12: of.r12,
        rbp: of.rbp,
        rbx: of.rbx,
        r11: of.r11,
        r10: of.r10,
        r9: of.r9,
        r8: of.r8,
        rax: of.rax,
        rcx: of.rcx,
        rdx: of.rdx,
        rsi: of.rsi,
        rdi: of.rdi,
        orig_rax,
        rip: of.rip,
        cs: 0x33,
        eflags: of.eflags,
        rsp: of.rsp,
        ss: 0x2b,
        fs_base,
        gs_base,
        segments: [0; 4],
    })
}

/// Changes them: `EIO` for what no program could have.
pub(super) fn set_registers(target: &Task, new: &UserRegisters) -> Result<(), Errno> {
    let old = registers(target)?;
    let highest = target.kernel.platform.address_limits().highest;
    let is_foreign = |selector: u64| selector & 0xffff != 0 && selector & RING != RING;
    let null = [new.cs, new.ss].iter().any(|selector| selector & 0xffff == 0);
    if null || [new.cs, new.ss].into_iter().chain(new.segments).any(is_foreign) || new.fs_base >= highest || new.gs_base >= highest {
        return Err(Errno::EIO);
    }
    target.ptrace.state.lock().call = new.orig_rax;
    let mut cpu = target.cpu.lock();
    let of = &mut cpu.registers;
    (of.r15, of.r14, of.r13, of.r12) = (new.r15, new.r14, new.r13, new.r12);
    (of.r11, of.r10, of.r9, of.r8) = (new.r11, new.r10, new.r9, new.r8);
    (of.rbp, of.rbx, of.rax, of.rcx) = (new.rbp, new.rbx, new.rax, new.rcx);
    (of.rdx, of.rsi, of.rdi) = (new.rdx, new.rsi, new.rdi);
    (of.rip, of.rsp) = (new.rip, new.rsp);
    of.eflags = of.eflags & !CHANGEABLE_FLAGS | new.eflags & CHANGEABLE_FLAGS;
    if new.fs_base != old.fs_base {
        cpu.guest.set_fs_base(new.fs_base).map_err(|_| Errno::EIO)?;
    }
    if new.gs_base != old.gs_base {
        cpu.guest.set_gs_base(new.gs_base).map_err(|_| Errno::EIO)?;
    }
    Ok(())
}

fn debug_register(offset: u64) -> usize {
    (offset - DEBUG_REGISTERS.start) as usize / size_of::<u64>()
}

/// Addresses of breakpoints are kept; none can be switched on.
fn set_debug_register(target: &Task, number: usize, value: u64) -> SysResult {
    match number {
        0..4 if value >= target.kernel.platform.address_limits().highest => return Err(Errno::EINVAL),
        4 | 5 => return Err(Errno::EIO),
        7 if value & BREAKPOINTS_ON != 0 => return Err(Errno::EINVAL),
        _ => {}
    }
    target.ptrace.state.lock().debug[number] = value;
    Ok(0)
}

/// `PTRACE_PEEKUSER`: a word of `struct user`. `EIO` outside of it and between words.
pub(super) fn peek_user(task: &Arc<Task>, target: &Arc<Task>, offset: u64, data: u64) -> SysResult {
    let value = if DEBUG_REGISTERS.contains(&offset) && offset.is_multiple_of(8) {
        target.ptrace.state.lock().debug[debug_register(offset)]
    } else {
        let all = registers(target)?;
        let words: &[u64] = bytemuck::cast_slice(bytemuck::bytes_of(&all));
        // Behind the registers come words that nobody has used for long.
        match offset {
            _ if !offset.is_multiple_of(8) || offset >= DEBUG_REGISTERS.end => return Err(Errno::EIO),
            _ => words.get(offset as usize / 8).copied().unwrap_or(0),
        }
    };
    task.write(data, &value).map(|()| 0)
}

/// `PTRACE_POKEUSER`: changes one. `EIO` where nothing can be changed.
pub(super) fn poke_user(target: &Arc<Task>, offset: u64, value: u64) -> SysResult {
    if DEBUG_REGISTERS.contains(&offset) && offset.is_multiple_of(8) {
        return set_debug_register(target, debug_register(offset), value);
    }
    let mut all = registers(target)?;
    let words: &mut [u64] = bytemuck::cast_slice_mut(bytemuck::bytes_of_mut(&mut all));
    if !offset.is_multiple_of(8) {
        return Err(Errno::EIO);
    }
    *words.get_mut(offset as usize / 8).ok_or(Errno::EIO)? = value;
    set_registers(target, &all).map(|()| 0)
}

/// The vector state as debuggers read it: the features in use stand where the signal frame has words of its own.
pub(super) fn vector_state(target: &Task) -> Vec<u8> {
    let mut state = target.cpu.lock().guest.floating_point();
    if state.len() >= FXSAVE {
        let features: [u8; 8] = state[SOFTWARE_BYTES + 8..SOFTWARE_BYTES + 16].try_into().unwrap_or_default();
        state[SOFTWARE_BYTES..FXSAVE].fill(0);
        state[SOFTWARE_BYTES..SOFTWARE_BYTES + 8].copy_from_slice(&features);
        // The mark at the end is the signal frame's.
        state.truncate(state.len() & !7);
    }
    state
}

/// Changes it, or its legacy part.
pub(super) fn set_vector_state(target: &Task, bytes: &[u8]) -> SysResult {
    let mut cpu = target.cpu.lock();
    let mut state = cpu.guest.floating_point();
    let length = bytes.len().min(state.len() & !7);
    let word = |at: usize, of: &[u8]| of.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    let known = word(CONTROL_MASK, &state).filter(|mask| *mask != 0).unwrap_or(LEAST_CONTROL_MASK);
    if word(CONTROL, bytes).is_some_and(|control| control & !known != 0) {
        return Err(Errno::EINVAL);
    }
    let kept: Vec<u8> = state.get(SOFTWARE_BYTES..FXSAVE).ok_or(Errno::EIO)?.to_vec();
    state[..length].copy_from_slice(&bytes[..length]);
    state[SOFTWARE_BYTES..FXSAVE].copy_from_slice(&kept);
    if cpu.guest.set_floating_point(&state) { Ok(0) } else { Err(Errno::EINVAL) }
}

/// `PTRACE_GETREGSET` and `PTRACE_SETREGSET`. `EINVAL` for unknown sets and parts of words.
pub(super) fn register_set(task: &Arc<Task>, target: &Arc<Task>, set: bool, kind: u64, vector: u64) -> SysResult {
    let piece: Iovec = task.read(vector)?;
    let length = usize::try_from(piece.iov_len).unwrap_or(usize::MAX);
    if !length.is_multiple_of(size_of::<u64>()) {
        return Err(Errno::EINVAL);
    }
    let known = match kind {
        NT_PRSTATUS => bytemuck::bytes_of(&registers(target)?).to_vec(),
        NT_FPREGSET => vector_state(target).into_iter().take(FXSAVE).collect(),
        NT_X86_XSTATE => vector_state(target),
        _ => return Err(Errno::EINVAL),
    };
    let length = length.min(known.len());
    // Vector states are changed as a whole.
    match kind {
        NT_FPREGSET if set && length != known.len() => return Err(Errno::EINVAL),
        NT_X86_XSTATE if set && length != known.len() => return Err(Errno::EFAULT),
        _ => {}
    }
    if set {
        let mut bytes = known;
        task.read_bytes(piece.iov_base, &mut bytes[..length])?;
        if kind == NT_PRSTATUS {
            set_registers(target, &bytemuck::pod_read_unaligned(&bytes))?;
        } else {
            set_vector_state(target, &bytes)?;
        }
    } else {
        task.write_bytes(piece.iov_base, &known[..length])?;
    }
    task.write(vector, &Iovec { iov_len: length as u64, ..piece })?;
    Ok(0)
}
