//! Futexes, `futex(2)`: who sleeps on which word.
//!
//! Words are identified by address space and address, or by place in the memory file where several address spaces share the page. Lock order: a
//! bucket, then the address space (the word is read with the bucket locked, so that a wake between look and sleep is not lost); two buckets by
//! number.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cloudpilot_abi::{Errno, raw};
use parking_lot::{Mutex, MutexGuard};

use crate::mm::access::FutexKey;
use crate::task::Task;
use crate::wait::{PollEvents, WaitError, Wake};

/// A mask that matches every waiter, `FUTEX_BITSET_MATCH_ANY`.
pub const ANY: u32 = u32::MAX;
/// Buckets: threads of one sandbox seldom contend for one.
const BUCKETS: usize = 64;
/// Most entries of a robust list that are followed, `ROBUST_LIST_LIMIT`.
const ROBUST_LIMIT: usize = 2048;

/// What a waiter is woken by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `FUTEX_WAKE` and its kin.
    Plain,
    /// The lock of a priority-inheritance futex, which is handed to it.
    Lock,
    /// A requeue to this priority-inheritance futex, `FUTEX_WAIT_REQUEUE_PI`.
    Requeue(FutexKey),
}

struct Waiter {
    key: Mutex<FutexKey>,
    kind: Mutex<Kind>,
    bits: u32,
    woken: AtomicBool,
    task: Arc<Task>,
}

impl Waiter {
    fn new(task: &Arc<Task>, key: FutexKey, bits: u32, kind: Kind) -> Arc<Self> {
        let (key, kind) = (Mutex::new(key), Mutex::new(kind));
        Arc::new(Self { key, kind, bits, woken: AtomicBool::new(false), task: Arc::clone(task) })
    }

    fn waits(&self, key: FutexKey, kind: Kind) -> bool {
        *self.key.lock() == key && *self.kind.lock() == kind
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.task.parker.wake(PollEvents::empty());
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
        match enqueue(task, word, Kind::Plain) {
            Ok(waiter) => waiters.push(waiter),
            Err(errno) => {
                // A wake that came for an earlier word counts.
                return dequeue(&waiters).ok_or(errno);
            }
        }
    }
    let woken = || waiters.iter().position(|waiter| waiter.woken.load(Ordering::SeqCst));
    let slept = task.block_on(&[], PollEvents::empty(), deadline, woken);
    match (dequeue(&waiters), slept) {
        (Some(index), _) | (None, Ok(index)) => Ok(index),
        (None, Err(WaitError::TimedOut)) => Err(Errno::ETIMEDOUT),
        (None, Err(WaitError::Interrupted)) => Err(Errno::ERESTARTSYS),
    }
}

fn enqueue(task: &Arc<Task>, word: &Word, kind: Kind) -> Result<Arc<Waiter>, Errno> {
    if word.bits == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key(task, word.address, word.shared)?;
    let mut bucket = buckets()[index(key)].lock();
    if load(task, word.address)? != word.value {
        return Err(Errno::EAGAIN);
    }
    let waiter = Waiter::new(task, key, word.bits, kind);
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
        if woken < count as usize && waiter.waits(key, Kind::Plain) && waiter.bits & bits != 0 {
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
        if moved.len() < move_count as usize && waiter.waits(source, Kind::Plain) {
            *waiter.key.lock() = target;
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

/// How many threads wait for priority-inheritance locks or a requeue to one: exits look for theirs only when there are some.
static LOCK_WAITERS: AtomicUsize = AtomicUsize::new(0);

/// Whether a lock's word is free to take: nobody's, or that of a thread whose end was noted.
fn is_free(word: u32) -> bool {
    word & raw::FUTEX_TID_MASK == 0
}

/// Takes a lock for `tid` if it is free. Otherwise marks it as waited for when `contend` is set. The bucket is locked by the caller.
fn take_lock(task: &Task, address: u64, tid: u32, waited_for: bool, contend: bool) -> Result<bool, Errno> {
    loop {
        let word = load(task, address)?;
        let owner = word & raw::FUTEX_TID_MASK;
        let new = if is_free(word) {
            tid | word & raw::FUTEX_OWNER_DIED | if waited_for { raw::FUTEX_WAITERS } else { 0 }
        } else if owner == tid {
            return Err(Errno::EDEADLK);
        } else if task.find_task(owner as i32).is_none() {
            return Err(Errno::ESRCH);
        } else if contend {
            word | raw::FUTEX_WAITERS
        } else {
            return Ok(false);
        };
        if compare_exchange(task, address, word, new)? == word {
            return Ok(is_free(word));
        }
    }
}

/// `FUTEX_LOCK_PI` and `FUTEX_TRYLOCK_PI` (`try_only`). Waiters get the lock in the order in which they came; the host's scheduler is not
/// told of anybody's priority.
pub fn lock(task: &Arc<Task>, address: u64, shared: bool, deadline: Option<u64>, try_only: bool) -> Result<usize, Errno> {
    let key = key(task, address, shared)?;
    let tid = task.own_tid() as u32;
    let waiter = {
        let mut bucket = buckets()[index(key)].lock();
        let waited_for = bucket.iter().any(|waiter| waiter.waits(key, Kind::Lock));
        if take_lock(task, address, tid, waited_for, !try_only)? {
            return Ok(0);
        }
        if try_only {
            return Err(Errno::EAGAIN);
        }
        let waiter = Waiter::new(task, key, ANY, Kind::Lock);
        bucket.push(Arc::clone(&waiter));
        waiter
    };
    wait_for_lock(task, &waiter, deadline)
}

/// Sleeps until the lock is handed over.
fn wait_for_lock(task: &Arc<Task>, waiter: &Arc<Waiter>, deadline: Option<u64>) -> Result<usize, Errno> {
    LOCK_WAITERS.fetch_add(1, Ordering::SeqCst);
    let woken = || waiter.woken.load(Ordering::SeqCst).then_some(());
    let slept = task.block_on(&[], PollEvents::empty(), deadline, woken);
    let got = dequeue(std::slice::from_ref(waiter)).is_some();
    LOCK_WAITERS.fetch_sub(1, Ordering::SeqCst);
    match slept {
        _ if got => Ok(0),
        Err(WaitError::TimedOut) => Err(Errno::ETIMEDOUT),
        _ => Err(Errno::ERESTARTNOINTR),
    }
}

/// Gives a lock to the first who waits for it; false if nobody does. `died` adds `FUTEX_OWNER_DIED`.
fn hand_over(task: &Task, bucket: &mut Vec<Arc<Waiter>>, key: FutexKey, address: u64, died: u32) -> Result<bool, Errno> {
    let Some(position) = bucket.iter().position(|waiter| waiter.waits(key, Kind::Lock)) else { return Ok(false) };
    let new = bucket[position].task.own_tid() as u32 | raw::FUTEX_WAITERS | died;
    let mut word = load(task, address)?;
    loop {
        match compare_exchange(task, address, word, new)? {
            was if was == word => break,
            was => word = was,
        }
    }
    bucket.remove(position).wake();
    Ok(true)
}

/// `FUTEX_UNLOCK_PI`.
pub fn unlock(task: &Task, address: u64, shared: bool) -> Result<usize, Errno> {
    let key = key(task, address, shared)?;
    let mut bucket = buckets()[index(key)].lock();
    loop {
        let word = load(task, address)?;
        if word & raw::FUTEX_TID_MASK != task.own_tid() as u32 {
            return Err(Errno::EPERM);
        }
        if hand_over(task, &mut bucket, key, address, 0)? || compare_exchange(task, address, word, 0)? == word {
            return Ok(0);
        }
    }
}

/// `FUTEX_WAIT_REQUEUE_PI`: sleeps on a word until requeued to a lock and given that.
pub fn wait_requeue(task: &Arc<Task>, word: &Word, target: u64, deadline: Option<u64>) -> Result<usize, Errno> {
    if word.address == target {
        return Err(Errno::EINVAL);
    }
    let target = key(task, target, word.shared)?;
    let waiter = enqueue(task, word, Kind::Requeue(target))?;
    wait_for_lock(task, &waiter, deadline)
}

/// `FUTEX_CMP_REQUEUE_PI`: gives the lock to one waiter if it is free, lets up to `count` in all wait for it. Answers how many.
pub fn requeue_to_lock(task: &Task, (from, to): (u64, u64), count: usize, expected: u32, shared: bool) -> Result<usize, Errno> {
    if from == to {
        return Err(Errno::EINVAL);
    }
    let (source, target) = (key(task, from, shared)?, key(task, to, shared)?);
    let (mut first, mut second) = lock_two(index(source), index(target));
    if load(task, from)? != expected {
        return Err(Errno::EAGAIN);
    }
    if first.iter().any(|waiter| *waiter.key.lock() == source && *waiter.kind.lock() != Kind::Requeue(target)) {
        return Err(Errno::EINVAL);
    }
    let mut moved = Vec::new();
    first.retain(|waiter| {
        let chosen = moved.len() < count && waiter.waits(source, Kind::Requeue(target));
        if chosen {
            moved.push(Arc::clone(waiter));
        }
        !chosen
    });
    let total = moved.len();
    let bucket = second.as_mut().unwrap_or(&mut first);
    let mut moved = moved.into_iter();
    if let Some(top) = moved.next() {
        let waited_for = total > 1 || bucket.iter().any(|waiter| waiter.waits(target, Kind::Lock));
        match take_lock(task, to, top.task.own_tid() as u32, waited_for, true) {
            Ok(true) => top.wake(),
            Ok(false) => await_lock(bucket, top, target),
            Err(errno) => {
                first.extend(std::iter::once(top).chain(moved));
                return Err(errno);
            }
        }
    }
    let bucket = second.as_mut().unwrap_or(&mut first);
    moved.for_each(|waiter| await_lock(bucket, waiter, target));
    Ok(total)
}

fn await_lock(bucket: &mut Vec<Arc<Waiter>>, waiter: Arc<Waiter>, key: FutexKey) {
    *waiter.key.lock() = key;
    *waiter.kind.lock() = Kind::Lock;
    bucket.push(waiter);
}

/// A thread ends: locks on its robust list are marked as orphaned, and one waiter of each is woken, `get_robust_list(2)`; then those who
/// wait for its other priority-inheritance locks get them. The list is the guest's: unreadable or endless ones are given up.
pub fn release_owned(task: &Arc<Task>) {
    release_robust(task);
    if LOCK_WAITERS.load(Ordering::SeqCst) != 0 {
        release_locks(task);
    }
}

/// Hands over the private locks that the dying thread still owns.
fn release_locks(task: &Arc<Task>) {
    for bucket in buckets() {
        let keys: Vec<FutexKey> =
            bucket.lock().iter().filter(|waiter| *waiter.kind.lock() == Kind::Lock).map(|waiter| *waiter.key.lock()).collect();
        for found in keys {
            let FutexKey::Private(_, address) = found else { continue };
            let mut bucket = bucket.lock();
            let owned = key(task, address, false) == Ok(found)
                && load(task, address).is_ok_and(|word| word & raw::FUTEX_TID_MASK == task.own_tid() as u32);
            if owned {
                // The word was readable just now; another thread may unmap it, and then nobody can have the lock.
                let _ = hand_over(task, &mut bucket, found, address, raw::FUTEX_OWNER_DIED);
            }
        }
    }
}

fn release_robust(task: &Arc<Task>) {
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
        if entry & !1 != pending & !1 {
            release(task, (entry & !1).wrapping_add(offset), entry & 1 != 0);
        }
        match next {
            Ok(next) => entry = next,
            Err(_) => return,
        }
    }
    if pending != 0 {
        release(task, (pending & !1).wrapping_add(offset), pending & 1 != 0);
    }
}

/// Marks one lock; the lowest bit of a list's entry says that it inherits priority.
fn release(task: &Arc<Task>, address: u64, inherits: bool) {
    loop {
        let Ok(old) = load(task, address) else { return };
        if old & raw::FUTEX_TID_MASK != task.own_tid() as u32 {
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
        if inherits {
            if let Ok(key) = key(task, address, shared) {
                let _ = hand_over(task, &mut buckets()[index(key)].lock(), key, address, raw::FUTEX_OWNER_DIED);
            }
            continue;
        }
        let _ = wake(task, address, 1, ANY, shared);
    }
}
