//! Memory nodes, `set_mempolicy(2)` and its family, on a machine that has one.

use std::sync::Arc;

use cloudpilot_abi::{Errno, PAGE_SIZE, page_up, raw};

use super::Arg::{Flags, Int, Ptr, Size};
use super::{Args, Call, SysResult};
use crate::mm::Mm;
use crate::mm::policy::{BIND, INTERLEAVE, PREFERRED_MANY, Policy, WEIGHTED_INTERLEAVE};
use crate::task::Task;

/// The family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_get_mempolicy, get_mempolicy, &[Ptr, Ptr, Size, Ptr, Flags]),
    Call::full(raw::__NR_set_mempolicy, set_mempolicy, &[Int, Ptr, Size]),
    Call::full(raw::__NR_mbind, mbind, &[Ptr, Size, Int, Ptr, Size, Flags]),
    Call::full(raw::__NR_migrate_pages, migrate_pages, &[Int, Size, Ptr, Ptr]),
    Call::full(raw::__NR_move_pages, move_pages, &[Int, Size, Ptr, Ptr, Ptr, Flags]),
    Call::full(raw::__NR_set_mempolicy_home_node, set_home_node, &[Ptr, Size, Int, Flags]),
];

/// Bits of a mask that fits into a page, the longest that Linux reads.
const LONGEST_MASK: u64 = PAGE_SIZE * 8;
/// `MPOL_MF_MOVE` and `MPOL_MF_MOVE_ALL`.
const MOVE: u32 = 2;
const MOVE_ALL: u32 = 4;

/// Reads a mask of nodes; `bits` is one more than there are, as Linux has it.
fn read_nodes(task: &Task, address: u64, bits: u64) -> Result<Vec<u64>, Errno> {
    let bits = bits.wrapping_sub(1);
    if bits == u64::MAX || bits == 0 || address == 0 {
        return Ok(Vec::new());
    }
    if bits > LONGEST_MASK {
        return Err(Errno::EINVAL);
    }
    let mut words: Vec<u64> = task.read_slice(address, bits.div_ceil(64) as usize)?;
    if let (Some(last), 1..) = (words.last_mut(), bits % 64) {
        *last &= (1 << (bits % 64)) - 1;
    }
    Ok(words)
}

/// Writes a mask of nodes with the only one set or not.
fn write_nodes(task: &Task, address: u64, bits: u64, set: bool) -> Result<(), Errno> {
    if address == 0 {
        return Ok(());
    }
    if bits > LONGEST_MASK {
        return Err(Errno::EINVAL);
    }
    let mut mask = vec![0u64; bits.div_ceil(64) as usize];
    if let Some(first) = mask.first_mut() {
        *first = u64::from(set);
    }
    task.write_slice(address, &mask)
}

fn get_mempolicy(task: &Arc<Task>, args: &Args) -> SysResult {
    const NODE: u32 = 1;
    const ADDRESS: u32 = 2;
    const MEMBERS: u32 = 4;
    let (flags, address) = (args.uint(4), args.raw(3));
    let nodes = (args.raw(1), args.raw(2));
    if nodes.0 != 0 && nodes.1 < 1 || flags & !(NODE | ADDRESS | MEMBERS) != 0 || flags & MEMBERS != 0 && flags & (NODE | ADDRESS) != 0 {
        return Err(Errno::EINVAL);
    }
    let (mode, named) = if flags & MEMBERS != 0 {
        (0, true)
    } else {
        let policy = if flags & ADDRESS != 0 {
            task.mm()?.policy_at(address).ok_or(Errno::EFAULT)?
        } else if address != 0 {
            return Err(Errno::EINVAL);
        } else {
            task.scheduling.lock().memory_policy
        };
        let interleaved = policy.is_some_and(|policy| matches!(policy.kind, INTERLEAVE | WEIGHTED_INTERLEAVE));
        let mode = match flags & NODE {
            0 => policy.map_or(0, Policy::mode),
            // The number of a node, of which there is one.
            _ if flags & ADDRESS != 0 || interleaved => 0,
            _ => return Err(Errno::EINVAL),
        };
        (mode, policy.is_some_and(Policy::names_nodes))
    };
    if args.raw(0) != 0 {
        task.write(args.raw(0), &mode)?;
    }
    write_nodes(task, nodes.0, nodes.1, named)?;
    Ok(0)
}

fn set_mempolicy(task: &Arc<Task>, args: &Args) -> SysResult {
    let policy = Policy::parse(args.int(0), &read_nodes(task, args.raw(1), args.raw(2))?)?;
    task.scheduling.lock().memory_policy = policy;
    Ok(0)
}

fn mbind(task: &Arc<Task>, args: &Args) -> SysResult {
    const STRICT: u32 = 1;
    let (start, flags) = (args.raw(0), args.uint(5));
    let nodes = read_nodes(task, args.raw(3), args.raw(4))?;
    if flags & !(STRICT | MOVE | MOVE_ALL) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MOVE_ALL != 0 && !task.credentials().has(raw::CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let length = page_up(args.raw(1)).ok_or(Errno::EINVAL)?;
    if !start.is_multiple_of(PAGE_SIZE) || start.checked_add(length).is_none() {
        return Err(Errno::EINVAL);
    }
    if length == 0 {
        return Ok(0);
    }
    let policy = Policy::parse(args.int(2), &nodes)?;
    let mm = task.mm()?;
    // All or nothing: a gap is found before anything is changed.
    let changed = mm.change_areas(start, length, |_| {}).and_then(|()| mm.change_areas(start, length, |area| area.policy = policy));
    changed.map(|()| 0).map_err(|errno| if errno == Errno::ENOMEM { Errno::EFAULT } else { errno })
}

fn migrate_pages(task: &Arc<Task>, args: &Args) -> SysResult {
    let (_, new) = (read_nodes(task, args.raw(2), args.raw(1))?, read_nodes(task, args.raw(3), args.raw(1))?);
    let pid = args.int(0);
    if pid != 0 && task.find_task(pid).is_none() {
        return Err(Errno::ESRCH);
    }
    if new.first().is_some_and(|word| word & 1 != 0) { Ok(0) } else { Err(Errno::EINVAL) }
}

fn move_pages(task: &Arc<Task>, args: &Args) -> SysResult {
    let (pid, count, flags) = (args.int(0), args.raw(1), args.uint(5));
    if flags & !(MOVE | MOVE_ALL) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MOVE_ALL != 0 && !task.credentials().has(raw::CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let mm = match pid {
        0 => task.mm()?,
        pid => {
            let other = task.find_task(pid).ok_or(Errno::ESRCH)?;
            if !crate::fs::proc::may_trace(task, &other) {
                return Err(Errno::EPERM);
            }
            other.mm().map_err(|_| Errno::EINVAL)?
        }
    };
    for index in 0..count {
        let at = |base: u64, size: u64| index.checked_mul(size).and_then(|offset| base.checked_add(offset)).ok_or(Errno::EFAULT);
        let page: u64 = task.read(at(args.raw(2), 8)?)?;
        if args.raw(3) != 0 && task.read::<i32>(at(args.raw(3), 4)?)? != 0 {
            return Err(Errno::ENODEV);
        }
        task.write(at(args.raw(4), 4)?, &node_of(&mm, page))?;
        if task.interrupted() {
            break;
        }
    }
    Ok(0)
}

/// The node that a page is on, or why there is none.
fn node_of(mm: &Mm, address: u64) -> i32 {
    let start = cloudpilot_abi::page_down(address);
    match start.checked_add(PAGE_SIZE).ok_or(Errno::EFAULT).and_then(|end| mm.residency(start, end)) {
        Ok(pages) if pages.first() == Some(&1) => 0,
        Ok(_) => -i32::from(Errno::ENOENT.0),
        Err(_) => -i32::from(Errno::EFAULT.0),
    }
}

fn set_home_node(task: &Arc<Task>, args: &Args) -> SysResult {
    let (start, node) = (args.raw(0), args.raw(2));
    let length = page_up(args.raw(1)).ok_or(Errno::EINVAL)?;
    if !start.is_multiple_of(PAGE_SIZE) || args.raw(3) != 0 || node != 0 || start.checked_add(length).is_none() {
        return Err(Errno::EINVAL);
    }
    if length == 0 {
        return Ok(0);
    }
    let policies = task.mm()?.policies(start, length);
    if policies.is_empty() {
        return Err(Errno::ENOENT);
    }
    if policies.iter().all(|policy| matches!(policy.kind, BIND | PREFERRED_MANY)) { Ok(0) } else { Err(Errno::EOPNOTSUPP) }
}
