//! System V IPC and POSIX message queues: arguments and structures.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, PAGE_SIZE, raw};

use super::Arg::{Fd, Flags, Int, Mode, Path, Ptr, Size};
use super::{Args, Call, SysResult, blocking, clock};
use crate::ipc::posix_queues::{self, Means};
use crate::ipc::semaphores::{self, Operation};
use crate::ipc::shared_memory::{self as shared, DESTROYED, LOCKED, Segment};
use crate::ipc::{Object, RawPermissions, messages};
use crate::mm::{MapRequest, Mapping, Placement};
use crate::task::Task;
use crate::wait::PollEvents;

/// This family.
pub const CALLS: &[Call] = &[
    Call::partial(raw::__NR_shmget, shmget, &[Int, Size, Flags], "huge pages are refused"),
    Call::full(raw::__NR_shmat, shmat, &[Int, Ptr, Flags]),
    Call::full(raw::__NR_shmdt, shmdt, &[Ptr]),
    Call::full(raw::__NR_shmctl, shmctl, &[Int, Int, Ptr]),
    Call::full(raw::__NR_semget, semget, &[Int, Int, Flags]),
    Call::full(raw::__NR_semop, |task, args| operate(task, args, None), &[Int, Ptr, Size]),
    Call::full(raw::__NR_semtimedop, semtimedop, &[Int, Ptr, Size, Ptr]),
    Call::full(raw::__NR_semctl, semctl, &[Int, Int, Int, Ptr]),
    Call::full(raw::__NR_msgget, msgget, &[Int, Flags]),
    Call::full(raw::__NR_msgsnd, msgsnd, &[Int, Ptr, Size, Flags]),
    Call::partial(raw::__NR_msgrcv, msgrcv, &[Int, Ptr, Size, Int, Flags], "MSG_COPY is ENOSYS, as without checkpoint support"),
    Call::full(raw::__NR_msgctl, msgctl, &[Int, Int, Ptr]),
    Call::full(raw::__NR_mq_open, mq_open, &[Path, Flags, Mode, Ptr]),
    Call::full(raw::__NR_mq_unlink, mq_unlink, &[Path]),
    Call::full(raw::__NR_mq_timedsend, mq_timedsend, &[Fd, Ptr, Size, Size, Ptr]),
    Call::full(raw::__NR_mq_timedreceive, mq_timedreceive, &[Fd, Ptr, Size, Ptr, Ptr]),
    Call::full(raw::__NR_mq_notify, mq_notify, &[Fd, Ptr]),
    Call::full(raw::__NR_mq_getsetattr, mq_getsetattr, &[Fd, Ptr, Ptr]),
];

const IPC_RMID: u32 = 0;
const IPC_SET: u32 = 1;
const IPC_STAT: u32 = 2;
const IPC_INFO: u32 = 3;
/// A flag that old C libraries add to commands.
const IPC_64: u32 = 0x100;
const READ: u32 = 4;
const WRITE: u32 = 2;

/// Largest segment, `SHMMAX`.
const SHMMAX: u64 = u64::MAX - (1 << 24);

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

fn shmget(task: &Arc<Task>, args: &Args) -> SysResult {
    const SHM_HUGETLB: u32 = 0o4000;
    let (size, flags) = (args.raw(1), args.uint(2));
    let fits = |segment: &Segment| if size > segment.size { Err(Errno::EINVAL) } else { Ok(()) };
    let make = |id, permissions| {
        if size == 0 || size > SHMMAX {
            return Err(Errno::EINVAL);
        }
        if flags & SHM_HUGETLB != 0 || size > task.kernel.limits.memory_bytes {
            return Err(Errno::ENOMEM);
        }
        Ok(Segment::new(task, id, size, permissions))
    };
    task.namespaces().ipc.ipc.segments.get(args.int(0), flags, &task.credentials(), fits, make).map(|id| id as usize)
}

fn shmat(task: &Arc<Task>, args: &Args) -> SysResult {
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

fn shmdt(task: &Arc<Task>, args: &Args) -> SysResult {
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

fn shmctl(task: &Arc<Task>, args: &Args) -> SysResult {
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
            task.write(address, &[SHMMAX, 1, 4096, 4096, SHMMAX, 0, 0, 0, 0])?;
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

/// Most semaphores of a set (`SEMMSL`), and operations at once (`SEMOPM`).
const SEMMSL: usize = 32_000;
const SEMOPM: usize = 500;

fn semget(task: &Arc<Task>, args: &Args) -> SysResult {
    let count = usize::try_from(args.int(1)).ok().filter(|count| *count <= SEMMSL).ok_or(Errno::EINVAL)?;
    let fits = |set: &semaphores::Set| if count > set.state.lock().semaphores.len() { Err(Errno::EINVAL) } else { Ok(()) };
    let make = |_, permissions| if count == 0 { Err(Errno::EINVAL) } else { Ok(semaphores::Set::new(count, permissions)) };
    task.namespaces().ipc.ipc.semaphores.get(args.int(0), args.uint(2), &task.credentials(), fits, make).map(|id| id as usize)
}

fn semtimedop(task: &Arc<Task>, args: &Args) -> SysResult {
    let deadline = match args.raw(3) {
        0 => None,
        address => Some(clock::deadline_after(task.read::<Timespec>(address)?)?),
    };
    operate(task, args, deadline)
}

fn operate(task: &Arc<Task>, args: &Args, deadline: Option<u64>) -> SysResult {
    let count = args.uint(2) as usize;
    if count == 0 || args.int(0) < 0 {
        return Err(Errno::EINVAL);
    }
    if count > SEMOPM {
        return Err(Errno::E2BIG);
    }
    let operations: Vec<Operation> = task.read_slice(args.raw(1), count)?;
    let set = task.namespaces().ipc.ipc.semaphores.find(args.int(0))?;
    let size = set.state.lock().semaphores.len();
    if operations.iter().any(|operation| usize::from(operation.number) >= size) {
        return Err(Errno::EFBIG);
    }
    let changes = operations.iter().any(|operation| operation.change != 0);
    set.permissions().check(&task.credentials(), if changes { WRITE } else { READ })?;
    set.operate(task, &operations, deadline).map(|()| 0)
}

/// `struct semid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SetState {
    permissions: RawPermissions,
    used: i64,
    unused: u64,
    changed: i64,
    unused_too: u64,
    count: u64,
    rest: [u64; 2],
}

fn semctl(task: &Arc<Task>, args: &Args) -> SysResult {
    const GETPID: u32 = 11;
    const GETVAL: u32 = 12;
    const GETALL: u32 = 13;
    const GETNCNT: u32 = 14;
    const GETZCNT: u32 = 15;
    const SETVAL: u32 = 16;
    const SETALL: u32 = 17;
    const SEM_STAT: u32 = 18;
    const SEM_INFO: u32 = 19;
    const SEM_STAT_ANY: u32 = 20;
    let (id, number, command, argument) = (args.int(0), args.int(1), args.uint(2) & !IPC_64, args.raw(3));
    let space = Arc::clone(&task.namespaces().ipc);
    let ipc = &space.ipc;
    let credentials = task.credentials();
    let write_state = |id: i32, set: &semaphores::Set, check: bool| {
        let state = set.state.lock();
        if check {
            state.permissions.check(&credentials, READ)?;
        }
        let answer = SetState {
            permissions: state.permissions.to_raw(id, &credentials),
            used: state.used,
            unused: 0,
            changed: state.changed,
            unused_too: 0,
            count: state.semaphores.len() as u64,
            rest: [0; 2],
        };
        drop(state);
        task.write(argument, &answer)
    };
    match command {
        IPC_INFO | SEM_INFO => {
            let all = ipc.semaphores.all();
            let total: usize = all.iter().map(|(_, set)| set.state.lock().semaphores.len()).sum();
            let (sets, total) = if command == SEM_INFO { (all.len() as i32, total as i32) } else { (20, semaphores::LARGEST) };
            let (largest, at_once) = (SEMMSL as i32, SEMOPM as i32);
            task.write(
                argument,
                &[1_024_000_000_i32, 32_000, 1_024_000_000, 1_024_000_000, largest, at_once, 500, sets, semaphores::LARGEST, total],
            )?;
            return Ok(all.len().saturating_sub(1));
        }
        SEM_STAT | SEM_STAT_ANY => {
            let (id, set) = ipc.semaphores.at(id)?;
            write_state(id, &set, command == SEM_STAT)?;
            return Ok(id as usize);
        }
        _ => {}
    }
    let set = ipc.semaphores.find(id)?;
    let index =
        |state: &semaphores::State| usize::try_from(number).ok().filter(|index| *index < state.semaphores.len()).ok_or(Errno::EINVAL);
    match command {
        IPC_STAT => write_state(id, &set, true)?,
        IPC_RMID => {
            set.permissions().check_owner(&credentials)?;
            ipc.semaphores.remove(id);
            set.removed();
        }
        IPC_SET => {
            let given: SetState = task.read(argument)?;
            set.permissions().check_owner(&credentials)?;
            let mut state = set.state.lock();
            state.permissions.set(&given.permissions, &credentials)?;
            state.changed = crate::time::realtime().tv_sec;
        }
        GETVAL | GETPID | GETNCNT | GETZCNT => {
            let state = set.state.lock();
            let semaphore = state.semaphores[index(&state)?];
            state.permissions.check(&credentials, READ)?;
            return Ok(match command {
                GETVAL => semaphore.value as usize,
                GETPID => task.shows(semaphore.last) as usize,
                GETNCNT => semaphore.growers as usize,
                _ => semaphore.zeroers as usize,
            });
        }
        GETALL => {
            let state = set.state.lock();
            state.permissions.check(&credentials, READ)?;
            let values: Vec<u16> = state.semaphores.iter().map(|semaphore| semaphore.value as u16).collect();
            drop(state);
            task.write_slice(argument, &values)?;
        }
        SETVAL => {
            let value = argument as i32;
            if !(0..=semaphores::LARGEST).contains(&value) {
                return Err(Errno::ERANGE);
            }
            let mut state = set.state.lock();
            let index = index(&state)?;
            state.permissions.check(&credentials, WRITE)?;
            state.set(index, value, task.process.pid);
            drop(state);
            set.announce();
        }
        SETALL => {
            let count = {
                let state = set.state.lock();
                state.permissions.check(&credentials, WRITE)?;
                state.semaphores.len()
            };
            let values: Vec<u16> = task.read_slice(argument, count)?;
            if values.iter().any(|value| i32::from(*value) > semaphores::LARGEST) {
                return Err(Errno::ERANGE);
            }
            let mut state = set.state.lock();
            for (index, value) in values.into_iter().enumerate() {
                state.set(index, i32::from(value), task.process.pid);
            }
            drop(state);
            set.announce();
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn msgget(task: &Arc<Task>, args: &Args) -> SysResult {
    let make = |_, permissions| Ok(messages::Queue::new(permissions));
    task.namespaces().ipc.ipc.messages.get(args.int(0), args.uint(1), &task.credentials(), |_| Ok(()), make).map(|id| id as usize)
}

fn msgsnd(task: &Arc<Task>, args: &Args) -> SysResult {
    let length = args.size(2);
    let kind: i64 = task.read(args.raw(1))?;
    if length > messages::LARGEST || args.int(0) < 0 || kind < 1 {
        return Err(Errno::EINVAL);
    }
    let text: Vec<u8> = task.read_slice(args.raw(1).wrapping_add(8), length)?;
    let queue = task.namespaces().ipc.ipc.messages.find(args.int(0))?;
    queue.permissions().check(&task.credentials(), WRITE)?;
    queue.send(task, kind, text, args.uint(3)).map(|()| 0)
}

fn msgrcv(task: &Arc<Task>, args: &Args) -> SysResult {
    const MSG_COPY: u32 = 0o40_000;
    let flags = args.uint(4);
    if args.int(0) < 0 || args.long(2) < 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MSG_COPY != 0 {
        return Err(Errno::ENOSYS);
    }
    let queue = task.namespaces().ipc.ipc.messages.find(args.int(0))?;
    queue.permissions().check(&task.credentials(), READ)?;
    let (kind, text) = queue.receive(task, args.long(3), args.size(2), flags)?;
    task.write(args.raw(1), &kind)?;
    task.write_bytes(args.raw(1).wrapping_add(8), &text)?;
    Ok(text.len())
}

/// `struct msqid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct QueueState {
    permissions: RawPermissions,
    sent: i64,
    received: i64,
    changed: i64,
    bytes: u64,
    count: u64,
    capacity: u64,
    last_sender: i32,
    last_receiver: i32,
    rest: [u64; 2],
}

fn msgctl(task: &Arc<Task>, args: &Args) -> SysResult {
    const MSG_STAT: u32 = 11;
    const MSG_INFO: u32 = 12;
    const MSG_STAT_ANY: u32 = 13;
    let (id, command, address) = (args.int(0), args.uint(1) & !IPC_64, args.raw(2));
    let space = Arc::clone(&task.namespaces().ipc);
    let ipc = &space.ipc;
    let credentials = task.credentials();
    let write_state = |id: i32, queue: &messages::Queue, check: bool| {
        let state = queue.state.lock();
        if check {
            state.permissions.check(&credentials, READ)?;
        }
        let answer = QueueState {
            permissions: state.permissions.to_raw(id, &credentials),
            sent: state.sent,
            received: state.received,
            changed: state.changed,
            bytes: state.bytes,
            count: state.messages.len() as u64,
            capacity: state.capacity,
            last_sender: task.shows(state.last_sender),
            last_receiver: task.shows(state.last_receiver),
            rest: [0; 2],
        };
        drop(state);
        task.write(address, &answer)
    };
    match command {
        IPC_INFO | MSG_INFO => {
            let all = ipc.messages.all();
            let messages: usize = all.iter().map(|(_, queue)| queue.state.lock().messages.len()).sum();
            let bytes: u64 = all.iter().map(|(_, queue)| queue.state.lock().bytes).sum();
            let (pool, map, total) =
                if command == MSG_INFO { (all.len() as i32, messages as i32, bytes as i32) } else { (512_000, 16_384, 16_384) };
            task.write(address, &[pool, map, messages::LARGEST as i32, messages::CAPACITY as i32, 32_000, 16, total, 0xffff])?;
            return Ok(all.len().saturating_sub(1));
        }
        MSG_STAT | MSG_STAT_ANY => {
            let (id, queue) = ipc.messages.at(id)?;
            write_state(id, &queue, command == MSG_STAT)?;
            return Ok(id as usize);
        }
        IPC_RMID | IPC_SET | IPC_STAT => {}
        _ => return Err(Errno::EINVAL),
    }
    let given: Option<QueueState> = if command == IPC_SET { Some(task.read(address)?) } else { None };
    let queue = ipc.messages.find(id)?;
    if command == IPC_STAT {
        write_state(id, &queue, true)?;
        return Ok(0);
    }
    queue.permissions().check_owner(&credentials)?;
    match given {
        Some(given) => {
            let mut state = queue.state.lock();
            if given.capacity > messages::CAPACITY && !credentials.has(raw::CAP_SYS_RESOURCE) {
                return Err(Errno::EPERM);
            }
            state.permissions.set(&given.permissions, &credentials)?;
            state.capacity = given.capacity;
            state.changed = crate::time::realtime().tv_sec;
            drop(state);
            queue.announce();
        }
        None => {
            ipc.messages.remove(id);
            queue.removed();
        }
    }
    Ok(0)
}

/// `struct mq_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct MqAttributes {
    flags: i64,
    capacity: i64,
    largest: i64,
    length: i64,
    reserved: [i64; 4],
}

/// Highest priority and one, `MQ_PRIO_MAX`.
const MQ_PRIO_MAX: u32 = 32_768;

/// The name of a queue; the C library took its slash off.
fn queue_name(task: &Task, address: u64) -> Result<Vec<u8>, Errno> {
    let name = task.read_path(address)?;
    match name.len() {
        0 => Err(Errno::ENOENT),
        256.. => Err(Errno::ENAMETOOLONG),
        _ if name.contains(&b'/') => Err(Errno::EACCES),
        _ => Ok(name),
    }
}

fn mq_open(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(1);
    let limits = match (flags & raw::O_CREAT, args.raw(3)) {
        (0, _) | (_, 0) => None,
        (_, address) => {
            let given: MqAttributes = task.read(address)?;
            let bound = |value: i64| usize::try_from(value).unwrap_or(0);
            Some((bound(given.capacity), bound(given.largest)))
        }
    };
    let name = queue_name(task, args.raw(0))?;
    let file = task.namespaces().ipc.ipc.queues.open(task, name, flags, args.uint(2), limits)?;
    blocking::install(task, file, flags)
}

fn mq_unlink(task: &Arc<Task>, args: &Args) -> SysResult {
    let name = queue_name(task, args.raw(0))?;
    task.namespaces().ipc.ipc.queues.unlink(&task.credentials(), &name).map(|()| 0)
}

fn mq_deadline(task: &Task, address: u64) -> Result<Option<u64>, Errno> {
    if address == 0 { Ok(None) } else { clock::deadline_at(raw::CLOCK_REALTIME as i32, task.read(address)?).map(Some) }
}

fn mq_timedsend(task: &Arc<Task>, args: &Args) -> SysResult {
    let (length, priority) = (args.size(2), args.uint(3));
    if priority >= MQ_PRIO_MAX {
        return Err(Errno::EINVAL);
    }
    let deadline = mq_deadline(task, args.raw(4))?;
    let file = task.file(args.int(0))?;
    let queue = posix_queues::of_file(&file)?;
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    if length > queue.largest {
        return Err(Errno::EMSGSIZE);
    }
    let text: Vec<u8> = task.read_slice(args.raw(1), length)?;
    let attempt = || queue.send(task, priority, &text).ok_or(Errno::EAGAIN);
    blocking::retry(task, &*file.ops, PollEvents::OUT, file.nonblocking(), deadline, attempt)
        .map_err(|errno| late(errno, &file))
        .map(|()| 0)
}

/// A wait that ran out of time is no refusal to wait.
fn late(errno: Errno, file: &crate::vfs::File) -> Errno {
    if errno == Errno::EAGAIN && !file.nonblocking() { Errno::ETIMEDOUT } else { errno }
}

fn mq_timedreceive(task: &Arc<Task>, args: &Args) -> SysResult {
    let deadline = mq_deadline(task, args.raw(4))?;
    let file = task.file(args.int(0))?;
    let queue = posix_queues::of_file(&file)?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    if args.size(2) < queue.largest {
        return Err(Errno::EMSGSIZE);
    }
    queue.count_receiver(true);
    let attempt = || queue.receive().ok_or(Errno::EAGAIN);
    let result = blocking::retry(task, &*file.ops, PollEvents::IN, file.nonblocking(), deadline, attempt);
    queue.count_receiver(false);
    let (priority, text) = result.map_err(|errno| late(errno, &file))?;
    task.write_bytes(args.raw(1), &text)?;
    if args.raw(3) != 0 {
        task.write(args.raw(3), &priority)?;
    }
    Ok(text.len())
}

fn mq_notify(task: &Arc<Task>, args: &Args) -> SysResult {
    let wanted = if args.raw(1) == 0 { None } else { Some(means_of(task, args.raw(1))?) };
    let file = task.file(args.int(0))?;
    posix_queues::of_file(&file)?.notify(&task.process, wanted).map(|()| 0)
}

fn means_of(task: &Arc<Task>, address: u64) -> Result<Means, Errno> {
    // `struct sigevent`: value, signal, kind.
    let (value, [number, kind]): (u64, [i32; 2]) = (task.read(address)?, task.read(address.wrapping_add(8))?);
    match kind as u32 {
        raw::SIGEV_NONE => Ok(Means::Silence),
        raw::SIGEV_SIGNAL if crate::signal::bit(number) != 0 => Ok(Means::Signal(number, value)),
        raw::SIGEV_THREAD => {
            // The signal's place holds the socket.
            let socket = task.file(number)?;
            Ok(Means::Socket(crate::net::netlink::of_file(&socket)?, task.read(value)?))
        }
        _ => Err(Errno::EINVAL),
    }
}

fn mq_getsetattr(task: &Arc<Task>, args: &Args) -> SysResult {
    let given: Option<MqAttributes> = if args.raw(1) == 0 { None } else { Some(task.read(args.raw(1))?) };
    let nonblocking = i64::from(raw::O_NONBLOCK);
    if given.is_some_and(|given| given.flags & !nonblocking != 0) {
        return Err(Errno::EINVAL);
    }
    let file = task.file(args.int(0))?;
    let queue = posix_queues::of_file(&file)?;
    if args.raw(2) != 0 {
        let answer = MqAttributes {
            flags: i64::from(file.flags() & raw::O_NONBLOCK),
            capacity: queue.capacity as i64,
            largest: queue.largest as i64,
            length: queue.length() as i64,
            reserved: [0; 4],
        };
        task.write(args.raw(2), &answer)?;
    }
    if let Some(given) = given {
        file.set_flags(file.flags() & !raw::O_NONBLOCK | given.flags as u32);
    }
    Ok(0)
}
