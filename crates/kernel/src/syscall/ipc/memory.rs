//! Shared memory, `shmget(2)` and its family.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, PAGE_SIZE, raw};

use super::{Args, IPC_64, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, READ, SysResult, WRITE};
use crate::ipc::Object;
use crate::ipc::RawPermissions;
use crate::ipc::limits::{NEXT_SEGMENT, SEGMENT_PAGES, SEGMENT_SIZE, SEGMENTS};
use crate::ipc::shared_memory::{self as shared, DESTROYED, LOCKED, Segment};
use crate::mm::{MapRequest, Mapping, Placement};
use crate::task::Task;

/// `struct shmid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SegmentState {
    permissions: RawPermissions,
    size: u64,
    attached: i64,
    detached: i64,
    changed: i64,
    maker: i32,
    last: i32,
    attachments: u64,
    unused: [u64; 2],
}

pub fn shmget(task: &Arc<Task>, args: &Args) -> SysResult {
    const SHM_HUGETLB: u32 = 0o4000;
    let (size, flags) = (args.raw(1), args.uint(2));
    let space = Arc::clone(&task.namespaces().ipc);
    let limits = &space.ipc.limits;
    let fits = |segment: &Segment| if size > segment.size { Err(Errno::EINVAL) } else { Ok(()) };
    let taken: u64 = space.ipc.segments.all().iter().map(|(_, segment)| segment.size.div_ceil(PAGE_SIZE)).sum();
    let make = |id, permissions| {
        if size == 0 || size > limits.number(SEGMENT_SIZE, 0) {
            return Err(Errno::EINVAL);
        }
        if taken.saturating_add(size.div_ceil(PAGE_SIZE)) > limits.number(SEGMENT_PAGES, 0) {
            return Err(Errno::ENOSPC);
        }
        if flags & SHM_HUGETLB != 0 || size > task.kernel.limits.memory_bytes {
            return Err(Errno::ENOMEM);
        }
        Ok(Segment::new(task, id, size, permissions))
    };
    let rules = (limits.number(SEGMENTS, 0), || limits.take_next(NEXT_SEGMENT));
    space.ipc.segments.get((args.int(0), flags), &task.credentials(), rules, fits, make).map(|id| id as usize)
}

pub fn shmat(task: &Arc<Task>, args: &Args) -> SysResult {
    const SHM_RDONLY: u32 = 0o10_000;
    const SHM_RND: u32 = 0o20_000;
    const SHM_REMAP: u32 = 0o40_000;
    const SHM_EXEC: u32 = 0o100_000;
    let (mut address, flags) = (args.raw(1), args.uint(2));
    if address % PAGE_SIZE != 0 {
        if flags & SHM_RND == 0 {
            return Err(Errno::EINVAL);
        }
        address -= address % PAGE_SIZE;
    }
    if address == 0 && flags & SHM_REMAP != 0 {
        return Err(Errno::EINVAL);
    }
    let segment = shared::find(&task.kernel, &task.namespaces().ipc.ipc, args.int(0))?;
    let read_only = flags & SHM_RDONLY != 0;
    let execute = if flags & SHM_EXEC != 0 { 1 } else { 0 };
    segment.permissions().check(&task.credentials(), READ | execute | if read_only { 0 } else { WRITE })?;
    let protection = raw::PROT_READ | if read_only { 0 } else { raw::PROT_WRITE } | if execute != 0 { raw::PROT_EXEC } else { 0 };
    let placement = match address {
        0 => Placement::Anywhere(0),
        _ if flags & SHM_REMAP != 0 => Placement::Fixed(address),
        _ => Placement::FixedFree(address),
    };
    let mut request = MapRequest::anonymous(placement, segment.size, protection);
    request.shared = true;
    request.may_write = !read_only;
    request.mapping = Mapping::Object(Arc::clone(&segment.memory));
    request.file = Some(shared::attachment(&segment));
    let limit = task.process.limits.lock().soft(raw::RLIMIT_AS);
    let mm = task.mm()?;
    let start = {
        let mut cpu = task.cpu.lock();
        mm.map(&mut *cpu.guest, request, limit).map_err(|errno| if errno == Errno::EEXIST { Errno::EINVAL } else { errno })?
    };
    segment.touch(task.process.pid, true);
    Ok(start as usize)
}

pub fn shmdt(task: &Arc<Task>, args: &Args) -> SysResult {
    let address = args.raw(0);
    let mm = task.mm()?;
    let file = mm.file_at_start(address).ok_or(Errno::EINVAL)?;
    let segment = Arc::clone(shared::of_file(&file).ok_or(Errno::EINVAL)?);
    {
        let mut cpu = task.cpu.lock();
        for (start, length) in mm.ranges_of(&file) {
            mm.unmap(&mut *cpu.guest, start, length)?;
        }
    }
    segment.touch(task.process.pid, false);
    segment.settle(&task.kernel, &task.namespaces().ipc.ipc);
    Ok(0)
}

fn write_segment(task: &Arc<Task>, segment: &Arc<Segment>, address: u64, check: bool) -> Result<(), Errno> {
    let state = *segment.state.lock();
    if check {
        state.permissions.check(&task.credentials(), READ)?;
    }
    let answer = SegmentState {
        permissions: state.permissions.to_raw(segment.id, &task.credentials()),
        size: segment.size,
        attached: state.attached,
        detached: state.detached,
        changed: state.changed,
        maker: task.shows(segment.maker),
        last: task.shows(segment.last.load(std::sync::atomic::Ordering::Relaxed)),
        attachments: segment.attachments(&task.kernel) as u64,
        unused: [0; 2],
    };
    task.write(address, &answer)
}

pub fn shmctl(task: &Arc<Task>, args: &Args) -> SysResult {
    const SHM_LOCK: u32 = 11;
    const SHM_UNLOCK: u32 = 12;
    const SHM_STAT: u32 = 13;
    const SHM_INFO: u32 = 14;
    const SHM_STAT_ANY: u32 = 15;
    let (id, command, address) = (args.int(0), args.uint(1) & !IPC_64, args.raw(2));
    let kernel = &task.kernel;
    let space = Arc::clone(&task.namespaces().ipc);
    let ipc = &space.ipc;
    let highest = || ipc.segments.all().len().saturating_sub(1);
    let credentials = task.credentials();
    match command {
        IPC_INFO => {
            let number = |path| ipc.limits.number(path, 0);
            task.write(address, &[number(SEGMENT_SIZE), 1, number(SEGMENTS), number(SEGMENTS), number(SEGMENT_PAGES), 0, 0, 0, 0])?;
            return Ok(highest());
        }
        SHM_INFO => {
            let all = ipc.segments.all();
            let pages: u64 = all.iter().map(|(_, segment)| segment.size.div_ceil(PAGE_SIZE)).sum();
            let resident: u64 = all.iter().map(|(_, segment)| segment.memory.allocated() / PAGE_SIZE).sum();
            task.write(address, &[all.len() as u64, pages, resident, 0, 0, 0])?;
            return Ok(highest());
        }
        SHM_STAT | SHM_STAT_ANY => {
            let (id, segment) = ipc.segments.at(id)?;
            write_segment(task, &segment, address, command == SHM_STAT)?;
            return Ok(id as usize);
        }
        IPC_RMID | IPC_SET | IPC_STAT | SHM_LOCK | SHM_UNLOCK => {}
        _ => return Err(Errno::EINVAL),
    }
    let given: Option<SegmentState> = if command == IPC_SET { Some(task.read(address)?) } else { None };
    let segment = shared::find(kernel, ipc, id)?;
    match command {
        IPC_STAT => write_segment(task, &segment, address, true)?,
        IPC_RMID => {
            segment.permissions().check_owner(&credentials)?;
            {
                let mut state = segment.state.lock();
                state.permissions.mode |= DESTROYED;
                // Nobody finds it by its key any more.
                state.permissions.key = 0;
            }
            segment.settle(kernel, ipc);
        }
        IPC_SET => {
            segment.permissions().check_owner(&credentials)?;
            let mut state = segment.state.lock();
            if let Some(given) = given {
                state.permissions.set(&given.permissions, &credentials)?;
            }
            state.changed = crate::time::realtime().tv_sec;
        }
        _ => {
            let locks = task.process.limits.lock().soft(raw::RLIMIT_MEMLOCK);
            let permissions = segment.permissions();
            if !credentials.has(raw::CAP_IPC_LOCK) && (permissions.check_owner(&credentials).is_err() || locks == 0) {
                return Err(Errno::EPERM);
            }
            let mut state = segment.state.lock();
            state.permissions.mode = state.permissions.mode & !LOCKED | if command == SHM_LOCK { LOCKED } else { 0 };
        }
    }
    Ok(0)
}
