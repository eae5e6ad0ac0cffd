//! Waiting for the other side of a slot: spinning a bounded time when a core is free for it, sleeping otherwise.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::futex;

use super::layout::{CORE_SEGMENT, Header, TURN_CALLS, TURN_CALLS_FAST, TURN_CALLS_RESUME, TURN_FAST, TURN_RESUME, TURN_TRAP};

/// Turns of a waiting loop before it sleeps, where every guest thread has two cores: about 50 us, longer than one sleep and wake together, so that a
/// peer which answers sooner is always waited for awake. One turn is a `PAUSE`, 25 to 40 ns on current processors.
const SPIN_TURNS: u32 = 1_500;
/// The same where cores are short: about 20 us, what a sleep and a wake on another core cost, so that waiting awake never costs more than twice what
/// sleeping at once would. Less is worse than nothing: after one sleep on either side the other waits for a wake, which takes longer than that.
const SHORT_SPIN_TURNS: u32 = 700;
/// Turns of a stub whose core another one will need in a moment: about 20 us, within which that is woken if it is at all. To wake it on a core that has
/// fallen asleep costs 12 us and more, to switch from one to the other 2 us.
const LINGER_TURNS: u32 = 600;
/// A wait that took no longer than this could have been spent awake: a wake alone may take 12 us.
const QUICK: Duration = Duration::from_micros(25);

/// How many guest threads are on their way (not blocked in the kernel), and what that means for spinning.
pub mod load {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::thread::futex;

    /// Guest threads that run, in the guest or in the kernel. One number for the process, as the load is on its host's cores.
    static RUNNING: AtomicU32 = AtomicU32::new(0);

    /// How many cores there are. The first call asks the host: make it while that may be asked.
    pub fn cores() -> u32 {
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

/// Sleeps: by the one call that waiting needs anyway.
pub fn pause(time: std::time::Duration) {
    let nothing = AtomicU32::new(0);
    let end = std::time::Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return;
        }
        let left = futex::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        // Over, or interrupted: in both cases look at the time.
        let _ = futex::wait(&nothing, futex::Flags::PRIVATE, 0, Some(&left));
    }
}

/// The core that this thread runs on, and its node.
fn core() -> u32 {
    let number: u32;
    // SAFETY: reads the limit of a segment that Linux has for this purpose; touches no memory.
    unsafe { std::arch::asm!("lsl {0:e}, {1:e}", out(reg) number, in(reg) CORE_SEGMENT, options(nomem, nostack)) };
    number
}

/// How long waiting awake pays: the guest thread must have stopped on another core than ours. On the same core it could not run before we sleep, nor
/// we before it does. (What the guest writes there decides about nothing else.)
fn spin_turns(header: &Header) -> u32 {
    // SAFETY: the header is valid; read once, since the guest may write to it.
    let other = unsafe { (&raw const header.core).read_volatile() };
    match core() == other {
        true => 0,
        false if load::may_spin() => SPIN_TURNS,
        false => SHORT_SPIN_TURNS,
    }
}

/// What a kernel thread has learnt about its guest thread: whether that comes back soon.
#[derive(Debug, Default)]
pub struct Habit(i8);

impl Habit {
    /// How many waits of one kind it takes to believe in it.
    const MEMORY: i8 = 4;

    fn is_quick(&self) -> bool {
        self.0 >= 0
    }

    fn note(&mut self, quick: bool) {
        self.0 = if quick { (self.0 + 1).min(Self::MEMORY) } else { (self.0 - 1).max(-Self::MEMORY) };
    }
}

/// Whether a turn is the stub's. The guest may write anything there: what is none of ours is the end of the thread.
fn is_stubs(turn: u32) -> bool {
    matches!(turn, TURN_RESUME | TURN_CALLS | TURN_CALLS_RESUME | TURN_FAST | TURN_TRAP | TURN_CALLS_FAST)
}

/// Hands the turn to the stub, waits until it comes back, and answers what it came back as.
pub fn hand_over(header: &Header, turn: u32, habit: &mut Habit) -> u32 {
    debug_assert!(is_stubs(turn));
    give(header, turn);
    take(header, habit)
}

/// Hands the turn to the stub; answers whether that slept. A slot whose process is dead stays so.
pub fn give(header: &Header, turn: u32) -> bool {
    header.spin.store(spin_turns(header), Ordering::Relaxed);
    let given = header.turn.compare_exchange(super::layout::TURN_KERNEL, turn, Ordering::SeqCst, Ordering::SeqCst);
    let slept = given.is_ok() && header.stub_sleeping.load(Ordering::SeqCst) != 0;
    if slept {
        let _ = futex::wake(&header.turn, futex::Flags::empty(), 1);
    }
    slept
}

/// Waits for the turn to be no longer the stub's; answers what it is then.
pub fn take(header: &Header, habit: &mut Habit) -> u32 {
    let turns = if habit.is_quick() { spin_turns(header) } else { 1 };
    for _ in 0..turns {
        let now = header.turn.load(Ordering::Acquire);
        if !is_stubs(now) {
            habit.note(true);
            return now;
        }
        std::hint::spin_loop();
    }
    let before = Instant::now();
    let turn = sleep(&header.turn, &header.kernel_sleeping);
    habit.note(before.elapsed() < QUICK);
    turn
}

/// Tells the stub how long to wait awake from now on that the answer will take a while: not at all, or until another one needs its core.
pub fn rest(header: &Header, linger: bool) {
    header.spin.store(if linger { LINGER_TURNS } else { 0 }, Ordering::Relaxed);
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
