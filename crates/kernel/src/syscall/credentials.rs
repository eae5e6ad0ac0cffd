//! Users, groups and capabilities, `credentials(7)`, `capabilities(7)`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, raw};

use super::Arg::{Int, Ptr};
use super::{Args, Call, SysResult};
use crate::task::{Credentials, Task};

/// This family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_getuid, |task, _| show_user(task, |own| own.ruid), &[]),
    Call::full(raw::__NR_geteuid, |task, _| show_user(task, |own| own.euid), &[]),
    Call::full(raw::__NR_getgid, |task, _| show_group(task, |own| own.rgid), &[]),
    Call::full(raw::__NR_getegid, |task, _| show_group(task, |own| own.egid), &[]),
    Call::full(raw::__NR_getresuid, getresuid, &[Ptr, Ptr, Ptr]),
    Call::full(raw::__NR_getresgid, getresgid, &[Ptr, Ptr, Ptr]),
    Call::full(raw::__NR_setuid, setuid, &[Int]),
    Call::full(raw::__NR_setgid, setgid, &[Int]),
    Call::full(raw::__NR_setreuid, setreuid, &[Int, Int]),
    Call::full(raw::__NR_setregid, setregid, &[Int, Int]),
    Call::full(raw::__NR_setresuid, setresuid, &[Int, Int, Int]),
    Call::full(raw::__NR_setresgid, setresgid, &[Int, Int, Int]),
    Call::full(raw::__NR_setfsuid, setfsuid, &[Int]),
    Call::full(raw::__NR_setfsgid, setfsgid, &[Int]),
    Call::full(raw::__NR_getgroups, getgroups, &[Int, Ptr]),
    Call::full(raw::__NR_setgroups, setgroups, &[Int, Ptr]),
    Call::full(raw::__NR_capget, capget, &[Ptr, Ptr]),
    Call::full(raw::__NR_capset, capset, &[Ptr, Ptr]),
];

/// Most supplementary groups, `NGROUPS_MAX`.
const NGROUPS_MAX: usize = 65_536;
/// "Leave it as it is."
const KEEP: u32 = u32::MAX;
/// `SECBIT_KEEP_CAPS` and `SECBIT_NO_SETUID_FIXUP`.
const KEEP_CAPS: u32 = 1 << 4;
const NO_SETUID_FIXUP: u32 = 1 << 2;

fn show_user(task: &Task, which: fn(&Credentials) -> u32) -> SysResult {
    let own = task.credentials();
    Ok(own.user.show_user(which(&own)) as usize)
}

fn show_group(task: &Task, which: fn(&Credentials) -> u32) -> SysResult {
    let own = task.credentials();
    Ok(own.user.show_group(which(&own)) as usize)
}

/// The user that an argument names in the caller's user namespace; `EINVAL` for one that is not there. "Keep" stays.
fn user_named(task: &Task, number: u32) -> Result<u32, Errno> {
    if number == KEEP { Ok(KEEP) } else { task.credentials().user.user(number).ok_or(Errno::EINVAL) }
}

/// The same for a group.
fn group_named(task: &Task, number: u32) -> Result<u32, Errno> {
    if number == KEEP { Ok(KEEP) } else { task.credentials().user.group(number).ok_or(Errno::EINVAL) }
}

/// Changes the caller's credentials.
pub fn change(task: &Task, change: impl FnOnce(&mut Credentials) -> Result<(), Errno>) -> SysResult {
    let mut own = task.credentials.lock();
    let mut new = Credentials::clone(&own);
    let before = (new.euid, new.egid);
    change(&mut new)?;
    if (new.euid, new.egid) != before {
        // What a process of other users left in memory is not for everybody.
        task.process.dumpable.store(0, Ordering::Relaxed);
    }
    task.process.uid.store(new.ruid, Ordering::Relaxed);
    *own = Arc::new(new);
    Ok(0)
}

/// Capabilities follow the users, `capabilities(7)`, "Effect of user ID changes".
fn fix_capabilities(old: (u32, u32, u32), new: &mut Credentials) {
    if new.securebits & NO_SETUID_FIXUP != 0 {
        return;
    }
    let user = Arc::clone(&new.user);
    let had_root = user.is_root(old.0) || user.is_root(old.1) || user.is_root(old.2);
    let has_root = user.is_root(new.ruid) || user.is_root(new.euid) || user.is_root(new.suid);
    if had_root && !has_root {
        if new.securebits & KEEP_CAPS == 0 {
            new.permitted = 0;
        }
        new.effective = 0;
        new.ambient = 0;
    }
    match (user.is_root(old.1), user.is_root(new.euid)) {
        (true, false) => new.effective = 0,
        (false, true) => new.effective = new.permitted,
        _ => {}
    }
}

fn set_users(task: &Task, decide: impl FnOnce(&mut Credentials) -> Result<(), Errno>) -> SysResult {
    change(task, |new| {
        let old = (new.ruid, new.euid, new.suid);
        decide(new)?;
        new.fsuid = new.euid;
        fix_capabilities(old, new);
        Ok(())
    })
}

fn set_groups_of(task: &Task, decide: impl FnOnce(&mut Credentials) -> Result<(), Errno>) -> SysResult {
    change(task, |new| {
        decide(new)?;
        new.fsgid = new.egid;
        Ok(())
    })
}

fn write_three(task: &Task, args: &Args, values: [u32; 3]) -> SysResult {
    for (index, value) in values.iter().enumerate() {
        task.write(args.raw(index), value)?;
    }
    Ok(0)
}

fn getresuid(task: &Arc<Task>, args: &Args) -> SysResult {
    let own = task.credentials();
    write_three(task, args, [own.ruid, own.euid, own.suid].map(|user| own.user.show_user(user)))
}

fn getresgid(task: &Arc<Task>, args: &Args) -> SysResult {
    let own = task.credentials();
    write_three(task, args, [own.rgid, own.egid, own.sgid].map(|group| own.user.show_group(group)))
}

fn setuid(task: &Arc<Task>, args: &Args) -> SysResult {
    let uid = user_named(task, args.uint(0))?;
    if uid == KEEP {
        return Err(Errno::EINVAL);
    }
    set_users(task, |new| {
        if new.has_here(raw::CAP_SETUID) {
            (new.ruid, new.suid) = (uid, uid);
        } else if uid != new.ruid && uid != new.suid {
            return Err(Errno::EPERM);
        }
        new.euid = uid;
        Ok(())
    })
}

fn setgid(task: &Arc<Task>, args: &Args) -> SysResult {
    let gid = group_named(task, args.uint(0))?;
    if gid == KEEP {
        return Err(Errno::EINVAL);
    }
    set_groups_of(task, |new| {
        if new.has_here(raw::CAP_SETGID) {
            (new.rgid, new.sgid) = (gid, gid);
        } else if gid != new.rgid && gid != new.sgid {
            return Err(Errno::EPERM);
        }
        new.egid = gid;
        Ok(())
    })
}

fn setreuid(task: &Arc<Task>, args: &Args) -> SysResult {
    let (real, effective) = (user_named(task, args.uint(0))?, user_named(task, args.uint(1))?);
    set_users(task, |new| {
        let old = (new.ruid, new.euid, new.suid);
        let capable = new.has_here(raw::CAP_SETUID);
        let real_allowed = real == KEEP || real == old.0 || real == old.1 || capable;
        let effective_allowed = effective == KEEP || [old.0, old.1, old.2].contains(&effective) || capable;
        if !real_allowed || !effective_allowed {
            return Err(Errno::EPERM);
        }
        if real != KEEP {
            new.ruid = real;
        }
        if effective != KEEP {
            new.euid = effective;
        }
        if real != KEEP || effective != KEEP && effective != old.0 {
            new.suid = new.euid;
        }
        Ok(())
    })
}

fn setregid(task: &Arc<Task>, args: &Args) -> SysResult {
    let (real, effective) = (group_named(task, args.uint(0))?, group_named(task, args.uint(1))?);
    set_groups_of(task, |new| {
        let old = (new.rgid, new.egid, new.sgid);
        let capable = new.has_here(raw::CAP_SETGID);
        let real_allowed = real == KEEP || real == old.0 || real == old.1 || capable;
        let effective_allowed = effective == KEEP || [old.0, old.1, old.2].contains(&effective) || capable;
        if !real_allowed || !effective_allowed {
            return Err(Errno::EPERM);
        }
        if real != KEEP {
            new.rgid = real;
        }
        if effective != KEEP {
            new.egid = effective;
        }
        if real != KEEP || effective != KEEP && effective != old.0 {
            new.sgid = new.egid;
        }
        Ok(())
    })
}

/// Three wished numbers against three present ones.
fn allowed(wished: [u32; 3], present: [u32; 3], capable: bool) -> Result<(), Errno> {
    let known = wished.iter().all(|id| *id == KEEP || present.contains(id));
    if known || capable { Ok(()) } else { Err(Errno::EPERM) }
}

fn pick(wished: u32, present: u32) -> u32 {
    if wished == KEEP { present } else { wished }
}

fn setresuid(task: &Arc<Task>, args: &Args) -> SysResult {
    let wished = [user_named(task, args.uint(0))?, user_named(task, args.uint(1))?, user_named(task, args.uint(2))?];
    set_users(task, |new| {
        allowed(wished, [new.ruid, new.euid, new.suid], new.has_here(raw::CAP_SETUID))?;
        new.ruid = pick(wished[0], new.ruid);
        new.euid = pick(wished[1], new.euid);
        new.suid = pick(wished[2], new.suid);
        Ok(())
    })
}

fn setresgid(task: &Arc<Task>, args: &Args) -> SysResult {
    let wished = [group_named(task, args.uint(0))?, group_named(task, args.uint(1))?, group_named(task, args.uint(2))?];
    set_groups_of(task, |new| {
        allowed(wished, [new.rgid, new.egid, new.sgid], new.has_here(raw::CAP_SETGID))?;
        new.rgid = pick(wished[0], new.rgid);
        new.egid = pick(wished[1], new.egid);
        new.sgid = pick(wished[2], new.sgid);
        Ok(())
    })
}

fn setfsuid(task: &Arc<Task>, args: &Args) -> SysResult {
    let own = task.credentials();
    let uid = own.user.user(args.uint(0)).unwrap_or(KEEP);
    if [own.ruid, own.euid, own.suid, own.fsuid].contains(&uid) || own.has_here(raw::CAP_SETUID) && uid != KEEP {
        change(task, |new| {
            new.fsuid = uid;
            Ok(())
        })?;
    }
    Ok(own.user.show_user(own.fsuid) as usize)
}

fn setfsgid(task: &Arc<Task>, args: &Args) -> SysResult {
    let own = task.credentials();
    let gid = own.user.group(args.uint(0)).unwrap_or(KEEP);
    if [own.rgid, own.egid, own.sgid, own.fsgid].contains(&gid) || own.has_here(raw::CAP_SETGID) && gid != KEEP {
        change(task, |new| {
            new.fsgid = gid;
            Ok(())
        })?;
    }
    Ok(own.user.show_group(own.fsgid) as usize)
}

fn getgroups(task: &Arc<Task>, args: &Args) -> SysResult {
    let own = task.credentials();
    let groups: Vec<u32> = own.groups.iter().map(|group| own.user.show_group(*group)).collect();
    let room = usize::try_from(args.int(0)).map_err(|_| Errno::EINVAL)?;
    if room != 0 {
        if room < groups.len() {
            return Err(Errno::EINVAL);
        }
        task.write_slice(args.raw(1), &groups)?;
    }
    Ok(groups.len())
}

fn setgroups(task: &Arc<Task>, args: &Args) -> SysResult {
    let own = task.credentials();
    if !own.has_here(raw::CAP_SETGID) || !own.user.may_set_groups() {
        return Err(Errno::EPERM);
    }
    let count = usize::try_from(args.int(0)).ok().filter(|count| *count <= NGROUPS_MAX).ok_or(Errno::EINVAL)?;
    let groups: Vec<u32> = task.read_slice(args.raw(1), count)?;
    let groups = groups.into_iter().map(|group| own.user.group(group).ok_or(Errno::EINVAL)).collect::<Result<_, _>>()?;
    change(task, |new| {
        new.groups = groups;
        Ok(())
    })
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`, by 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

/// How many words of each set the caller's version has; an unknown version is answered with ours.
fn words(task: &Task, address: u64) -> Result<(Header, usize), Errno> {
    let header: Header = task.read(address)?;
    match header.version {
        VERSION_1 => Ok((header, 1)),
        VERSION_2 | VERSION_3 => Ok((header, 2)),
        _ => {
            task.write(address, &VERSION_3)?;
            Err(Errno::EINVAL)
        }
    }
}

fn capget(task: &Arc<Task>, args: &Args) -> SysResult {
    let (header, count) = match words(task, args.raw(0)) {
        // Asking for the version only.
        Err(Errno::EINVAL) if args.raw(1) == 0 => return Ok(0),
        result => result?,
    };
    if header.pid < 0 {
        return Err(Errno::EINVAL);
    }
    let target = if header.pid == 0 { Arc::clone(task) } else { task.find_task(header.pid).ok_or(Errno::ESRCH)? };
    if args.raw(1) == 0 {
        return Ok(0);
    }
    let own = target.credentials();
    let word = |shift: u32| Data {
        effective: (own.effective >> shift) as u32,
        permitted: (own.permitted >> shift) as u32,
        inheritable: (own.inheritable >> shift) as u32,
    };
    task.write_slice(args.raw(1), &[word(0), word(32)][..count])?;
    Ok(0)
}

fn capset(task: &Arc<Task>, args: &Args) -> SysResult {
    let (header, count) = words(task, args.raw(0))?;
    if header.pid != 0 && header.pid != task.own_tid() {
        return Err(Errno::EPERM);
    }
    let mut data = [Data::default(); 2];
    data[..count].copy_from_slice(&task.read_slice::<Data>(args.raw(1), count)?);
    let join = |get: fn(&Data) -> u32| u64::from(get(&data[0])) | u64::from(get(&data[1])) << 32;
    let (effective, permitted, inheritable) = (join(|d| d.effective), join(|d| d.permitted), join(|d| d.inheritable));
    change(task, |new| {
        let may_inherit = if new.has_here(raw::CAP_SETPCAP) { new.bounding | new.permitted } else { new.permitted };
        let refused = permitted & !new.permitted != 0 || effective & !permitted != 0 || inheritable & !(new.inheritable | may_inherit) != 0;
        if refused {
            return Err(Errno::EPERM);
        }
        (new.effective, new.permitted, new.inheritable) = (effective, permitted, inheritable);
        new.ambient &= permitted & inheritable;
        Ok(())
    })
}
