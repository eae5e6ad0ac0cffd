//! Futexes, `futex(2)`: who sleeps on which word.
//!
//! Words are identified by address space and address, or by place in the memory file where several address spaces share the page. Lock order: a
//! bucket, then the address space (the word is read with the bucket locked, so that a wake between look and sleep is not lost); two buckets by
//! number.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use cloudpilot_abi::{Errno, raw};
use parking_lot::{Mutex, MutexGuard};

use crate::mm::access::FutexKey;
use crate::task::Task;
use crate::wait::WaitError;

/// A mask that matches every waiter, `FUTEX_BITSET_MATCH_ANY`.
pub const ANY: u32 = u32::MAX;
/// Buckets: threads of one sandbox seldom contend for one.
const BUCKETS: usize = 64;
/// Most entries of a robust list that are followed, `ROBUST_LIST_LIMIT`.
const ROBUST_LIMIT: usize = 2048;

struct Waiter {
    key: Mutex<FutexKey>,
    bits: u32,
    woken: AtomicBool,
    task: Arc<Task>,
}

impl Waiter {
    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.task.parker.unpark();
    }
}

type Bucket = Mutex<Vec<Arc<Waiter>>>;

fn buckets() -> &'static [Bucket; BUCKETS] {
    static TABLE: OnceLock<[Bucket; BUCKETS]> = OnceLock::new();
    TABLE.get_or_init(|| std::array::from_fn(|_| Mutex::default()))
}

fn index(key: FutexKey) -> usize {
    let word = match key {
        FutexKey::Private(space, address) => address ^ space.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        FutexKey::Shared(offset) => offset,
    };
    // Multiplicative hash; the upper bits are the good ones.
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % BUCKETS
}

fn key(task: &Task, address: u64, shared: bool) -> Result<FutexKey, Errno> {
    let mm = task.mm()?;
    let mut cpu = task.cpu.lock();
    mm.futex_key(&mut *cpu.guest, address, shared)
}

fn load(task: &Task, address: u64) -> Result<u32, Errno> {
    let mm = task.mm()?;
    let mut cpu = task.cpu.lock();
    mm.load_u32(&mut *cpu.guest, address)
}

fn compare_exchange(task: &Task, address: u64, current: u32, new: u32) -> Result<u32, Errno> {
    let mm = task.mm()?;
    let mut cpu = task.cpu.lock();
    mm.compare_exchange_u32(&mut *cpu.guest, address, current, new)
}

/// One word of `futex_waitv(2)` or the only one of `FUTEX_WAIT`.
pub struct Word {
    /// Where it is.
    pub address: u64,
    /// What it must hold for the sleep to begin.
    pub value: u32,
    /// Whom wakes must match.
    pub bits: u32,
    /// Whether other address spaces may wake it.
    pub shared: bool,
}

/// Sleeps until one of the words is woken; answers which. `EAGAIN` if one holds another value, `ETIMEDOUT`, `ERESTARTSYS` at a signal.
pub fn wait(task: &Arc<Task>, words: &[Word], deadline: Option<u64>) -> Result<usize, Errno> {
    let mut waiters: Vec<Arc<Waiter>> = Vec::with_capacity(words.len());
    for word in words {
        match enqueue(task, word) {
            Ok(waiter) => waiters.push(waiter),
            Err(errno) => {
                // A wake that came for an earlier word counts.
                return dequeue(&waiters).ok_or(errno);
            }
        }
    }
    let woken = || waiters.iter().position(|waiter| waiter.woken.load(Ordering::SeqCst));
    let slept = task.block_on(&[], crate::wait::PollEvents::empty(), deadline, woken);
    match (dequeue(&waiters), slept) {
        (Some(index), _) | (None, Ok(index)) => Ok(index),
        (None, Err(WaitError::TimedOut)) => Err(Errno::ETIMEDOUT),
        (None, Err(WaitError::Interrupted)) => Err(Errno::ERESTARTSYS),
    }
}

fn enqueue(task: &Arc<Task>, word: &Word) -> Result<Arc<Waiter>, Errno> {
    if word.bits == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key(task, word.address, word.shared)?;
    let mut bucket = buckets()[index(key)].lock();
    if load(task, word.address)? != word.value {
        return Err(Errno::EAGAIN);
    }
    let waiter = Arc::new(Waiter { key: Mutex::new(key), bits: word.bits, woken: AtomicBool::new(false), task: Arc::clone(task) });
    bucket.push(Arc::clone(&waiter));
    Ok(waiter)
}

/// Takes waiters out of their buckets; answers the first that was woken.
fn dequeue(waiters: &[Arc<Waiter>]) -> Option<usize> {
    for waiter in waiters {
        while !waiter.woken.load(Ordering::SeqCst) {
            let key = *waiter.key.lock();
            let mut bucket = buckets()[index(key)].lock();
            // A requeue may have moved it meanwhile.
            if let Some(position) = bucket.iter().position(|other| Arc::ptr_eq(other, waiter)) {
                bucket.remove(position);
                break;
            }
        }
    }
    waiters.iter().position(|waiter| waiter.woken.load(Ordering::SeqCst))
}

/// Wakes up to `count` waiters that match; answers how many.
pub fn wake(task: &Task, address: u64, count: u32, bits: u32, shared: bool) -> Result<usize, Errno> {
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key(task, address, shared)?;
    Ok(wake_key(&mut buckets()[index(key)].lock(), key, count, bits))
}

fn wake_key(bucket: &mut Vec<Arc<Waiter>>, key: FutexKey, count: u32, bits: u32) -> usize {
    let mut woken = 0;
    bucket.retain(|waiter| {
        if woken < count as usize && *waiter.key.lock() == key && waiter.bits & bits != 0 {
            woken += 1;
            waiter.wake();
            return false;
        }
        true
    });
    woken
}

/// Two buckets locked in order; the second is none if it is the first.
fn lock_two(one: usize, other: usize) -> (MutexGuard<'static, Vec<Arc<Waiter>>>, Option<MutexGuard<'static, Vec<Arc<Waiter>>>>) {
    let table = buckets();
    if one == other {
        return (table[one].lock(), None);
    }
    if one < other {
        let first = table[one].lock();
        return (first, Some(table[other].lock()));
    }
    let second = table[other].lock();
    (table[one].lock(), Some(second))
}

/// `FUTEX_REQUEUE` and `FUTEX_CMP_REQUEUE`: wakes some waiters and lets others wait for a second word. Answers woken and moved together.
pub fn requeue(
    task: &Task,
    (from, to): (u64, u64),
    (wake_count, move_count): (u32, u32),
    expected: Option<u32>,
    (from_shared, to_shared): (bool, bool),
) -> Result<usize, Errno> {
    let (source, target) = (key(task, from, from_shared)?, key(task, to, to_shared)?);
    let (mut first, mut second) = lock_two(index(source), index(target));
    if let Some(expected) = expected
        && load(task, from)? != expected
    {
        return Err(Errno::EAGAIN);
    }
    let woken = wake_key(&mut first, source, wake_count, ANY);
    let mut moved = Vec::new();
    first.retain(|waiter| {
        let mut key = waiter.key.lock();
        if moved.len() < move_count as usize && *key == source {
            *key = target;
            drop(key);
            moved.push(Arc::clone(waiter));
            return false;
        }
        true
    });
    let count = woken + moved.len();
    second.as_mut().unwrap_or(&mut first).extend(moved);
    Ok(count)
}

/// `FUTEX_WAKE_OP`: changes the second word, wakes waiters of the first, and of the second if its old value compares.
pub fn wake_op(
    task: &Task,
    (one, other): (u64, u64),
    (count, other_count): (u32, u32),
    operation: u32,
    shared: bool,
) -> Result<usize, Errno> {
    let (first_key, second_key) = (key(task, one, shared)?, key(task, other, shared)?);
    let (mut first, mut second) = lock_two(index(first_key), index(second_key));
    let old = apply(task, other, operation)?;
    let mut woken = wake_key(&mut first, first_key, count, ANY);
    if compares(old, operation)? {
        woken += wake_key(second.as_mut().unwrap_or(&mut first), second_key, other_count, ANY);
    }
    Ok(woken)
}

/// Sign-extends a 12-bit field.
fn field(value: u32) -> i32 {
    ((value << 20) as i32) >> 20
}

fn apply(task: &Task, address: u64, operation: u32) -> Result<u32, Errno> {
    let mut argument = field(operation >> 12) as u32;
    if operation & raw::FUTEX_OP_OPARG_SHIFT << 28 != 0 {
        argument = 1_u32.wrapping_shl(argument & 31);
    }
    loop {
        let old = load(task, address)?;
        let new = match operation >> 28 & 7 {
            raw::FUTEX_OP_SET => argument,
            raw::FUTEX_OP_ADD => old.wrapping_add(argument),
            raw::FUTEX_OP_OR => old | argument,
            raw::FUTEX_OP_ANDN => old & !argument,
            raw::FUTEX_OP_XOR => old ^ argument,
            _ => return Err(Errno::ENOSYS),
        };
        if compare_exchange(task, address, old, new)? == old {
            return Ok(old);
        }
    }
}

fn compares(old: u32, operation: u32) -> Result<bool, Errno> {
    let (old, argument) = (old as i32, field(operation));
    Ok(match operation >> 24 & 15 {
        raw::FUTEX_OP_CMP_EQ => old == argument,
        raw::FUTEX_OP_CMP_NE => old != argument,
        raw::FUTEX_OP_CMP_LT => old < argument,
        raw::FUTEX_OP_CMP_LE => old <= argument,
        raw::FUTEX_OP_CMP_GT => old > argument,
        raw::FUTEX_OP_CMP_GE => old >= argument,
        _ => return Err(Errno::ENOSYS),
    })
}

/// A thread ends: locks on its robust list are marked as orphaned, and one waiter of each is woken, `get_robust_list(2)`. The list is the
/// guest's: unreadable or endless ones are given up.
pub fn release_owned(task: &Arc<Task>) {
    let head = task.robust_list.swap(0, Ordering::Relaxed);
    if head == 0 {
        return;
    }
    let Ok([first, offset, pending]) = task.read::<[u64; 3]>(head) else { return };
    let mut entry = first;
    for _ in 0..ROBUST_LIMIT {
        if entry & !1 == head {
            break;
        }
        // Read before it is released: the next owner may change it.
        let next = task.read::<u64>(entry & !1);
        if entry != pending {
            release(task, (entry & !1).wrapping_add(offset));
        }
        match next {
            Ok(next) => entry = next,
            Err(_) => return,
        }
    }
    if pending != 0 {
        release(task, (pending & !1).wrapping_add(offset));
    }
}

fn release(task: &Arc<Task>, address: u64) {
    loop {
        let Ok(old) = load(task, address) else { return };
        if old & raw::FUTEX_TID_MASK != task.tid() as u32 {
            return;
        }
        let new = old & raw::FUTEX_WAITERS | raw::FUTEX_OWNER_DIED;
        match compare_exchange(task, address, old, new) {
            Ok(was) if was == old => break,
            Ok(_) => {}
            Err(_) => return,
        }
    }
    for shared in [true, false] {
        let _ = wake(task, address, 1, ANY, shared);
    }
}
