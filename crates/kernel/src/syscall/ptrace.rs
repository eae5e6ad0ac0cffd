//! `ptrace(2)`: what a tracer asks of and does to its tracees.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::{Iovec, Siginfo};
use cloudpilot_abi::{Errno, raw};

use super::Arg::{Int, Ptr, Size};
use super::{Args, Call, SysResult};
use crate::fs::proc;
use crate::ptrace::{self, Place, Resume};
use crate::signal;
use crate::task::Task;

/// This family.
pub const CALLS: &[Call] = &[Call::partial(
    raw::__NR_ptrace,
    ptrace_call,
    &[Int, Int, Ptr, Size],
    "no debug registers; signals of stopped groups are reported once",
)];

const TRACEME: i64 = 0;
const PEEKTEXT: i64 = 1;
const PEEKDATA: i64 = 2;
const PEEKUSER: i64 = 3;
const POKETEXT: i64 = 4;
const POKEDATA: i64 = 5;
const POKEUSER: i64 = 6;
const CONT: i64 = 7;
const KILL: i64 = 8;
const SINGLESTEP: i64 = 9;
const GETREGS: i64 = 12;
const SETREGS: i64 = 13;
const GETFPREGS: i64 = 14;
const SETFPREGS: i64 = 15;
const ATTACH: i64 = 16;
const DETACH: i64 = 17;
const SYSCALL: i64 = 24;
const SYSEMU: i64 = 31;
const SETOPTIONS: i64 = 0x4200;
const GETEVENTMSG: i64 = 0x4201;
const GETSIGINFO: i64 = 0x4202;
const SETSIGINFO: i64 = 0x4203;
const GETREGSET: i64 = 0x4204;
const SETREGSET: i64 = 0x4205;
const SEIZE: i64 = 0x4206;
const INTERRUPT: i64 = 0x4207;
const LISTEN: i64 = 0x4208;
const PEEKSIGINFO: i64 = 0x4209;
const GETSIGMASK: i64 = 0x420a;
const SETSIGMASK: i64 = 0x420b;
const GET_SYSCALL_INFO: i64 = 0x420e;
/// All options.
const OPTIONS: u32 = 0x0030_00ff;
const NT_PRSTATUS: u64 = 1;
const NT_FPREGSET: u64 = 2;
const NT_X86_XSTATE: u64 = 0x202;
/// Bytes of the legacy part of the vector state.
const FXSAVE: usize = 512;
/// Where the signal frame's own words lie in it, and where debuggers look for the features in use.
const SOFTWARE_BYTES: usize = 464;
/// Where in `struct user` the debug registers lie.
const DEBUG_REGISTERS: std::ops::Range<u64> = 848..912;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// `struct user_regs_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct UserRegisters {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbp: u64,
    rbx: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rax: u64,
    rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    orig_rax: u64,
    rip: u64,
    cs: u64,
    eflags: u64,
    rsp: u64,
    ss: u64,
    fs_base: u64,
    gs_base: u64,
    segments: [u64; 4],
}

/// Flags that a tracer may change.
const CHANGEABLE_FLAGS: u64 = 0x4_0000 | 0x1_0000 | 0x800 | 0x400 | 0x80 | 0x40 | 0x10 | 0x4 | 0x1;

fn registers(target: &Task) -> Result<UserRegisters, Errno> {
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

fn set_registers(target: &Task, new: &UserRegisters) -> Result<(), Errno> {
    let old = registers(target)?;
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

fn ptrace_call(task: &Arc<Task>, args: &Args) -> SysResult {
    let (request, pid, address, data) = (args.long(0), args.int(1), args.raw(2), args.raw(3));
    if request == TRACEME {
        let parent = task.process.family.lock().parent.upgrade().ok_or(Errno::EPERM)?;
        return ptrace::attach(&parent, task, 0, false).map(|()| 0);
    }
    let target = task.find_task(pid).ok_or(Errno::ESRCH)?;
    if matches!(request, ATTACH | SEIZE) {
        let seizes = request == SEIZE;
        let options = if seizes { options(data).map_err(|_| Errno::EIO)? } else { 0 };
        if seizes && address != 0 {
            return Err(Errno::EIO);
        }
        if Arc::ptr_eq(&target.process, &task.process) || !proc::may_trace(task, &target) {
            return Err(Errno::EPERM);
        }
        ptrace::attach(&task.process, &target, options, seizes)?;
        if seizes {
            return Ok(0);
        }
        signal::send_to_task(&target, &signal::info_from_task(task, raw::SIGSTOP as i32, raw::SI_USER as i32));
        return Ok(0);
    }
    let is_mine = target.ptrace.tracer().is_some_and(|tracer| Arc::ptr_eq(&tracer, &task.process));
    if !is_mine {
        return Err(Errno::ESRCH);
    }
    if request == KILL {
        signal::send_to_process(&target.process, &signal::info_from_kernel(raw::SIGKILL as i32));
        return Ok(0);
    }
    if request == INTERRUPT {
        let seized = target.ptrace.state.lock().seized;
        if !seized {
            return Err(Errno::EIO);
        }
        ptrace::interrupt(&target);
        return Ok(0);
    }
    if target.ptrace.state.lock().stop.is_none() {
        return Err(Errno::ESRCH);
    }
    match request {
        LISTEN => ptrace::listen(&target).map(|()| 0),
        PEEKSIGINFO => peek_signals(task, &target, address, data),
        CONT | SYSCALL | SYSEMU | SINGLESTEP | DETACH => go_on(&target, request, data),
        PEEKTEXT | PEEKDATA => {
            let mut word = [0; 8];
            if target.mm()?.read_foreign(address, &mut word) < word.len() {
                return Err(Errno::EIO);
            }
            task.write_bytes(data, &word).map(|()| 0)
        }
        POKETEXT | POKEDATA => match target.mm()?.write_foreign(address, &data.to_le_bytes(), true)? {
            8 => Ok(0),
            _ => Err(Errno::EIO),
        },
        PEEKUSER => peek_user(task, &target, address, data),
        POKEUSER => poke_user(&target, address, data),
        GETREGS => task.write(data, &registers(&target)?).map(|()| 0),
        SETREGS => set_registers(&target, &task.read(data)?).map(|()| 0),
        GETFPREGS => {
            let state = vector_state(&target);
            task.write_bytes(data, state.get(..FXSAVE).ok_or(Errno::EIO)?).map(|()| 0)
        }
        SETFPREGS => {
            let bytes: Vec<u8> = task.read_slice(data, FXSAVE)?;
            set_vector_state(&target, &bytes)
        }
        GETREGSET | SETREGSET => register_set(task, &target, request == SETREGSET, address, data),
        SETOPTIONS => {
            target.ptrace.state.lock().options = options(data)?;
            Ok(0)
        }
        GETEVENTMSG => {
            let message = target.ptrace.state.lock().message;
            task.write(data, &message).map(|()| 0)
        }
        GETSIGINFO => {
            let info = target.ptrace.state.lock().stop.and_then(|stop| stop.info).ok_or(Errno::EINVAL)?;
            task.write(data, &info).map(|()| 0)
        }
        SETSIGINFO => {
            let info: Siginfo = task.read(data)?;
            let mut state = target.ptrace.state.lock();
            state.changed = Some(info);
            if let Some(stop) = &mut state.stop {
                stop.info = Some(info);
            }
            Ok(0)
        }
        GETSIGMASK | SETSIGMASK if address != 8 => Err(Errno::EINVAL),
        GETSIGMASK => {
            let mask = target.signals.lock().mask;
            task.write(data, &mask).map(|()| 0)
        }
        SETSIGMASK => {
            let mask: u64 = task.read(data)?;
            signal::set_mask(&target, mask);
            Ok(0)
        }
        GET_SYSCALL_INFO => call_info(task, &target, address, data),
        _ => Err(Errno::EIO),
    }
}

/// `PTRACE_O_*` out of an argument.
fn options(given: u64) -> Result<u32, Errno> {
    u32::try_from(given).ok().filter(|options| options & !OPTIONS == 0).ok_or(Errno::EINVAL)
}

/// `PTRACE_PEEKSIGINFO`: signals that are pending, by `struct ptrace_peeksiginfo_args`.
fn peek_signals(task: &Arc<Task>, target: &Arc<Task>, arguments: u64, data: u64) -> SysResult {
    const SHARED: u32 = 1;
    let first: u64 = task.read(arguments)?;
    let [flags, count]: [u32; 2] = task.read(arguments.wrapping_add(8))?;
    let count = i32::try_from(count).map_err(|_| Errno::EINVAL)?;
    if flags & !SHARED != 0 {
        return Err(Errno::EINVAL);
    }
    let pending = if flags & SHARED != 0 { target.process.signals.lock().pending.clone() } else { target.signals.lock().pending.clone() };
    let wanted = pending.iter().skip(usize::try_from(first).unwrap_or(usize::MAX)).take(count as usize);
    let mut done = 0;
    for (index, info) in wanted.enumerate() {
        task.write(data.wrapping_add((index * size_of::<Siginfo>()) as u64), info)?;
        done += 1;
    }
    Ok(done)
}

fn go_on(target: &Arc<Task>, request: i64, data: u64) -> SysResult {
    let number = i32::try_from(data).ok().filter(|number| *number == 0 || signal::bit(*number) != 0).ok_or(Errno::EIO)?;
    match request {
        DETACH => ptrace::detach(target, number),
        SYSCALL => ptrace::resume(target, Resume::Call, number),
        SYSEMU => ptrace::resume(target, Resume::Emulate, number),
        SINGLESTEP => ptrace::resume(target, Resume::Step, number),
        _ => ptrace::resume(target, Resume::Continue, number),
    }
    Ok(0)
}

fn peek_user(task: &Arc<Task>, target: &Arc<Task>, offset: u64, data: u64) -> SysResult {
    let value = if DEBUG_REGISTERS.contains(&offset) {
        0
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

fn poke_user(target: &Arc<Task>, offset: u64, value: u64) -> SysResult {
    if DEBUG_REGISTERS.contains(&offset) {
        return if value == 0 { Ok(0) } else { Err(Errno::EINVAL) };
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
fn vector_state(target: &Task) -> Vec<u8> {
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

fn set_vector_state(target: &Task, bytes: &[u8]) -> SysResult {
    let mut cpu = target.cpu.lock();
    let mut state = cpu.guest.floating_point();
    let length = bytes.len().min(state.len() & !7);
    let kept: Vec<u8> = state.get(SOFTWARE_BYTES..FXSAVE).ok_or(Errno::EIO)?.to_vec();
    state[..length].copy_from_slice(&bytes[..length]);
    state[SOFTWARE_BYTES..FXSAVE].copy_from_slice(&kept);
    if cpu.guest.set_floating_point(&state) { Ok(0) } else { Err(Errno::EINVAL) }
}

fn register_set(task: &Arc<Task>, target: &Arc<Task>, set: bool, kind: u64, vector: u64) -> SysResult {
    let piece: Iovec = task.read(vector)?;
    let length = usize::try_from(piece.iov_len).unwrap_or(usize::MAX);
    let known = match kind {
        NT_PRSTATUS => bytemuck::bytes_of(&registers(target)?).to_vec(),
        NT_FPREGSET => vector_state(target).into_iter().take(FXSAVE).collect(),
        NT_X86_XSTATE => vector_state(target),
        _ => return Err(Errno::EINVAL),
    };
    let length = length.min(known.len());
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

/// `struct ptrace_syscall_info`, without what follows the common part.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CallInfo {
    kind: u8,
    pad: [u8; 3],
    architecture: u32,
    instruction: u64,
    stack: u64,
}

fn call_info(task: &Arc<Task>, target: &Arc<Task>, room: u64, data: u64) -> SysResult {
    let place = target.ptrace.state.lock().stop.map_or(Place::Elsewhere, |stop| stop.place);
    let all = registers(target)?;
    let kind = match place {
        Place::Elsewhere => 0,
        Place::Entry => 1,
        Place::Exit => 2,
        Place::Filter(_) => 3,
    };
    let head = CallInfo { kind, pad: [0; 3], architecture: AUDIT_ARCH_X86_64, instruction: all.rip, stack: all.rsp };
    let mut bytes = bytemuck::bytes_of(&head).to_vec();
    match place {
        Place::Elsewhere => {}
        Place::Entry | Place::Filter(_) => {
            let words = [all.orig_rax, all.rdi, all.rsi, all.rdx, all.r10, all.r8, all.r9];
            bytes.extend_from_slice(bytemuck::cast_slice(&words));
            if let Place::Filter(word) = place {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        Place::Exit => {
            bytes.extend_from_slice(&all.rax.to_le_bytes());
            bytes.push(u8::from((-4095..0).contains(&(all.rax as i64))));
        }
    }
    let length = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
    task.write_bytes(data, &bytes[..length])?;
    Ok(bytes.len())
}
