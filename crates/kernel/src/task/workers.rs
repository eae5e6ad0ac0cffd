//! Kernel threads. Each serves one task until that ends, and waits a moment for the next one: processes and threads come and go by the hundred, and
//! a thread of the host costs more to make and to end than to wake.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Task, run};
use crate::time::monotonic_ns;
use crate::wait::Parker;

/// Stack of a kernel thread: handlers keep large buffers on the heap. Only what is touched costs memory.
const STACK: usize = 256 << 10;
/// How long one waits for its next task: longer than a shell or a compiler driver needs to start the next program, and short enough that a sandbox
/// that has become quiet soon holds nothing it does not need.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many wait at most.
const MOST_WAITING: usize = 16;

/// Where a thread waits.
#[derive(Default)]
struct Seat {
    next: Mutex<Option<Arc<Task>>>,
    parker: Parker,
}

/// Those who wait, the last to come being the first to go. Whoever takes one out gives it a task.
static WAITING: Mutex<Vec<Arc<Seat>>> = Mutex::new(Vec::new());

/// Lets a kernel thread run a task.
pub fn start(task: &Arc<Task>) -> std::io::Result<()> {
    let task = Arc::clone(task);
    let waiting = WAITING.lock().pop();
    if let Some(seat) = waiting {
        *seat.next.lock() = Some(task);
        seat.parker.unpark();
        return Ok(());
    }
    std::thread::Builder::new().name("task".into()).stack_size(STACK).spawn(move || serve(task)).map(|_| ())
}

fn serve(first: Arc<Task>) {
    let seat = Arc::<Seat>::default();
    let mut next = Some(first);
    while let Some(task) = next {
        run::run(&task);
        drop(task);
        next = wait(&seat);
    }
}

/// Waits for a task; none comes once nobody has had one for a while, or if enough others wait.
fn wait(seat: &Arc<Seat>) -> Option<Arc<Task>> {
    {
        let mut waiting = WAITING.lock();
        if waiting.len() >= MOST_WAITING {
            return None;
        }
        waiting.push(Arc::clone(seat));
    }
    loop {
        seat.parker.park(Some(monotonic_ns() + PATIENCE.as_nanos() as u64));
        if let Some(task) = seat.next.lock().take() {
            return Some(task);
        }
        let mut waiting = WAITING.lock();
        if let Some(index) = waiting.iter().position(|other| Arc::ptr_eq(other, seat)) {
            waiting.remove(index);
            return None;
        }
        // Taken out by somebody whose task is on its way.
    }
}
