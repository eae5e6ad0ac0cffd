//! The way in and out of every system call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cloudpilot_abi::Errno;

use super::{Args, Call, Support, SysResult, strace, table, user_dispatch};
use crate::seccomp::{self, Verdict};
use crate::task::Task;
use crate::{ptrace, signal};

/// How often each unsupported call was asked for, by number.
pub struct Unsupported(Vec<AtomicU64>);

impl Default for Unsupported {
    fn default() -> Self {
        Self((0..cloudpilot_abi::syscall::COUNT).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Unsupported {
    fn count(&self, number: u32) {
        if let Some(counter) = self.0.get(number as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Numbers that were asked for, and how often.
    pub fn counts(&self) -> Vec<(u32, u64)> {
        let counts = self.0.iter().enumerate().map(|(number, count)| (number as u32, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

/// Serves the system call that a task stopped at.
pub fn serve(task: &Arc<Task>) {
    let (number, args) = {
        let registers = &task.cpu.lock().registers;
        // Linux looks at the lower half alone.
        (registers.rax as u32, Args::of(registers))
    };
    // Nobody else hears of such a call; the registers stay as they were before it.
    if task.is_dispatched.load(Ordering::Relaxed) && user_dispatch::intercepts(task, number) {
        return;
    }
    let call = table::table().get(number as usize);
    let shown = task.kernel.strace.is_some();
    let result = if task.is_traced.load(Ordering::Relaxed) {
        ptrace::around_call(task, number, |number| {
            // The tracer may have changed number and arguments.
            let args = Args::of(&task.cpu.lock().registers);
            run(task, number, table::table().get(number as usize), &args)
        })
    } else if shown {
        traced(task, number, call, &args)
    } else {
        run(task, number, call, &args)
    };
    task.cpu.lock().registers.rax = match result {
        Ok(value) => value as u64,
        Err(errno) => errno.to_return(),
    };
    if task.is_traced.load(Ordering::Relaxed) {
        ptrace::after_call(task);
    }
    if let Err(errno) = result
        && (errno == Errno::EINTR || errno.is_restart())
    {
        signal::deliver(task, errno.is_restart().then_some((errno, number)));
    }
}

fn run(task: &Arc<Task>, number: u32, call: Option<&Call>, args: &Args) -> SysResult {
    if task.is_filtered.load(Ordering::Relaxed) {
        match seccomp::judge(task, number, args) {
            Verdict::Serve => {}
            Verdict::ServeOther(number) => {
                let args = Args::of(&task.cpu.lock().registers);
                return handle(task, number, table::table().get(number as usize), &args);
            }
            Verdict::Answer(answer) => return answer,
        }
    }
    handle(task, number, call, args)
}

fn handle(task: &Arc<Task>, number: u32, call: Option<&Call>, args: &Args) -> SysResult {
    let Some(call) = call else { return Err(Errno::ENOSYS) };
    if call.support == Support::Unsupported {
        task.kernel.unsupported.count(number);
    }
    (call.handler)(task, args)
}

fn traced(task: &Arc<Task>, number: u32, call: Option<&Call>, args: &Args) -> SysResult {
    let line = strace::Line::begin(task, number, call, args);
    let result = run(task, number, call, args);
    line.end(task, &result);
    result
}
