//! Memory management.

use std::sync::Arc;

use cloudpilot_abi::{Errno, PAGE_SIZE, page_up, raw};

use super::{Arg, Args, Call, SysResult};
use cloudpilot_platform::Access;

use crate::mm::{Area, MapRequest, Mapping, Placement};
use crate::task::Task;
use crate::vfs::FileType;

use Arg::{Flags, Int, Ptr, Size};

/// The family.
pub const CALLS: &[Call] = &[
    Call::partial(raw::__NR_mmap, mmap, &[Ptr, Size, Flags, Flags, Int, Size], "no huge pages"),
    Call::full(raw::__NR_munmap, munmap, &[Ptr, Size]),
    Call::full(raw::__NR_mprotect, mprotect, &[Ptr, Size, Flags]),
    Call::full(raw::__NR_mremap, mremap, &[Ptr, Size, Size, Flags, Ptr]),
    Call::full(raw::__NR_brk, brk, &[Ptr]),
    Call::partial(raw::__NR_madvise, madvise, &[Ptr, Size, Int], "advice without effect on what the program sees is accepted and ignored"),
    Call::full(raw::__NR_msync, msync, &[Ptr, Size, Flags]),
    Call::full(raw::__NR_mincore, mincore, &[Ptr, Size, Ptr]),
    Call::partial(raw::__NR_mlock, mlock, &[Ptr, Size], "pages are made present; the host decides what stays in memory"),
    Call::partial(raw::__NR_mlock2, mlock2, &[Ptr, Size, Flags], "as mlock"),
    Call::full(raw::__NR_munlock, munlock, &[Ptr, Size]),
    Call::partial(raw::__NR_mlockall, mlockall, &[Flags], "as mlock"),
    Call::full(raw::__NR_munlockall, munlockall, &[]),
    Call::full(raw::__NR_remap_file_pages, remap_file_pages, &[Ptr, Size, Int, Size, Flags]),
    Call::full(raw::__NR_mseal, mseal, &[Ptr, Size, Flags]),
];

const PROTECTIONS: u32 = raw::PROT_READ | raw::PROT_WRITE | raw::PROT_EXEC | raw::PROT_SEM | raw::PROT_GROWSDOWN | raw::PROT_GROWSUP;
const ACCESS: u32 = raw::PROT_READ | raw::PROT_WRITE | raw::PROT_EXEC;

fn address_limit(task: &Task) -> u64 {
    task.process.limits.lock().soft(raw::RLIMIT_AS)
}

fn mmap(task: &Arc<Task>, args: &Args) -> SysResult {
    const MAP_TYPE: u32 = 0xf;
    const MAP_SHARED_VALIDATE: u32 = 3;
    /// What `MAP_SHARED_VALIDATE` knows of: the flags that are older than it.
    const VALID: u32 = MAP_TYPE
        | raw::MAP_FIXED
        | raw::MAP_ANONYMOUS
        | raw::MAP_GROWSDOWN
        | raw::MAP_DENYWRITE
        | raw::MAP_EXECUTABLE
        | raw::MAP_LOCKED
        | raw::MAP_NORESERVE
        | raw::MAP_POPULATE
        | raw::MAP_NONBLOCK
        | raw::MAP_STACK
        | raw::MAP_32BIT;
    let (address, length, flags, offset) = (args.raw(0), args.raw(1), args.uint(3), args.raw(5));
    let protection = args.uint(2) & ACCESS;
    if offset % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    let file = if flags & raw::MAP_ANONYMOUS == 0 { Some(task.file(args.int(4))?) } else { None };
    if length == 0 {
        return Err(Errno::EINVAL);
    }
    let pages = page_up(length).filter(|pages| *pages <= task.kernel.platform.address_limits().highest).ok_or(Errno::ENOMEM)?;
    if file.is_some() && offset.checked_add(pages).is_none_or(|end| end > i64::MAX as u64) {
        return Err(Errno::EOVERFLOW);
    }
    let shared = match flags & MAP_TYPE {
        raw::MAP_PRIVATE => false,
        raw::MAP_SHARED => true,
        MAP_SHARED_VALIDATE if file.is_some() && flags & !VALID != 0 => return Err(Errno::EOPNOTSUPP),
        MAP_SHARED_VALIDATE if file.is_some() => true,
        _ => return Err(Errno::EINVAL),
    };
    if flags & raw::MAP_HUGETLB != 0 {
        return Err(Errno::ENOMEM);
    }
    let placement = if flags & raw::MAP_FIXED_NOREPLACE != 0 {
        Placement::FixedFree(address)
    } else if flags & raw::MAP_FIXED != 0 {
        Placement::Fixed(address)
    } else if flags & raw::MAP_32BIT != 0 {
        Placement::Low
    } else {
        Placement::Anywhere(address)
    };
    let mut request = MapRequest::anonymous(placement, length, protection);
    request.shared = shared;
    request.grows_down = flags & raw::MAP_GROWSDOWN != 0;
    request.populate = flags & raw::MAP_POPULATE != 0;
    if let Some(file) = file {
        if !file.readable() {
            return Err(Errno::EACCES);
        }
        let writable = file.writable();
        if shared && protection & raw::PROT_WRITE != 0 && !writable {
            return Err(Errno::EACCES);
        }
        // What is in no tree lies on a filesystem of the kernel's own, from which nothing runs; memory files are an exception.
        let runs = match &file.path {
            Some(path) => path.mount.flags() & raw::MS_NOEXEC == 0,
            None => file.inode.file_type() == FileType::Regular,
        };
        if protection & raw::PROT_EXEC != 0 && !runs {
            return Err(Errno::EPERM);
        }
        request.mapping = file.ops.mapping(&file, shared, writable)?;
        let is_sealed = shared && matches!(request.mapping, Mapping::Sealed(_));
        if is_sealed && protection & raw::PROT_WRITE != 0 {
            return Err(Errno::EPERM);
        }
        request.may_write = !shared || writable && !is_sealed;
        request.offset = offset;
        if !matches!(request.mapping, Mapping::Zero) {
            request.file = Some(file);
        }
    }
    let mm = task.mm()?;
    let asks_lock = flags & raw::MAP_LOCKED != 0;
    if asks_lock && task.process.limits.lock().soft(raw::RLIMIT_MEMLOCK) == 0 && !task.credentials().has(raw::CAP_IPC_LOCK) {
        return Err(Errno::EPERM);
    }
    let locks = asks_lock || mm.locks_future();
    if locks && !may_lock(task, mm.locked_bytes(None).saturating_add(page_up(length).unwrap_or(u64::MAX))) {
        return Err(Errno::EAGAIN);
    }
    request.populate |= locks;
    let limit = address_limit(task);
    let mut cpu = task.cpu.lock();
    let start = mm.map(&mut *cpu.guest, request, limit)?;
    drop(cpu);
    if asks_lock {
        mm.change_areas(start, length, |area| area.locked = true)?;
    }
    Ok(start as usize)
}

/// Whether so many bytes may be locked.
fn may_lock(task: &Task, bytes: u64) -> bool {
    bytes <= task.process.limits.lock().soft(raw::RLIMIT_MEMLOCK) || task.credentials().has(raw::CAP_IPC_LOCK)
}

fn remap_file_pages(task: &Arc<Task>, args: &Args) -> SysResult {
    let (start, length) = (args.raw(0) / PAGE_SIZE * PAGE_SIZE, args.raw(1) / PAGE_SIZE * PAGE_SIZE);
    let offset = args.raw(3).checked_mul(PAGE_SIZE).filter(|offset| offset.checked_add(length).is_some_and(|end| end <= i64::MAX as u64));
    let (0, 1.., Some(offset)) = (args.uint(2), length, offset) else { return Err(Errno::EINVAL) };
    let mm = task.mm()?;
    let mut cpu = task.cpu.lock();
    mm.show_elsewhere(&mut *cpu.guest, start, length, offset).map(|()| 0)
}

fn munmap(task: &Arc<Task>, args: &Args) -> SysResult {
    let mm = task.mm()?;
    let mut cpu = task.cpu.lock();
    mm.unmap(&mut *cpu.guest, args.raw(0), args.raw(1)).map(|()| 0)
}

fn mprotect(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.uint(2) & !PROTECTIONS != 0 {
        return Err(Errno::EINVAL);
    }
    let growth = args.uint(2) & (raw::PROT_GROWSDOWN | raw::PROT_GROWSUP);
    let (mut start, mut length) = (args.raw(0), args.raw(1));
    let mm = task.mm()?;
    match growth {
        0 => {}
        // All of a stack, from wherever it has grown to.
        raw::PROT_GROWSDOWN if length != 0 && start.is_multiple_of(PAGE_SIZE) => {
            let lowest = mm.growing_start(start)?;
            length = length.checked_add(start - lowest).ok_or(Errno::ENOMEM)?;
            start = lowest;
        }
        // Nothing grows upwards on this processor.
        _ => return Err(Errno::EINVAL),
    }
    let mut cpu = task.cpu.lock();
    mm.protect(&mut *cpu.guest, start, length, args.uint(2) & ACCESS).map(|()| 0)
}

fn mremap(task: &Arc<Task>, args: &Args) -> SysResult {
    const MREMAP_DONTUNMAP: u32 = 4;
    let flags = args.uint(3);
    let may_move = flags & raw::MREMAP_MAYMOVE != 0;
    let fixed = flags & raw::MREMAP_FIXED != 0;
    let keep = flags & MREMAP_DONTUNMAP != 0;
    if flags & !(raw::MREMAP_MAYMOVE | raw::MREMAP_FIXED | MREMAP_DONTUNMAP) != 0
        || (fixed || keep) && !may_move
        || keep && args.raw(1) != args.raw(2)
    {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm()?;
    let limit = address_limit(task);
    let mut cpu = task.cpu.lock();
    let target = fixed.then_some(args.raw(4));
    mm.remap(&mut *cpu.guest, (args.raw(0), args.raw(1)), args.raw(2), may_move, keep, target, limit).map(|start| start as usize)
}

fn brk(task: &Arc<Task>, args: &Args) -> SysResult {
    let mm = task.mm()?;
    let limit = task.process.limits.lock().soft(raw::RLIMIT_DATA);
    let mut cpu = task.cpu.lock();
    mm.set_break(&mut *cpu.guest, args.raw(0), limit).map(|end| end as usize)
}

fn madvise(task: &Arc<Task>, args: &Args) -> SysResult {
    const MADV_POPULATE_READ: u32 = 22;
    const MADV_POPULATE_WRITE: u32 = 23;
    let (start, length) = (args.raw(0), args.raw(1));
    let mm = task.mm()?;
    match args.uint(2) {
        raw::MADV_DONTNEED => {
            let mut cpu = task.cpu.lock();
            mm.discard(&mut *cpu.guest, start, length, false)?;
        }
        // Free may happen at once: the contents may be lost at any time from here on.
        raw::MADV_FREE => {
            mm.check_areas(start, length, Errno::EINVAL, Area::is_private_memory)?;
            let mut cpu = task.cpu.lock();
            mm.discard(&mut *cpu.guest, start, length, false)?;
        }
        raw::MADV_REMOVE => {
            let mut cpu = task.cpu.lock();
            mm.discard(&mut *cpu.guest, start, length, true)?;
            drop(cpu);
            task.kernel.settle_mappings();
        }
        advice @ (MADV_POPULATE_READ | MADV_POPULATE_WRITE) => {
            let access = if advice == MADV_POPULATE_READ { Access::Read } else { Access::Write };
            mm.check_areas(start, length, Errno::EINVAL, |area| area.allows(access))?;
            let mut cpu = task.cpu.lock();
            mm.touch(&mut *cpu.guest, start, length)?;
        }
        raw::MADV_DONTFORK => mm.change_areas(start, length, |area| area.keep_from_fork = true)?,
        raw::MADV_DOFORK => mm.change_areas(start, length, |area| area.keep_from_fork = false)?,
        raw::MADV_WIPEONFORK => {
            mm.check_areas(start, length, Errno::EINVAL, Area::is_private_memory)?;
            mm.change_areas(start, length, |area| area.wipe_on_fork = true)?;
        }
        raw::MADV_KEEPONFORK => mm.change_areas(start, length, |area| area.wipe_on_fork = false)?,
        raw::MADV_NORMAL
        | raw::MADV_RANDOM
        | raw::MADV_SEQUENTIAL
        | raw::MADV_WILLNEED
        | raw::MADV_HUGEPAGE
        | raw::MADV_NOHUGEPAGE
        | raw::MADV_DONTDUMP
        | raw::MADV_DODUMP
        | raw::MADV_COLD
        | raw::MADV_PAGEOUT
        | raw::MADV_MERGEABLE
        | raw::MADV_UNMERGEABLE => mm.change_areas(start, length, |_| {})?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn msync(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(2);
    if flags & !(raw::MS_ASYNC | raw::MS_INVALIDATE | raw::MS_SYNC) != 0
        || flags & (raw::MS_ASYNC | raw::MS_SYNC) == raw::MS_ASYNC | raw::MS_SYNC
    {
        return Err(Errno::EINVAL);
    }
    let (areas, covered) = task.mm()?.areas_between(args.raw(0), args.raw(1))?;
    if flags & raw::MS_INVALIDATE != 0 && areas.iter().any(|area| area.locked) {
        return Err(Errno::EBUSY);
    }
    // Shared mappings are the file's own pages: there is nothing to carry over but what the file itself is to carry on.
    for area in areas.iter().filter(|area| area.shared) {
        let Some((file, _)) = &area.file else { continue };
        if area.protection & raw::PROT_WRITE != 0 {
            file.ops.note_mapped_writes();
        }
        match if flags & raw::MS_SYNC == 0 { Ok(()) } else { file.ops.sync(file, true) } {
            // Nothing to keep it on.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    if covered { Ok(0) } else { Err(Errno::ENOMEM) }
}

fn mincore(task: &Arc<Task>, args: &Args) -> SysResult {
    let start = args.raw(0);
    if !start.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let end = page_up(args.raw(1)).and_then(|length| start.checked_add(length)).ok_or(Errno::ENOMEM)?;
    if end > task.mm()?.limits().highest {
        return Err(Errno::ENOMEM);
    }
    let pages = task.mm()?.residency(start, end)?;
    task.write_bytes(args.raw(2), &pages)?;
    Ok(0)
}

fn lock_range(task: &Arc<Task>, start: u64, length: u64, populate: bool) -> SysResult {
    let from = start / PAGE_SIZE * PAGE_SIZE;
    let length = page_up(length.checked_add(start - from).ok_or(Errno::EINVAL)?).ok_or(Errno::EINVAL)?;
    let limit = task.process.limits.lock().soft(raw::RLIMIT_MEMLOCK);
    let mm = task.mm()?;
    // What is locked already is not locked twice.
    let more = length.saturating_sub(mm.locked_bytes(Some((from, from.saturating_add(length)))));
    if !may_lock(task, mm.locked_bytes(None).saturating_add(more)) {
        return Err(if limit == 0 { Errno::EPERM } else { Errno::ENOMEM });
    }
    mm.change_areas(from, length, |area| area.locked = true)?;
    if populate {
        let mut cpu = task.cpu.lock();
        mm.touch(&mut *cpu.guest, from, length)?;
    }
    Ok(0)
}

fn mlock(task: &Arc<Task>, args: &Args) -> SysResult {
    lock_range(task, args.raw(0), args.raw(1), true)
}

fn mlock2(task: &Arc<Task>, args: &Args) -> SysResult {
    const MLOCK_ONFAULT: u32 = 1;
    if args.uint(2) & !MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    lock_range(task, args.raw(0), args.raw(1), args.uint(2) == 0)
}

fn munlock(task: &Arc<Task>, args: &Args) -> SysResult {
    let from = args.raw(0) / PAGE_SIZE * PAGE_SIZE;
    let length = args.raw(1).checked_add(args.raw(0) - from).ok_or(Errno::EINVAL)?;
    task.mm()?.change_areas(from, length, |area| area.locked = false).map(|()| 0)
}

fn mlockall(task: &Arc<Task>, args: &Args) -> SysResult {
    const MCL_CURRENT: u32 = 1;
    const MCL_FUTURE: u32 = 2;
    const MCL_ONFAULT: u32 = 4;
    let flags = args.uint(0);
    if flags == 0 || flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 || flags == MCL_ONFAULT {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm()?;
    let limit = task.process.limits.lock().soft(raw::RLIMIT_MEMLOCK);
    if !task.credentials().has(raw::CAP_IPC_LOCK) && mm.mapped_bytes() > limit {
        return Err(if limit == 0 { Errno::EPERM } else { Errno::ENOMEM });
    }
    mm.change_all_areas(flags & MCL_FUTURE != 0, |area| area.locked |= flags & MCL_CURRENT != 0);
    Ok(0)
}

fn munlockall(task: &Arc<Task>, _args: &Args) -> SysResult {
    task.mm()?.change_all_areas(false, |area| area.locked = false);
    Ok(0)
}

fn mseal(task: &Arc<Task>, args: &Args) -> SysResult {
    let (start, length) = (args.raw(0), args.raw(1));
    if args.raw(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm()?;
    // All or nothing: a gap is found before anything is sealed.
    mm.change_areas(start, length, |_| {})?;
    mm.change_areas(start, length, |area| area.sealed = true)?;
    Ok(0)
}
