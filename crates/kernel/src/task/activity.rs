//! What tasks read, wrote, sent and received: counted by each task for itself, so that counting costs a plain addition, and added up when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};

use cloudpilot_abi::Errno;

use super::{Process, Task};
use crate::Kernel;
use crate::vfs::file::{File, Traffic};

/// Where bytes went, or came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Read, received.
    In,
    /// Written, sent.
    Out,
}

/// Bytes and operations of both directions. A stream's piece and a message are one operation each, and count as a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Flow {
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub operations_in: u64,
    pub operations_out: u64,
}

impl Flow {
    fn add(&mut self, other: Self) {
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.operations_in += other.operations_in;
        self.operations_out += other.operations_out;
    }
}

/// All that a task, a process or the sandbox moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Through `read(2)`, `write(2)` and their like, whatever the file.
    pub calls: Flow,
    /// Of that, what files of the host hold: volumes and the read-only lower layer.
    pub storage: Flow,
    /// Over sockets of the loopback.
    pub loopback: Flow,
    /// Over sockets that reach out of the sandbox.
    pub network: Flow,
}

impl Activity {
    /// Adds what another moved.
    pub fn add(&mut self, other: Self) {
        self.calls.add(other.calls);
        self.storage.add(other.storage);
        self.loopback.add(other.loopback);
        self.network.add(other.network);
    }
}

/// Counters of a flow.
#[derive(Debug, Default)]
pub struct FlowCounter {
    bytes: [AtomicU64; 2],
    operations: [AtomicU64; 2],
}

impl FlowCounter {
    /// Counts an operation, as the only one who does: others may look meanwhile.
    fn count(&self, direction: Direction, bytes: usize) {
        let bump = |counter: &AtomicU64, by: u64| counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
        bump(&self.bytes[direction as usize], bytes as u64);
        bump(&self.operations[direction as usize], 1);
    }

    /// Counts an operation, as one of several who do.
    pub fn count_shared(&self, direction: Direction, bytes: usize) {
        self.bytes[direction as usize].fetch_add(bytes as u64, Ordering::Relaxed);
        self.operations[direction as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn flow(&self) -> Flow {
        let load = |counters: &[AtomicU64; 2], direction: Direction| counters[direction as usize].load(Ordering::Relaxed);
        Flow {
            bytes_in: load(&self.bytes, Direction::In),
            bytes_out: load(&self.bytes, Direction::Out),
            operations_in: load(&self.operations, Direction::In),
            operations_out: load(&self.operations, Direction::Out),
        }
    }
}

/// Counters of a task, which its own kernel thread alone writes.
#[derive(Debug, Default)]
pub struct Counters {
    calls: FlowCounter,
    storage: FlowCounter,
    loopback: FlowCounter,
    network: FlowCounter,
}

impl Counters {
    /// Counts a call of the `read(2)` and `write(2)` families.
    pub fn call(&self, file: &File, direction: Direction, result: &Result<usize, Errno>) {
        let bytes = *result.as_ref().unwrap_or(&0);
        self.calls.count(direction, bytes);
        if bytes > 0 {
            self.traffic(file.ops.traffic(), direction, bytes);
        }
    }

    /// Counts what went over a file by calls of its own kind, as sockets have them.
    pub fn traffic(&self, traffic: Traffic, direction: Direction, bytes: usize) {
        match traffic {
            Traffic::Memory => {}
            Traffic::Storage => self.storage.count(direction, bytes),
            Traffic::Loopback => self.loopback.count(direction, bytes),
            Traffic::Network => self.network.count(direction, bytes),
        }
    }

    /// What was counted so far.
    pub fn activity(&self) -> Activity {
        Activity { calls: self.calls.flow(), storage: self.storage.flow(), loopback: self.loopback.flow(), network: self.network.flow() }
    }
}

/// What a process moved, its threads that are gone included. Takes `family`, then `usage`, one after the other.
pub fn of_process(process: &Process) -> Activity {
    let tasks = process.family.lock().tasks.clone();
    let mut all = process.usage.lock().dead_activity;
    tasks.iter().for_each(|task| all.add(task.counters.activity()));
    all
}

/// A thread exits: what it moved goes to its process, and to the sandbox.
pub fn thread_exits(task: &Task) {
    let activity = task.counters.activity();
    task.process.usage.lock().dead_activity.add(activity);
    task.kernel.system.dead_activity.lock().add(activity);
}

impl Kernel {
    /// What the sandbox moved since boot. Connections that the outside made to ports inside are network as well.
    pub fn activity(&self) -> Activity {
        let mut all = *self.system.dead_activity.lock();
        self.tasks.tasks().iter().for_each(|task| all.add(task.counters.activity()));
        all.network.add(self.net.joined.flow());
        all
    }
}
