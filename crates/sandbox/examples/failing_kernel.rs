//! The sandbox binary with the real kernel, of which a thread breaks: when the first program ends, as its last argument says. For tests of what becomes
//! of a sandbox then.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloudpilot_abi::Errno;
use cloudpilot_kernel::config::{BootConfig, Program};
use cloudpilot_sandbox::failure::Failure;
use cloudpilot_sandbox::machine::{Files, Machine, OnExit, OnNotice};
use cloudpilot_sandbox::{command, guest};
use serde_json::Value;

/// Ways to break, as programs name them.
const WAYS: [&str; 6] = ["panic", "overflow", "fault", "abort", "memory", "call"];

struct Failing {
    kernel: Arc<dyn Machine>,
    /// Index of the way, or past the end.
    way: AtomicUsize,
}

#[expect(unconditional_recursion, reason = "the end of the stack is the purpose")]
fn descend(depth: u64) -> u64 {
    let page = std::hint::black_box([depth; 512]);
    page[0] + descend(depth + 1)
}

fn fail(way: usize) {
    match WAYS.get(way).copied() {
        Some("panic") => panic!("as asked"),
        Some("overflow") => drop(std::hint::black_box(descend(0))),
        // SAFETY: none: the fault is the purpose.
        Some("fault") => unsafe { std::ptr::without_provenance_mut::<u8>(16).write_volatile(1) },
        Some("abort") => std::process::abort(),
        Some("memory") => drop(std::hint::black_box(vec![1_u8; 1 << 46])),
        Some("call") => drop(rustix::process::getppid()),
        _ => {}
    }
}

impl Machine for Failing {
    fn spawn(&self, program: Program) -> Result<i32, Failure> {
        let last = program.args.last().map_or(&b""[..], |arg| arg);
        self.way.store(WAYS.iter().position(|way| way.as_bytes() == last).unwrap_or(usize::MAX), Ordering::Relaxed);
        self.kernel.spawn(program)
    }

    /// The callback runs in the kernel thread of the task that ends.
    fn on_exit(&self, pid: i32, then: OnExit) -> Result<(), Errno> {
        let way = self.way.load(Ordering::Relaxed);
        let broken = move |status| {
            fail(way);
            then(status);
        };
        self.kernel.on_exit(pid, Box::new(broken))
    }

    fn on_notice(&self, then: OnNotice) {
        self.kernel.on_notice(then);
    }

    fn signal(&self, pid: i32, signal: i32) -> Result<(), Errno> {
        self.kernel.signal(pid, signal)
    }

    fn resize(&self, pid: i32, rows: u16, columns: u16) -> Result<(), Errno> {
        self.kernel.resize(pid, rows, columns)
    }

    fn connect(&self, port: u16, host: OwnedFd, over: Box<dyn Send>) -> Result<(), Failure> {
        self.kernel.connect(port, host, over)
    }

    fn listen(&self, port: u16) -> Result<(), Failure> {
        self.kernel.listen(port)
    }

    fn accept(&self, port: u16, host: OwnedFd, over: Box<dyn Send>) -> Result<(), Failure> {
        self.kernel.accept(port, host, over)
    }

    fn processes(&self) -> Vec<Value> {
        self.kernel.processes()
    }

    fn stats(&self) -> Value {
        self.kernel.stats()
    }

    fn files(&self) -> &dyn Files {
        self.kernel.files()
    }
}

fn boot(config: BootConfig) -> Result<Arc<dyn Machine>, Failure> {
    Ok(Arc::new(Failing { kernel: guest::boot(config)?, way: AtomicUsize::new(usize::MAX) }))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    command::main(&arguments, boot).into()
}
