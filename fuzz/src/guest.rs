//! A kernel in this process, and programs in it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cloudpilot_kernel::Interference;
use cloudpilot_kernel::config::{BootConfig, ExitStatus, Limits, Network, Program, Stdio, User};
use cloudpilot_sandbox::machine::Machine;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// What the executor is called inside.
pub const EXECUTOR: &str = "/executor";
const EXECUTOR_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/executor"));
/// How long a program may take before that is a hang. The executor gives it a quarter of a second; the rest is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long what a program left behind may take to go.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(10);
/// Guest memory, so that a bomb ends soon.
const MEMORY: u64 = 256 << 20;
/// Guest memory that may stay in use between two programs: caches, and what the executor itself has.
const MEMORY_SLACK: u64 = 16 << 20;
/// Descriptors that may stay open: caches of the lower layer, threads of the kernel.
const DESCRIPTOR_SLACK: usize = 64;
/// Descriptors are counted once in so many programs.
const COUNT_EVERY: u32 = 64;

/// The one kernel of this process.
pub fn machine() -> &'static Arc<dyn Machine> {
    static MACHINE: OnceLock<Arc<dyn Machine>> = OnceLock::new();
    MACHINE.get_or_init(|| {
        cloudpilot_kernel::Kernel::look_around();
        let limits = Limits { memory_bytes: MEMORY, processes: 128, open_files: 256, tmpfs_bytes: MEMORY / 4, cpus: 2 };
        let machine = cloudpilot_sandbox::guest::boot(BootConfig {
            hostname: "fuzz".to_owned(),
            root: Vec::new(),
            volumes: Vec::new(),
            limits,
            network: Network::None,
            provided_files: Vec::new(),
            patches_calls: true,
            strace: None,
            on_interference: Box::new(|what: Interference| panic!("a stub was {what:?} by somebody")),
        });
        let machine = machine.unwrap_or_else(|failure| panic!("{}", failure.message));
        put(&*machine, EXECUTOR, EXECUTOR_PROGRAM);
        machine
    })
}

/// Writes a program's file.
pub fn put(machine: &dyn Machine, path: &str, contents: &[u8]) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
    let contents = contents.to_vec();
    let writer = std::thread::spawn(move || {
        let mut rest = &contents[..];
        while !rest.is_empty() {
            match rustix::io::write(&write, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    });
    let root = User::Ids { uid: 0, gid: 0 };
    // It may be running still: then its place is taken by a new one.
    let _ = machine.files().remove(&root, path.as_bytes());
    machine.files().write_file(&root, path.as_bytes(), 0o755, read).expect("the file inside");
    writer.join().expect("writer");
}

/// Starts a program; its end comes by the channel. None where it cannot be started.
pub fn start(
    machine: &dyn Machine,
    args: &[&[u8]],
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
) -> Option<(i32, std::sync::mpsc::Receiver<ExitStatus>)> {
    let program = Program {
        args: args.iter().map(|arg| arg.to_vec()).collect(),
        env: Vec::new(),
        workdir: b"/".to_vec(),
        user: User::Ids { uid: 0, gid: 0 },
        stdio: Stdio::Host([input, output, None]),
    };
    let pid = machine.spawn(program).ok()?;
    let (told, end) = std::sync::mpsc::channel();
    let _ = machine.on_exit(
        pid,
        Box::new(move |status| {
            let _ = told.send(status);
        }),
    );
    Some((pid, end))
}

/// The executor, running.
struct Executor {
    input: OwnedFd,
    output: OwnedFd,
    /// What there was before the first program.
    threads: u64,
    memory: u64,
    descriptors: usize,
    runs: u32,
}

/// Whether a descriptor becomes readable in time. The engine's own signals interrupt the wait.
pub fn is_readable(descriptor: impl AsFd, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            ready => return ready.expect("poll") == 1,
        }
    }
}

fn figure(name: &str) -> u64 {
    machine().stats()[name].as_u64().unwrap_or(0)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

impl Executor {
    fn start() -> Self {
        let (theirs_in, input) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let (output, theirs_out) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let started = start(&**machine(), &[EXECUTOR.as_bytes()], Some(theirs_in), Some(theirs_out));
        started.expect("the executor starts");
        let mut executor = Self { input, output, threads: 0, memory: 0, descriptors: 0, runs: 0 };
        // The first program makes what stays: directories, caches, threads.
        executor.hand_over(&vec![0; crate::generator::PROGRAM_SIZE]);
        (executor.threads, executor.memory, executor.descriptors) = (figure("threads"), figure("memory_bytes"), descriptors());
        executor
    }

    /// False if the executor died of the program.
    fn hand_over(&mut self, program: &[u8]) -> bool {
        let mut rest = program;
        while !rest.is_empty() {
            match rustix::io::write(&self.input, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        assert!(
            is_readable(&self.output, PATIENCE),
            "hang: the program has not ended within {PATIENCE:?}; processes: {:?}",
            machine().processes()
        );
        rustix::io::read(&self.output, &mut [0; 1]) == Ok(1)
    }

    /// Nothing of a program may be left.
    fn look_for_leftovers(&mut self) {
        let deadline = Instant::now() + LEFTOVER_PATIENCE;
        loop {
            let (threads, memory) = (figure("threads"), figure("memory_bytes"));
            if threads <= self.threads && memory <= self.memory + MEMORY_SLACK {
                break;
            }
            assert!(Instant::now() < deadline, "leak: {threads} threads for {}, {memory} bytes for {}", self.threads, self.memory);
            std::thread::sleep(Duration::from_millis(1));
        }
        self.runs += 1;
        if self.runs.is_multiple_of(COUNT_EVERY) {
            let count = descriptors();
            assert!(count <= self.descriptors + DESCRIPTOR_SLACK, "leak: {count} descriptors for {}", self.descriptors);
        }
    }
}

/// Runs a program of system calls; panics if it hangs, or leaves something behind.
pub fn execute(program: &[u8]) {
    static EXECUTOR: std::sync::Mutex<Option<Executor>> = std::sync::Mutex::new(None);
    let mut slot = EXECUTOR.lock().expect("one thread");
    let executor = slot.get_or_insert_with(Executor::start);
    if executor.hand_over(program) {
        executor.look_for_leftovers();
    } else {
        // The program killed it, as root may. Another one is started for the next.
        *slot = None;
    }
}
