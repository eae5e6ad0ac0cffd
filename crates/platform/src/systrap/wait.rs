//! Waiting for the other side of a slot: spinning a bounded time when a core is free for it, sleeping otherwise.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::futex;

use super::layout::{CORE_SEGMENT, Header, TURN_CALLS, TURN_CALLS_FAST, TURN_CALLS_RESUME, TURN_FAST, TURN_RESUME, TURN_TRAP};

/// Turns of a waiting loop before it sleeps: about 50 us, longer than one sleep and wake together, so that a peer which answers sooner is
/// always waited for awake. One turn is a `PAUSE`, 25 to 40 ns on current processors.
const SPIN_TURNS: u32 = 1_500;

/// How many guest threads are on their way (not blocked in the kernel), and what that means for spinning.
pub mod load {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::thread::futex;

    /// Guest threads that run, in the guest or in the kernel. One number for the process, as the load is on its host's cores.
    static RUNNING: AtomicU32 = AtomicU32::new(0);

    fn cores() -> u32 {
        static CORES: OnceLock<u32> = OnceLock::new();
        *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, |count| count.get() as u32))
    }

    /// Somebody sleeps in [`wait_until_running`].
    static WATCHED: AtomicU32 = AtomicU32::new(0);

    /// A guest thread starts, or goes on after having been blocked.
    pub fn enter() {
        // Pairs with the watcher: it says that it watches, then looks; we count, then look for it.
        if RUNNING.fetch_add(1, Ordering::SeqCst) == 0 && WATCHED.load(Ordering::SeqCst) != 0 {
            let _ = futex::wake(&RUNNING, futex::Flags::PRIVATE, 1);
        }
    }

    /// Sleeps for as long as no guest thread runs. `idle` is called once if that takes longer than `patience`.
    pub fn wait_until_running(patience: Duration, idle: impl FnOnce()) {
        let patience = futex::Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
        let mut idle = Some(idle);
        WATCHED.store(1, Ordering::SeqCst);
        while RUNNING.load(Ordering::SeqCst) == 0 {
            let limit = idle.as_ref().map(|_| &patience);
            // Woken, interrupted or changed: in every case look again.
            if futex::wait(&RUNNING, futex::Flags::PRIVATE, 0, limit) == Err(rustix::io::Errno::TIMEDOUT)
                && let Some(idle) = idle.take()
            {
                idle();
            }
        }
        WATCHED.store(0, Ordering::SeqCst);
    }

    /// A guest thread ends, or blocks.
    pub fn leave() {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether every running guest thread can have two cores: its own and one for the side that waits.
    pub fn may_spin() -> bool {
        2 * RUNNING.load(Ordering::Relaxed) <= cores()
    }
}

/// The core that this thread runs on, and its node.
fn core() -> u32 {
    let number: u32;
    // SAFETY: reads the limit of a segment that Linux has for this purpose; touches no memory.
    unsafe { std::arch::asm!("lsl {0:e}, {1:e}", out(reg) number, in(reg) CORE_SEGMENT, options(nomem, nostack)) };
    number
}

/// Whether waiting awake pays: there are cores enough, and the guest thread stopped on another one than ours. On the same core it could not
/// run before we sleep, nor we before it does. (What the guest writes there decides about nothing else.)
fn may_spin(header: &Header) -> bool {
    // SAFETY: the header is valid; read once, since the guest may write to it.
    let other = unsafe { (&raw const header.core).read_volatile() };
    load::may_spin() && core() != other
}

/// Whether a turn is the stub's. The guest may write anything there: what is none of ours is the end of the thread.
fn is_stubs(turn: u32) -> bool {
    matches!(turn, TURN_RESUME | TURN_CALLS | TURN_CALLS_RESUME | TURN_FAST | TURN_TRAP | TURN_CALLS_FAST)
}

/// Hands the turn to the stub, waits until it comes back, and answers what it came back as.
pub fn hand_over(header: &Header, turn: u32) -> u32 {
    debug_assert!(is_stubs(turn));
    give(header, turn);
    take(header)
}

/// Hands the turn to the stub. A slot whose process is dead stays so.
pub fn give(header: &Header, turn: u32) {
    let spin = if may_spin(header) { SPIN_TURNS } else { 0 };
    header.spin.store(spin, Ordering::Relaxed);
    let given = header.turn.compare_exchange(super::layout::TURN_KERNEL, turn, Ordering::SeqCst, Ordering::SeqCst);
    if given.is_ok() && header.stub_sleeping.load(Ordering::SeqCst) != 0 {
        let _ = futex::wake(&header.turn, futex::Flags::empty(), 1);
    }
}

/// Waits for the turn to be no longer the stub's; answers what it is then.
pub fn take(header: &Header) -> u32 {
    if may_spin(header) {
        for _ in 0..SPIN_TURNS {
            let now = header.turn.load(Ordering::Acquire);
            if !is_stubs(now) {
                return now;
            }
            std::hint::spin_loop();
        }
    }
    sleep(&header.turn, &header.kernel_sleeping)
}

/// How long the guest thread may run before it is woken on suspicion: a guest that writes to its slots can make either side believe that the other
/// is awake. Only who runs is waited for here, so that an idle sandbox never gets that far.
const SUSPICION: futex::Timespec = futex::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

fn sleep(word: &AtomicU32, sleeping: &AtomicU32) -> u32 {
    sleeping.store(1, Ordering::SeqCst);
    let now = loop {
        let now = word.load(Ordering::SeqCst);
        if !is_stubs(now) {
            break now;
        }
        // Woken, interrupted or changed: in every case look again.
        if futex::wait(word, futex::Flags::empty(), now, Some(&SUSPICION)) == Err(rustix::io::Errno::TIMEDOUT) {
            let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
        }
    };
    sleeping.store(0, Ordering::Relaxed);
    now
}
