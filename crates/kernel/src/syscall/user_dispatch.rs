//! Syscall user dispatch, `PR_SET_SYSCALL_USER_DISPATCH` of `prctl(2)`: a thread's calls from outside of one range of its code raise `SIGSYS`, so
//! that it can serve those of another system's programs itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};

use crate::config::ExitStatus;
use crate::signal;
use crate::task::{Task, exit};

/// `PR_SYS_DISPATCH_OFF`.
const OFF: u64 = 0;
/// `PR_SYS_DISPATCH_ON`.
const ON: u64 = 1;
/// `SYSCALL_DISPATCH_FILTER_ALLOW`: what the selector says while calls are served.
const ALLOW: u8 = 0;
/// `SYSCALL_DISPATCH_FILTER_BLOCK`: while they are not.
const BLOCK: u8 = 1;
/// `SYS_USER_DISPATCH`, a code of `SIGSYS`.
const SYS_USER_DISPATCH: i32 = 2;
/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u64 = 0xc000_003e;

/// What a thread asked for, `struct ptrace_sud_config`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct UserDispatch {
    /// `PR_SYS_DISPATCH_*`.
    pub mode: u64,
    /// Address of the byte that says whether calls are served; 0 if they never are.
    pub selector: u64,
    /// Where the code starts whose calls are always served.
    pub offset: u64,
    /// Its length.
    pub length: u64,
}

/// Sets what a thread asked for. `EINVAL` for strange modes and ranges that wrap around, `EFAULT` for a selector that no program can have.
pub fn set(task: &Task, wanted: UserDispatch) -> Result<(), Errno> {
    let UserDispatch { mode, selector, offset, length } = wanted;
    match mode {
        OFF if offset == 0 && length == 0 && selector == 0 => {}
        ON if offset != 0 && offset.wrapping_add(length) <= offset => return Err(Errno::EINVAL),
        ON if selector >= task.kernel.platform.address_limits().highest => return Err(Errno::EFAULT),
        ON => {}
        _ => return Err(Errno::EINVAL),
    }
    *task.user_dispatch.lock() = wanted;
    task.is_dispatched.store(mode == ON, Ordering::SeqCst);
    Ok(())
}

/// A new program knows nothing of it.
pub fn forget(task: &Task) {
    *task.user_dispatch.lock() = UserDispatch::default();
    task.is_dispatched.store(false, Ordering::SeqCst);
}

/// Looks at a call before anybody else does; true if the thread is to serve it itself, or does not outlive it.
pub fn intercepts(task: &Arc<Task>, number: u32) -> bool {
    let UserDispatch { selector, offset, length, .. } = *task.user_dispatch.lock();
    let address = task.cpu.lock().registers.rip;
    if address.wrapping_sub(offset) < length {
        return false;
    }
    if selector != 0 {
        let fatal = match task.read::<u8>(selector) {
            Ok(ALLOW) => return false,
            Ok(BLOCK) => None,
            Ok(_) => Some(raw::SIGSYS),
            Err(_) => Some(raw::SIGSEGV),
        };
        if let Some(number) = fatal {
            exit::begin_group_exit(&task.process, ExitStatus::Signaled(number as u8));
            return true;
        }
    }
    let mut info: Siginfo = signal::info_from_kernel(raw::SIGSYS as i32);
    info.si_code = SYS_USER_DISPATCH;
    info.fields[0] = address;
    info.fields[1] = u64::from(number) | ARCHITECTURE << 32;
    signal::force(task, &info);
    true
}
