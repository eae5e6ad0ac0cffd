//! What a tracer may ask about a tracee beside its registers: its system call, its pending signals, its filters.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};

use super::registers::registers;
use crate::ptrace::Place;
use crate::syscall::SysResult;
use crate::syscall::user_dispatch::{self, UserDispatch};
use crate::task::Task;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// `SECCOMP_FILTER_FLAG_LOG`.
const FILTER_LOGS: u64 = 2;
/// Bytes of `struct seccomp_metadata`.
const METADATA_SIZE: u64 = 16;

/// `PTRACE_PEEKSIGINFO`: signals that are pending, by `struct ptrace_peeksiginfo_args`.
pub(super) fn peek_signals(task: &Arc<Task>, target: &Arc<Task>, arguments: u64, data: u64) -> SysResult {
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
        match task.write(data.wrapping_add((index * size_of::<Siginfo>()) as u64), info) {
            Ok(()) => done += 1,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
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

/// `PTRACE_GET_SYSCALL_INFO`.
pub(super) fn call_info(task: &Arc<Task>, target: &Arc<Task>, room: u64, data: u64) -> SysResult {
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

/// Who may look at filters: somebody with all rights whom none binds.
fn may_see_filters(task: &Task) -> Result<(), Errno> {
    if task.credentials().has(raw::CAP_SYS_ADMIN) && task.seccomp.is_disabled() { Ok(()) } else { Err(Errno::EACCES) }
}

/// `PTRACE_SECCOMP_GET_FILTER`: the program of a filter, counted from the oldest; answers its length.
pub(super) fn filter(task: &Arc<Task>, target: &Arc<Task>, index: u64, data: u64) -> SysResult {
    may_see_filters(task)?;
    let (program, _) = target.seccomp.nth(index)?;
    if data != 0 {
        task.write_bytes(data, bytemuck::cast_slice(&program))?;
    }
    Ok(program.len())
}

/// `PTRACE_SECCOMP_GET_METADATA`: flags of the filter whose number stands in the structure; answers how much of that was filled.
pub(super) fn metadata(task: &Arc<Task>, target: &Arc<Task>, room: u64, data: u64) -> SysResult {
    may_see_filters(task)?;
    let size = room.min(METADATA_SIZE) as usize;
    if size < size_of::<u64>() {
        return Err(Errno::EINVAL);
    }
    let index: u64 = task.read(data)?;
    let (_, logs) = target.seccomp.nth(index)?;
    let words = [index, if logs { FILTER_LOGS } else { 0 }];
    task.write_bytes(data, &bytemuck::bytes_of(&words)[..size])?;
    Ok(size)
}

/// `PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG` and `PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG`.
pub(super) fn dispatch(task: &Arc<Task>, target: &Arc<Task>, set: bool, size: u64, data: u64) -> SysResult {
    if size != size_of::<UserDispatch>() as u64 {
        return Err(Errno::EINVAL);
    }
    if set {
        user_dispatch::set(target, task.read(data)?)?;
    } else {
        let wanted = *target.user_dispatch.lock();
        task.write(data, &wanted)?;
    }
    Ok(0)
}
