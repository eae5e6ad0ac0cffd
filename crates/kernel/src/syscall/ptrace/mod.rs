//! `ptrace(2)`: what a tracer asks of and does to its tracees.

mod info;
mod registers;

use std::sync::Arc;

use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};

use self::registers::{FXSAVE, registers, set_registers, set_vector_state, vector_state};
use super::Arg::{Int, Ptr, Size};
use super::{Args, Call, SysResult};
use crate::fs::proc;
use crate::ptrace::{self, O_SUSPEND_SECCOMP, Resume};
use crate::signal;
use crate::task::Task;

/// This family.
pub const CALLS: &[Call] = &[Call::partial(raw::__NR_ptrace, ptrace_call, &[Int, Int, Ptr, Size], "no hardware breakpoints")];

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
const SECCOMP_GET_FILTER: i64 = 0x420c;
const SECCOMP_GET_METADATA: i64 = 0x420d;
const GET_SYSCALL_INFO: i64 = 0x420e;
const SET_SYSCALL_USER_DISPATCH_CONFIG: i64 = 0x4210;
const GET_SYSCALL_USER_DISPATCH_CONFIG: i64 = 0x4211;
const OLD_SETOPTIONS: i64 = 21;
const ARCH_PRCTL: i64 = 30;
const SYSEMU_SINGLESTEP: i64 = 32;
/// All options.
const OPTIONS: u32 = 0x0030_00ff;
fn ptrace_call(task: &Arc<Task>, args: &Args) -> SysResult {
    let (request, pid, address, data) = (args.long(0), args.int(1), args.raw(2), args.raw(3));
    if request == TRACEME {
        let (parent, maker) = {
            let family = task.process.family.lock();
            (family.parent.upgrade().ok_or(Errno::EPERM)?, family.maker.clone())
        };
        // The kernel itself waits for nobody: a tracee of it would stop for ever.
        if parent.is_init() {
            return Err(Errno::EPERM);
        }
        return ptrace::attach(&parent, maker, task, 0, false).map(|()| 0);
    }
    let Some(target) = task.find_task(pid) else {
        // What has ended is there, but cannot be traced.
        let has_ended = matches!(request, ATTACH | SEIZE) && task.find_process(pid).is_some();
        return Err(if has_ended { Errno::EPERM } else { Errno::ESRCH });
    };
    if matches!(request, ATTACH | SEIZE) {
        let seizes = request == SEIZE;
        if seizes && address != 0 {
            return Err(Errno::EIO);
        }
        let options =
            if seizes { options(task, data).map_err(|errno| if errno == Errno::EINVAL { Errno::EIO } else { errno })? } else { 0 };
        {
            let _guard = target.process.exec_guard.lock();
            if Arc::ptr_eq(&target.process, &task.process) || !proc::may_trace(task, &target) {
                return Err(Errno::EPERM);
            }
            ptrace::attach(&task.process, Arc::downgrade(task), &target, options, seizes)?;
        }
        if !seizes {
            signal::send_to_task(&target, &signal::info_from_kernel(raw::SIGSTOP as i32));
        }
        ptrace::settle(task, &target);
        return Ok(0);
    }
    if !target.ptrace.is_traced_by(task) {
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
        PEEKSIGINFO => info::peek_signals(task, &target, address, data),
        CONT | SYSCALL | SYSEMU | SYSEMU_SINGLESTEP | SINGLESTEP | DETACH => go_on(&target, request, data),
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
        PEEKUSER => registers::peek_user(task, &target, address, data),
        POKEUSER => registers::poke_user(&target, address, data),
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
        GETREGSET | SETREGSET => registers::register_set(task, &target, request == SETREGSET, address, data),
        SETOPTIONS | OLD_SETOPTIONS => {
            let options = options(task, data)?;
            target.ptrace.state.lock().options = options;
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
            let shown = state.stop.as_mut().and_then(|stop| stop.info.as_mut()).ok_or(Errno::EINVAL)?;
            *shown = info;
            state.changed = Some(info);
            Ok(0)
        }
        GETSIGMASK | SETSIGMASK if address != 8 => Err(Errno::EINVAL),
        GETSIGMASK => {
            let mask = {
                let signals = target.signals.lock();
                signals.saved_mask.unwrap_or(signals.mask)
            };
            task.write(data, &mask).map(|()| 0)
        }
        SETSIGMASK => {
            let mask: u64 = task.read(data)?;
            target.signals.lock().saved_mask = None;
            signal::set_mask(&target, mask);
            Ok(0)
        }
        SECCOMP_GET_FILTER => info::filter(task, &target, address, data),
        SECCOMP_GET_METADATA => info::metadata(task, &target, address, data),
        GET_SYSCALL_INFO => info::call_info(task, &target, address, data),
        SET_SYSCALL_USER_DISPATCH_CONFIG => info::dispatch(task, &target, true, address, data),
        GET_SYSCALL_USER_DISPATCH_CONFIG => info::dispatch(task, &target, false, address, data),
        ARCH_PRCTL => super::limits::segment_base(task, &target, data as u32, address),
        _ => Err(Errno::EIO),
    }
}

/// `PTRACE_O_*` out of an argument: `EINVAL` for unknown ones, `EPERM` for who may not let a tracee escape its filters.
fn options(task: &Task, given: u64) -> Result<u32, Errno> {
    let options = u32::try_from(given).ok().filter(|options| options & !OPTIONS == 0).ok_or(Errno::EINVAL)?;
    let is_free = || task.seccomp.is_disabled() && task.ptrace.state.lock().options & O_SUSPEND_SECCOMP == 0;
    if options & O_SUSPEND_SECCOMP != 0 && !(task.credentials().has(raw::CAP_SYS_ADMIN) && is_free()) {
        return Err(Errno::EPERM);
    }
    Ok(options)
}

fn go_on(target: &Arc<Task>, request: i64, data: u64) -> SysResult {
    let number = i32::try_from(data).ok().filter(|number| *number == 0 || signal::bit(*number) != 0).ok_or(Errno::EIO)?;
    match request {
        DETACH => ptrace::detach(target, number),
        SYSCALL => ptrace::resume(target, Resume::Call, number),
        SYSEMU => ptrace::resume(target, Resume::Emulate, number),
        SYSEMU_SINGLESTEP => ptrace::resume(target, Resume::EmulateStep, number),
        SINGLESTEP => ptrace::resume(target, Resume::Step, number),
        _ => ptrace::resume(target, Resume::Continue, number),
    }
    Ok(0)
}
