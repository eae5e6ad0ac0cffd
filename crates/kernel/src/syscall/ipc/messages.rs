//! Message queues, `msgget(2)` and its family.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, raw};

use super::{Args, IPC_64, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, READ, SysResult, WRITE};
use crate::ipc::limits::{MESSAGE_SIZE, NEXT_QUEUE, QUEUE_BYTES, QUEUES};
use crate::ipc::{NOWAIT, Object, RawPermissions, messages};
use crate::task::Task;

pub fn msgget(task: &Arc<Task>, args: &Args) -> SysResult {
    let space = Arc::clone(&task.namespaces().ipc);
    let limits = &space.ipc.limits;
    let make = |_, permissions| Ok(messages::Queue::new(permissions, limits.number(QUEUE_BYTES, 0)));
    let rules = (limits.number(QUEUES, 0), || limits.take_next(NEXT_QUEUE));
    space.ipc.messages.get((args.int(0), args.uint(1)), &task.credentials(), rules, |_| Ok(()), make).map(|id| id as usize)
}

pub fn msgsnd(task: &Arc<Task>, args: &Args) -> SysResult {
    let length = args.size(2);
    let kind: i64 = task.read(args.raw(1))?;
    let space = Arc::clone(&task.namespaces().ipc);
    if length as u64 > space.ipc.limits.number(MESSAGE_SIZE, 0) || args.int(0) < 0 || kind < 1 {
        return Err(Errno::EINVAL);
    }
    let text: Vec<u8> = task.read_slice(args.raw(1).wrapping_add(8), length)?;
    let queue = space.ipc.messages.find(args.int(0))?;
    queue.permissions().check(&task.credentials(), WRITE)?;
    queue.send(task, kind, text, args.uint(3)).map(|()| 0)
}

pub fn msgrcv(task: &Arc<Task>, args: &Args) -> SysResult {
    const MSG_COPY: u32 = 0o40_000;
    let flags = args.uint(4);
    if args.int(0) < 0 || args.long(2) < 0 {
        return Err(Errno::EINVAL);
    }
    let copies = flags & MSG_COPY != 0;
    if copies && (flags & messages::EXCEPT != 0 || flags & NOWAIT == 0) {
        return Err(Errno::EINVAL);
    }
    let queue = task.namespaces().ipc.ipc.messages.find(args.int(0))?;
    queue.permissions().check(&task.credentials(), READ)?;
    let (kind, text) =
        if copies { queue.copy(args.long(3), args.size(2), flags)? } else { queue.receive(task, args.long(3), args.size(2), flags)? };
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

pub fn msgctl(task: &Arc<Task>, args: &Args) -> SysResult {
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
            let number = |path| ipc.limits.number(path, 0) as i32;
            task.write(address, &[pool, map, number(MESSAGE_SIZE), number(QUEUE_BYTES), number(QUEUES), 16, total, 0xffff])?;
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
            if given.capacity > ipc.limits.number(QUEUE_BYTES, 0) && !credentials.has(raw::CAP_SYS_RESOURCE) {
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
