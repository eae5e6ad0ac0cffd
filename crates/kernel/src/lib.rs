//! The user-space kernel: one per sandbox. It serves every system call of the programs inside, and calls the host only through
//! `platform`, `memory`, the host-file filesystem, `host` and the clocks.

pub mod aio;
pub mod boot;
pub mod config;
pub mod fs;
pub mod futex;
pub mod host;
pub mod io;
pub mod ipc;
pub mod loader;
pub mod mm;
pub mod namespace;
pub mod net;
pub mod ptrace;
pub mod seccomp;
pub mod signal;
pub mod syscall;
pub mod system;
pub mod task;
pub mod time;
pub mod tty;
pub mod vfs;
pub mod wait;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_memory::MemoryFile;
use cloudpilot_platform::Platform;
pub use cloudpilot_platform::systrap::{Interference, pause};

use crate::config::{Limits, Network};
use crate::task::table::TaskTable;

/// Called with a line for the user outside.
pub type Notices = Box<dyn Fn(&str) + Send + Sync>;

/// Everything there is: all state of the sandbox is reachable from here.
pub struct Kernel {
    /// Limits of the sandbox.
    pub limits: Limits,
    /// What sockets reach.
    pub network: Network,
    /// Sockets.
    pub net: Arc<net::Net>,
    /// System V IPC and POSIX message queues.
    pub ipc: Arc<ipc::Ipc>,
    /// Guest memory.
    pub memory: Arc<MemoryFile>,
    /// Mounted filesystems.
    pub mounts: Arc<vfs::Mounts>,
    /// The namespaces that it boots with; set before the first task is made.
    pub namespaces: std::sync::OnceLock<namespace::Set>,
    /// How guests run.
    pub platform: Box<dyn Platform>,
    /// Programs that were started by requests of the control socket.
    pub requested: std::sync::atomic::AtomicU32,
    /// Tasks and processes.
    pub tasks: TaskTable,
    /// Names, sysctls, figures of the machine as a whole.
    pub system: system::System,
    /// Pseudoterminals.
    pub terminals: Arc<tty::Terminals>,
    /// Whether system-call sites are patched; off for programs that check their own code.
    pub patches_calls: bool,
    /// Where `--strace` prints.
    pub strace: Option<OwnedFd>,
    /// Calls that programs asked for in vain.
    pub unsupported: syscall::dispatch::Unsupported,
    /// Who hears what the kernel has to say to the user outside (the out-of-memory killer); set once after boot.
    pub notices: std::sync::OnceLock<Notices>,
    /// Ends of programs that were started from outside.
    pub exits: task::spawn::Exits,
}

impl Kernel {
    /// The namespaces of the first process.
    ///
    /// # Panics
    ///
    /// Before boot has made them.
    pub fn first_namespaces(&self) -> &namespace::Set {
        self.namespaces.get().expect("boot sets them before anything runs")
    }
}
