//! The frame that a handler runs on, and the way back, `sigreturn(2)`; laid out as `arch/x86` has it.

use std::mem::offset_of;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::{Sigaction, Siginfo, StackT};
use cloudpilot_abi::{Errno, raw};
use cloudpilot_platform::{Executor, Registers};

use crate::syscall::SysResult;
use crate::task::{Task, Work};

/// `struct sigcontext`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SignalContext {
    registers: Registers,
    /// `cs`, `gs`, `fs`, `ss`.
    segments: [u16; 4],
    error: u64,
    trap: u64,
    old_mask: u64,
    fault_address: u64,
    floating_point: u64,
    reserved: [u64; 8],
}

/// `struct ucontext` with the kernel's short mask.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct UserContext {
    flags: u64,
    link: u64,
    stack: StackT,
    context: SignalContext,
    mask: u64,
}

/// `struct rt_sigframe`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Frame {
    return_address: u64,
    user: UserContext,
    info: Siginfo,
}

/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`.
const USER_FLAGS: u64 = 1 | 2 | 4;
/// Segment selectors of 64-bit programs.
const CODE_SELECTOR: u16 = 0x33;
const STACK_SELECTOR: u16 = 0x2b;
/// Bytes below the stack pointer that compiled code may use without saying so (System V ABI).
const RED_ZONE: u64 = 128;
/// `DF`, `RF` and `TF`, which a handler starts without.
const CLEARED_FLAGS: u64 = 0x400 | 0x1_0000 | 0x100;
/// Flags that `sigreturn` takes from the frame.
const RESTORED_FLAGS: u64 = 0x4_0000 | 0x1_0000 | 0x800 | 0x400 | 0x100 | 0x80 | 0x40 | 0x10 | 0x4 | 0x1;
/// Flags that are always set: interrupts on, and the reserved one.
const FIXED_FLAGS: u64 = 0x202;
/// Largest floating-point state that a frame is believed to hold: all that today's processors save, twice.
const LARGEST_STATE: usize = 32 << 10;

/// Whether the stack pointer lies on the alternate stack.
fn on_alternate_stack(stack: &StackT, pointer: u64) -> bool {
    stack.ss_flags & raw::SS_DISABLE as i32 == 0 && pointer > stack.ss_sp && pointer - stack.ss_sp <= stack.ss_size
}

/// What `sigaltstack(2)` reports for a task whose stack pointer is `pointer`.
pub fn reported_stack(stack: &StackT, pointer: u64) -> StackT {
    let mut reported = *stack;
    if stack.ss_size == 0 {
        reported.ss_flags = raw::SS_DISABLE as i32;
    } else if on_alternate_stack(stack, pointer) {
        reported.ss_flags |= raw::SS_ONSTACK as i32;
    }
    reported
}

/// Puts a frame on the stack and points the registers at the handler. `mask` is what the handler's return brings back.
pub fn push(task: &Arc<Task>, info: &Siginfo, action: &Sigaction, mask: u64) -> Result<(), Errno> {
    let mm = task.mm()?;
    let mut cpu = task.cpu.lock();
    let cpu = &mut *cpu;
    let alternate = task.signals.lock().alternate_stack;
    let mut pointer = cpu.registers.rsp.wrapping_sub(RED_ZONE);
    let wants_alternate = action.flags & u64::from(raw::SA_ONSTACK) != 0 && alternate.ss_size > 0;
    let mut bounds = None;
    if wants_alternate && !on_alternate_stack(&alternate, cpu.registers.rsp) {
        pointer = alternate.ss_sp + alternate.ss_size;
    }
    if wants_alternate {
        bounds = Some(alternate.ss_sp);
    }
    let state = cpu.guest.floating_point();
    let floating_point = pointer.checked_sub(state.len() as u64).ok_or(Errno::EFAULT)? & !63;
    let place = (floating_point.checked_sub(size_of::<Frame>() as u64).ok_or(Errno::EFAULT)? & !15) - 8;
    if bounds.is_some_and(|lowest| place < lowest) {
        return Err(Errno::EFAULT);
    }
    let mut frame = Frame::zeroed();
    frame.return_address = action.restorer;
    frame.user.flags = USER_FLAGS;
    frame.user.stack = reported_stack(&alternate, cpu.registers.rsp);
    frame.user.context.registers = cpu.registers;
    frame.user.context.segments = [CODE_SELECTOR, 0, 0, STACK_SELECTOR];
    frame.user.context.trap = cpu.trap.0;
    frame.user.context.fault_address = cpu.trap.1;
    frame.user.context.error = cpu.trap.2;
    frame.user.context.old_mask = mask;
    frame.user.context.floating_point = floating_point;
    frame.user.mask = mask;
    frame.info = *info;
    mm.write(&mut *cpu.guest, floating_point, &state)?;
    mm.write(&mut *cpu.guest, place, bytemuck::bytes_of(&frame))?;
    let registers = &mut cpu.registers;
    registers.rdi = info.si_signo as u64;
    registers.rsi = place + offset_of!(Frame, info) as u64;
    registers.rdx = place + offset_of!(Frame, user) as u64;
    registers.rax = 0;
    registers.rsp = place;
    registers.rip = action.handler;
    registers.eflags &= !CLEARED_FLAGS;
    if alternate.ss_flags as u32 & raw::SS_AUTODISARM != 0 && wants_alternate {
        task.signals.lock().alternate_stack = StackT { ss_flags: raw::SS_DISABLE as i32, ..StackT::default() };
    }
    Ok(())
}

/// `rt_sigreturn(2)`: brings back what the frame says; the frame is the guest's, so every word is checked or harmless.
pub fn return_from_handler(task: &Arc<Task>) -> SysResult {
    let mm = task.mm()?;
    let mut cpu = task.cpu.lock();
    let cpu = &mut *cpu;
    // The handler's `ret` took the return address off.
    let place = cpu.registers.rsp.wrapping_sub(8);
    let mut frame = Frame::zeroed();
    mm.read(&mut *cpu.guest, place, bytemuck::bytes_of_mut(&mut frame))?;
    let context = &frame.user.context;
    let mut registers = context.registers;
    registers.eflags = registers.eflags & RESTORED_FLAGS | FIXED_FLAGS;
    restore_floating_point(&mm, &mut *cpu.guest, context.floating_point)?;
    cpu.registers = registers;
    let mut signals = task.signals.lock();
    signals.mask = frame.user.mask & !super::UNBLOCKABLE;
    let stack = frame.user.stack;
    if !on_alternate_stack(&signals.alternate_stack, registers.rsp) {
        let disabled = stack.ss_flags as u32 & raw::SS_DISABLE != 0;
        signals.alternate_stack =
            if disabled { StackT::default() } else { StackT { ss_flags: stack.ss_flags & !(raw::SS_ONSTACK as i32), ..stack } };
    }
    drop(signals);
    task.add_work(Work::SIGNAL);
    Ok(registers.rax as usize)
}

fn restore_floating_point(mm: &crate::mm::Mm, guest: &mut dyn cloudpilot_platform::GuestThread, address: u64) -> Result<(), Errno> {
    if address == 0 {
        guest.reset_floating_point();
        return Ok(());
    }
    let length = guest.floating_point().len().min(LARGEST_STATE);
    let mut state = vec![0; length];
    mm.read(as_executor(guest), address, &mut state)?;
    if guest.set_floating_point(&state) { Ok(()) } else { Err(Errno::EFAULT) }
}

fn as_executor(guest: &mut dyn cloudpilot_platform::GuestThread) -> &mut dyn Executor {
    guest
}
