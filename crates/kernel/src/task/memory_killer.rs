//! The out-of-memory killer: when guest memory reaches its limit, the process that uses most of it ends, and a notice to the user outside says so.
//!
//! Guests touch memory without our help, so that the limit is watched by a thread of its own. It looks more often the closer the limit is, and
//! sleeps while no guest thread runs. The host's control group stands behind it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloudpilot_platform::systrap::load;

use super::{Process, exit};
use crate::Kernel;
use crate::host::thrift;

/// How fast guests are assumed to fill memory at most, bytes a second: what a few cores zeroing fresh pages reach.
const FILL_RATE: u64 = 4 << 30;
/// Bounds of the pause between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Time that a killed process is given to return its memory before the next one is chosen.
const PATIENCE: Duration = Duration::from_millis(200);
/// When nothing has run inside for that long, the sandbox gives back what it does not need to wait.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Stack of the thread.
const STACK_BYTES: usize = 128 << 10;
/// `oom_score_adj` of processes that are never chosen.
const NEVER: i32 = -1000;

/// Starts the thread that watches the limit.
pub fn start(kernel: &Arc<Kernel>) -> std::io::Result<()> {
    let memory = Arc::clone(&kernel.memory);
    let kernel = Arc::downgrade(kernel);
    let watch = move || {
        let mut served = 0;
        while let Some(kernel) = kernel.upgrade() {
            crate::pause(look(&kernel));
            // By now whoever was started by a request is on its way, and there is time for the next.
            let requested = kernel.requested.load(Ordering::Relaxed);
            if requested != std::mem::replace(&mut served, requested) {
                kernel.platform.prepare();
            }
            drop(kernel);
            load::wait_until_running(IDLE_AFTER, || {
                memory.trim();
                // Who is driven by requests is to answer the next one at once.
                if requested == 0 {
                    thrift::give_back();
                }
            });
        }
    };
    std::thread::Builder::new().name("memory".into()).stack_size(STACK_BYTES).spawn(watch).map(|_| ())
}

fn look(kernel: &Kernel) -> Duration {
    let limit = kernel.limits.memory_bytes;
    let mut used = kernel.memory.bytes_in_use();
    if used >= limit {
        kernel.memory.trim();
        used = kernel.memory.bytes_in_use();
    }
    if used >= limit {
        end_largest(kernel);
        return PATIENCE;
    }
    let time = Duration::from_nanos(((limit - used) as u128 * 1_000_000_000 / u128::from(FILL_RATE)) as u64);
    time.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// What makes a process the one to end: its memory, moved by `oom_score_adj` in thousandths of the limit.
fn badness(kernel: &Kernel, process: &Process) -> Option<u64> {
    let adjustment = process.oom_score_adjustment.load(Ordering::Relaxed);
    let tasks = {
        let family = process.family.lock();
        if process.is_init() || family.exit.is_some() || adjustment == NEVER {
            return None;
        }
        family.tasks.clone()
    };
    let resident = tasks.iter().find_map(|task| task.mm.lock().as_ref().map(|mm| mm.resident_bytes()))?;
    let moved = i128::from(resident) + i128::from(adjustment) * i128::from(kernel.limits.memory_bytes) / 1000;
    Some(moved.clamp(1, i128::from(u64::MAX)) as u64)
}

/// Ends the process that uses most memory, and says so.
pub fn end_largest(kernel: &Kernel) {
    let candidates = kernel.tasks.processes();
    let chosen = candidates.iter().filter_map(|process| Some((badness(kernel, process)?, process))).max_by_key(|(score, _)| *score);
    let Some((_, process)) = chosen else { return };
    let leader = process.family.lock().tasks.first().cloned();
    let name = leader.map_or_else(String::new, |task| String::from_utf8_lossy(&task.name.lock()).into_owned());
    let is_ending = process.family.lock().exiting.is_some();
    if is_ending {
        // Killed and chosen again: a tracer that lets it stop before its end would keep its memory for ever.
        exit::end_stops(process);
    }
    if !is_ending && let Some(tell) = kernel.notices.get() {
        let limit = kernel.limits.memory_bytes >> 20;
        tell(&format!("Out of memory: the sandbox reached its limit of {limit} MiB; process {} ({name}) was killed", process.pid));
    }
    exit::kill(process);
}
