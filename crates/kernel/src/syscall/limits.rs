//! Resource limits, `prctl(2)` and `arch_prctl(2)`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::{Errno, raw, raw_prctl};

use super::Arg::{Flags, Int, Ptr, Size};
use super::{Args, Call, SysResult, credentials};
use crate::task::Task;

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_getrlimit, getrlimit, &[Int, Ptr]),
    Call::full(raw::__NR_setrlimit, setrlimit, &[Int, Ptr]),
    Call::full(raw::__NR_prlimit64, prlimit64, &[Int, Int, Ptr, Ptr]),
    Call::partial(raw::__NR_prctl, prctl, &[Int, Size, Size, Size, Size], "options about hardware, debugging and filters are EINVAL"),
    Call::partial(raw::__NR_arch_prctl, arch_prctl, &[Flags, Ptr], "segment bases only"),
];

type Limit = [u64; 2];

/// Largest `RLIMIT_NOFILE` that anybody can set, `fs.nr_open`.
const NR_OPEN: u64 = 1_048_576;

fn get(task: &Task, which: u32) -> Result<Limit, Errno> {
    let limits = task.process.limits.lock();
    limits.0.get(which as usize).map(|(soft, hard)| [*soft, *hard]).ok_or(Errno::EINVAL)
}

/// Sets a limit of `target` with the rights of `task`.
fn set(task: &Task, target: &Task, which: u32, [soft, hard]: Limit) -> Result<(), Errno> {
    let mut limits = target.process.limits.lock();
    let limit = limits.0.get_mut(which as usize).ok_or(Errno::EINVAL)?;
    if soft > hard {
        return Err(Errno::EINVAL);
    }
    // The sandbox's own limits stand above those of programs.
    let ceiling = if which == raw::RLIMIT_NOFILE { NR_OPEN.min(u64::from(task.kernel.limits.open_files)) } else { u64::MAX };
    if hard > limit.1 && (!task.credentials().has(raw::CAP_SYS_RESOURCE) || hard > ceiling) {
        return Err(Errno::EPERM);
    }
    *limit = (soft, hard);
    Ok(())
}

fn getrlimit(task: &Arc<Task>, args: &Args) -> SysResult {
    let limit = get(task, args.uint(0))?;
    task.write(args.raw(1), &limit)?;
    Ok(0)
}

fn setrlimit(task: &Arc<Task>, args: &Args) -> SysResult {
    let limit: Limit = task.read(args.raw(1))?;
    set(task, task, args.uint(0), limit).map(|()| 0)
}

fn prlimit64(task: &Arc<Task>, args: &Args) -> SysResult {
    let target = match args.int(0) {
        0 => Arc::clone(task),
        pid => task.find_task(pid).ok_or(Errno::ESRCH)?,
    };
    let (own, other) = (task.credentials(), target.credentials());
    let same = [other.ruid, other.euid, other.suid].iter().all(|uid| *uid == own.ruid)
        && [other.rgid, other.egid, other.sgid].iter().all(|gid| *gid == own.rgid);
    if !Arc::ptr_eq(&target.process, &task.process) && !same && !own.has_in(&other.user, raw::CAP_SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    let old = get(&target, args.uint(1))?;
    if args.raw(2) != 0 {
        let new: Limit = task.read(args.raw(2))?;
        set(task, &target, args.uint(1), new)?;
    }
    if args.raw(3) != 0 {
        task.write(args.raw(3), &old)?;
    }
    Ok(0)
}

const ARCH_SET_GS: u32 = 0x1001;
const ARCH_SET_FS: u32 = 0x1002;
const ARCH_GET_FS: u32 = 0x1003;
const ARCH_GET_GS: u32 = 0x1004;

fn arch_prctl(task: &Arc<Task>, args: &Args) -> SysResult {
    segment_base(task, task, args.uint(0), args.raw(1))
}

/// Sets or tells a segment base of `target`, which is the caller or stopped for it.
pub(super) fn segment_base(task: &Arc<Task>, target: &Arc<Task>, code: u32, address: u64) -> SysResult {
    let highest = task.kernel.platform.address_limits().highest;
    if matches!(code, ARCH_SET_FS | ARCH_SET_GS) && address >= highest {
        return Err(Errno::EPERM);
    }
    if code == ARCH_SET_GS {
        target.mm()?.end_patching(&mut *target.cpu.lock().guest);
    }
    let value = {
        let mut cpu = target.cpu.lock();
        match code {
            ARCH_SET_FS => cpu.guest.set_fs_base(address).map(|()| None),
            ARCH_SET_GS => cpu.guest.set_gs_base(address).map(|()| None),
            ARCH_GET_FS => cpu.guest.fs_base().map(Some),
            ARCH_GET_GS => cpu.guest.gs_base().map(Some),
            _ => return Err(Errno::EINVAL),
        }
    };
    if let Some(value) = value.map_err(|_| Errno::ESRCH)? {
        task.write(address, &value)?;
    }
    Ok(0)
}

/// Bytes of `comm` with its end.
const NAME_SIZE: usize = 16;
/// `PR_CAP_AMBIENT_*`.
const AMBIENT_IS_SET: u64 = 1;
const AMBIENT_RAISE: u64 = 2;
const AMBIENT_LOWER: u64 = 3;
const AMBIENT_CLEAR_ALL: u64 = 4;
/// `SECBIT_KEEP_CAPS`.
const KEEP_CAPS: u32 = 1 << 4;
/// Bits of `securebits` that exist.
const ALL_SECUREBITS: u64 = 0xfff;
/// Every second bit locks the one below it.
const SECUREBIT_LOCKS: u64 = 0xaaa;
/// `SECBIT_KEEP_CAPS_LOCKED`.
const KEEP_CAPS_LOCKED: u32 = 1 << 5;
/// `SECBIT_NO_CAP_AMBIENT_RAISE`.
const NO_AMBIENT_RAISE: u32 = 1 << 6;
/// `PR_GET_TSC`, `PR_SET_TSC`: reading the time-stamp counter cannot be forbidden.
const PR_GET_TSC: u32 = 25;
const PR_SET_TSC: u32 = 26;
const TSC_ENABLE: u32 = 1;
/// `PR_SET_VMA` and its only attribute.
const PR_SET_VMA: u32 = 0x5356_4d41;

fn prctl(task: &Arc<Task>, args: &Args) -> SysResult {
    let (option, value) = (args.uint(0), args.raw(1));
    let process = &task.process;
    let own = task.credentials();
    match option {
        raw_prctl::PR_SET_NAME => {
            let mut name = Vec::new();
            for index in 0..NAME_SIZE as u64 - 1 {
                match task.read::<u8>(value.wrapping_add(index))? {
                    0 => break,
                    byte => name.push(byte),
                }
            }
            *task.name.lock() = name;
            Ok(0)
        }
        raw_prctl::PR_GET_NAME => {
            let mut bytes = [0; NAME_SIZE];
            let name = task.name.lock().clone();
            bytes[..name.len()].copy_from_slice(&name);
            task.write(value, &bytes)?;
            Ok(0)
        }
        raw_prctl::PR_SET_PDEATHSIG if value <= crate::signal::HIGHEST as u64 => {
            task.parent_death_signal.store(value as i32, Ordering::Relaxed);
            Ok(0)
        }
        raw_prctl::PR_GET_PDEATHSIG => task.write(value, &task.parent_death_signal.load(Ordering::Relaxed)).map(|()| 0),
        raw_prctl::PR_SET_DUMPABLE if value <= 1 => {
            process.dumpable.store(value as u32, Ordering::Relaxed);
            Ok(0)
        }
        raw_prctl::PR_GET_DUMPABLE => Ok(process.dumpable.load(Ordering::Relaxed) as usize),
        raw_prctl::PR_SET_CHILD_SUBREAPER => {
            process.reaps_descendants.store(value != 0, Ordering::Relaxed);
            Ok(0)
        }
        raw_prctl::PR_GET_CHILD_SUBREAPER => task.write(value, &i32::from(process.reaps_descendants.load(Ordering::Relaxed))).map(|()| 0),
        raw_prctl::PR_SET_NO_NEW_PRIVS if value == 1 && args.0[2..5] == [0; 3] => credentials::change(task, |new| {
            new.no_new_privs = true;
            Ok(())
        }),
        PR_GET_TSC => task.write(value, &TSC_ENABLE).map(|()| 0),
        PR_SET_TSC if value == u64::from(TSC_ENABLE) => Ok(0),
        raw_prctl::PR_GET_NO_NEW_PRIVS if args.0[1..5] != [0; 4] => Err(Errno::EINVAL),
        raw_prctl::PR_GET_NO_NEW_PRIVS => Ok(usize::from(own.no_new_privs)),
        raw_prctl::PR_SET_KEEPCAPS if value <= 1 => credentials::change(task, |new| {
            if new.securebits & KEEP_CAPS_LOCKED != 0 {
                return Err(Errno::EPERM);
            }
            new.securebits = new.securebits & !KEEP_CAPS | if value == 1 { KEEP_CAPS } else { 0 };
            Ok(())
        }),
        raw_prctl::PR_GET_KEEPCAPS => Ok(usize::from(own.securebits & KEEP_CAPS != 0)),
        raw_prctl::PR_GET_SECUREBITS => Ok(own.securebits as usize),
        raw_prctl::PR_SET_SECUREBITS => credentials::change(task, |new| {
            let locks = u64::from(new.securebits) & SECUREBIT_LOCKS;
            let changes_locked = locks >> 1 & (u64::from(new.securebits) ^ value) != 0 || locks & !value != 0;
            if changes_locked || value & !ALL_SECUREBITS != 0 || !new.has_here(raw::CAP_SETPCAP) {
                return Err(Errno::EPERM);
            }
            new.securebits = value as u32;
            Ok(())
        }),
        raw_prctl::PR_CAPBSET_READ if value <= u64::from(raw::CAP_LAST_CAP) => Ok((own.bounding >> value & 1) as usize),
        raw_prctl::PR_CAPBSET_DROP if value <= u64::from(raw::CAP_LAST_CAP) => credentials::change(task, |new| {
            if !new.has_here(raw::CAP_SETPCAP) {
                return Err(Errno::EPERM);
            }
            new.bounding &= !(1 << value);
            Ok(())
        }),
        raw_prctl::PR_CAP_AMBIENT if args.0[3..5] == [0; 2] => ambient(task, value, args.raw(2)),
        raw_prctl::PR_GET_SECCOMP => Ok(task.seccomp.summary().0 as usize),
        raw_prctl::PR_SET_SECCOMP => super::seccomp::set_mode(task, value, args.raw(2)),
        raw_prctl::PR_GET_TID_ADDRESS => task.write(value, &task.clear_child_tid.load(Ordering::Relaxed)).map(|()| 0),
        raw_prctl::PR_SET_PTRACER => Ok(0),
        PR_SET_VMA => name_area(task, args),
        _ => super::prctl::remembered(task, args),
    }
}

fn ambient(task: &Task, operation: u64, capability: u64) -> SysResult {
    if operation == AMBIENT_CLEAR_ALL {
        if capability != 0 {
            return Err(Errno::EINVAL);
        }
        return credentials::change(task, |new| {
            new.ambient = 0;
            Ok(())
        });
    }
    if capability > u64::from(raw::CAP_LAST_CAP) {
        return Err(Errno::EINVAL);
    }
    let bit = 1_u64 << capability;
    match operation {
        AMBIENT_IS_SET => Ok(usize::from(task.credentials().ambient & bit != 0)),
        AMBIENT_LOWER => credentials::change(task, |new| {
            new.ambient &= !bit;
            Ok(())
        }),
        AMBIENT_RAISE => credentials::change(task, |new| {
            if new.permitted & new.inheritable & bit == 0 || new.securebits & NO_AMBIENT_RAISE != 0 {
                return Err(Errno::EPERM);
            }
            new.ambient |= bit;
            Ok(())
        }),
        _ => Err(Errno::EINVAL),
    }
}

/// `PR_SET_VMA_ANON_NAME`: what `/proc/<pid>/maps` shows for anonymous memory.
fn name_area(task: &Task, args: &Args) -> SysResult {
    const ANON_NAME: u64 = 0;
    const LONGEST: usize = 80;
    if args.raw(1) != ANON_NAME {
        return Err(Errno::EINVAL);
    }
    let name = match args.raw(4) {
        0 => None,
        address => {
            let name = task.read_string(address, LONGEST, Errno::EINVAL)?;
            if name.iter().any(|byte| !(0x20..0x7f).contains(byte) || b"\\`$[]".contains(byte)) {
                return Err(Errno::EINVAL);
            }
            Some(String::from_utf8_lossy(&name).into_owned())
        }
    };
    let (start, length) = (args.raw(2), cloudpilot_abi::page_up(args.raw(3)).ok_or(Errno::EINVAL)?);
    let mm = task.mm()?;
    mm.check_areas(start, length, Errno::EBADF, |area| area.file.is_none())?;
    mm.change_areas(start, length, |area| {
        let kind = if area.shared { "anon_shmem" } else { "anon" };
        if !area.grows_down {
            area.name = name.as_ref().map(|name| format!("[{kind}:{name}]"));
        }
    })?;
    Ok(0)
}
